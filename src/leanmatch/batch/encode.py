"""Arrow tables in, Arrow tables with a column of vectors out: what every engine calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from leanmatch.batch.options import PRECISIONS, ROLES, one_of
from leanmatch.data.arrow import pa
from leanmatch.data.readers.items import joined_parts
from leanmatch.errors import DataError, UsageError
from leanmatch.models import DOCUMENT, PromptOptions, RoleEncoder, TokenTally, keep_dimensions
from leanmatch.types import Vectors

TableOrBatch = TypeVar("TableOrBatch")

SCALE = "_scale"
"""Ending of the column with the scales of ``int8`` vectors."""


class Encode:
    """Adds vectors to Arrow tables. The model is opened at the first call, in the process that calls.

    Give it to Ray Data (``map_batches(..., batch_format="pyarrow")``), or :meth:`batches` to Spark
    (``mapInArrow``). It can be pickled; what travels is the options, not the model.

    Args:
        model: folder or name of a model, as the workers know it.
        text_columns: the column of the text, or several, joined by a space.
        role: ``document`` or ``query``, which decides the prompt.
        prompts: other prompts than the model's own.
        dimensions: leading dimensions of the vectors to keep (Matryoshka); None for those of the model.
        precision: number format of the vectors: ``float32``, ``float16``, or ``int8`` (``v ~ scale * codes``;
            the scales, float32, stand in a column of their own: ``vector_scale``).
        threads: threads of the native runtime; all CPUs that the process may use where not given.
        vector_column: what the column of vectors is called.
        fixed_size: vectors are lists of one fixed size; False for Spark, which knows only lists of any size.

    Raises:
        UsageError: no such role or precision; when the model is opened, more dimensions than it has, or fewer
            than 1.
    """

    def __init__(
        self,
        model: str | Path,
        text_columns: str | Sequence[str] = "text",
        *,
        role: str = DOCUMENT,
        prompts: PromptOptions | None = None,
        precision: str = "float32",
        threads: int | None = None,
        vector_column: str = "vector",
        fixed_size: bool = True,
        dimensions: int | None = None,
    ) -> None:
        one_of("role", role, ROLES)
        one_of("precision", precision, PRECISIONS)
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}", remedy="give 1 or more")
        self.model = str(model)
        self.text_columns = (text_columns,) if isinstance(text_columns, str) else tuple(text_columns)
        self.role, self.prompts, self.precision = role, prompts, precision
        self.threads, self.vector_column, self.fixed_size = threads, vector_column, fixed_size
        self.dimensions = dimensions
        self._encoder: Any = None
        self._tally = TokenTally()

    @property
    def truncated(self) -> int:
        """Texts so far that were longer than the model reads, in this process."""
        return self._tally.counts.truncated

    @property
    def encoder(self) -> Any:
        """The model, with the prompts that were asked for."""
        if self._encoder is None:
            from leanmatch.runtime import load

            encoder = load(self.model)
            if self.prompts:
                encoder.set_prompts(self.prompts)
            self._encoder = keep_dimensions(encoder, self.dimensions)
        return self._encoder

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None, "_tally": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _tally=TokenTally())

    def __call__(self, table: TableOrBatch) -> TableOrBatch:
        """A ``pyarrow.Table`` or ``RecordBatch`` with the columns of vectors behind its own.

        Raises:
            DataError: a column that is missing or holds no text, a blank text (with its row in the table), or
                a column that is there under the name of the vectors.
        """
        source: Any = table
        names = source.schema.names
        for name in self.text_columns:
            if name not in names:
                raise DataError(
                    f"there is no column {name!r}; the columns are: {', '.join(names)}",
                    remedy="name the column of the text: text_columns=",
                )
        if self.vector_column in names:
            raise DataError(
                f"there is a column {self.vector_column!r} already",
                remedy="give the vectors another name: vector_column=",
            )
        vectors = self.vectors(self._texts(source))
        for field, column in self._columns(vectors).items():
            source = source.append_column(field, column)
        return source  # type: ignore[no-any-return]

    def batches(self, batches: Iterable[Any]) -> Iterator[Any]:
        """:meth:`__call__` of each record batch: the function for Spark's ``mapInArrow``."""
        for batch in batches:
            yield self(batch)

    def schema(self, schema: Any) -> Any:
        """The schema of what comes out, for the schema of what goes in. Opens the model."""
        dimension = int(self.encoder.dimension)
        for field in self._fields(dimension):
            schema = schema.append(field)
        return schema

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, float32, unit length."""
        options: dict[str, Any] = {}
        if self.threads is not None:
            if not hasattr(self.encoder, "choices"):
                raise UsageError(
                    f"{self.model} runs on sentence-transformers, whose threads torch sets",
                    remedy="leave threads out, and set OMP_NUM_THREADS",
                )
            options["threads"] = self.threads
        if hasattr(self.encoder, "count_tokens"):
            options["tally"] = self._tally
        return RoleEncoder(self.encoder, **options).of_role(self.role)(texts)

    def _texts(self, table: Any) -> list[str]:
        parts = [table.column(name).to_pylist() for name in self.text_columns]
        texts = [joined_parts(values) for values in zip(*parts, strict=True)]
        for row, text in enumerate(texts, start=1):
            if not text:
                raise DataError(
                    "the text is missing or blank",
                    line=row,
                    column=" + ".join(self.text_columns),
                    value=parts[0][row - 1],
                    remedy="give each row a text, or filter such rows out",
                )
        return texts

    def _fields(self, dimension: int) -> list[Any]:
        kinds = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}
        value = pa.field("element", kinds[self.precision], nullable=False)
        fields = [
            pa.field(
                self.vector_column, pa.list_(value, dimension if self.fixed_size else -1), nullable=False
            )
        ]
        if self.precision == "int8":
            fields.append(pa.field(self.vector_column + SCALE, pa.float32(), nullable=False))
        return fields

    def _columns(self, vectors: Vectors) -> dict[Any, Any]:
        """Arrow columns by their fields."""
        fields = self._fields(vectors.shape[1])
        if self.precision != "int8":
            return {fields[0]: _lists(np.ascontiguousarray(vectors, dtype=self.precision), fields[0].type)}
        codes, scales = to_int8(vectors)
        return {fields[0]: _lists(codes, fields[0].type), fields[1]: pa.array(scales, pa.float32())}


def to_int8(vectors: Vectors) -> tuple[Any, Any]:
    """Codes and scales of vectors: ``scale = max |v| / 127``, ``codes = round(v / scale)``.

    Returns:
        int8 ``(rows, dimension)`` and float32 ``(rows,)``. A zero vector has scale 0.

    >>> codes, scales = to_int8(np.array([[1.0, -0.5], [0.0, 0.0]], np.float32))
    >>> codes.tolist(), [round(float(scale), 6) for scale in scales]
    ([[127, -64], [0, 0]], [0.007874, 0.0])
    """
    scales = (np.abs(vectors).max(axis=1, initial=0.0) / 127).astype(np.float32)
    divisors = np.where(scales > 0, scales, 1.0)[:, None]
    return np.rint(vectors / divisors).astype(np.int8), scales


def from_stored(codes: Any, scales: Any | None) -> Vectors:
    """Stored vectors as float32 of unit length: ``scale * codes / |scale * codes|``."""
    vectors = np.asarray(codes, dtype=np.float32)
    if scales is not None:
        vectors = vectors * np.asarray(scales, np.float32)[:, None]
    elif np.asarray(codes).dtype == np.float32:
        return vectors
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norms > 0, norms, 1.0)
    return vectors


def _lists(rows: Any, kind: Any) -> Any:
    """A matrix as an Arrow array of lists."""
    values = pa.array(rows.reshape(-1), kind.value_type)
    if hasattr(kind, "list_size"):
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    return pa.ListArray.from_arrays(
        np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1], values, type=kind
    )
