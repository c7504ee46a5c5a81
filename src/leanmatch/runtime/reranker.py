"""Cross-encoders on the native kernels: a query and an item in one text, one score, without torch.

The graph is that of an encoder with the first token's vector and the classifier's two layers behind it. It
has no token types; they are in the words: of a model with two types the table holds every word twice, the
second time with ``types[1] - types[0]`` added, and the item's tokens take the second half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanmatch import native
from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.factorization import Dense, Factors
from leanmatch.formats.reader import find_model
from leanmatch.models import SentenceSettings, TorchReranker
from leanmatch.models.reranker import BATCH_PAIRS, PairModel, checked_scores
from leanmatch.runtime.architectures import UnsupportedError, read_sizes
from leanmatch.runtime.build import Knowledge, build_transformer, make_table, split_ranges
from leanmatch.runtime.encoder import usable_threads
from leanmatch.runtime.kernels.choice import Chooser
from leanmatch.runtime.kernels.paths import best_level, check_precision, quantize_rows
from leanmatch.runtime.modules import Layout, read_config, read_json
from leanmatch.runtime.tokenization import TextTokenizer, pack, read_tokenizer
from leanmatch.runtime.weights import (
    STOCK_FILE,
    Floats,
    StockWeights,
    open_safetensors,
    read_tensor,
)

RUNTIMES = ("auto", "native", "torch")


class ClassifierNames(NamedTuple):
    """The two layers behind the encoder: their full names, and the activation between them."""

    inner: str
    activation: str
    outer: str


CLASSIFIERS: Mapping[str, ClassifierNames] = MappingProxyType(
    {
        "bert": ClassifierNames("bert.pooler.dense", "tanh", "classifier"),
        "electra": ClassifierNames("classifier.dense", "gelu", "classifier.out_proj"),
        "roberta": ClassifierNames("classifier.dense", "tanh", "classifier.out_proj"),
        "xlm-roberta": ClassifierNames("classifier.dense", "tanh", "classifier.out_proj"),
        "camembert": ClassifierNames("classifier.dense", "tanh", "classifier.out_proj"),
        "distilbert": ClassifierNames("pre_classifier", "relu", "classifier"),
    }
)
"""Model types whose classifiers the runtime runs."""

ACTIVATIONS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = MappingProxyType(
    {"Sigmoid": lambda logits: 0.5 * (1 + np.tanh(0.5 * logits)), "Identity": lambda logits: logits}
)
"""What follows the classifier, by class of ``torch.nn``."""


class PairWeights(StockWeights):
    """The weights of a stock checkpoint, whose word table also has the words of the second token type."""

    def __init__(self, path: Path, file: Any, words: str, types: str | None) -> None:
        super().__init__(path, file, words)
        self._words, self._types = words, types
        self.rows = 0
        """Words of one type; 0 where there is one type alone."""
        if types is not None and self.has(types) and len(super().matrix(types).dense()) > 1:
            self.rows = super().matrix(words).shape[0]

    def matrix(self, module: str) -> Factors:
        """See :meth:`StockWeights.matrix`."""
        factors = super().matrix(module)
        if module != self._words or not self.rows:
            return factors
        table = factors.dense()
        types = super().matrix(str(self._types)).dense()
        return Dense(np.concatenate([table, table + (types[1] - types[0])]))


class NativeReranker(PairModel):
    """A loaded cross-encoder on the native kernels; make one with :func:`load_reranker`. Safe from threads.

    Attributes:
        name: the folder or name it was loaded from.
        precision: of its layers: float32, bfloat16 or int8.
        max_tokens: longest pair in tokens; of longer ones the longer text is cut.
    """

    def __init__(
        self,
        graph: Any,
        tokenizer: TextTokenizer,
        second: int,
        activation: str,
        *,
        name: str,
        precision: str,
        threads: int | None = None,
    ) -> None:
        """Use :func:`load_reranker`."""
        self._graph, self._tokenizer, self._second = graph, tokenizer, second
        self._activation, self._threads = ACTIVATIONS[activation], threads
        self.name, self.precision, self.max_tokens = name, precision, tokenizer.max_tokens

    def scores(self, pairs: Sequence[tuple[str, str]], batch_size: int = BATCH_PAIRS) -> NDArray[np.float64]:
        """How well each query and item go together, shape ``(pairs,)``, in the model's own scale.

        Raises:
            DataError: a text that is no text, or has half of a surrogate pair.
            ModelError: the model gives NaN or infinite numbers.
        """
        return checked_scores(self._activation(self.logits(pairs, batch_size)), len(pairs), self.name)

    def logits(self, pairs: Sequence[tuple[str, str]], batch_size: int = BATCH_PAIRS) -> NDArray[np.float64]:
        """See :class:`leanmatch.models.PairModel`; raises as :meth:`scores` does."""
        distinct: dict[tuple[str, str], int] = {}
        for pair in map(_checked, pairs):
            distinct.setdefault(pair, len(distinct))
        order = sorted(distinct, key=lambda pair: len(pair[0]) + len(pair[1]), reverse=True)
        logits = np.zeros(len(distinct))
        threads = usable_threads(self._threads)
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            ids, offsets = pack([self._ids(pair) for pair in self._encodings(chunk)])
            logits[[distinct[pair] for pair in chunk]] = self._graph.encode(ids, offsets, threads)[:, 0]
        return logits[[distinct[(query, item)] for query, item in pairs]]

    def _encodings(self, pairs: list[tuple[str, str]]) -> list[Any]:
        try:
            return list(self._tokenizer.tokenizer.encode_batch(pairs, add_special_tokens=True))
        except Exception as error:  # tokenizers raises plain Exception
            raise ModelError(
                f"the reranker's tokenizer fails on a pair: {error}",
                remedy="the model's folder is damaged: save or copy it again",
            ) from error

    def _ids(self, encoding: Any) -> list[int]:
        if not self._second:
            return list(encoding.ids)
        return [
            token + self._second * kind for token, kind in zip(encoding.ids, encoding.type_ids, strict=True)
        ]

    def __repr__(self) -> str:
        return f"NativeReranker({self.name!r}, precision={self.precision!r})"


def load_reranker(
    name_or_folder: str | Path,
    *,
    precision: str = "int8",
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> PairModel:
    """Load a cross-encoder of sentence-transformers with one label.

    Args:
        name_or_folder: a folder, or a name on the Hugging Face hub.
        precision: of the native runtime: ``stored``, ``float32``, ``bfloat16`` or ``int8``.
        runtime: ``native`` takes the native runtime or raises; ``torch`` takes sentence-transformers;
            ``auto`` takes the native runtime for the model types that it has code for, else the other.
        device: ``cpu`` or ``cuda`` for sentence-transformers there; ``auto`` leaves the choice.
        threads: of the native runtime; None for all cores that this process may use.

    Raises:
        ModelError: there is no such model, it is damaged, or has more than one label.
        UsageError: no such runtime or precision.
        MissingExtraError: sentence-transformers is needed and not installed.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"there is no runtime {runtime!r}", remedy=f"one of {', '.join(RUNTIMES)}")
    check_precision(precision)
    name = str(name_or_folder)
    if runtime == "torch" or (runtime == "auto" and device != "auto"):
        return TorchReranker.load(name, device)
    folder = find_model(name_or_folder)
    try:
        if folder is None:
            raise UnsupportedError(f"{name!r} is no folder here", remedy="name a folder")
        return _load_native(folder, name, precision, threads)
    except UnsupportedError:
        if runtime == "native":
            raise
        return TorchReranker.load(name if folder is None else str(folder), device)


