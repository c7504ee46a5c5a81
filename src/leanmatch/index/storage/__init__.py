"""A catalogue's files: manifest, segments, columns, and the transaction that changes them."""
