"""Baselines of dense-sparse factors: low rank, N:M pruning, product quantization, rounding."""
