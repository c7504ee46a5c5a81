"""The file that says what a catalogue consists of; renaming a new one over it is the only switch there is.

A catalogue folder holds files that never change once they are named here, and ``manifest.json``, which names
them. A writer adds new files, then replaces the manifest by an atomic rename: a reader sees the old
catalogue or the new one. Files that no manifest names are what a killed writer left; the next writer
removes them.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from leanmatch.errors import FormatError
from leanmatch.files import atomic_file, write_json
from leanmatch.index.storage.checking import REMEDY, VERIFIED, StoredFile
from leanmatch.index.storage.columns import TYPES

MANIFEST = "manifest.json"
FORMAT = "leanmatch-catalogue-1"
MOST_MANIFEST_BYTES = 2**26
MOST_DIMENSIONS = 2**16
REFERENCE = "reference"
"""The further file that the drift monitor compares queries with."""
STAGING = ".building"
LOCK = "writer.lock"


@dataclass(frozen=True)
class ModelIdentity:
    """Which model made the vectors.

    Attributes:
        name: the folder or name it was loaded from.
        fingerprint: SHA-256 over everything that decides its vectors.
        tokenizer: SHA-256 over the tokenizer's files, empty where there is none to name.
        dimension: length of the vectors.
        weights: precision in which it ran (``float32``, ``bfloat16``, ``int8``, ``compressed``, ``torch``);
            empty where its encoder does not say.
        query_prompt: what goes before queries; None in catalogues that do not say.
        document_prompt: what stood before the items, likewise.
    """

    name: str
    fingerprint: str
    tokenizer: str
    dimension: int
    weights: str = ""
    query_prompt: str | None = None
    document_prompt: str | None = None

    @property
    def precision(self) -> str:
        """What ``precision=`` of :func:`leanmatch.load` gives these vectors again."""
        return {"": "stored", "compressed": "stored", "torch": "float32"}.get(self.weights, self.weights)

    def same_vectors(self, other: ModelIdentity) -> bool:
        """Do both give an item the same vector: one model, precision, prompt and number of dimensions?"""
        same = self.same_texts(other) and self.dimension == other.dimension
        return same and _arithmetic(self) == _arithmetic(other)

    def same_texts(self, other: ModelIdentity) -> bool:
        """Does one model read the same text of an item, in whatever precision?"""
        prompts = self.document_prompt or "", other.document_prompt or ""
        return self.fingerprint == other.fingerprint and prompts[0] == prompts[1]

    def goes_with(self, other: ModelIdentity) -> bool:
        """:meth:`same_vectors`, or one model of which one precision is not known."""
        unknown = not self.weights or not other.weights
        known = replace(other, weights=self.weights) if unknown else other
        return self.same_vectors(known)


def _arithmetic(model: ModelIdentity) -> str:
    return "float32" if model.weights == "torch" else model.weights


@dataclass(frozen=True)
class LexicalFiles:
    """Which rows hold which terms: the terms (.npy) and, for each, its rows and their weights (.npy)."""

    terms: StoredFile
    postings: StoredFile


@dataclass(frozen=True)
class Segment:
    """Some rows: their vectors (.npy), their items (.npz) and, where rows are gone, which (.npy).

    ``lexical`` is there in hybrid catalogues.
    """

    rows: int
    vectors: StoredFile
    items: StoredFile
    dead: StoredFile | None = None
    dead_rows: int = 0
    lexical: LexicalFiles | None = None

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Its files."""
        lexical = () if self.lexical is None else (self.lexical.terms, self.lexical.postings)
        return (self.vectors, self.items, *(() if self.dead is None else (self.dead,)), *lexical)


@dataclass(frozen=True)
class Approximate:
    """A FAISS index over the rows of the first ``segments`` segments, dead ones included.

    Attributes:
        kind: ``ivf`` or ``hnsw``.
        effort: ``nprobe`` or ``efSearch``, chosen by measurement.
        recall: recall@10 against exact search at that effort, over ``queries`` queries.
    """

    file: StoredFile
    kind: str
    segments: int
    effort: int
    recall: float
    queries: int


