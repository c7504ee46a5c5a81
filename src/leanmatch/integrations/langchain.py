"""LangChain: embeddings from any model that leanmatch loads, and a vector store on a catalogue.

    embeddings = LeanmatchEmbeddings("lean/")
    store = LeanmatchVectorStore("catalogue/", embeddings)
    retriever = store.as_retriever(search_kwargs={"k": 5, "filter": 'category = "Toys"'})

The store is a catalogue as ``leanmatch index`` makes it: readers see the old state or the new one, filters
and changes work, and ``leanmatch serve`` serves the same folder.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.errors import DataError, MissingExtraError, UsageError
from leanmatch.index import (
    Catalogue,
    Item,
    create_catalogue,
    delete_items,
    is_catalogue,
    parse_filter,
    read_manifest,
    upsert_items,
)
from leanmatch.runtime import load
from leanmatch.types import Vectors

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
except ModuleNotFoundError as error:
    raise MissingExtraError("langchain-core", "langchain", "the LangChain integration") from error

if TYPE_CHECKING:
    from leanmatch.models import SentenceEncoder

METADATA_COLUMN = "langchain_metadata"
"""Column of a catalogue that holds a document's metadata as JSON, so that it comes back as it was given."""

_PROBE = "leanmatch: which model is this?"


class LeanmatchEmbeddings(Embeddings):
    """Embeddings on the native runtime; queries and documents get the model's own prompts.

    Args:
        model: a model folder or name, or an encoder of :func:`leanmatch.load`.
        batch_size: texts a forward pass.
        load_options: further arguments of :func:`leanmatch.load`.
    """

    def __init__(
        self, model: str | Path | SentenceEncoder, *, batch_size: int = 256, **load_options: Any
    ) -> None:
        self.encoder = load(model, **load_options) if isinstance(model, str | Path) else model
        self.batch_size = batch_size

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """L2-normalized vectors of texts, with the prompt of documents."""
        vectors = self.encoder.encode_document(
            texts, batch_size=self.batch_size, show_progress_bar=False, normalize_embeddings=True
        )
        rows: list[list[float]] = vectors.tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        """The L2-normalized vector of a text, with the prompt of queries."""
        encoded = self.encoder.encode_query(text, show_progress_bar=False, normalize_embeddings=True)
        vector: list[float] = encoded.tolist()
        return vector


