"""Sphinx configuration of the documentation: `make docs` builds it into build/docs, warnings as errors.

The pages are Markdown (MyST). Two kinds are made while building: the reference, from docstrings, and cli.md,
from the command line's own help.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_source = (HERE.parent / "src/leanmatch/__init__.py").read_text(encoding="utf-8")

project = "leanmatch"
author = "The leanmatch authors"
copyright = "The leanmatch authors, Apache-2.0"
release = re.search(r'__version__ = "([^"]+)"', _source)[1]  # type: ignore[index]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.header",  # results are tables under an H3 each
    "ref.python",  # `bytes` in a signature is also the name of attributes
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"leanmatch {release}"
html_copy_source = False
html_show_sphinx = False


def _write_cli(app: Any) -> None:
    import typer
    from typer.cli import get_docs_for_click

    from leanmatch.cli.app import app as commands

    command = typer.main.get_command(commands)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="leanmatch")
    text = text.replace("# `leanmatch`\n", "# Command line\n", 1)
    file = HERE / "cli.md"
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def _load_lazy_names(_: Any) -> None:
    """Packages load their public names when these are first used; autodoc only sees those that are there."""
    for page in (HERE / "reference").glob("*.md"):
        for name in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8")):
            module = importlib.import_module(name)
            for public in getattr(module, "__all__", ()):
                setattr(module, public, getattr(module, public))


def setup(app: Any) -> None:
    """Sphinx calls this first."""
    app.connect("builder-inited", _write_cli)
    app.connect("builder-inited", _load_lazy_names)
