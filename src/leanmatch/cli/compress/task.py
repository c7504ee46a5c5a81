"""The model and the data of ``leanmatch compress``: which rows to learn from, which to judge on."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanmatch.cli.compress.request import CompressRequest
from leanmatch.cli.pairs import read_table, read_unlabelled
from leanmatch.data import (
    PairTable,
    Split,
    SplitOptions,
    normalized_text,
    split_from_json,
    split_pairs,
)
from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.formats import find_model, is_artifact, read_provenance, resolve_device
from leanmatch.formats.reader import load_matcher

if TYPE_CHECKING:
    from leanmatch.cli.compress.start import Start
    from leanmatch.compression.planner.choice import Plan
    from leanmatch.compression.planner.clock import Clock, Workload
    from leanmatch.compression.planner.tasks import Task

RECORD_BYTES, LAYER_RECORD_BYTES = 24_000, 1_600
"""Set aside for ``leanmatch.json`` and the header of the weights: of a model, and of each layer."""


@dataclass(frozen=True)
class Work:
    """Model, task and where they come from.

    Attributes:
        model: the dense model.
        task: see :class:`leanmatch.compression.planner.tasks.Task`.
        provenance: for the artifact.
        identity: whatever of model and data decides the outcome.
        encoder_layers: of the dense model; 0 where its architecture is not known.
        skipped: bad rows that were left out.
        start: the compressed model to train further, if any.
    """

    model: Any
    task: Task
    provenance: dict[str, Any]
    identity: dict[str, Any]
    encoder_layers: int = 0
    skipped: int = 0
    start: Start | None = None


def open_work(request: CompressRequest, say: Callable[[str], None]) -> Work:
    """Read the data, split it, load the model.

    Raises:
        DataError, ModelError, UsageError: whatever cannot be used.
    """
    folder = find_model(request.model)
    if folder is not None and is_artifact(folder):
        raise ModelError(
            f"{request.model} is compressed already", remedy="compress the model that it was made from"
        )
    base_provenance = None if folder is None else read_provenance(folder)
    table = read_table(
        request.data,
        column=request.column,
        on_error=request.on_error,
        delimiter=request.delimiter,
        provenance=base_provenance,
        model=request.model,
        say=say,
    )
    split, how = _split(table, base_provenance, request.seed, request.task == "classify")
    say(f"{len(table):,} rows, {how}: {len(split.train):,} to learn from, {len(split.valid):,} to judge on")
    if not len(split.valid):
        raise DataError("there are no rows to judge on", remedy="give more rows, or some with split valid")
    texts = read_unlabelled(request.texts, "--texts", request, say)
    texts = _unseen(texts, split, say) if texts else []
    model, task = _task(request, split, texts, folder, say)
    provenance = {
        "base": request.model,
        "data": {
            "source": str(table.source),
            "fingerprint": table.fingerprint(),
            "rows": len(table),
            "columns": table.columns_read,
        },
        "split": split.manifest(),
        "metrics": {},
    }
    if texts:
        provenance["texts"] = {"source": str(request.texts), "texts": len(texts)}
    identity = {
        "model": request.model,
        "weights": None if folder is None else _fingerprint(folder),
        "data": table.fingerprint(),
        "seed": request.seed,
        "texts": None if not texts else hashlib.sha256("\n".join(texts).encode()).hexdigest(),
    }
    from leanmatch.cli.compress.start import read_start
    from leanmatch.compression.planner.depth import encoder_layer_count
    from leanmatch.compression.planner.tasks import MOST_DISTRACTORS

    identity["distractors"] = MOST_DISTRACTORS
    start = None if request.start is None else read_start(request.start, model)
    if start is not None:
        identity["start"] = start.fingerprint
        start.check_split(provenance["split"])
    return Work(model, task, provenance, identity, encoder_layer_count(model), len(table.skipped), start)


def clock_of(model: Any, workload: Workload) -> Clock | None:
    """A clock for a sentence encoder that the native runtime runs; None for any other model."""
    from leanmatch.formats.artifact.gather import is_matcher
    from leanmatch.models.adapter import transformer_of
    from leanmatch.runtime.architectures import UnsupportedError
    from leanmatch.runtime.kernels.planned import MachineClock

    if not is_matcher(model):
        return None
    transformer = transformer_of(model)
    shapes = {name: tuple(value.shape) for name, value in transformer.named_parameters()}
    try:
        return MachineClock(transformer.config.to_dict(), shapes, workload)
    except UnsupportedError:
        return None


def int8_plan(model: Any) -> Plan:
    """Every layer that is compressed by default, in int8: rounding leaves nothing to measure or choose."""
    from leanmatch.compression import RoundingSpec, default_spec
    from leanmatch.compression.planner.choice import Plan

    int8 = RoundingSpec(bits=8)
    return Plan("int8", default_spec(model, int8, embeddings=int8, positions=int8))


def overhead(work: Work) -> int:
    """Bytes of an artifact that are no weights: tokenizer, configurations, ``leanmatch.json``."""
    from leanmatch.formats.artifact.writer import write_configs

    with tempfile.TemporaryDirectory(prefix="leanmatch-") as name:
        write_configs(work.model, Path(name), work.task.tokenizer)
        files = sum(path.stat().st_size for path in Path(name).rglob("*") if path.is_file())
    return files + record_bytes(work.model)


def record_bytes(model: Any) -> int:
    """The most that ``leanmatch.json`` and the header of the weights take; both name every layer's form."""
    from torch import nn

    layers = sum(isinstance(module, nn.Linear | nn.Embedding) for module in model.modules())
    return RECORD_BYTES + LAYER_RECORD_BYTES * layers


