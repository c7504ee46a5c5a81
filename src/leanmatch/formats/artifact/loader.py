"""From an artifact to a torch model: a skeleton without weights, checked first, then filled."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch.errors import FormatError, LeanmatchError, MissingExtraError
from leanmatch.files import write_json
from leanmatch.formats.artifact import tensor_file as tensorfile
from leanmatch.formats.artifact.contents import Artifact, ModuleConfig
from leanmatch.formats.artifact.gather import parts_of
from leanmatch.formats.artifact.modules import compressed_layer, replace_modules, share_stacks
from leanmatch.formats.artifact.reader import read_artifact
from leanmatch.formats.artifact.skeleton import check_against_skeleton
from leanmatch.formats.artifact.stock_names import without_requirement
from leanmatch.formats.layout import LEGACY_MODULES
from leanmatch.formats.provenance import FILE_NAME
from leanmatch.formats.quiet import quiet_loading
from leanmatch.models.devices import resolve_device
from leanmatch.models.prompts import CONFIG_FILE
from leanmatch.types import JsonValue

MODULES_FILE = "modules.json"
_REMEDY = "the folder is incomplete or damaged: compress the model again"


def load_compressed(folder: str | Path, device: str = "auto") -> Any:
    """Load an artifact as a torch model with compressed layers.

    Returns:
        A ``SentenceTransformer`` for the task ``matcher``, else the transformers model of its class.

    Raises:
        FormatError: the artifact is damaged, or its parts do not fit one another.
        MissingExtraError: torch or sentence-transformers is not installed.
        UsageError: no such device.
    """
    return build(read_artifact(folder), device)


def build(artifact: Artifact, device: str = "auto") -> Any:
    """The torch model of an artifact that was read; see :func:`load_compressed`."""
    resolved = resolve_device(device) if device in ("auto", "cpu") or device.startswith("cuda") else device
    _require_torch()
    check_against_skeleton(artifact)
    try:
        with _stock_folder(artifact) as temporary:
            model = _open(artifact, temporary)
    except LeanmatchError:
        raise
    except Exception as error:  # whatever the libraries raise at configurations that they cannot use
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FormatError(
            f"the model in {artifact.folder} cannot be built: {type(error).__name__}: {first:.200}",
            remedy=_REMEDY,
        ) from error
    _fill(model, artifact)
    model.eval()
    return model.to(resolved)


def _require_torch() -> None:
    for library in ("torch", "transformers", "sentence_transformers"):
        try:
            __import__(library)
        except ModuleNotFoundError as error:
            raise MissingExtraError(library, "train", "loading a compressed model into torch") from error


@contextmanager
def _stock_folder(artifact: Artifact) -> Iterator[Path]:
    """The artifact's configurations as a stock folder whose weights are a placeholder.

    The libraries then build the model by their own rules; what they fill in at random is replaced afterwards.
    """
    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory(prefix="leanmatch-") as name:
        temporary = Path(name)
        hidden = {FILE_NAME, tensorfile.FILE_NAME, MODULES_FILE, CONFIG_FILE}
        for path in artifact.folder.iterdir():
            if (
                path.is_file()
                and path.name not in hidden
                and path.suffix in (".json", ".txt", ".model", ".jinja")
            ):
                (temporary / path.name).symlink_to(path.resolve())
        if artifact.modules:
            write_json(temporary / MODULES_FILE, [_stock_entry(n, m) for n, m in enumerate(artifact.modules)])
        if (artifact.folder / CONFIG_FILE).is_file():
            write_json(temporary / CONFIG_FILE, without_requirement(artifact.folder / CONFIG_FILE))
        for module in artifact.modules:
            if module.path and not (temporary / module.path).exists():
                (temporary / module.path).mkdir()
                for path in (artifact.folder / module.path).glob("*.json"):
                    (temporary / module.path / path.name).symlink_to(path.resolve())
        if artifact.config:
            empty = {"leanmatch_placeholder": np.zeros(1, dtype=np.float32)}
            save_file(empty, temporary / "model.safetensors", metadata={"format": "pt"})
        for number, module in enumerate(artifact.modules):
            own = _own_tensors(artifact, f"module{number}.")
            if own:
                save_file(own, temporary / module.path / "model.safetensors", metadata={"format": "pt"})
        yield temporary


def _stock_entry(number: int, module: ModuleConfig) -> dict[str, JsonValue]:
    kind = next(kind for kind in LEGACY_MODULES if kind.name == module.type)
    return {"idx": number, "name": str(number), "path": module.path, "type": kind.legacy_type}


def _own_tensors(artifact: Artifact, prefix: str) -> dict[str, Any]:
    """State of a module behind the transformer; tables decoded, so that it finds its size."""
    own = {
        name.removeprefix(prefix): array
        for name, array in artifact.tensors.items()
        if name.startswith(prefix)
    }
    for name, layer in artifact.layers.items():
        if name.startswith(prefix):
            own[f"{name.removeprefix(prefix)}.weight"] = layer.factors.dense()
            if layer.bias is not None:
                own[f"{name.removeprefix(prefix)}.bias"] = layer.bias
    return own


def _open(artifact: Artifact, folder: Path) -> Any:
    with quiet_loading():
        if artifact.task == "matcher":
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        import transformers

        kind = getattr(transformers, artifact.architecture)
        return kind.from_pretrained(str(folder), local_files_only=True)


def _fill(model: Any, artifact: Artifact) -> None:
    """Put the compressed layers in place and every other value where it belongs; nothing may be left over."""
    import torch

    parts = parts_of(model)
    if type(parts[0].module).__name__ != artifact.architecture:
        raise FormatError(
            f"{artifact.folder} says {artifact.architecture}, and its configuration makes a "
            f"{type(parts[0].module).__name__}",
            remedy=_REMEDY,
        )
    for part in parts:
        replaced, layer_modules = {}, []
        for name, layer in _inside(artifact.layers, part.prefix, parts):
            old = part.module.get_submodule(name)
            replaced[id(old)] = compressed_layer(layer, old)
            layer_modules.append((layer, replaced[id(old)]))
        share_stacks(layer_modules)
        replace_modules(part.module, replaced)
        inside = {id(value) for new in replaced.values() for value in (*new.parameters(), *new.buffers())}
        filled: set[int] = set()
        with torch.no_grad():
            state = part.module.state_dict(keep_vars=True)
            for name, array in _inside(artifact.tensors, part.prefix, parts):
                state[name].copy_(torch.from_numpy(array))
                filled.add(id(state[name]))
            for name in artifact.dropped if not part.prefix else ():
                state[name].zero_()
                filled.add(id(state[name]))
        left = [name for name, value in state.items() if id(value) not in inside | filled]
        if left:
            raise FormatError(f"{artifact.folder} has no values for {part.prefix}{left[0]}", remedy=_REMEDY)


def _inside(values: Mapping[str, Any], prefix: str, parts: list[Any]) -> list[tuple[str, Any]]:
    """The entries of one part, their names without its prefix."""
    others = tuple(part.prefix for part in parts if part.prefix and part.prefix != prefix)
    return [
        (name.removeprefix(prefix), value)
        for name, value in values.items()
        if name.startswith(prefix) and not name.startswith(others)
    ]
