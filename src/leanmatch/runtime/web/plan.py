"""A model's graph as JSON, with names in place of arrays: what the web runtime puts together.

The graph is the one that :mod:`leanmatch.runtime.build` makes for the native runtime at ``precision="int8"``:
stock weights are rounded to the same codes. Compressed weights keep their form, and the web runtime decodes
them when it loads the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.factorization import (
    Dense,
    DenseSparse,
    Factors,
    IntMatrix,
    LowRank,
    MixedIntMatrix,
    QuantizedDenseSparse,
)
from leanmatch.factorization.arrays import ODD_BITS
from leanmatch.factorization.cost import WIDTH_BITS, index_bits
from leanmatch.factorization.factors import ROW_BITS
from leanmatch.formats.artifact.halves import stored
from leanmatch.runtime.build import Layer
from leanmatch.runtime.kernels.paths import Inputs, decoded, one_scale, prepared, quantize_rows, smoothing
from leanmatch.runtime.loading import OpenModel
from leanmatch.runtime.web.tensors import TensorWriter
from leanmatch.runtime.weights import Floats

LEVEL = "wasm"
"""The level of csrc/cpu/features.cpp that runs."""


def write_plan(
    model: OpenModel, ranges: Mapping[str, Floats], writer: TensorWriter, max_tokens: int | None
) -> dict[str, Any]:
    """The plan of a model; its arrays go to ``writer``.

    Args:
        model: the folder.
        ranges: measured ranges of the layers' inputs (:func:`leanmatch.runtime.loading.load_with_ranges`).
        writer: where arrays go.
        max_tokens: length of the longest text; positions beyond it are left out.
    """
    packer = _Packer(writer)

    def table(factors: Factors) -> dict[str, Any]:
        rounded = isinstance(factors, Dense) and not model.compressed
        return packer.table("words", quantize_rows(factors.dense()) if rounded else factors)

    fields = model.transformer(packer, LEVEL, "int8", ranges, table) | model.ends(LEVEL, packer.head)
    del fields["level"]
    for name in ("embedding_norm", "final_norm"):
        if fields.get(name) is not None:
            fields[name] = packer.norm(name, fields[name])
    for name in ("positions", "token_type", "relative_bias"):
        if fields.get(name) is not None:
            array = _positions(fields, max_tokens) if name == "positions" else fields[name]
            fields[name] = writer.add(name, array)
    if "rotary" in fields:
        fields["rotary"] = [writer.add(f"rotary.{i}", part) for i, part in enumerate(fields["rotary"])]
    for number, block in enumerate(fields["blocks"]):
        for name in ("attention_norm", "feed_forward_norm"):
            if block[name] is not None:
                block[name] = packer.norm(f"blocks.{number}.{name}", block[name])
        block |= {name: [_only(layer) for layer in block[name]] for name in ("qkv", "up")}
        block |= {name: _only(block[name]) for name in ("out", "down")}
    if fields.get("projection") is not None:
        fields["projection"] = _only(fields["projection"])
    for number, head in enumerate(fields["post"]):
        if head["kind"] == "dense":
            head["layer"] = _only(head["layer"])
        elif head["kind"] == "layer_norm":
            head["norm"] = packer.norm(f"post.{number}", head["norm"])
    return fields


def _positions(fields: Mapping[str, Any], max_tokens: int | None) -> NDArray[Any]:
    """The rows that the longest text reads. They are sums with the token type, so rounded to 16 bits here."""
    first = 0 if fields["pad_id"] is None else fields["pad_id"] + 1  # where positions begin
    end = None if max_tokens is None else first + max_tokens
    return stored(fields["positions"][:end])


def _only(layer: Layer) -> Any:
    """What runs a layer with any number of tokens."""
    return layer[0][1]


class _Packer:
    """Writes weights; an instance is a ``PackLayer`` of the builder."""

    def __init__(self, writer: TensorWriter) -> None:
        self._writer = writer
        self._heads = 0

    def __call__(self, name: str, factors: Factors, bias: Floats | None, inputs: Inputs) -> Layer:
        layer = self._layer(name, prepared(factors, "int8"), inputs)
        last = layer["left"] if layer["form"] == "low-rank" else layer
        last["bias"] = self._optional(f"{name}.bias", bias)
        return [(0, layer, None)]

    def head(self, weight: Floats, bias: Floats | None) -> dict[str, Any]:
        """A Dense module after the pooling, in float32."""
        name = f"post.{self._heads}"
        self._heads += 1
        return self._float(name, weight) | {"bias": self._optional(f"{name}.bias", bias)}

    def norm(self, name: str, norm: tuple[Floats, Floats | None, float]) -> dict[str, Any]:
        """Weight, bias and epsilon of a norm."""
        weight = self._writer.add(f"{name}.weight", norm[0])
        return {"weight": weight, "bias": self._optional(f"{name}.bias", norm[1]), "eps": float(norm[2])}

    def table(self, name: str, factors: Factors) -> dict[str, Any]:
        """An embedding table in the form that it has."""
        if isinstance(factors, Dense):
            return {"form": "float32", "values": self._writer.add(name, _short(factors.weight))}
        if isinstance(factors, MixedIntMatrix):
            return {"form": "int8-rows", **self._rows(name, factors)}
        if isinstance(factors, IntMatrix):
            return {"form": "int8", **self._codes(name, factors)}
        if isinstance(factors, LowRank):
            left = factors.left if isinstance(factors.left, IntMatrix) else Dense(factors.left)
            return {
                "form": "low-rank",
                "left": self.table(f"{name}.left", left),
                "right": self._part(f"{name}.right", factors.right),
            }
        return {"form": "dense-sparse", **self._sparse(name, factors)}

    def _layer(self, name: str, factors: Factors, inputs: Inputs) -> dict[str, Any]:
        if isinstance(factors, LowRank):
            left, right = (self._low_rank(f"{name}.{side}", getattr(factors, side)) for side in _SIDES)
            return {"form": "low-rank", "left": left, "right": right}
        if isinstance(factors, IntMatrix):
            return self._int8(name, one_scale(factors))
        if isinstance(factors, QuantizedDenseSparse):
            column = self._smoothing(decoded(factors), inputs)
            stored_column = None if column is None else self._writer.add(f"{name}.column", column)
            return {"form": "dense-sparse", **self._sparse(name, factors), "column": stored_column}
        weight = factors.dense()
        column = self._smoothing(weight, inputs)
        if column is None:
            return self._int8(name, quantize_rows(weight))
        factor = self._writer.add(f"{name}.factor", np.float32(1) / column)
        return self._int8(name, quantize_rows(weight * column)) | {"factor": factor}

    @staticmethod
    def _smoothing(weight: Floats, inputs: Inputs) -> Floats | None:
        """As the native runtime smooths its 8-bit layers."""
        return None if inputs.ranges is None or inputs.zero != 128 else smoothing(weight, inputs.ranges)

    def _low_rank(self, name: str, part: Floats | IntMatrix) -> dict[str, Any]:
        if isinstance(part, IntMatrix):
            return self._int8(name, one_scale(part)) | {"bias": None}
        return self._float(name, part) | {"bias": None}

    def _float(self, name: str, weight: Floats) -> dict[str, Any]:
        return {"form": "float32", "weight": self._writer.add(name, _short(weight))}

    def _int8(self, name: str, factors: IntMatrix) -> dict[str, Any]:
        return {"form": "int8", **self._codes(name, factors), "factor": None}

    def _part(self, name: str, part: Floats | IntMatrix) -> dict[str, Any]:
        if isinstance(part, IntMatrix):
            return self._codes(name, part)
        return {"values": self._writer.add(name, _short(part))}

    def _codes(self, name: str, factors: IntMatrix) -> dict[str, Any]:
        if factors.bits in ODD_BITS:
            codes = self._writer.add_odd(name, factors.q, factors.bits)
        else:
            codes = self._whole(name, factors.q, factors.bits)
        return {"codes": codes, "scale": self._writer.add(f"{name}.scale", _short(factors.scale))}

    def _rows(self, name: str, factors: MixedIntMatrix) -> dict[str, Any]:
        """An array of codes for each width, and the width of each row as an index into ``ROW_BITS``."""
        widths = _unsigned(np.searchsorted(ROW_BITS, factors.row_bits))
        fields = {
            "widths": self._writer.add_packed(f"{name}.widths", widths, WIDTH_BITS),
            "scale": self._writer.add(f"{name}.scale", _short(factors.scale[:, None])),
        }
        for bits in ROW_BITS:
            rows = factors.row_bits == bits
            if rows.any():
                fields[f"codes{bits}"] = self._writer.add_odd(f"{name}.codes{bits}", factors.q[rows], bits)
        return fields

    def _sparse(self, name: str, factors: DenseSparse | QuantizedDenseSparse) -> dict[str, Any]:
        bits = index_bits(factors.atom_count)
        fields = {"indices": self._writer.add_packed(f"{name}.indices", _unsigned(factors.indices), bits)}
        if isinstance(factors, DenseSparse):
            values = {"values": self._writer.add(f"{name}.values", _short(factors.values))}
            return {**fields, **values, "atoms": self._writer.add(f"{name}.atoms", _short(factors.atoms))}
        scales = {
            "scale": self._writer.add(f"{name}.scale", _short(factors.values_scale)),
            "atoms_scale": self._writer.add(f"{name}.atoms.scale", _short(factors.atoms_scale)),
        }
        return {
            **fields,
            **scales,
            "codes": self._whole(f"{name}.values", factors.values_q, factors.value_bits),
            "atoms": self._whole(f"{name}.atoms", factors.atoms_q, factors.atom_bits),
        }

    def _whole(self, name: str, codes: NDArray[np.int8], bits: int) -> str:
        return self._writer.add(name, codes) if bits == 8 else self._writer.add_packed(name, codes, bits)

    def _optional(self, name: str, values: Floats | None) -> str | None:
        return None if values is None else self._writer.add(name, values)


_SIDES = ("left", "right")


def _short(values: Floats) -> NDArray[Any]:
    """float16 where that is exact, as it is for what an artifact keeps in 16 bits; else float32."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), values) else values


def _unsigned(indices: NDArray[Any]) -> NDArray[np.uint16]:
    return np.asarray(indices, dtype=np.uint16)
