"""Which model a folder holds: one hash over the files that decide its vectors, and over nothing else.

Those are weights, tokenizer, configuration and prompts, by their names in the folders of its modules. Caches,
notes, exports and provenance beside them change nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path

from leanmatch.errors import LeanmatchError, ModelError
from leanmatch.formats.json_files import read_value
from leanmatch.formats.layout import LEGACY_MODULES, module_folders
from leanmatch.formats.provenance import FILE_NAME as PROVENANCE
from leanmatch.formats.provenance import read_provenance

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model", "merges.txt")
CONFIGURATION = re.compile(
    r"(config|adapter_config|sentence_[a-z-]+_config|special_tokens_map|added_tokens|preprocessor_config"
    r"|processor_config|tokenizer_config)\.json"
)
VOCABULARY = re.compile(
    r"(tokenizer|vocab|unigram)\.json|(vocab|merges)\.txt|.*\.(spm|bpe|tiktoken)|.*\.model"
)
SAFE_WEIGHTS = re.compile(r"(model|adapter_model)([.-]\d+-of-\d+)?\.safetensors|compressed\.safetensors")
OTHER_WEIGHTS = re.compile(r"(pytorch_model|adapter_model)([.-]\d+-of-\d+)?\.bin")
_MODULE = re.compile(r"\d+_\w+")
_BESIDE = re.compile(
    r".*\.index\.json|.*\.onnx([._]data)?|openvino_.*\.(xml|bin)|(generation|data)_config\.json"
    r"|runtime-choices(-[a-z0-9]+)?\.json|chat_template\.(jinja|json)|\.gitattributes|modules\.json"
    r"|config_sentence_transformers\.json|(modeling|configuration|tokenization)_\w+\.py"
)
"""Files of a model's folder that do not decide its vectors: indexes, exports, templates, caches, code."""
MODEL_FILES = ("modules.json", "config_sentence_transformers.json")

_MOST_CONFIG_BYTES = 1 << 20
_ARTIFACT_KEYS = ("version", "task", "architecture", "layers", "dropped")
_EARLIER_SUFFIXES = (".safetensors", ".bin", ".json", ".txt", ".model")
_EARLIER_LEFT_OUT = ("leanmatch.json", "model.safetensors.index.json", "data_config.json")
_EARLIER_CACHE = re.compile(r"runtime-choices(-[a-z0-9]+)?\.json")
_MOST_EARLIER_CACHES = 6


def model_fingerprint(folder: str | Path) -> str:
    """SHA-256 over weights, tokenizer, configuration and prompts: equal fingerprints give equal vectors.

    Raises:
        ModelError: the folder holds no weights.
    """
    root = Path(folder)
    files = deciding_files(root)
    if not any(_is_weights(path.name) for path in files.values()):
        raise ModelError(f"{folder} holds no weights of a model", remedy="name a saved model's folder")
    total = hashlib.sha256(b"leanmatch model 2\n")
    for name in sorted(files):
        total.update(_line(name, files[name]))
    total.update(_artifact_layers(root))
    return total.hexdigest()


def deciding_files(folder: Path) -> dict[str, Path]:
    """The files that decide a model's vectors, by their names relative to its folder."""
    files = [folder / name for name in MODEL_FILES]
    for home, is_known in _module_folders(folder):
        if not home.is_dir():
            continue
        names = sorted(path for path in home.iterdir() if path.is_file())
        if not is_known and home != folder:  # a module that leanmatch does not know: all of its files
            files += (path for path in home.rglob("*") if path.is_file() and path.suffix != ".md")
            continue
        safe = any(SAFE_WEIGHTS.fullmatch(path.name) for path in names)
        patterns = (CONFIGURATION, VOCABULARY, SAFE_WEIGHTS if safe else OTHER_WEIGHTS)
        files += (path for path in names if any(pattern.fullmatch(path.name) for pattern in patterns))
    return {path.relative_to(folder).as_posix(): path for path in files if path.is_file()}


