"""What a client shows of a metadata column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from leanmatch.index.storage.columns import CodedColumn


def facet(name: str, kind: str, coded: CodedColumn, most_values: int) -> Mapping[str, Any]:
    """Type and, with counts, the values of a column where they are few, else its range."""
    out: dict[str, Any] = {"name": name, "type": kind, "present": int(coded.present.sum())}
    if kind == "text":
        out["distinct"] = len(coded.values)
        if len(coded.values) <= most_values:
            counts = np.bincount(coded.codes[coded.present], minlength=len(coded.values))
            out["values"] = [
                {"value": value, "count": int(n)} for value, n in zip(coded.values, counts, strict=True)
            ]
        elif coded.numeric is not None:
            least, greatest = coded.numeric.ends()
            out |= {"min": least, "max": greatest}
    elif kind == "boolean":
        true = int(coded.codes[coded.present].sum())
        out["values"] = [
            {"value": True, "count": true},
            {"value": False, "count": out["present"] - true},
        ]
    elif out["present"]:
        least, greatest = coded.ends()
        out |= {"min": least, "max": greatest}
    return out
