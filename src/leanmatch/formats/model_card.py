"""Model cards: the ``README.md`` of a saved model, as the Hugging Face hub reads it.

The front matter is YAML in the hub's form: licence, base model, tags, and the metrics of each slice. The text
below says how to load the model, what it does in and out of its training distribution, and how it was made.
Everything comes from ``leanmatch.json`` and the evaluation; what is not known is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from leanmatch.files import atomic_file
from leanmatch.formats.provenance import read_provenance
from leanmatch.types import JsonValue

FILE_NAME = "README.md"

PIPELINE_TAGS = {
    "matcher": "sentence-similarity",
    "sequence-classification": "text-classification",
    "question-answering": "question-answering",
    "encoder": "feature-extraction",
}
"""Task of a compressed model to the hub's name for it."""

GRAPHS = ("onnx", "openvino")
"""Kinds of exports that are one graph."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_LOADED = re.compile(r'\b(leanmatch\.load|SentenceTransformer|from_pretrained)\("[^"/]*"')
"""How a card's snippets load the model, by its name on the disk."""
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.S)


def write_model_card(
    folder: str | Path, content: Mapping[str, Any], *, name: str, evaluation: Mapping[str, Any] | None = None
) -> None:
    """Write the card of a model, atomically.

    Args:
        folder: the model's folder.
        content: what its ``leanmatch.json`` says.
        name: what the card calls the model.
        evaluation: ``Evaluation.to_json()`` on held-out rows, where there is one.
    """
    with atomic_file(Path(folder, FILE_NAME)) as temporary:
        temporary.write_text(model_card(content, name=name, evaluation=evaluation), encoding="utf-8")


def rewrite_model_card(folder: str | Path, evaluation: Mapping[str, Any]) -> None:
    """Write the card of a saved model anew, with what it was measured to do.

    Raises:
        FormatError: the folder's ``leanmatch.json`` is damaged.
    """
    write_model_card(folder, read_provenance(folder) or {}, name=Path(folder).name, evaluation=evaluation)


def model_card(content: Mapping[str, Any], *, name: str, evaluation: Mapping[str, Any] | None = None) -> str:
    """The card as text; arguments as in :func:`write_model_card`."""
    kind = str(content.get("kind") or "")
    compressed = kind == "compressed"
    task = str(content["artifact"]["task"]) if compressed else "matcher"
    library = {"compressed": "leanmatch", "onnx": "onnx", "openvino": "openvino"}.get(
        kind, "sentence-transformers"
    )
    base = str(content.get("base") or "")
    header: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": PIPELINE_TAGS[task],
        "tags": ["leanmatch", PIPELINE_TAGS[task], *([] if compressed else [library])],
    }
    if "/" in base and _HUB_NAME.fullmatch(base):
        header["base_model"] = base
    licence = licence_of(base)
    if licence:
        header["license"] = licence
    if evaluation is not None:
        header["model-index"] = [{"name": name, "results": _results(evaluation)}]
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n",
        f"# {name}\n",
        _summary(content, base, task, compressed),
        _graph_usage(name, content[kind]) if kind in GRAPHS else _usage(name, task, compressed),
        _evaluation(evaluation),
        _dimensions(content, name),
        _training(content),
        _compression(content),
        f"## Licence\n\n{licence or 'Not stated by the base model'}; the training data may add conditions.\n",
    ]
    return "\n".join(part for part in parts if part)


def card_for_hub(folder: str | Path, content: Mapping[str, Any], repository: str) -> str:
    """The card of a model folder with the model's name on the hub; a new one where the folder has none."""
    file = Path(folder, FILE_NAME)
    if not file.is_file():
        return model_card(content, name=repository)
    return _LOADED.sub(rf'\1("{repository}"', file.read_text(encoding="utf-8"))


def licence_of(base: str) -> str | None:
    """The licence that the base model's own card names, where the base is a folder here."""
    from leanmatch.formats.reader import PACKAGED_COPIES, PACKAGED_MODELS, find_model

    known_here = base in PACKAGED_MODELS or base in PACKAGED_COPIES or (base and Path(base).is_dir())
    folder = find_model(base) if known_here else None
    card = None if folder is None else folder / FILE_NAME
    if card is None or not card.is_file():
        return None
    front_matter = _FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace"))
    try:
        fields = yaml.safe_load(front_matter[1]) if front_matter else None
    except yaml.YAMLError:
        return None
    licence = fields.get("license") if isinstance(fields, dict) else None
    return licence if isinstance(licence, str) else None


def _summary(content: Mapping[str, Any], base: str, task: str, compressed: bool) -> str:
    kind = ("compressed " if compressed else "") + (
        "text matcher" if task == "matcher" else f"model ({task})"
    )
    origin = f", made from `{Path(base).name if Path(base).is_absolute() else base}`" if base else ""
    use = ": it turns texts into vectors whose cosine says how well they match" if task == "matcher" else ""
    version = content.get("leanmatch_version")
    return f"A {kind}{origin}{use}." + (f" Written by leanmatch {version}.\n" if version else "\n")


def _usage(name: str, task: str, compressed: bool) -> str:
    if task != "matcher":
        return (
            "## Use\n\n```python\nimport leanmatch\n\n"
            f'model = leanmatch.load("{name}", runtime="transformers")\n```\n'
        )
    native = (
        "```python\nimport leanmatch\n\n"
        f'encoder = leanmatch.load("{name}")  # without torch\n'
        'queries = encoder.encode_query(["usb c dock"])\n'
        'documents = encoder.encode_document(["docking station, type c"])\n'
        "print(encoder.similarity(queries, documents))\n```\n"
    )
    opened, registered = "The folder is a stock sentence-transformers model too", ""
    if compressed:
        opened = 'sentence-transformers opens it too, with `pip install "leanmatch[train]"`'
        registered = "from leanmatch.integrations.sentence_transformers import register\n"
    stock = (
        f"\n{opened}:\n\n```python\n{registered}from sentence_transformers import SentenceTransformer\n\n"
        f"{'register()' + chr(10) if compressed else ''}"
        f'model = SentenceTransformer("{name}")\n```\n'
    )
    return f"## Use\n\n{native}{stock}"


