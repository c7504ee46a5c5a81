"""The surface of sentence-transformers: what ``encode`` takes and gives, and how vectors are compared."""
