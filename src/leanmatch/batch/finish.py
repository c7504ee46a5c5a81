"""The end of a bulk encoding: all parts are there, and no identifier comes twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from leanmatch.batch.locations import Folder
from leanmatch.batch.parts import open_part
from leanmatch.batch.plan import Plan
from leanmatch.batch.rows import ID, LINE
from leanmatch.errors import DataError, FormatError

COMPLETE = "complete.json"


@dataclass(frozen=True)
class Complete:
    """What a finished output holds.

    Attributes:
        key: of its plan.
        rows: that count.
        skipped: bad rows that were left out.
        superseded: rows by part whose identifier comes again later; they do not count.
    """

    key: str
    rows: int
    skipped: int
    superseded: dict[int, list[int]]

    @classmethod
    def read(cls, folder: Folder, plan: Plan) -> Complete | None:
        """What an earlier call found; None where it did not end.

        Raises:
            FormatError: it is damaged.
        """
        content = folder.read(COMPLETE)
        if content is None:
            return None
        try:
            value = json.loads(content)
            superseded = {int(part): list(map(int, rows)) for part, rows in value["superseded"].items()}
            complete = cls(value["key"], int(value["rows"]), int(value["skipped"]), superseded)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                f"{folder}/{COMPLETE}: it is damaged ({error})", remedy="remove it and encode again"
            ) from error
        return complete if complete.key == plan.key else None


def finish(folder: Folder, plan: Plan, on_duplicate: str) -> Complete:
    """Check the parts, look for identifiers that come twice, and write ``complete.json``.

    Identifiers are compared by a hash of 64 bits; only those whose hash comes twice are compared as text. So
    8 bytes a row are held.

    Raises:
        DataError: an identifier comes twice, with both places, where ``on_duplicate`` is ``error``.
        FormatError: a part that is damaged or of another plan.
    """
    hashes, bounds, skipped = [], [0], 0
    for number in range(len(plan.slices)):
        file, note = open_part(folder, number, plan.key)
        hashes.append(_hashes(file))
        bounds.append(bounds[-1] + note.rows)
        skipped += note.skipped
    superseded: dict[int, list[int]] = {}
    for first, last in _repeated(folder, plan, np.concatenate(hashes), np.asarray(bounds)):
        if on_duplicate == "error":
            raise _twice(plan, first, last)
        superseded.setdefault(first.part, []).append(first.row)
    rows = bounds[-1] - sum(map(len, superseded.values()))
    complete = Complete(
        plan.key, rows, skipped, {part: sorted(superseded[part]) for part in sorted(superseded)}
    )
    folder.put_bytes(COMPLETE, (json.dumps(asdict(complete)) + "\n").encode())
    return complete


@dataclass(frozen=True)
class Place:
    """A row of a part, with its identifier and its line in the file that it comes from."""

    part: int
    row: int
    name: str
    line: int


def _hashes(file: Any) -> Any:
    column = file.read(columns=[ID]).column(ID).to_pylist()
    joined = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in column)
    return np.frombuffer(joined, np.uint64)


def _repeated(folder: Folder, plan: Plan, hashes: Any, bounds: Any) -> Iterator[tuple[Place, Place]]:
    """Each row whose identifier comes again, with the next row that has it."""
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    rows = np.unique(np.concatenate([order[same], order[same + 1]]))
    parts = np.searchsorted(bounds, rows, side="right") - 1
    last: dict[str, Place] = {}
    for part in np.unique(parts).tolist():
        file, _ = open_part(folder, part, plan.key)
        table = file.read(columns=[ID, LINE])
        for row in (rows[parts == part] - bounds[part]).tolist():
            row_place = Place(part, row, table[ID][row].as_py(), table[LINE][row].as_py())
            if row_place.name in last:
                yield last[row_place.name], row_place
            last[row_place.name] = row_place


def _twice(plan: Plan, first: Place, second: Place) -> DataError:
    places = [f"{plan.files[plan.slices[place.part].file][0]}:{place.line}" for place in (first, second)]
    return DataError(
        f"the identifier comes twice: at {places[0]} and at {places[1]}",
        column=plan.id_column,
        value=first.name,
        remedy="give each item its own identifier; or let the last row count: on_duplicate='last'. "
        "What was encoded is kept",
        command="give each item its own identifier; or let the last row count: --on-duplicate last. "
        "What was encoded is kept",
    )
