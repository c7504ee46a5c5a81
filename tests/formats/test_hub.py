"""Pushing to and loading from a hub on loopback (tests/fake_hub.py), by huggingface_hub itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_hub import READER, WRITER, Repository, running_hub
from test_docs import code_blocks
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))  # for compressed_models, which conftest.py imports

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

import leanmatch
from leanmatch.cli.app import app
from leanmatch.errors import FormatError, MissingExtraError, ModelError, UsageError
from leanmatch.formats import push_model, read_provenance, save_matcher
from leanmatch.formats.hub.client import file_hash
from leanmatch.formats.hub.download import hub_folder
from leanmatch.formats.reader import load_matcher

TEXTS = ["usb dock", "red camera lens", ""]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub, a cache of its own and a token that may write."""
    from huggingface_hub import constants

    with running_hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield running


@pytest.fixture(scope="module")
def stock(build_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock") / "shop"
    model = build_bert(tmp_path_factory.mktemp("bert"), dense=True)
    save_matcher(model, folder, {"base": "/home/ann/models/tiny", "data": {"source": "/home/ann/pairs.csv"}})
    return folder


def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_pushed_model_loads_by_its_name_and_gives_the_same_vectors(hub, stock, monkeypatch):
    pushed = push_model(stock, "ann/shop", private=True, message="first")
    assert hub.repositories["ann/shop"].private and pushed.private
    assert hub.repositories["ann/shop"].messages[-1] == "first"
    assert (
        pushed.url == f"{hub.url}/ann/shop" and pushed.commit == hub.repositories["ann/shop"].branches["main"]
    )
    expected = leanmatch.load(stock).encode(TEXTS)
    encoder = leanmatch.load("ann/shop")
    assert encoder.name == "ann/shop" and expected.std(0).max() > 1e-3
    np.testing.assert_array_equal(encoder.encode(TEXTS), expected)
    np.testing.assert_allclose(
        leanmatch.load("ann/shop", runtime="torch", device="cpu").encode(TEXTS), expected, atol=1e-5
    )
    count = len(hub.requests)
    offline(monkeypatch)
    np.testing.assert_array_equal(leanmatch.load("ann/shop").encode(TEXTS), expected)
    assert len(hub.requests) == count


def test_a_compressed_model_is_small_on_the_hub_and_loads(hub, good_artifact):
    push_model(good_artifact, "ann/lean")
    files = hub.files("ann/lean")
    assert "compressed.safetensors" in files and "model.safetensors" not in files
    np.testing.assert_array_equal(
        leanmatch.load("ann/lean").encode(TEXTS), leanmatch.load(good_artifact).encode(TEXTS)
    )


def test_only_the_files_that_belong_are_sent(hub, stock, tmp_path):
    folder = shutil.copytree(stock, tmp_path / "shop")
    (folder / "notes.txt").write_text("secret prices")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "model.safetensors").write_bytes(b"x")
    pushed = push_model(folder, "ann/shop")
    assert pushed.left_out == (".DS_Store", "checkpoint-10/", "notes.txt")
    files = hub.files("ann/shop")
    assert set(files) - {".gitattributes"} == set(pushed.sent)
    assert {"README.md", "leanmatch.json", "model.safetensors", "2_Dense/model.safetensors"} <= set(files)
    assert not any(b"/home/ann" in content or b"secret" in content for content in files.values())
    sent = json.loads(files["leanmatch.json"])
    assert (sent["base"], sent["data"]) == ("tiny", {"source": "pairs.csv"})
    card = files["README.md"].decode()
    assert 'leanmatch.load("ann/shop")' in card and 'SentenceTransformer("ann/shop")' in card
    assert read_provenance(folder)["base"] == "/home/ann/models/tiny"  # the folder itself stays as it was


def test_the_card_is_made_where_there_is_none(hub, stock, tmp_path):
    folder = shutil.copytree(stock, tmp_path / "shop")
    (folder / "README.md").unlink()
    push_model(folder, "ann/other")
    assert "library_name: sentence-transformers" in hub.files("ann/other")["README.md"].decode()
    assert not (folder / "README.md").exists()


def test_a_second_push_does_nothing_and_a_third_sends_what_changed(hub, stock, tmp_path):
    folder = shutil.copytree(stock, tmp_path / "shop")
    first = push_model(folder, "ann/shop")
    commits = len(hub.repositories["ann/shop"].commits)
    again = push_model(folder, "ann/shop")
    assert again.sent == () and again.bytes == 0 and again.commit == first.commit
    assert len(hub.repositories["ann/shop"].commits) == commits
    (folder / "README.md").write_text("# mine\n")
    assert push_model(folder, "ann/shop").sent == ("README.md",)


