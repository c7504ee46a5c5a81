"""The libraries complain of weights that are missing in a folder that has none on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No bars, no reports of missing weights; the caller's settings are put back."""
    from transformers.utils import logging

    from leanmatch.formats.reader import quiet_bars

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    library = logging.get_logger("transformers.modeling_utils")
    disabled, library.disabled = library.disabled, True
    try:
        with quiet_bars():
            yield
    finally:
        library.disabled = disabled
        logging.set_verbosity(level)
