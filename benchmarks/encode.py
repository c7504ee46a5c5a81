"""Encoders side by side: the runtime's against torch, ONNX Runtime, OpenVINO and CTranslate2 on MiniLM-L6.

    python benchmarks/encode.py prepare --compressed lean/ --cache cache
    python benchmarks/encode.py speed   --compressed lean/ --cache cache  (at most 3 minutes a call)
    python benchmarks/encode.py startup --compressed lean/ --cache cache
    python benchmarks/encode.py quality --compressed lean/ --cache cache --pairs question_pairs.tsv.gz
    python benchmarks/encode.py report  --cache cache --write docs/results/runtime.md

``speed``: token ids in, vectors out (tokenization is the same library for all); every text has exactly so
many tokens, so no engine pads. In each round every engine has its turn, so that other work on the machine
hits all alike; medians over all calls count, and ratios are taken within a round. ``startup``: a fresh
process an engine: seconds from its start to the first vector, and its peak memory. ``quality``: retrieval of
duplicate questions with every engine. Needs ``pip install "leanmatch[bench]"``. Results are kept in the cache
folder, one file a call.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from encode_engines import NAMES, model_folder, open_engine

CELLS = [(tokens, batch) for tokens in (16, 32, 128) for batch in (1, 8, 64)]
SECONDS = 0.12  # an engine's turn in a round; three calls at least


def token_ids(tokens: int, batch: int, pairs: Path | None) -> np.ndarray:
    """Real text where it is given, else random words; cut or joined to exactly ``tokens`` tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if pairs is None:
        stream = np.random.default_rng(0).integers(1996, 29000, size=batch * tokens + tokens).tolist()
    else:
        texts = [pair[0] for pair in read_pairs(pairs)[: batch * tokens]]
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        stream = [one for encoding in encoded for one in encoding.ids]
    inner = tokens - 2
    rows = [[101, *stream[i * inner : (i + 1) * inner], 102] for i in range(batch)]
    return np.asarray(rows, dtype=np.int64)


def read_pairs(path: Path, domain: str | None = None) -> list[tuple[str, str]]:
    """Positive test pairs of duplicate questions."""
    out = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            where, split, label, anchor, positive = line.rstrip("\n").split("\t")
            if split == "test" and label == "1" and domain in (None, where):
                out.append((anchor, positive))
    return out


def speed(arguments: argparse.Namespace) -> None:
    engines = {}
    for name in arguments.engines:
        engines[name] = open_engine(name, arguments.cache, arguments.compressed, arguments.threads)[0]
    inputs = {cell: token_ids(*cell, arguments.pairs) for cell in arguments.cells}
    for encode in engines.values():  # first calls allocate
        for ids in inputs.values():
            encode(ids)
    file = arguments.cache / f"speed-{int(time.time())}.json"
    calls: dict[tuple[int, int], dict[str, list[list[float]]]] = {
        cell: {name: [] for name in engines} for cell in inputs
    }
    for _ in range(arguments.rounds):
        for cell, ids in inputs.items():
            for name, encode in engines.items():
                times: list[float] = []
                until = time.perf_counter() + SECONDS
                while len(times) < 3 or time.perf_counter() < until:
                    start = time.perf_counter()
                    encode(ids)
                    times.append(time.perf_counter() - start)
                calls[cell][name].append(times)
    rows = [
        {"tokens": cell[0], "batch": cell[1], "engine": name, "rounds": rounds}
        for cell, engines_ in calls.items()
        for name, rounds in engines_.items()
    ]
    file.write_text(json.dumps({"machine": machine(arguments.threads), "rows": rows}))
    for cell in inputs:
        print(f"{cell[0]} tokens, batch {cell[1]}")
        for name in engines:
            flat = sorted(one for times in calls[cell][name] for one in times)
            print(f"  {NAMES[name]:30} p50 {1e3 * statistics.median(flat):8.2f} ms")


def startup(arguments: argparse.Namespace) -> None:
    """Each engine in a process of its own."""
    rows = []
    for name in arguments.engines:
        command = [sys.executable, __file__, "first", "--cache", str(arguments.cache), "--engines", name]
        command += ["--threads", str(arguments.threads)]
        command += ["--compressed", str(arguments.compressed)] if arguments.compressed else []
        best: dict[str, Any] = {}
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = json.loads(out.splitlines()[-1])
            found["wall"] = time.perf_counter() - start
            if not best or found["wall"] < best["wall"]:
                best = found
        print(
            f"{NAMES[name]:30} {best['wall']:.2f} s, CPU {best['cpu']:.2f} s, peak {best['peak_mb']:.0f} MB"
        )
        rows.append({"engine": name, **best})
    (arguments.cache / "startup.json").write_text(json.dumps(rows))


