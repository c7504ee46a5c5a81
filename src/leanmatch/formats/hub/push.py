"""Pushing a saved model to the hub: the files that belong to it, its card, one commit.

Files that the hub has already are not sent, so that a push that was interrupted goes on where it
was and a second push of the same model does nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from leanmatch.errors import ModelError, UsageError
from leanmatch.formats.artifact.reader import is_artifact, read_artifact
from leanmatch.formats.fingerprint import deciding_files, model_fingerprint
from leanmatch.formats.hub.client import (
    TIMEOUT_SECONDS,
    checked_repository,
    file_hash,
    git_hash,
    hub_errors,
    hub_library,
    is_missing,
    remote_hashes,
)
from leanmatch.formats.model_card import FILE_NAME as CARD
from leanmatch.formats.model_card import card_for_hub
from leanmatch.formats.provenance import FILE_NAME as PROVENANCE
from leanmatch.formats.provenance import read_provenance
from leanmatch.formats.reader import MARKERS, is_model_folder
from leanmatch.types import JsonValue

EXPORTS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("*.onnx",),
    "openvino": ("openvino_model.xml", "openvino_model.bin"),
}
"""Kind of an export to its weight files."""

_WEIGHTS = re.compile(
    r"(\d+_\w+/)?(model([.-]\d+-of-\d+)?\.safetensors(\.index\.json)?|compressed\.safetensors"
    r"|pytorch_model([.-]\d+-of-\d+)?\.bin(\.index\.json)?)"
)
_MODULE_FILE = re.compile(r"\d+_\w+/(config\.json|[\w.-]+\.json|vocab\.txt)")


@dataclass(frozen=True)
class PushedModel:
    """What a push did.

    Attributes:
        repository: ``user/name``.
        url: its page.
        commit: the commit that holds the model now.
        private: whether only its owner sees it; None where the hub does not say.
        sent: the files that were sent; empty where the hub had them all.
        deleted: files of an earlier model that were there and are no part of this one.
        left_out: files and folders beside the model that were not sent.
        bytes: of the files that were sent.
    """

    repository: str
    url: str
    commit: str
    private: bool | None
    sent: tuple[str, ...]
    deleted: tuple[str, ...]
    left_out: tuple[str, ...]
    bytes: int


def push_model(
    model: str | Path,
    repository: str,
    *,
    private: bool | None = None,
    message: str | None = None,
    revision: str | None = None,
) -> PushedModel:
    """Push a saved model to the Hugging Face hub, as one commit.

    What is sent: the files that decide the model's vectors, ``leanmatch.json`` and the model card. Absolute
    paths in ``leanmatch.json`` lose their folders, and the card names the model as the hub does. Weights and
    module folders of an earlier model that are in the repository and no part of this one are deleted; all
    other files there stay.

    Args:
        model: the folder of a saved, compressed or exported model.
        repository: ``user/name``; it is made where it is not there.
        private: whether a new repository is private; None leaves it to the account's setting.
        message: of the commit.
        revision: the branch; it is made where it is not there.

    Raises:
        ModelError: no model folder, one without weights, or the hub refuses (token, rights) or fails.
        FormatError: a damaged artifact, which is not pushed.
        UsageError: no name of a repository; ``private`` for a repository that is public.
        MissingExtraError: huggingface_hub is not installed.
    """
    checked_repository(repository)
    folder = Path(model).expanduser()
    contents = _contents(folder, repository)
    library = hub_library("pushing a model to the Hugging Face hub")
    api = library.HfApi()
    with hub_errors(repository, "pushing to", revision=revision):
        _require_token(library)
        info = _repository(api, repository, private, revision)
        remote = remote_hashes(info)
        changed = {name: content for name, content in contents.items() if _differs(content, remote.get(name))}
        deleted = tuple(sorted(name for name in remote if name not in contents and _is_model_file(name)))
        deleted = () if _kind(folder) in EXPORTS else deleted  # an export may lie beside its model
        commit = str(info.sha)
        if changed or deleted:
            operations = [
                library.CommitOperationAdd(
                    path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content)
                )
                for name, content in sorted(changed.items())
            ]
            operations += [library.CommitOperationDelete(path_in_repo=name) for name in deleted]
            done = api.create_commit(
                repository,
                operations,
                commit_message=message or _message(folder),
                revision=revision,
            )
            commit = str(done.oid)
    return PushedModel(
        repository,
        f"{api.endpoint}/{repository}",
        commit,
        getattr(info, "private", None),
        tuple(sorted(changed)),
        deleted,
        left_out(folder, set(contents)),
        sum(len(c) if isinstance(c, bytes) else c.stat().st_size for c in changed.values()),
    )


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model folder that belong to the model, by their names in it; no provenance, no card.

    Raises:
        ModelError: there is no model, or one without weights.
        FormatError: an artifact that is damaged.
    """
    if not is_model_folder(folder) and not (folder / PROVENANCE).is_file():
        raise ModelError(
            f"{folder} is no folder of a saved model (it lacks {' and '.join(MARKERS)})",
            remedy="name a folder of leanmatch train, compress or export",
        )
    files = dict(deciding_files(folder))
    if _kind(folder) in EXPORTS:
        exported = {path.name: path for name in EXPORTS[_kind(folder)] for path in folder.glob(name)}
        if not exported:
            raise ModelError(f"{folder} holds no weights of a model", remedy="export it again")
        return files | exported
    if is_artifact(folder):
        read_artifact(folder)
    else:
        model_fingerprint(folder)
        files |= {path.name: path for path in folder.glob("*.index.json")}
    return files


