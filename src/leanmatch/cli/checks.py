"""What a command checks before it reads data or loads a model: cheap to see now, minutes later a waste."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from leanmatch.errors import LeanmatchError, MissingExtraError, ModelError, UsageError

PICTURES = (".svg", ".png", ".pdf")
"""Formats of pictures, by the endings of their names."""

HUB_TIMEOUT = 10.0
"""Seconds to wait for the hub; a slow answer stops nothing."""


def check_models(*names: str | None) -> None:
    """Refuse models that cannot be loaded because they are not there; nothing is loaded or downloaded.

    Raises:
        ModelError: a folder without a model, or a name that neither the cache nor the hub knows.
        MissingExtraError: the package that carries the model is not installed.
    """
    from leanmatch.formats import find_model
    from leanmatch.formats.reader import PACKAGED_COPIES

    for name in dict.fromkeys(name for name in names if name is not None):
        if find_model(name) is None:
            _check_hub_name(name, PACKAGED_COPIES.get(name))


def _check_hub_name(name: str, package: str | None) -> None:
    """Refuse a name that neither the hub nor its cache has; ``package`` carries the same model."""
    try:
        from huggingface_hub import HfApi, constants, try_to_load_from_cache
        from huggingface_hub.errors import RepositoryNotFoundError
    except ImportError:  # loading says what is missing
        return
    meant = [name] if "/" in name else [f"sentence-transformers/{name}", name]
    for repository in meant:
        files = [try_to_load_from_cache(repository, file) for file in ("modules.json", "config.json")]
        if any(isinstance(file, str) for file in files):
            return
    without_hub = f"; or bring the model without the hub: pip install {package}" if package else ""
    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"there is no folder {name!r}, and no model of that name has been downloaded to this machine",
            remedy="name the folder of a model, or unset HF_HUB_OFFLINE so that it can be downloaded"
            + without_hub,
        )
    unknown = 0
    for repository in meant:
        try:
            HfApi().model_info(repository, timeout=HUB_TIMEOUT)
            return
        except RepositoryNotFoundError:
            unknown += 1
        except Exception as error:  # of whichever library asks
            if "Connect" not in type(error).__name__:
                return  # a proxy, a limit, a slow answer: loading will tell
            raise ModelError(
                f"there is no folder {name!r}, no model of that name has been downloaded, and the "
                f"hub cannot be reached ({error})",
                remedy="name the folder of a model, or check the name and the network" + without_hub,
            ) from error
    if unknown == len(meant):
        raise ModelError(
            f"there is neither a folder {name!r} nor a model of that name on the hub",
            remedy="check the name; a private model needs a token (HF_TOKEN)",
        )


def check_writable(target: Path, *, folder: bool) -> None:
    """Refuse an output that could not be written.

    Args:
        target: the file or folder to write.
        folder: which of the two it is to be.

    Raises:
        UsageError: a folder where a file is meant, or a file where a folder is.
        LeanmatchError: a place that nothing can be written to.
    """
    if folder and target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file", remedy="name a folder to write to")
    if not folder and target.is_dir():
        raise UsageError(f"{target} is a folder", remedy=f"name a file in it: {target / 'FILE'}")
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise LeanmatchError(
            f"{parent} is a file: nothing can be written below it", remedy="name another place"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise LeanmatchError(
            f"{parent} cannot be written to", remedy="name another place, or get the right to write there"
        )


def figure_class(path: Path, purpose: str) -> Any:
    """matplotlib's ``Figure``, for a picture that is to be written to ``path``.

    Raises:
        UsageError: another format than :data:`PICTURES`.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in PICTURES:
        raise UsageError(
            f"a plot cannot be written as {path.name!r}", remedy=f"end it in {', '.join(PICTURES)}"
        )
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "report", purpose) from error
    return Figure
