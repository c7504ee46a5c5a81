"""Reading an artifact without torch: every field, shape, range and index is checked before its use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import FormatError
from leanmatch.formats.artifact import tensor_file as tensorfile
from leanmatch.formats.artifact.contents import KINDS, TASKS, Artifact, LayerTensors, ModuleConfig
from leanmatch.formats.artifact.fields import FLOATS, Fields, Tensors
from leanmatch.formats.artifact.forms import SHARED, decode
from leanmatch.formats.hashing import weights_sha256
from leanmatch.formats.json_files import read_object, read_value
from leanmatch.formats.layout import LEGACY_MODULES, LegacyModule
from leanmatch.formats.provenance import FILE_NAME, read_provenance

KIND = "compressed"
UNUSED = "pooler."
"""Parameters of a sentence encoder's transformer that no vector depends on: left out, loaded as zeros."""
VERSION = 3
"""The newest version: of models with odd codes (2 or 3 bits, rows that differ in bits), which readers up to
version 2 do not know."""
MATCHER_VERSION = 2
"""Of other matchers; their ``modules.json`` names compressed modules."""
PLAIN_VERSION = 1
"""Of models for other tasks, and of matchers before."""
MOST_CONFIG_BYTES = 1 << 20
MOST_NUMBER = 1 << 31
MOST_LAYERS = 1024
MOST_MODULES = 32

_MODULE_PATH = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})?")
_REMEDY = "the artifact is damaged or was not written by leanmatch: compress the model again"


def is_artifact(folder: str | Path) -> bool:
    """Does the folder hold a compressed model, damaged perhaps? Only :func:`read_artifact` checks it."""
    if Path(folder, tensorfile.FILE_NAME).exists():
        return True
    try:
        provenance = read_provenance(folder)
    except FormatError:  # a stock folder, which loads whatever its provenance says
        return False
    return provenance is not None and provenance.get("kind") == KIND


def read_artifact(folder: str | Path) -> Artifact:
    """Read a compressed model.

    Time and memory are bounded by the size of the files, whatever they claim.

    Raises:
        FormatError: whatever is wrong with it.
    """
    root = Path(folder)
    try:
        return _read(root)
    except FormatError as error:
        where = "" if str(root) in error.problem else f"{root}: "
        raise FormatError(f"{where}{error.problem}", remedy=error.remedy or _REMEDY) from error
    except OSError as error:
        raise FormatError(f"{root} cannot be read: {error}", remedy=_REMEDY) from error


def _read(folder: Path) -> Artifact:
    provenance = read_provenance(folder)
    if provenance is None or provenance.get("kind") != KIND:
        raise FormatError(f"{folder} holds no compressed model", remedy="name a folder of leanmatch compress")
    fields = Fields(f"{FILE_NAME}: artifact", provenance.get("artifact"))
    version = fields.whole("version", 1, MOST_NUMBER)
    if version > VERSION:
        raise FormatError(
            f"{folder} has artifact version {version}; this leanmatch reads up to {VERSION}",
            remedy="update leanmatch",
        )
    task = fields.choice("task", TASKS)
    architecture = fields.name("architecture")
    weights = folder / tensorfile.FILE_NAME
    tensors = Tensors(tensorfile.read_tensors(weights))
    _check_report(fields, weights)
    if weights_sha256(folder, name=tensorfile.FILE_NAME) != provenance["weights_sha256"]:
        raise FormatError(f"{weights} is not the file that {FILE_NAME} was written for", remedy=_REMEDY)
    layers = _layers(fields.mapping("layers"), tensors)
    dropped = fields.texts("dropped")
    if not all(name.startswith(UNUSED) for name in dropped) or (dropped and task != "matcher"):
        raise FormatError(f"{fields.where}: dropped must be parameters of a sentence encoder's {UNUSED!r}")
    fields.end()
    others = _others(tensors, layers)
    tensors.end()
    modules = _modules(folder) if task == "matcher" else ()
    transformer = task != "matcher" or any(module.type == "Transformer" for module in modules)
    tokenizer = folder / "tokenizer.json"
    return Artifact(
        folder=folder,
        task=task,
        architecture=architecture,
        config=_config(folder) if transformer else {},
        modules=modules,
        layers=layers,
        tensors=others,
        dropped=dropped,
        tokenizer_file=tokenizer if tokenizer.is_file() else None,
        provenance=provenance,
    )


