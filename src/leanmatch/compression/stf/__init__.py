"""The Straight-Through Factorizer: supports that are learned with values and atoms."""
