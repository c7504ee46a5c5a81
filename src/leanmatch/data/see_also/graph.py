"""From documented objects to items and links: texts merged, references resolved, the rest counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from leanmatch.data.see_also.docstrings import DocFacts
from leanmatch.data.see_also.objects import DocumentedObject

FATES = ("linked", "self", "cross_package", "ambiguous", "unresolved")
"""What becomes of a reference: a link; the object itself under another name; an object of another package
(not used: a row must belong to one package); several objects; nothing that is an item."""


@dataclass(frozen=True)
class SeeAlsoItem:
    """One item. Its text, ``name: summary``, is no other item's."""

    id: str
    text: str
    package: str
    kind: str


@dataclass
class SeeAlsoGraph:
    """Items, directed links between their identifiers, and the fate of every reference."""

    items: list[SeeAlsoItem] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    fates: dict[str, Counter[str]] = field(default_factory=dict)
    unresolved: dict[str, Counter[str]] = field(default_factory=dict)
    same_text: Counter[str] = field(default_factory=Counter)
    no_summary: Counter[str] = field(default_factory=Counter)


class NameTable:
    """All paths of all objects of one package, to item identifiers."""

    def __init__(self, package: str) -> None:
        self.package = package
        self._full: dict[str, str] = {}
        self._by_last: dict[str, list[str]] = defaultdict(list)

    def add(self, path: str, item: str) -> None:
        if path not in self._full:
            self._full[path] = item
            self._by_last[path.rpartition(".")[2]].append(path)

    def absolute(self, path: str) -> str | None:
        return self._full.get(path)

    def resolve(self, name: str, source: DocumentedObject) -> set[str]:
        """The items that ``name`` may mean in the docstring of an object.

        Tried in turn, the first that gives something decides: the full path; a name in the object's own
        class; in its public module or one above it; in the module that defines it or one above it; a tail of
        paths anywhere in the package. Only the last can give more than one item.
        """
        for candidate in (name, *_in_scope(name, source)):
            if candidate in self._full:
                return {self._full[candidate]}
        tail = "." + name
        return {self._full[path] for path in self._by_last[name.rpartition(".")[2]] if path.endswith(tail)}


def _in_scope(name: str, source: DocumentedObject) -> Iterator[str]:
    for module, qualified in source.paths:
        owner = qualified.rpartition(".")[0]
        while owner:
            yield f"{module}.{owner}.{name}"
            owner = owner.rpartition(".")[0]
    for module in (source.paths[0][0], source.defined_in):
        scope = module
        while scope:
            yield f"{scope}.{name}"
            scope = scope.rpartition(".")[0]


def build_graph(packages: Mapping[str, list[tuple[DocumentedObject, DocFacts]]]) -> SeeAlsoGraph:
    """Build the graph from each package's objects (in order) and what their docstrings say.

    Objects of the same text become one item, the first one's; its links are those of all of them.
    """
    graph = SeeAlsoGraph()
    tables: dict[str, NameTable] = {}
    by_text: dict[str, str] = {}
    item_of: dict[str, str] = {}
    for package, objects in packages.items():
        table = tables[package] = NameTable(package)
        for item, facts in objects:
            if not facts.summary:
                graph.no_summary[package] += 1
                continue
            text = f"{item.name}: {facts.summary}"
            identifier = by_text.setdefault(text, item.id)
            if identifier == item.id:
                graph.items.append(SeeAlsoItem(item.id, text, package, item.kind))
            else:
                graph.same_text[package] += 1
            item_of[item.id] = identifier
            for module, qualified in item.paths:
                table.add(f"{module}.{qualified}", identifier)
    owner = {item.id: item.package for item in graph.items}
    links: dict[tuple[str, str], None] = {}
    for package, objects in packages.items():
        fates = graph.fates[package] = Counter({fate: 0 for fate in FATES})
        lost = graph.unresolved[package] = Counter()
        for item, facts in objects:
            source = item_of.get(item.id)
            if source is None or owner[source] != package:
                continue
            for name in facts.see_also:
                fate, target = _fate(name, item, source, tables, owner)
                fates[fate] += 1
                if target is not None:
                    links[source, target] = None
                elif fate == "unresolved":
                    lost[name] += 1
    graph.links = list(links)
    return graph


def _fate(
    name: str,
    item: DocumentedObject,
    source: str,
    tables: Mapping[str, NameTable],
    owner: Mapping[str, str],
) -> tuple[str, str | None]:
    package = owner[source]
    meant = tables[package].resolve(name, item)
    if len(meant) > 1:
        return "ambiguous", None
    if not meant:
        other = tables.get(name.partition(".")[0])
        return ("cross_package" if other is not None and other.absolute(name) else "unresolved"), None
    (target,) = meant
    if target == source:
        return "self", None
    return ("linked", target) if owner[target] == package else ("cross_package", None)
