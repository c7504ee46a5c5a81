"""The settings of ``research/shift_grid.py``: what is trained on, and which shift it is tested on.

A *source* is a table of matching pairs with something held out. Several settings may share one: trained on
AskUbuntu, there is an unseen question site and an unseen subject. Private tables:
``research/private_data.py``; See Also comes from the installed packages (``leanmatch data see-also``).
"""

from __future__ import annotations

import csv
import gzip
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from private_data import private_table

from leanmatch.data import PairTable, SplitOptions, read_pairs
from leanmatch.data.see_also.build import PAIRS_FILE, write_see_also

Rows = list[dict[str, str]]
SEE_ALSO = Path("build/shift/see-also")


@dataclass(frozen=True)
class Source:
    """A table, its split, and the value of ``column`` that each setting is tested on.

    Attributes:
        rows: makes the matching pairs: ``anchor``, ``positive``, ``column``, ``split`` where it is given.
        column: what is held out by.
        tests: name of the setting to the held-out values.
        options: of the split.
        period: the column is a time: the latest rows are set aside to choose on.
    """

    rows: Callable[[Path], Rows]
    column: str
    tests: dict[str, tuple[str, ...]]
    options: dict[str, bool] = field(default_factory=dict)
    period: bool = False

    def table(self, data: Path) -> PairTable:
        """All rows."""
        rows = self.rows(data)
        names = ["anchor", "positive", self.column, *(["split"] if "split" in rows[0] else [])]
        columns: dict[str, list[str]] = {name: [row[name] for row in rows] for name in names}
        if self.period:
            order = {"train": "2001-01-01", "valid": "2002-01-01", "test": "2003-01-01"}
            columns["timestamp"] = [order[row[self.column]] for row in rows]
        return PairTable.from_columns(columns)

    def held_out(self, table: PairTable) -> dict[str, PairTable]:
        """The rows of each test."""
        there = [str(value) for value in table.column(self.column)]
        return {name: table.take(np.flatnonzero(np.isin(there, held))) for name, held in self.tests.items()}

    def split_options(self, seed: int) -> SplitOptions:
        """What the command line would be given: each value held out."""
        held = tuple(f"{self.column}={value}" for values in self.tests.values() for value in values)
        return SplitOptions(hold_out=held, seed=seed, **self.options)


def _read(data: Path, name: str) -> Rows:
    with gzip.open(private_table(data, name), "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _matching(rows: Rows) -> Rows:
    return [row for row in rows if row["label"] == "1" and row["anchor"] != row["positive"]]


def _questions(site: str) -> Callable[[Path], Rows]:
    def rows(data: Path) -> Rows:
        return _matching(_read(data, "question_pairs") + _read(data, "medical_questions"))

    return rows


def _products(data: Path) -> Rows:
    return _matching(_read(data, "product_titles"))


def _clinc(data: Path) -> Rows:
    """Two utterances of one intent; in the tests every utterance of an intent with every other half's."""
    utterances: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in _read(data, "clinc150"):
        utterances[row["domain"], row["split"], row["intent"]].append(row["utterance"])
    draw = random.Random(0)
    pairs = []
    for (domain, split, _), spoken in utterances.items():
        texts = sorted(set(spoken))
        draw.shuffle(texts)
        halves = texts[::2], texts[1::2]
        both = (
            [(a, b) for a in halves[0] for b in halves[1]] if split == "test" else zip(*halves, strict=False)
        )
        pairs += [{"domain": domain, "split": split, "anchor": a, "positive": b} for a, b in both]
    draw.shuffle(pairs)
    return pairs


def _next_items(category: str | None) -> Callable[[Path], Rows]:
    def rows(data: Path) -> Rows:
        titles = {(r["category"], r["item_id"]): r["title"] for r in _read(data, "next_item_items")}
        pairs = []
        for row in _read(data, "next_item_pairs"):
            left, right = (titles[row["category"], row[side]] for side in ("left_id", "right_id"))
            if left != right and category in (None, row["category"]):
                pairs.append(
                    {
                        "category": row["category"],
                        "period": row["period"],
                        "anchor": left,
                        "positive": right,
                    }
                )
        return pairs

    return rows


def _see_also(data: Path) -> Rows:
    if not (SEE_ALSO / PAIRS_FILE).exists():
        write_see_also(SEE_ALSO)
    table = read_pairs(SEE_ALSO / PAIRS_FILE)
    columns = (table.anchors, table.positives, table.column("package"))
    return [{"anchor": a, "positive": p, "package": str(k)} for a, p, k in zip(*columns, strict=True)]


_SHARED = {"shared_positives": True}
SOURCES: dict[str, Source] = {
    "askubuntu": Source(
        _questions("askubuntu"),
        "domain",
        {"askubuntu>quora": ("quora",), "askubuntu>medical": ("medical",)},
    ),
    "quora": Source(
        _questions("quora"),
        "domain",
        {"quora>askubuntu": ("askubuntu",), "quora>medical": ("medical",)},
    ),
    "cameras": Source(_products, "category", {"cameras>computers": ("computers",)}),
    "computers": Source(_products, "category", {"computers>cameras": ("cameras",)}),
    "next-office": Source(
        _next_items(None), "category", {"next: office>industrial": ("Industrial_and_Scientific",)}, _SHARED
    ),
    "next-industrial": Source(
        _next_items(None), "category", {"next: industrial>office": ("Office_Products",)}, _SHARED
    ),
    "time-office": Source(
        _next_items("Office_Products"), "period", {"next: office, later": ("test",)}, _SHARED, period=True
    ),
    "time-industrial": Source(
        _next_items("Industrial_and_Scientific"),
        "period",
        {"next: industrial, later": ("test",)},
        _SHARED,
        period=True,
    ),
    **{
        f"see-{name}": Source(_see_also, "package", {f"See Also: {name}": (name,)}, _SHARED)
        for name in ("numpy", "scipy", "pandas", "sklearn")
    },
    **{
        f"clinc-{first}": Source(_clinc, "domain", {f"CLINC: {first}, {second}": (first, second)})
        for first, second in (
            ("banking", "travel"),
            ("work", "kitchen_and_dining"),
            ("home", "utility"),
            ("auto_and_commute", "small_talk"),
            ("credit_cards", "meta"),
        )
    },
}
