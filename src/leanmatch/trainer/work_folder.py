"""A run's work folder: what a killed run left, and whether it may be continued.

::

    WORK/lock                          held by the process that works here
    WORK/run.json                      fingerprint of options, data and versions
    WORK/STAGE/checkpoint-N/           trainer state; complete only with its marker file
    WORK/STAGE/final.safetensors       weights of a stage that is done
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanmatch.errors import LeanmatchError
from leanmatch.files import locked, write_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

MARKER = "complete"
RECORD = "run.json"
LOCK = "lock"


class WorkFolder:
    """Opens or makes the work folder of a run.

    Args:
        path: the folder.
        identity: whatever decides the run's outcome; JSON values only.
        resume: continue what is there; otherwise it is removed first.
        lock: let no second process use the folder until this context is left or the process ends.

    Raises:
        LeanmatchError: the folder belongs to a run with another identity, or to one that is running.
    """

    def __init__(
        self, path: str | Path, identity: dict[str, Any], *, resume: bool = True, lock: bool = False
    ) -> None:
        self.path = Path(path)
        self.resumed = False
        self._refuse_foreign()
        self._lock = _locked(self.path / LOCK) if lock else None
        try:
            self._open(identity, resume)
        except BaseException:
            self.__exit__()
            raise

    def _open(self, identity: dict[str, Any], resume: bool) -> None:
        text = json.dumps(identity, sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        record = self.path / RECORD
        if not resume:
            self._clear()
        if record.exists():
            try:
                there = json.loads(record.read_text(encoding="utf-8"))
                stored, before = there["fingerprint"], there["identity"]
            except (ValueError, KeyError, TypeError) as error:
                raise LeanmatchError(
                    f"{record} cannot be read ({error})",
                    remedy="start anew with resume=False",
                    command="start anew with --no-resume",
                ) from error
            if stored != fingerprint and not self._holds_work():
                self._clear()  # it failed or was stopped before there was anything to lose
            elif stored != fingerprint:
                raise LeanmatchError(
                    f"{self.path} holds an unfinished run with other settings: "
                    f"{_difference(before, identity)}",
                    remedy="repeat that run to finish it, name another folder, or pass resume=False",
                    command="repeat that command to finish it, name another output, or use --no-resume",
                )
            else:
                self.resumed = True
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(record, {"fingerprint": fingerprint, "identity": identity})

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the next process in."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def stage(self, name: str) -> Path:
        """Folder of one training stage."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path)

    def _refuse_foreign(self) -> None:
        """A folder that some other program made is never touched."""
        if self.path.exists() and not (self.path / RECORD).exists() and self._contents():
            raise LeanmatchError(
                f"{self.path} is there already and is no work folder of leanmatch",
                remedy="move it away or name another output",
            )

    def _holds_work(self) -> bool:
        """Whether anything is lost with the folder: any file but the record and half-written checkpoints."""
        return any(
            file.is_file()
            and file.name not in (RECORD, LOCK)
            and not (file.parent.name.startswith("checkpoint-") and not (file.parent / MARKER).exists())
            for file in self.path.rglob("*")
        )

    def _clear(self) -> None:
        for entry in self._contents():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _contents(self) -> list[Path]:
        return [entry for entry in self.path.glob("*") if entry.name != LOCK]


def _locked(path: Path) -> BaseFileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = locked(path)
    if lock is None:
        raise LeanmatchError(
            f"another process is training in {path.parent}",
            remedy="wait for it, or name another output",
        )
    return lock


def last_checkpoint(stage: Path) -> Path | None:
    """The newest complete checkpoint of a stage; half-written ones are removed."""
    complete = []
    for folder in stage.glob("checkpoint-*"):
        if (folder / MARKER).exists():
            complete.append(folder)
        else:
            shutil.rmtree(folder)
    return max(complete, key=lambda folder: int(folder.name.rsplit("-", 1)[1]), default=None)


def _difference(before: Any, now: Any, prefix: str = "") -> str:
    """The first few settings that differ, as ``name: before -> now``."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        parts = [_difference(before.get(n), now.get(n), f"{prefix}.{n}" if prefix else n) for n in names[:3]]
        return "; ".join(parts)
    return f"{prefix} was {before!r}, now {now!r}"