def test_an_interrupted_push_goes_on_where_it_was(hub, stock):
    hub.fail_uploads_after = 1
    with pytest.raises(ModelError, match="pushing to ann/shop") as caught:
        push_model(stock, "ann/shop")
    assert "files that have arrived are not sent again" in caught.value.remedy
    assert (
        len(hub.repositories["ann/shop"].commits) == 1
    )  # nothing but the initial commit: never half a model
    hub.fail_uploads_after = None
    before = len(hub.sent("PUT /lfs/"))
    push_model(stock, "ann/shop")
    assert len(hub.sent("PUT /lfs/")) - before == 1  # of two large files
    assert leanmatch.load("ann/shop").dimension == leanmatch.load(stock).dimension


def test_the_weights_of_an_earlier_model_are_deleted_and_other_files_stay(hub, stock, good_artifact):
    push_model(stock, "ann/shop")
    hub.put("ann/shop", {"picture.png": b"png"})
    pushed = push_model(good_artifact, "ann/shop")
    assert {"model.safetensors", "2_Dense/model.safetensors"} <= set(pushed.deleted)
    files = hub.files("ann/shop")
    assert "picture.png" in files and "model.safetensors" not in files
    np.testing.assert_array_equal(
        leanmatch.load("ann/shop").encode(TEXTS), leanmatch.load(good_artifact).encode(TEXTS)
    )


def test_revisions(hub, stock, good_artifact, monkeypatch):
    first = push_model(stock, "ann/shop")
    push_model(good_artifact, "ann/shop", revision="lean")
    assert set(hub.repositories["ann/shop"].branches) == {"main", "lean"}
    dense, lean = leanmatch.load(stock).encode(TEXTS), leanmatch.load(good_artifact).encode(TEXTS)
    np.testing.assert_array_equal(leanmatch.load("ann/shop", revision="lean").encode(TEXTS), lean)
    push_model(good_artifact, "ann/shop")
    np.testing.assert_array_equal(leanmatch.load("ann/shop").encode(TEXTS), lean)  # the branch moved
    np.testing.assert_array_equal(leanmatch.load("ann/shop", revision=first.commit).encode(TEXTS), dense)
    count = len(hub.requests)
    leanmatch.load("ann/shop", revision=first.commit)  # a commit never changes
    assert len(hub.requests) == count
    with pytest.raises(ModelError, match="it has no revision 'v9'"):
        leanmatch.load("ann/shop", revision="v9")
    with pytest.raises(UsageError, match="no model on the hub"):
        leanmatch.load(stock, revision="main")


def test_what_is_not_needed_is_not_downloaded(hub, stock):
    push_model(stock, "ann/shop")
    extra = ("onnx/model.onnx", "openvino/openvino_model.bin", "pytorch_model.bin", "tf_model.h5")
    hub.put("ann/shop", dict.fromkeys(extra, b"large"))
    leanmatch.load("ann/shop")
    fetched = [
        request.partition("/resolve/")[2].partition("/")[2] for request in hub.sent("GET /ann/shop/resolve")
    ]
    assert "model.safetensors" in fetched and not set(extra) & set(fetched)


def test_weights_in_the_old_form_load_too(hub, stock, tmp_path):
    import torch
    from safetensors.torch import load_file

    push_model(stock, "ann/old")
    files = hub.files("ann/old")
    for name in [name for name in files if name.endswith(".safetensors")]:
        (tmp_path / "w").write_bytes(files.pop(name))
        torch.save(load_file(tmp_path / "w"), tmp_path / "b")
        files[f"{name.rpartition('/')[0]}/pytorch_model.bin".lstrip("/")] = (tmp_path / "b").read_bytes()
    hub.repositories["ann/old"] = Repository()
    hub.put("ann/old", files)
    found = load_matcher("ann/old", "cpu").encode(TEXTS)
    np.testing.assert_allclose(found, leanmatch.load(stock).encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_arrives_damaged_is_refused_and_fetched_again(hub, stock, file):
    push_model(stock, "ann/shop")
    hub.damaged = {file}
    with pytest.raises(FormatError, match=f"ann/shop did not arrive as the hub has it: {file}"):
        leanmatch.load("ann/shop")
    hub.damaged = set()
    assert leanmatch.load("ann/shop").encode(TEXTS).shape == (3, 16)
    fetched = [request.split("/", 5)[-1] for request in hub.sent("GET /ann/shop/resolve")]
    assert fetched.count(file) == 2 and fetched.count("config.json") == 1


def test_hashes_are_those_of_git(tmp_path):
    (tmp_path / "f").write_bytes(b"hello\n")
    assert (
        file_hash(tmp_path / "f", large=False) == "ce013625030ba8dba906f756967f9e9ca394464a"
    )  # git hash-object
    assert file_hash(tmp_path / "f", large=True).startswith("5891b5b522d5df08")


def test_without_a_network_the_downloaded_copy_is_used_with_a_warning(hub, stock, monkeypatch):
    from huggingface_hub import constants

    push_model(stock, "ann/shop")
    expected = leanmatch.load("ann/shop").encode(TEXTS)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.warns(RuntimeWarning, match="the hub cannot be reached"):
        encoder = leanmatch.load("ann/shop")
    np.testing.assert_array_equal(encoder.encode(TEXTS), expected)
    with pytest.raises(ModelError, match="no folder here and not in the hub's cache"):
        leanmatch.load("ann/never")


def test_token_errors_name_the_remedy(hub, stock, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ModelError, match="does not know who asks") as caught:
        push_model(stock, "ann/shop")
    assert "hf auth login" in caught.value.remedy and "right to write" in caught.value.remedy
    assert not hub.requests
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ModelError, match="not valid"):
        push_model(stock, "ann/shop")
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(ModelError, match="the token does not allow it") as caught:
        push_model(stock, "ann/shop")
    assert "right to write for ann" in caught.value.remedy and not hub.repositories
    with pytest.raises(ModelError, match="no such model, or it is private"):
        leanmatch.load("ann/nothing")