def other_files(folder: Path) -> list[str]:
    """What lies in a model's folder and is no part of a model: files, and folders (with a slash), by name.

    Parts of a model are the files that decide its vectors, its card, its provenance, and weights in other
    formats.
    """
    own = {Path(name).parts[0] for name in deciding_files(folder)} | {PROVENANCE, "README.md"}
    patterns = (CONFIGURATION, VOCABULARY, SAFE_WEIGHTS, OTHER_WEIGHTS, _BESIDE)
    return sorted(
        f"{path.name}/" if path.is_dir() else path.name
        for path in folder.iterdir()
        if path.name not in own
        and not (_MODULE.fullmatch(path.name) if path.is_dir() else _matches(path.name, patterns))
    )


def _matches(name: str, patterns: tuple[re.Pattern[str], ...]) -> bool:
    return any(pattern.fullmatch(name) for pattern in patterns)


def tokenizer_fingerprint(folder: str | Path) -> str:
    """SHA-256 over the tokenizer's files of a model folder; empty where there is none."""
    files = {
        name: path for name, path in deciding_files(Path(folder)).items() if path.name in TOKENIZER_FILES
    }
    if not files:
        return ""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{files[name].stat().st_size}\0".encode())
        total.update(files[name].read_bytes())
    return total.hexdigest()


def earlier_fingerprints(folder: str | Path) -> frozenset[str]:
    """The fingerprints that earlier versions may have given this model.

    They hashed every file with one of five suffixes, including caches that the runtime wrote into the folder.
    A catalogue does not say which caches were there when it was made, so every subset of them counts.
    """
    lines: dict[str, bytes] = {}
    caches: list[str] = []
    for path in Path(folder).rglob("*"):
        if path.suffix in _EARLIER_SUFFIXES and path.name not in _EARLIER_LEFT_OUT and path.is_file():
            name = path.relative_to(folder).as_posix()
            lines[name] = _line(name, path)
            if _EARLIER_CACHE.fullmatch(name):
                caches.append(name)
    hashes = set()
    for count in range(len(caches[:_MOST_EARLIER_CACHES]) + 1):
        for absent in itertools.combinations(caches[:_MOST_EARLIER_CACHES], count):
            text = b"".join(lines[name] for name in sorted(lines) if name not in absent)
            hashes.add(hashlib.sha256(text).hexdigest())
    return frozenset(hashes)


def _module_folders(folder: Path) -> list[tuple[Path, bool]]:
    """The folders of a model's modules, and whether leanmatch knows the kind of module."""
    try:
        modules = module_folders(folder, read_value(folder / "modules.json", _MOST_CONFIG_BYTES, ""))
    except LeanmatchError:  # a plain transformer, or a folder that does not load
        return [(folder, True)]
    homes = {folder: True}
    for kind, home in modules:
        is_known = any(kind == module.name for module in LEGACY_MODULES)
        homes[home] = homes.get(home, True) and is_known
    return list(homes.items())


def _line(name: str, path: Path) -> bytes:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return f"{name}\0{path.stat().st_size}\0{digest}\n".encode()


def _is_weights(name: str) -> bool:
    return bool(SAFE_WEIGHTS.fullmatch(name) or OTHER_WEIGHTS.fullmatch(name))


def _artifact_layers(folder: Path) -> bytes:
    """How a compressed model's layers are coded, which stands in its provenance; nothing for other models."""
    if not (folder / PROVENANCE).is_file():
        return b""
    try:
        artifact = (read_provenance(folder) or {}).get("artifact")
    except LeanmatchError:
        return b""
    if not isinstance(artifact, Mapping):
        return b""
    deciding = {key: artifact.get(key) for key in _ARTIFACT_KEYS}
    return json.dumps(deciding, sort_keys=True, ensure_ascii=True).encode()
