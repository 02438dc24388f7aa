"""The quality benchmark; `python benchmarks/quality` runs it."""
