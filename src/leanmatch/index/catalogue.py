"""A catalogue as it is searched: one generation, loaded whole, that nothing changes any more."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import DataError, FormatError, UsageError
from leanmatch.index.filters.cache import SelectionCache
from leanmatch.index.filters.expression import Filter
from leanmatch.index.filters.mask import filter_mask
from leanmatch.index.recommender import Recommendation, same_text
from leanmatch.index.search.approximate import ApproximateSearch
from leanmatch.index.search.exact import checked_matrix
from leanmatch.index.search.faiss_files import read_index
from leanmatch.index.search.found import Found, reranked
from leanmatch.index.search.hybrid import Fused, fuse
from leanmatch.index.search.planner import Plan, alive_rows, choose, merged
from leanmatch.index.search.scan import Rows, Scan, Selection, exact_scores
from leanmatch.index.storage.checking import REMEDY, VERIFIED
from leanmatch.index.storage.columns import CodedColumn
from leanmatch.index.storage.facets import facet
from leanmatch.index.storage.lexical import check_terms
from leanmatch.index.storage.manifest import MANIFEST, Manifest, missing_file, read_manifest
from leanmatch.index.storage.segments import SegmentRows, read_segments
from leanmatch.index.storage.table import joined_items
from leanmatch.lexical.bm25 import LexicalScorer
from leanmatch.lexical.weight import lexical_weight as weight_of
from leanmatch.models import RERANK_TOP, RERANK_WEIGHT, ByRole, Reranker, RoleEncoder
from leanmatch.models.reranker import check_reranking
from leanmatch.types import EncodeFunction, Vectors

_KEPT_DOCUMENTS = 100_000
_ATTEMPTS = 20


class Catalogue:
    """One generation of a catalogue, in memory. Make it with :meth:`open`; it is safe to search from threads.

    Attributes:
        folder: where it lies.
        manifest: what it consists of.
    """

    def __init__(self, folder: Path, manifest: Manifest, segments: Sequence[SegmentRows]) -> None:
        """Use :meth:`open`."""
        self.folder, self.manifest = folder, manifest
        self._items = joined_items(
            [segment.items.where(segment.alive) for segment in segments], manifest.columns
        )
        self._vectors = _joined_vectors(segments, manifest)
        self.ids = [str(name) for name in self._items.ids.tolist()]
        self._row = {name: row for row, name in enumerate(self.ids)}
        if len(self._row) != len(self.ids):
            twice = next(name for row, name in enumerate(self.ids) if self._row[name] != row)
            raise FormatError(f"{folder} is damaged: it holds the item {twice!r:.80} twice", remedy=REMEDY)
        self._columns: dict[str, CodedColumn] = {}
        self._selections = SelectionCache()
        self._documents: dict[int, bytes] = {}
        self._same: dict[str, list[int]] | None = None
        self._approximate, self._covered = _approximate(folder, manifest, segments)
        self._postings = [(segment.postings, segment.alive) for segment in segments]
        self._scorer: LexicalScorer | None = None
        self._alive = None if self._covered is None else alive_rows(self._covered)
        self._delta = len(self._vectors) - (0 if self._covered is None else int((self._covered >= 0).sum()))
        self._scan = Scan.build(self._vectors)  # of all rows: filters are answered from it

    @classmethod
    def open(cls, folder: str | Path) -> Catalogue:
        """Load the current generation. A writer that switches meanwhile does no harm: it is read anew then.

        Raises:
            FormatError: no catalogue, or a damaged one.
        """
        path = Path(folder)
        for _ in range(_ATTEMPTS):
            manifest = read_manifest(path)
            try:
                return cls(path, manifest, read_segments(path, manifest))
            except (FileNotFoundError, FormatError) as error:
                failure = error
                if read_manifest(path).version == manifest.version:
                    break
        if isinstance(failure, FormatError):
            raise failure
        raise missing_file(path, failure) from failure

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Catalogue({str(self.folder)!r}, {len(self):,} items, generation {self.manifest.generation})"

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self.manifest.model.dimension

    @property
    def texts(self) -> list[str]:
        """The texts; made anew at each use."""
        return [str(text) for text in self._items.texts.tolist()]

    def extra(self, name: str) -> Path | None:
        """The further file of a name, after a look at its checksum; None where there is none.

        Raises:
            FormatError: it is not there any more, or damaged.
        """
        stored = self.manifest.extras.get(name)
        if stored is None:
            return None
        path = self.folder / stored.name
        try:
            VERIFIED.check(path, stored)
        except FileNotFoundError as error:
            raise missing_file(self.folder, error) from error
        return path

    def row(self, name: str) -> int | None:
        """The row of an identifier, None where there is none."""
        return self._row.get(name)

    def text(self, row: int) -> str:
        """The text of a row."""
        return str(self._items.texts[row])

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """The stored vectors of rows."""
        return np.asarray(self._vectors[np.asarray(rows, dtype=np.int64)])

    def metadata(self, row: int) -> dict[str, Any]:
        """What else is known about the item of a row, without missing values."""
        return self._items.metadata(row)

    def document(self, row: int) -> bytes:
        """A row's ``"id":..,"text":..,"metadata":{..}`` as JSON, without braces; kept once it was made."""
        document = self._documents.get(row)
        if document is None:
            whole = {"id": self.ids[row], "text": self.text(row), "metadata": self.metadata(row)}
            document = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()[1:-1]
            if len(self._documents) < _KEPT_DOCUMENTS:
                self._documents[row] = document
        return document

    def column(self, name: str) -> CodedColumn:
        """A metadata column in coded form; made when it is first asked for.

        Raises:
            UsageError: there is no such column.
        """
        coded = self._columns.get(name)
        if coded is None:
            kind = self.manifest.columns.get(name)
            if kind is None:
                names = ", ".join(self.manifest.columns) or "none"
                raise UsageError(
                    f"the catalogue has no column {name[:80]!r}", remedy=f"the columns are: {names}"
                )
            coded = self._columns[name] = CodedColumn.build(self._items.columns[name], kind)
        return coded

    def select(self, expression: Filter, check: Callable[[], None] = lambda: None) -> Selection:
        """The rows that a filter leaves; the selections of the last filters are remembered (64 MB of them).

        Args:
            expression: the filter.
            check: called before each comparison; what it raises ends the work.

        Raises:
            UsageError: an unknown column, or a value of another type than the column's.
        """
        key = self._selections.key(expression)
        selection = self._selections.get(key)
        if selection is None:
            mask = filter_mask(expression, self.column, len(self), check)
            selection = Selection(np.flatnonzero(mask), len(self))
            self._selections.put(key, selection)
        return selection

    @property
    def hybrid(self) -> bool:
        """Does it hold what hybrid search needs?"""
        return self.manifest.hybrid

    def by_terms(self, hybrid: bool | None, lexical_weight: float | None = None) -> bool:
        """Is a search one by terms, too: as asked for, else where the catalogue has them.

        Raises:
            UsageError: it is asked for and the catalogue has none; a weight without it, or outside 0..1.
            FormatError, MissingExtraError: see :attr:`lexical`.
        """
        if not (self.hybrid if hybrid is None else hybrid):
            if lexical_weight is None:
                return False
            raise UsageError(
                "a weight of terms goes with hybrid search alone",
                remedy="leave lexical_weight out, or search a catalogue that has terms with hybrid=True",
                command="leave --lexical-weight out, or build the catalogue with --hybrid",
            )
        weight_of("", lexical_weight)
        _ = self.lexical  # made now, or the error says what is missing
        return True

    @property
    def lexical(self) -> LexicalScorer:
        """Scores of all rows by the terms that they share with a query; made when it is first asked for.

        Raises:
            UsageError: the catalogue was made without terms.
            FormatError: its terms follow another rule than this version's.
            MissingExtraError: bm25s is not installed.
        """
        if self._scorer is None:
            if not self.hybrid:
                raise UsageError(
                    "the catalogue has no terms for hybrid search",
                    remedy="make them: rebuild_catalogue with WriteOptions(hybrid=True)",
                    command="make them: leanmatch index rebuild CATALOGUE --hybrid",
                )
            check_terms(self.manifest)
            self._scorer = LexicalScorer(
                [(postings, alive) for postings, alive in self._postings if postings is not None]
            )
        return self._scorer

    def search(
        self,
        queries: Vectors,
        k: int | Sequence[int] = 10,
        *,
        filters: Sequence[Filter | Selection | None] | None = None,
        exclude: Sequence[Collection[int]] | None = None,
        texts: Sequence[str | None] | None = None,
        lexical_weight: float | Sequence[float | None] | None = None,
    ) -> list[Found]:
        """The best items for each query, by cosine; where ``texts`` has its text, by hybrid search.

        A hybrid search orders by ``(1 - weight) cosine + weight lexical``; see :mod:`leanmatch.lexical`.

        Args:
            queries: shape ``(queries, dimension)``, unit length: the scores are inner products.
            k: how many, for all queries or for each.
            filters: for each query a filter, what :meth:`select` made of one, or None.
            exclude: for each query rows that are left out.
            texts: for each query its text for hybrid search, or None to search by cosine alone.
            lexical_weight: for all queries or for each, in 0..1; None for the default, which depends on
                whether the text holds a part number.

        Raises:
            DataError: queries of another dimension, or with NaN or infinite numbers.
            UsageError: ``k`` below 1; a filter that does not fit the columns; a hybrid search of a catalogue
                without terms.
            MissingExtraError: a hybrid search, and bm25s is not installed.
        """
        matrix = checked_matrix(queries, "queries", self.dimension)
        wanted = [k] * len(matrix) if isinstance(k, int) else list(k)
        for count in wanted:
            if count < 1:
                raise UsageError(f"k is {count}", remedy="ask for 1 item or more")
        banned = [set(rows) for rows in exclude] if exclude is not None else [set()] * len(matrix)
        widths = [count + len(out) for count, out in zip(wanted, banned, strict=True)]
        chosen = [
            condition if condition is None or isinstance(condition, Selection) else self.select(condition)
            for condition in (filters or [None] * len(matrix))
        ]
        plans = [choose(self._approximate, len(self), selection) for selection in chosen]
        words = list(texts) if texts is not None else [None] * len(matrix)
        weights = (
            list(lexical_weight) if isinstance(lexical_weight, Sequence) else [lexical_weight] * len(matrix)
        )
        by_cosine = [i for i, text in enumerate(words) if text is None]
        ranked = self._ranked(
            matrix[by_cosine],
            [widths[i] for i in by_cosine],
            [chosen[i] for i in by_cosine],
            [plans[i] for i in by_cosine],
        )
        out: list[Found] = [Found(np.zeros(0), np.zeros(0, np.int64), plan) for plan in plans]
        for i, (scores, rows) in zip(by_cosine, ranked, strict=True):
            keep = [at for at, row in enumerate(rows.tolist()) if row not in banned[i]][: wanted[i]]
            out[i] = Found(scores[keep], rows[keep], plans[i])
        for i, text in enumerate(words):
            if text is None:
                continue
            weight = weight_of(text, weights[i])
            fused = self._fused(matrix[i : i + 1], text, weight, widths[i], chosen[i], plans[i])
            keep = [at for at, row in enumerate(fused.rows.tolist()) if row not in banned[i]][: wanted[i]]
            out[i] = Found(
                fused.sums[keep],
                fused.rows[keep],
                plans[i],
                fused.cosines[keep],
                fused.lexical[keep],
                fused.nearest,
            )
        return out

    def _fused(
        self, query: Vectors, text: str, weight: float, width: int, selection: Selection | None, plan: Plan
    ) -> Fused:
        """Hybrid search for one query, a row of a matrix."""

        def near(depth: int) -> tuple[NDArray[np.float64], Rows]:
            return self._ranked(query, [depth], [selection], [plan])[0]

        return fuse(
            near,
            lambda rows: exact_scores(query[0], rows, self._vectors),
            self.lexical(text),
            None if selection is None else selection.rows,
            weight,
            width,
            proven=plan.exact,
        )

    def _ranked(
        self,
        matrix: Vectors,
        widths: Sequence[int],
        chosen: Sequence[Selection | None],
        plans: Sequence[Plan],
    ) -> list[tuple[NDArray[np.float64], Rows]]:
        """The best rows of each query by cosine."""
        ranked: list[tuple[NDArray[np.float64], Rows]] = [(np.zeros(0), np.zeros(0, np.int64))] * len(matrix)
        exact = [i for i, plan in enumerate(plans) if plan.exact] if len(self) else []
        if exact:
            results = self._scan.search(matrix[exact], [widths[i] for i in exact], [chosen[i] for i in exact])
            for i, result in zip(exact, results, strict=True):
                ranked[i] = result
        rest = [i for i, plan in enumerate(plans) if not plan.exact] if len(self) else []
        for i, result in zip(rest, self._search_index(matrix[rest], [widths[i] for i in rest]), strict=True):
            ranked[i] = result
        return ranked

    def _search_index(
        self, queries: Vectors, widths: Sequence[int]
    ) -> list[tuple[NDArray[np.float64], Rows]]:
        """Through the search index; rows that came after it was built are compared one by one."""
        if self._approximate is None or self._covered is None or not len(queries):
            return []
        near = self._approximate.search(queries, max(widths), self._alive)
        later = np.arange(len(self) - self._delta, len(self))
        out = []
        for query, width, (scores, rows) in zip(queries, widths, near, strict=True):
            parts = [(scores, self._covered[rows])]
            if len(later):
                parts.append(self._scan.best(query, later, width))
            out.append(merged(parts, width))
        return out

    def recommend(
        self,
        encoder: EncodeFunction | ByRole,
        texts: Sequence[str],
        k: int = 10,
        *,
        filter: Filter | None = None,
        exclude: Collection[str] = (),
        exclude_self: bool = True,
        hybrid: bool | None = None,
        lexical_weight: float | None = None,
        reranker: Reranker | None = None,
        rerank_top: int = RERANK_TOP,
        rerank_weight: float = RERANK_WEIGHT,
    ) -> list[list[Recommendation]]:
        """The ``k`` best items for each text, as :meth:`leanmatch.index.Recommender.recommend` gives them.

        Args:
            encoder: of the catalogue's model.
            texts: the queries.
            k: how many items.
            filter: which items may be found.
            exclude: identifiers of items to leave out.
            exclude_self: leave out items whose text is the query itself (up to case and white space).
            hybrid: also search by terms; None does so where the catalogue has them.
            lexical_weight: see :meth:`search`.
            reranker: puts the first ``rerank_top`` items in a new order; their score is then what
                :func:`leanmatch.models.reranker.reranking_scores` gives.
            rerank_top: how many; at least ``k`` are taken.
            rerank_weight: of the reranker beside the search's scores, 0 to 1; 1 for the reranker alone.

        Raises:
            DataError: a blank text.
            UsageError: ``k`` or ``rerank_top`` below 1; ``rerank_weight`` outside 0..1; a filter that does
                not fit the columns; a hybrid search of a catalogue without terms.
            MissingExtraError: a hybrid search, and bm25s is not installed.
        """
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise DataError("a text is missing or blank", line=row + 1, value=text, remedy="give a text")
        if not texts:
            return []
        out = {row for row in map(self.row, exclude) if row is not None}
        banned = [out | set(self.same_as(text) if exclude_self else ()) for text in texts]
        hybrid = self.by_terms(hybrid, lexical_weight)
        if reranker is not None:
            check_reranking(rerank_top, rerank_weight)
        results = self.search(
            np.asarray(RoleEncoder(encoder).encode_query(texts), dtype=np.float32),
            k if reranker is None else max(k, rerank_top),
            filters=[filter] * len(texts),
            exclude=banned,
            texts=texts if hybrid else None,
            lexical_weight=lexical_weight,
        )
        if reranker is not None:
            results = reranked(texts, results, reranker, k, self.text, rerank_weight)
        return [
            [self._recommendation(text, result, at, hybrid=hybrid) for at in range(len(result.rows))]
            for text, result in zip(texts, results, strict=True)
        ]

    def _recommendation(self, query: str, result: Found, at: int, *, hybrid: bool) -> Recommendation:
        row = int(result.rows[at])
        text = self.text(row)
        return Recommendation(
            self.ids[row],
            text,
            float(result.scores[at]),
            at + 1,
            self.metadata(row),
            None if result.cosines is None else float(result.cosines[at]),
            None if result.lexical is None else float(result.lexical[at]),
            tuple(self.lexical.shared(query, text)) if hybrid else None,
        )

    def same_as(self, text: str) -> Sequence[int]:
        """The rows whose text is this one, up to case and white space."""
        if self._same is None:
            same: dict[str, list[int]] = defaultdict(list)
            for row, other in enumerate(self.texts):
                same[same_text(other)].append(row)
            self._same = dict(same)
        return self._same.get(same_text(text), ())

    def facets(self, most_values: int = 50) -> list[Mapping[str, Any]]:
        """For each column its type and, with counts, its values where they are few, else its range."""
        return [
            facet(name, kind, self.column(name), most_values) for name, kind in self.manifest.columns.items()
        ]


