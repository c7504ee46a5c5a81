"""The native linear kernels on numpy arrays: ``y = act(W x + bias) + residual`` for every form of ``W``.

Each function packs one weight for one instruction-set level (the best that may run, unless ``level`` names
one) and gives a :class:`PackedLinear`. csrc/linear/linear.h has the arithmetic, overflow bounds and
tolerances of each path. The encoder calls the same kernels from C++; this face serves
bench_kernels.py and tests/runtime.

Axes: T tokens, m outputs, n inputs, b columns per block, B = n/b blocks, r atoms per block, k nonzeros per
row and block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanmatch import native
from leanmatch.errors import DataError, UsageError

__all__ = [
    "ACTIVATIONS",
    "PackedLinear",
    "QuantizedRows",
    "dense_bf16",
    "dense_f32",
    "dense_i8",
    "dense_i8_codes",
    "dense_sparse_f32",
    "dense_sparse_i8",
    "has_bf16",
    "low_rank",
    "measure_peaks",
    "quantize_rows",
    "resolve_level",
]

ACTIVATIONS = ("none", "relu", "gelu")
"""What may follow the product; ``gelu`` is ``x Phi(x)`` with the exact ``erf``."""

TABLE_LEVELS = ("avx512_vbmi_vnni", "avx512_amx", "neon_dotprod")
"""Levels at which dense-sparse int8 looks up tables; at the others the factors are decoded to float32."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class QuantizedRows:
    """Activations in 8 bits with a scale and a zero point a row: ``x ~ scale (values - zero)``.

    Attributes:
        values: uint8 ``(T, stride)``; columns from ``n`` on are zero.
        scale: float32 ``(T,)``.
        zero: int32 ``(T,)``; that of the head's columns is in bits 8 to 15.
        width: ``n``.
        head_scale: float32 ``(T,)``, the scale of the head's columns (see :func:`dense_sparse_i8`).
        layer: the only layer that takes them; None: any whose level they were made for.
    """

    values: NDArray[np.uint8]
    scale: Floats
    zero: NDArray[np.int32]
    width: int
    head_scale: Floats
    layer: PackedLinear | None = None

    def dequantize(self) -> Floats:
        """float32 ``(T, n)``."""
        codes = self.values[:, : self.width].astype(np.float32) - (self.zero & 255)[:, None].astype(
            np.float32
        )
        return codes * self.scale[:, None]


