"""Sparse codes on given atoms: natively, in batched torch, and the slow reference."""
