"""Pair tables and item tables: reading, writing, checking, splitting.

Names are imported when they are first used, so that ``import leanmatch.data`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.lazy import find_name

if TYPE_CHECKING:
    from leanmatch.data.check import PairReport as PairReport
    from leanmatch.data.check import check_pairs as check_pairs
    from leanmatch.data.itemreaders import read_items as read_items
    from leanmatch.data.items import ItemTable as ItemTable
    from leanmatch.data.leakage import LeakageReport as LeakageReport
    from leanmatch.data.manifest import load_split as load_split
    from leanmatch.data.manifest import split_from_json as split_from_json
    from leanmatch.data.manifest import write_manifest as write_manifest
    from leanmatch.data.parts import Split as Split
    from leanmatch.data.problems import SkippedRow as SkippedRow
    from leanmatch.data.readers import iter_pairs as iter_pairs
    from leanmatch.data.readers import read_pairs as read_pairs
    from leanmatch.data.split import split_pairs as split_pairs
    from leanmatch.data.splitoptions import SplitOptions as SplitOptions
    from leanmatch.data.table import PairTable as PairTable
    from leanmatch.data.textform import normalized_text as normalized_text
    from leanmatch.data.writers import write_pairs as write_pairs

_HOMES = {
    "ItemTable": "items",
    "LeakageReport": "leakage",
    "PairReport": "check",
    "PairTable": "table",
    "SkippedRow": "problems",
    "Split": "parts",
    "SplitOptions": "splitoptions",
    "check_pairs": "check",
    "iter_pairs": "readers",
    "load_split": "manifest",
    "normalized_text": "textform",
    "read_items": "itemreaders",
    "read_pairs": "readers",
    "split_from_json": "manifest",
    "split_pairs": "split",
    "write_manifest": "manifest",
    "write_pairs": "writers",
}
__all__ = [
    "ItemTable",
    "LeakageReport",
    "PairReport",
    "PairTable",
    "SkippedRow",
    "Split",
    "SplitOptions",
    "check_pairs",
    "iter_pairs",
    "load_split",
    "normalized_text",
    "read_items",
    "read_pairs",
    "split_from_json",
    "split_pairs",
    "write_manifest",
    "write_pairs",
]


def __getattr__(name: str) -> Any:
    return find_name(__name__, _HOMES, name)
