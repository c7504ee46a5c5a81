"""From a name on the hub to a folder in the hub's cache, with the files that leanmatch reads and no others.

A branch or tag is looked up on the hub; without a network the copy that was downloaded last is used. A commit
that was downloaded before needs no network. What is downloaded is compared with the hub's hashes.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from leanmatch.errors import FormatError, ModelError
from leanmatch.formats.hub.client import (
    TIMEOUT_SECONDS,
    file_hash,
    first_line,
    hub_library,
    is_answer,
    is_missing,
    remote_hashes,
    translated,
)

SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.spm", "*.bpe", "*.tiktoken", "README.md")
"""Configurations, tokenizers, provenance and card."""
WEIGHTS = (("*.safetensors",), ("*.bin",))
"""Weight files, the better ones first: others are not downloaded where these are there."""
LEFT_OUT = ("onnx/*", "openvino/*", "checkpoint-*/*", "*/checkpoint-*/*", ".*", "training_args.bin")
"""Copies of the weights for other programs, and what trainers leave behind."""

DEFAULT_OWNER = "sentence-transformers"
"""Names without an owner are looked for there first, as sentence-transformers does."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


def hub_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a model on the hub, downloaded where it has to be.

    Args:
        name: ``user/name``, or a bare name.
        revision: branch, tag or commit; the main branch by default.

    Raises:
        ModelError: no such model or revision, no access, or neither a network nor a downloaded copy.
        FormatError: a downloaded file is not the one that the hub has.
        MissingExtraError: huggingface_hub is not installed.
    """
    library = hub_library("loading a model from the Hugging Face hub")
    repositories = [name] if "/" in name else [f"{DEFAULT_OWNER}/{name}", name]
    if library.constants.HF_HUB_OFFLINE or (revision is not None and _COMMIT.fullmatch(revision)):
        for repository in repositories:
            folder = _cached(library, repository, revision)
            if folder is not None:
                return folder
    failure: Exception | None = None
    for repository in repositories:
        try:
            info = library.HfApi().model_info(
                repository, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS
            )
        except Exception as error:
            failure = error
            if is_missing(error):
                continue
            break
        return _download(library, repository, info, revision)
    assert failure is not None  # there is at least one name to ask for
    return _without_the_hub(library, repositories, revision, failure)


def _without_the_hub(library: Any, repositories: list[str], revision: str | None, failure: Exception) -> Path:
    """The downloaded copy where the hub did not answer; where it did answer, its answer stands."""
    cached = next((folder for name in repositories if (folder := _cached(library, name, revision))), None)
    if is_answer(failure):
        error = translated(failure, repositories[0], "loading", revision=revision)
        if cached is not None:
            error = ModelError(
                error.problem, remedy=f"{error.remedy}; or set HF_HUB_OFFLINE=1 to use the downloaded copy"
            )
        raise error from failure
    if cached is None:
        raise ModelError(
            f"{repositories[0]!r} is no folder here and not in the hub's cache; the Hugging Face hub did not "
            f"give it either ({first_line(failure)})",
            remedy="check the name and the network, or name a folder",
        ) from failure
    if not library.constants.HF_HUB_OFFLINE:
        warnings.warn(
            f"the hub cannot be reached ({first_line(failure)}): {repositories[0]} is the copy that was "
            f"downloaded before, commit {cached.name[:12]}",
            RuntimeWarning,
            stacklevel=2,
        )
    return cached


def _cached(library: Any, repository: str, revision: str | None) -> Path | None:
    """A whole downloaded copy; None where there is none."""
    for weights in WEIGHTS:
        try:
            folder = Path(
                library.snapshot_download(
                    repository,
                    revision=revision,
                    local_files_only=True,
                    allow_patterns=[*SMALL_FILES, *weights],
                    ignore_patterns=list(LEFT_OUT),
                )
            )
        except Exception:  # the library has several errors for it
            continue
        if any(path for pattern in weights for path in folder.rglob(pattern)):
            return folder
    return None


def _download(library: Any, repository: str, info: Any, revision: str | None) -> Path:
    names = [entry.rfilename for entry in info.siblings or ()]
    usable = list(library.utils.filter_repo_objects(names, ignore_patterns=list(LEFT_OUT)))
    weights = next((kind for kind in WEIGHTS if _any_matches(usable, kind)), WEIGHTS[0])
    patterns = [*SMALL_FILES, *weights]
    wanted = list(library.utils.filter_repo_objects(usable, allow_patterns=patterns))
    new = [name for name in wanted if not _is_cached(library, repository, name, info.sha)]
    try:
        folder = Path(
            library.snapshot_download(
                repository, revision=revision, allow_patterns=patterns, ignore_patterns=list(LEFT_OUT)
            )
        )
        if folder.name != info.sha:  # somebody pushed in between
            info = library.HfApi().model_info(repository, revision=folder.name, files_metadata=True)
    except Exception as error:
        raise translated(error, repository, "loading", revision=revision) from error
    _check(folder, new, remote_hashes(info), repository)
    return folder


def _is_cached(library: Any, repository: str, name: str, commit: str) -> bool:
    return isinstance(library.try_to_load_from_cache(repository, name, revision=commit), str)


def _any_matches(names: list[str], patterns: tuple[str, ...]) -> bool:
    return any(Path(name).match(pattern) for name in names for pattern in patterns)


def _check(folder: Path, names: list[str], hashes: dict[str, tuple[str, bool]], repository: str) -> None:
    """Compare downloaded files with the hub's hashes; those that differ do not stay in the cache."""
    problems = []
    for name in names:
        expected, large = hashes.get(name, ("", False))
        computed = file_hash(folder / name, large=large)
        if expected and computed != expected:
            problems.append(f"{name} has the hash {computed}, not {expected}")
            blob = (folder / name).resolve()
            (folder / name).unlink()
            blob.unlink(missing_ok=True)
    if problems:
        raise FormatError(
            f"{repository} did not arrive as the hub has it: {'; '.join(problems)}",
            remedy="these files were deleted here: load the model again",
        )
