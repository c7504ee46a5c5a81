"""Where the runtime's weights come from: a stock model folder's safetensors file, or a compressed model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import ModelError
from leanmatch.factorization import Dense, Factors
from leanmatch.runtime.architectures import UnsupportedError

if TYPE_CHECKING:
    from leanmatch.formats.artifact import Artifact

Floats = NDArray[np.float32]

STOCK_FILE = "model.safetensors"
PREFIXES = (
    "",
    "bert.",
    "roberta.",
    "distilbert.",
    "mpnet.",
    "albert.",
    "electra.",
    "model.",
    "gte.",
    "new.",
    "nomic_bert.",
)
"""What a checkpoint may put before a module's name."""


class Weights(Protocol):
    """Named weights of one model: matrices in whatever form they have, vectors in float32."""

    def has(self, name: str) -> bool:
        """Is there such a module or tensor?"""

    def matrix(self, module: str) -> Factors:
        """``module``'s weight."""

    def vector(self, tensor: str) -> Floats | None:
        """A tensor by its full name, float32; None where there is none."""


class StockWeights:
    """The weights of a stock checkpoint, read one by one when they are asked for.

    Args:
        path: the checkpoint.
        file: the same, open.
        words: the module of the word embeddings, which shows what the file puts before modules' names.
    """

    def __init__(self, path: Path, file: Any, words: str = "embedding") -> None:
        self._path = path
        self._file = file
        self._names = set(file.keys())
        self._prefix = next(
            (prefix for prefix in PREFIXES if f"{prefix}{words}.weight" in self._names),
            "",
        )

    def has(self, name: str) -> bool:
        """Is there such a module or tensor?"""
        full = self._prefix + name
        return full in self._names or f"{full}.weight" in self._names

    def matrix(self, module: str) -> Factors:
        """The weight of a module, ``(m, n)``.

        Raises:
            ModelError: it is not there or not a matrix.
        """
        weight = self.vector(f"{module}.weight")
        if weight is None or weight.ndim != 2 or not weight.size:
            actual = "nothing" if weight is None else f"shape {weight.shape}"
            raise ModelError(
                f"{self._path}: {module}.weight should be a matrix (found {actual})",
                remedy="the folder is incomplete or damaged: save or copy it again",
            )
        return Dense(weight)

    def vector(self, tensor: str) -> Floats | None:
        """A tensor by its full name; None where there is none."""
        full = self._prefix + tensor
        return read_tensor(self._path, self._file, full) if full in self._names else None


def read_tensor(path: Path, file: Any, name: str) -> Floats:
    """One floating tensor of an open safetensors file as float32, contiguous; two-byte ones are widened.

    Raises:
        ModelError: another dtype, or numbers that are not finite.
    """
    from safetensors import SafetensorError

    try:
        part = file.get_slice(name)
        values = _bfloat16(path, name) if part.get_dtype() == "BF16" else file.get_tensor(name)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{path}: {name} cannot be read: {error}", remedy="save or copy the folder again"
        ) from error
    if values.dtype.kind != "f":
        raise ModelError(
            f"{path}: {name} has the dtype {values.dtype}, not a floating one",
            remedy="save or copy the folder again",
        )
    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ModelError(f"{path}: {name} holds NaN or infinite numbers", remedy="the weights are damaged")
    return values


def _bfloat16(path: Path, name: str) -> Floats:
    """A bfloat16 tensor, which numpy does not know, as float32: its bits are the upper half of a float32's.

    The file was checked by safetensors when it was opened: an 8-byte length, that much JSON, the data.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
        start, end = entry["data_offsets"]
        file.seek(8 + length + start)
        bits = np.frombuffer(file.read(end - start), dtype="<u2")
    return (bits.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


class CompressedWeights:
    """The weights of a compressed model, checked by :func:`leanmatch.formats.read_artifact`."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

    def has(self, name: str) -> bool:
        """Is there such a module or tensor?"""
        module, _, last = name.rpartition(".")
        if module in self._artifact.layers:
            return last == "weight" or (last == "bias" and self._artifact.layers[module].bias is not None)
        tensors = self._artifact.tensors
        return name in self._artifact.layers or name in tensors or f"{name}.weight" in tensors

    def matrix(self, module: str) -> Factors:
        """The weight of a module, ``(m, n)``, in the form that the artifact has.

        Raises:
            ModelError: it is not there or not a matrix.
        """
        if module in self._artifact.layers:
            return self._artifact.layers[module].factors
        weight = self.vector(f"{module}.weight")
        if weight is None or weight.ndim != 2:
            raise ModelError(f"{self._artifact.folder}: the compressed model lacks {module}.weight")
        return Dense(weight)

    def vector(self, tensor: str) -> Floats | None:
        """A tensor by its full name; None where there is none."""
        module, _, last = tensor.rpartition(".")
        if last == "bias" and module in self._artifact.layers:
            return self._artifact.layers[module].bias
        values = self._artifact.tensors.get(tensor)
        return None if values is None else np.ascontiguousarray(values, dtype=np.float32)


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """A safetensors file for reading.

    Raises:
        ModelError: it is not there or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UnsupportedError(
            f"the native runtime reads safetensors, and {path} is not there",
            remedy="save the model again: SentenceTransformer.save_pretrained writes it",
        )
    try:
        opened = safe_open(str(path), framework="np")
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", remedy="save or copy the folder again") from error
    with opened as file:
        yield file


def expect_vector(weights: Weights, tensor: str, length: int) -> Floats:
    """A vector that must be there with this length.

    Raises:
        ModelError: it is not.
    """
    values = weights.vector(tensor)
    if values is None or values.shape != (length,):
        actual = "nothing" if values is None else f"shape {values.shape}"
        raise ModelError(
            f"{tensor} should have {length} numbers (found {actual})",
            remedy="the folder is incomplete or damaged: save or copy it again",
        )
    return values
