"""Catalogues that are damaged or hostile: our errors, or the right answer, in bounded memory.

``LEANMATCH_FUZZ_ROUNDS`` and ``LEANMATCH_FUZZ_SEED`` make a longer run, as ``make fuzz`` does.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import shutil
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("faiss", reason="faiss-cpu is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from catalogue_models import HashEncoder, items_of_shop

from leanmatch.errors import LeanmatchError
from leanmatch.index import (
    Catalogue,
    Item,
    SourceColumns,
    WriteOptions,
    create_catalogue,
    delete_items,
    parse_filter,
    put_extra,
    upsert_items,
)

ROUNDS = int(os.environ.get("LEANMATCH_FUZZ_ROUNDS", "600"))
SEED = int(os.environ.get("LEANMATCH_FUZZ_SEED", "0"))
MEMORY = 256 * 2**20
"""Bytes that a damaged catalogue may take beyond those taken when it is opened."""

ENCODER = HashEncoder()
TEXTS = ["thing number 3", "x 2"]
QUERIES = ENCODER(TEXTS)
FILTERS = [None, parse_filter('price < 5 or code = "07"'), parse_filter("n in (9007199254740993, 0.5)")]

Damage = Callable[[random.Random, bytes], bytes]


def build(folder: Path, kind: str) -> Path:
    """Two segments with all types of columns, deleted rows and a further file."""
    hybrid = find_spec("bm25s") is not None  # the extra hybrid
    options = WriteOptions(kind=kind, source=SourceColumns("id", ("text",)), hybrid=hybrid)
    create_catalogue(folder, items_of_shop(60), ENCODER, options)
    delete_items(folder, ["i2", "i5"])
    more = [Item(f"x{n}", f"x {n}", {"n": 2**53 + n if n % 2 else n / 2, "shop": "é" * n}) for n in range(9)]
    upsert_items(folder, more, ENCODER)
    delete_items(folder, ["x3"])
    put_extra(folder, "reference", lambda path: path.write_text("{}"), ".json")
    return folder


def answers(folder: Path) -> Any:
    """What a catalogue says, as plain values."""
    catalogue = Catalogue.open(folder)
    found = []
    for expression in FILTERS:
        for one in (
            *catalogue.search(QUERIES, 4, filters=[expression] * len(QUERIES)),
            *catalogue.search(
                QUERIES, 4, filters=[expression] * len(QUERIES), texts=TEXTS if catalogue.hybrid else None
            ),
        ):
            assert np.isfinite(one.scores).all()
            found.append(
                [(catalogue.document(row), round(s, 6)) for row, s in zip(one.rows, one.scores, strict=True)]
            )
    return found, catalogue.facets(), catalogue.same_as("x 1"), len(catalogue)


def changed(folder: Path) -> Any:
    """What a catalogue says after items were added, changed and deleted."""
    new = [Item("new", "a new text", {"price": "9.10"}), Item("i4", "thing number 4", {"price": 3})]
    upsert_items(folder, new, ENCODER)
    delete_items(folder, ["i7", "x1"])
    return answers(folder)


def bits(rng: random.Random, whole: bytes) -> bytes:
    broken = bytearray(whole)
    for _ in range(rng.randint(1, 8)):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def early_bits(rng: random.Random, whole: bytes) -> bytes:
    return bits(rng, whole[:300]) + whole[300:]


def late_bits(rng: random.Random, whole: bytes) -> bytes:
    """The directory of an archive is at its end."""
    return whole[:-300] + bits(rng, whole[-300:])


def shorter(rng: random.Random, whole: bytes) -> bytes:
    return whole[: rng.randrange(len(whole))]


def longer(rng: random.Random, whole: bytes) -> bytes:
    return whole + rng.randbytes(rng.randint(1, 40))


def swapped(rng: random.Random, whole: bytes) -> bytes:
    """A run of bytes from elsewhere."""
    length = rng.randint(1, min(64, len(whole)))
    source, target = (rng.randrange(len(whole) - length + 1) for _ in range(2))
    return whole[:target] + whole[source : source + length] + whole[target + length :]


def large_number(rng: random.Random, whole: bytes) -> bytes:
    """A length becomes huge, or odd."""
    form = rng.choice(("<i", "<q"))
    size = struct.calcsize(form)
    at = rng.randrange(max(1, min(len(whole), 600) - size))
    value = rng.choice((-1, 0, 1, 2**31 - 1, -(2**31), *((2**40, 2**62, -(2**63)) if size == 8 else ())))
    return whole[:at] + struct.pack(form, value) + whole[at + size :]


def header(rng: random.Random, whole: bytes) -> bytes:
    """Another shape or type in the header of an array."""
    at = whole.find(b"'descr'")
    end = whole.find(b"\n", at)
    text = whole[at - 1 : end].decode("latin-1")
    rows = rng.choice(("1000000000, 0", "0, 1000000000", "2000000000,", "", "-1,", "3, 3, 3", "9" * 30 + ","))
    kind = rng.choice(("<f8", "<f4", "|O", "<i8", ">f4", "|V8", "<U99999", "|S1", "<M8[s]"))
    if rng.random() < 0.6:
        start, stop = text.find("("), text.find(")")
        text = text[: start + 1] + rows + text[stop:]
    elif rng.random() < 0.8:
        text = text.replace(text[text.find("<") : text.find("<") + 3], kind, 1)
    else:
        text = "(" * rng.randint(1, 60) + text
    return whole[: at - 1] + text.ljust(end - at + 1).encode("latin-1")[: end - at + 1] + whole[end:]


def within(rng: random.Random, whole: bytes) -> bytes:
    """An archive with right checksums, of which one array is damaged, missing or another's."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(arrays))
    kind = rng.randrange(12)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[rng.choice(list(arrays))] = arrays[name]
    elif kind == 2:
        arrays[f"column{rng.randrange(9)}.{rng.choice(('values', 'data', 'whole', 'integers'))}.npy"] = (
            arrays[name]
        )
    elif kind < 5:
        arrays[name] = header(rng, arrays[name])
    else:
        content = arrays[name]
        damage = rng.choice((bits, swapped, large_number, late_bits)) if len(content) > 128 else bits
        arrays[name] = content[:128] + (damage(rng, content[128:]) if len(content) > 128 else b"")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in arrays.items():
            archive.writestr(name, content)
    return out.getvalue()


VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 3, 2_000_000_000, 2**40, 2**70, 1e300, float("nan"), "", "int", "text", "number",
    "..", "../../etc/passwd", "manifest.json", "a\x00b", "\ud800", [], [[]], [1], {}, {"a": 1},
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(value, key) for key in keys] + [deep for key in keys for deep in places(value[key])]


def edited(rng: random.Random, whole: bytes) -> bytes:
    """A value of the manifest replaced, deleted, doubled or nested."""
    document = json.loads(whole)
    every = places(document)
    if not every:
        return b"[" * rng.choice((1, 3_000, 200_000))
    container, key = rng.choice(every)
    kind = rng.randrange(7)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    elif kind == 2 and type(container[key]) in (int, float):
        container[key] = container[key] * rng.choice((-1, 2, 0.5, 1000)) + rng.choice((0, 1, -1))
    elif kind == 3 and isinstance(container, list):
        container.append(container[key])
        if rng.random() < 0.5 and isinstance(container[key], dict) and "rows" in container[key]:
            document["items"] += container[key]["rows"] - container[key]["dead_rows"]
    elif kind == 4:
        container[key] = rng.choice(every)[0]
        return (
            json.dumps(document, default=str, check_circular=False).encode()
            if not _cycle(document)
            else b"{}"
        )
    elif kind == 5:
        return b'{"format": ' + b"[" * rng.choice((900, 3_000, 200_000)) + b"}"
    else:
        container[key] = rng.choice(VALUES)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _cycle(value: Any, above: tuple[int, ...] = ()) -> bool:
    if id(value) in above:
        return True
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_cycle(part, (*above, id(value))) for part in parts)


def damages(file: Path) -> tuple[Damage, ...]:
    common = (bits, early_bits, late_bits, shorter, longer, swapped, large_number)
    if file.suffix == ".json":
        return (bits, shorter, *(edited,) * 8)
    if file.suffix == ".npz":
        return (*common, *(within,) * 8)
    return (*common, header, header) if file.suffix == ".npy" else common


def signed(manifest: bytes, file: Path, content: bytes) -> bytes:
    """The manifest with the right size and checksum of a changed file: what somebody hostile writes."""
    document = json.loads(manifest)
    for container, key in places(document):
        if isinstance(container[key], dict) and container[key].get("name") == file.name:
            container[key]["bytes"] = len(content)
            container[key]["sha256"] = hashlib.sha256(content).hexdigest()
    return json.dumps(document).encode()


class Fuzz:
    """Damage to one file of a catalogue at a time, which is whole again afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole = {path: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".lock"}
        self.manifest = folder / "manifest.json"
        self.right = {answers: answers(folder), changed: changed(folder)}
        self.restore()
        self.counts: Counter[str] = Counter()

    def restore(self) -> None:
        """Make the folder what it was, of new files: the old ones are mapped by open catalogues."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path, content in self.whole.items():
            path.write_bytes(content)

    def round(self, rng: random.Random) -> None:
        file = rng.choice(list(self.whole))
        damage = rng.choice(damages(file))
        broken = damage(rng, self.whole[file])
        sign = file != self.manifest and rng.random() < 0.7
        use = changed if rng.random() < 0.1 else answers
        file.unlink()
        file.write_bytes(broken)
        if sign:
            self.manifest.write_bytes(signed(self.whole[self.manifest], file, broken))
        try:
            self.counts[self._outcome(use, sign or file == self.manifest)] += 1
        except Exception as error:
            kept = Path(os.environ.get("LEANMATCH_FUZZ_KEEP", self.folder.parent / "failed"))
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(self.folder, kept)
            what = f"{use.__name__}, {damage.__name__} of {file.name}, signed: {sign}, kept in {kept}"
            raise AssertionError(what) from error
        finally:
            self.restore()

    def _outcome(self, use: Callable[[Path], Any], hostile: bool) -> str:
        """'refused', 'right', or, where checksums and manifest agree, 'another' catalogue's sound answer."""
        try:
            said = use(self.folder)
        except LeanmatchError as error:
            assert len(str(error)) < 2_000
            return "refused"
        if said == self.right[use]:
            return "right"
        assert hostile, "damage that no checksum and no manifest covers changed the answer"
        return "another"


@pytest.fixture
def little_memory():
    """More than :data:`MEMORY` beyond what is in use is refused by the system."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is bounded as Linux does it")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_a_fuzzed_catalogue(tmp_path, kind, little_memory):
    fuzz = Fuzz(build(tmp_path / "c", kind))
    for number in range(ROUNDS // 3):
        seed = f"{SEED} {kind} {number}"
        try:
            fuzz.round(random.Random(seed))
        except AssertionError as error:
            raise AssertionError(f"round {seed}: {error}") from error
    assert fuzz.counts["refused"] > ROUNDS / 6, f"the faults were not faults: {fuzz.counts}"
    assert answers(fuzz.folder) == fuzz.right[answers]
    print(kind, dict(fuzz.counts))