def is_catalogue(folder: str | Path) -> bool:
    """Does the folder hold a catalogue's manifest?"""
    return Path(folder, MANIFEST).is_file()


def _joined_vectors(segments: Sequence[SegmentRows], manifest: Manifest) -> Vectors:
    if len(segments) == 1 and segments[0].alive.all():
        return segments[0].vectors
    parts = [
        np.asarray(segment.vectors if segment.alive.all() else segment.vectors[segment.alive])
        for segment in segments
    ]
    return np.concatenate([*parts, np.zeros((0, manifest.model.dimension), np.float32)])


def _approximate(
    folder: Path, manifest: Manifest, segments: Sequence[SegmentRows]
) -> tuple[ApproximateSearch | None, Rows | None]:
    """The search index and, for each of its rows, the row among those that are alive, or -1."""
    stored = manifest.approximate
    if stored is None:
        return None, None
    covered = segments[: stored.segments]
    alive = np.concatenate([segment.alive for segment in covered])
    position_of = np.where(alive, np.cumsum(alive) - 1, -1).astype(np.int64)
    vectors = (
        covered[0].vectors if len(covered) == 1 else np.concatenate([segment.vectors for segment in covered])
    )
    path = folder / stored.file.name
    VERIFIED.check(path, stored.file)
    index = read_index(path, stored.kind, len(alive), manifest.model.dimension)
    return ApproximateSearch(index, stored.kind, stored.effort, vectors), position_of
