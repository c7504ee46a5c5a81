"""Splitting a pair table into train, valid and tests, without leakage."""
