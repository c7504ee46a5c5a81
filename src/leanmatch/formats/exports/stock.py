"""Stock folders with dense weights: sentence-transformers or transformers reads them without leanmatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from leanmatch.errors import UsageError
from leanmatch.files import atomic_folder, write_json
from leanmatch.formats.artifact.contents import Artifact
from leanmatch.formats.artifact.loader import build
from leanmatch.formats.artifact.outputs import check_outputs
from leanmatch.formats.artifact.reader import read_artifact
from leanmatch.formats.exports.dense import densify
from leanmatch.formats.exports.origin import provenance_of, tokenizer_of
from leanmatch.formats.parity import Parity
from leanmatch.formats.provenance import FILE_NAME
from leanmatch.formats.quiet import quiet_bars
from leanmatch.formats.writer import check_target, common_fields, same_mode, save_matcher


@dataclass(frozen=True)
class SavedExport:
    """What was exported.

    Attributes:
        folder: where.
        target: one of :data:`TARGETS`.
        parity: how close the reloaded export is to the compressed model.
        bytes: of all files together.
        notes: what the user should know.
    """

    folder: Path
    target: str
    parity: Parity
    bytes: int
    notes: tuple[str, ...] = ()


def export_model(
    artifact: str | Path,
    target: str,
    folder: str | Path,
    *,
    overwrite: bool = False,
    sample: Sequence[str] = (),
) -> SavedExport:
    """Export an artifact for other programs; the export is reloaded and compared before it takes its place.

    Args:
        artifact: the folder of a compressed model.
        target: one of :data:`TARGETS`.
        folder: where to.
        overwrite: replace a model folder that is there.
        sample: texts of the user's own to compare on, as well.

    Raises:
        UsageError: no such target, or one that does not fit the model.
        FormatError: the artifact is damaged, or the export computes something else.
        MissingExtraError: what the target needs is not installed.
        LeanmatchError: ``folder`` is there and ``overwrite`` is false.
    """
    if target not in TARGETS:
        raise UsageError(f"there is no export {target!r}", remedy=f"one of {', '.join(TARGETS)}")
    check_target(folder, overwrite=overwrite)
    contents = read_artifact(artifact)
    if target == "sentence-transformers" and contents.task != "matcher":
        raise UsageError(
            f"{contents.folder} holds a {contents.architecture} ({contents.task}), which "
            "sentence-transformers does not read",
            remedy="export to transformers or to ONNX instead",
            command="use --to transformers or --to onnx",
        )
    export: Callable[..., SavedExport] = TARGETS[target]
    return export(contents, Path(folder), overwrite=overwrite, sample=sample)


def _sentence_transformers(
    artifact: Artifact, folder: Path, *, overwrite: bool, sample: Sequence[str]
) -> SavedExport:
    model = build(artifact, "cpu")
    dense = densify(model)
    check_outputs(model, dense, sample)
    target = "sentence-transformers"
    saved = save_matcher(dense, folder, provenance_of(artifact, target), overwrite=overwrite, sample=sample)
    return SavedExport(folder, target, saved.parity, saved.bytes, (*saved.notes, *_pooler_note(artifact)))


def _transformers(artifact: Artifact, folder: Path, *, overwrite: bool, sample: Sequence[str]) -> SavedExport:
    """A bare transformers folder; of a sentence encoder, without what comes after the transformer."""
    import transformers

    model, notes = build(artifact, "cpu"), _pooler_note(artifact)
    if artifact.task == "matcher":
        if not artifact.config:
            raise UsageError(
                "a static encoder has no transformers form",
                remedy="export to sentence-transformers instead",
                command="use --to sentence-transformers",
            )
        behind = [module.type for module in artifact.modules[1:]]
        notes = (*notes, f"transformers has no place for what follows the encoder: {', '.join(behind)}")
        model = model[0].auto_model
    tokenizer = tokenizer_of(artifact)
    dense = densify(model)
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        with quiet_bars():
            dense.save_pretrained(str(temporary))
            tokenizer.save_pretrained(str(temporary))
            kind = getattr(transformers, artifact.architecture)
            again = kind.from_pretrained(str(temporary), local_files_only=True)
        parity = check_outputs(model, again, sample, tokenizer)
        content = {
            **common_fields(temporary, provenance_of(artifact, "transformers"), list(notes)),
            "kind": "transformers",
            "parity": {"min_cosine": parity.min_cosine, "texts": parity.texts},
        }
        write_json(temporary / FILE_NAME, content)
        size = same_mode(temporary)
    return SavedExport(folder, "transformers", parity, size, notes)


def _onnx(artifact: Artifact, folder: Path, *, overwrite: bool, sample: Sequence[str]) -> SavedExport:
    from leanmatch.formats.exports.onnx_file import export_onnx

    parity, size = export_onnx(artifact, folder, overwrite=overwrite, sample=sample)
    return SavedExport(folder, "onnx", parity, size)


def _pooler_note(artifact: Artifact) -> tuple[str, ...]:
    if not artifact.dropped:
        return ()
    return ("the pooler, which no vector of this model depends on, was left out: its weights are zeros",)


TARGETS: Mapping[str, Callable[..., SavedExport]] = MappingProxyType(
    {"sentence-transformers": _sentence_transformers, "transformers": _transformers, "onnx": _onnx}
)
"""Name of an export to what makes it."""
