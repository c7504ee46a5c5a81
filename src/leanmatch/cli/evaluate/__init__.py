"""``leanmatch evaluate``."""
