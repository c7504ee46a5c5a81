"""The sentence-transformers layout that old and new versions read alike.

sentence-transformers 6 writes module types, pooling keys and tokenizer fields that 5.1 cannot read; both
read the older form, so the folder is rewritten to that. One table, :data:`LEGACY_MODULES`, says how. What
the older form has no words for (a module outside the table, an option away from its default) is kept as it
was written, and a note says so: newer versions still read the folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from leanmatch.errors import FormatError, ModelError
from leanmatch.files import write_json
from leanmatch.formats.json_files import read_value
from leanmatch.types import JsonValue

Config = dict[str, JsonValue]

POOLING_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "cls": "pooling_mode_cls_token",
        "max": "pooling_mode_max_tokens",
        "mean": "pooling_mode_mean_tokens",
        "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
        "weightedmean": "pooling_mode_weightedmean_tokens",
        "lasttoken": "pooling_mode_lasttoken",
    }
)
"""Pooling modes and their boolean keys, in the order in which old versions concatenate them."""

MOST_CONFIG_BYTES = 64 * 2**20
"""Tokenizers' configurations list their added tokens; no real one comes near this size."""

MAX_TOKENIZER_LENGTH = 10**9
"""Tokenizers without a limit say so by a number larger than this."""

_TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


COMPRESSED = "leanmatch.integrations.sentence_transformers.Compressed"
"""How the types of compressed modules begin; the plain name of the module follows."""

MOST_MODULES = 64
"""No model of sentence-transformers has more modules."""


def module_folders(folder: Path, entries: object) -> list[tuple[str, Path]]:
    """Class name and folder of each module in the content of a ``modules.json``.

    Raises:
        ModelError: no list of modules, or a path that leads out of the model's folder.
    """
    file = folder / "modules.json"
    if not isinstance(entries, list) or not all(
        isinstance(item, dict) and "type" in item for item in entries
    ):
        raise ModelError(
            f"{file} is no list of modules", remedy="the folder is damaged: save or copy it again"
        )
    if len(entries) > MOST_MODULES:
        raise ModelError(
            f"{file} lists {len(entries):,} modules, more than {MOST_MODULES}",
            remedy="the folder is damaged: save or copy it again",
        )
    named_folders = []
    for entry in entries:
        path = entry.get("path", "")
        inside = PurePosixPath(path) if isinstance(path, str) else None
        if inside is None or inside.is_absolute() or ".." in inside.parts or "\\" in str(path):
            raise ModelError(
                f"{file} names the module folder {path!r:.80}, which is not inside the model's folder",
                remedy="do not use a model that you do not trust; else save it again",
            )
        named_folders.append((module_kind(str(entry["type"])), folder / inside))
    return named_folders


def module_kind(written_type: str) -> str:
    """The class name in a type of ``modules.json``; of a compressed module, that of the one it stands for.

    >>> module_kind("sentence_transformers.models.Pooling"), module_kind(f"{COMPRESSED}Transformer")
    ('Pooling', 'Transformer')
    """
    plain = written_type.removeprefix(COMPRESSED)
    return plain if plain != written_type else written_type.rpartition(".")[2]


def check_modules(folder: Path) -> None:
    """Refuse a model folder whose ``modules.json`` is damaged or leads out of it; none at all is fine.

    Raises:
        ModelError: see :func:`module_folders`.
    """
    file = folder / "modules.json"
    if file.is_file():
        try:
            entries = read_value(file, MOST_CONFIG_BYTES, "save or copy the folder again")
        except FormatError as error:
            raise ModelError(error.problem, remedy=error.remedy) from error
        module_folders(folder, entries)


class NotExpressibleError(Exception):
    """The older layout has no words for this module's options (never leaves this package)."""


@dataclass(frozen=True)
class LegacyModule:
    """How one module type is written in the older layout."""

    name: str
    """Class name; the type becomes ``sentence_transformers.models.<name>``."""
    package: str
    """The package that sentence-transformers 6 defines it in."""
    config_file: str | None
    """Its configuration file, relative to the module's folder."""
    rewrite: Callable[[Any, Config], Config]
    """From the live module and the configuration as written to the older configuration."""

    @property
    def legacy_type(self) -> str:
        return f"sentence_transformers.models.{self.name}"

    def matches(self, written_type: str) -> bool:
        return written_type in (
            f"{self.package}.{self.name}",
            self.legacy_type,
            f"{self.legacy_type}.{self.name}",
            f"{COMPRESSED}{self.name}",
        )


def _transformer(module: Any, config: Config) -> Config:
    _only(config, "transformer_task", "feature-extraction")
    _only(config, "modality_config", _TEXT_ONLY)
    _only(config, "module_output_name", "token_embeddings")
    for key in ("processing_kwargs", "query_length", "document_length", "query_expansion"):
        _only(config, key, None)
    length = module.max_seq_length
    return {
        "max_seq_length": int(length) if length is not None and length < MAX_TOKENIZER_LENGTH else None,
        "do_lower_case": bool(module.do_lower_case),
    }


