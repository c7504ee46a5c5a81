"""Ranking metrics: tasks, candidates, search, and scores of each query."""
