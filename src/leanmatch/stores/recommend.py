"""Recommendations from a store: encode, search, leave out what is the query itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leanmatch.errors import DataError, UsageError
from leanmatch.index.filters.expression import Filter
from leanmatch.index.recommender import Recommendation, same_text
from leanmatch.models import ByRole, RoleEncoder
from leanmatch.stores.protocol import Hit, Store
from leanmatch.types import EncodeFunction, Vectors

MORE = 8
"""Hits that are asked for beyond ``k``, in the place of those that are left out."""


def recommend(
    store: Store,
    encoder: EncodeFunction | ByRole,
    texts: Sequence[str],
    k: int = 10,
    *,
    filter: Filter | None = None,
    exclude_self: bool = True,
) -> list[list[Recommendation]]:
    """The ``k`` best items of a store for each text, as :meth:`leanmatch.index.Catalogue.recommend` does it.

    Args:
        store: where the items lie.
        encoder: of the store's model.
        texts: the queries.
        k: how many items.
        filter: which items may be found.
        exclude_self: leave out items whose text is the query itself (up to case and white space).

    Raises:
        DataError: a blank text.
        UsageError: ``k`` below 1, or a filter that does not fit the columns.
        StoreError: the store cannot be reached.
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError("a text is missing or blank", line=row + 1, value=text, remedy="give a text")
    if k < 1:
        raise UsageError(f"k is {k}", remedy="ask for 1 item or more")
    if not texts:
        return []
    queries = np.asarray(RoleEncoder(encoder).encode_query(texts), dtype=np.float32)
    found = store.search(queries, k + MORE if exclude_self else k, filter)
    out = []
    for row, (text, hits) in enumerate(zip(texts, found, strict=True)):
        kept = _others(store, queries[row : row + 1], text, hits, k, filter) if exclude_self else hits
        out.append(
            [
                Recommendation(hit.id, hit.text, hit.score, rank, hit.metadata)
                for rank, hit in enumerate(kept[:k], start=1)
            ]
        )
    return out


def _others(
    store: Store, query: Vectors, text: str, hits: list[Hit], k: int, filter: Filter | None
) -> list[Hit]:
    """Hits that are not the query itself; more are asked for until there are ``k`` or no more."""
    asked = k + MORE
    while True:
        kept = [hit for hit in hits if same_text(hit.text) != same_text(text)]
        if len(kept) >= k or len(hits) < asked:
            return kept
        asked *= 2
        (hits,) = store.search(query, asked, filter)
