"""The modules of a sentence-transformers folder, as far as the runtime runs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from leanmatch.errors import ModelError
from leanmatch.formats.layout import MOST_CONFIG_BYTES, POOLING_KEYS, module_folders
from leanmatch.models.prompts import CONFIG_FILE
from leanmatch.models.settings import MODEL_TYPE, SentenceSettings
from leanmatch.runtime.architectures import UnsupportedError

DENSE_ACTIVATIONS: Mapping[str, str] = MappingProxyType(
    {
        "Identity": "none",
        "Tanh": "tanh",
        "ReLU": "relu",
        "GELU": "gelu",
        "SiLU": "silu",
        "Sigmoid": "sigmoid",
    }
)
"""Classes of ``torch.nn`` to names in csrc/encoder/ops/ops.h."""

_SENTENCE = "sentence_embedding"


@dataclass(frozen=True)
class HeadFolder:
    """One module after pooling: its kind (dense, layer_norm, normalize) and number in the model."""

    kind: str
    folder: Path
    number: int
    activation: str = "none"
    bias: bool = True


@dataclass(frozen=True)
class Layout:
    """What a model folder holds.

    Attributes:
        folder: the model folder.
        transformer: the folder of the transformer or of the static embedding.
        is_static: a StaticEmbedding.
        pooling: modes in the order in which they are concatenated.
        heads: the modules after pooling.
        max_tokens: ``max_seq_length``, None where the folder sets none.
        lower: the folder asks for lower-casing beyond the tokenizer's own.
        settings: prompts, truncated dimensions, similarity.
        pools_prompt: the tokens of a prompt take part in pooling.
    """

    folder: Path
    transformer: Path
    is_static: bool
    pooling: tuple[str, ...]
    heads: tuple[HeadFolder, ...]
    max_tokens: int | None
    lower: bool
    settings: SentenceSettings
    pools_prompt: bool = True


def read_layout(folder: Path) -> Layout:
    """Read a folder's module files.

    Without ``modules.json`` (a plain transformer) pooling is the mean, as sentence-transformers has it.

    Raises:
        UnsupportedError: a module, or an option of one, that the native runtime does not have.
        ModelError: files that are missing or damaged.
    """
    settings = _settings(folder)
    if not (folder / "modules.json").is_file():
        settings.check_similarity(folder, normalized=False)
        return _layout(folder, folder, ("mean",), (), settings)
    entries = read_json(folder / "modules.json")
    modules = module_folders(folder, entries)
    if any(entry.get("kwargs") for entry in entries):
        raise UnsupportedError("the native runtime has no modules with arguments (kwargs in modules.json)")
    first, home = modules[0] if modules else ("nothing", folder)
    if first not in ("Transformer", "StaticEmbedding"):
        raise UnsupportedError(f"the native runtime has no module {first!r} to start with")
    pooling: tuple[str, ...] = ("mean",) if first == "StaticEmbedding" else ()
    pools_prompt = True
    heads: list[HeadFolder] = []
    for number, (name, path) in enumerate(modules[1:], 1):
        if name == "Pooling" and not pooling:
            pooling, pools_prompt = _pooling(path)
            if settings.prompts.any_text and not pools_prompt:
                raise UnsupportedError("the native runtime cannot leave the prompt out of pooling")
        elif name == "Dropout":
            continue
        elif name in _HEADS and pooling:
            heads.append(_HEADS[name](path, number))
        else:
            raise UnsupportedError(f"the native runtime has no module {name!r} in this place")
    if not pooling:
        raise UnsupportedError("the model gives token vectors: it has no pooling module")
    settings.check_similarity(folder, normalized=bool(heads) and heads[-1].kind == "normalize")
    is_static = first == "StaticEmbedding"
    return _layout(folder, home, pooling, tuple(heads), settings, is_static, pools_prompt)


def read_json(path: Path) -> Any:
    """A JSON file of a model folder.

    Raises:
        ModelError: it is missing or damaged.
    """
    try:
        size = path.stat().st_size
        if size > MOST_CONFIG_BYTES:
            raise ModelError(
                f"{path} has {size:,} bytes, more than {MOST_CONFIG_BYTES:,}", remedy="save or copy it again"
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"the model folder lacks {path}", remedy="save or copy it again") from error
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}", remedy="save or copy it again") from error


def read_config(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder.

    Raises:
        ModelError: it is missing or damaged, or no object.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise ModelError(
            f"{path} holds a {type(config).__name__}, not an object", remedy="save or copy it again"
        )
    return config


def _layout(
    folder: Path,
    home: Path,
    pooling: tuple[str, ...],
    heads: tuple[HeadFolder, ...],
    settings: SentenceSettings,
    is_static: bool = False,
    pools_prompt: bool = True,
) -> Layout:
    file = next((path for path in (home / name for name in _TRANSFORMER_FILES) if path.is_file()), None)
    options = read_config(file) if file is not None and not is_static else {}
    for key, value in options.items():
        if key not in _PLAIN_OPTIONS:
            if value not in (None, {}, []):
                raise UnsupportedError(f"the native runtime has no {key} = {value!r:.80} ({file})")
            continue
        accepted = _PLAIN_OPTIONS[key]
        if accepted is not None and value not in (None, *accepted):
            raise UnsupportedError(f"the native runtime has no {key} = {value!r:.80} ({file})")
    length = options.get("max_seq_length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ModelError(
            f"{file}: max_seq_length is {length!r:.40}, not a whole number from 1", remedy="correct the file"
        )
    lower = bool(options.get("do_lower_case", False))
    return Layout(
        folder,
        home,
        is_static,
        pooling,
        heads,
        length,
        lower,
        settings,
        pools_prompt,
    )


_TRANSFORMER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


_PLAIN_OPTIONS: Mapping[str, tuple[Any, ...] | None] = MappingProxyType(
    {
        "max_seq_length": None,
        "do_lower_case": None,
        "transformer_task": ("feature-extraction",),
        "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
        "module_output_name": ("token_embeddings",),
        "unpad_inputs": (True, False),  # how torch computes, not what
    }
)
"""Keys of ``sentence_bert_config.json`` to the values that the runtime knows; None for any value."""


def _settings(folder: Path) -> SentenceSettings:
    file = folder / CONFIG_FILE
    settings = SentenceSettings.from_config(read_json(file) if file.is_file() else {}, file)
    if settings.model_type != MODEL_TYPE:
        raise UnsupportedError(f"the native runtime does not run models of the type {settings.model_type!r}")
    return settings


def _pooling(folder: Path) -> tuple[tuple[str, ...], bool]:
    """Modes, and whether the tokens of a prompt take part."""
    config = read_config(folder / "config.json")
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        chosen = (modes,) if isinstance(modes, str) else tuple(modes)
    else:
        chosen = tuple(mode for mode, key in POOLING_KEYS.items() if config.get(key, False))
    unknown = [mode for mode in chosen if not isinstance(mode, str) or mode not in POOLING_KEYS]
    if unknown or not chosen:
        raise UnsupportedError(f"the native runtime has no pooling {unknown or config}")
    return chosen, config.get("include_prompt", True) is not False


def _dense(folder: Path, number: int) -> HeadFolder:
    config = read_config(folder / "config.json")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    plain = (
        config.get("module_input_name", _SENTENCE) == _SENTENCE
        and config.get("module_output_name", _SENTENCE) in (_SENTENCE, None)
        and not config.get("use_residual", False)
    )
    if name not in DENSE_ACTIVATIONS or not plain:
        raise UnsupportedError(f"the native runtime has no Dense module with {config}")
    return HeadFolder("dense", folder, number, DENSE_ACTIVATIONS[name], bool(config.get("bias", True)))


def _normalize(folder: Path, number: int) -> HeadFolder:
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else {}
    if any(
        config.get(name, _SENTENCE) not in (_SENTENCE, None)
        for name in ("module_input_name", "module_output_name")
    ):
        raise UnsupportedError(f"the native runtime has no Normalize module with {config}")
    return HeadFolder("normalize", folder, number)


_HEADS: Mapping[str, Callable[[Path, int], HeadFolder]] = MappingProxyType(
    {
        "Dense": _dense,
        "LayerNorm": partial(HeadFolder, "layer_norm"),
        "Normalize": _normalize,
    }
)