@dataclass(frozen=True)
class SourceColumns:
    """The columns of the file that a catalogue was made from.

    Attributes:
        id: of the identifiers; empty where rows were numbered.
        text: those that make the text. Of several, each is a metadata column as well.
    """

    id: str
    text: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What a catalogue consists of.

    Attributes:
        generation: counts the changes of one catalogue, from 1.
        kind: what was asked for: auto, exact, ivf or hnsw.
        identity: random, given when the catalogue is made; it tells two catalogues apart that were made at
            the same place. Empty in catalogues of earlier versions, until their next change.
        source: the columns that changes are read from, too; None where items came without a file.
        lexical: the rule that terms were made by, for hybrid search; empty where there is none.
    """

    generation: int
    model: ModelIdentity
    columns: Mapping[str, str]
    segments: tuple[Segment, ...]
    kind: str = "auto"
    approximate: Approximate | None = None
    extras: Mapping[str, StoredFile] = field(default_factory=dict)
    identity: str = ""
    source: SourceColumns | None = None
    lexical: str = ""

    @property
    def hybrid(self) -> bool:
        """Does it hold what hybrid search needs?"""
        return bool(self.lexical)

    @property
    def text_columns(self) -> tuple[str, ...] | None:
        """The columns that make the text, None where that is not known."""
        if self.source is not None:
            return self.source.text
        both = ("title", "text")  # of earlier versions: only a text that both make leaves both as metadata
        return both if all(name in self.columns for name in both) else None

    @property
    def version(self) -> tuple[str, int]:
        """Identity and generation: two manifests with equal versions describe the same content."""
        return self.identity, self.generation

    @property
    def items(self) -> int:
        """Number of items."""
        return sum(segment.rows - segment.dead_rows for segment in self.segments)

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files that it names."""
        named = [file for segment in self.segments for file in segment.files]
        approximate = [] if self.approximate is None else [self.approximate.file]
        return (*named, *approximate, *self.extras.values())


def read_manifest(folder: str | Path) -> Manifest:
    """Read a catalogue's manifest.

    Raises:
        FormatError: there is none, or it is damaged.
    """
    path = Path(folder, MANIFEST)
    if not path.is_file():
        unfinished = Path(folder, STAGING).is_dir()
        raise FormatError(
            f"{folder} is no catalogue: it has no {MANIFEST}"
            + (" (it was being built and is not finished)" if unfinished else ""),
            remedy="run the same leanmatch index command again"
            if unfinished
            else "make one with: leanmatch index build MODEL ITEMS -o FOLDER",
        )
    try:
        if (size := path.stat().st_size) > MOST_MANIFEST_BYTES:
            raise ValueError(f"it has {size:,} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise FormatError(
                f"{path} has the format {document['format']!r:.80}, this version reads {FORMAT!r}",
                remedy="index the items anew",
            )
        return _from_json(document)
    except FormatError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path} is damaged ({type(error).__name__}: {error})"[:400], remedy="index the items anew"
        ) from error


def new_identity() -> str:
    """A random identity for a catalogue that is made now."""
    return uuid.uuid4().hex


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make a manifest the catalogue's: the switch."""
    write_json(folder / MANIFEST, {"format": FORMAT, "items": manifest.items, **asdict(manifest)})


def store_file(folder: Path, name: str, write: Callable[[Path], None]) -> StoredFile:
    """Write an immutable file, synced, and say what it is."""
    with atomic_file(folder / name) as temporary:
        write(temporary)
    with (folder / name).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return StoredFile(name, (folder / name).stat().st_size, digest)


def missing_file(folder: Path, error: FileNotFoundError) -> FormatError:
    """The error about a file that the manifest names and that is not there."""
    return FormatError(f"{error.filename} is named by {folder / MANIFEST} and is not there", remedy=REMEDY)


def check_files(folder: str | Path, manifest: Manifest) -> None:
    """Read every file whole and compare it with its SHA-256.

    Raises:
        FormatError: one is missing or differs.
    """
    for file in manifest.files:
        path = Path(folder, file.name)
        try:
            VERIFIED.check(path, file, again=True)
        except FileNotFoundError as error:
            raise FormatError(f"{path} is missing", remedy=REMEDY) from error


