"""From a file's columns to ours: what the user says, then our own names, then usual names that fit."""

from __future__ import annotations

import difflib
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leanmatch.data.columns.names import KNOWN, REQUIRED, is_known
from leanmatch.data.columns.roles import (
    SCORE_NAMES,
    USUAL_NAMES,
    Recognized,
    is_zero_or_one,
    plain_name,
    recognize,
)
from leanmatch.errors import DataError, UsageError

ROWS_LOOKED_AT = 1000
"""Rows whose values decide what a column with a usual name holds."""
SUSPECTS_NAMED = 5
"""Columns that may be labels, and are named in a warning."""


@dataclass(frozen=True)
class ColumnMapping:
    """How the columns of a file are read.

    Attributes:
        columns: our name to the file's, for each column that was named or recognized.
        recognized: those of ``columns`` that nobody named.
        suspects: columns of zeros and ones that may say whether a pair matches, in a file without a label.
        zero_grades: whether ``relevance`` has zeros in a file without a label.
        scores: a column that says how similar two texts are, in a file without a label.
    """

    columns: dict[str, str]
    recognized: dict[str, str]
    suspects: tuple[str, ...] = ()
    zero_grades: bool = False
    scores: str | None = None

    def names(self, names: Sequence[str]) -> list[str]:
        """Our name for each of the file's columns."""
        ours = {theirs: name for name, theirs in self.columns.items()}
        return [ours.get(name, name) for name in names]

    def remarks(self, *, command: bool) -> list[str]:
        """What the user should be told, in words of the command line or of Python."""
        lines = []
        if self.recognized:
            change = "--column" if command else "columns="
            lines.append(f"Reading {in_words(self.recognized)}; {change} to change")
        if self.suspects:
            name = self.suspects[0]
            named, kept = (_spelled({ours: name}, command=command) for ours in ("label", name))
            others = f" So may {_some(self.suspects[1:])}." if len(self.suspects) > 1 else ""
            lines.append(
                f"WARNING: no column is read as the label, so every row counts as a match. Column {name!r} "
                f"may be one: {named} reads it as the label, {kept} keeps it as it is.{others}"
            )
        if self.zero_grades:
            lines.append(
                "WARNING: some rows have relevance 0, but no column is read as the label, so they count as "
                "matches. Add a column label: 0 for a pair that does not match"
            )
        if self.scores is not None:
            lines.append(
                f"WARNING: column {self.scores!r} is not read, so every row counts as a match, however low "
                "its score. Add a column label: 1 for a pair that matches, 0 for one that does not"
            )
        return lines


def _some(names: Sequence[str]) -> str:
    """The first of some names, and how many there are."""
    more = f" and {len(names) - SUSPECTS_NAMED:,} more" if len(names) > SUSPECTS_NAMED else ""
    return ", ".join(map(repr, names[:SUSPECTS_NAMED])) + more


def in_words(columns: Mapping[str, str]) -> str:
    """``{"anchor": "query"}`` as "query as anchor"."""
    return ", ".join(f"{theirs} as {ours}" for ours, theirs in columns.items())


def warn_python(mapping: ColumnMapping) -> None:
    """Tell a caller in Python how a file is read."""
    for line in mapping.remarks(command=False):
        warnings.warn(line, stacklevel=3)


def map_columns(
    columns: Mapping[str, Sequence[Any]], given: Mapping[str, str] | None, *, path: object = None
) -> ColumnMapping:
    """Decide how a file's columns are read.

    Args:
        columns: values of the file's first rows by its column names.
        given: our name to the file's, e.g. ``{"anchor": "query"}``; a column that is given its own name is
            kept as it is.
        path: the file, for messages.

    Raises:
        DataError: a column that is not there, a required one that is missing, several that may be meant; the
            remedy names every column that has to be named.
        UsageError: one column is to be read as two.
    """
    given = dict(given or {})
    _check_given(columns, given, path)
    used = set(given.values())
    clashing = [name for name in given if name in columns and name not in used]
    if clashing:
        name = clashing[0]
        full = {**given, f"other_{name}": name}
        raise DataError(
            f"{given[name]!r} is to be read as {name!r}, but the file has a column {name!r}, too",
            path=path,
            remedy=f"give that one another name: {_spelled(full)}",
            command=f"give that one another name: {_spelled(full, command=True)}",
        )
    present = {*given, *(name for name in columns if name not in used)}
    wanted = [name for name in USUAL_NAMES if name not in present]
    recognized = recognize(columns, given, wanted)
    for name in (*REQUIRED, "label"):
        if name in recognized.ambiguous:
            _refuse_ambiguous(name, columns, given, recognized, path)
    missing = [name for name in REQUIRED if name not in present and name not in recognized.columns]
    if missing:
        _refuse_missing(missing, columns, given, path)
    matched = {ours: theirs for ours, theirs in recognized.columns.items() if ours in wanted}
    unlabelled = "label" not in present and "label" not in matched
    grades = matched.get("relevance") or given.get("relevance") or "relevance"
    return ColumnMapping(
        {**given, **matched},
        matched,
        _suspects(columns, {*used, *matched.values()}) if unlabelled else (),
        unlabelled and any(str(value) in ("0", "0.0") for value in columns.get(grades, ())),
        _score_column(columns, {*used, *matched.values()}) if unlabelled else None,
    )


