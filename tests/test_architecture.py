"""The shape of the code (CONTRIBUTING.md): imports one way, no cycles, light starts, small files."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "leanmatch"

# Lowest first. A module may import its own layer and those on lines above, not its neighbours on the line.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "types"),
    ("cpus", "files", "lazy", "memory", "native"),
    ("data", "lexical"),
    ("models",),
    ("metrics",),
    ("interventions",),
    ("factorization",),
    ("trainer",),
    ("compression",),
    ("training",),
    ("formats",),
    ("runtime",),
    ("index",),
    ("batch",),
    ("stores",),
    ("serve", "report", "integrations"),
    ("web",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

LIGHT_LAYERS = frozenset(
    {"data", "lexical", "models", "metrics", "runtime", "index", "batch", "stores", "serve", "web", "cli"}
)
HEAVY_LIBRARIES = frozenset({"torch", "transformers", "sentence_transformers"})
MOST_LINES = 500
MOST_FILES = 15
"""Modules of one folder, without its ``__init__.py``."""


@dataclass(frozen=True)
class Import:
    """One imported module: its full name, the line, and whether it is loaded when the importing module is."""

    module: str
    line: int
    at_start: bool


def module_names(root: Path) -> dict[str, Path]:
    """Module name to file for the package in ``root``; a package goes by its own name."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_of(module: str, path: Path, known: frozenset[str]) -> list[Import]:
    """Every import in the file: inside functions and under TYPE_CHECKING too."""

    def visit(node: ast.AST, at_start: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_start)
        elif isinstance(node, ast.ImportFrom):
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            for _ in range(node.level - 1):
                package = package.rpartition(".")[0]
            source = ".".join(filter(None, (package if node.level else "", node.module)))
            for alias in node.names:  # `from package import module` is an import of that module
                full = f"{source}.{alias.name}"
                yield Import(full if full in known else source, node.lineno, at_start)
        elif isinstance(node, ast.If) and is_type_checking(node):
            for child in node.body:
                yield from visit(child, False)
            for child in node.orelse:
                yield from visit(child, at_start)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, at_start and not inside)

    return list(visit(ast.parse(path.read_text(encoding="utf-8")), True))


def layer_of(module: str) -> str:
    return module.removeprefix(f"{PACKAGE}.").partition(".")[0]


def violations(root: Path) -> list[str]:
    """What is wrong with the package in the folder ``root``, one line each."""
    modules = module_names(root)
    known = frozenset(modules)
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            found.append(f"{module}: {lines} lines, at most {MOST_LINES}")
        if module == PACKAGE:  # the lazy public API names modules of every layer
            continue
        layer = layer_of(module)
        if layer not in RANK:
            found.append(f"{module}: the layer {layer!r} is not in LAYERS")
            continue
        graph[module] = set()
        for item in imports_of(module, path, known):
            where = f"{module}:{item.line}"
            if layer in LIGHT_LAYERS and item.at_start and item.module.partition(".")[0] in HEAVY_LIBRARIES:
                found.append(f"{where}: imports {item.module} at module level")
            if item.module.partition(".")[0] != PACKAGE or item.module == module:
                continue
            if item.module == PACKAGE:
                continue  # checked by `names_from_the_root`
            if item.module in known:
                graph[module].add(item.module)
            target = layer_of(item.module)
            if target not in RANK and target != "_native":
                found.append(f"{where}: imports {item.module}, whose layer is not in LAYERS")
            elif target != layer and RANK.get(target, 0) >= RANK[layer]:
                found.append(f"{where}: imports {item.module}, which is not below {layer!r}")
        found += names_from_the_root(module, path)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"import cycle: {' -> '.join(reversed(error.args[1]))}")
    return found


def names_from_the_root(module: str, path: Path) -> list[str]:
    """`from leanmatch import Name` goes through the lazy API, which may lead to any layer."""
    return [
        f"{module}:{node.lineno}: imports {alias.name} from {PACKAGE}, not from its own module"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE and not node.level
        for alias in node.names
        if alias.name != "__version__" and alias.name not in RANK
    ]


