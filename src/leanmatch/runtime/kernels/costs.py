"""Which path a linear layer takes: the cheapest by its multiply-adds and the instruction-set level alone.

Two paths of one weight round differently. A choice by measurement, or by the number of tokens in hand, would
make a text's vector depend on the load of the machine or on the texts beside it; this one depends on neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from leanmatch.runtime.kernels.paths import Path

WORTH = 1.5
"""A later path replaces an earlier one only where it is more than this many times as fast."""


def _table(**picoseconds: float) -> Mapping[str, float]:
    return MappingProxyType(picoseconds)


PICOSECONDS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "portable": _table(dense_f32=57, dense_i8=108, dense_sparse_f32=120),
        "avx2": _table(dense_f32=18, dense_i8=10, dense_sparse_f32=30),
        "avx512": _table(dense_f32=18, dense_bf16=9, dense_i8=10, dense_sparse_f32=30),
        "avx512_vbmi_vnni": _table(
            dense_f32=18, dense_bf16=9, dense_i8=5, dense_sparse_f32=30, dense_sparse_i8=8.5
        ),
        "avx512_amx": _table(
            dense_f32=18, dense_bf16=2, dense_i8=1.8, dense_sparse_f32=30, dense_sparse_i8=15
        ),
        "neon": _table(dense_f32=36, dense_i8=20, dense_sparse_f32=60),
        "neon_dotprod": _table(dense_f32=36, dense_i8=10, dense_sparse_f32=60, dense_sparse_i8=17),
    }
)
"""Picoseconds a multiply-add of each kernel at each level, one thread, between 16 and 64 tokens a call.

Measured on a Zen 5 EPYC over the shapes of MiniLM and mpnet; AMX from a Xeon, in proportion to its VNNI. No
Arm machine was at hand: NEON has the proportions of AVX2 and of VNNI. Only ratios count. Padding and the
latency of short calls are left out, so a choice can be wrong by about the factor :data:`WORTH`.
"""


def cost(path: Path, level: str) -> float:
    """Estimated picoseconds a token."""
    table = PICOSECONDS[level]
    return sum(table[kernel] * count for kernel, count in path.multiply_adds.items())


def ranked(candidates: Sequence[Path], level: str) -> list[Path]:
    """The paths in order of preference: the first that is nearly as cheap as the cheapest leads.

    Candidates must come with the most exact one first, so that accuracy is given up only where it saves real
    time.
    """
    costs = [cost(path, level) for path in candidates]
    best = next(at for at, estimate in enumerate(costs) if estimate <= WORTH * min(costs))
    rest = sorted((at for at in range(len(costs)) if at != best), key=costs.__getitem__)
    return [candidates[at] for at in (best, *rest)]
