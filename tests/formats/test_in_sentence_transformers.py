"""A compressed folder in sentence-transformers: opened, trained, saved, and opened by leanmatch again."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from compressed_models import compressed
from sentence_transformers import SentenceTransformer, __version__

import leanmatch
from leanmatch.compression import compressed_layers
from leanmatch.errors import FormatError, ModelError, UsageError
from leanmatch.formats import save_compressed
from leanmatch.formats.artifact.reader import read_artifact
from leanmatch.formats.reader import load_matcher
from leanmatch.integrations.sentence_transformers import CLASSES, register

TEXTS = ["usb dock", "red camera lens", "how do i mount a drive", ""]
MODULES = "leanmatch.integrations.sentence_transformers"

guarded = pytest.mark.skipif(int(__version__.split(".")[0]) < 6, reason="older versions import any class")


@pytest.fixture(scope="module")
def lean(build_bert, tmp_path_factory):
    """A compressed model with a Dense layer, whose weights are in the one file too, and a prompt."""
    model = compressed(build_bert(tmp_path_factory.mktemp("bert"), dense=True))
    model.prompts["query"] = "how do i "
    return save_compressed(model, tmp_path_factory.mktemp("lean") / "m", {"base": "tiny"}).folder


@pytest.fixture
def registered(monkeypatch):
    base = SentenceTransformer.__mro__[1]
    monkeypatch.setattr(base, "_module_classes", dict(getattr(base, "_module_classes", {})), raising=False)
    register()


@pytest.fixture
def unregistered(monkeypatch):
    """Whatever an earlier test in this process has registered."""
    monkeypatch.setattr(SentenceTransformer.__mro__[1], "_module_classes", {})


def opened(folder, **options):
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, **options)


def test_it_opens_and_gives_the_vectors_of_leanmatch(lean, registered):
    model = opened(lean)
    assert [type(module).__name__ for module in model] == [
        "CompressedTransformer",
        "Pooling",
        "CompressedDense",
        "Normalize",
    ]
    assert len(compressed_layers(model)) == 14 and model.prompts["query"] == "how do i "
    expected = load_matcher(lean, "cpu").encode(TEXTS)
    assert expected.std(0).max() > 1e-2
    np.testing.assert_array_equal(model.encode(TEXTS), expected)
    np.testing.assert_array_equal(
        model.encode_query(TEXTS), leanmatch.load(lean, runtime="torch", device="cpu").encode_query(TEXTS)
    )
    native = leanmatch.load(lean, precision="float32").encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), native, atol=1e-5)


@guarded
def test_trust_remote_code_opens_it_without_registering(lean, unregistered):
    expected = load_matcher(lean, "cpu").encode(TEXTS)
    np.testing.assert_array_equal(opened(lean, trust_remote_code=True).encode(TEXTS), expected)
    with pytest.raises(ValueError, match=rf"(?s){MODULES}.CompressedTransformer.*trust_remote_code"):
        opened(lean)


@guarded
def test_registering_covers_these_classes_and_no_others(lean, tmp_path, registered):
    assert set(CLASSES) == {f"{MODULES}.Compressed{name}" for name in ("Transformer", "Dense", "LayerNorm")}
    folder = shutil.copytree(lean, tmp_path / "m")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "pathlib.Path"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=r"pathlib\.Path"):
        opened(folder)


@guarded
def test_without_leanmatch_the_folder_says_what_it_needs(lean):
    """In a process that cannot import leanmatch, whose version sentence-transformers then does not find."""
    code = f"""
import sys
sys.modules["leanmatch"] = None
from sentence_transformers.util import environment
found = environment.version
def version(name):
    if name == "leanmatch":
        raise environment.PackageNotFoundError(name)
    return found(name)
