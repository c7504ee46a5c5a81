"""Saving a compressed model: written aside, reloaded from there, compared, weighed, then moved in place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanmatch.errors import FormatError, ModelError, UsageError
from leanmatch.files import atomic_folder, write_json
from leanmatch.formats.artifact import tensor_file as tensorfile
from leanmatch.formats.artifact.forms import has_odd_codes
from leanmatch.formats.artifact.gather import Gathered, gather, is_matcher, parts_of
from leanmatch.formats.artifact.reader import KIND, MATCHER_VERSION, PLAIN_VERSION, VERSION
from leanmatch.formats.artifact.stock_names import name_compressed_modules
from leanmatch.formats.layout import legacy_tokenizer_config, module_kind, rewrite_to_legacy
from leanmatch.formats.model_card import write_model_card
from leanmatch.formats.parity import Parity
from leanmatch.formats.provenance import FILE_NAME, checked_provenance
from leanmatch.formats.writer import check_target, common_fields, same_mode

if TYPE_CHECKING:
    from leanmatch.compression import CompressionSpec

RESERVED = ("kind", "artifact")
MOST_UNREPORTED = 0.01
"""Share of the folder's bytes that the report may miss (``leanmatch.json`` cannot count itself)."""


@dataclass(frozen=True)
class SavedArtifact:
    """What was saved.

    Attributes:
        folder: where.
        parity: how close the reloaded model is to the one in memory.
        bytes: of all files together.
        report: the section ``artifact`` of ``leanmatch.json``, without its layers.
        notes: what the common layout could not say, and numbers that JSON has no form for.
    """

    folder: Path
    parity: Parity
    bytes: int
    report: dict[str, Any]
    notes: tuple[str, ...]


def save_compressed(
    model: Any,
    folder: str | Path,
    provenance: Mapping[str, Any],
    *,
    tokenizer: Any = None,
    spec: CompressionSpec | None = None,
    quality: Mapping[str, Any] | None = None,
    errors: Mapping[str, float] | None = None,
    overwrite: bool = False,
    sample: Sequence[str] = (),
) -> SavedArtifact:
    """Save a model with compressed layers as an artifact (docs/reference/format.md).

    Nothing but the folder of a finished, reloaded and compared artifact is ever left behind.

    Args:
        model: a ``SentenceTransformer`` or a transformers model with layers of
            :func:`leanmatch.compression.factorize`, finalized or not.
        folder: where to.
        provenance: as :func:`leanmatch.formats.save_matcher` takes it.
        tokenizer: of a transformers model; a sentence encoder has its own.
        spec: the specification, for the record.
        quality: what was measured, for the record: numbers, text, lists and dictionaries.
        errors: relative squared error of layers by module name, for the record.
        overwrite: replace a model folder that is there.
        sample: texts of the user's own to compare on, as well.

    Raises:
        FormatError: the reloaded model's outputs differ, or its bytes are not those of the report.
        ModelError: no compressed layer, a module that an artifact cannot hold, weights that are not finite.
        UsageError: a transformers model without its tokenizer.
        LeanmatchError: ``folder`` is there and ``overwrite`` is false.
    """
    from leanmatch.formats.artifact.loader import load_compressed
    from leanmatch.formats.artifact.outputs import check_outputs

    target = Path(folder)
    reserved = sorted(set(provenance) & set(RESERVED))
    if reserved:
        raise FormatError(f"provenance fields {reserved} are filled in by the writer")
    given, notes = checked_provenance({**provenance, "quality": quality or {}})
    stored_quality = given.pop("quality")
    if not is_matcher(model) and tokenizer is None:
        raise UsageError(f"a {type(model).__name__} is saved with its tokenizer", remedy="pass tokenizer=")
    check_target(target, overwrite=overwrite)
    gathered = gather(model, errors or {})
    with atomic_folder(target, overwrite=overwrite) as temporary:
        layout_notes = write_configs(model, temporary, tokenizer)
        write_tensors(gathered, temporary)
        common = common_fields(temporary, given, layout_notes)
        card = {**common, "kind": KIND, "artifact": {"task": task_of(model), **_sizes(gathered, temporary)}}
        write_model_card(temporary, card, name=target.name)  # before the files are counted
        section = {
            **section_of(model, gathered, temporary),
            "quality": stored_quality,
            "spec": None if spec is None else spec.to_json(),
        }
        content = {
            **common,
            "kind": KIND,
            "parity": {},
            "artifact": section,
        }
        write_json(temporary / FILE_NAME, content)
        parity = check_outputs(model, load_compressed(temporary, _device(model)), sample, tokenizer)
        content["parity"] = {"min_cosine": parity.min_cosine, "texts": parity.texts}
        write_json(temporary / FILE_NAME, content)
        size = same_mode(temporary)
        check_bytes(section["bytes"], size, temporary)
    report = {name: value for name, value in section.items() if name != "layers"}
    return SavedArtifact(target, parity, size, report, (*layout_notes, *notes))


def write_for_runtime(model: Any, folder: Path) -> None:
    """Write a compressed sentence encoder for the native runtime to read at once: nothing is checked.

    Args:
        model: a ``SentenceTransformer`` with final compressed layers.
        folder: an empty one.
    """
    gathered = gather(model, {})
    layout_notes = write_configs(model, folder, None)
    write_tensors(gathered, folder)
    given, _ = checked_provenance({})
    section = {**section_of(model, gathered, folder), "quality": {}, "spec": None}
    content = {**common_fields(folder, given, layout_notes), "kind": KIND, "parity": {}, "artifact": section}
    write_json(folder / FILE_NAME, content)


