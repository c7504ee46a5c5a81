"""The demo's results in one place, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanmatch.cli.demo.speed import OWN, ROUNDS, STOCK

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from leanmatch.cli.demo.stages import Record

METRICS = ("MRR@10", "nDCG@10")
SLICES = ("in distribution", "out of distribution")
ADDRESS = "http://127.0.0.1:8080/"
MOST_WORDS = 6
NAMES = {"int8": "int8, untrained"}
"""What models are called in the table, where that is not their name."""
FEWER_BYTES, MORE_TEXTS = 2.0, 1.3
"""What the compressed model should gain over plain int8, at no significant loss."""


def summarize(
    output: Path, records: Mapping[str, Record], seconds: float, cpu_seconds: float
) -> dict[str, Any]:
    """One JSON object.

    Returns:
        ``models``: by name bytes, texts a second by engine, and ``metrics``: by slice and metric the value
        and the interval of its difference (``against``: base for the trained model, trained for the
        compressed one). ``compression``: the held-out quality, what was asked and whether it was reached.
        ``training``: what was chosen and why. ``words``: those whose importance moved most surely.
        ``server``: see :func:`leanmatch.cli.demo.requests.ask`. ``stages``: seconds and processor time, and
        whether kept from an earlier run. ``site``: its parts and bytes.
        ``report``, ``serve``, ``address``: what to open and to type.
    """
    results = {name: record.result for name, record in records.items()}
    speed = results["speed"]
    models = {name: dict(entry) for name, entry in speed["models"].items()}
    models["base"]["metrics"] = _metrics(results["evaluate"], of_rival=True)
    models["trained"]["metrics"] = _metrics(results["evaluate"])
    models["compressed"]["metrics"] = _metrics(results["evaluate-compressed"])
    models["int8"]["metrics"] = _metrics(results["evaluate-int8"])
    models["trained"]["against"] = "base"
    models["int8"]["against"] = models["compressed"]["against"] = "trained"
    compression = results["compress"]
    words = results["diagnose"]["words"]
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "queries": {part["name"]: part["n_queries"] for part in results["evaluate"]["slices"]},
        "speed_texts": speed["texts"],
        "models": models,
        "training": {
            "weight": results["train"]["weight"],
            "average": results["train"]["average"],
            "remarks": results["train"]["remarks"],
        },
        "compression": {
            "asked": compression["asked"],
            "reached": compression["reached"],
            "machine": compression["machine"],
            "quality": compression["quality"],
            "fewer_multiply_adds": compression["dense"]["layer_macs"] / compression["layer_macs"],
            "attempts": len(compression["attempts"]),
        },
        "words": {
            "gained": [word["word"] for word in words if word["low"] > 0 and _is_word(word)][:MOST_WORDS],
            "lost": [word["word"] for word in words if word["high"] < 0 and _is_word(word)][:MOST_WORDS],
        },
        "index": results["index"],
        "server": results["serve"],
        "site": results["site"],
        "stages": {
            name: {
                "seconds": round(record.seconds, 1),
                "cpu_seconds": round(record.cpu_seconds, 1),
                "kept": record.kept,
            }
            for name, record in records.items()
        },
        "report": str(output / "report.html"),
        "serve": f"leanmatch serve {output / 'catalogue'}",
        "address": ADDRESS,
    }


def _is_word(word: Mapping[str, Any]) -> bool:
    return any(character.isalnum() for character in word["word"])


def _metrics(evaluation: Mapping[str, Any], *, of_rival: bool = False) -> dict[str, dict[str, Any]]:
    parts = {part["name"]: part["metrics"] for part in evaluation["slices"]}
    quality: dict[str, dict[str, Any]] = {}
    for name in SLICES:
        quality[name] = {}
        for metric in METRICS:
            measure = parts[name][metric]
            quality[name][metric] = (
                {"value": measure["base"]}
                if of_rival
                else {
                    "value": measure["value"],
                    "difference": measure["difference"],
                    "low": measure["difference_low"],
                    "high": measure["difference_high"],
                }
            )
    return quality


def show(summary: Mapping[str, Any], console: Console) -> None:
    """Tables and sentences."""
    console.print(models_table(summary))
    for sentence in sentences(summary):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    for query in summary["server"]["queries"]:
        console.print(_answers(query))
    console.print(_stages(summary["stages"]))
    console.print(next_steps(summary), highlight=False, markup=False, soft_wrap=True)


def models_table(summary: Mapping[str, Any]) -> Table:
    """A column a model; rows: quality, bytes, speed."""
    from rich.table import Table

    table = Table(title="quality in points, difference and its 95% interval; size; speed")
    table.add_column("")
    for name, model in summary["models"].items():
        against = f"\nagainst {model['against']}" if "against" in model else ""
        table.add_column(NAMES.get(name, name) + against, justify="right")
    models = list(summary["models"].values())
    for part in SLICES:
        for metric in METRICS:
            cells = [_cell(model["metrics"][part][metric]) for model in models]
            heading = f"{metric} {part}"
            table.add_row(heading + (f"\n({summary['queries'][part]} queries)"), *cells)
    table.add_section()
    for key, heading in (("weights_bytes", "weights, MB"), ("folder_bytes", "whole folder, MB")):
        table.add_row(heading, *(f"{model[key] / 1e6:.1f}" for model in models))
    table.add_section()
    for engine in (STOCK, OWN):
        table.add_row(f"texts/s, {engine}", *(f"{model['texts_a_second'][engine]:,.0f}" for model in models))
    return table


def _cell(measure: Mapping[str, float]) -> str:
    text = f"{100 * measure['value']:.1f}"
    if "difference" not in measure:
        return text
    difference, _, interval = _points(measure).partition(", ")
    return f"{text}\n{difference} ({interval})"


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """What the tables do not say."""
    from leanmatch.compression.planner.quality import Quality

    compression, server = summary["compression"], summary["server"]
    asked = compression["asked"]["keep"]
    quality = Quality(**compression["quality"])
    lines = [
        *(
            remark
            for remark in summary["training"]["remarks"]
            if remark.startswith(("chosen", "fine-tuning"))
        ),
        f"compression: {quality.sentence()}; {compression['fewer_multiply_adds']:.2f}x fewer multiply-adds "
        f"in the layers; attempts: {compression['attempts']}",
        quality.verdict_sentence(asked),
        against_int8(summary["models"]),
    ]
    tested = summary["models"]["compressed"]["metrics"]
    kept = [f"{_kept(tested[part]['MRR@10']):.1%} {part}" for part in SLICES]
    lines.append(f"on the test pairs it keeps of the trained model's MRR@10: {', '.join(kept)}")
    words = summary["words"]
    for change, names in (("more", words["gained"]), ("less", words["lost"])):
        if names:
            lines.append(f"scores hang {change} on: {', '.join(names)}")
    lines.append(
        f"server: a recommendation took {server['median_ms']:.1f} ms (median of {server['requests']}, "
        f"slowest {server['slowest_ms']:.1f} ms); first answer after "
        f"{server['start_seconds']:.1f} s"
    )
    if not server["same_vectors"]:
        lines.append("the server's vectors are NOT those of the model in this process")
    lines.append(
        f"speeds are of {summary['speed_texts']} texts of the catalogue, both engines on all cores, the "
        f"median of {ROUNDS[STOCK]} rounds with {STOCK} and of {ROUNDS[OWN]} with {OWN}"
    )
    return lines


def against_int8(models: Mapping[str, Any]) -> str:
    """What the compressed model gains over plain int8, and what it gives up for it.

    The bar: :data:`FEWER_BYTES` and :data:`MORE_TEXTS` at no significant loss.
    """
    int8, compressed = models["int8"], models["compressed"]
    fewer = int8["weights_bytes"] / compressed["weights_bytes"]
    more = compressed["texts_a_second"][OWN] / int8["texts_a_second"][OWN]
    lost = [
        f"{metric} {part} ({_points(measure)})"
        for part, metrics in compressed["metrics"].items()
        for metric, measure in metrics.items()
        if measure["high"] < 0
    ]
    missed = [
        *([f"bytes ({FEWER_BYTES:g}x is the bar)"] if fewer < FEWER_BYTES else []),
        *([f"texts/s ({MORE_TEXTS:g}x is the bar)"] if more < MORE_TEXTS else []),
        *lost,
    ]
    gains = f"against int8, untrained: {fewer:.2f}x fewer bytes of weights, {more:.2f}x the texts/s"
    return f"{gains}; it gives up: {', '.join(missed)}" if missed else f"{gains}, no significant loss"


def _points(measure: Mapping[str, float]) -> str:
    difference, low, high = (100 * measure[key] for key in ("difference", "low", "high"))
    return f"{difference:+.1f}, {low:+.1f} to {high:+.1f}"


def _kept(measure: Mapping[str, float]) -> float:
    before = measure["value"] - measure["difference"]
    return measure["value"] / before if before else 1.0


def _answers(query: Mapping[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(query["text"]), title_justify="left")
    for heading in ("score", "function of pandas", "words that carried it"):
        table.add_column(heading, justify="right" if heading == "score" else "left", overflow="fold")
    for item in query["items"]:
        table.add_row(f"{item['score']:.3f}", Text(item["text"]), Text(", ".join(item["words"])))
    return table


def _stages(stages: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title="time, in seconds", box=None, padding=(0, 2, 0, 0))
    for heading in ("stage", "clock", "processor", ""):
        table.add_column(heading, justify="right" if heading in ("clock", "processor") else "left")
    for name, stage in stages.items():
        row = (f"{stage['seconds']:.0f}", f"{stage['cpu_seconds']:.0f}")
        table.add_row(name, *row, "kept from an earlier run" if stage["kept"] else "")
    rows = [sum(stage[key] for stage in stages.values()) for key in ("seconds", "cpu_seconds")]
    table.add_row("all", *(f"{total:.0f}" for total in rows))
    return table


def next_steps(summary: Mapping[str, Any]) -> str:
    """What to open and what to type."""
    report = Path(summary["report"]).resolve().as_uri()
    return f"""
this run: {summary["seconds"]:.0f} s by the clock, {summary["cpu_seconds"]:.0f} s of processor time
the report: {report}
the server: {summary["serve"]}
            then open {summary["address"]}
without a server: python -m http.server -d {summary["site"]["output"]}
            then open http://127.0.0.1:8000/
on your own data (columns anchor and positive; any other column can be held out):
  leanmatch data check pairs.csv
  leanmatch train pairs.csv -o model/ --hold-out category=Toys
  leanmatch diagnose model/ pairs.csv -o report.html
  leanmatch compress model/ --data pairs.csv --keep 99% -o lean/
  leanmatch index build lean/ items.csv -o catalogue/
  leanmatch serve catalogue/
  leanmatch export catalogue/ --to web -o site/"""