def test_no_folder_is_crowded(repository: Path) -> None:
    folders = Counter(path.parent for path in (repository / "src" / PACKAGE).rglob("*.py"))
    assert folders.total() > 100
    assert {str(folder): count for folder, count in folders.items() if count - 1 > MOST_FILES} == {}


def test_the_package_keeps_its_shape(repository: Path) -> None:
    root = repository / "src" / PACKAGE
    assert len(module_names(root)) > 5
    assert violations(root) == []


def test_no_file_of_the_repository_is_long(repository: Path) -> None:
    """Tests, benchmarks, research, scripts and C++ as well; `violations` looks at the package only."""
    folders = ("tests", "benchmarks", "research", "examples", "scripts", "csrc", "src")
    files = [path for folder in folders for path in sorted((repository / folder).rglob("*"))]
    code = [path for path in files if path.suffix in {".py", ".cpp", ".h", ".sh", ".js"}]
    assert len(code) > 200
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in code}
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


CLEAN = {
    "__init__.py": "from leanmatch.cli import app",  # the root is exempt
    "errors.py": "",
    "native.py": "import leanmatch._native\nfrom leanmatch.errors import E",
    "data/__init__.py": "from leanmatch.data.tables import T",
    "data/tables.py": "from ..errors import E\nfrom leanmatch import errors, __version__",
    "metrics.py": "def f():\n    import torch\nif TYPE_CHECKING:\n    import transformers",
    "training/__init__.py": "",
    "training/loss.py": "import torch\nfrom leanmatch.errors import E",
    "cli/app.py": "from . import common",
    "cli/common.py": "",
}

PLANTED = {
    "upward": ("data/tables.py", "from leanmatch.training.loss import L", "which is not below 'data'"),
    "upward in a function": (
        "metrics.py",
        "def f():\n    import leanmatch.cli.app",
        "which is not below 'metrics'",
    ),
    "upward under TYPE_CHECKING": (
        "metrics.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from leanmatch.training import loss",
        "which is not below 'metrics'",
    ),
    "upward, relative": ("data/tables.py", "from ..training import loss", "which is not below 'data'"),
    "upward, from the root": ("data/tables.py", "from leanmatch import training", "which is not below"),
    "neighbour": ("errors.py", "import leanmatch.types", "which is not below 'errors'"),
    "cycle in a layer": ("cli/common.py", "def f():\n    from leanmatch.cli import app", "import cycle: "),
    "torch at module level": ("cli/common.py", "import torch.nn", "imports torch.nn at module level"),
    "torch in a class body": (
        "metrics.py",
        "class A:\n    from torch import nn",
        "imports torch at module level",
    ),
    "torch in try": (
        "metrics.py",
        "try:\n    import transformers\nexcept ImportError:\n    pass",
        "imports transformers at module level",
    ),
    "lazy API": ("metrics.py", "from leanmatch import PairTable", "imports PairTable from leanmatch"),
    "long file": ("errors.py", "\n" * 501, "501 lines"),
    "unknown layer": ("gadgets.py", "", "'gadgets' is not in LAYERS"),
    "import of an unknown layer": (
        "cli/common.py",
        "import leanmatch.nowhere",
        "whose layer is not in LAYERS",
    ),
}


def plant(folder: Path, files: dict[str, str]) -> Path:
    root = folder / PACKAGE
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_a_clean_package_has_no_violation(tmp_path: Path) -> None:
    assert violations(plant(tmp_path, CLEAN)) == []


@pytest.mark.parametrize("case", PLANTED)
def test_the_checker_bites(tmp_path: Path, case: str) -> None:
    name, text, message = PLANTED[case]
    found = violations(plant(tmp_path, {**CLEAN, name: text}))
    assert any(message in line for line in found), found
    assert len(found) == 1, found