def first(arguments: argparse.Namespace) -> None:
    """One text through one engine: seconds of processor time and peak memory of this process."""
    import resource

    name = arguments.engines[0]
    encode, weights = open_engine(name, arguments.cache, arguments.compressed, arguments.threads)
    if name.startswith("lean"):
        encode.encoder.encode(["how do i mount a drive"])  # type: ignore[attr-defined]
    else:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
        tokenizer.no_padding()
        encode(np.asarray([tokenizer.encode("how do i mount a drive").ids], dtype=np.int64))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": time.process_time(), "peak_mb": peak, "bytes": size_of(weights)}))


def size_of(path: Path) -> int:
    """Bytes of a file, or of the weight files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.iterdir() if one.suffix in (".safetensors", ".bin"))


def quality(arguments: argparse.Namespace) -> None:
    """Anchors of test pairs against all test titles, by domain: MRR@10 and nDCG@10, one right title each."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(64)
    file = arguments.cache / "quality.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    for name in arguments.engines:
        encode, _ = open_engine(name, arguments.cache, arguments.compressed, arguments.threads)
        for domain in ("askubuntu", "quora"):
            pairs = read_pairs(arguments.pairs, domain)[: arguments.most]
            titles = list(dict.fromkeys(text for pair in pairs for text in pair))
            vectors = encode_texts(encode, tokenizer, titles)
            at = {title: row for row, title in enumerate(titles)}
            scores = vectors[[at[a] for a, _ in pairs]] @ vectors.T
            scores[np.arange(len(pairs)), [at[a] for a, _ in pairs]] = -np.inf  # not itself
            right = scores[np.arange(len(pairs)), [at[b] for _, b in pairs]]
            ranks = (scores > right[:, None]).sum(axis=1) + 1
            inside = ranks <= 10
            row = {
                "engine": name,
                "domain": domain,
                "queries": len(pairs),
                "mrr": float(np.where(inside, 1 / ranks, 0).mean()),
                "ndcg": float(np.where(inside, 1 / np.log2(ranks + 1), 0).mean()),
            }
            rows = [one for one in rows if (one["engine"], one["domain"]) != (name, domain)] + [row]
            print(
                f"{NAMES[name]:30} {domain:10} MRR@10 {row['mrr']:.4f} nDCG@10 {row['ndcg']:.4f}", flush=True
            )
        file.write_text(json.dumps(rows))


def encode_texts(encode: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Texts of one length at a time, so that no engine sees padding."""
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    out: np.ndarray | None = None
    for length in sorted({len(one) for one in ids}):
        rows = [row for row, one in enumerate(ids) if len(one) == length]
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            vectors = encode(np.asarray([ids[row] for row in part], dtype=np.int64))
            if out is None:
                out = np.empty((len(texts), vectors.shape[1]), np.float32)
            out[part] = vectors
    assert out is not None
    return out


def machine(threads: int) -> dict[str, Any]:
    from bench_kernels import cpu_name

    from leanmatch import native

    level = next(name for name, variant in reversed(native.variants().items()) if variant.runs)
    return {
        "cpu": cpu_name(),
        "level": level,
        "threads": threads,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["prepare", "speed", "startup", "first", "quality", "report"])
    parser.add_argument("--compressed", type=Path, help="folder of leanmatch compress, for lean-sparse")
    parser.add_argument("--cache", type=Path, required=True, help="exports and results")
    parser.add_argument("--pairs", type=Path, help="duplicate questions: domain split label anchor positive")
    parser.add_argument("--engines", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--cells", nargs="+", help="tokens x batch, such as 32x64", default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=1000, help="queries a domain")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    arguments.cells = (
        CELLS if arguments.cells is None else [tuple(map(int, cell.split("x"))) for cell in arguments.cells]
    )
    arguments.cache.mkdir(parents=True, exist_ok=True)
    if arguments.what == "prepare":
        for name in arguments.engines:
            open_engine(name, arguments.cache, arguments.compressed, arguments.threads)
            print("ready:", NAMES[name], flush=True)
    elif arguments.what == "report":
        from encode_report import report

        report(arguments.cache, arguments.write)
    else:
        {"speed": speed, "startup": startup, "first": first, "quality": quality}[arguments.what](arguments)


if __name__ == "__main__":
    main()
