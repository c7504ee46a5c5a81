"""Reading numbers, names and tensors that a file claims to hold, each checked before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import FormatError
from leanmatch.formats.artifact.bit_packing import packed_size, unpack

MOST_SIZE = 1 << 24
"""No axis of a matrix is longer."""

FLOATS = ("float16", "float32")
Array: TypeAlias = NDArray[Any]


class Fields:
    """The entries of a JSON object, taken out by name and kind; :meth:`end` refuses what nobody took."""

    def __init__(self, where: str, content: object) -> None:
        if not isinstance(content, Mapping):
            raise FormatError(f"{where} is {content!r:.80}, not an object")
        self.where, self._left = where, dict(content)

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number between two limits."""
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise FormatError(
                f"{self.where}: {name} must be a whole number from {low} to {high} (found {value!r:.80})"
            )
        return value

    def choice(self, name: str, valid: Iterable[Any]) -> Any:
        """One of some values, of exactly their types."""
        value, valid = self._take(name), tuple(valid)
        if not any(type(value) is type(option) and value == option for option in valid):
            raise FormatError(
                f"{self.where}: {name} must be one of {', '.join(map(repr, valid))} (found {value!r:.80})"
            )
        return value

    def text(self, name: str) -> str:
        """Any text."""
        value = self._take(name)
        if not isinstance(value, str):
            raise FormatError(f"{self.where}: {name} must be text (found {value!r:.80})")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._take(name)
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise FormatError(f"{self.where}: {name} must be a list of texts (found {value!r:.80})")
        return tuple(value)

    def name(self, name: str) -> str:
        """A Python name."""
        value = self.text(name)
        if not value.isidentifier():
            raise FormatError(f"{self.where}: {name} must be a name (found {value!r:.80})")
        return value

    def number_or_none(self, name: str) -> float | None:
        """A number from 0 on, or null."""
        value = self._take(name)
        if value is None or (type(value) in (int, float) and 0 <= value < float("inf")):
            return float(value) if value is not None else None
        raise FormatError(f"{self.where}: {name} must be a number from 0 on, or null (found {value!r:.80})")

    def mapping(self, name: str) -> Mapping[str, Any]:
        """An object, as it is."""
        value = self._take(name)
        if not isinstance(value, Mapping):
            raise FormatError(f"{self.where}: {name} must be an object (found {value!r:.80})")
        return value

    def sizes(self, name: str, count: int, low: int = 1, high: int = MOST_SIZE) -> tuple[int, ...]:
        """A list of so many whole numbers."""
        value = self._take(name)
        if not isinstance(value, list) or len(value) != count:
            raise FormatError(f"{self.where}: {name} must be {count} numbers (found {value!r:.80})")
        each = Fields(f"{self.where}: {name}", {str(axis): size for axis, size in enumerate(value)})
        return tuple(each.whole(str(axis), low, high) for axis in range(count))

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def optional(self, name: str) -> Any:
        """Whatever stands there, or None."""
        return self._left.pop(name, None)

    def section(self, name: str) -> Fields:
        """An object inside this one."""
        return Fields(f"{self.where}: {name}", self._take(name))

    def end(self) -> None:
        """Refuse entries that nobody took."""
        if self._left:
            names = ", ".join(map(repr, sorted(self._left)))
            raise FormatError(f"{self.where}: unknown fields {names:.200}")

    def _take(self, name: str) -> Any:
        if name not in self._left:
            raise FormatError(f"{self.where}: the field {name!r} is missing")
        return self._left.pop(name)


class Tensors:
    """The tensors of a file, read by name, dtype and shape; :meth:`end` refuses what nobody read."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)
        self._left = set(arrays)

    def names(self) -> list[str]:
        """Those not read yet."""
        return sorted(self._left)

    def take(self, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...] | None) -> Array:
        """The tensor of that name; ``shape`` None allows any."""
        if name not in self._arrays:
            raise FormatError(f"the tensor {name!r} is missing")
        array = self._arrays[name]
        self._left.discard(name)
        if array.dtype.name not in dtypes or (shape is not None and array.shape != shape):
            raise FormatError(
                f"the tensor {name!r} must be {' or '.join(dtypes)} of shape {shape or 'any'} "
                f"(found {array.dtype.name} {array.shape})"
            )
        return array

    def floats(self, name: str, shape: tuple[int, ...] | None) -> NDArray[np.float32]:
        """A finite float tensor, as float32 (float16 is widened)."""
        array = self.take(name, FLOATS, shape).astype(np.float32)
        if not np.isfinite(array).all():
            raise FormatError(
                f"the tensor {name!r} holds {int((~np.isfinite(array)).sum())} non-finite numbers"
            )
        return array

    def packed(self, name: str, count: int, bits: int) -> NDArray[np.uint16]:
        """``count`` numbers of ``bits`` bits each; see :mod:`leanmatch.formats.artifact.bit_packing`."""
        array = self.take(name, ("uint8",), (packed_size(count, bits),))
        try:
            return unpack(array, count, bits)
        except FormatError as error:
            raise FormatError(f"the tensor {name!r}: {error.problem}") from error

    def end(self) -> None:
        """Refuse tensors that nobody read."""
        if self._left:
            raise FormatError(f"{len(self._left)} unknown tensors, the first being {min(self._left)!r:.120}")
