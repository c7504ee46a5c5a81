"""Choosing among trained models: validation, averages with the base, a shifted slice."""
