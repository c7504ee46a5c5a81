"""``leanmatch index``."""
