"""The contestants: how a layer is compressed at a ratio of multiply-adds, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from leanmatch.compression import (
    DenseSparseSpec,
    LayerSpec,
    LowRankSpec,
    PruningSpec,
    RoundingSpec,
    STFSchedule,
)

EMBEDDINGS = DenseSparseSpec(block=16, atoms=128, nonzeros=3, value_bits=4)
POSITIONS = RoundingSpec(bits=8)
# multiply-adds of b16 factors of a 384-wide encoder with stacked Q, K, V by (atoms, nonzeros)
DENSE_SPARSE = {2.0: (64, 6), 2.67: (64, 4), 2.8: (64, 4), 3.57: (60, 3)}  # 2.12x, 2.88x, 2.88x, 3.59x


@dataclass(frozen=True)
class Contestant:
    """One method at one ratio.

    Attributes:
        layer: how the encoder's linear layers are compressed.
        schedule: of the straight-through factorizer, None for frozen supports.
        embeddings, positions: how those are compressed, None for not at all.
        trained: fine-tuned after the conversion; false for one shot.
        lr: peak learning rate.
    """

    layer: LayerSpec
    schedule: STFSchedule | None = None
    embeddings: LayerSpec | None = None
    positions: LayerSpec | None = None
    trained: bool = True
    lr: float = 5e-4


def _dense_sparse(ratio: float, whole: bool, **changes: Any) -> Contestant:
    atoms, nonzeros = DENSE_SPARSE[ratio]
    # 6-bit values bring the whole model below 10 MB
    layer = DenseSparseSpec(block=16, atoms=atoms, nonzeros=nonzeros, value_bits=6 if whole else 8)
    return Contestant(layer, **_rest(whole), **changes)


def _rest(whole: bool) -> dict[str, Any]:
    return {"embeddings": EMBEDDINGS, "positions": POSITIONS} if whole else {}


def _plain(contestant: Contestant) -> Contestant:
    """First factors from the weights alone, as papers do it."""
    return replace(contestant, layer=replace(contestant.layer, weighting="none"))


CONTESTANTS: dict[str, Callable[[float, bool], Contestant]] = {
    "stf": lambda ratio, whole: _dense_sparse(ratio, whole, schedule=STFSchedule()),
    "factor": _dense_sparse,
    "plain-factor": lambda ratio, whole: _plain(_dense_sparse(ratio, whole)),
    "svd": lambda ratio, whole: Contestant(LowRankSpec(ratio=ratio, weighting="none"), **_rest(whole)),
    "fwsvd": lambda ratio, whole: Contestant(LowRankSpec(ratio=ratio, weighting="fisher"), **_rest(whole)),
    "asvd": lambda ratio, whole: Contestant(LowRankSpec(ratio=ratio, weighting="activation"), **_rest(whole)),
    "nm": lambda ratio, whole: Contestant(
        PruningSpec(block=32, nonzeros=round(32 / ratio)), lr=2e-4, **_rest(whole)
    ),
    "int8": lambda ratio, whole: Contestant(RoundingSpec(), trained=False, **_rest(whole)),
}
