"""``leanmatch.load``: a model folder to a :class:`NativeEncoder` on the native runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np

from leanmatch import native
from leanmatch.errors import ModelError, UsageError
from leanmatch.formats.artifact import is_artifact
from leanmatch.formats.artifact.reader import read_artifact
from leanmatch.formats.provenance import read_provenance
from leanmatch.formats.reader import load_encoder, model_folder, read_compressed_matcher
from leanmatch.models import SentenceEncoder
from leanmatch.models.architectures import Architecture
from leanmatch.runtime.architectures import Sizes, UnsupportedError, read_sizes
from leanmatch.runtime.build import (
    Knowledge,
    PackLayer,
    PackTable,
    build_static,
    build_transformer,
    make_table,
    range_shapes,
    split_ranges,
)
from leanmatch.runtime.encoder import NativeEncoder
from leanmatch.runtime.fallback import fall_back
from leanmatch.runtime.heads import PackDense, build_heads
from leanmatch.runtime.kernels.choice import Chooser
from leanmatch.runtime.kernels.paths import best_level, check_precision, quantize_rows
from leanmatch.runtime.kernels.ranges import Ranges, cache_file, read_ranges, short, write_ranges
from leanmatch.runtime.modules import Layout, read_config, read_layout
from leanmatch.runtime.tokenization import TextTokenizer, longest_text, pack, read_tokenizer
from leanmatch.runtime.weights import (
    STOCK_FILE,
    CompressedWeights,
    Floats,
    StockWeights,
    Weights,
    open_safetensors,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TokenizerOf: TypeAlias = Callable[[Layout, dict[str, Any], int | None], TextTokenizer]
RUNTIMES = ("auto", "native", "torch", "transformers")


@overload
def load(
    name_or_folder: str | Path,
    *,
    precision: str = ...,
    runtime: Literal["auto", "native", "torch"] = ...,
    device: str = ...,
    revision: str | None = ...,
    truncate_dim: int | None = ...,
) -> SentenceEncoder: ...


@overload
def load(
    name_or_folder: str | Path,
    *,
    precision: str = ...,
    runtime: Literal["transformers"],
    device: str = ...,
    revision: str | None = ...,
) -> PreTrainedModel: ...


def load(
    name_or_folder: str | Path,
    *,
    precision: str = "stored",
    runtime: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    truncate_dim: int | None = None,
) -> SentenceEncoder | PreTrainedModel:
    """Load a model for encoding; without torch, where the native runtime knows the model.

    The runtime runs folders of ``leanmatch compress`` and ``leanmatch train`` and stock sentence-transformers
    folders: the encoders of :data:`leanmatch.models.architectures.ARCHITECTURES` (BERT and its kin, MPNet,
    ModernBERT, GTE, Nomic, Jina v3, EuroBERT, T5) with any pooling, Dense, LayerNorm and Normalize modules
    behind it, and static embeddings.

    Args:
        name_or_folder: a folder, the name of a packaged model, or a name on the Hugging Face hub.
        precision: of the native runtime, a key of :data:`leanmatch.runtime.PRECISIONS`.
        runtime: ``native`` takes the native runtime or raises; ``torch`` takes sentence-transformers.
            ``auto`` takes the native runtime; a model that it cannot run goes to sentence-transformers, and a
            warning says why. ``transformers`` is for a compressed classifier or question answering model,
            and gives the model itself.
        device: ``cpu`` or ``cuda`` for torch there (``runtime`` ``auto`` then means ``torch``); ``auto``
            leaves the choice. The native runtime is for CPUs.
        revision: branch, tag or commit of a model on the hub; the main branch by default.
        truncate_dim: leading dimensions of the vectors to keep, for models that were trained for it
            (Matryoshka); None for what the folder says, which is mostly all.

    A model on the hub is downloaded once. Without a network the downloaded copy is used; a branch or tag is
    looked up each time, a commit only the first time.

    Raises:
        ModelError: the model does not exist, is damaged, or runs on neither runtime.
        FormatError: a compressed model that is damaged.
        UsageError: no such runtime, precision or device; a precision together with ``torch``; a precision
            that this CPU lacks; a revision of what is no model on the hub; a ``truncate_dim`` below 1.
        NativeError: the compiled extension does not load.
        MissingExtraError: sentence-transformers is needed and not installed.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"there is no runtime {runtime!r}", remedy=f"one of {', '.join(RUNTIMES)}")
    check_precision(precision)
    if runtime == "transformers":
        return _load_transformers(model_folder(name_or_folder, revision), precision, device)
    encoder = _load_encoder(name_or_folder, precision, runtime, device, revision)
    if truncate_dim is not None:
        encoder.truncate_dim = truncate_dim
    return encoder


