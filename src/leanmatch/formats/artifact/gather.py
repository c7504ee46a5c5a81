"""From a model in memory to the tensors and entries of an artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.errors import FormatError, ModelError
from leanmatch.factorization.cost import FLOAT_BITS, dense_cost
from leanmatch.formats.artifact.contents import KINDS
from leanmatch.formats.artifact.fields import Array
from leanmatch.formats.artifact.forms import SHARED, encode
from leanmatch.formats.artifact.halves import stored
from leanmatch.formats.artifact.reader import UNUSED, tensor_names
from leanmatch.formats.layout import LEGACY_MODULES, module_kind

if TYPE_CHECKING:
    from leanmatch.compression import CompressedLayer
    from leanmatch.factorization import Factors


@dataclass(frozen=True)
class Part:
    """A module of the model and the prefix of the names of its parameters in the artifact."""

    module: Any
    prefix: str


@dataclass
class Gathered:
    """Entries for ``leanmatch.json`` and tensors for the file.

    Attributes:
        layers: an entry a compressed layer; see docs/reference/format.md.
        tensors: by their names in the file.
        dropped: number of values of each parameter that is left out, see ``UNUSED`` in ``reader.py``.
    """

    layers: dict[str, dict[str, Any]]
    tensors: dict[str, Array]
    dropped: dict[str, int]

    def layer_bytes(self) -> int:
        """Bytes of all layers' tensors."""
        return sum(int(entry["bytes"]) for entry in self.layers.values())

    def other_bytes(self) -> int:
        """Bytes of all other tensors."""
        return sum(array.nbytes for name, array in self.tensors.items() if name.startswith("tensors/"))

    def dense_bytes(self) -> int:
        """What all of it takes as float32."""
        others = sum(
            FLOAT_BITS // 8 * array.size
            for name, array in self.tensors.items()
            if name.startswith("tensors/")
        )
        dropped = FLOAT_BITS // 8 * sum(self.dropped.values())
        return others + dropped + sum(int(entry["dense_bytes"]) for entry in self.layers.values())


def parts_of(model: Any) -> list[Part]:
    """The modules that hold parameters: a transformers model, or those of a sentence encoder.

    The transformers model has no prefix, module ``i`` of a sentence encoder ``module{i}.``.

    Raises:
        ModelError: a sentence encoder with a module that an artifact cannot hold.
    """
    if not is_matcher(model):
        return [Part(model, "")]
    parts = []
    allowed = {module.name for module in LEGACY_MODULES}
    for number, module in enumerate(model):
        if module_kind(f"{type(module).__module__}.{type(module).__name__}") not in allowed:
            raise ModelError(
                f"module {number} of the model is a {type(module).__name__}, which an artifact cannot hold",
                remedy=f"it holds {', '.join(sorted(allowed))}",
            )
        inner = getattr(module, "auto_model", None)
        if inner is None:
            parts.append(Part(module, f"module{number}."))
        elif number == 0:
            parts.append(Part(inner, ""))
        else:
            raise ModelError(f"module {number} is a second Transformer", remedy="compress each model alone")
    return parts


def is_matcher(model: Any) -> bool:
    """Is it a ``SentenceTransformer``? (A subclass counts; nothing is imported for it.)"""
    return any(kind.__name__ == "SentenceTransformer" for kind in type(model).__mro__)


def gather(model: Any, errors: Mapping[str, float]) -> Gathered:
    """Everything that the file will hold.

    Args:
        model: with compressed layers.
        errors: relative squared error of layers by name, as far as known.

    Raises:
        ModelError: no compressed layer, parameters that are not finite.
        FormatError: a layer that has no form in the artifact; a stack whose members do not share their atoms.
    """
    gathered = Gathered({}, {}, {})
    whole = {id(layer): name for name, layer in _compressed(model)}
    for part in parts_of(model):
        inside: set[int] = set()
        for name, layer in _compressed(part.module):
            error = errors.get(whole[id(layer)], errors.get(part.prefix + name))
            _add_layer(gathered, part.prefix + name, layer, error)
            inside |= {id(value) for value in (*layer.parameters(), *layer.buffers())}
        _add_others(gathered, part, inside, UNUSED if is_matcher(model) and not part.prefix else None)
    if not gathered.layers:
        raise ModelError("the model has no compressed layer", remedy="call factorize(model, spec) first")
    return gathered


def _compressed(module: Any) -> Iterator[tuple[str, CompressedLayer]]:
    from leanmatch.compression import compressed_layers

    yield from compressed_layers(module).items()


def _add_layer(gathered: Gathered, name: str, layer: Any, error: float | None) -> None:
    factors: Factors = layer.to_factors()
    fields, arrays = encode(factors)
    stack = getattr(layer.factors, "stack", None)
    names = tensor_names(name, stack)
    size = 0
    first = True
    for last, array in arrays.items():
        full = names(last)
        earlier = gathered.tensors.get(full)
        if earlier is None:
            gathered.tensors[full] = array
            size += array.nbytes
        elif stack is None or last not in SHARED or not np.array_equal(earlier, array):
            raise FormatError(f"{name}: its {last} are not those of its stack {stack!r}")
        else:
            first = False
    bias = getattr(layer, "bias", None)
    if bias is not None:
        gathered.tensors[names("bias")] = stored(_array(bias))
        size += gathered.tensors[names("bias")].nbytes
    m, n = factors.shape
    kind = KINDS["Embedding" in type(layer).__name__]
    gathered.layers[name] = {
        "kind": kind,
        **fields,
        "stack": stack,
        "bias": bias is not None,
        "bytes": size,
        "macs": _macs(factors, kind, first),
        "dense_bytes": (dense_cost(m, n) + dense_cost(m, 1 if bias is not None else 0)).bytes,
        "dense_macs": dense_cost(m, n).macs if kind == "linear" else 0,
        "error": error,
    }


def _macs(factors: Any, kind: str, first: bool) -> int:
    """Multiply-adds a token. A table decodes one row; a stack's first member works for all."""
    if kind == "embedding":
        return 0 if getattr(factors, "identity", True) else int(factors.nonzeros * factors.shape[1])
    return int(factors.cost().macs if first else factors.cost(shared_atoms=True).macs)


def _add_others(gathered: Gathered, part: Part, inside: set[int], unused: str | None) -> None:
    stored_ids: set[int] = set()
    for name, value in part.module.state_dict(keep_vars=True).items():
        if id(value) in inside or id(value) in stored_ids:  # tied: loading ties them again
            continue
        stored_ids.add(id(value))
        if unused is not None and name.startswith(unused):
            gathered.dropped[name] = value.numel()
            continue
        array = _array(value)
        if array.dtype.kind == "f":
            if not np.isfinite(array).all():
                raise ModelError(
                    f"{part.prefix}{name} holds NaN or infinite numbers", remedy="use another model"
                )
            array = stored(array)
        else:
            array = array.astype(np.int64)
        gathered.tensors[f"tensors/{part.prefix}{name}"] = np.ascontiguousarray(array)


def _array(tensor: Any) -> Array:
    value = tensor.detach().cpu()
    return np.asarray(value.float().numpy() if value.is_floating_point() else value.numpy())
