"""No bars where there is nothing to wait for, no complaints of weights that are missing on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_bars() -> Iterator[None]:
    """No bar for each weight that is read; the caller's setting is put back."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No bars, no reports of missing weights; the caller's settings are put back."""
    from transformers.utils import logging

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
