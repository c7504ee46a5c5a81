"""What a running server tells: metrics, drift of queries, languages."""
