"""The user's task as the planner sees it: training texts, a loss, and a score on held-out pairs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from leanmatch.compression.distillation import embedding_loss, logit_loss, similarity_loss
from leanmatch.compression.layers import decoded_once
from leanmatch.compression.planner.evidence import Judgement, gather
from leanmatch.cpus import usable_cpus
from leanmatch.data.table import PairTable
from leanmatch.errors import DataError
from leanmatch.metrics import EvaluationOptions, RetrievalProbe
from leanmatch.metrics.pace import text_seconds
from leanmatch.metrics.ranking.candidates import decide_symmetric
from leanmatch.metrics.ranking.distractors import distractors
from leanmatch.metrics.slices import few_valued_columns, make_slices
from leanmatch.models import RoleEncoder
from leanmatch.models.adapter import evaluation_mode, on_device, tokenize
from leanmatch.types import EncodeFunction

MOST_PAIRS = 3000
"""At most so many held-out pairs are scored. More take time and did not change the choice."""
MOST_DISTRACTORS = 20_000
"""At most so many texts beside the held-out ones are searched."""
FEWEST_DISTRACTORS = 1000
"""So many are taken however long they take."""
FEWEST_QUERIES = 30
"""A slice with fewer queries is not reported: its interval would say nothing."""
SIMILARITY = 10.0
"""Strength of the loss on in-batch similarities; that on embeddings has 1."""
TEMPERATURE = 2.0
PARTS = 4
"""Parts into which a batch is divided, by the lengths of its texts."""
BATCH_BYTES = 2**31
"""Memory for the activations that a batch keeps for its gradients; :func:`tokens_of_a_pass` estimates it."""
SHORT = 128
"""Tokens of a text up to which plain attention has the faster gradients in bfloat16 on a CPU."""


class Task(Protocol):
    """A task of ``leanmatch compress``.

    Attributes:
        metric: name of the score.
        texts: distinct texts of the training part.
        tokenizer: of a model that is no ``SentenceTransformer``.
        slices: name to a mask of the held-out queries; quality is reported and judged for each.
        candidates: how many texts a query is searched among; None where nothing is searched.
    """

    metric: str
    texts: list[str]
    tokenizer: Any
    slices: Mapping[str, NDArray[np.bool_]]
    candidates: int | None

    def prepare(self, model: Any, seconds: float, former: int | None) -> int:
        """Decide once how large a search each model is judged by.

        Args:
            model: the dense one.
            seconds: that it may spend on texts beside the held-out ones.
            former: what an earlier call of the same run returned; it is kept.

        Returns:
            how many such texts there are.
        """

    def judge(self, model: Any) -> Judgement:
        """The metric of each held-out query or text, in the same order for every model, and their vectors."""

    def evidence(self, dense: Judgement, compressed: Judgement) -> dict[str, Any] | None:
        """Agreement of two models and what it says of the metric; None where the task has no vectors."""

    def loss(self, model: Any, teacher: Any, rows: NDArray[np.int64]) -> torch.Tensor:
        """The loss of a batch of texts, given by their row numbers."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What a resumed run needs to give the same bits; it is stored in checkpoints."""

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take what :meth:`state_dict` gave."""


class Matching:
    """Retrieval with a sentence encoder, trained to keep its vectors near the dense model's.

    Args:
        texts: the training part's, each with its prompt.
        held_out: pairs to judge on, a PairTable.
        metric: of :mod:`leanmatch.metrics`.
        encoder_of: makes the encode function that a model is judged with, and that the dense model teaches
            with; :class:`leanmatch.runtime.TwinEncoders` makes fast ones.
        train: brings texts that are searched beside the held-out ones, up to :data:`MOST_DISTRACTORS`
            (:mod:`leanmatch.metrics.ranking.distractors`); None leaves the held-out ones alone.
        seed: of their choice.

    Raises:
        DataError: no texts, or no matching pair of two different texts.
    """

    def __init__(
        self,
        texts: Sequence[str],
        held_out: PairTable,
        metric: str = "MRR@10",
        *,
        encoder_of: Callable[[Any], EncodeFunction] | None = None,
        train: PairTable | None = None,
        seed: int = 0,
    ) -> None:
        self._encoder_of = encoder_of
        self._teacher: EncodeFunction | None = None
        self.metric, self.tokenizer = metric, None
        self.texts = list(dict.fromkeys(texts))
        if len(self.texts) < 2:
            raise DataError(
                f"there are {len(self.texts)} texts to learn from", remedy="give more training rows"
            )
        if len(held_out) > MOST_PAIRS:
            rows = np.random.default_rng(0).choice(len(held_out), MOST_PAIRS, replace=False)
            held_out = held_out.take(np.sort(rows))
        self._held_out, self._pool, symmetric = held_out, list[str](), decide_symmetric(held_out).symmetric
        self._symmetric = symmetric
        if train is not None:
            self._pool = distractors(train, held_out, symmetric=symmetric, most=MOST_DISTRACTORS, seed=seed)
            self._held_out = PairTable(
                held_out.to_arrow(), source=held_out.source
            )  # the corpus is in the pool
        self._probe = self._probe_among(len(self._pool))
        self.slices = self._few_valued_slices(held_out)
        self._vectors: torch.Tensor | None = None
        self._encoded = np.zeros(len(self.texts), dtype=bool)

    @property
    def candidates(self) -> int:
        """How many texts a query is searched among."""
        return self._probe.candidates

    def prepare(self, model: Any, seconds: float, former: int | None) -> int:
        """Take as many distractors as the dense model encodes in ``seconds`` on this machine when it is idle.

        Processor time is measured: a busy machine gives a longer check, not a more lenient one.
        """
        count = len(self._pool) if former is None else former
        if former is None and seconds < math.inf and count > FEWEST_DISTRACTORS:
            encode = RoleEncoder(self._encoder(model)).encode_document
            each = text_seconds(encode, self._pool, time.process_time) / usable_cpus()
            count = min(count, max(FEWEST_DISTRACTORS, int(seconds / max(each, 1e-9))))
        self._probe = self._probe_among(count)
        return count

    def _probe_among(self, count: int) -> RetrievalProbe:
        further = self._pool[:count]
        return RetrievalProbe(self._held_out, self.metric, symmetric=self._symmetric, distractors=further)

    def _few_valued_slices(self, held_out: Any) -> dict[str, NDArray[np.bool_]]:
        """The values of columns with few of them, where they have enough queries and are not all."""
        options = EvaluationOptions(slices=few_valued_columns(held_out))
        slices = {}
        for part in make_slices(held_out, options)[1:]:
            queries = self._probe.queries_of(part.rows)
            if queries.sum() >= FEWEST_QUERIES and not queries.all():
                slices[part.name] = queries
        return slices

    def judge(self, model: Any) -> Judgement:
        """Reciprocal rank (or whatever the metric is) of each held-out anchor."""
        with evaluation_mode(model), torch.no_grad():
            vectors = self._probe.vectors(self._encoder(model))
        return Judgement(self._probe.values(vectors), vectors)

    def evidence(self, dense: Judgement, compressed: Judgement) -> dict[str, Any] | None:
        """:func:`leanmatch.compression.planner.evidence.gather`."""
        probe = self._probe
        return gather(dense, compressed, probe.values, probe.neighbours, self.slices, probe.own)

    def _encoder(self, model: Any) -> Any:
        return RoleEncoder(model, batch_size=64) if self._encoder_of is None else self._encoder_of(model)

    def loss(self, model: Any, teacher: Any, rows: NDArray[np.int64]) -> torch.Tensor:
        """``mean(1 - cos(s, t))`` plus the in-batch similarities' squared error."""
        target = self._targets(teacher, rows)
        student = self._vectors_of(model, rows)
        target = target.to(student.device)
        return embedding_loss(student, target) + SIMILARITY * similarity_loss(student, target)

    def _vectors_of(self, model: Any, rows: NDArray[np.int64]) -> torch.Tensor:
        """Sentence vectors, in the dimensions that the model keeps (``truncate_dim``)."""

        def vectors_of(part: NDArray[np.int64]) -> torch.Tensor:
            features = self._features(model, part)
            return in_passes(model, features, lambda some: model(some)["sentence_embedding"])

        vectors = by_length(model, rows, self.texts, vectors_of)
        return vectors[:, : model.truncate_dim]

    def _features(self, model: Any, rows: NDArray[np.int64]) -> dict[str, Any]:
        return on_device(tokenize(model, [self.texts[row] for row in rows]), model)

    @torch.no_grad()
    def _targets(self, teacher: Any, rows: NDArray[np.int64]) -> torch.Tensor:
        """The dense model's vectors; each text's is computed once."""
        unknown = rows[~self._encoded[rows]]
        if unknown.size:
            vectors = self._taught(teacher, unknown)
            if self._vectors is None:
                self._vectors = torch.zeros(len(self.texts), vectors.shape[1])
            self._vectors[torch.from_numpy(unknown)] = vectors
            self._encoded[unknown] = True
        assert self._vectors is not None
        return self._vectors[torch.from_numpy(rows)]

    def _taught(self, teacher: Any, rows: NDArray[np.int64]) -> torch.Tensor:
        prompted = getattr(teacher, "default_prompt_name", None) is not None  # features have no prompt
        if self._encoder_of is None or prompted or teacher.device.type != "cpu":
            return self._vectors_of(teacher, rows).float().cpu()
        if self._teacher is None:
            with torch.autocast(teacher.device.type, enabled=False):  # it is compared with torch in float32
                self._teacher = self._encoder_of(teacher)
        return torch.from_numpy(np.array(self._teacher([self.texts[row] for row in rows]), np.float32))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The dense model's vectors so far; their last bits depend on the batch they were computed in."""
        if self._vectors is None:
            return {}
        encoded = torch.from_numpy(np.flatnonzero(self._encoded))
        return {"known": encoded, "vectors": self._vectors[encoded]}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take the vectors that :meth:`state_dict` gave."""
        if state:
            self._vectors = torch.zeros(len(self.texts), state["vectors"].shape[1])
            self._vectors[state["known"]] = state["vectors"]
            self._encoded[:] = False
            self._encoded[state["known"].numpy()] = True


class Classifying:
    """Classes of texts with a sequence classifier: labels, and the dense model's scores.

    Args:
        texts, classes: the training part's.
        held_out: texts and classes to judge on.
        labels: class name to number, as the model's configuration has it.
        tokenizer: the model's.
        length: most tokens of a text.

    Raises:
        DataError: no texts, or a class that the model does not know.
    """

    def __init__(
        self,
        texts: Sequence[str],
        classes: Sequence[str],
        held_out: tuple[Sequence[str], Sequence[str]],
        labels: Mapping[str, int],
        tokenizer: Any,
        length: int = 128,
    ) -> None:
        if len(texts) < 2 or not held_out[0]:
            raise DataError(
                f"there are {len(texts)} texts to learn from and {len(held_out[0])} to judge on",
                remedy="give more rows, or a split column with train and valid rows",
            )
        self.metric, self.tokenizer, self._length = "accuracy", tokenizer, length
        self.candidates = None
        self.slices: dict[str, NDArray[np.bool_]] = {}
        self.texts = list(texts)
        self._classes = torch.tensor([class_number(name, labels) for name in classes])
        self._held_out = list(held_out[0])
        self._wanted = np.array([class_number(name, labels) for name in held_out[1]])

    def judge(self, model: Any) -> Judgement:
        """1 for each held-out text whose best class is its own, else 0."""
        order = sorted(range(len(self._held_out)), key=lambda row: len(self._held_out[row]))
        best = np.zeros(len(order), dtype=np.int64)
        with evaluation_mode(model), torch.no_grad():
            for start in range(0, len(order), 64):
                rows = order[start : start + 64]
                logits = model(**self._features([self._held_out[row] for row in rows], model)).logits
                best[rows] = logits.argmax(1).cpu().numpy()
        return Judgement((best == self._wanted).astype(np.float64))

    def prepare(self, model: Any, seconds: float, former: int | None) -> int:
        """Nothing is searched."""
        return 0

    def evidence(self, dense: Judgement, compressed: Judgement) -> None:
        """Classes have no vectors."""

    def loss(self, model: Any, teacher: Any, rows: NDArray[np.int64]) -> torch.Tensor:
        """Half cross-entropy of the labels, half that of the dense model's softened scores."""
        logits = self._logits_of(model, rows)
        with torch.no_grad():
            target = self._logits_of(teacher, rows)
        wanted = self._classes[torch.from_numpy(rows)].to(logits.device)
        own = torch.nn.functional.cross_entropy(logits.float(), wanted)
        return 0.5 * own + 0.5 * logit_loss(logits, target, TEMPERATURE)

    def _logits_of(self, model: Any, rows: NDArray[np.int64]) -> torch.Tensor:
        def logits_of(part: NDArray[np.int64]) -> torch.Tensor:
            features = self._features([self.texts[row] for row in part], model)
            return in_passes(model, features, lambda some: model(**some).logits)

        return by_length(model, rows, self.texts, logits_of)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Nothing: a loss depends on its own batch alone."""
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Nothing is needed."""

    def _features(self, texts: list[str], model: Any) -> Any:
        device = next(iter((*model.parameters(), *model.buffers()))).device
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self._length, return_tensors="pt"
        )
        return tokens.to(device)


