"""How importance sees a model: texts become readings, readings are edited, edited readings become vectors.

Two readers, for two depths. :class:`TokenReader` edits the token ids that the model reads; it is exact, and
needs a function from ids to vectors. :class:`TextReader` edits the text itself, word by word; it needs only a
function from texts to vectors. Neither needs torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import ModelError, UsageError
from leanmatch.interventions.names import INTERVENTIONS, UNITS, check_choice
from leanmatch.interventions.words.splitting import Unit, split_words, token_units
from leanmatch.types import EncodeFunction, Vectors

Ids: TypeAlias = NDArray[np.int64]

Content: TypeAlias = "str | tuple[int, ...]"
"""What stands at a unit: a word's text, or the ids of its pieces."""


class Tokenized(NamedTuple):
    """One text as the model reads it: ``ids``, their ``offsets`` (tokens, 2) and which are ``editable``."""

    ids: Ids
    offsets: NDArray[np.int64]
    editable: NDArray[np.bool_]


def tokenized(ids: Any, offsets: Any, special: Any, text: str, prompt: str) -> Tokenized:
    """What a tokenizer made of ``prompt + text``, with places in ``text``.

    A token of the prompt is never editable, nor is one that holds a visible character of the prompt beside
    the text's first ones. One that begins with the white space at the prompt's end belongs to the text.

    Args:
        ids: of the tokens.
        offsets: of each token in ``prompt + text``, shape ``(tokens, 2)``.
        special: true for tokens that the tokenizer added.
        text: the user's text.
        prompt: what goes before it.
    """
    places = np.array(offsets, np.int64).reshape(-1, 2)
    visible = len(prompt.rstrip())
    in_text = (
        (places[:, 0] >= visible) & (places[:, 1] > len(prompt)) if prompt else np.ones(len(places), bool)
    )
    editable = ~np.array(special, np.bool_) & in_text
    return Tokenized(np.array(ids, np.int64), (places - len(prompt)).clip(0, len(text)), editable)


class SidedReaders(NamedTuple):
    """A reader for each side of a pair; the same one twice where the model reads both sides alike."""

    anchor: Reader
    positive: Reader

    @property
    def level(self) -> str:
        """What is edited; both readers are of one model."""
        return self.anchor.level


@dataclass(frozen=True)
class Reading:
    """A text that has been read.

    Attributes:
        text: as the user gave it.
        source: what the model is given: token ids, or the text.
        units: what can be intervened on, in the order of the text.
        end: the model read ``text[:end]``; beyond that it was cut off.
    """

    text: str
    source: Ids | str
    units: tuple[Unit, ...]
    end: int


class Reader(ABC):
    """What importance needs of a model. ``level`` says what is edited: ``tokens`` or ``text``."""

    level: ClassVar[str]

    @property
    @abstractmethod
    def can_mask(self) -> bool:
        """Whether units can be masked."""

    @abstractmethod
    def read(self, texts: Sequence[str], unit: str) -> list[Reading]:
        """Find the units of each text."""

    @abstractmethod
    def contents(self, reading: Reading) -> list[Content]:
        """What stands at each unit, fit to replace another unit with."""

    @abstractmethod
    def edit(self, reading: Reading, units: Mapping[int, Content | None], kind: str) -> Ids | str:
        """What the model is given when these units are intervened on; for ``replace`` with these contents."""

    @abstractmethod
    def encode(self, sources: Sequence[Ids | str]) -> Vectors:
        """Vectors of unit length (or zero), float32 ``(sources, dimension)``."""


@dataclass(frozen=True)
class TokenReader(Reader):
    """Edits token ids. Special tokens and prompts are never edited.

    Args:
        tokenize: texts to :class:`Tokenized`, cut off where the model cuts off.
        encode_ids: rows of ids to vectors.
        mask_id: id of the mask token, or None.
    """

    tokenize: Callable[[Sequence[str]], list[Tokenized]]
    encode_ids: Callable[[Sequence[Ids]], Vectors]
    mask_id: int | None
    level: ClassVar[str] = "tokens"

    @property
    def can_mask(self) -> bool:
        """Whether there is a mask token."""
        return self.mask_id is not None

    def read(self, texts: Sequence[str], unit: str) -> list[Reading]:
        """Tokenize, and put pieces together to words where ``unit`` is ``word``."""
        check_choice("unit", unit, UNITS)
        readings = []
        for text, tokens in zip(texts, self.tokenize(texts), strict=True):
            units = token_units(text, tokens.offsets, tokens.editable, unit)
            seen = tokens.offsets[tokens.editable, 1]
            end = int(seen.max()) if len(seen) else 0
            readings.append(Reading(text, tokens.ids, tuple(units), end if text[end:].strip() else len(text)))
        return readings

    def contents(self, reading: Reading) -> list[Content]:
        """The ids of each unit."""
        return [tuple(np.asarray(reading.source)[list(unit.pieces)].tolist()) for unit in reading.units]

    def edit(self, reading: Reading, units: Mapping[int, Content | None], kind: str) -> Ids:
        """Mask each piece, delete the pieces, or put the replacing pieces where the first one stood."""
        ids = np.array(reading.source, np.int64)
        pieces = [piece for unit in units for piece in reading.units[unit].pieces]
        if kind == "mask":
            ids[pieces] = _known_mask(self.mask_id)
            return ids
        if kind == "delete":
            return np.delete(ids, pieces)
        parts = [ids[i : i + 1] for i in range(len(ids))]
        for unit, content in units.items():
            first, *rest = reading.units[unit].pieces
            parts[first] = np.array(content, np.int64)
            for piece in rest:
                parts[piece] = parts[piece][:0]
        return np.concatenate(parts)

    def encode(self, sources: Sequence[Ids | str]) -> Vectors:
        """See :class:`Reader`."""
        return normalized(self.encode_ids([np.asarray(ids) for ids in sources]), sources)


