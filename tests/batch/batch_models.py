"""A static encoder of random vectors as a folder, made without torch, and files of items."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["usb", "dock", "hdmi", "cable", "café", "日本", "lamp", "red", "😀", "blue"]
DIMENSION = 10


def static_model(folder: Path, seed: int = 0) -> Path:
    """A folder that leanmatch.load opens: the mean of the words' vectors."""
    folder.mkdir(parents=True)
    vocabulary = {"[UNK]": 0, **{word: row for row, word in enumerate(WORDS, start=1)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = np.random.default_rng(seed).normal(size=(len(vocabulary), DIMENSION)).astype(np.float32)
    save_file({"embedding.weight": rows}, str(folder / "model.safetensors"))
    modules = [
        ("0", "", "sentence_transformers.models.StaticEmbedding"),
        ("1", "1_Normalize", "sentence_transformers.models.Normalize"),
    ]
    listed = [
        {"idx": i, "name": name, "path": path, "type": kind} for i, (name, path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    return folder


def rows_of_shop(start: int, stop: int) -> list[dict[str, object]]:
    """Items whose texts hold line ends, quotes, commas and signs of every kind."""
    rng = np.random.default_rng(start)
    return [
        {
            "sku": f"s{n}",
            "title": " ".join(rng.choice(WORDS, 4)) + ('\nx "y", z' if n % 7 == 0 else "") + f" {n % 3}",
            "price": n / 2 if n % 5 else None,
        }
        for n in range(start, stop)
    ]


def write_csv(path: Path, rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows, row_group_size: int = 10) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return path


def bytes_below(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