def _load_encoder(
    name_or_folder: str | Path, precision: str, runtime: str, device: str, revision: str | None
) -> SentenceEncoder:
    if runtime == "torch" or (runtime == "auto" and device != "auto"):
        if precision != "stored":
            raise UsageError(
                f"precision {precision!r} with sentence-transformers, which has no choice of it",
                remedy="leave out the precision, or the runtime and the device",
            )
        return load_encoder(name_or_folder, device, revision=revision)
    if runtime == "native" and device not in ("auto", "cpu"):
        raise UsageError(f"the native runtime on device {device!r}", remedy="it runs on CPUs only")
    folder = model_folder(name_or_folder, revision)
    try:
        return load_native(folder, name=str(name_or_folder), precision=precision)
    except UnsupportedError as error:
        if runtime == "native":
            raise
        return fall_back(name_or_folder, error, revision=revision)


def _load_transformers(folder: Path, precision: str, device: str) -> PreTrainedModel:
    from leanmatch.formats.artifact.loader import build

    artifact = read_artifact(folder)
    if artifact.task == "matcher" or precision != "stored":
        raise UsageError(
            f"{folder} holds a model for the task {artifact.task!r}, with precision {precision!r} for "
            "the runtime 'transformers'",
            remedy="leave out the runtime for a matcher, and the precision for any other model",
        )
    model: PreTrainedModel = build(artifact, device)
    return model


def load_timed(name_or_folder: str | Path, *, precision: str = "stored") -> NativeEncoder:
    """:func:`load` without a fallback, with the times of every path in ``choices``: takes longer."""
    return load_native(
        model_folder(name_or_folder),
        name=str(name_or_folder),
        precision=check_precision(precision),
        timed=True,
    )


@dataclass(frozen=True)
class OpenModel:
    """A model folder whose weights can be read.

    Attributes:
        layout: its modules.
        config: the transformer's ``config.json``; {} for a static embedding.
        source: the weights.
        compressed: the folder is an artifact of ``leanmatch compress``.
        architecture: None for a static embedding.
        sizes: likewise.
    """

    layout: Layout
    config: dict[str, Any]
    source: Weights
    compressed: bool
    architecture: Architecture | None = None
    sizes: Sizes | None = None

    @property
    def words(self) -> str:
        """Module of the word embeddings."""
        if self.architecture is not None:
            return self.architecture.words
        names = ("embedding", "module0.embedding")
        return next((name for name in names if self.source.has(name)), names[0])

    @property
    def range_shapes(self) -> dict[str, tuple[int, int]]:
        """The shapes of the ranges that :func:`input ranges <leanmatch.runtime.build.split_ranges>` are."""
        if self.architecture is None or self.sizes is None:
            return {}
        return range_shapes(self.architecture, self.sizes)

    def transformer(
        self,
        pack: PackLayer,
        level: str,
        precision: str,
        ranges: Mapping[str, Floats],
        table: PackTable = make_table,
    ) -> dict[str, Any]:
        """:func:`leanmatch.runtime.build.build_transformer`, or ``build_static``, of this model."""
        if self.architecture is None or self.sizes is None:
            return build_static(self.source.matrix(self.words), level, table)
        known = Knowledge(longest_text(self.layout, self.config), precision == "int8", ranges)
        return build_transformer(self.source, self.architecture, self.sizes, pack, level, known, table)

    def ends(self, level: str, pack: PackDense | None = None) -> dict[str, Any]:
        """The fields of what follows the transformer: pooling and heads."""
        heads = build_heads(self.layout, self.source if self.compressed else None, level, pack)
        return {"pooling": list(self.layout.pooling), "post": heads}


def open_model(folder: Path, files: ExitStack) -> OpenModel:
    """Read what a folder holds; ``files`` closes what is opened.

    Raises:
        UnsupportedError, ModelError, FormatError: as :func:`load`.
    """
    layout, compressed = read_layout(folder), is_artifact(folder)
    if layout.is_static:
        return OpenModel(layout, {}, _source(folder, layout, None, files), compressed)
    config = read_config(layout.transformer / "config.json")
    architecture, sizes = read_sizes(config)
    source = _source(folder, layout, architecture, files)
    architecture = architecture.as_found(source.has, gated=sizes.gated)
    return OpenModel(layout, config, source, compressed, architecture, sizes)