def columns_for(
    names: Sequence[str], remembered: Mapping[str, str], given: Mapping[str, str], *, model: str, path: object
) -> tuple[dict[str, str], list[str]]:
    """The mapping of a file that is read for a model: what is given, then what its training remembered.

    Args:
        names: the file's columns.
        remembered: our name to that of the training data.
        given: our name to the file's.
        model: its name, for messages.
        path: the file, for messages.

    Returns:
        the mapping, and remarks.

    Raises:
        DataError: the file has neither the columns of the training data nor ours.
    """
    rest = {o: t for o, t in remembered.items() if o not in given and t not in given.values()}
    absent = {ours: theirs for ours, theirs in rest.items() if theirs not in names}
    needed = [ours for ours in REQUIRED if ours in absent]
    if needed and all(name in names for name in needed):
        return dict(given), []  # a table with our own names
    if needed:
        remedy, command = _remedies("say which columns to use", _completed(dict.fromkeys(names, ()), given))
        raise DataError(
            f"{model} was trained on a table that has {in_words({o: absent[o] for o in needed})}; "
            f"this one has the columns {', '.join(names)}",
            path=path,
            remedy=remedy,
            command=command,
        )
    used = {ours: theirs for ours, theirs in rest.items() if ours not in absent}
    remarks = [f"Reading {in_words(used)}, as in the training of {model}"] if used else []
    for ours, theirs in absent.items():
        remarks.append(f"the table has no column {theirs!r}, which was the {ours} when {model} was trained")
    return {**used, **given}, remarks


def _check_given(columns: Mapping[str, Any], given: dict[str, str], path: object) -> None:
    twice = [theirs for theirs in given.values() if list(given.values()).count(theirs) > 1]
    if twice:
        both = [ours for ours, theirs in given.items() if theirs == twice[0]]
        raise UsageError(
            f"column {twice[0]!r} is to be read twice: as {' and as '.join(map(repr, both))}",
            remedy="read each column of the file once",
        )
    corrected: dict[str, str] = {}
    wrong: list[str] = []
    for ours, theirs in given.items():
        right = _corrected(ours, theirs, columns, given)
        if right != (ours, theirs) or theirs not in columns:
            wrong.append(_fault(ours, theirs, columns))
        if right is not None:
            corrected[right[0]] = right[1]
    if wrong:
        remedy, command = _remedies("write", _completed(columns, corrected))
        raise DataError(
            f"{'; '.join(wrong)}; the columns are: {', '.join(columns)}",
            path=path,
            remedy=remedy,
            command=command,
        )


def _fault(ours: str, theirs: str, columns: Mapping[str, Any]) -> str:
    if theirs not in columns:
        return f"there is no column {theirs!r} to read as {ours!r}"
    if theirs in KNOWN:
        return f"our own column {theirs!r} is to be read as {ours!r}"
    return f"no column of ours is called {ours!r}, which {theirs!r} is to be read as"


def _corrected(
    ours: str, theirs: str, columns: Mapping[str, Any], given: Mapping[str, str]
) -> tuple[str, str] | None:
    """The mapping that was probably meant by ``ours=theirs``; None where no name is similar."""
    hidden = theirs in columns and theirs not in given and not is_known(ours)  # nothing else takes its place
    if theirs in KNOWN and (theirs not in columns or hidden):  # the wrong way round
        turned = ours if ours in columns else _near(ours, [name for name in columns if name != theirs])
        if turned is not None:
            return theirs, turned
    name: str | None = theirs if theirs in columns else _near(theirs, columns)
    if name is None:
        return None
    if not is_known(ours) and ours != theirs:
        free = [role for role in KNOWN if role not in given and role not in columns]
        ours = _near(ours, free, cutoff=0.75) or ours
    return ours, name