def _from_json(document: dict[str, Any]) -> Manifest:
    columns = {_text(name): _text(kind) for name, kind in document["columns"].items()}
    unknown = {kind for kind in columns.values() if kind not in TYPES}
    if unknown:
        raise ValueError(f"column types {sorted(unknown)}")
    segments = tuple(_segment(entry) for entry in document["segments"])
    manifest = Manifest(
        generation=_count(document["generation"], 1),
        model=_model(document["model"]),
        columns=columns,
        segments=segments,
        kind=_text(document["kind"]),
        approximate=_approximate(document["approximate"], segments),
        extras={_text(name): _file(entry) for name, entry in document["extras"].items()},
        identity=_text(document.get("identity", "")),
        source=_source(document.get("source")),
        lexical=_text(document.get("lexical", "")),
    )
    if any((segment.lexical is not None) != manifest.hybrid for segment in segments):
        raise ValueError("some segments have terms and others none")
    if manifest.items != document["items"]:
        raise ValueError(f"it names {manifest.items} items and says {document['items']!r:.40}")
    names = [file.name for file in manifest.files]
    if len(set(names)) != len(names):
        raise ValueError(f"it names {max(names, key=names.count)!r} twice")
    return manifest


def _segment(document: dict[str, Any]) -> Segment:
    rows, dead_rows = _count(document["rows"]), _count(document["dead_rows"])
    dead = None if document["dead"] is None else _file(document["dead"])
    if dead_rows > rows or (dead is None) != (dead_rows == 0):
        raise ValueError(f"{dead_rows:,} dead rows of {rows:,}")
    lexical = document.get("lexical")
    if lexical is not None:
        lexical = LexicalFiles(_file(lexical["terms"]), _file(lexical["postings"]))
    return Segment(rows, _file(document["vectors"]), _file(document["items"]), dead, dead_rows, lexical)


def _model(document: dict[str, Any]) -> ModelIdentity:
    model = ModelIdentity(**document)
    for value in (model.name, model.fingerprint, model.tokenizer, model.weights):
        _text(value)
    if _count(model.dimension, 1) > MOST_DIMENSIONS:
        raise ValueError(f"{model.dimension:,} dimensions")
    return model


def _approximate(document: dict[str, Any] | None, segments: tuple[Segment, ...]) -> Approximate | None:
    if document is None:
        return None
    stored = Approximate(**{**document, "file": _file(document["file"])})
    if stored.kind not in {"ivf", "hnsw"}:
        raise ValueError(f"a search index of the kind {stored.kind!r:.40}")
    if not 1 <= _count(stored.segments) <= len(segments):
        raise ValueError(f"a search index over {stored.segments} of {len(segments)} segments")
    rows = sum(segment.rows for segment in segments[: stored.segments])
    if not 1 <= _count(stored.effort) <= max(rows, 4_096) or not rows:
        raise ValueError(f"an effort of {stored.effort:,} over {rows:,} rows")
    if not isinstance(stored.recall, int | float) or not 0 <= stored.recall <= 1:
        raise ValueError(f"a recall of {stored.recall!r:.40}")
    _count(stored.queries)
    return stored


def _count(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 2**40:
        raise ValueError(f"a count of {value!r:.40}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} in place of a text")
    value.encode()  # half of a surrogate pair is no character
    return value


def _source(document: Any) -> SourceColumns | None:
    if document is None:
        return None
    source = SourceColumns(_text(document["id"]), tuple(map(_text, document["text"])))
    if not isinstance(document["text"], list) or not all(source.text):
        raise ValueError(f"text columns {document['text']!r:.80}")
    return source


def _file(document: dict[str, Any]) -> StoredFile:
    file = StoredFile(**document)
    name = _text(file.name)
    if Path(name).name != name or name.startswith(".") or set(name) & set("\\\0/:") or len(name) > 200:
        raise ValueError(f"file name {name!r:.80}")
    if name in {MANIFEST, LOCK}:
        raise ValueError(f"file name {name!r}")
    _count(file.bytes)
    if len(_text(file.sha256)) != 64:
        raise ValueError(f"SHA-256 {file.sha256!r:.80}")
    return file
