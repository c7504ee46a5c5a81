"""Talking to the hub: its library, the hashes that it keeps, and its errors in our words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leanmatch.errors import LeanmatchError, MissingExtraError, ModelError, UsageError

TIMEOUT_SECONDS = 10
"""How long to wait for the first answer of the hub."""

TOKEN_PAGE = "https://huggingface.co/settings/tokens"

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LOG_IN = f"run `hf auth login`, or set HF_TOKEN to a token from {TOKEN_PAGE}"
_MISSING = "RepositoryNotFoundError"
_REFUSED = 403
_UNKNOWN_CALLER = 401


def hub_library(purpose: str) -> Any:
    """The package ``huggingface_hub``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils  # the root loads only what it lists by name
    except ModuleNotFoundError as error:
        raise MissingExtraError("huggingface_hub", "hub", purpose) from error
    return huggingface_hub


def checked_repository(name: str) -> str:
    """A repository's name, ``user/name``.

    Raises:
        UsageError: it is no such name.
    """
    if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
        raise UsageError(f"{name!r} is no name of a repository on the hub", remedy="write user/name")
    return name


def file_hash(path: Path, *, large: bool) -> str:
    """The hash that the hub keeps of a file: SHA-256 of a large one, git's SHA-1 of a small one."""
    with path.open("rb") as stream:
        if large:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        return git_hash(stream.read())


def git_hash(content: bytes) -> str:
    """Git's name of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def remote_hashes(info: Any) -> dict[str, tuple[str, bool]]:
    """File to hash, and whether it is that of a large file; from ``model_info(files_metadata=True)``."""
    hashes = {}
    for entry in info.siblings or ():
        large = getattr(entry, "lfs", None)
        if large is not None:
            hashes[entry.rfilename] = (str(large.sha256), True)
        elif getattr(entry, "blob_id", None):
            hashes[entry.rfilename] = (str(entry.blob_id), False)
    return hashes


def is_missing(error: Exception) -> bool:
    """Does the hub say that there is no such repository, or none for this caller?"""
    return type(error).__name__ == _MISSING


def is_answer(error: Exception) -> bool:
    """Did the hub answer at all? (It may refuse; it is no network that is down.)"""
    return _status(error) in (_UNKNOWN_CALLER, _REFUSED, 404)


@contextmanager
def hub_errors(repository: str, action: str, *, revision: str | None = None) -> Iterator[None]:
    """Errors of the library become ours, with a remedy.

    Args:
        repository: its name.
        action: what was tried, such as ``pushing to`` or ``loading``.
        revision: branch, tag or commit that was asked for.
    """
    try:
        yield
    except LeanmatchError:
        raise
    except Exception as error:  # the library has many errors, and raises those of its HTTP library too
        raise translated(error, repository, action, revision=revision) from error


def translated(error: Exception, repository: str, action: str, *, revision: str | None = None) -> ModelError:
    """The hub's error in our words."""
    kind, status = type(error).__name__, _status(error)
    writes = action.startswith("pushing")
    rights = " with the right to write" if writes else ""
    if kind == "GatedRepoError":
        problem = "it is gated, and this account has no access"
        remedy = f"accept its conditions on its page, then {_LOG_IN}"
    elif kind == "RevisionNotFoundError":
        problem = f"it has no revision {revision!r}"
        remedy = "name a branch, a tag or a commit that is there"
    elif kind == "LocalTokenNotFoundError" or (
        status == _UNKNOWN_CALLER and (writes or not is_missing(error))
    ):
        problem = "the hub does not know who asks (no token, or one that is not valid)"
        remedy = f"{_LOG_IN}{rights}"
    elif is_missing(error):
        problem = "the hub has no such model, or it is private"
        remedy = f"check the name; for a private model {_LOG_IN}"
    elif status == _REFUSED:
        problem = "the token does not allow it"
        remedy = f"use a token{rights} for {repository.partition('/')[0]}: {TOKEN_PAGE}"
    elif kind == "OfflineModeIsEnabled":
        problem, remedy = "HF_HUB_OFFLINE is set", "unset it"
    else:
        problem = f"{kind}: {first_line(error)}"
        remedy = (
            "run the same command again: files that have arrived are not sent again"
            if writes
            else "check the network and try again"
        )
    return ModelError(f"{action} {repository}: {problem}", remedy=remedy)


def first_line(error: Exception) -> str:
    """The first line of an error's message, short."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _status(error: Exception) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
