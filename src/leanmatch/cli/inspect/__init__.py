"""``leanmatch inspect``."""
