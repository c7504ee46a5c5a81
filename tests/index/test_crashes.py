"""SIGKILL around every fsync, rename, unlink and mkdir of every operation: old or new, never a mixture."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("faiss", reason="faiss-cpu is not installed")
if sys.platform != "linux":
    pytest.skip("needs fork and SIGKILL", allow_module_level=True)

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import crash_child  # noqa: E402
from catalogue_models import HashEncoder, items_of_shop, state_of  # noqa: E402

from leanmatch.errors import FormatError  # noqa: E402
from leanmatch.index import Catalogue, check_files, create_catalogue, read_manifest, upsert_items  # noqa: E402

TRIALS: dict[str, int] = {}


@pytest.fixture(scope="module")
def zygote():
    process = subprocess.Popen(
        [sys.executable, HERE / "crash_child.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.stdin.close()
    assert process.wait(30) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "catalogue"
    create_catalogue(folder, crash_child.ITEMS, HashEncoder())
    upsert_items(folder, items_of_shop(2, start=50), HashEncoder())  # so that there are two segments
    return folder


def trial(zygote, operation, folder, kill_at):
    """Steps that the operation took, or None where it was killed."""
    print(operation, kill_at, folder, file=zygote.stdin, flush=True)
    code, steps = zygote.stdout.readline().split()
    assert code in ("0", "-9"), code
    return int(steps) if code == "0" else None


def seen(folder):
    """What a reader sees: the generation and everything in it; None where there is no catalogue."""
    try:
        catalogue = Catalogue.open(folder)
    except FormatError as error:
        assert "is no catalogue" in str(error) and "leanmatch index" in error.remedy
        return None
    check_files(folder, catalogue.manifest)
    lexical = catalogue.lexical("thing number 3").tolist() if catalogue.hybrid else None
    return catalogue.manifest.model.name, catalogue.manifest.kind, lexical, state_of(catalogue)


@pytest.mark.parametrize("operation", list(crash_child.OPERATIONS))
def test_killed_at_every_step(zygote, made, tmp_path, operation):
    def fresh(name):
        folder = tmp_path / name
        if operation != "build":
            shutil.copytree(made, folder)
        return folder

    whole = fresh("whole")
    steps = trial(zygote, operation, whole, 0)
    assert steps >= 8
    old, new = (None if operation == "build" else seen(made)), seen(whole)
    assert old != new  # the operation does something
    left = {path.name for path in whole.iterdir()}
    killed = {"old": 0, "new": 0}
    moments = sorted({*range(1, steps + 1, max(1, steps // 25)), *range(steps - 20, steps + 1)})
    for kill_at in moments:  # spread over all, and every one around the switch and after it
        folder = fresh(f"killed-{kill_at}")
        assert trial(zygote, operation, folder, kill_at) is None
        after = seen(folder)
        assert after in (old, new), kill_at
        killed["old" if after == old else "new"] += 1
        if kill_at % 5 == 0 or kill_at > steps - 3:  # the next one finds its way, and leaves nothing behind
            if after == new and operation == "build":
                continue
            assert trial(zygote, operation, folder, 0) is not None
            assert seen(folder) == new
            stray = {
                path.name for path in folder.iterdir() if path.name.startswith((".partial", ".building"))
            }
            assert not stray and len(list(folder.iterdir())) <= len(left) + 3
        shutil.rmtree(folder, ignore_errors=True)
    assert killed["old"] and killed["new"]
    TRIALS[operation] = len(moments)


def test_there_were_enough_moments():
    if len(TRIALS) < len(crash_child.OPERATIONS):
        pytest.skip("only with all operations")
    assert sum(TRIALS.values()) >= 50, TRIALS


def test_every_file_is_synced_before_the_switch(tmp_path, monkeypatch):
    """What SIGKILL cannot show (the page cache survives it): the order of fsync and rename."""
    import os

    events = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        events.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        return real_fsync(descriptor)

    def replace(source, target, **options):
        events.append(("replace", str(source), str(target)))
        return real_replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    folder = tmp_path / "c"
    create_catalogue(folder, items_of_shop(3), HashEncoder())
    switch = next(
        i for i, event in enumerate(events) if event[0] == "replace" and event[2].endswith("manifest.json")
    )
    for file in read_manifest(folder).files:
        moved = next(
            i
            for i, event in enumerate(events)
            if event[0] == "replace" and event[2] == str(folder / file.name)
        )
        assert ("fsync", events[moved][1]) in events[:moved], file.name  # content before name
        assert ("fsync", str(folder)) in events[moved:switch], file.name  # name before the switch
    assert ("fsync", str(folder)) in events[switch:]  # the switch itself before it is acknowledged
