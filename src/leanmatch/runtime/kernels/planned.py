"""What a model would take here in time: its layers in planned forms, with random weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch import cpus, native
from leanmatch.compression.layer_specs import LayerSpec, RoundingSpec
from leanmatch.compression.planner.clock import Shapes, Workload
from leanmatch.errors import FormatError
from leanmatch.factorization import Factors
from leanmatch.runtime.architectures import Sizes, UnsupportedError, read_sizes
from leanmatch.runtime.build import Knowledge, build_transformer, make_table, range_shapes
from leanmatch.runtime.kernels.choice import Chooser
from leanmatch.runtime.kernels.clock import NOISY, Form, KernelClock, kernel_cache, typical_inputs
from leanmatch.runtime.kernels.paths import best_level
from leanmatch.runtime.kernels.random_factors import random_factors
from leanmatch.runtime.weights import Floats

if TYPE_CHECKING:
    from leanmatch.formats.artifact import Artifact
    from leanmatch.runtime.encoder import NativeEncoder

ROUNDS = 21
MOST_ROUNDS = 1000
SECONDS = 0.5
"""Time that a comparison of whole models takes at least."""


@dataclass(frozen=True)
class PlannedWeights:
    """Random weights of a transformer in the forms that a plan gives them.

    Attributes:
        shapes: of all parameters, by name inside the transformer.
        specs: of compressed modules, by name inside the transformer; others are dense.
    """

    shapes: Mapping[str, tuple[int, ...]]
    specs: Mapping[str, LayerSpec] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Is there such a module or tensor?"""
        return name in self.shapes or f"{name}.weight" in self.shapes

    def matrix(self, module: str) -> Factors:
        """Random factors in the planned form."""
        m, n = self.shapes[f"{module}.weight"]
        return random_factors(self.specs.get(module), m, n)

    def vector(self, tensor: str) -> Floats | None:
        """Ones for weights of norms, zeros for the rest."""
        shape = self.shapes.get(tensor)
        if shape is None:
            return None
        return np.ones(shape, np.float32) if tensor.endswith("weight") else np.zeros(shape, np.float32)


