"""`leanmatch doctor`: its table against pyproject.toml, a sound installation, and each kind of broken one."""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from leanmatch import cpus, native
from leanmatch.cli import doctor as module
from leanmatch.cli.app import app

EXTENSION = SimpleNamespace(
    __file__="/somewhere/_native.so",
    cpu_features=lambda: {"fast": True, "faster": False},
    levels=lambda: {"portable": (), "quick": ("fast",), "rapid": ("faster",)},
)


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation in which nothing is amiss, whatever this machine looks like."""
    monkeypatch.delenv(native.LIMIT_VARIABLE, raising=False)
    monkeypatch.setattr(native, "load", lambda: EXTENSION)
    monkeypatch.setattr(module, "_kernels", lambda: {"dense": "quick"})
    monkeypatch.setattr(metadata, "version", lambda name: "1.2.3")
    monkeypatch.setattr(importlib, "import_module", ModuleType)


def test_kernels_are_named_with_their_levels() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert re.search(r"kernel dense-sparse int8 +(none|portable|avx)", result.stdout)


def run(*arguments: str) -> tuple[int, Any]:
    result = CliRunner().invoke(app, ["doctor", "--json", *arguments])
    return result.exit_code, json.loads(result.stdout)


def test_the_table_is_that_of_the_project_file(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        found = (re.match(r"[A-Za-z0-9-]+", requirement) for requirement in requirements)
        return {match[0].lower() for match in found if match}

    extras = project["optional-dependencies"]
    assert {name for name, package in module.PACKAGES.items() if package.extra is None} == names(
        project["dependencies"]
    )
    for extra in ("data", "serve", "client", "export", "report", "langchain", "hub"):
        assert {name for name, p in module.PACKAGES.items() if p.extra == extra} == names(extras[extra])
    training = names(extras["train"]) - {"leanmatch"}  # it brings the extra data
    assert {name for name, p in module.PACKAGES.items() if p.extra == "train"} == training
    assert "leanmatch[data]" in extras["train"]


def test_this_installation_is_sound() -> None:
    code, report = run()
    assert (code, report["problems"]) == (0, [])
    assert report["native"]["variants"]["portable"]["runs"]
    assert report["cpu"]["usable_cores"] >= 1


@pytest.mark.usefixtures("sound")
def test_json_of_a_sound_installation() -> None:
    code, report = run()
    assert code == 0
    assert report["usable"]
    assert report["native"]["loaded"]
    assert report["native"]["variants"]["rapid"] == {
        "runs": False,
        "why_not": "the CPU or the operating system lacks faster",
        "needs": ["faster"],
    }
    assert report["devices"] is None
    assert {package["name"]: package["version"] for package in report["packages"]} == dict.fromkeys(
        module.PACKAGES, "1.2.3"
    )


@pytest.mark.usefixtures("sound")
def test_text_of_a_sound_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.LIMIT_VARIABLE, "quick")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    for words in ("/somewhere/_native.so", "lacks faster", "LEANMATCH_CPU", "Everything needed is here."):
        assert words in result.stdout
    features = next(line for line in result.stdout.splitlines() if line.startswith("cpu features"))
    assert features.split() == ["cpu", "features", "fast"]


@pytest.mark.usefixtures("sound")
def test_missing_extension_is_a_problem_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> ModuleType:
        raise native.NativeError("not built [here]", remedy="build it")

    monkeypatch.setattr(native, "load", absent)
    code, report = run()
    assert code == 1
    assert report["problems"] == [{"problem": "not built [here]", "remedy": "build it"}]
    result = CliRunner().invoke(app, ["doctor"])
    assert "problem: not built [here]" in result.stdout
    assert "remedy: build it" in result.stdout
    assert "Everything needed" not in result.stdout


@pytest.mark.usefixtures("sound")
def test_wrong_limit_is_a_problem_and_still_shows_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.LIMIT_VARIABLE, "warp")
    code, report = run()
    assert code == 1
    assert report["native"]["features"] == {"fast": True, "faster": False}
    assert "'warp'" in report["problems"][0]["problem"]
    assert "portable, quick" in report["problems"][0]["remedy"]


@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize(("name", "expected"), [("numpy", 1), ("torch", 0)])
def test_only_packages_of_the_base_are_needed(
    name: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(asked: str) -> str:
        if asked == name:
            raise metadata.PackageNotFoundError(asked)
        return "1.2.3"

    monkeypatch.setattr(metadata, "version", version)
    code, report = run()
    assert code == expected
    assert [package["name"] for package in report["packages"] if package["version"] is None] == [name]
    text = CliRunner().invoke(app, ["doctor"]).stdout
    assert ("MISSING" if expected else 'pip install "leanmatch[train]"') in text


@pytest.mark.usefixtures("sound")
def test_full_imports_and_reports_what_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> ModuleType:
        if name == "faiss":
            raise ImportError("libomp.so: cannot open shared object file")
        if name == "torch":
            raise ImportError("no torch")
        return ModuleType(name)

    monkeypatch.setattr(importlib, "import_module", load)
    assert run()[0] == 0  # not seen without --full
    code, report = run("--full")
    assert code == 1
    assert [item["problem"].split()[0] for item in report["problems"]] == ["faiss-cpu", "torch"]
    assert "libomp.so" in report["problems"][0]["problem"]
    assert report["devices"] is None


@pytest.mark.usefixtures("sound")
def test_full_lists_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 1, get_device_name=lambda i: "Big GPU"
    )
    torch = SimpleNamespace(cuda=cuda)
    monkeypatch.setattr(importlib, "import_module", lambda name: torch)
    assert run("--full")[1]["devices"] == ["cpu", "cuda:0 Big GPU"]
    assert "cuda:0 Big GPU" in CliRunner().invoke(app, ["doctor", "--full"]).stdout


def test_cpu_name(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Abacus 3000\nmodel name\t: Abacus 3000\n")
    assert cpus.cpu_name(cpuinfo) == "Abacus 3000"
    cpuinfo.write_text("processor\t: 0\n")
    assert cpus.cpu_name(cpuinfo)
    assert cpus.cpu_name(tmp_path / "absent") == cpus.cpu_name(cpuinfo)