class PackedLinear:
    """One weight, packed. Immutable; many threads may call it, and each call stays on its thread."""

    def __init__(self, packed: Any) -> None:
        self._packed = packed

    @property
    def path(self) -> str:
        """The arithmetic that runs: a name of the table in csrc/linear/linear.h."""
        return str(self._packed.path)

    @property
    def level(self) -> str:
        """The instruction-set level whose kernels run: the one asked for, or one below that has the path."""
        return str(self._packed.level)

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``."""
        m, n = self._packed.shape
        return int(m), int(n)

    @property
    def bytes(self) -> int:
        """Bytes of the packed weight in memory (padding included; a file has its own count)."""
        return int(self._packed.bytes)

    @property
    def takes_quantized(self) -> bool:
        """Does it run on :class:`QuantizedRows`?"""
        return bool(self._packed.takes_quantized)

    def __call__(
        self,
        x: ArrayLike | QuantizedRows,
        *,
        activation: str = "none",
        residual: ArrayLike | None = None,
        out: Floats | None = None,
    ) -> Floats:
        """``act(x W^T + bias) + residual``, float32 ``(T, m)``.

        Args:
            x: ``(T, n)`` floats, or what :func:`quantize_rows` gave at this layer's ``level``.
            activation: one of :data:`ACTIVATIONS`.
            residual: ``(T, m)`` floats, added last.
            out: float32 ``(T, m)``, C-contiguous, to write to.

        Raises:
            UsageError: no such activation; quantized rows for a path of floats.
            DataError: a shape or dtype that does not fit.

        >>> layer = dense_f32(np.array([[1.0, 2.0], [3.0, -1.0]], np.float32), bias=[0.5, 0.0])
        >>> layer(np.array([[1.0, 1.0]]), activation="relu")
        array([[3.5, 2. ]], dtype=float32)
        """
        if activation not in ACTIVATIONS:
            raise UsageError(
                f"activation={activation!r} is none", remedy=f"use one of {', '.join(ACTIVATIONS)}"
            )
        m, n = self.shape
        rows = x if isinstance(x, QuantizedRows) else _floats("x", x, 2)
        tokens, width = (
            (rows.values.shape[0], rows.width)
            if isinstance(rows, QuantizedRows)
            else (rows.shape[0], rows.shape[1])
        )
        if width != n:
            raise DataError(f"x must have n = {n} columns for a weight of {self.shape} (found {width})")
        y = np.empty((tokens, m), np.float32) if out is None else out
        if (
            y.shape != (tokens, m)
            or y.dtype != np.float32
            or not y.flags.c_contiguous
            or not y.flags.writeable
        ):
            raise DataError(
                f"out must be float32 {(tokens, m)}, C-contiguous and writeable (found {y.dtype} {y.shape})"
            )
        added = None if residual is None else _floats("residual", residual, 2)
        if added is not None and added.shape != (tokens, m):
            raise DataError(f"residual must be (T, m) = {(tokens, m)} (found {added.shape})")
        if isinstance(rows, QuantizedRows):
            if not self.takes_quantized:
                raise UsageError(f"{self.path} takes floats", remedy="pass x as it was before quantize_rows")
            if rows.layer is not (self if self._packed.own_rows else None):
                raise UsageError(
                    f"these rows were not quantized for this {self.path} layer",
                    remedy="use its own quantize_rows",
                )
            arrays = rows.values, rows.scale, rows.zero, rows.head_scale
            self._packed.run_quantized(*arrays, y, activation, added)
        else:
            if np.may_share_memory(rows, y):
                raise DataError("out shares memory with x")
            self._packed.run(rows, y, activation, added)
        return y

    def quantize_rows(self, x: ArrayLike) -> QuantizedRows:
        """Quantize activations ``(T, n)`` as this layer does.

        Raises:
            UsageError: a path of floats.
            DataError: a shape that does not fit.
        """
        if not self.takes_quantized:
            raise UsageError(f"{self.path} takes floats", remedy="pass x as it is")
        array = _floats("x", x, 2)
        if array.shape[1] != self.shape[1]:
            raise DataError(f"x must have n = {self.shape[1]} columns (found {array.shape[1]})")
        rows = _empty_rows(len(array), self.shape[1], self if self._packed.own_rows else None)
        self._packed.quantize(array, rows.values, rows.scale, rows.zero, rows.head_scale)
        return rows

    def measure(
        self, x: ArrayLike, *, activation: str = "none", quantized: bool = False, repeats: int = 1
    ) -> float:
        """Seconds of a call with ``x``, the mean of ``repeats`` in a row, timed in C++.

        The thread's processor time where the system keeps it: other programs' turns do not count.

        Args:
            x: ``(T, n)`` floats.
            activation: one of :data:`ACTIVATIONS`.
            quantized: leave the quantization of ``x`` out of the measurement.
            repeats: calls.
        """
        rows = _floats("x", x, 2)
        y = np.empty((rows.shape[0], self.shape[0]), np.float32)
        return float(self._packed.measure(rows, y, activation, quantized, repeats))

    def __repr__(self) -> str:
        return f"PackedLinear({self.path}, {self.level}, shape={self.shape})"


def resolve_level(level: str | None = None) -> str:
    """The level to pack for: ``level`` where it may run here, the best that may run where it is None.

    Raises:
        UsageError: no such level, or it may not run (``LEANMATCH_CPU`` counts).
    """
    variants = native.variants()
    may_run = [name for name, variant in variants.items() if variant.runs]
    if level is None:
        return may_run[-1]
    if level not in may_run:
        why = variants[level].why_not if level in variants else "no such level"
        raise UsageError(f"level={level!r} cannot run: {why}", remedy=f"use one of {', '.join(may_run)}")
    return level


def dense_f32(weight: ArrayLike, bias: ArrayLike | None = None, *, level: str | None = None) -> PackedLinear:
    """A dense weight ``(m, n)`` in fp32."""
    array = _floats("weight", weight, 2)
    return PackedLinear(_pack("dense_f32", level, array, _bias(bias, array.shape[0])))


def has_bf16(level: str | None = None) -> bool:
    """Does :func:`dense_bf16` run here at that level?"""
    return resolve_level(level).startswith("avx512") and bool(native.load().linear.has_bf16())


def dense_bf16(weight: ArrayLike, bias: ArrayLike | None = None, *, level: str | None = None) -> PackedLinear:
    """A dense weight ``(m, n)``; it and the activations are rounded to bfloat16, sums are fp32.

    Raises:
        UsageError: the CPU or the level has no bfloat16 products.
    """
    if not has_bf16(level):
        raise UsageError(
            f"dense_bf16 cannot run at level {resolve_level(level)} on this CPU: it needs avx512_bf16",
            remedy="use dense_f32",
        )
    array = _floats("weight", weight, 2)
    return PackedLinear(_pack("dense_bf16", level, array, _bias(bias, array.shape[0])))


def dense_i8(weight: ArrayLike, bias: ArrayLike | None = None, *, level: str | None = None) -> PackedLinear:
    """A dense weight ``(m, n)``, quantized here: each row symmetric, ``scale = max |w| / 127``.

    Raises:
        DataError: a weight that is not finite.
    """
    array = _floats("weight", weight, 2)
    return PackedLinear(_pack("dense_i8", level, array, _bias(bias, array.shape[0])))


def dense_i8_codes(
    q: NDArray[np.int8], scale: ArrayLike, bias: ArrayLike | None = None, *, level: str | None = None
) -> PackedLinear:
    """A dense weight ``q * scale[:, None]``: ``q`` int8 ``(m, n)`` without -128, ``scale (m,)``."""
    codes = _codes("q", q, 2)
    return PackedLinear(
        _pack("dense_i8_codes", level, codes, _floats("scale", scale, 1), _bias(bias, codes.shape[0]))
    )


def dense_sparse_f32(
    atoms: ArrayLike,
    indices: NDArray[Any],
    values: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    level: str | None = None,
) -> PackedLinear:
    """``W_i = S_i D_i`` in fp32: ``atoms (B, r, b)``, ``indices`` and ``values (m, B, k)``."""
    support = _indices(indices)
    return PackedLinear(
        _pack(
            "dense_sparse_f32",
            level,
            _floats("atoms", atoms, 3),
            support,
            _floats("values", values, 3),
            _bias(bias, support.shape[0]),
        )
    )


def dense_sparse_i8(
    atoms_q: NDArray[np.int8],
    atoms_scale: ArrayLike,
    indices: NDArray[Any],
    values_q: NDArray[np.int8],
    values_scale: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    level: str | None = None,
    zero: int = 128,
    order: ArrayLike | None = None,
    head: int = 0,
    choose: bool = False,
) -> PackedLinear:
    """``W_i = S_i D_i`` in integers, at most 128 atoms a block.

    Args:
        atoms_q: int8 ``(B, r, b)``.
        atoms_scale: ``(B, r)``; atoms of about equal norm use the 8 bits of ``z = D_i x_i`` best.
        indices: ``(m, B, k)``.
        values_q: int8 ``(m, B, k)``.
        values_scale: ``(m,)``.
        bias: ``(m,)``.
        level: instruction-set level; at any but ``TABLE_LEVELS`` factors are decoded for dense_sparse_f32.
        zero: zero point of the inputs, 1 to 254: 128 where they lie about zero, lower where most are above.
        order: the blocks in the order in which they are worked off.
        head: how many of them, from the first on, have scales of their own for each token: those with the
            inputs that go far out, so that the others' 8 bits are not spent on them.
        choose: each token takes those zero points, of its inputs (where ``zero`` is at least 64) and of
            ``z``, that need the smallest steps: more exact, about 5% slower.
    """
    support = _indices(indices)
    return PackedLinear(
        _pack(
            "dense_sparse_i8",
            level,
            _codes("atoms_q", atoms_q, 3),
            _floats("atoms_scale", atoms_scale, 2),
            support,
            _codes("values_q", values_q, 3),
            _floats("values_scale", values_scale, 1),
            _bias(bias, support.shape[0]),
            zero,
            None if order is None else np.ascontiguousarray(order, np.int32),
            head,
            choose,
        )
    )


def low_rank(left: PackedLinear, right: PackedLinear) -> PackedLinear:
    """``left(right(x))`` for factors ``(m, q)`` and ``(q, n)``. Takes the two: they can't be called again."""
    if left.shape[1] != right.shape[0]:
        raise DataError(f"left takes {left.shape[1]} inputs, right gives {right.shape[0]} outputs")
    return PackedLinear(native.load().linear.low_rank(left._packed, right._packed))


