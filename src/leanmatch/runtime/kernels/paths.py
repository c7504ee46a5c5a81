"""The ways in which one weight can run on the native linear kernels, by its form and the precision asked for.

A *path* is a recipe: a name and a function that packs the weight for an instruction-set level. Packing costs
time and memory, so recipes are listed first, :mod:`leanmatch.runtime.kernels.costs` ranks them, and only the
one that will run is packed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch import native
from leanmatch.errors import UsageError
from leanmatch.factorization import DenseSparse, Factors, IntMatrix, LowRank, QuantizedDenseSparse, decode
from leanmatch.factorization.arrays import round_to_codes
from leanmatch.runtime.weights import Floats

PRECISIONS: Mapping[str, str] = MappingProxyType(
    {
        "stored": "as the folder holds them: float32 for a stock model, its own forms for a compressed one",
        "float32": "exact: every layer in float32 arithmetic",
        "bfloat16": "weights and activations of the layers rounded to bfloat16, where the CPU has it",
        "int8": "8-bit weights (a scale a row) and activations (a scale a token; AVX2 without VNNI: 7 bits); "
        "embeddings too",
    }
)
"""What ``precision=`` of :func:`leanmatch.load` may say."""

TABLE_LEVELS = ("avx512_vbmi_vnni", "avx512_amx", "neon_dotprod")
"""Levels at which the integer dense-sparse kernel looks up tables; others would decode the factors."""

MOST_INT8_ATOMS = 128
"""Atoms a block that the integer dense-sparse kernel takes."""

HEAD_BLOCKS = 12
"""One of so many blocks of an integer dense-sparse layer has scales of its own: those of far-off inputs."""

STANDS_OUT = 1.5
"""So many times as far as the next block must the head's inputs reach, or the layer has none."""

PackPath = Callable[[str, "Floats | None"], Any]


@dataclass(frozen=True)
class Inputs:
    """What is known of a layer's inputs.

    Attributes:
        ranges: approximate largest magnitude of each input, ``(n,)``; None where unknown.
        measured: whether ``ranges`` were measured; else they are guessed from the LayerNorm before the layer.
        middle: midpoint between each input's least and largest value, ``(n,)``; None where unknown.
        zero: zero point of the inputs in 8 bits: 128, or lower where the inputs are mostly positive.
    """

    ranges: Floats | None = None
    measured: bool = False
    middle: Floats | None = None
    zero: int = 128


UNKNOWN = Inputs()


@dataclass(frozen=True)
class Path:
    """One way to run a weight.

    Attributes:
        name: what runs, a name of the table in csrc/linear/linear.h (of the outer layer for low rank).
        pack: from level and bias to a packed layer.
        tolerance: relative error of the outputs (Frobenius, on normal inputs) that still counts as correct.
        multiply_adds: how many a token takes, by the kernel that does them.
        factor: makes :attr:`input_factor`, when it is asked for; None: there is none.
    """

    name: str
    pack: PackPath
    tolerance: float
    multiply_adds: Mapping[str, int]
    factor: Callable[[], Floats] | None = None

    @property
    def input_factor(self) -> Floats | None:
        """What the inputs ``(n,)`` are multiplied by first; None for nothing."""
        return None if self.factor is None else self.factor()


