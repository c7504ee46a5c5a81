"""Filters on item metadata: expression, text form, and the mask of rows."""
