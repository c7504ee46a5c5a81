"""The columns of a table: which names mean something, and how a file's columns become ours."""
