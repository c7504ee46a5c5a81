"""Encoding files: plan, slices that are missing, and the end that checks the whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from leanmatch.batch.clearing import clear, other_files
from leanmatch.batch.encode import Encode
from leanmatch.batch.finish import Complete, finish
from leanmatch.batch.job import Job, WriteError
from leanmatch.batch.locations import Folder
from leanmatch.batch.options import EncodeOptions, Shard, one_of
from leanmatch.batch.parts import PartNote, part_numbers
from leanmatch.batch.plan import MANIFEST, Plan, check_same, plan_for
from leanmatch.cpus import usable_cpus
from leanmatch.errors import LeanmatchError, UsageError

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class EncodeResult:
    """What a call did.

    Attributes:
        parts: of the whole plan.
        written: parts that this call wrote.
        rows: that this call encoded.
        skipped: bad rows that this call left out.
        missing: parts that are still to be written, by other shards.
        complete: what the finished output holds, None while parts are missing.
    """

    parts: int
    written: int
    rows: int
    skipped: int
    missing: int
    complete: Complete | None


def encode_files(
    model: str | Path,
    inputs: Sequence[str | Path],
    output: str | Path,
    options: EncodeOptions | None = None,
    *,
    shard: Shard | None = None,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    overwrite: bool = False,
    progress: Callable[[PartNote, int], None] | None = None,
) -> EncodeResult:
    """Encode the texts of files into a folder of Parquet parts.

    A part is written under a temporary name and renamed. Whatever is killed, the same call encodes only the
    parts that are missing, and the output is the same to the byte. Parts of another model or of other inputs
    are refused.

    Args:
        model: folder or name of a model.
        inputs: files and folders of CSV, TSV, JSONL or Parquet, by path or URL.
        output: folder, by path or URL.
        options: how the files are read and the vectors are stored.
        shard: encode only this share of the slices; the call that finds all parts written ends the whole.
        engine: ``local``, or ``ray`` (extra ``ray``): Ray actors.
        workers: processes, or Ray actors; CPUs are shared among them. One where not given.
        address: of a running Ray cluster, see ``ray.init``; where not given, a local one is started.
        overwrite: remove first what an earlier call wrote; a folder with any other file is refused.
        progress: called after each part, with what it holds and the number of parts of this call.

    Raises:
        UsageError: options that contradict one another.
        DataError: inputs that cannot be read, other inputs than before, an identifier that comes twice.
        ModelError: another model than before.
        WriteError: the output cannot be written; finished parts are kept.
        LeanmatchError: a worker process was killed; finished parts are kept.
    """
    options = options or EncodeOptions()
    one_of("engine", engine, ENGINES)
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}", remedy="give 1 or more")
    if engine == "ray" and shard is not None:
        raise UsageError(
            "a shard is named for the engine ray", remedy="Ray hands out the slices: leave it out"
        )
    if engine != "ray" and address is not None:
        raise UsageError("an address is named without the engine ray", remedy='add engine="ray"')
    count = workers or 1
    threads = max(1, usable_cpus() // count) if count > 1 and engine == "local" else None
    folder = Folder(output)
    if overwrite:
        clear(folder)
    stored = _stored_plan(folder)
    encode = _callable(model, options, threads)
    plan, files = plan_for(encode, inputs, options, stored)
    if stored is not None:
        check_same(stored, plan, folder)
    elif others := other_files(folder):
        raise UsageError(f"{folder} holds other files, such as {others[0]}", remedy="name a new folder")
    else:
        _put(folder, plan)
    there = part_numbers(folder)
    wanted = (shard or Shard()).of(list(range(len(plan.slices))))
    missing = [number for number in wanted if number not in there]
    job = Job(plan, files, str(output), encode)
    written = rows = skipped = 0
    for note in _notes(job, missing, engine, count, address):
        written, rows, skipped = written + 1, rows + note.rows, skipped + note.skipped
        if progress is not None:
            progress(note, len(missing))
    left = len(plan.slices) - len(part_numbers(folder))
    complete = None if left else finish(folder, plan, options.on_duplicate)
    return EncodeResult(len(plan.slices), written, rows, skipped, left, complete)


def _callable(model: str | Path, options: EncodeOptions, threads: int | None) -> Encode:
    return Encode(
        model,
        role=options.role,
        prompts=options.prompts,
        precision=options.precision,
        threads=threads,
        dimensions=options.dimensions,
    )


def _stored_plan(folder: Folder) -> Plan | None:
    content = folder.read(MANIFEST)
    return None if content is None else Plan.from_bytes(content, folder)


def _put(folder: Folder, plan: Plan) -> None:
    try:
        folder.put_bytes(MANIFEST, plan.to_bytes())
    except OSError as error:
        raise WriteError(
            f"{folder} could not be written ({error})", remedy="correct the address or the rights"
        ) from error


def _notes(
    job: Job, missing: list[int], engine: str, workers: int, address: str | None
) -> Iterator[PartNote]:
    """The note of each part that is written, as it comes."""
    if not missing:
        return
    if engine == "ray":
        from leanmatch.batch.ray_engine import run_on_ray

        yield from run_on_ray(job, missing, workers, address)
    elif workers == 1:
        yield from map(job.run, missing)
    else:
        yield from _in_processes(job, missing, min(workers, len(missing)))


_worker: list[Job] = []
"""In a worker process: what it works on."""


def _start_worker(job: Job) -> None:
    _worker.append(job)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is killed; otherwise it would wait for work forever."""
    parent = parent_process()
    assert parent is not None, "a pool started this process"
    parent.join()
    os._exit(1)


def _run_slice(number: int) -> PartNote:
    return _worker[0].run(number)


def _in_processes(job: Job, missing: list[int], workers: int) -> Iterator[PartNote]:
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker, initargs=(job,))
    try:
        pending = {pool.submit(_run_slice, number) for number in missing}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise LeanmatchError(
            "a worker process was killed or ended early; often there was too little memory",
            remedy="give the same call again, with fewer workers: finished parts are kept",
            command="give the same command again, with fewer --workers: finished parts are kept",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
