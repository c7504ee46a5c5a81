"""``--target``: unlabelled texts of where the model will be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from leanmatch.cli.common import delimiter_for, skipped_lines
from leanmatch.errors import UsageError

if TYPE_CHECKING:
    from leanmatch.cli.train.request import TrainRequest


def read_target(request: TrainRequest, say: Callable[[str], None]) -> list[str]:
    """The texts; none where none were asked for.

    Raises:
        UsageError: text columns without a target.
        DataError: a file without texts, without a column of them, or with a row without one.
    """
    file = request.target
    if file is None:
        if request.text_columns:
            raise UsageError(
                f"--text-column {request.text_columns[0]} names a column of --target, which is not given",
                remedy="give --target FILE, or name columns of the pairs with --column",
            )
        return []
    from leanmatch.data.readers.items import read_texts

    texts, skipped = read_texts(
        file,
        request.text_columns,
        on_error=request.on_error,  # type: ignore[arg-type]
        delimiter=delimiter_for(file, request.delimiter),
    )
    for line in skipped_lines(skipped):
        say(line)
    return texts