def _near(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    plain = {plain_name(candidate): candidate for candidate in names}
    close = difflib.get_close_matches(plain_name(name), list(plain), n=1, cutoff=cutoff)
    return plain[close[0]] if close else None


def _completed(columns: Mapping[str, Sequence[Any]], given: Mapping[str, str]) -> dict[str, str] | None:
    """A complete mapping to suggest, with every required column; None where the file has too few columns."""
    full = dict(given)
    for ours in given:
        if ours in columns and ours not in given.values():
            full[f"other_{ours}"] = ours
    recognized = recognize(columns, full, USUAL_NAMES)
    choices = {ours: [theirs] for ours, theirs in recognized.columns.items()}
    choices |= {ours: list(names) for ours, names in recognized.ambiguous.items()}
    for ours in REQUIRED:
        if ours in full or (ours in columns and ours not in full.values()):
            continue
        free = [name for name in columns if name not in full.values() and not is_known(name)]
        likely = [name for name in choices.get(ours, ()) if name in free]
        named = [name for name in free if plain_name(name) in USUAL_NAMES[ours]]
        usual = {entry for entries in USUAL_NAMES.values() for entry in entries}
        others = [name for name in free if plain_name(name) not in usual]
        words = [name for name in others if _holds_text(columns[name])]
        near = _near(ours, others)
        options = [*likely, *named, *([near] if near else []), *words]
        if not options:
            return None
        full[ours] = options[0]
    labels = recognized.ambiguous.get("label", ())
    if labels and "label" not in full and "label" not in columns:
        full["label"] = labels[0]
    return full


def _holds_text(values: Sequence[Any]) -> bool:
    return not values or any(isinstance(value, str) and any(map(str.isalpha, value)) for value in values)


def _refuse_missing(
    missing: list[str], columns: Mapping[str, Sequence[Any]], given: Mapping[str, str], path: object
) -> None:
    header = next(iter(columns), "")
    remedy, command = _remedies("say which of the columns to use", _completed(columns, given), header)
    raise DataError(
        f"required column{'s' * (len(missing) > 1)} missing: {', '.join(missing)}; "
        f"the columns found are: {', '.join(columns) or 'none'}",
        path=path,
        remedy=remedy,
        command=command,
    )


def _refuse_ambiguous(
    name: str,
    columns: Mapping[str, Sequence[Any]],
    given: Mapping[str, str],
    recognized: Recognized,
    path: object,
) -> None:
    names = recognized.ambiguous[name]
    completed = _completed(columns, given) or dict(given)
    remedies = []
    for command in (False, True):
        each = [_spelled({**completed, name: column}, command=command) for column in names]
        remedies.append(f"say which: {' or '.join(each)}")
    raise DataError(
        f"several columns may be the {name}: {', '.join(names)}",
        path=path,
        remedy=remedies[0],
        command=remedies[1],
    )


def _remedies(start: str, columns: Mapping[str, str] | None, header: str = "") -> tuple[str, str]:
    """What to write in Python, and what on the command line."""
    if columns is None:
        mark = next((c for c in header if not c.isalnum() and c not in " _-."), ";")
        few = "a table of pairs has two columns of text; if another character separates the fields, name it: "
        return f"{few}delimiter={mark!r}", f"{few}--delimiter {shlex.quote(mark)}"
    return f"{start}: {_spelled(columns)}", f"{start}: {_spelled(columns, command=True)}"


def _spelled(columns: Mapping[str, str], *, command: bool = False) -> str:
    if command:
        return " ".join("--column " + shlex.quote(f"{ours}={theirs}") for ours, theirs in columns.items())
    return "columns={" + ", ".join(f'"{ours}": {theirs!r}' for ours, theirs in columns.items()) + "}"


def _suspects(columns: Mapping[str, Sequence[Any]], used: set[str]) -> tuple[str, ...]:
    """Columns that may be labels: of zeros and ones, or called like one."""
    free = {name: values for name, values in columns.items() if name not in used and not is_known(name)}
    called = [name for name in free if plain_name(name) in USUAL_NAMES["label"]]
    both = [
        name for name, values in free.items() if is_zero_or_one(values) and len(set(map(str, values))) > 1
    ]
    return tuple(dict.fromkeys([*called, *both]))


def _score_column(columns: Mapping[str, Sequence[Any]], used: set[str]) -> str | None:
    """The first column called like a similarity whose values are numbers, and not all the same."""
    for name, values in columns.items():
        if name in used or plain_name(name) not in SCORE_NAMES or is_zero_or_one(values):
            continue
        try:
            if len({float(value) for value in values if value not in (None, "")}) > 1:
                return name
        except (TypeError, ValueError):
            continue
    return None
