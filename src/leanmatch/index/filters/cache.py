"""Selections that were made lately, bounded in bytes; of the filters themselves only hashes are kept."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock

from leanmatch.index.filters.expression import Filter
from leanmatch.index.filters.text import filter_to_text
from leanmatch.index.search.scan import Selection

MAX_BYTES = 64 * 2**20
ENTRY_BYTES = 512
"""What an entry costs besides its rows: the key and Python's objects."""


class SelectionCache:
    """Keeps the most recently used selections. It is safe to use from threads.

    Args:
        max_bytes: of everything that is kept. A selection that is larger by itself is not kept.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._selections: OrderedDict[bytes, Selection] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._selections)

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return self._bytes

    @staticmethod
    def key(expression: Filter) -> bytes:
        """What a filter is remembered by: 32 bytes, however long the filter is.

        It is made from the text form, in which ``true`` and ``1`` differ; as Python values they are equal.
        """
        return hashlib.blake2b(
            filter_to_text(expression).encode("utf-8", "surrogatepass"), digest_size=32
        ).digest()

    def get(self, key: bytes) -> Selection | None:
        """The selection of that key, or None."""
        with self._lock:
            selection = self._selections.get(key)
            if selection is not None:
                self._selections.move_to_end(key)
            return selection

    def put(self, key: bytes, selection: Selection) -> None:
        """Keep a selection, and drop those that were not used for longest."""
        size = _size(selection)
        if size > self._max_bytes:
            return
        with self._lock:
            if key in self._selections:
                return
            self._selections[key] = selection
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, dropped = self._selections.popitem(last=False)
                self._bytes -= _size(dropped)


def _size(selection: Selection) -> int:
    return (
        int(selection.rows.nbytes) + selection.total // 8 + ENTRY_BYTES
    )  # rows, and the bitmap made of them