class LeanmatchVectorStore(VectorStore):
    """A vector store on a catalogue folder, which is made when the first texts are added.

    Args:
        catalogue: the folder, new or made by ``leanmatch index`` or by this class.
        embedding: :class:`LeanmatchEmbeddings`, or any other embeddings of LangChain.

    Scores are cosines. ``filter`` in a search is a filter text of leanmatch, such as ``'price < 50'``. It
    sees metadata values that are text, numbers or booleans; other values only come back with the document.
    """

    def __init__(self, catalogue: str | Path, embedding: Embeddings) -> None:
        self.folder = Path(catalogue)
        self._embedding = embedding
        if isinstance(embedding, LeanmatchEmbeddings):
            self._encoder: Any = embedding.encoder
        else:
            self._encoder = _EmbeddingsEncoder(embedding)
        self._opened: Catalogue | None = None

    @property
    def embeddings(self) -> Embeddings:
        """What makes the vectors."""
        return self._embedding

    @classmethod
    def from_texts(  # type: ignore[override]
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        catalogue: str | Path,
    ) -> LeanmatchVectorStore:
        """A store with these texts; ``catalogue`` is the folder to make or to add to."""
        store = cls(catalogue, embedding)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[str]:
        """Add texts, or replace those whose id is there; gives their ids, new ones where none are given.

        Raises:
            UsageError: lists of different lengths.
            DataError: a blank text, an id that stands twice, or metadata that JSON cannot hold.
        """
        contents = list(texts)
        rows = metadatas if metadatas is not None else [{} for _ in contents]
        names = [name or str(uuid.uuid4()) for name in (ids if ids is not None else [None] * len(contents))]
        if not len(contents) == len(rows) == len(names):
            raise UsageError(
                f"{len(contents)} texts, {len(rows)} metadatas and {len(names)} ids",
                remedy="give one of each for every text",
            )
        items = [
            Item(name, text, _columns_of(metadata, row))
            for row, (name, text, metadata) in enumerate(zip(names, contents, rows, strict=True))
        ]
        if not items:
            return names
        if is_catalogue(self.folder):
            upsert_items(self.folder, items, self._encoder)
        else:
            create_catalogue(self.folder, items, self._encoder)
        return names

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool | None:
        """Delete documents by id; ids that are not there are passed over.

        Raises:
            UsageError: no ids are given.
        """
        if ids is None:
            raise UsageError("delete was given no ids", remedy="name them, or remove the catalogue's folder")
        if is_catalogue(self.folder):
            delete_items(self.folder, ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in the order asked for; those that are not there are left out."""
        catalogue = self._catalogue()
        rows = [] if catalogue is None else [catalogue.row(name) for name in ids]
        return [
            _document(catalogue, name, row)
            for name, row in zip(ids, rows, strict=False)
            if catalogue is not None and row is not None
        ]

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """The ``k`` documents whose vectors are nearest to the query's; ``filter`` is a filter text."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **options)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: str | None = None, **_: Any
    ) -> list[tuple[Document, float]]:
        """As :meth:`similarity_search`, with the cosine of each."""
        vector = np.asarray([self._embedding.embed_query(query)], dtype=np.float32)
        return self._nearest(vector, k, filter)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: str | None = None, **_: Any
    ) -> list[Document]:
        """As :meth:`similarity_search` for a vector."""
        return [document for document, _ in self._nearest(np.asarray([embedding], np.float32), k, filter)]

    def _select_relevance_score_fn(self) -> Any:
        return lambda cosine: (cosine + 1) / 2

    def _nearest(self, vector: Vectors, k: int, text: str | None) -> list[tuple[Document, float]]:
        catalogue = self._catalogue()
        if catalogue is None or not len(catalogue):
            return []
        (nearest,) = catalogue.search(
            _normalized(vector), k, filters=[None if text is None else parse_filter(text)]
        )
        return [
            (_document(catalogue, catalogue.ids[row], row), float(score))
            for row, score in zip(nearest.rows.tolist(), nearest.scores.tolist(), strict=True)
        ]

    def _catalogue(self) -> Catalogue | None:
        """The catalogue as it is now; opened again only where it has changed."""
        if not is_catalogue(self.folder):
            return None
        if self._opened is None or self._opened.manifest.version != read_manifest(self.folder).version:
            self._opened = Catalogue.open(self.folder)
        return self._opened


class _EmbeddingsEncoder:
    """Any embeddings of LangChain as an encoder of a catalogue, known by its vector of one fixed text."""

    def __init__(self, embedding: Embeddings) -> None:
        self._embedding = embedding
        self.name = type(embedding).__name__
        probe = np.asarray(embedding.embed_documents([_PROBE]), dtype=np.float32)
        self.dimension = int(probe.shape[1])
        self.fingerprint = hashlib.sha256(probe.tobytes()).hexdigest()

    def encode(self, texts: Sequence[str], **_: Any) -> Vectors:
        return _normalized(np.asarray(self._embedding.embed_documents(list(texts)), dtype=np.float32))

    __call__ = encode_document = encode


def _normalized(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)


def _columns_of(metadata: dict[str, Any], row: int) -> dict[str, Any]:
    """A document's metadata as JSON, and what can be filtered by in columns of its own."""
    try:
        whole = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the metadata of text {row} cannot be written as JSON: {error}",
            value=metadata,
            remedy="use text, numbers, booleans, lists and mappings",
        ) from error
    plain = {name: value for name, value in metadata.items() if isinstance(value, str | int | float | bool)}
    return {**plain, METADATA_COLUMN: whole}


def _document(catalogue: Catalogue, name: str, row: int) -> Document:
    columns = catalogue.metadata(row)
    whole = columns.pop(METADATA_COLUMN, None)
    return Document(
        id=name,
        page_content=catalogue.text(row),
        metadata=columns if whole is None else json.loads(whole),
    )
