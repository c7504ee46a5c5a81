"""The picture of the README that shows how the importance of words moved in the demo.

    leanmatch demo
    python research/drift_picture.py --demo demo-output

The other one, quality against size and time, is made by research/real_sizes_table.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORDS = 16
BEFORE, AFTER = "#8a8f98", "#1f6fb4"


def main(arguments: list[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, default=ROOT / "demo-output")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/pictures")
    options = parser.parse_args(arguments)
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "leanmatch", "font.size": 10, "axes.spines.top": False})
    matplotlib.rcParams["axes.spines.right"] = False
    found = options.demo / "stages" / "diagnose.json"
    if not found.exists():
        sys.exit(f"{found} is not there; remedy: run `leanmatch demo` first, or name its folder with --demo")
    options.out.mkdir(parents=True, exist_ok=True)
    draw_drift(json.loads(found.read_text(encoding="utf-8"))["result"], options.out / "drift.svg")


def draw_drift(diagnosis: dict[str, Any], path: Path) -> None:
    """The words whose importance moved most surely: before, after, and the interval of the change."""
    import matplotlib.pyplot as plt

    words = [one for one in diagnosis["words"] if any(c.isalnum() for c in one["word"])]
    words = sorted(words, key=lambda one: -one["strength"])[:WORDS]
    words.sort(key=lambda one: one["difference"])
    figure, axes = plt.subplots(figsize=(6.4, 0.9 + 0.24 * len(words)), layout="constrained")
    for place, one in enumerate(words):
        axes.plot(
            [one["base"] + one["low"], one["base"] + one["high"]],
            [place, place],
            color=AFTER,
            alpha=0.25,
            linewidth=6,
            solid_capstyle="butt",
        )
        axes.annotate(
            "",
            (one["model"], place),
            (one["base"], place),
            arrowprops={"arrowstyle": "->", "color": AFTER, "linewidth": 1.2},
        )
    axes.scatter([w["base"] for w in words], range(len(words)), color=BEFORE, s=22, zorder=3, label="base")
    axes.scatter([w["model"] for w in words], range(len(words)), color=AFTER, s=22, zorder=3, label="trained")
    axes.set_yticks(range(len(words)), [w["word"] for w in words])
    axes.axvline(0, color="0.75", linewidth=1, zorder=0)
    axes.set_xlabel("what deleting the word takes off the score (band: 95% interval of the change)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=8.5)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