def _load_native(folder: Path, name: str, precision: str, threads: int | None) -> NativeReranker:
    module, level = native.load(), best_level()
    config = read_config(folder / "config.json")
    classifier = CLASSIFIERS.get(str(config.get("model_type")))
    if classifier is None:
        raise UnsupportedError(
            f"the native runtime has no classifier of the type {config.get('model_type')!r:.40}",
            remedy=f"it has {', '.join(CLASSIFIERS)}",
        )
    activation = _activation(folder, config)
    architecture, sizes = read_sizes(config)
    chooser = Chooser(precision, level)
    path = folder / STOCK_FILE
    try:
        with open_safetensors(path) as file:
            types = architecture.types if _gives_types(folder) else None
            source = PairWeights(path, file, architecture.words, types)
            architecture = architecture.as_found(source.has, gated=sizes.gated)
            head = _head(path, file, classifier, level)
            knowledge = Knowledge(None, precision == "int8", {})
            fields = build_transformer(source, architecture, sizes, chooser, level, knowledge)
            if precision == "int8":
                fields["words"] = make_table(quantize_rows(source.matrix(architecture.words).dense()))
            fields |= {"rounds_attention": chooser.rounds, "pooling": ["cls"], "post": head}
            graph = module.Encoder(fields)
            layout = Layout(folder, folder, False, ("cls",), (), _most(folder), False, SentenceSettings())
            tokenizer = read_tokenizer(layout, config, graph.most_tokens or None)
            if chooser.wants_ranges:
                rows = source.rows or int(fields["words"].rows)
                measured = graph.input_ranges(*_probe(tokenizer, rows, source.rows))
                chooser.use_ranges(split_ranges(measured, architecture, sizes))
                knowledge = replace(knowledge, ranges=chooser.ranges)
                again = build_transformer(source, architecture, sizes, chooser, level, knowledge)
                graph = module.Encoder(fields | {"blocks": again["blocks"]})
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RuntimeError) as error:
        raise ModelError(
            f"{folder}: {type(error).__name__}: {error}"[:400],
            remedy="the folder's files do not belong together: save or copy it again",
        ) from error
    ran = "float32" if precision == "stored" else precision
    return NativeReranker(
        graph, tokenizer, source.rows, activation, name=name, precision=ran, threads=threads
    )


