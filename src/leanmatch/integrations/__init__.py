"""leanmatch inside other people's frameworks. Each module needs the extra of its name."""

__all__: list[str] = []
