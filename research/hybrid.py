"""Hybrid search against vectors alone and terms alone, and what a reranker adds: docs/results/hybrid.md.

    python research/hybrid.py DATA_FOLDER [--split test] [--model MODEL ...] [-o PAGE]
    python research/hybrid.py DATA_FOLDER --reranker FOLDER [--queries 250] [-o PAGE]

DATA_FOLDER holds product_titles.tsv.gz and question_pairs.tsv.gz (research/private_data.py says with which
columns). Each category or domain is a search of its own: anchors of matching pairs against all other texts of
the split. The weights were chosen on the training splits; the page has ``--split test``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pages import publish
from private_data import private_table

import leanmatch
from leanmatch.lexical import LexicalScorer, build_postings, holds_part_number
from leanmatch.metrics.encoding import SideVectors, encode_sides
from leanmatch.metrics.measure import retrieval_values
from leanmatch.metrics.names import parse_retrieval_metric
from leanmatch.metrics.ranking.candidates import grades, identify
from leanmatch.metrics.ranking.fusion import Ranking, RememberingReranker, search_ranked
from leanmatch.metrics.ranking.retrieval import Judgements
from leanmatch.metrics.ranking.search import Exclusions, Neighbours, top_k
from leanmatch.metrics.ranking.tasks import RetrievalTask, make_task
from leanmatch.runtime import load_reranker

PARTS = (
    ("product_titles", "category", "cameras"),
    ("product_titles", "category", "computers"),
    ("question_pairs", "domain", "askubuntu"),
    ("question_pairs", "domain", "quora"),
)
RRF = 60
MRR = parse_retrieval_metric("MRR@10")
BEGIN, END = "<!-- tables -->\n", "<!-- end of tables -->"
RERANKED, END_RERANKED = "<!-- reranked -->\n", "<!-- end of reranked -->"

Search = Callable[[RetrievalTask, SideVectors, int], Neighbours]


@dataclass
class Part:
    """One category or domain, ready to be searched."""

    name: str
    texts: list[str]
    task: RetrievalTask
    roles: tuple[NDArray[np.int64], NDArray[np.int64]]
    part_number: NDArray[np.bool_]

    @classmethod
    def read(cls, data: Path, table: str, column: str, value: str, split: str) -> Part:
        rows = leanmatch.read_pairs(private_table(data, table)).select_split(split)
        rows = rows.take(np.flatnonzero(np.array([str(cell) for cell in rows.column(column)]) == value))
        known = identify(rows, symmetric=True)
        everything = np.arange(len(rows), dtype=np.int64)
        task = make_task(known, everything, rows.labels, grades(rows), symmetric=True)
        queries = [known.texts[row] for row in task.query_texts.tolist()]
        holds = np.array([holds_part_number(query) for query in queries])
        return cls(value, known.texts, task, known.roles(symmetric=True), holds)

    def search(self, change: Callable[[NDArray[np.float32], int], None] | None) -> Search:
        """A search whose scores a function changes."""

        def search(task: RetrievalTask, vectors: SideVectors, depth: int) -> Neighbours:
            queries, candidates = vectors.queries[task.query_texts], vectors.documents[task.candidate_texts]
            return top_k(queries, candidates, depth, exclude=task.exclude, change=change)

        return search

    def ways(self) -> dict[str, Search]:
        """Every way of ranking, by name."""
        queries = [self.texts[row] for row in self.task.query_texts.tolist()]
        items = [self.texts[row] for row in self.task.candidate_texts.tolist()]
        scorer = LexicalScorer([(build_postings(items), np.ones(len(items), np.bool_))])
        lexical = np.stack([scorer(query) for query in queries])

        def terms(block: NDArray[np.float32], first: int) -> None:
            block[:] = lexical[first : first + len(block)]

        def ranks(block: NDArray[np.float32], first: int) -> None:
            own = lexical[first : first + len(block)]
            places = [(-scores).argsort(axis=1, kind="stable").argsort(axis=1) for scores in (block, own)]
            block[:] = sum(1 / (RRF + 1 + place) for place in places)

        def weighted(weight: float) -> Search:
            return lambda task, vectors, depth: search_ranked(
                task, vectors, depth, Ranking(hybrid=True, weight=weight), self.texts
            )

        return {
            "vectors alone": self.search(None),
            "terms alone": self.search(terms),
            "reciprocal ranks": self.search(ranks),
            "weight .2": weighted(0.2),
            "weight .5": weighted(0.5),
            "hybrid (default)": lambda task, vectors, depth: search_ranked(
                task, vectors, depth, Ranking(hybrid=True), self.texts
            ),
        }


def values(part: Part, vectors: SideVectors, search: Search) -> NDArray[np.float64]:
    """MRR@10 of each query."""
    return retrieval_values(part.task, vectors, [MRR], None, search)[0][:, 0]


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """95% interval of a mean by 10,000 bootstrap resamples over queries."""
    rng = np.random.default_rng(0)
    means = [differences[rng.integers(0, len(differences), len(differences))].mean() for _ in range(10_000)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def groups(parts: list[Part]) -> list[tuple[str, list[tuple[int, NDArray[np.bool_]]]]]:
    """Columns: product queries with and without a part number, and each question domain."""
    products = [number for number, part in enumerate(parts) if part.name in ("cameras", "computers")]
    out = [
        ("products, part number", [(number, parts[number].part_number) for number in products]),
        ("products, other", [(number, ~parts[number].part_number) for number in products]),
    ]
    for number, part in enumerate(parts):
        if number not in products:
            out.append((part.name, [(number, np.ones_like(part.part_number))]))
    return out


def table_of(parts: list[Part], scores: list[dict[str, NDArray[np.float64]]], base: str) -> list[str]:
    """A row a way: its mean in each group, and the difference from ``base`` with its interval."""
    columns = groups(parts)
    counts = [sum(int(mask.sum()) for _, mask in members) for _, members in columns]
    names = [f"{name} ({count})" for (name, _), count in zip(columns, counts, strict=True)]
    lines = [
        "| ranking | " + " | ".join(names) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for way in scores[0]:
        cells = []
        for _, members in columns:
            own = np.concatenate([scores[number][way][mask] for number, mask in members]) * 100
            other = np.concatenate([scores[number][base][mask] for number, mask in members]) * 100
            cell = f"{own.mean():.1f}"
            if way != base:
                low, high = interval(own - other)
                cell += f" ({(own - other).mean():+.1f}; {low:+.1f} to {high:+.1f})"
            cells.append(cell)
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return lines


def some_queries(part: Part, count: int) -> Part:
    """The part with ``count`` of its queries, evenly spaced, and all its candidates."""
    task = part.task
    total = task.judgements.n_queries
    if count >= total:
        return part
    kept = np.unique(np.linspace(0, total - 1, count).astype(np.int64))
    place = np.full(total, -1, np.int64)
    place[kept] = np.arange(len(kept))
    own = place[task.judgements.queries] >= 0
    judgements = Judgements(
        len(kept),
        place[task.judgements.queries[own]],
        task.judgements.items[own],
        task.judgements.grades[own],
    )
    exclude = task.exclude
    if exclude is not None:
        here = place[exclude.queries] >= 0
        exclude = Exclusions(place[exclude.queries[here]], exclude.candidates[here])
    fewer = replace(task, query_texts=task.query_texts[kept], judgements=judgements, exclude=exclude)
    return replace(part, task=fewer, part_number=part.part_number[kept])


def by_ranking(part: Part, ranking: Ranking) -> Search:
    """The search that ``leanmatch evaluate`` makes of a ranking."""
    return partial(search_ranked, ranking=ranking, texts=part.texts)


def reranked(parts: list[Part], vectors: list[SideVectors], folder: str, tops: list[int]) -> list[str]:
    """Gain and cost of a cross-encoder."""
    loaded = {
        "native int8": load_reranker(folder, precision="int8", runtime="native"),
        "native float32": load_reranker(folder, precision="float32", runtime="native"),
        "sentence-transformers": load_reranker(folder, runtime="torch"),
    }
    remembered = RememberingReranker(loaded["native int8"])
    hybrid, most = Ranking(hybrid=True), tops[-1]
    scores = []
    for part, own in zip(parts, vectors, strict=True):
        searches = {"vectors alone": by_ranking(part, Ranking()), "hybrid": by_ranking(part, hybrid)}
        for top in tops:
            ranking = replace(hybrid, reranker=remembered, rerank_top=top, rerank_weight=1.0)
            searches[f"hybrid, best {top} reranked"] = by_ranking(part, ranking)
        both = replace(hybrid, reranker=remembered, rerank_top=most)
        searches[f"hybrid, best {most}, both scores"] = by_ranking(part, both)
        scores.append({name: values(part, own, search) for name, search in searches.items()})
        print(f"{part.name} is done", file=sys.stderr, flush=True)
    lines = [*table_of(parts, scores, "hybrid"), ""]
    lines += [f"| {tops[-1]} items of a query | " + " | ".join(part.name for part in parts) + " |"]
    lines += ["|---" * (len(parts) + 1) + "|"]
    for name, model in loaded.items():
        costs = (
            f"{cost_of(part, own, model, tops[-1]):.0f}" for part, own in zip(parts, vectors, strict=True)
        )
        lines += [f"| {name}, ms of processor time | " + " | ".join(costs) + " |"]
    return lines


def cost_of(part: Part, vectors: SideVectors, reranker: object, top: int) -> float:
    """Milliseconds of processor time a query, the median of 5."""
    found = search_ranked(part.task, vectors, top, Ranking(hybrid=True), part.texts).indices
    times = []
    for row in range(5):
        query = part.texts[int(part.task.query_texts[row])]
        pairs = [(query, part.texts[int(part.task.candidate_texts[at])]) for at in found[row]]
        began = time.process_time()
        reranker.scores(pairs)  # type: ignore[attr-defined]
        times.append(time.process_time() - began)
    return 1000 * float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", action="append")
    parser.add_argument("--reranker")
    parser.add_argument("--rerank-top", type=int, action="append", help="rising; default 10 and 20")
    parser.add_argument("--queries", type=int, default=250, help="of each part that are reranked, at most")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    parts = [Part.read(options.data, *part, options.split) for part in PARTS]
    models = options.model or ["sentence-transformers/all-MiniLM-L6-v2"]
    if options.reranker:
        encoder = leanmatch.load(models[0], precision="int8")
        vectors = [encode_sides(encoder, part.texts, *part.roles) for part in parts]
        parts = [some_queries(part, options.queries) for part in parts]
        lines = reranked(parts, vectors, options.reranker, options.rerank_top or [10, 20])
        publish("\n".join(["", *lines, "", ""]), options.output, RERANKED, END_RERANKED)
        return
    ways = [part.ways() for part in parts]
    share = {part.name: f"{part.part_number.mean():.0%}" for part in parts}
    lines = [f"Candidates, queries, share of queries with a part number: {describe(parts, share)}.", ""]
    for number, name in enumerate(models):
        encoder = leanmatch.load(name, precision="int8" if number == 0 else "stored")
        vectors = [encode_sides(encoder, part.texts, *part.roles) for part in parts]
        scores = [
            {way: values(part, own, search) for way, search in named.items()}
            for part, own, named in zip(parts, vectors, ways, strict=True)
        ]
        lines += [f"### {Path(name).name}", "", *table_of(parts, scores, "vectors alone"), ""]
    publish("\n".join(lines), options.output, BEGIN, END)


def describe(parts: list[Part], share: dict[str, str]) -> str:
    """Sizes in words."""
    sizes = [(part, len(part.task.candidate_texts), part.task.judgements.n_queries) for part in parts]
    return "; ".join(
        f"{part.name} {items:,}, {queries:,}, {share[part.name]}" for part, items, queries in sizes
    )


if __name__ == "__main__":
    main()
