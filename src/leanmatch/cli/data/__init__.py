"""``leanmatch data``."""