def quantize_rows(x: ArrayLike, *, level: str | None = None) -> QuantizedRows:
    """Quantize activations ``(T, n)`` as the integer paths of that level do.

    Pass the ``level`` of the layer that will read them (:attr:`PackedLinear.level`): AVX2 takes 7 bits.

    >>> rows = quantize_rows([[0.0, 2.0, -1.0]], level="portable")
    >>> rows.values[0, :3].tolist(), rows.zero.tolist()
    ([85, 255, 0], [85])
    """
    array = _floats("x", x, 2)
    rows = _empty_rows(array.shape[0], array.shape[1])
    native.load().linear.quantize(resolve_level(level), array, rows.values, rows.scale, rows.zero)
    return rows


def _empty_rows(tokens: int, width: int, layer: PackedLinear | None = None) -> QuantizedRows:
    return QuantizedRows(
        np.empty((tokens, native.load().linear.quantized_stride(width)), np.uint8),
        np.empty(tokens, np.float32),
        np.empty(tokens, np.int32),
        width,
        np.zeros(tokens, np.float32),
        layer,
    )


def measure_peaks(level: str | None = None) -> dict[str, float]:
    """Nanoseconds of the instructions that bound the kernels, in registers, and of a load from each cache.

    Measured now, on this thread, in some 20 ms: the roofs of benchmarks/bench_kernels.py. Which entries there
    are depends on the level; ``portable`` has none.
    """
    peaks: dict[str, float] = native.load().linear.peaks(resolve_level(level))
    return peaks