def load_native(
    folder: Path,
    *,
    name: str,
    precision: str = "stored",
    timed: bool = False,
    tokenizer_of: TokenizerOf = read_tokenizer,
) -> NativeEncoder:
    """Load a folder on the native runtime or not at all.

    Args:
        folder: the model's.
        name: what the encoder is called.
        precision: as :func:`load`.
        timed: time every path that could run each layer, for ``choices``; it changes none of them.
        tokenizer_of: reads the folder's tokenizer; :class:`leanmatch.runtime.tokenization.KnownTokenizer`
            keeps it for the next folder.

    Raises:
        UnsupportedError: the runtime has no code for it.
        ModelError, FormatError, UsageError, NativeError: as :func:`load`.
    """
    return load_with_ranges(folder, name=name, precision=precision, timed=timed, tokenizer_of=tokenizer_of)[0]


def load_with_ranges(
    folder: Path,
    *,
    name: str,
    precision: str = "stored",
    timed: bool = False,
    tokenizer_of: TokenizerOf = read_tokenizer,
) -> tuple[NativeEncoder, Ranges]:
    """:func:`load_native`, and the ranges of inputs by which 8-bit layers round; {} for other layers."""
    module = native.load()
    level = best_level()
    chooser = Chooser(check_precision(precision), level, timed=timed)
    cache: Path | None = None
    try:
        with ExitStack() as files:
            model = open_model(folder, files)
            is_transformer = model.architecture is not None
            if is_transformer and (model.compressed or precision == "int8"):
                # layers that may round by the ranges of their inputs
                cache = cache_file(folder, precision, level)
                chooser.ranges = read_ranges(cache, model.range_shapes)
            fields = model.transformer(chooser, level, precision, chooser.ranges)
            if precision == "int8" and not model.compressed:
                fields["words"] = None  # the float32 table makes room
                fields["words"] = make_table(quantize_rows(model.source.matrix(model.words).dense()))
            fields["rounds_attention"] = chooser.rounds
            fields |= model.ends(level)
            graph = module.Encoder(fields)
            tokenizer = tokenizer_of(model.layout, model.config, graph.most_tokens or None)
            if model.architecture is not None and model.sizes is not None and chooser.wants_ranges:
                measured = graph.input_ranges(*_probe(tokenizer, fields["words"].rows))
                ranges = short(split_ranges(measured, model.architecture, model.sizes))
                write_ranges(cache, ranges)
                chooser.use_ranges(ranges)
                again = model.transformer(chooser, level, precision, chooser.ranges)
                graph = module.Encoder(fields | {"blocks": again["blocks"]})
        provenance = read_provenance(folder)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RuntimeError) as error:
        # A shape that does not fit its neighbours (std::invalid_argument), or JSON of another form.
        raise ModelError(
            f"{folder}: {error if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'}",
            remedy="the folder's files do not belong together: save or copy it again",
        ) from error
    encoder = NativeEncoder(
        graph,
        tokenizer,
        settings=model.layout.settings,
        pools_prompt=model.layout.pools_prompt,
        name=name,
        folder=folder,
        precision="compressed" if model.compressed and precision == "stored" else _named(precision),
        provenance=provenance,
        choices=chooser.choices,
        vocabulary=int(fields["words"].rows),
    )
    return encoder, dict(chooser.ranges)


def _source(folder: Path, layout: Layout, architecture: Architecture | None, files: ExitStack) -> Weights:
    """The weights of a compressed or of a stock folder; ``files`` closes what is opened."""
    if is_artifact(folder):
        return CompressedWeights(read_compressed_matcher(folder))
    path = layout.transformer / STOCK_FILE
    words = () if architecture is None else (architecture.words,)
    return StockWeights(path, files.enter_context(open_safetensors(path)), *words)


def _probe(tokenizer: TextTokenizer, vocabulary: int) -> tuple[Any, Any]:
    """Texts of random words: outliers among a layer's inputs lie where those of real texts lie."""
    rng = np.random.default_rng(0)
    first = min(2000, vocabulary // 4)  # what comes before are marks and single letters
    return pack([tokenizer.with_special(rng.integers(first, vocabulary, 22).tolist()) for _ in range(16)])


def _named(precision: str) -> str:
    return "float32" if precision == "stored" else precision
