"""Bulk encoding as files: one part a slice of the input, so that whatever is killed goes on where it was.

Beyond one machine, any scheduler runs shards, Ray actors run :func:`encode_files`, and Spark,
Ray Data, Daft and Dask call :class:`Encode`.
"""

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
