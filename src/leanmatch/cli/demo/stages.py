"""Stages of a road: each is done once, recorded, and done again only when something before it changed.

A stage's key is the hash of what it does and of the keys that it rests on. Its record is written when it is
done; a mark with the key is written when it begins, so that work which a killed run left half done is
continued where it belongs to the same stage, and dropped where it belongs to another.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanmatch import __version__
from leanmatch.errors import LeanmatchError

if TYPE_CHECKING:
    from rich.console import Console

Execute = Callable[[Sequence[str]], str]
"""Runs one ``leanmatch`` command with these arguments; gives what it wrote to stdout."""


@dataclass(frozen=True)
class Stage:
    """One step.

    Attributes:
        name: of its record.
        title: what it does, for people.
        work: arguments of a ``leanmatch`` command that prints JSON, or a function that gives a JSON value.
        needs: names of the stages whose results it uses.
        makes: what it writes; where one of these is missing it is done again.
        anew: arguments that make the command drop what an earlier, different run left half done.
        facts: whatever else decides the result; JSON values.
    """

    name: str
    title: str
    work: tuple[str, ...] | Callable[[], Any]
    needs: tuple[str, ...] = ()
    makes: tuple[Path, ...] = ()
    anew: tuple[str, ...] = ()
    facts: Any = None

    @property
    def command(self) -> str | None:
        """The command as one would type it; None for a function."""
        return None if callable(self.work) else f"leanmatch {shlex.join(self.work)}"


@dataclass(frozen=True)
class Record:
    """What came of a stage.

    Attributes:
        key: see the module.
        result: JSON value.
        seconds: by the clock.
        cpu_seconds: of this process and its children.
        kept: from an earlier run.
    """

    key: str
    result: Any
    seconds: float
    cpu_seconds: float
    kept: bool = False


@dataclass
class Road:
    """Runs stages in order and remembers them in a folder.

    Attributes:
        folder: for the records.
        execute: runs a command.
        console: for titles and commands (stderr).
        records: by stage.
    """

    folder: Path
    execute: Execute
    console: Console
    records: dict[str, Record] = field(default_factory=dict)

    def run(self, stages: Sequence[Stage]) -> dict[str, Record]:
        """Do what is not done.

        Raises:
            LeanmatchError: a stage failed.
        """
        for number, stage in enumerate(stages, 1):
            self._say(f"\n[bold]{number} of {len(stages)}: {stage.title}[/bold]")
            if stage.command is not None:
                self._say(f"$ {stage.command}", markup=False)
            self.records[stage.name] = self._done(stage) or self._do(stage)
        return self.records

    def _done(self, stage: Stage) -> Record | None:
        key = self._key(stage)
        try:
            there = json.loads(self._file(stage, "json").read_text(encoding="utf-8"))
            record = Record(there["key"], there["result"], there["seconds"], there["cpu_seconds"], kept=True)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        if record.key != key or not all(path.exists() for path in stage.makes):
            return None
        self._say(f"done before, in {record.seconds:.0f} s")
        return record

    def _do(self, stage: Stage) -> Record:
        from leanmatch.files import atomic_file, write_json

        key, mark = self._key(stage), self._file(stage, "begun")
        begun_key = mark.read_text(encoding="utf-8") if mark.exists() else None
        self._file(stage, "json").unlink(missing_ok=True)
        with atomic_file(mark) as temporary:
            temporary.write_text(key, encoding="utf-8")
        begun, cpu = time.monotonic(), cpu_seconds()
        if callable(stage.work):
            result = stage.work()
        else:
            text = self.execute([*stage.work, *(() if begun_key == key else stage.anew)])
            try:
                result = json.loads(text)
            except ValueError as error:
                raise LeanmatchError(f"{stage.command} printed no JSON: {text!r:.200}") from error
        missing = [str(path) for path in stage.makes if not path.exists()]
        if missing:
            raise LeanmatchError(f"{stage.name} did not make {', '.join(missing)}")
        record = Record(key, result, time.monotonic() - begun, cpu_seconds() - cpu)
        write_json(
            self._file(stage, "json"),
            {
                "key": key,
                "command": stage.command,
                "seconds": round(record.seconds, 1),
                "cpu_seconds": round(record.cpu_seconds, 1),
                "result": result,
            },
        )
        self._say(f"{record.seconds:.0f} s, {record.cpu_seconds:.0f} s of processor time")
        return record

    def _key(self, stage: Stage) -> str:
        work = stage.work.__name__ if callable(stage.work) else list(stage.work)
        rests_on = [self.records[name].key for name in stage.needs]
        text = json.dumps([__version__, stage.name, work, stage.facts, rests_on], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _file(self, stage: Stage, suffix: str) -> Path:
        return self.folder / f"{stage.name}.{suffix}"

    def _say(self, text: str, *, markup: bool = True) -> None:
        self.console.print(text, markup=markup, highlight=False, soft_wrap=True)


def run_leanmatch(arguments: Sequence[str]) -> str:
    """A ``leanmatch`` command in a process of its own; its progress goes to our stderr.

    Raises:
        LeanmatchError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "leanmatch", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise LeanmatchError(
            f"leanmatch {arguments[0]} ended with exit code {done.returncode}",
            remedy="its message stands above; once that is mended, the demo goes on from here",
        )
    return done.stdout


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let no second process use the folder."""
    from leanmatch.files import locked

    folder.mkdir(parents=True, exist_ok=True)
    lock = locked(folder / "lock")
    if lock is None:
        raise LeanmatchError(
            f"another demo is running in {folder.parent}", remedy="wait for it, or name another --output"
        )
    try:
        yield
    finally:
        lock.release()