def section_of(model: Any, gathered: Gathered, folder: Path) -> dict[str, Any]:
    """What the section ``artifact`` of ``leanmatch.json`` says of a model whose files lie in the folder."""
    first = parts_of(model)[0].module
    version = MATCHER_VERSION if is_matcher(model) else PLAIN_VERSION
    return {
        "version": VERSION if any(map(has_odd_codes, gathered.layers.values())) else version,
        "task": task_of(model),
        "architecture": module_kind(f"{type(first).__module__}.{type(first).__name__}"),
        **_sizes(gathered, folder),
        "dropped": sorted(gathered.dropped),
        "layers": gathered.layers,
    }


def task_of(model: Any) -> str:
    """One of :data:`leanmatch.formats.artifact.TASKS`."""
    if is_matcher(model):
        return "matcher"
    name = type(model).__name__
    endings = {
        "ForSequenceClassification": "sequence-classification",
        "ForQuestionAnswering": "question-answering",
    }
    return next((task for ending, task in endings.items() if name.endswith(ending)), "encoder")


def check_bytes(report: Mapping[str, int], size: int, folder: Path) -> None:
    """The report's total is that of the folder, but for ``leanmatch.json``, which cannot count itself.

    Raises:
        FormatError: the two differ by more than :data:`MOST_UNREPORTED`.
    """
    exact = sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != FILE_NAME
    )
    allowed = max(MOST_UNREPORTED * size, size - exact)
    if report["total"] != exact or abs(size - report["total"]) > allowed:
        raise FormatError(
            f"the report says {report['total']:,} bytes; the files without {FILE_NAME} have {exact:,}, "
            f"all {size:,}",
            remedy="nothing was written; report this",
        )


def _sizes(gathered: Gathered, folder: Path) -> dict[str, Any]:
    weights = folder / tensorfile.FILE_NAME
    files = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path != weights)
    layers = gathered.layers.values()
    sizes = {
        "weights": weights.stat().st_size,
        "layers": gathered.layer_bytes(),
        "tensors": gathered.other_bytes(),
        "header": tensorfile.header_bytes(weights),
        "files": files,
        "total": weights.stat().st_size + files,
    }
    if sizes["layers"] + sizes["tensors"] + sizes["header"] != sizes["weights"]:
        raise FormatError(f"the parts of {weights.name} do not add up: {sizes}", remedy="report this")
    return {
        "bytes": sizes,
        "layer_macs": sum(int(entry["macs"]) for entry in layers),
        "dense": {
            "bytes": gathered.dense_bytes(),
            "layer_bytes": sum(int(entry["dense_bytes"]) for entry in layers),
            "layer_macs": sum(int(entry["dense_macs"]) for entry in layers),
        },
    }


def write_tensors(gathered: Gathered, folder: Path) -> None:
    """Write the weight file."""
    from safetensors.numpy import save

    # bytes first: a full disk is then an OSError, whatever the library makes of it
    (folder / tensorfile.FILE_NAME).write_bytes(save(gathered.tensors))


def write_configs(model: Any, folder: Path, tokenizer: Any) -> list[str]:
    """Configurations and tokenizer in the common layout, no weights; what that layout could not say."""
    from leanmatch.formats.quiet import quiet_bars

    notes: list[str] = []
    with quiet_bars():
        if is_matcher(model):
            with _without_weights(parts_of(model)[0].module):
                model.save_pretrained(str(folder), create_model_card=False)
            for path in (*folder.rglob("*.safetensors"), *folder.rglob("*.bin"), folder / FILE_NAME):
                path.unlink(missing_ok=True)
            notes = rewrite_to_legacy(folder, list(model))
            name_compressed_modules(folder, [n for n, module in enumerate(model) if module.state_dict()])
        else:
            save_architecture(model, folder)
            tokenizer.save_pretrained(str(folder))
            for path in folder.rglob("tokenizer_config.json"):
                content = json.loads(path.read_text(encoding="utf-8"))
                write_json(path, legacy_tokenizer_config(content))
    if (folder / "config.json").is_file():
        _plain_precision(folder / "config.json")
    for path in folder.rglob("tokenizer.json"):  # saved with indents: a third of it is blanks
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    return notes


def save_architecture(model: Any, folder: Path | str) -> None:
    """Write the ``config.json`` of a transformers model."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(str(folder))


@contextmanager
def _without_weights(inner: Any) -> Iterator[None]:
    """``save_pretrained`` of the transformers model writes its configuration only."""
    if not hasattr(inner, "config"):  # a static encoder
        yield
        return
    inner.save_pretrained = lambda path, **options: save_architecture(inner, path)
    try:
        yield
    finally:
        del inner.save_pretrained


def _plain_precision(path: Path) -> None:
    """A compressed model computes in float32, whatever its base was stored in."""
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: value for name, value in content.items() if name not in ("dtype", "torch_dtype")}
    write_json(path, kept)


def _device(model: Any) -> str:
    try:
        return str(next(model.buffers()).device)
    except StopIteration:
        raise ModelError(f"the {type(model).__name__} holds no tensors") from None