def _activation(folder: Path, config: Mapping[str, Any]) -> str:
    """The class that follows the classifier, found as sentence-transformers finds it; else Sigmoid."""
    stored = folder / "config_sentence_transformers.json"
    options = read_config(stored) if stored.is_file() else {}
    if options.get("default_prompt_name") is not None:
        raise UnsupportedError("the native runtime has no prompts of rerankers")
    older = config.get("sentence_transformers")
    named = (
        options.get("activation_fn")
        or (older.get("activation_fn") if isinstance(older, Mapping) else None)
        or config.get("sbert_ce_default_activation_function")
        or "Sigmoid"
    )
    kind = str(named).rpartition(".")[2]
    if kind not in ACTIVATIONS:
        raise UnsupportedError(f"the native runtime has no {named!r:.80} behind a classifier")
    modules = folder / "modules.json"
    if modules.is_file() and len(read_json(modules)) != 1:
        raise UnsupportedError("the native runtime has no further modules of rerankers")
    return kind


def _gives_types(folder: Path) -> bool:
    """Whether the folder's tokenizer tells the two texts apart, as transformers decides it."""
    file = folder / "tokenizer_config.json"
    options = read_config(file) if file.is_file() else {}
    names = options.get("model_input_names")
    if names is None:
        return options.get("tokenizer_class") not in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return "token_type_ids" in names


def _most(folder: Path) -> int | None:
    file = folder / "sentence_bert_config.json"
    most = read_config(file).get("max_seq_length") if file.is_file() else None
    return most if isinstance(most, int) and not isinstance(most, bool) else None


def _head(path: Path, file: Any, names: ClassifierNames, level: str) -> list[dict[str, Any]]:
    """The field ``post`` of ``_native.Encoder``."""
    out = []
    for name, activation in ((names.inner, names.activation), (names.outer, "none")):
        weight, bias = (_tensor(path, file, f"{name}.{last}") for last in ("weight", "bias"))
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise ModelError(f"{path}: {name}.weight of shape {weight.shape} does not fit its bias")
        layer = native.load().linear.dense_f32(level, weight, bias)
        out.append({"kind": "dense", "layer": [(0, layer, None)], "activation": activation})
    if len(bias) != 1:
        raise ModelError(
            f"{path} gives {len(bias)} scores a pair, a reranker gives one",
            remedy="name a cross-encoder with one label",
        )
    return out


def _tensor(path: Path, file: Any, name: str) -> Floats:
    if name not in file.keys():  # noqa: SIM118  (no mapping: a file that lists its tensors)
        raise ModelError(f"{path} lacks {name}", remedy="save it again as a cross-encoder")
    return read_tensor(path, file, name)


def _probe(tokenizer: TextTokenizer, vocabulary: int, second: int) -> tuple[Any, Any]:
    """Pairs of random words, of which outliers among a layer's inputs are measured."""
    rng = np.random.default_rng(0)
    first = min(2000, vocabulary // 4)  # what comes before are marks and single letters
    lists = [tokenizer.with_special(rng.integers(first, vocabulary, 22).tolist()) for _ in range(16)]
    return pack([[*ids[:12], *(token + second for token in ids[12:])] for ids in lists])


def _checked(pair: tuple[str, str]) -> tuple[str, str]:
    for text in pair:
        if not isinstance(text, str):
            raise DataError(f"a text is a {type(text).__name__}", value=text, remedy="give str")
        if any("\ud800" <= mark <= "\udfff" for mark in text):
            raise DataError(
                "a text holds half of a surrogate pair, which is no character",
                value=text,
                remedy="decode it from its bytes again",
            )
    return pair[0], pair[1]