class MachineClock:
    """Times of one model's layers, and of the whole of it, in any planned form; one core.

    Args:
        config: the transformer's ``config.json``.
        shapes: of its parameters, by name inside the transformer.
        workload: texts and tokens of a call.
        encoder_layers: of the dense model, where the configuration is that of one with fewer.
        kernels: times layers; one with the user's cache if left out.
        clock: seconds; processor time of this thread counts what runs, not what it waits for.

    Raises:
        UnsupportedError: the runtime has no code for the model, or its encoder layers share weights.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        workload: Workload,
        *,
        encoder_layers: int | None = None,
        kernels: KernelClock | None = None,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        architecture, self._sizes = read_sizes(config)
        if self._sizes.order != tuple(range(self._sizes.blocks)):
            raise UnsupportedError("time is not planned for a model whose layers share weights")
        self.workload, self._clock = workload, clock
        self._sizes = self._sized(encoder_layers)
        has = PlannedWeights(shapes).has
        self._architecture = architecture.as_found(has, gated=self._sizes.gated)
        self._shapes = _with_layers(shapes, self._architecture.block, self._sizes.blocks)
        tokens = min(native.load().TILE_TOKENS, workload.texts * workload.tokens)
        self._kernels = kernels or KernelClock(tokens, folder=kernel_cache())
        self._rest: tuple[float, float] | None = None
        self._spread = 0.0

    @property
    def machine(self) -> dict[str, Any]:
        """What the times hold for, and how far repeated measurements differed."""
        spread = max(self._spread, self._kernels.spread)
        return {
            "cpu": cpus.cpu_name(),
            "level": best_level(),
            "spread": round(spread, 3),
            "noisy": spread > NOISY,
        }

    def layer_seconds(self, options: Sequence[tuple[Shapes, LayerSpec]]) -> list[float]:
        """Seconds a text of layers that read one input, in the form of a specification."""
        forms = [Form(shapes, spec) for shapes, spec in options]
        self._kernels.measure(forms)
        texts = self._kernels.tokens / self.workload.tokens
        return [self._kernels.seconds(form) / texts for form in forms]

    def rest_seconds(self, encoder_layers: int, linear: Sequence[Shapes]) -> float:
        """Seconds a text of everything but linear layers, with so many encoder layers.

        Args:
            encoder_layers: how many.
            linear: the shapes of the linear layers of one encoder layer, by their input.
        """
        if self._rest is None:
            few, many = 1, max(2, self._sizes.blocks)
            short, long = self.compare([self.int8(few), self.int8(many)])
            block = (long - short) / (many - few)
            layers = sum(self.layer_seconds([(shapes, RoundingSpec()) for shapes in linear]))
            self._rest = max(0.0, short - block), max(0.0, block - layers)
        outside, inside = self._rest
        return outside + encoder_layers * inside

    def int8(self, encoder_layers: int | None = None) -> Any:
        """The uncompressed model at ``precision="int8"``, as a native encoder."""
        sizes = self._sized(encoder_layers)
        words = self._architecture.words
        fields = self._build(PlannedWeights(self._shapes), "int8", sizes)
        fields["words"] = make_table(random_factors(RoundingSpec(), *self._shapes[f"{words}.weight"]))
        return native.load().Encoder(fields)

    def planned(self, specs: Mapping[str, LayerSpec], encoder_layers: int) -> Any:
        """A model in planned forms, as a native encoder.

        Args:
            specs: by name inside the transformer, numbered as in the model that remains.
            encoder_layers: how many remain.
        """
        fields = self._build(PlannedWeights(self._shapes, specs), "stored", self._sized(encoder_layers))
        return native.load().Encoder(fields)

    def faster(self, specs: Mapping[str, LayerSpec], encoder_layers: int) -> float:
        """How many times as fast a planned model runs as :meth:`int8`, in turns."""
        dense, planned = self.compare([self.int8(), self.planned(specs, encoder_layers)])
        return dense / planned

    def compare(self, encoders: Sequence[Any]) -> list[float]:
        """Seconds a text of each: medians of rounds in which they take turns, in ratio to the first."""
        tokens = self.workload.tokens
        # The encoder works in groups of so many tokens: a call of more would only repeat them.
        texts = min(max(1, native.load().GROUP_TOKENS // tokens), self.workload.texts)
        rng = np.random.default_rng(0)
        ids = rng.integers(0, self._vocabulary, texts * tokens, dtype=np.int32)
        offsets = np.arange(texts + 1, dtype=np.int64) * tokens
        for encoder in encoders:
            encoder.encode(ids, offsets, 1)
        rounds: list[list[float]] = []
        while len(rounds) < ROUNDS or (sum(map(sum, rounds)) < SECONDS and len(rounds) < MOST_ROUNDS):
            row = []
            for encoder in encoders:
                at = self._clock()
                encoder.encode(ids, offsets, 1)
                row.append(self._clock() - at)
            rounds.append(row)
        first = statistics.median(row[0] for row in rounds) / texts
        ratios = [[row[at] / row[0] for row in rounds] for at in range(len(encoders))]
        for ratio in ratios[1:]:
            low, middle, high = statistics.quantiles(ratio, n=4)
            self._spread = max(self._spread, (high - low) / middle)
        return [first * statistics.median(ratio) for ratio in ratios]

    @property
    def _vocabulary(self) -> int:
        return self._shapes[f"{self._architecture.words}.weight"][0]

    def _sized(self, encoder_layers: int | None) -> Sizes:
        count = self._sizes.blocks if encoder_layers is None else encoder_layers
        repeats = -(-count // len(self._sizes.thetas))  # windows and positions alternate from layer to layer
        return replace(
            self._sizes,
            blocks=count,
            order=tuple(range(count)),
            thetas=(self._sizes.thetas * repeats)[:count],
            windows=(self._sizes.windows * repeats)[:count],
        )

    def _build(self, weights: PlannedWeights, precision: str, sizes: Sizes) -> dict[str, Any]:
        shapes = range_shapes(self._architecture, sizes)
        ranges = {}
        for name, (_, n) in shapes.items():
            reach = typical_inputs(n).ranges
            assert reach is not None
            ranges[name] = np.stack([-reach, reach])
        known = Knowledge(512, precision == "int8", ranges)
        chooser = Chooser(precision, best_level())
        fields = build_transformer(weights, self._architecture, sizes, chooser, best_level(), known)
        return fields | {"rounds_attention": chooser.rounds, "pooling": ["mean"], "post": []}


def worth_here(artifact: Artifact, encoder: NativeEncoder) -> dict[str, Any] | None:
    """What a compressed model that was planned on some machine is worth on this one.

    Args:
        artifact: the folder's content.
        encoder: the same model on the native runtime.

    Returns:
        ``planned`` (CPU, level, workload and ``faster`` as recorded) and ``here`` (the same, measured now);
        ``faster`` is how many times as fast as int8 of the uncompressed model it is. None where no machine
        was recorded, or the runtime cannot time the model.
    """
    planned = artifact.provenance.get("machine")
    if not isinstance(planned, Mapping):
        return None
    shapes: dict[str, tuple[int, ...]] = {name: array.shape for name, array in artifact.tensors.items()}
    for name, layer in artifact.layers.items():
        shapes[f"{name}.weight"] = layer.factors.shape
        if layer.bias is not None:
            shapes[f"{name}.bias"] = layer.bias.shape
    try:
        asked = Workload(str(planned["workload"]), int(planned["texts"]), int(planned["tokens"]))
        clock = MachineClock(
            artifact.config, shapes, asked, encoder_layers=int(planned["encoder_layers"]) or None
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{artifact.folder}: leanmatch.json says nothing sensible of its machine"
        ) from error
    except UnsupportedError:
        return None
    dense, own = clock.compare([clock.int8(), encoder.graph])
    return {"planned": dict(planned), "here": {**clock.machine, "faster": dense / own}}


def _with_layers(shapes: Mapping[str, tuple[int, ...]], block: str, count: int) -> dict[str, tuple[int, ...]]:
    """The shapes, and for encoder layers that are missing those of the first."""
    first = block.format(i=0)
    one = {name.removeprefix(first): shape for name, shape in shapes.items() if name.startswith(first)}
    whole = {block.format(i=number) + name: shape for number in range(count) for name, shape in one.items()}
    return {**whole, **shapes}
