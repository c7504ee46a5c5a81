"""Which files of an output folder :func:`leanmatch.batch.encode_files` wrote, and removing those alone."""

from __future__ import annotations

from leanmatch.batch.finish import COMPLETE
from leanmatch.batch.locations import PARTIAL, Folder
from leanmatch.batch.parts import PARTS, is_part
from leanmatch.batch.plan import MANIFEST, is_manifest
from leanmatch.errors import UsageError


def other_files(folder: Folder) -> list[str]:
    """Files below the folder that no encoding wrote, by name.

    An encoding writes ``manifest.json`` of its own kind, ``complete.json`` and ``parts/part-*.parquet``; its
    temporary files begin with ``.partial-``. Without that manifest only temporary files are its own.
    """
    content = folder.read(MANIFEST)
    encoded = content is not None and is_manifest(content)
    return sorted(name for name in folder.sizes() if not _is_own(name, encoded))


def _is_own(name: str, encoded: bool) -> bool:
    inner = name.removeprefix(f"{PARTS}/")
    if inner.startswith(PARTIAL):
        return True
    return encoded and (name in {MANIFEST, COMPLETE} or (inner != name and is_part(inner)))


def clear(folder: Folder) -> None:
    """Remove what an earlier encoding wrote. The manifest goes last, so that a killed call can be repeated.

    Raises:
        UsageError: the folder holds a file that no encoding wrote. Nothing is removed then.
    """
    others = other_files(folder)
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UsageError(
            f"{folder} holds a file that leanmatch encode did not write: {others[0]}{more}",
            remedy="name a new folder, or move that file elsewhere; nothing was removed",
        )
    names = folder.sizes()
    if COMPLETE in names:
        folder.remove(COMPLETE)
    folder.remove_below(PARTS)
    for name in dict.fromkeys(name.partition("/")[0] for name in names if name.startswith(PARTIAL)):
        folder.remove_below(name)
    if MANIFEST in names:
        folder.remove(MANIFEST)
