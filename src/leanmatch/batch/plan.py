"""The plan of a bulk encoding: which model reads which slices. It decides what parts may lie together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leanmatch import __version__
from leanmatch.batch.encode import Encode
from leanmatch.batch.locations import InputFile, input_files
from leanmatch.batch.options import EncodeOptions
from leanmatch.batch.rows import first_columns
from leanmatch.batch.slices import Scan, Slice, scan
from leanmatch.data.columns.items import check_columns, choose_id, choose_text
from leanmatch.data.problems import OnError
from leanmatch.errors import DataError, FormatError, ModelError
from leanmatch.index.identity import identity_of
from leanmatch.index.storage.manifest import ModelIdentity

MANIFEST = "manifest.json"
KIND, VERSION = "leanmatch vectors", 1


@dataclass(frozen=True)
class Plan:
    """What is encoded, and how.

    Attributes:
        model: of the vectors.
        role: ``document`` or ``query``.
        precision: number format of the vectors.
        id_column: None where rows are called ``FILE:LINE``.
        text_columns: make the text.
        on_error: what happens to bad rows.
        files: name, size and time of each input.
        scans: what each input is.
    """

    model: ModelIdentity
    role: str
    precision: str
    id_column: str | None
    text_columns: tuple[str, ...]
    on_error: OnError
    files: tuple[tuple[str, int, int], ...]
    scans: tuple[Scan, ...]

    @property
    def slices(self) -> tuple[Slice, ...]:
        """All slices, in the order of the parts."""
        return tuple(part for scanned in self.scans for part in scanned.slices)

    @property
    def key(self) -> str:
        """SHA-256 over everything that decides the parts: not the model's name, not the files' times."""
        content = asdict(self)
        del content["model"]["name"]
        content["files"] = [name for name, _, _ in self.files]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """The manifest, as JSON."""
        content = {
            "kind": KIND,
            "version": VERSION,
            "leanmatch": __version__,
            "key": self.key,
            **asdict(self),
        }
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, source: object) -> Plan:
        """Read a manifest.

        Raises:
            FormatError: it is none, is damaged, or a newer leanmatch wrote it.
        """
        remedy = "encode again into another folder, or replace this one"
        try:
            value = json.loads(content)
            if value["kind"] != KIND:
                raise ValueError(f"its kind is {value['kind']!r}")
            if value["version"] > VERSION:
                raise FormatError(
                    f"{source}/{MANIFEST}: version {value['version']} is newer than {VERSION}",
                    remedy="update leanmatch",
                )
            plan = cls(
                ModelIdentity(**value["model"]),
                value["role"],
                value["precision"],
                value["id_column"],
                tuple(value["text_columns"]),
                value["on_error"],
                tuple((str(name), int(size), int(time)) for name, size, time in value["files"]),
                tuple(
                    Scan(**{**entry, "slices": tuple(Slice(**part) for part in entry["slices"])})
                    for entry in value["scans"]
                ),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"{source}/{MANIFEST}: no manifest of vectors ({error})", remedy=remedy
            ) from error
        if plan.key != value.get("key"):
            raise FormatError(f"{source}/{MANIFEST}: it was changed by hand or is damaged", remedy=remedy)
        return plan


def make_plan(
    model: ModelIdentity, files: Sequence[InputFile], options: EncodeOptions, earlier: Plan | None
) -> Plan:
    """Look at the inputs: their hashes, formats, columns and slices.

    Args:
        model: of the vectors.
        files: in their order.
        options: how they are read.
        earlier: a plan that may know the files: those whose name, size and time it has are not read again.

    Raises:
        DataError: a file that is empty or lacks a column, or no rows at all.
    """
    stamps = tuple((file.name, file.size, file.modified) for file in files)
    earlier_scans = dict(zip(earlier.files, earlier.scans, strict=True)) if earlier is not None else {}
    scans = []
    for number, (file, stamp) in enumerate(zip(files, stamps, strict=True)):
        scanned = earlier_scans.get(stamp) if stamp[2] else None
        if scanned is None or not _fits(scanned, number, options):
            scanned = scan(number, file, options.delimiter, options.slice_bytes)
        scans.append(scanned)
    if not any(scanned.slices for scanned in scans):
        raise DataError("the inputs hold no rows", path=files[0], remedy="name a file with at least one row")
    id_column, text_columns = _choose(files, scans, options)
    return Plan(
        model,
        options.role,
        options.precision,
        id_column,
        text_columns,
        options.on_error,
        stamps,
        tuple(scans),
    )


def _fits(scanned: Scan, number: int, options: EncodeOptions) -> bool:
    """Whether what an earlier plan knows of a file holds for this one."""
    return (
        options.delimiter is None or scanned.delimiter is None or options.delimiter == scanned.delimiter
    ) and all(part.file == number for part in scanned.slices)


def _choose(
    files: Sequence[InputFile], scans: Sequence[Scan], options: EncodeOptions
) -> tuple[str | None, tuple[str, ...]]:
    """The columns of identifiers and text: of the first file; every other file must have them, too."""
    chosen: tuple[str | None, tuple[str, ...]] | None = None
    for file, scanned in zip(files, scans, strict=True):
        columns = first_columns(file, scanned)
        names = list(columns)
        if not names:
            continue
        path: Any = file
        if chosen is None:
            check_columns(path, names, options.text_columns)
            identifier = choose_id(path, columns, options.id_column, distinct=False)
            chosen = identifier, options.text_columns or choose_text(path, names, identifier)
        check_columns(path, names, [name for name in (chosen[0], *chosen[1]) if name])
    if chosen is None:
        raise DataError("the inputs hold no rows", path=files[0], remedy="name a file with at least one row")
    return chosen


def is_manifest(content: bytes) -> bool:
    """Whether this is the manifest of encoded files, of any version, and not, say, that of a catalogue."""
    try:
        return bool(json.loads(content)["kind"] == KIND)
    except (ValueError, KeyError, TypeError):
        return False


def check_same(stored: Plan, wanted: Plan, folder: object) -> None:
    """Refuse to put parts of two plans into one folder.

    Raises:
        ModelError: another model, prompt or precision.
        DataError: other inputs or columns.
    """
    if stored.key == wanted.key:
        return
    remedy = "name another folder for the output, or replace what is there: overwrite=True"
    command = "name another folder for the output, or replace what is there: --overwrite"
    for name, what in (
        ("fingerprint", "the model"),
        ("tokenizer", "the tokenizer"),
        ("weights", "the precision of the model"),
        ("query_prompt", "the query prompt"),
        ("document_prompt", "the document prompt"),
        ("dimension", "the dimension"),
    ):
        before, now = getattr(stored.model, name), getattr(wanted.model, name)
        if before != now:
            shown = [
                f"{value:.12}" if name in {"fingerprint", "tokenizer"} else repr(value)
                for value in (before, now)
            ]
            raise ModelError(
                f"{folder} holds vectors of another model: {what} was {shown[0]} "
                f"({stored.model.name}) and is {shown[1]} ({wanted.model.name})",
                remedy=remedy,
                command=command,
            )
    for name in ("role", "precision", "id_column", "text_columns", "on_error"):
        before, now = getattr(stored, name), getattr(wanted, name)
        if before != now:
            raise DataError(
                f"the vectors there were made with {name.replace('_', ' ')} {before!r}, not {now!r}",
                path=folder,
                remedy=remedy,
                command=command,
            )
    raise DataError(
        f"the vectors there are of other input: {_difference(stored, wanted)}",
        path=folder,
        remedy=remedy,
        command=command,
    )


def _difference(stored: Plan, wanted: Plan) -> str:
    before, now = (
        {file[0]: scanned for file, scanned in zip(plan.files, plan.scans, strict=True)}
        for plan in (stored, wanted)
    )
    for name in now:
        if name not in before:
            return f"{name} is new"
        if before[name].sha256 != now[name].sha256:
            return f"{name} has changed"
    gone = next((name for name in before if name not in now), None)
    return f"{gone} is missing" if gone else "the files are cut or ordered in another way"


def plan_for(
    encode: Encode, inputs: Sequence[str | Path], options: EncodeOptions, stored: Plan | None
) -> tuple[Plan, list[InputFile]]:
    """The plan of some inputs, and their files."""
    files = input_files(inputs)
    return make_plan(identity_of(encode.encoder), files, options, stored), files