def left_out(folder: Path, names: set[str]) -> tuple[str, ...]:
    """What lies in the folder and is not sent: files, and folders of which nothing is."""
    parts = {PurePath(name).parts[0] for name in names}
    return tuple(
        sorted(
            f"{path.name}/" if path.is_dir() else path.name
            for path in folder.iterdir()
            if path.name not in parts
        )
    )


def _contents(folder: Path, repository: str) -> dict[str, Path | bytes]:
    """Everything to send: paths of files as they are, bytes of what is rewritten for the hub."""
    contents: dict[str, Path | bytes] = dict(model_files(folder))
    provenance = read_provenance(folder)
    if provenance is not None:
        text = json.dumps(_without_folders(provenance), indent=2, ensure_ascii=False, allow_nan=False)
        contents[PROVENANCE] = f"{text}\n".encode()
    contents[CARD] = card_for_hub(folder, provenance or {}, repository).encode()
    return contents


def _without_folders(value: JsonValue) -> JsonValue:
    """Absolute paths without their folders: they say more of the machine than of the model."""
    if isinstance(value, dict):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    if isinstance(value, str) and re.fullmatch(r"(/|~/|[A-Za-z]:[\\/])[^\n]*", value):
        return re.split(r"[\\/]", value.rstrip("/\\"))[-1]
    return value


def _require_token(library: Any) -> None:
    if not library.get_token():
        raise library.errors.LocalTokenNotFoundError("no token")


def _repository(api: Any, repository: str, private: bool | None, revision: str | None) -> Any:
    """What the repository holds; it and its branch are made where they are not there."""
    try:
        info = api.model_info(repository, timeout=TIMEOUT_SECONDS)
    except Exception as error:
        if not is_missing(error):
            raise
        api.create_repo(repository, private=private, exist_ok=True)
        info = api.model_info(repository, timeout=TIMEOUT_SECONDS)
    if private and info.private is False:
        raise UsageError(
            f"{repository} is there and public: what is pushed to it can be read by anyone",
            remedy="make it private in its settings on the hub, or push to another name",
        )
    if revision is not None:
        api.create_branch(repository, branch=revision, exist_ok=True)
    return api.model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS)


def _differs(content: Path | bytes, remote: tuple[str, bool] | None) -> bool:
    if remote is None:
        return True
    expected, large = remote
    if isinstance(content, bytes):
        return large or git_hash(content) != expected
    return file_hash(content, large=large) != expected


def _is_model_file(name: str) -> bool:
    return bool(_WEIGHTS.fullmatch(name) or _MODULE_FILE.fullmatch(name)) or name in (
        "modules.json",
        PROVENANCE,
    )


def _message(folder: Path) -> str:
    import leanmatch

    return f"{_kind(folder) or 'model'}, pushed by leanmatch {leanmatch.__version__}"


def _kind(folder: Path) -> str:
    """What ``leanmatch.json`` calls the folder: ``compressed``, ``onnx``, ...; empty for a stock model."""
    return str((read_provenance(folder) or {}).get("kind") or "")
