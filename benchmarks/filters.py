"""Recall@10 and time of filtered search, from 0.1% to 100% of the items, for filters at random and by region.

    python benchmarks/filters.py [--items 210000] [--kind auto] [--dimension 128] [--json FILE]

Item vectors are drawn around 2,000 centres; queries are items, moved a little. A filter *at random* leaves
items anywhere; a filter *by region* leaves whole clusters, so that most queries lie far from what passes,
which is the hard case for an approximate index. Recall is against exact search in float64.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from leanmatch.index import Catalogue, Item, WriteOptions, create_catalogue, parse_filter

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1.0)
CENTRES = 2_000


class Rows:
    """An encoder of the texts ``0``, ``1``, ...: rows of a matrix."""

    def __init__(self, vectors):
        self.vectors, self.dimension, self.name, self.fingerprint = (
            vectors,
            vectors.shape[1],
            "drawn",
            "drawn",
        )

    def __call__(self, texts):
        return self.vectors[[int(text) for text in texts]]


def drawn(items, dimension):
    """Unit vectors around centres, and each one's centre."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(CENTRES, dimension)).astype(np.float32)
    kinds = random.integers(CENTRES, size=items)
    vectors = centres[kinds] + random.normal(size=(items, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), kinds


def measure(catalogue, vectors, queries, text, keys):
    """One filter: recall, time, how it was searched."""
    expression = parse_filter(text)
    passing = catalogue.select(expression).rows
    found, taken = [], []
    for query in queries:
        begin = time.perf_counter()
        found += catalogue.search(query[None], 10, filters=[expression])
        taken.append(time.perf_counter() - begin)
    wanted = min(10, len(passing))
    hits = 0
    for query, one in zip(queries, found, strict=True):
        scores = vectors[passing].astype(np.float64) @ query.astype(np.float64)
        hits += len(set(passing[np.argsort(-scores, kind="stable")[:wanted]]) & set(one.rows))
    return {
        **keys,
        "rows": len(passing),
        "recall": round(hits / wanted / len(queries), 4),
        "ms": round(float(np.median(taken)) * 1000, 2),
        "plan": Counter(one.plan.path for one in found).most_common(1)[0][0],
    }


def main():
    """Make the catalogue, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=210_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--json")
    options = parser.parse_args()
    vectors, kinds = drawn(options.items, options.dimension)
    shares = np.random.default_rng(1).random(options.items)
    items = [Item(str(n), str(n), {"share": shares[n], "kind": int(kinds[n])}) for n in range(options.items)]
    random = np.random.default_rng(2)
    queries = vectors[random.integers(options.items, size=options.queries)]
    queries = queries + 0.05 * random.normal(size=queries.shape).astype(np.float32)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "catalogue")
        begin = time.perf_counter()
        create_catalogue(folder, items, Rows(vectors), WriteOptions(kind=options.kind, say=print))
        print(f"made in {time.perf_counter() - begin:.1f} s")
        catalogue = Catalogue.open(folder)
        for share in SHARES:
            for name, text in (
                ("at random", f"share < {share}"),
                ("by region", f"kind < {max(1, round(share * CENTRES))}"),
            ):
                rows.append(measure(catalogue, vectors, queries, text, {"filter": name, "share": share}))
                print(rows[-1], flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