environment.version = version
from sentence_transformers import SentenceTransformer
SentenceTransformer({str(lean)!r}, device="cpu", local_files_only=True, trust_remote_code=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    message = done.stderr.strip().rpartition("ImportError: ")[2]
    assert done.returncode == 1 and "leanmatch>=0.1, but it is not installed" in message
    assert 'The model is compressed: pip install "leanmatch[train]"' in message


def test_saved_by_sentence_transformers_it_is_the_same_artifact(lean, tmp_path, registered):
    model = opened(lean)
    model.save_pretrained(str(tmp_path / "again"))
    before, after = (folder / "compressed.safetensors" for folder in (lean, tmp_path / "again"))
    assert before.read_bytes() == after.read_bytes()
    assert not list((tmp_path / "again").rglob("model.safetensors"))
    assert read_artifact(tmp_path / "again").provenance == read_artifact(lean).provenance
    expected = leanmatch.load(lean)
    np.testing.assert_array_equal(
        leanmatch.load(tmp_path / "again").encode_query(TEXTS), expected.encode_query(TEXTS)
    )
    np.testing.assert_array_equal(opened(tmp_path / "again").encode(TEXTS), model.encode(TEXTS))
    config = json.loads((tmp_path / "again" / "config_sentence_transformers.json").read_text())
    assert "leanmatch" in config["requirements"]
    saved = save_compressed(model, tmp_path / "ours", {"base": "tiny"})
    assert saved.parity.min_cosine > 0.9999
    np.testing.assert_array_equal(leanmatch.load(tmp_path / "ours").encode(TEXTS), expected.encode(TEXTS))


def test_trained_by_a_stock_trainer_and_saved(lean, tmp_path, registered):
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    model = opened(lean)
    before = model.encode(TEXTS)
    pairs = Dataset.from_dict({"anchor": TEXTS[:3] * 4, "positive": TEXTS[2::-1] * 4})
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "runs"),
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=5e-3,
        save_steps=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model, arguments, train_dataset=pairs, loss=MultipleNegativesRankingLoss(model)
    )
    trainer.train()
    trained = model.eval().encode(TEXTS)
    moved = np.linalg.norm(trained - before)
    assert moved > 0.3
    model.save_pretrained(str(tmp_path / "runs"))  # checkpoints with weights of their own lie in it
    content = read_artifact(tmp_path / "runs").provenance
    assert content["base"] == "tiny" and content["artifact"]["quality"] == {}
    for saved in (opened(tmp_path / "runs"), leanmatch.load(tmp_path / "runs", precision="float32")):
        off = np.linalg.norm(saved.encode(TEXTS) - trained)  # floats are stored in 16 bits
        assert off < 0.2 * moved
    assert (tmp_path / "runs" / "checkpoint-4" / "compressed.safetensors").is_file()
    trainer.train(resume_from_checkpoint=str(tmp_path / "runs" / "checkpoint-2"))


def test_copies_and_processes(lean, tmp_path, registered, build_bert):
    model = opened(lean)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(copied.encode(TEXTS), model.encode(TEXTS))
        with pytest.raises(ModelError, match="the weights of module2 are not in reach") as caught:
            copied.save_pretrained(str(tmp_path / "copy"))
        assert "save_compressed" in caught.value.remedy
    plain = save_compressed(compressed(build_bert(tmp_path / "bert")), tmp_path / "plain", {}).folder
    copy.deepcopy(opened(plain)).save_pretrained(str(tmp_path / "copied"))
    np.testing.assert_array_equal(opened(tmp_path / "copied").encode(TEXTS), opened(plain).encode(TEXTS))


def test_stock_layers_are_saved_as_stock_ones(lean, tmp_path, registered):
    from leanmatch.formats.exports import densify

    model = opened(lean)
    dense = densify(model)
    saved = leanmatch.save_matcher(dense, tmp_path / "dense", {"base": "tiny"})
    assert saved.parity.min_cosine > 0.9999 and (tmp_path / "dense" / "model.safetensors").is_file()
    types = {entry["type"] for entry in json.loads((tmp_path / "dense" / "modules.json").read_text())}
    assert all(name.startswith("sentence_transformers.") for name in types)


def test_mistakes(lean, tmp_path, registered):
    for options in ({"model_kwargs": {"torch_dtype": "float16"}}, {"config_kwargs": {"hidden_size": 2}}):
        with pytest.raises(UsageError, match="a compressed model takes no"):
            opened(lean, **options)
    with pytest.raises(UsageError, match="export_model"):
        opened(lean, backend="onnx")
    folder = shutil.copytree(lean, tmp_path / "m")
    weights = (folder / "compressed.safetensors").read_bytes()
    (folder / "compressed.safetensors").write_bytes(weights[:-1] + b"\0")
    with pytest.raises(FormatError):
        opened(folder)


def test_folders_of_the_first_version_still_open_in_leanmatch(lean, tmp_path):
    folder = shutil.copytree(lean, tmp_path / "m")
    modules = json.loads((folder / "modules.json").read_text())
    for entry in modules:
        entry["type"] = (
            f"sentence_transformers.models.{entry['type'].rpartition('.')[2].removeprefix('Compressed')}"
        )
    (folder / "modules.json").write_text(json.dumps(modules))
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    del settings["requirements"]
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    content = json.loads((folder / "leanmatch.json").read_text())
    assert content["artifact"]["version"] == 2
    content["artifact"]["version"] = 1
    (folder / "leanmatch.json").write_text(json.dumps(content))
    np.testing.assert_array_equal(leanmatch.load(folder).encode(TEXTS), leanmatch.load(lean).encode(TEXTS))
    np.testing.assert_array_equal(
        load_matcher(folder, "cpu").encode(TEXTS), load_matcher(lean, "cpu").encode(TEXTS)
    )


def test_torch_reads_no_numbers_of_its_own(lean, registered):
    """What sentence-transformers fills in at random is replaced: two openings are equal."""
    torch.manual_seed(1)
    first = opened(lean).state_dict()
    torch.manual_seed(2)
    second = opened(lean).state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
