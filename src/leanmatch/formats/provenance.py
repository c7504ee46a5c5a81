"""``leanmatch.json``: where a saved matcher comes from. Plain JSON, read and written without torch."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanmatch.errors import FormatError
from leanmatch.formats.json_files import read_object
from leanmatch.types import JsonValue

FILE_NAME = "leanmatch.json"
FORMAT = "leanmatch-matcher"
FORMAT_VERSION = 1
MAX_BYTES = 16 * 2**20
"""A larger ``leanmatch.json`` is refused unread."""

GIVEN: Mapping[str, type | tuple[type, ...]] = {
    "base": (str, type(None)),
    "data": dict,
    "split": dict,
    "options": dict,
    "metrics": dict,
}
"""What the caller of :func:`leanmatch.formats.save_matcher` gives, with the type of each."""

WRITTEN: Mapping[str, type | tuple[type, ...]] = {
    "format": str,
    "format_version": int,
    "leanmatch_version": str,
    "created": str,
    "written_with": dict,
    "layout_notes": list,
    "parity": dict,
    "weights_sha256": str,
}
"""What the writer adds."""


def checked_provenance(given: Mapping[str, Any]) -> tuple[dict[str, JsonValue], list[str]]:
    """Make a caller's provenance storable.

    Fields of :data:`GIVEN` that are missing become empty; fields beyond it are kept. Numbers that JSON has
    no form for (NaN, infinities) become null, numpy scalars plain numbers, paths and dates text.

    Returns:
        the storable copy, and a note for each number that became null.

    Raises:
        FormatError: a field of the wrong type, one that the writer fills in itself, or a value with no
            JSON form.
    """
    reserved = sorted(set(given) & set(WRITTEN))
    if reserved:
        raise FormatError(
            f"provenance fields {reserved} are filled in by the writer",
            remedy=f"give only {', '.join(GIVEN)} and fields of your own",
        )
    notes: list[str] = []
    stored: dict[str, JsonValue] = {}
    for name, kind in GIVEN.items():
        value = given.get(name, None if name == "base" else {})
        if not isinstance(value, kind):
            raise FormatError(
                f"provenance field {name!r} is a {type(value).__name__}", remedy=f"it must be {_named(kind)}"
            )
        stored[name] = _plain(value, name, notes)
    for name, value in given.items():
        if name not in GIVEN:
            stored[name] = _plain(value, name, notes)
    return stored, notes


def read_provenance(folder: str | Path) -> dict[str, JsonValue] | None:
    """Read the ``leanmatch.json`` of a model folder; None where the folder has none.

    Raises:
        FormatError: it is there, but is truncated, too large, of another format or of a newer version.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        return None
    content = read_object(path, MAX_BYTES, _REMEDY)
    if content.get("format") != FORMAT:
        raise FormatError(f"{path} has format {content.get('format')!r}, not {FORMAT!r}", remedy=_REMEDY)
    version = content.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise FormatError(f"{path} has format_version {version!r}, not a whole number", remedy=_REMEDY)
    if version > FORMAT_VERSION:
        raise FormatError(
            f"{path} has format_version {version}; this leanmatch reads up to {FORMAT_VERSION}",
            remedy="update leanmatch",
        )
    for name, kind in {**GIVEN, **WRITTEN}.items():
        if not isinstance(content.get(name), kind):
            raise FormatError(
                f"{path}: field {name!r} is {content.get(name, 'missing')!r:.80}, not {_named(kind)}",
                remedy=_REMEDY,
            )
    return content


_REMEDY = "save the model again, or remove the file to use the folder without provenance"


def _named(kind: type | tuple[type, ...]) -> str:
    names = {str: "text", int: "a whole number", dict: "an object", list: "a list", type(None): "null"}
    return " or ".join(names[accepted] for accepted in (kind if isinstance(kind, tuple) else (kind,)))


def _plain(value: Any, where: str, notes: list[str]) -> JsonValue:
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        notes.append(f"{where} was {value}, stored as null")
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, f"{where}.{key}", notes) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{where}[{index}]", notes) for index, entry in enumerate(value)]
    if isinstance(value, Path | datetime.date):
        return str(value)
    raise FormatError(
        f"provenance {where} is a {type(value).__name__}, which JSON has no form for",
        remedy="give text, numbers, lists and dictionaries",
    )
