"""``leanmatch compress``."""
