"""docs/results/runtime.md from the files that benchmarks/encode.py keeps in its cache folder."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from encode_engines import NAMES

BASELINE = "ort-int8"
Rounds = list[list[float]]


def report(cache: Path, write: Path | None) -> None:
    """Put the tables together; everything by hand in the file stays above the line ``<!-- measured -->``."""
    text = "\n".join([*speed_tables(cache), *startup_table(cache), *quality_table(cache)])
    if write is None:
        print(text)
        return
    head = write.read_text().partition("<!-- measured -->")[0] if write.exists() else "# Runtime\n\n"
    write.write_text(f"{head}<!-- measured -->\n\n{text}")


def speed_tables(cache: Path) -> list[str]:
    cells: dict[tuple[int, int], dict[str, Rounds]] = defaultdict(lambda: defaultdict(list))
    machine: dict[str, Any] = {}
    for file in sorted(cache.glob("speed-*.json")):
        found = json.loads(file.read_text())
        machine = found["machine"]
        for row in found["rows"]:
            cells[row["tokens"], row["batch"]][row["engine"]] += row["rounds"]
    lines = []
    if machine:
        lines = [f"{machine['cpu']} ({machine['level']}), {machine['threads']} threads.", ""]
    for (tokens, batch), engines in sorted(cells.items()):
        lines += [
            f"### {batch} text{'s' * (batch > 1)} of {tokens} tokens",
            "",
            "| engine | p50 ms | p99 ms | fastest ms | texts/s (p50) | time over ONNX Runtime int8 |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name in NAMES:
            if name not in engines:
                continue
            flat = sorted(one for times in engines[name] for one in times)
            middle = statistics.median(flat)
            ratio = round_ratio(engines[name], engines.get(BASELINE, []))
            late = flat[min(len(flat) - 1, int(0.99 * len(flat)))]
            lines.append(
                f"| {NAMES[name]} | {1e3 * middle:.2f} | {1e3 * late:.2f} | {1e3 * flat[0]:.2f} "
                f"| {batch / middle:,.0f} | {ratio} |"
            )
        lines.append("")
    return lines


def round_ratio(own: Rounds, other: Rounds) -> str:
    """Median over rounds of the ratio of the rounds' medians."""
    ratios = [
        statistics.median(a) / statistics.median(b) for a, b in zip(own, other, strict=False) if a and b
    ]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def startup_table(cache: Path) -> list[str]:
    file = cache / "startup.json"
    if not file.exists():
        return []
    lines = [
        "### From nothing to the first vector",
        "",
        "| engine | seconds | CPU seconds | peak memory MB | bytes of weights |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in json.loads(file.read_text()):
        lines.append(
            f"| {NAMES[row['engine']]} | {row['wall']:.2f} | {row['cpu']:.2f} | {row['peak_mb']:.0f} "
            f"| {row['bytes']:,} |"
        )
    return [*lines, ""]


def quality_table(cache: Path) -> list[str]:
    file = cache / "quality.json"
    if not file.exists():
        return []
    rows = json.loads(file.read_text())
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    lines = [
        f"### Retrieval of duplicate questions ({rows[0]['queries']} queries a domain)",
        "",
        "| engine | " + " | ".join(f"{one} MRR@10 | {one} nDCG@10" for one in domains) + " |",
        "|---|" + "---:|" * (2 * len(domains)),
    ]
    for name in NAMES:
        found = {row["domain"]: row for row in rows if row["engine"] == name}
        if found:
            cells = [f"{found[one]['mrr']:.4f} | {found[one]['ndcg']:.4f}" for one in domains if one in found]
            lines.append(f"| {NAMES[name]} | " + " | ".join(cells) + " |")
    return [*lines, ""]
