"""From a layer's weight to its compressed form: which solver runs, and on what."""