def test_a_private_model_needs_a_token_and_the_downloaded_copy_is_offered(hub, stock, monkeypatch):
    push_model(stock, "ann/shop", private=True)
    leanmatch.load("ann/shop")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ModelError, match="no such model, or it is private") as caught:
        leanmatch.load("ann/shop")
    assert "HF_HUB_OFFLINE=1" in caught.value.remedy
    offline(monkeypatch)
    assert leanmatch.load("ann/shop").dimension == 16


def test_private_is_not_pushed_to_what_is_public(hub, stock):
    push_model(stock, "ann/shop", private=False)
    with pytest.raises(UsageError, match="there and public"):
        push_model(stock, "ann/shop", private=True)


def test_what_cannot_be_pushed(hub, good_artifact, stock, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="no folder of a saved model"):
        push_model(tmp_path, "ann/shop")
    with pytest.raises(UsageError, match="no name of a repository"):
        push_model(good_artifact, "shop")
    damaged = shutil.copytree(good_artifact, tmp_path / "damaged")
    weights = damaged / "compressed.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(FormatError):
        push_model(damaged, "ann/shop")
    bare = shutil.copytree(stock, tmp_path / "bare")
    for path in bare.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        push_model(bare, "ann/shop")
    offline(monkeypatch)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        push_model(stock, "ann/shop")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"leanmatch\[hub\]"):
        push_model(stock, "ann/shop")
    with pytest.raises(MissingExtraError, match=r"leanmatch\[hub\]"):
        hub_folder("ann/shop")
    assert not hub.requests


def test_the_page_runs_as_printed(hub, stock, repository):
    push_model(stock, "you/shop-matcher")
    push_model(stock, "you/shop-matcher", revision="v2")
    page = (repository / "docs" / "how-to" / "hub.md").read_text(encoding="utf-8")
    (block,) = code_blocks(page, frozenset({"python"}))
    names = {"leanmatch": leanmatch}
    exec(block, names)
    assert names["encoder"].dimension == 16


def test_the_command(hub, stock):
    run = CliRunner().invoke
    result = run(app, ["push", str(stock), "hub:ann/shop", "--private", "-m", "hello", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["url"] == f"{hub.url}/ann/shop"
    assert hub.repositories["ann/shop"].messages[-1] == "hello"
    again = run(app, ["push", str(stock), "hub:ann/shop"])
    assert (
        again.exit_code == 0 and "nothing to send: all there" in again.stdout and "(private)" in again.stdout
    )
    for target in ("ann/shop", "ftp:ann/shop", "hub:"):
        wrong = run(app, ["push", str(stock), target])
        assert wrong.exit_code == 2 and "begin it with one of hub:" in wrong.stderr


def test_other_programs_see_the_variables_of_the_hub(hub, stock, tmp_path):
    """A process of its own, set up as users do it."""
    variables = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": WRITER,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    variables.pop("HF_HUB_CACHE", None)
    code = (
        "import sys, leanmatch; from leanmatch.formats import push_model; "
        f"push_model({str(stock)!r}, 'ann/own'); print(leanmatch.load('ann/own').folder); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip().splitlines()[-1]).is_relative_to(tmp_path / "home")


def test_a_process_without_transformers_says_that_there_is_no_such_model():
    """huggingface_hub loads its modules when they are asked for: nothing else may have loaded them here."""
    code = (
        "import sys, leanmatch\n"
        "from leanmatch.errors import ModelError\n"
        "try:\n"
        "    leanmatch.load('user/absent')\n"
        "except ModelError as error:\n"
        "    print(error)\n"
        "assert 'transformers' not in sys.modules\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "user/absent" in answer.stdout
