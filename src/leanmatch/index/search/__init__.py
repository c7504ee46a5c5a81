"""Searching item vectors: exact, approximate, and which of the two is used."""
