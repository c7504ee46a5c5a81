"""What a split is: four sets of rows of one table."""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.splitting.leakage import LeakageReport
from leanmatch.data.splitting.options import SplitOptions
from leanmatch.data.table import PairTable
from leanmatch.types import JsonValue

FORMAT, VERSION = "leanmatch-split", 1
PARTS = ("train", "valid", "test_in", "test_out")


@dataclass(frozen=True)
class Split:
    """The parts of a table.

    Attributes:
        table: the table that was split.
        options: how.
        rows: row numbers of each part, from 0, ascending; a row is in one part at most.
        leakage: what was found and removed.
        notes: what a reader should know, e.g. a part that is smaller than asked.
    """

    table: PairTable
    options: SplitOptions
    rows: dict[str, NDArray[np.int64]]
    leakage: LeakageReport
    notes: tuple[str, ...] = ()

    @cached_property
    def train(self) -> PairTable:
        """What is trained on."""
        return self.table.take(self.rows["train"])

    @cached_property
    def valid(self) -> PairTable:
        """What choices are made on."""
        return self.table.take(self.rows["valid"])

    @cached_property
    def test_in(self) -> PairTable:
        """The test in distribution."""
        return self.table.take(self.rows["test_in"])

    @cached_property
    def test_out(self) -> PairTable:
        """The test out of distribution: held-out groups, and rows after the date."""
        return self.table.take(self.rows["test_out"])

    def manifest(self) -> JsonValue:
        """What reproduces the split on the same table; see :mod:`leanmatch.data.splitting.manifest`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "source": Path(self.table.source).name,
            "rows": len(self.table),
            "fingerprint": self.table.fingerprint(),
            "options": self.options.to_json(),
            "leakage": self.leakage.to_json(),
            "notes": list(self.notes),
            "parts": {name: _packed(self.rows[name], len(self.table)) for name in PARTS},
        }


def _packed(rows: NDArray[np.int64], count: int) -> dict[str, Any]:
    mask = np.zeros(count, np.bool_)
    mask[rows] = True
    bits = np.packbits(mask).tobytes()
    return {
        "rows": len(rows),
        "sha256": hashlib.sha256(bits).hexdigest(),
        "bits": base64.b64encode(zlib.compress(bits, 9)).decode("ascii"),
    }
