"""One slice at a time: the work that every engine hands out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from leanmatch.batch.encode import Encode
from leanmatch.batch.locations import Folder, InputFile
from leanmatch.batch.parts import PartNote, write_part
from leanmatch.batch.plan import Plan
from leanmatch.batch.rows import NO_ROWS, read_slice
from leanmatch.data.problems import Problems
from leanmatch.errors import LeanmatchError


class WriteError(LeanmatchError):
    """The output cannot be written: a full disk, missing rights, a connection that is lost."""


@dataclass
class Job:
    """A plan with its inputs and output. It can be pickled; the model is opened where the work is done.

    Attributes:
        plan: what is encoded.
        files: its inputs.
        output: path or URL of the folder.
        encode: makes the vectors.
    """

    plan: Plan
    files: list[InputFile]
    output: str
    encode: Encode
    _folder: Folder | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_folder": None}

    @property
    def folder(self) -> Folder:
        """The output."""
        if self._folder is None:
            self._folder = Folder(self.output)
        return self._folder

    def run(self, number: int) -> PartNote:
        """Encode one slice and write its part.

        Raises:
            DataError: a bad row.
            WriteError: the part could not be written.
        """
        part = self.plan.slices[number]
        problems = Problems(self.files[part.file], self.plan.on_error)
        truncated = self.encode.truncated
        try:
            return write_part(
                self.folder,
                self.plan.key,
                number,
                self._tables(number, problems),
                self.encode.schema(NO_ROWS),
                lambda: (len(problems.skipped), self.encode.truncated - truncated),
            )
        except OSError as error:
            raise WriteError(
                f"{self.output} could not be written ({error})",
                remedy="make room or correct the address and the rights, then give the same command again: "
                "finished parts are kept",
            ) from error

    def _tables(self, number: int, problems: Problems) -> Iterator[Any]:
        part = self.plan.slices[number]
        source = self.files[part.file], self.plan.scans[part.file], part
        for table in read_slice(*source, self.plan.id_column, self.plan.text_columns, problems):
            yield self.encode(table)