@dataclass(frozen=True)
class TextReader(Reader):
    """Edits texts, word by word, for any function from texts to vectors.

    Masking writes ``mask_text`` in the word's place, as often as ``pieces`` says that the word has pieces.
    Deleting a word takes one of the spaces around it away as well.

    Args:
        encode_texts: texts to vectors.
        mask_text: what the model's tokenizer reads as its mask token, or None.
        pieces: number of pieces of each word in a list of words; one each where left out.
    """

    encode_texts: EncodeFunction
    mask_text: str | None = None
    pieces: Callable[[Sequence[str]], list[int]] | None = None
    level: ClassVar[str] = "text"

    @property
    def can_mask(self) -> bool:
        """Whether there is a mask text."""
        return self.mask_text is not None

    def read(self, texts: Sequence[str], unit: str) -> list[Reading]:
        """Find words.

        Raises:
            UsageError: ``unit`` is ``token``: a function from texts to vectors shows no tokens.
        """
        check_choice("unit", unit, UNITS)
        if unit == "token":
            raise UsageError(
                "unit='token' needs the tokens that the model reads, and this model is a function of texts",
                remedy="use unit='word', or give a SentenceTransformer or an encoder of leanmatch.load",
            )
        return [
            Reading(text, text, tuple(Unit(a, b, ()) for a, b in split_words(text).tolist()), len(text))
            for text in texts
        ]

    def contents(self, reading: Reading) -> list[Content]:
        """The text of each word."""
        return [reading.text[unit.start : unit.end] for unit in reading.units]

    def edit(self, reading: Reading, units: Mapping[int, Content | None], kind: str) -> str:
        """The text with these words masked, deleted or replaced."""
        text = reading.text
        for index in sorted(units, reverse=True):
            start, end = reading.units[index].start, reading.units[index].end
            if kind == "mask":
                count = 1 if self.pieces is None else max(1, self.pieces([text[start:end]])[0])
                text = text[:start] + " ".join([_known_mask(self.mask_text)] * count) + text[end:]
            elif kind == "replace":
                text = text[:start] + str(units[index]) + text[end:]
            else:
                text = _without(text, start, end)
        return text

    def encode(self, sources: Sequence[Ids | str]) -> Vectors:
        """See :class:`Reader`."""
        return normalized(self.encode_texts([str(text) for text in sources]), sources)


def _without(text: str, start: int, end: int) -> str:
    """Cut a word out, and a space with it where that leaves no two words glued together."""
    before, after = text[:start], text[end:]
    if after[:1].isspace() and (not before or before[-1].isspace()):
        after = after[1:]
    elif not after and before[-1:].isspace():
        before = before[:-1]
    return before + after


def normalized(vectors: Any, sources: Collection[Any]) -> Vectors:
    """Check what an encoder gave and bring it to unit length; a vector of zeros stays.

    Raises:
        ModelError: not one row of floating-point numbers a text, or a number that is not finite.
    """
    rows = np.asarray(vectors)
    if not len(sources) and rows.size == 0:
        return np.zeros((0, rows.shape[-1] if rows.ndim == 2 else 0), np.float32)
    if rows.ndim != 2 or len(rows) != len(sources) or not np.issubdtype(rows.dtype, np.floating):
        raise ModelError(
            f"the model gave shape {rows.shape} and type {rows.dtype} for {len(sources):,} texts",
            remedy="an encode function returns floating-point vectors, one row a text, in their order",
        )
    bad = np.count_nonzero(~np.isfinite(rows).all(axis=1))
    if bad:
        raise ModelError(
            f"the model gave NaN or infinity for {bad:,} of {len(rows):,} texts",
            remedy="check the model: training may have diverged, or half precision has overflowed",
        )
    norms = np.linalg.norm(rows.astype(np.float32, copy=False), axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(norms > 0, norms, 1.0), np.float32)


def check_intervention(reader: Reader, kind: str) -> None:
    """Refuse an intervention that does not exist or that the model cannot take.

    Raises:
        UsageError: unknown, or masking without a mask token.
    """
    check_choice("intervention", kind, INTERVENTIONS)
    if kind == "mask" and not reader.can_mask:
        raise UsageError(
            "the intervention 'mask' needs a mask token, and this model has none that is known",
            remedy="use intervention='delete' or 'replace', or name one with mask_text=",
        )


def _known_mask(mask: Any) -> Any:
    assert mask is not None, "check_intervention comes first"
    return mask