def _graph_usage(name: str, graph: Mapping[str, Any]) -> str:
    """How the one graph of an export is run."""
    if graph["file"].endswith(".onnx"):
        opened = f'session = onnxruntime.InferenceSession("{graph["file"]}")'
        library, run = "onnxruntime", "session.run(None, features)[0]"
    else:
        opened = f'session = openvino.Core().compile_model("{graph["file"]}", "CPU")'
        library, run = "openvino", "session(features)[0]"
    names = ", ".join(f'"{entry}"' for entry in graph["inputs"])
    return (
        "## Use\n\nIn the folder of the files:\n\n"
        f"```python\nimport {library}\nfrom transformers import AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n{opened}\n'
        'tokens = tokenizer(["usb c dock"], padding=True, truncation=True, return_tensors="np")\n'
        f"features = {{name: tokens[name] for name in ({names},)}}\n"
        f"vectors = {run}  # {graph['outputs'][0]}\n```\n"
    )


def _evaluation(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return ""
    share = f"{100 * float(evaluation['confidence']):g}%"
    lines = [
        "## Evaluation\n",
        f"On held-out rows, in points, with {share} intervals"
        + (f" of the difference from `{evaluation['against']}`" if evaluation["against"] else "")
        + ".\n",
        "| slice | queries | metric | value | difference |",
        "|---|---|---|---|---|",
    ]
    for part in evaluation["slices"]:
        for metric in part["metrics"].values():
            change = ""
            if metric["difference"] is not None:
                ends = f"{_points(metric['difference_low'])} to {_points(metric['difference_high'])}"
                change = f"{_points(metric['difference'])} ({ends}): {metric['verdict']}"
            value = f"{100 * metric['value']:.1f}"
            lines.append(
                f"| {part['name']} | {part['n_queries']} | {metric['metric']} | {value} | {change} |"
            )
    return "\n".join(lines) + "\n"


def _dimensions(content: Mapping[str, Any], name: str) -> str:
    """The numbers of leading dimensions that were trained to work by themselves."""
    options, metrics = content.get("options"), content.get("metrics")
    trained = options.get("dimensions") if isinstance(options, Mapping) else None
    if not trained:
        return ""
    lines = [
        "## Dimensions\n",
        "Trained so that the first dimensions of a vector work by themselves (Matryoshka): "
        f'`leanmatch.load("{name}", truncate_dim={max(trained)})`.\n',
        "| dimensions | MRR@10 on validation pairs |",
        "|---|---|",
    ]
    measured = metrics if isinstance(metrics, Mapping) else {}
    for label, key in [
        ("all", "valid MRR@10"),
        *((str(n), f"valid MRR@10, {n} dimensions") for n in trained),
    ]:
        value = measured.get(key)
        lines.append(
            f"| {label} | {100 * value:.1f} |" if isinstance(value, int | float) else f"| {label} | |"
        )
    return "\n".join(lines) + "\n"


def _results(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The metrics in the hub's form: one entry a slice."""
    return [
        {
            "task": {"type": "sentence-similarity", "name": "Retrieval"},
            "dataset": {
                "name": f"{Path(str(evaluation['source'])).name or 'pairs'}, {part['name']}",
                "type": "pairs",
            },
            "metrics": [
                {
                    "type": re.sub(r"\W+", "_", metric["metric"].lower()),
                    "name": metric["metric"],
                    "value": round(float(metric["value"]), 4),
                }
                for metric in part["metrics"].values()
            ],
        }
        for part in evaluation["slices"]
    ]


def _training(content: Mapping[str, Any]) -> str:
    training, options = content.get("training"), content.get("options")
    if not isinstance(training, Mapping) or not isinstance(options, Mapping):
        return ""
    data = content.get("data")
    rows = data.get("rows") if isinstance(data, Mapping) else None
    lines = [f"- pairs: {rows:,} rows before the split"] if isinstance(rows, int) else []
    regularizer, schedule = options.get("regularizer"), options.get("schedule")
    if isinstance(regularizer, Mapping):
        lines.append(
            f"- regularizer: {regularizer.get('kind')}, matching {regularizer.get('matching')}, "
            f"weight {_plain(training.get('weight'))}"
        )
    lines.append(f"- share of the trained parameters in the average with the base: {training.get('average')}")
    if isinstance(schedule, Mapping):
        lines.append(
            f"- batch size {schedule.get('batch_size')}, learning rate {schedule.get('lr') or 'default'}, "
            f"seed {schedule.get('seed')}"
        )
    return "## Training\n\n" + "\n".join(lines) + "\n"


def _compression(content: Mapping[str, Any]) -> str:
    section = content.get("artifact")
    if not isinstance(section, Mapping):
        return ""
    sizes, dense = section["bytes"], section["dense"]
    return (
        "## Compression\n\n"
        f"- weights: {sizes['weights'] / 1e6:.1f} MB, {dense['bytes'] / 1e6:.1f} MB in float32\n"
        f"- multiply-adds per token of the compressed layers: {section['layer_macs']:,}, "
        f"{dense['layer_macs']:,} before\n"
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _plain(value: JsonValue) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
