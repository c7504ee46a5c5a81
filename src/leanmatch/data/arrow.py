"""pyarrow, which pair tables and Parquet need: extra ``data``. What serves and indexes does without it."""

from __future__ import annotations

from typing import Any

from leanmatch.errors import MissingExtraError

try:
    import pyarrow as pa
    import pyarrow.compute as pc
except ModuleNotFoundError as error:
    raise MissingExtraError("pyarrow", "data", "a pair table or a Parquet file") from error

__all__ = ["pa", "parquet", "pc"]


def parquet() -> Any:
    """``pyarrow.parquet``, which takes its time to load."""
    import pyarrow.parquet as pq

    return pq
