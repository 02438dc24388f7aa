"""Data sets: where images come from, how they are divided, batched and augmented."""
