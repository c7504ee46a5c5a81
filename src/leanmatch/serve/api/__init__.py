"""The HTTP API: routes, schemas, limits, errors."""
