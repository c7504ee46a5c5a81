"""The *See Also* graph of the installed scientific stack: real pairs, made on the spot, without any download.

Items are the public functions, classes and methods of Python packages; their text is the name and the
summary line of the docstring. Two items match where the people who wrote the docstrings listed one under
"See Also" of the other. The slice is the package.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from leanmatch.data.arrow import pa, parquet
from leanmatch.data.see_also.docstrings import parse_docstring
from leanmatch.data.see_also.graph import SeeAlsoGraph, build_graph
from leanmatch.data.see_also.modules import public_modules
from leanmatch.data.see_also.objects import documented_objects
from leanmatch.errors import DataError, UsageError
from leanmatch.files import atomic_folder, write_json
from leanmatch.types import JsonValue

PACKAGES = ("numpy", "scipy", "sklearn", "pandas")
PAIRS_FILE, ITEMS_FILE, SUMMARY_FILE = "pairs.parquet", "items.jsonl", "summary.json"

TEST_PERCENT, VALID_PERCENT = 20, 10
MOST_COMMON_UNRESOLVED = 10


@dataclass(frozen=True)
class PackageSummary:
    """Counts of one package.

    Attributes:
        version: of the installed package.
        modules: imported; ``failed_modules``: those that did not import, with the reason.
        items: functions, classes and methods with a summary line, less those of the same text.
        same_text: objects merged into an item of the same text; ``no_summary``: objects without a summary.
        references: names listed under "See Also", by what became of them (``see_also_graph.FATES``).
        pairs: unordered pairs; ``splits``: the same by split.
        shared_texts: distinct texts that stand in a test row as well as in a train row.
        most_common_unresolved: names that lead to no item, with how often they are listed: properties,
            data, objects of other packages, misspellings.
    """

    version: str
    modules: int
    failed_modules: dict[str, str]
    items: int
    same_text: int
    no_summary: int
    unreadable_docstrings: int
    references: dict[str, int]
    pairs: int
    splits: dict[str, int]
    shared_texts: int
    most_common_unresolved: dict[str, int]


@dataclass(frozen=True)
class SeeAlsoSummary:
    """What :func:`write_see_also` wrote: items, unordered pairs, and each package's counts."""

    folder: Path
    items: int
    pairs: int
    packages: dict[str, PackageSummary]

    def to_json(self) -> JsonValue:
        """Plain values, without the folder: equal installations give equal summaries."""
        packages = {name: dict(vars(counts)) for name, counts in self.packages.items()}
        return {"items": self.items, "pairs": self.pairs, "packages": packages}


