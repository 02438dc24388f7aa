"""Differentiable Architecture Compression: search one nested family of architectures for many budgets."""
