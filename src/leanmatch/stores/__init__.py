"""Items outside this machine's files: PostgreSQL with pgvector, and Qdrant, behind one protocol."""

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