def _pooling(module: Any, config: Config) -> Config:
    if "pooling_mode" not in config:
        return config
    modes = config["pooling_mode"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if modes != [mode for mode in POOLING_KEYS if mode in modes]:
        raise NotExpressibleError(f"pooling modes in the order {modes}")
    return {
        "word_embedding_dimension": config["embedding_dimension"],
        **{key: mode in modes for mode, key in POOLING_KEYS.items()},
        "include_prompt": config.get("include_prompt", True),
    }


def _dense(module: Any, config: Config) -> Config:
    _only(config, "module_input_name", "sentence_embedding")
    _only(config, "module_output_name", "sentence_embedding")
    _only(config, "use_residual", False)
    return {key: config[key] for key in ("in_features", "out_features", "bias", "activation_function")}


def _normalize(module: Any, config: Config) -> Config:
    _only(config, "module_input_name", "sentence_embedding")
    _only(config, "module_output_name", "sentence_embedding")
    return {}


def _unchanged(module: Any, config: Config) -> Config:
    return config


def _only(config: Config, key: str, value: JsonValue) -> None:
    if config.get(key, value) != value:
        raise NotExpressibleError(f"{key} = {json.dumps(config[key])}")


_BASE = "sentence_transformers.base.modules"
_MODULES = "sentence_transformers.sentence_transformer.modules"
LEGACY_MODULES: tuple[LegacyModule, ...] = (
    LegacyModule("Transformer", f"{_BASE}.transformer", "sentence_bert_config.json", _transformer),
    LegacyModule("StaticEmbedding", f"{_MODULES}.static_embedding", None, _unchanged),
    LegacyModule("Pooling", f"{_MODULES}.pooling", "config.json", _pooling),
    LegacyModule("Dense", f"{_BASE}.dense", "config.json", _dense),
    LegacyModule("LayerNorm", f"{_MODULES}.layer_norm", "config.json", _unchanged),
    LegacyModule("Dropout", f"{_MODULES}.dropout", "config.json", _unchanged),
    LegacyModule("Normalize", f"{_BASE}.normalize", "config.json", _normalize),
)


def rewrite_to_legacy(folder: Path, modules: list[Any]) -> list[str]:
    """Rewrite a folder just written by ``SentenceTransformer.save_pretrained``, in place.

    Args:
        folder: the folder.
        modules: the live modules, in order (``list(model)``).

    Returns:
        notes: one line for each thing that the older layout could not say and that was kept as it was.
    """
    notes = []
    entries = _read(folder / "modules.json")
    for entry, module in zip(entries, modules, strict=True):
        legacy = next((kind for kind in LEGACY_MODULES if kind.matches(entry["type"])), None)
        where = f"module {entry['idx']}"
        if legacy is None:
            notes.append(f"{where}: type {entry['type']} is kept as it is; old versions may not read it")
            continue
        try:
            if legacy.config_file is not None:
                file = folder / entry["path"] / legacy.config_file
                file.parent.mkdir(exist_ok=True)
                write_json(file, legacy.rewrite(module, _read(file) if file.exists() else {}))
        except NotExpressibleError as error:
            notes.append(
                f"{where} ({legacy.name}): {error} has no form in the older layout and is kept as it is; "
                "old versions will not read it"
            )
            continue
        entry["type"] = legacy.legacy_type
    write_json(folder / "modules.json", entries)
    _rewrite_model_config(folder / "config_sentence_transformers.json")
    for file in sorted(folder.rglob("tokenizer_config.json")):
        write_json(file, legacy_tokenizer_config(_read(file)))
    return notes + _rotary_notes(folder)


def legacy_tokenizer_config(config: Config) -> Config:
    """What transformers 4 reads, too: class names and special tokens in its words, no traces of loading."""
    kept = {
        key: value for key, value in config.items() if key not in ("backend", "is_local", "local_files_only")
    }
    if kept.get("tokenizer_class") == "TokenizersBackend":
        kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(kept.get("extra_special_tokens"), list):
        kept["additional_special_tokens"] = kept.pop("extra_special_tokens")
    return kept


def _rewrite_model_config(file: Path) -> None:
    # Old versions warn of a model that names a newer version than theirs; leanmatch.json has the versions.
    config = _read(file)
    config.pop("__version__", None)
    write_json(file, config)


def _rotary_notes(folder: Path) -> list[str]:
    file = folder / "config.json"
    config = _read(file) if file.exists() else {}
    if "rope_parameters" in config and "rope_theta" not in config:
        return [
            "config.json: rope_parameters is known to transformers 5 only; transformers 4 uses its defaults"
        ]
    return []


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
