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
        whether kept from an earlier run. ``report``, ``serve``, ``address``: what to open and to type.
    """
    results = {name: record.result for name, record in records.items()}
    speed = results["speed"]
    models = {name: dict(found) for name, found in speed["models"].items()}
    models["base"]["metrics"] = _metrics(results["evaluate"], of_rival=True)
    models["trained"]["metrics"] = _metrics(results["evaluate"])
    models["compressed"]["metrics"] = _metrics(results["evaluate-compressed"])
    models["trained"]["against"], models["compressed"]["against"] = "base", "trained"
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
            "quality": compression["quality"],
            "fewer_multiply_adds": compression["dense"]["layer_macs"] / compression["layer_macs"],
            "attempts": len(compression["attempts"]),
        },
        "words": {
            "gained": [one["word"] for one in words if one["low"] > 0 and _is_word(one)][:MOST_WORDS],
            "lost": [one["word"] for one in words if one["high"] < 0 and _is_word(one)][:MOST_WORDS],
        },
        "index": results["index"],
        "server": results["serve"],
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


def _is_word(found: Mapping[str, Any]) -> bool:
    return any(character.isalnum() for character in found["word"])


def _metrics(evaluation: Mapping[str, Any], *, of_rival: bool = False) -> dict[str, dict[str, Any]]:
    parts = {part["name"]: part["metrics"] for part in evaluation["slices"]}
    found: dict[str, dict[str, Any]] = {}
    for name in SLICES:
        found[name] = {}
        for metric in METRICS:
            one = parts[name][metric]
            found[name][metric] = (
                {"value": one["base"]}
                if of_rival
                else {
                    "value": one["value"],
                    "difference": one["difference"],
                    "low": one["difference_low"],
                    "high": one["difference_high"],
                }
            )
    return found


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
        table.add_column(name + against, justify="right")
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


def _cell(found: Mapping[str, float]) -> str:
    text = f"{100 * found['value']:.1f}"
    if "difference" not in found:
        return text
    difference, low, high = (100 * found[key] for key in ("difference", "low", "high"))
    return f"{text}\n{difference:+.1f} ({low:+.1f} to {high:+.1f})"


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """What the tables do not say."""
    from leanmatch.compression.planner.quality import Quality

    compression, server = summary["compression"], summary["server"]
    asked = compression["asked"]["keep"]
    verdict = "reached" if compression["reached"] else "NOT reached"
    found = [
        *(
            remark
            for remark in summary["training"]["remarks"]
            if remark.startswith(("chosen", "fine-tuning"))
        ),
        f"compression: {asked:.0%} asked for and {verdict}: {Quality(**compression['quality']).sentence()}; "
        f"{compression['fewer_multiply_adds']:.2f}x fewer multiply-adds in the layers; "
        f"attempts: {compression['attempts']}",
    ]
    if compression["quality"]["low"] < asked <= compression["quality"]["kept"]:
        found.append(
            f"the estimate is above {asked:.0%}, its interval is not: more held-out pairs would tell"
        )
    tested = summary["models"]["compressed"]["metrics"]
    kept = [f"{_kept(tested[part]['MRR@10']):.1%} {part}" for part in SLICES]
    found.append(f"on the test pairs it keeps of the trained model's MRR@10: {', '.join(kept)}")
    words = summary["words"]
    for change, names in (("more", words["gained"]), ("less", words["lost"])):
        if names:
            found.append(f"scores hang {change} on: {', '.join(names)}")
    found.append(
        f"server: a recommendation took {server['median_ms']:.1f} ms (median of {server['requests']}, "
        f"slowest {server['slowest_ms']:.1f} ms); first answer after "
        f"{server['start_seconds']:.1f} s"
    )
    if not server["same_vectors"]:
        found.append("the server's vectors are NOT those of the model in this process")
    found.append(
        f"speeds are of {summary['speed_texts']} texts of the catalogue, both engines on all cores, the "
        f"median of {ROUNDS} rounds"
    )
    return found


def _kept(found: Mapping[str, float]) -> float:
    before = found["value"] - found["difference"]
    return found["value"] / before if before else 1.0


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
    for name, one in stages.items():
        row = (f"{one['seconds']:.0f}", f"{one['cpu_seconds']:.0f}")
        table.add_row(name, *row, "kept from an earlier run" if one["kept"] else "")
    rows = [sum(one[key] for one in stages.values()) for key in ("seconds", "cpu_seconds")]
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
on your own data (columns anchor and positive; any other column can be held out):
  leanmatch data check pairs.csv
  leanmatch train pairs.csv -o model/ --hold-out category=Toys
  leanmatch diagnose model/ pairs.csv -o report.html
  leanmatch compress model/ --data pairs.csv --keep 99% -o lean/
  leanmatch index build lean/ items.csv -o catalogue/
  leanmatch serve catalogue/"""
