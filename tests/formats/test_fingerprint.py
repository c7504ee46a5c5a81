"""A model's fingerprint covers what decides its vectors and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from tiny_bert import PROVENANCE as GOOD

from leanmatch.errors import ModelError
from leanmatch.formats.fingerprint import (
    deciding_files,
    earlier_fingerprints,
    model_fingerprint,
    tokenizer_fingerprint,
)

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    {"idx": 3, "name": "3", "path": "3_Mine", "type": "mine.Words"},
]
DECIDING = (
    "modules.json",
    "config_sentence_transformers.json",
    "config.json",
    "sentence_bert_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "3_Mine/words.bin",
)
BESIDE = (
    "README.md",
    "notes.txt",
    "leanmatch.json",
    "data_config.json",
    "runtime-choices.json",
    "runtime-choices-int8.json",
    "train_results.json",
    "training_args.bin",
    "optimizer.bin",
    "pytorch_model.bin",  # model.safetensors is read before it
    "checkpoint-5/model.safetensors",
    "onnx/model.onnx",
    "onnx/config.json",
    "openvino/openvino_model.bin",
    "1_Pooling/notes.txt",
    "eval/similarity.json",
    ".cache/huggingface/config.json",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    for name in DECIDING:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("{}")
    (place / "modules.json").write_text(json.dumps(MODULES))
    return place


def test_every_deciding_file_counts(folder: Path) -> None:
    assert sorted(deciding_files(folder)) == sorted(DECIDING)
    seen = {model_fingerprint(folder)}
    for name in DECIDING:
        file = folder / name
        text = file.read_text()
        file.write_text(text.replace("{}", '{"a": 1}') if name != "modules.json" else text + " ")
        seen.add(model_fingerprint(folder))
        file.write_text(text)
    assert len(seen) == 1 + len(DECIDING)


@pytest.mark.parametrize("name", BESIDE)
def test_other_files_do_not(folder: Path, name: str) -> None:
    before = model_fingerprint(folder), tokenizer_fingerprint(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("{}")
    assert (model_fingerprint(folder), tokenizer_fingerprint(folder)) == before


def test_a_copy_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert model_fingerprint(tmp_path / "elsewhere") == model_fingerprint(folder)


def test_how_a_compressed_model_is_coded_counts(folder: Path) -> None:
    def written(layers: object, **more: object) -> str:
        artifact = {"version": 1, "task": "matcher", "layers": layers, "quality": {}}
        content = {**GOOD, "kind": "compressed", "artifact": artifact, **more}
        (folder / "leanmatch.json").write_text(json.dumps(content))
        return model_fingerprint(folder)

    first = written({"a": {"bits": 8}})
    assert first == written({"a": {"bits": 8}}, columns={"anchor": "query"}), (
        "what is remembered does not count"
    )
    assert first != written({"a": {"bits": 4}})


def test_paths_out_of_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("secret")
    for path in ("../", "..", "a/../..", str(tmp_path)):
        (folder / "modules.json").write_text(json.dumps([{**MODULES[0]}, {**MODULES[3], "path": path}]))
        assert all(file.is_relative_to(folder) for file in deciding_files(folder).values())
        assert all(".." not in name for name in deciding_files(folder))


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds no weights of a model"):
        model_fingerprint(tmp_path)


def earlier(folder: Path) -> str:
    """The fingerprint as versions before had it."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        decides = path.suffix in (".safetensors", ".bin", ".json", ".txt", ".model")
        if path.is_file() and decides and path.name not in ("leanmatch.json", "data_config.json"):
            content = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            total.update(f"{name}\0{len(content)}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()


def test_earlier_fingerprints_are_known(folder: Path) -> None:
    names = ("runtime-choices.json", "runtime-choices-int8.json", "runtime-choices-float32.json")
    made = [earlier(folder)]
    for name in names:
        (folder / name).write_text(json.dumps({"machine": name}))
        made.append(earlier(folder))
    assert len(set(made)) == 4 and set(made) <= earlier_fingerprints(folder)
    (folder / "runtime-choices.json").unlink()
    assert made[0] in earlier_fingerprints(folder)
    (folder / "model.safetensors").write_text("others")
    assert not set(made) & earlier_fingerprints(folder)
