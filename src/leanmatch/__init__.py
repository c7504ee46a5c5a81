"""leanmatch: text matchers that are robust out of distribution and lean enough for plain CPUs."""

__version__ = "0.1.0"