def _check_report(fields: Fields, weights: Path) -> None:
    """Check the report, which is only shown to people. Only the size of the weights can be verified here."""
    sizes = fields.section("bytes")
    for name in ("layers", "tensors", "header", "files", "total"):
        sizes.whole(name, 0, 1 << 60)
    stated_bytes = sizes.whole("weights", 0, 1 << 60)
    sizes.end()
    if stated_bytes != weights.stat().st_size:
        raise FormatError(
            f"{weights} has {weights.stat().st_size:,} bytes, not {stated_bytes:,} as {FILE_NAME} says"
        )
    dense = fields.section("dense")
    for name in ("bytes", "layer_bytes", "layer_macs"):
        dense.whole(name, 0, 1 << 60)
    dense.end()
    fields.whole("layer_macs", 0, 1 << 60)
    for name in ("quality", "spec"):
        if not isinstance(fields.optional(name), dict | type(None)):
            raise FormatError(f"{fields.where}: {name} is no object")


def _layers(entries: Mapping[str, Any], tensors: Tensors) -> dict[str, LayerTensors]:
    layers: dict[str, LayerTensors] = {}
    shared: dict[str, list[Any]] = {}
    for name, entry in entries.items():
        fields = Fields(f"layer {name!r:.120}", entry)
        kind = fields.choice("kind", KINDS)
        stack = fields.optional("stack")
        if stack is not None and not isinstance(stack, str):
            raise FormatError(f"{fields.where}: its stack is {stack!r:.80}, not a name")
        factors = decode(fields, tensors, tensor_names(name, stack))
        bias = (
            tensors.floats(f"layers/{name}/bias", factors.shape[:1])
            if fields.choice("bias", (True, False))
            else None
        )
        sizes = ("bytes", "macs", "dense_bytes", "dense_macs")
        report: dict[str, Any] = {key: fields.whole(key, 0, 1 << 60) for key in sizes}
        report["error"] = fields.number_or_none("error")
        fields.end()
        if stack is not None:
            shared.setdefault(stack, []).append(factors.shape[1])
        layers[name] = LayerTensors(factors, bias, kind, stack, report)
    for stack, inputs in shared.items():
        if len(set(inputs)) > 1:
            raise FormatError(f"stack {stack!r:.80} holds layers of {sorted(set(inputs))} inputs")
    return layers


def tensor_names(layer: str, stack: str | None) -> Any:
    """From the last name of a layer's tensor to its name in the file."""

    def name(last: str) -> str:
        return f"stacks/{stack}/{last}" if stack is not None and last in SHARED else f"layers/{layer}/{last}"

    return name


def _others(tensors: Tensors, layers: Mapping[str, LayerTensors]) -> dict[str, NDArray[Any]]:
    out: dict[str, NDArray[Any]] = {}
    for name in tensors.names():
        if not name.startswith("tensors/"):
            continue
        own = name.removeprefix("tensors/")
        if own.rpartition(".")[0] in layers:
            raise FormatError(f"the tensor {name!r:.120} belongs to a compressed layer")
        array = tensors.take(name, (*FLOATS, "int64"), None)
        out[own] = array if array.dtype == np.int64 else tensors.floats(name, None)
    return out


def _config(folder: Path) -> dict[str, Any]:
    config = read_object(folder / "config.json", MOST_CONFIG_BYTES, _REMEDY)
    if not isinstance(config.get("model_type"), str):
        raise FormatError(f"config.json has model_type {config.get('model_type')!r:.80}, not a name")
    if "auto_map" in config:
        raise FormatError("config.json names code of its own (auto_map), which is never run")
    for name, value in config.items():
        most = MOST_LAYERS if name.endswith("layers") else MOST_NUMBER
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > most:
            raise FormatError(f"config.json has {name} = {value!r:.40}, more than {most:,}")
    return config


def _modules(folder: Path) -> tuple[ModuleConfig, ...]:
    entries = read_value(folder / "modules.json", MOST_CONFIG_BYTES, _REMEDY)
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_MODULES:
        raise FormatError(f"modules.json must be a list of 1 to {MOST_MODULES} modules")
    return tuple(_module(folder, entry, number) for number, entry in enumerate(entries))


def _module(folder: Path, entry: object, number: int) -> ModuleConfig:
    fields = Fields(f"modules.json: module {number}", entry)
    fields.choice("idx", (number,))
    path = fields.text("path")
    if not _MODULE_PATH.fullmatch(path):
        raise FormatError(f"{fields.where}: its path {path!r:.80} is no plain name of a folder")
    module = known_module(fields.text("type"))
    if module.config_file is None or not (folder / path / module.config_file).is_file():
        return ModuleConfig(module.name, path, {})
    return ModuleConfig(
        module.name, path, read_object(folder / path / module.config_file, MOST_CONFIG_BYTES, _REMEDY)
    )


def known_module(written_type: str) -> LegacyModule:
    """The module of sentence-transformers with that type.

    Raises:
        FormatError: a type that artifacts do not hold; loading it would import code by its name.
    """
    for module in LEGACY_MODULES:
        if module.matches(written_type):
            return module
    names = ", ".join(module.name for module in LEGACY_MODULES)
    raise FormatError(f"modules.json names the type {written_type!r:.120}", remedy=f"artifacts hold {names}")