def by_length(
    model: Any,
    rows: NDArray[np.int64],
    texts: Sequence[str],
    outputs_of: Callable[[NDArray[np.int64]], torch.Tensor],
) -> torch.Tensor:
    """``outputs_of(rows)``, computed in :data:`PARTS` parts of like length, so that little is padding.

    ``rows`` are numbers of ``texts``; the outputs keep their order.
    """
    order = np.argsort([len(texts[row]) for row in rows], kind="stable")
    parts = [rows[part] for part in np.array_split(order, PARTS) if len(part)]
    with decoded_once(model):
        outputs = torch.cat([outputs_of(part) for part in parts])
    return outputs[torch.from_numpy(np.argsort(order)).to(outputs.device)]


def in_passes(
    model: Any, features: Mapping[str, Any], forward: Callable[[dict[str, Any]], torch.Tensor]
) -> torch.Tensor:
    """``forward(features)`` in bounded memory.

    Texts with more tokens than :func:`tokens_of_a_pass` go in several passes. Each runs once for its outputs,
    and once more, alone, for its gradients. Both are those of a single pass, but for the last bits.
    ``forward`` must not draw random numbers.
    """
    mask = features.get("attention_mask")
    if mask is None or not torch.is_grad_enabled():
        return forward(dict(features))
    each = max(1, tokens_of_a_pass(model) // mask.shape[1])
    if len(mask) <= each:
        with attention_for(mask):
            return forward(dict(features))

    def run(begin: int) -> torch.Tensor:
        end = begin + each
        part = {n: v[begin:end] if isinstance(v, torch.Tensor) else v for n, v in features.items()}
        with attention_for(mask), decoded_once(model, again=True):
            return forward(part)

    begins = range(0, len(mask), each)
    parts = [checkpoint(run, begin, use_reentrant=False, preserve_rng_state=False) for begin in begins]
    return torch.cat(parts)


def attention_for(mask: torch.Tensor) -> AbstractContextManager[None]:
    """Plain attention for short texts in bfloat16 on a CPU, where PyTorch's fused one has slow gradients.

    A layer of MiniLM with 64 texts of 16 tokens takes 9 ms there and back instead of 55.
    """
    slow = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if slow and mask.device.type == "cpu" and mask.shape[1] <= SHORT:
        context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
        return context
    return nullcontext()


def tokens_of_a_pass(model: Any) -> int:
    """Most tokens of a pass, padding included: each part of a batch may use ``BATCH_BYTES / PARTS``.

    A token is taken to need the inputs and outputs of all linear layers, twice, in float32.
    """
    layers = [module for module in model.modules() if hasattr(module, "in_features")]
    floats: int = 2 * sum(layer.in_features + layer.out_features for layer in layers)
    return max(1, BATCH_BYTES // max(1, PARTS * 4 * floats))


def class_number(name: str, labels: Mapping[str, int]) -> int:
    """The model's number of a class: its name in the configuration, or the number itself.

    Raises:
        DataError: the model has no such class.
    """
    if name in labels:
        return labels[name]
    if name.isdigit() and int(name) in labels.values():
        return int(name)
    shown = ", ".join(list(labels)[:8])
    raise DataError("the model has no such class", value=name, remedy=f"it has {shown}, ... ({len(labels)})")
