"""First factors found in the order of the data: each layer mends the errors of those before it."""
