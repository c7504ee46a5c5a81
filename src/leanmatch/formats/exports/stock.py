"""Exports of a model for other programs; stock folders with dense weights are written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from leanmatch.errors import UsageError
from leanmatch.files import atomic_folder, write_json
from leanmatch.formats.artifact.contents import Artifact
from leanmatch.formats.artifact.outputs import check_outputs
from leanmatch.formats.exports.graphs import export_graph
from leanmatch.formats.exports.source import Source, open_source
from leanmatch.formats.parity import Parity
from leanmatch.formats.provenance import FILE_NAME
from leanmatch.formats.quiet import quiet_bars
from leanmatch.formats.writer import check_target, common_fields, same_mode, save_matcher

GRAPHS = ("onnx", "openvino")
"""Targets that are one graph: of any model, and in 8 bits too."""


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
    model: str | Path,
    target: str,
    folder: str | Path,
    *,
    int8: bool = False,
    overwrite: bool = False,
    sample: Sequence[str] = (),
) -> SavedExport:
    """Export a model for other programs; the export is reloaded and compared before it takes its place.

    Args:
        model: a compressed model, for every target; for ``onnx`` and ``openvino`` any model that
            :func:`leanmatch.load` takes.
        target: one of :data:`TARGETS`.
        folder: where to.
        int8: weights in 8 bits (``onnx`` and ``openvino``).
        overwrite: replace a model folder that is there.
        sample: texts of the user's own to compare on, as well.

    Raises:
        UsageError: no such target, or one that does not fit the model.
        ModelError: no such model.
        FormatError: the artifact is damaged, or the export computes something else.
        MissingExtraError: what the target needs is not installed.
        LeanmatchError: ``folder`` is there and ``overwrite`` is false.
    """
    if target not in TARGETS:
        raise UsageError(
            f"there is no export {target!r}",
            remedy=f"one of {', '.join(TARGETS)}; leanmatch.runtime.web exports to web pages",
            command=f"one of {', '.join(TARGETS)}, web",
        )
    if int8 and target not in GRAPHS:
        raise UsageError(f"int8 with the export {target!r}", remedy=f"it is for {' and '.join(GRAPHS)}")
    check_target(folder, overwrite=overwrite)
    source = open_source(model)
    if target in GRAPHS:
        place = Path(folder)
        parity, size, notes = export_graph(
            source, target, place, int8=int8, overwrite=overwrite, sample=sample
        )
        return SavedExport(place, target, parity, size, notes)
    if source.artifact is None:
        raise UsageError(
            f"{source.name} is not compressed: sentence-transformers and transformers read it as it is",
            remedy=f"export a compressed model, or export to {' or '.join(GRAPHS)}",
        )
    if target == "sentence-transformers" and not source.is_matcher:
        raise UsageError(
            f"{source.name} holds a {source.artifact.architecture} ({source.artifact.task}), which "
            "sentence-transformers does not read",
            remedy="export to transformers or to ONNX instead",
            command="use --to transformers or --to onnx",
        )
    write = _sentence_transformers if target == "sentence-transformers" else _transformers
    return write(source, source.artifact, Path(folder), overwrite=overwrite, sample=sample)


def _sentence_transformers(
    source: Source, artifact: Artifact, folder: Path, *, overwrite: bool, sample: Sequence[str]
) -> SavedExport:
    check_outputs(source.model, source.dense, sample)
    target = "sentence-transformers"
    saved = save_matcher(source.dense, folder, source.provenance(target), overwrite=overwrite, sample=sample)
    return SavedExport(folder, target, saved.parity, saved.bytes, (*saved.notes, *_pooler_note(artifact)))


def _transformers(
    source: Source, artifact: Artifact, folder: Path, *, overwrite: bool, sample: Sequence[str]
) -> SavedExport:
    """A bare transformers folder; of a sentence encoder, without what comes after the transformer."""
    import transformers

    notes = _pooler_note(artifact)
    if source.is_matcher:
        if source.inner is None:
            raise UsageError(
                "a static encoder has no transformers form",
                remedy="export to sentence-transformers instead",
                command="use --to sentence-transformers",
            )
        behind = [module.type for module in artifact.modules[1:]]
        notes = (*notes, f"transformers has no place for what follows the encoder: {', '.join(behind)}")
    model, tokenizer = source.inner, source.tokenizer
    dense = source.dense[0].auto_model if source.is_matcher else source.dense
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        with quiet_bars():
            dense.save_pretrained(str(temporary))
            tokenizer.save_pretrained(str(temporary))
            kind = getattr(transformers, artifact.architecture)
            again = kind.from_pretrained(str(temporary), local_files_only=True)
        parity = check_outputs(model, again, sample, tokenizer)
        content = {
            **common_fields(temporary, source.provenance("transformers"), list(notes)),
            "kind": "transformers",
            "parity": {"min_cosine": parity.min_cosine, "texts": parity.texts},
        }
        write_json(temporary / FILE_NAME, content)
        size = same_mode(temporary)
    return SavedExport(folder, "transformers", parity, size, notes)


def _pooler_note(artifact: Artifact) -> tuple[str, ...]:
    if not artifact.dropped:
        return ()
    return ("the pooler, which no vector of this model depends on, was left out: its weights are zeros",)


TARGETS: Mapping[str, str] = MappingProxyType(
    {
        "sentence-transformers": "a stock folder with dense weights, of a compressed model",
        "transformers": "a bare transformers folder with dense weights, of a compressed model",
        "onnx": "one ONNX graph, of any model",
        "openvino": "one graph in OpenVINO's form, of any model",
    }
)
"""Name of an export to what it is."""
