"""Saving a matcher: written aside, brought to the common layout, reloaded, compared, moved in place."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanmatch.errors import LeanmatchError, ModelError
from leanmatch.files import atomic_folder, write_json
from leanmatch.formats.fingerprint import other_files
from leanmatch.formats.hashing import WEIGHT_SUFFIXES, weights_sha256
from leanmatch.formats.layout import rewrite_to_legacy
from leanmatch.formats.model_card import write_model_card
from leanmatch.formats.parity import Parity, check_parity
from leanmatch.formats.provenance import FILE_NAME, FORMAT, FORMAT_VERSION, checked_provenance
from leanmatch.formats.quiet import quiet_bars
from leanmatch.formats.reader import is_model_folder, open_folder
from leanmatch.types import JsonValue

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

WRITTEN_WITH = ("sentence-transformers", "transformers", "torch")
"""Distributions whose versions are recorded."""


@dataclass(frozen=True)
class SavedMatcher:
    """What was saved.

    Attributes:
        folder: where.
        parity: how close the reloaded model is to the one in memory.
        weights_sha256: see :func:`leanmatch.formats.weights_sha256`.
        bytes: size of all files together.
        notes: what the common layout could not say, and numbers that JSON has no form for.
    """

    folder: Path
    parity: Parity
    weights_sha256: str
    bytes: int
    notes: tuple[str, ...]


def save_matcher(
    model: SentenceTransformer,
    folder: str | Path,
    provenance: Mapping[str, Any],
    *,
    overwrite: bool = False,
    sample: Sequence[str] = (),
) -> SavedMatcher:
    """Save a model as a stock sentence-transformers folder that versions from 5.1 on read alike.

    A model card is written with it (:mod:`leanmatch.formats.model_card`). The folder is written beside its
    place, reloaded from there and compared with ``model`` on :data:`leanmatch.formats.parity.ODD_TEXTS`
    and ``sample``; only then does it take its place. When anything fails, nothing is left behind and an older
    folder stays as it was.

    Args:
        model: adapters (LoRA) must be merged into it beforehand.
        folder: where to.
        provenance: ``base``, ``data``, ``split``, ``options``, ``metrics``, and fields of your own; see
            :mod:`leanmatch.formats.provenance`.
        overwrite: replace a model folder that is there. Any other non-empty folder is never replaced, nor is
            one with files that are no part of a model.
        sample: texts of the user's own to compare on, as well.

    Raises:
        FormatError: the reloaded model's vectors differ (cosine below 0.9999) or are not finite; a
            provenance field that cannot be stored.
        ModelError: unmerged adapters; ``overwrite`` of a folder that is no model.
        LeanmatchError: ``folder`` is there and ``overwrite`` is false.
    """
    target = Path(folder)
    stored, notes = checked_provenance(provenance)
    _refuse_adapters(model)
    check_target(target, overwrite=overwrite)
    with atomic_folder(target, overwrite=overwrite) as temporary:
        with quiet_bars():
            model.save_pretrained(str(temporary), create_model_card=False)
        layout_notes = rewrite_to_legacy(temporary, list(model))
        parity = check_parity(model, open_folder(temporary, str(model.device)), sample)
        content = {
            **common_fields(temporary, stored, layout_notes),
            "parity": {"min_cosine": parity.min_cosine, "texts": parity.texts},
        }
        write_json(temporary / FILE_NAME, content)
        write_model_card(temporary, content, name=target.name)
        size = same_mode(temporary)
    return SavedMatcher(target, parity, str(content["weights_sha256"]), size, (*layout_notes, *notes))


def common_fields(
    folder: Path,
    provenance: Mapping[str, JsonValue],
    layout_notes: list[str],
    weights: Sequence[str] = WEIGHT_SUFFIXES,
) -> dict[str, JsonValue]:
    """What every ``leanmatch.json`` says, but for ``parity``; the weights must lie in the folder already."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "leanmatch_version": _leanmatch_version(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **provenance,
        "weights_sha256": weights_sha256(folder, weights),
        "written_with": {name: version(name) for name in WRITTEN_WITH},
        "layout_notes": layout_notes,
    }


def check_target(folder: str | Path, *, overwrite: bool = False) -> None:
    """Refuse a place where :func:`save_matcher` would not save; for callers with long work before it.

    Raises:
        ModelError: ``overwrite`` of something that is no model, or of a model with other files beside it.
        LeanmatchError: ``folder`` is there, is not empty, and ``overwrite`` is false.
    """
    target = Path(folder)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise LeanmatchError(
            f"{target} exists already",
            remedy="name another folder or pass overwrite=True",
            command="name another folder or pass --overwrite",
        )
    if not is_model_folder(target) and not (target / FILE_NAME).is_file():
        raise ModelError(f"{target} exists and is not a saved model", remedy="name another folder")
    others = other_files(target)
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise ModelError(
            f"{target} holds something that is no part of the model: {others[0]}{more}",
            remedy="name another folder, or move that elsewhere; nothing was removed",
        )


def _refuse_adapters(model: SentenceTransformer) -> None:
    adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    if adapted:
        raise ModelError(
            f"{len(adapted)} layers carry unmerged adapters, the first being {adapted[0]}",
            remedy="merge them first: merge_and_unload() of peft",
        )


def same_mode(folder: Path) -> int:
    """Give all files the mode of those that the umask made (safetensors writes 0600); their total size."""
    mode = (folder / FILE_NAME).stat().st_mode
    files = [file for file in folder.rglob("*") if file.is_file()]
    for file in files:
        file.chmod(mode)
    return sum(file.stat().st_size for file in files)


def _leanmatch_version() -> str:
    import leanmatch

    return leanmatch.__version__
