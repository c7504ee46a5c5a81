"""The budget planner: measure layers, choose within a budget, train, check."""
