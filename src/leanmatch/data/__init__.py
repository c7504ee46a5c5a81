"""Pair tables and item tables: reading, writing, checking, splitting.

Names are imported when they are first used, so that ``import leanmatch.data`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.lazy import find_name

if TYPE_CHECKING:
    from leanmatch.data.check import PairReport as PairReport
    from leanmatch.data.check import check_pairs as check_pairs
    from leanmatch.data.items import ItemTable as ItemTable
    from leanmatch.data.problems import SkippedRow as SkippedRow
    from leanmatch.data.readers.items import read_items as read_items
    from leanmatch.data.readers.pairs import iter_pairs as iter_pairs
    from leanmatch.data.readers.pairs import read_pairs as read_pairs
    from leanmatch.data.splitting.leakage import LeakageReport as LeakageReport
    from leanmatch.data.splitting.manifest import load_split as load_split
    from leanmatch.data.splitting.manifest import split_from_json as split_from_json
    from leanmatch.data.splitting.manifest import write_manifest as write_manifest
    from leanmatch.data.splitting.options import SplitOptions as SplitOptions
    from leanmatch.data.splitting.parts import Split as Split
    from leanmatch.data.splitting.split import split_pairs as split_pairs
    from leanmatch.data.table import PairTable as PairTable
    from leanmatch.data.text_form import normalized_text as normalized_text
    from leanmatch.data.writers import write_pairs as write_pairs

_HOMES = {
    "ItemTable": "items",
    "LeakageReport": "leanmatch.data.splitting.leakage",
    "PairReport": "check",
    "PairTable": "table",
    "SkippedRow": "problems",
    "Split": "leanmatch.data.splitting.parts",
    "SplitOptions": "leanmatch.data.splitting.options",
    "check_pairs": "check",
    "iter_pairs": "leanmatch.data.readers.pairs",
    "load_split": "leanmatch.data.splitting.manifest",
    "normalized_text": "leanmatch.data.text_form",
    "read_items": "leanmatch.data.readers.items",
    "read_pairs": "leanmatch.data.readers.pairs",
    "split_from_json": "leanmatch.data.splitting.manifest",
    "split_pairs": "leanmatch.data.splitting.split",
    "write_manifest": "leanmatch.data.splitting.manifest",
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