def _split(
    table: PairTable, provenance: Mapping[str, Any] | None, seed: int, classify: bool
) -> tuple[Split, str]:
    """The split that the model was trained with, where this is its table; else a new one."""
    manifest = (provenance or {}).get("split")
    if isinstance(manifest, Mapping) and manifest.get("fingerprint") == table.fingerprint():
        return split_from_json(table, dict(manifest), name="the split of the model"), "split as in training"
    options = SplitOptions(
        seed=seed,
        shared_positives=True if classify else None,
        leakage="ignore" if classify else "remove",
    )
    return split_pairs(table, options), "split by its column" if table.has("split") else "split at random"


def _unseen(texts: Sequence[str], split: Split, say: Callable[[str], None]) -> list[str]:
    """The distinct texts that do not occur in held-out pairs (validation or test)."""
    parts = (split.valid, split.test_in, split.test_out)
    held = {normalized_text(text) for part in parts for text in (*part.anchors, *part.positives)}
    distinct = list(dict.fromkeys(texts))
    unseen = [text for text in distinct if normalized_text(text) not in held]
    left_out = len(distinct) - len(unseen)
    beside = f" ({left_out:,} left out: they also occur in held-out pairs)" if left_out else ""
    say(f"more texts to learn from: {len(unseen):,}{beside}")
    return unseen


def _task(
    request: CompressRequest,
    split: Split,
    more: Sequence[str],
    folder: Path | None,
    say: Callable[[str], None],
) -> tuple[Any, Any]:
    from leanmatch.compression.planner.tasks import Classifying, Matching
    from leanmatch.runtime import TwinEncoders
    from leanmatch.training.selection.evaluator import encode_function

    if request.task == "match":
        model = load_matcher(request.model, device=request.device)
        _refuse_static(model, request.model)
        texts = _prompted(model, split.train, more)
        encoder_of = TwinEncoders(encode_function, say)
        matching = Matching(texts, split.valid, encoder_of=encoder_of, train=split.train, seed=request.seed)
        return model, matching
    if more:
        raise UsageError(
            "--texts are for --task match: a classifier learns from labelled texts",
            remedy="leave --texts out",
        )
    model, tokenizer = _load_classifier(request.model, folder, request.device)
    train, valid = split.train, split.valid
    labels = {str(name): int(number) for name, number in model.config.label2id.items()}
    task = Classifying(train.anchors, train.positives, (valid.anchors, valid.positives), labels, tokenizer)
    return model, task


def _prompted(model: Any, train: PairTable, more: Sequence[str]) -> list[str]:
    """The training texts as the model reads them, each with the prompt of its side; ``more`` with both.

    Raises:
        ModelError: the model leaves prompts out of its pooling, which the compressed model's runtime cannot.
    """
    from leanmatch.models import Prompts
    from leanmatch.models.adapter import pools_prompt

    prompts = Prompts.from_model(model)
    used = {"query": prompts.query, "document": prompts.document}
    if any(used.values()) and not pools_prompt(model):
        raise ModelError(
            f"the model has prompts ({used}) and leaves them out of its pooling (include_prompt), which a "
            "compressed model cannot",
            remedy='train a copy without prompts (leanmatch train --query-prompt "" --document-prompt "")',
        )
    return [
        *(prompts.query + text for text in train.anchors),
        *(prompts.document + text for text in train.positives),
        *(prompt + text for prompt in dict.fromkeys((prompts.query, prompts.document)) for text in more),
    ]


def _refuse_static(model: Any, name: str) -> None:
    from leanmatch.models.adapter import transformer_of

    if transformer_of(model) is None:
        kind = type(model[0]).__name__
        raise ModelError(
            f"{name} is a static encoder ({kind}): one table of rows, without layers to factor",
            remedy="it needs no multiply-adds; for fewer bytes use fewer dimensions or a smaller vocabulary",
        )


def _load_classifier(name: str, folder: Path | None, device: str) -> tuple[Any, Any]:
    if folder is None:
        raise UsageError(f"--task classify needs a model folder (found {name!r})")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from leanmatch.formats.quiet import quiet_bars

    try:
        with quiet_bars():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                str(folder), local_files_only=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # whatever the library raises at a damaged folder
        raise ModelError(
            f"{name} cannot be loaded as a sequence classifier: {str(error).splitlines()[0]:.200}",
            remedy="name a folder that AutoModelForSequenceClassification reads",
        ) from error
    if loading["missing_keys"]:
        raise ModelError(
            f"{name} is no trained classifier: it has no {sorted(loading['missing_keys'])[0]}",
            remedy="fine-tune it for the classes first, or use --task match",
        )
    return model.eval().to(resolve_device(device)), tokenizer


def _fingerprint(folder: Path) -> str:
    from leanmatch.formats import model_fingerprint

    return model_fingerprint(folder)
