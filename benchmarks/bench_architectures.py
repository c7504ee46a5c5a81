"""Every architecture of the native runtime beside BERT of the same size: seconds of one pass, side by side.

Models are random, with the same width, layers, heads and multiply-adds a token in the linear layers: a gated
feed-forward part has three matrices of two thirds of BERT's inner size. In each round each model encodes the
same token ids once, so that a busy machine slows all alike; the table has the median of the rounds' ratios.

    python benchmarks/bench_architectures.py
    python benchmarks/bench_architectures.py --tokens 512 --texts 4 --precision int8 --threads 1
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from leanmatch.cpus import usable_cpus
from leanmatch.runtime import PRECISIONS, load

BAR = 1.2
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def configs(width: int, layers: int, inner: int) -> dict[str, object]:
    """Configurations of equal cost, by name; BERT first."""
    import transformers as t

    gated, heads = inner * 2 // 3, width // 64
    common = {
        "vocab_size": 1000,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    common |= {"max_position_embeddings": 1024}
    t5 = {"vocab_size": 1000, "d_model": width, "num_layers": layers, "num_heads": heads, "d_kv": 64}
    return {
        "bert": t.BertConfig(**common, intermediate_size=inner),
        "mpnet": t.MPNetConfig(**common, intermediate_size=inner),
        "modernbert": t.ModernBertConfig(**common, **IDS, intermediate_size=gated),
        "gte": t.GteConfig(**common, intermediate_size=gated),
        "nomic_bert": t.NomicBertConfig(**common, intermediate_size=gated),
        "jina_embeddings_v3": t.JinaEmbeddingsV3Config(**common, intermediate_size=inner),
        "eurobert": t.EuroBertConfig(
            **common, **IDS, mask_token_id=3, intermediate_size=gated, num_key_value_heads=heads
        ),
        "t5, ReLU": t.T5Config(**t5, d_ff=inner, feed_forward_proj="relu"),
        "t5, gated": t.T5Config(**t5, d_ff=gated, feed_forward_proj="gated-gelu"),
    }


def save(folder: Path, config: object) -> None:
    """A random model with that configuration and a tokenizer of single letters."""
    import transformers
    from tokenizers import Tokenizer, models

    words = {"[PAD]": 0, "[UNK]": 1, **{chr(97 + letter): 2 + letter for letter in range(26)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=1024
    )
    fast.save_pretrained(folder)
    kind = type(config).__name__.removesuffix("Config")
    name = f"{kind}EncoderModel" if kind.endswith("T5") else f"{kind}Model"
    getattr(transformers, name)(config).save_pretrained(folder)


def spent(encoder: object, ids: list[list[int]], threads: int) -> tuple[float, float]:
    """Seconds and processor seconds of one pass over the texts."""
    start, processor = time.perf_counter(), time.process_time()
    encoder.encode_tokens(ids, threads=threads, add_special_tokens=False)
    return time.perf_counter() - start, time.process_time() - processor


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Prints the table; returns the median ratio of processor time to BERT's by name."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=384, help="a multiple of 64")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--inner", type=int, default=1536, help="a multiple of 3")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32, help="a text")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--only", nargs="*", help="names; BERT is always measured")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    ids = rng.integers(2, 1000, (options.texts, options.tokens)).tolist()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    encoders = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in configs(options.width, options.layers, options.inner).items():
            if options.only and name not in ("bert", *options.only):
                continue
            save(Path(folder) / name, config)
            encoders[name] = load(Path(folder) / name, precision=options.precision, runtime="native")
    for encoder in encoders.values():
        spent(encoder, ids, options.threads)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in encoders}
    for _ in range(options.rounds):
        for name, encoder in encoders.items():
            times[name].append(spent(encoder, ids, options.threads))
    ratios = {
        name: [
            statistics.median(own[kind] / base[kind] for own, base in zip(taken, times["bert"], strict=True))
            for kind in (0, 1)
        ]
        for name, taken in times.items()
    }
    print(
        f"{options.texts} texts of {options.tokens} tokens, {options.precision}, {options.threads} threads, "
        f"width {options.width}, {options.layers} layers, {options.rounds} rounds, "
        f"load {os.getloadavg()[0]:.1f}; bar {BAR}"
    )
    print("| model | ms, best | time over BERT's, median | processor time over BERT's |\n|---|---|---|---|")
    for name, (wall, processor) in ratios.items():
        print(f"| {name} | {1e3 * min(times[name])[0]:.1f} | {wall:.2f} | {processor:.2f} |")
    return {name: processor for name, (_, processor) in ratios.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