def check_precision(precision: str) -> str:
    """The name of a precision that this machine can run.

    Raises:
        UsageError: no such precision, or no bfloat16 here.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"there is no precision {precision!r}", remedy=f"use one of {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and not (has_bf16(best_level())):
        raise UsageError(
            "precision='bfloat16': this CPU has no bfloat16 products", remedy="use float32 or int8"
        )
    return precision


def best_level() -> str:
    """The best instruction-set level that may run (``LEANMATCH_CPU`` limits it)."""
    return next(name for name, variant in reversed(native.variants().items()) if variant.runs)


def has_bf16(level: str) -> bool:
    """Does the bfloat16 kernel run here and at this level?"""
    return bool(level.startswith("avx512") and native.load().linear.has_bf16())


def kernel_levels() -> dict[str, str]:
    """Which instruction set each family of kernels runs on here, found by packing a layer of each."""
    level, module = best_level(), native.load().linear
    unit, code, index = np.ones((1, 1), np.float32), np.ones((1, 1), np.int8), np.zeros((1, 1, 1), np.uint16)
    sparse = np.ones((1, 1, 1), np.float32), index, np.ones((1, 1, 1), np.float32)
    coded = code[None], unit, index, code[None], unit[0]
    bf16 = has_bf16(level)
    return {
        "dense float32": str(module.dense_f32(level, unit, None).level),
        "dense bfloat16": _bf16_level(level) if bf16 else "none: dense float32 runs",
        "dense int8": str(module.dense_i8_codes(level, code, unit[0], None).level),
        "dense-sparse float32": str(module.dense_sparse_f32(level, *sparse, None).level),
        "dense-sparse int8": _table_level(module.dense_sparse_i8(level, *coded, None, 128, None, 0, False)),
        "attention": "avx512, bfloat16 products where layers round" if bf16 else level,
    }


def _bf16_level(level: str) -> str:
    return level if level == "avx512_amx" else "avx512_bf16"


def _table_level(layer: Any) -> str:
    return (
        str(layer.level) if layer.path == "dense_sparse_i8" else f"none: decoded to float32 ({layer.level})"
    )


def describe(factors: Factors) -> str:
    """The form of a weight in a few words, the same for layers that cost the same.

    >>> from leanmatch.factorization import Dense
    >>> describe(Dense(np.ones((3, 2), np.float32)))
    'dense 3x2'
    """
    size = f"{factors.shape[0]}x{factors.shape[1]}"
    if isinstance(factors, DenseSparse | QuantizedDenseSparse):
        kind = "dense-sparse int8" if isinstance(factors, QuantizedDenseSparse) else "dense-sparse"
        return f"{kind} {size} b{factors.block} r{factors.atom_count} k{factors.nonzeros}"
    if isinstance(factors, LowRank):
        return f"low-rank {size} q{factors.rank}"
    return f"int{factors.bits} {size}" if isinstance(factors, IntMatrix) else f"dense {size}"


def prepared(factors: Factors, precision: str) -> Factors:
    """The factors whose numbers a precision stands for: dense-sparse floats become codes in 8 bits."""
    return factors.quantize() if precision == "int8" and isinstance(factors, DenseSparse) else factors


def paths(factors: Factors, precision: str, level: str, inputs: Inputs = UNKNOWN) -> list[Path]:
    """Every way to run ``factors`` at that precision and level; the first is the plain one.

    Args:
        factors: the weight, as :func:`prepared` gives it.
        precision: a key of :data:`PRECISIONS`.
        level: instruction-set level.
        inputs: what is known of the inputs. With it, 8-bit layers of a stock model shift outliers from the
            inputs into the weights (:func:`smoothing`), and dense-sparse layers give blocks with outliers
            scales of their own.
    """
    shape = factors.shape
    if precision == "float32":
        return _exact(factors)
    if precision == "bfloat16":
        dense16 = partial(_pack_plain, "dense_bf16", factors.dense)
        rounded = Path("dense_bf16", dense16, 1e-2, {"dense_bf16": shape[0] * shape[1]})
        return [rounded] * has_bf16(level) + _exact(factors)
    if isinstance(factors, QuantizedDenseSparse):
        return _coded(factors, precision, level, inputs)
    if isinstance(factors, LowRank):
        return [_low_rank_path(factors), _float_path(factors.dense, shape)]
    if isinstance(factors, IntMatrix):
        return [_int8_path(lambda: one_scale(factors), shape), _float_path(factors.dense, shape)]
    smoothed = [_smoothed_path(factors.dense, shape, inputs)] if precision == "int8" else []
    return [*smoothed, *_exact(factors)]


def _coded(factors: QuantizedDenseSparse, precision: str, level: str, inputs: Inputs) -> list[Path]:
    """Ways to run dense-sparse codes at ``stored`` and ``int8``."""
    exact = _sparse_float_path(factors.dequantize, _sparse_macs(factors))
    dense8 = _smoothed_path(partial(decoded, factors), factors.shape, inputs)
    if level in TABLE_LEVELS and factors.atom_count <= MOST_INT8_ATOMS:
        return [_sparse_int8_path(factors, inputs), exact, dense8]
    # Without tables rounding to 7 bits is the user's choice: it halves the time of short texts.
    return [dense8, exact] if precision == "int8" else [exact, dense8]


def _exact(factors: Factors) -> list[Path]:
    """Ways that compute with the float32 values of the factors themselves."""
    dense = _float_path(factors.dense, factors.shape)
    if isinstance(factors, QuantizedDenseSparse):
        return [_sparse_float_path(factors.dequantize, _sparse_macs(factors)), dense]
    if isinstance(factors, DenseSparse):
        return [_sparse_float_path(lambda: factors, _sparse_macs(factors)), dense]
    if isinstance(factors, LowRank):
        return [_low_rank_path(LowRank(_plain(factors.left), _plain(factors.right))), dense]
    return [dense]


def quantize_rows(weight: Floats) -> IntMatrix:
    """Symmetric 8-bit codes with one scale a row: ``scale = max |w| / 127``.

    >>> quantize_rows(np.array([[1.0, -0.5]], np.float32)).q
    array([[127, -64]], dtype=int8)
    """
    codes, scale = round_to_codes(weight, 8)
    return IntMatrix(codes, scale[:, None])


def smoothing(weight: Floats, ranges: Floats) -> Floats:
    """``s (n,)``: inputs are divided by it and columns of the weight multiplied, before both are rounded.

    ``s_j = range_j^a / max_i |w_ij|^(1 - a)``, ``a = 0.4``, geometric mean 1: SmoothQuant's balance (Xiao et
    al., ICML 2023).
    """
    columns = np.abs(weight).max(axis=0)
    s = np.maximum(ranges, 1e-5) ** 0.4 / np.maximum(columns, 1e-5) ** 0.6
    balanced: Floats = (s / np.exp(np.log(s).mean())).astype(np.float32)
    return balanced


def _smoothed_path(make: Callable[[], Floats], shape: tuple[int, int], inputs: Inputs) -> Path:
    ranges = inputs.ranges
    if ranges is None or inputs.zero != 128:  # behind an activation it makes the error larger
        return _int8_path(lambda: quantize_rows(make()), shape)

    @cache  # once for the weight and for the inputs, and only where this path is packed
    def balanced() -> tuple[IntMatrix, Floats]:
        weight = make()
        s = smoothing(weight, ranges)
        return quantize_rows(weight * s), np.float32(1) / s

    return replace(_int8_path(lambda: balanced()[0], shape), factor=lambda: balanced()[1])


def decoded(factors: QuantizedDenseSparse) -> Floats:
    """``factors.dense()`` by the native kernel, in float32."""
    values = factors.values_q * factors.values_scale[:, None, None]
    return decode(factors.indices, values, factors.atoms_q * factors.atoms_scale[..., None])


def one_scale(factors: IntMatrix) -> IntMatrix:
    """The matrix with one scale a row, as the integer kernel needs it; grouped codes are quantized again."""
    return factors if factors.scale.shape[1] == 1 else quantize_rows(factors.dense())


def _sparse_macs(factors: DenseSparse | QuantizedDenseSparse) -> int:
    """Products with all atoms, identity atoms included, and one multiply-add for each coefficient."""
    return int(factors.shape[1] * factors.atom_count + factors.indices.size)


def _plain(part: Floats | IntMatrix) -> Floats:
    return part.dense() if isinstance(part, IntMatrix) else part


def _pack_plain(name: str, make: Callable[[], Floats], level: str, bias: Floats | None) -> Any:
    return getattr(native.load().linear, name)(level, np.ascontiguousarray(make()), bias)


def _float_path(make: Callable[[], Floats], shape: tuple[int, int]) -> Path:
    return Path(
        "dense_f32", partial(_pack_plain, "dense_f32", make), 1e-4, {"dense_f32": shape[0] * shape[1]}
    )


def _int8_path(make: Callable[[], IntMatrix], shape: tuple[int, int]) -> Path:
    def pack(level: str, bias: Floats | None) -> Any:
        factors = make()
        codes = np.ascontiguousarray(factors.q), np.ascontiguousarray(factors.scale[:, 0])
        return native.load().linear.dense_i8_codes(level, *codes, bias)

    return Path("dense_i8", pack, 3e-2, {"dense_i8": shape[0] * shape[1]})


def _sparse_float_path(make: Callable[[], DenseSparse], macs: int) -> Path:
    def pack(level: str, bias: Floats | None) -> Any:
        factors = make()
        arrays = factors.atoms, factors.indices.astype(np.uint16), factors.values
        return native.load().linear.dense_sparse_f32(level, *map(np.ascontiguousarray, arrays), bias)

    return Path("dense_sparse_f32", pack, 1e-4, {"dense_sparse_f32": macs})


def find_head(ranges: Floats, blocks: int) -> tuple[NDArray[np.int32], int]:
    """The blocks, largest input first, and how many of them (the head) get scales of their own.

    >>> order, head = find_head(np.float32([1] * 9 + [5, 1, 0]), 12)
    >>> order[:2].tolist(), head
    ([9, 0], 1)
    >>> find_head(np.ones(12, np.float32), 12)[1]
    0
    """
    reach = ranges.reshape(blocks, -1).max(axis=1)
    order = np.argsort(-reach, kind="stable").astype(np.int32)
    head = blocks // HEAD_BLOCKS
    stands_out = head > 0 and reach[order[0]] > STANDS_OUT * reach[order[head]]
    return order, head if stands_out else 0


def turned(factors: QuantizedDenseSparse, middle: Floats) -> QuantizedDenseSparse:
    """The same matrix; atoms whose product with ``middle`` is negative are negated, and so are their values.

    Products ``z = D_i x_i`` then lie mostly on one side of zero, and fewer of their 8 bits are spent on the
    empty side.
    """
    blocks = middle.reshape(factors.block_count, factors.block, 1)
    products = (factors.atoms_q.astype(np.float32) @ blocks)[..., 0]
    sign = np.where(products < 0, -1, 1).astype(np.int8)  # (B, r)
    chosen = sign[np.arange(factors.block_count)[:, None], factors.indices]  # (m, B, k)
    turned_atoms = factors.atoms_q * sign[..., None]
    return replace(factors, atoms_q=turned_atoms, values_q=factors.values_q * chosen, identity=False)


def _sparse_int8_path(factors: QuantizedDenseSparse, inputs: Inputs) -> Path:
    order, head = None, 0
    if inputs.measured and inputs.ranges is not None:
        order, head = find_head(inputs.ranges, factors.block_count)

    def pack(level: str, bias: Floats | None) -> Any:
        codes = factors if inputs.middle is None else turned(factors, inputs.middle)
        arrays = (
            codes.atoms_q,
            codes.atoms_scale,
            codes.indices.astype(np.uint16),
            codes.values_q,
            codes.values_scale,
        )
        return native.load().linear.dense_sparse_i8(
            level, *map(np.ascontiguousarray, arrays), bias, inputs.zero, order, head, head > 0
        )

    return Path("dense_sparse_i8", pack, 3e-2, {"dense_sparse_i8": _sparse_macs(factors)})


def _low_rank_path(factors: LowRank) -> Path:
    left, right = (_part_path(part) for part in (factors.left, factors.right))

    def pack(level: str, bias: Floats | None) -> Any:
        return native.load().linear.low_rank(left.pack(level, bias), right.pack(level, None))

    counts = Counter(left.multiply_adds) + Counter(right.multiply_adds)
    return Path("low_rank", pack, left.tolerance + right.tolerance, counts)


def _part_path(part: Floats | IntMatrix) -> Path:
    if isinstance(part, IntMatrix):
        return _int8_path(lambda: one_scale(part), part.shape)
    return _float_path(lambda: part, (part.shape[0], part.shape[1]))
