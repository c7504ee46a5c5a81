"""What the scripts share that print a table of result files, or write it into a page between two marks."""

from __future__ import annotations

import argparse
from pathlib import Path

from leanmatch.files import atomic_file


def arguments_of(doc: str | None) -> argparse.Namespace:
    """``RESULTS [-o PAGE]``: folded runs or a folder of result files; the page that the table goes into."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    return parser.parse_args()


def publish(text: str, output: Path | None, begin: str, end: str = "") -> None:
    """Print the text, or put it into the page between ``begin`` and ``end`` (or the end of the page)."""
    if output is None:
        print(text, end="")
        return
    before, _, rest = output.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2] if end else ""
    with atomic_file(output) as temporary:
        temporary.write_text(before + begin + text + end + after, encoding="utf-8")
