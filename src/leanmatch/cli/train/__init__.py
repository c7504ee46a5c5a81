"""``leanmatch train``."""
