"""A catalogue's folder behind the protocol of stores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from leanmatch.index.catalogue import Catalogue
from leanmatch.index.changes import Item
from leanmatch.index.filters.expression import Filter
from leanmatch.index.storage.manifest import REFERENCE, ModelIdentity
from leanmatch.index.writer import delete_items, upsert_items
from leanmatch.stores.protocol import Hit, StoreInfo, check_model
from leanmatch.types import Vectors


class LocalStore:
    """A catalogue on this machine.

    Args:
        folder: the catalogue's.

    Raises:
        FormatError: no catalogue, or a damaged one.
    """

    def __init__(self, folder: str | Path) -> None:
        self._catalogue = Catalogue.open(folder)

    @property
    def info(self) -> StoreInfo:
        """What it holds now."""
        manifest = self._catalogue.manifest
        reference = manifest.extras.get(REFERENCE)
        numeric = [
            name
            for name, kind in manifest.columns.items()
            if kind == "text" and self._catalogue.column(name).numeric is not None
        ]
        return StoreInfo(
            manifest.model,
            manifest.columns,
            tuple(numeric),
            len(self._catalogue),
            manifest.generation,
            manifest.identity,
            reference.sha256 if reference else "",
        )

    def __len__(self) -> int:
        return len(self._catalogue)

    def search(
        self,
        queries: Vectors,
        k: int,
        filter: Filter | None = None,
        *,
        model: ModelIdentity | None = None,
    ) -> list[list[Hit]]:
        """See :class:`leanmatch.stores.Store`."""
        check_model(model, self.info)
        catalogue = self._catalogue
        return [
            [
                Hit(catalogue.ids[row], catalogue.text(row), float(score), catalogue.metadata(row))
                for score, row in zip(result.scores, result.rows.tolist(), strict=True)
            ]
            for result in catalogue.search(queries, k, filters=[filter] * len(queries))
        ]

    def upsert(self, items: Sequence[Item], vectors: Vectors, *, model: ModelIdentity | None = None) -> int:
        """See :class:`leanmatch.stores.Store`."""
        check_model(model, self.info)
        encode = _Known(items, vectors, self._catalogue)
        added = upsert_items(self._catalogue.folder, items, encode).added
        self._catalogue = Catalogue.open(self._catalogue.folder)
        return added

    def delete(self, ids: Iterable[str]) -> int:
        """See :class:`leanmatch.stores.Store`."""
        deleted = delete_items(self._catalogue.folder, ids).deleted
        self._catalogue = Catalogue.open(self._catalogue.folder)
        return deleted

    def sample(self, count: int) -> tuple[list[Item], Vectors]:
        """See :class:`leanmatch.stores.Store`."""
        catalogue = self._catalogue
        rows = list(range(0, len(catalogue), max(1, -(-len(catalogue) // count))))
        items = [Item(catalogue.ids[row], catalogue.text(row), catalogue.metadata(row)) for row in rows]
        return items, catalogue.vectors(rows)

    def reference(self) -> bytes | None:
        """See :class:`leanmatch.stores.Store`."""
        path = self._catalogue.extra(REFERENCE)
        return None if path is None else path.read_bytes()

    def close(self) -> None:
        """Nothing is open."""


class _Known:
    """Stands for the catalogue's encoder, and knows the vectors of some items."""

    def __init__(self, items: Sequence[Item], vectors: Vectors, catalogue: Catalogue) -> None:
        model = catalogue.manifest.model
        self.name, self.fingerprint, self.tokenizer_fingerprint = (
            model.name,
            model.fingerprint,
            model.tokenizer,
        )
        self.dimension, self.precision, self.prompts = model.dimension, model.weights, _Prompts(model)
        self._rows = {str(item.text): row for row, item in enumerate(items)}
        self._vectors = vectors

    def __call__(self, texts: Sequence[str]) -> Vectors:
        return np.asarray(self._vectors[[self._rows[text] for text in texts]], dtype=np.float32)

    encode_document = encode_query = __call__


class _Prompts:
    def __init__(self, model: object) -> None:
        self.query = getattr(model, "query_prompt", None)
        self.document = getattr(model, "document_prompt", None)