def _pack(name: str, level: str | None, *arrays: Any) -> Any:
    try:
        return getattr(native.load().linear, name)(resolve_level(level), *arrays)
    except ValueError as error:  # the checks of the pack_ functions in csrc/linear
        raise DataError(f"{name}: {error}") from error


def _floats(name: str, values: ArrayLike, axes: int) -> Floats:
    array = np.ascontiguousarray(values, dtype=np.float32)
    if np.ndim(values) != axes:
        raise DataError(f"{name} must have {axes} axes (found shape {np.shape(values)})")
    return array


def _bias(bias: ArrayLike | None, m: int) -> Floats | None:
    if bias is None:
        return None
    array = _floats("bias", bias, 1)
    if array.shape != (m,):
        raise DataError(f"bias must be (m,) = {(m,)} (found {array.shape})")
    return array


def _codes(name: str, codes: NDArray[np.int8], axes: int) -> NDArray[np.int8]:
    if codes.dtype != np.int8 or codes.ndim != axes:
        raise DataError(f"{name} must be int8 with {axes} axes (found {codes.dtype} {codes.shape})")
    return np.ascontiguousarray(codes)


def _indices(indices: NDArray[Any]) -> NDArray[np.uint16]:
    if indices.dtype not in (np.uint8, np.uint16) or indices.ndim != 3:
        raise DataError(f"indices must be uint8 or uint16 (m, B, k) (found {indices.dtype} {indices.shape})")
    return np.ascontiguousarray(indices, dtype=np.uint16)
