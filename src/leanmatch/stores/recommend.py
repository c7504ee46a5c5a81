"""Recommendations from a store: encode, search, leave out the query itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leanmatch.errors import DataError, UsageError
from leanmatch.index.filters.expression import Filter
from leanmatch.index.recommender import Recommendation, same_text
from leanmatch.index.storage.manifest import ModelIdentity
from leanmatch.models import ByRole, RoleEncoder
from leanmatch.stores.protocol import Hit, Store
from leanmatch.types import EncodeFunction, Vectors

MORE = 8
"""Extra hits to ask for, to replace those that are left out."""


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
    found = search_others(store, queries, texts, k, filter=filter, exclude_self=exclude_self)
    return [
        [
            Recommendation(hit.id, hit.text, hit.score, rank, hit.metadata)
            for rank, hit in enumerate(hits, start=1)
        ]
        for hits in found
    ]


def search_others(
    store: Store,
    queries: Vectors,
    texts: Sequence[str],
    k: int,
    *,
    filter: Filter | None = None,
    exclude: Sequence[str] = (),
    exclude_self: bool = True,
    model: ModelIdentity | None = None,
) -> list[list[Hit]]:
    """The ``k`` best items for each query, without those that are left out.

    More are asked for than ``k``, and again twice as many, until there are enough.

    Args:
        store: where the items lie.
        queries: vectors of the texts, float32 ``(texts, dimension)``, unit length.
        texts: the queries.
        k: how many items.
        filter: which items may be found.
        exclude: identifiers of items that are left out.
        exclude_self: leave out items whose text is the query itself (up to case and white space).
        model: see :meth:`leanmatch.stores.Store.search`.

    Raises:
        UsageError: a filter that does not fit the columns.
        StoreError: the store cannot be reached.
    """
    banned = frozenset(exclude)
    more = len(banned) + (MORE if exclude_self else 0)
    out = []
    for row, (text, hits) in enumerate(
        zip(texts, store.search(queries, k + more, filter, model=model), strict=True)
    ):
        own, asked, found = same_text(text) if exclude_self else None, k + more, hits
        while True:
            kept = [hit for hit in found if hit.id not in banned and same_text(hit.text) != own]
            if len(kept) >= k or len(found) < asked:
                break
            asked *= 2
            (found,) = store.search(queries[row : row + 1], asked, filter, model=model)
        out.append(kept[:k])
    return out