def write_see_also(
    folder: str | Path,
    packages: Sequence[str] = PACKAGES,
    *,
    overwrite: bool = False,
    show_progress: bool = False,
) -> SeeAlsoSummary:
    """Make the graph; write ``pairs.parquet``, ``items.jsonl``, ``summary.json`` into a folder, atomically.

    The packages' public submodules are imported into this process, about 15 s for the default four.

    Pairs have the columns ``anchor, positive, anchor_id, positive_id, package, split``. There is one row for
    each unordered pair: where both docstrings list each other, the anchor is the one whose identifier comes
    first. ``split`` is decided by a hash of ``anchor_id`` (20% of anchors test, 10% valid), so no pair lies
    in two splits in either direction, and no anchor does. A *positive* may also be another split's anchor
    or positive (``shared_texts`` counts them): whole connected components would leave a package like pandas,
    84% of whose pairs hang together (3.1), without a test set of its own.

    Args:
        folder: where to; must be new or empty unless ``overwrite``.
        packages: import names of installed packages.
        overwrite: replace a folder that an earlier call wrote (any other is never replaced).
        show_progress: a bar on stderr.

    Raises:
        MissingExtraError: a package, or numpydoc, is not installed.
        UsageError: no package, or one that comes twice; ``overwrite`` of a folder that is not this command's.
        DataError: no docstring lists anything.
        LeanmatchError: the folder is there and ``overwrite`` is false.
    """
    if not packages or len(set(packages)) != len(packages):
        raise UsageError(f"packages are {list(packages)}", remedy="name one or more packages, each once")
    target = Path(folder)
    if overwrite and target.exists() and not _is_ours(target):
        raise UsageError(f"{target} was not written by this command", remedy="name another folder")
    with atomic_folder(target, overwrite=overwrite) as temporary:
        collected, modules_by_package = {}, {}
        for name in _with_progress(packages, show_progress):
            modules_by_package[name] = public_modules(name)
            objects = documented_objects(modules_by_package[name])
            collected[name] = [(documented, parse_docstring(documented.doc)) for documented in objects]
        graph = build_graph(collected)
        pairs = _pair_table(graph)
        if not pairs.num_rows:
            raise DataError(
                f"no docstring of {', '.join(packages)} lists another item under See Also",
                remedy="name packages whose docstrings follow numpydoc",
            )
        counted = Counter(zip(pairs["package"].to_pylist(), pairs["split"].to_pylist(), strict=True))
        items = Counter(item.package for item in graph.items)
        summaries = {
            name: PackageSummary(
                version=modules_by_package[name].version,
                modules=len(modules_by_package[name].modules),
                failed_modules=modules_by_package[name].failed,
                items=items[name],
                same_text=graph.same_text[name],
                no_summary=graph.no_summary[name],
                unreadable_docstrings=sum(not facts.readable for _, facts in collected[name]),
                references=dict(graph.fates[name]),
                pairs=sum(counted[name, split] for split in ("train", "valid", "test")),
                splits={split: counted[name, split] for split in ("train", "valid", "test")},
                shared_texts=_shared_texts(pairs, name),
                most_common_unresolved=_most_common(graph.unresolved[name]),
            )
            for name in packages
        }
        summary = SeeAlsoSummary(target, len(graph.items), pairs.num_rows, summaries)
        parquet().write_table(pairs, temporary / PAIRS_FILE)
        with (temporary / ITEMS_FILE).open("w", encoding="utf-8", newline="\n") as stream:
            for item in graph.items:
                stream.write(json.dumps(vars(item), ensure_ascii=False) + "\n")
        write_json(temporary / SUMMARY_FILE, summary.to_json())
    return summary


def split_of(anchor_id: str) -> str:
    """The split of an anchor, from the SHA-256 of its identifier: 70% train, 10% valid, 20% test.

    >>> [split_of(name) for name in ("numpy.sum", "numpy.mean", "numpy.std")]
    ['test', 'test', 'train']
    """
    percent = int.from_bytes(hashlib.sha256(anchor_id.encode()).digest()[:8], "big") % 100
    if percent < TEST_PERCENT:
        return "test"
    return "valid" if percent < TEST_PERCENT + VALID_PERCENT else "train"


def _pair_table(graph: SeeAlsoGraph) -> pa.Table:
    links = set(graph.links)
    kept = sorted((left, other) for left, other in links if left < other or (other, left) not in links)
    items = {item.id: item for item in graph.items}
    columns = {
        "anchor": [items[left].text for left, _ in kept],
        "positive": [items[other].text for _, other in kept],
        "anchor_id": [left for left, _ in kept],
        "positive_id": [other for _, other in kept],
        "package": [items[left].package for left, _ in kept],
        "split": [split_of(left) for left, _ in kept],
    }
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _shared_texts(pairs: pa.Table, package: str) -> int:
    texts: dict[str, set[str]] = {"train": set(), "valid": set(), "test": set()}
    for row in pairs.select(["anchor", "positive", "package", "split"]).to_pylist():
        if row["package"] == package:
            texts[row["split"]] |= {row["anchor"], row["positive"]}
    return len(texts["train"] & texts["test"])


def _most_common(names: Counter[str]) -> dict[str, int]:
    ordered = sorted(names.items(), key=lambda entry: (-entry[1], entry[0]))
    return dict(ordered[:MOST_COMMON_UNRESOLVED])


def _is_ours(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return names <= {PAIRS_FILE, ITEMS_FILE, SUMMARY_FILE}


def _with_progress(packages: Sequence[str], shown: bool) -> Iterable[str]:
    from tqdm import tqdm

    return tqdm(packages, desc="reading docstrings", unit=" packages", disable=not shown)
