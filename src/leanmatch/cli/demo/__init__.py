"""``leanmatch demo``: from docstrings to a served, compressed matcher, by the commands that users have."""
