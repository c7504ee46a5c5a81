"""What runs where, as a table: for ``leanmatch inspect --runtime``."""

from __future__ import annotations

from typing import Any

from leanmatch.runtime.encoder import NativeEncoder
from leanmatch.runtime.fallback import FallbackEncoder
from leanmatch.runtime.kernels.choice import TOKENS

COLUMNS = ("form", "layers", "path", "level", "bytes", "microseconds a token")


def runtime_choices(encoder: NativeEncoder | FallbackEncoder) -> list[dict[str, Any]]:
    """One row for each form of linear layer in the order of first use; none for a model without layers.

    Keys: ``form`` (shape and kind of the weight), ``layers`` (names), ``path`` (what runs), ``level``,
    ``bytes`` (packed, of all these layers), ``microseconds`` (every path that could run, to its times at
    ``tokens``; empty unless :func:`leanmatch.runtime.loading.load_timed` loaded the model), ``tokens``.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for choice in encoder.choices:
        row = rows.setdefault(
            (choice.form, choice.path, choice.level),
            {
                "form": choice.form,
                "layers": [],
                "path": choice.path,
                "level": choice.level,
                "bytes": 0,
                "tokens": list(TOKENS),
                "microseconds": {path: list(times) for path, times in choice.microseconds.items()},
            },
        )
        row["layers"].append(choice.name)
        row["bytes"] += choice.bytes
    return list(rows.values())


def runtime_rows(encoder: NativeEncoder | FallbackEncoder) -> list[tuple[str, ...]]:
    """:func:`runtime_choices` as text, in the order of :data:`COLUMNS`."""
    out: list[tuple[str, ...]] = []
    for row in runtime_choices(encoder):
        timed = "; ".join(
            f"{path} {' / '.join(f'{duration:.2f}' for duration in times)}"
            for path, times in row["microseconds"].items()
        )
        measured = f"{timed} (at {' / '.join(map(str, row['tokens']))})" if timed else "not timed"
        out.append(
            (row["form"], str(len(row["layers"])), row["path"], row["level"], f"{row['bytes']:,}", measured)
        )
    return out
