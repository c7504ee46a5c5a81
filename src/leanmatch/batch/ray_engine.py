"""Ray's actors encode slices; each opens the model once and writes its own parts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from leanmatch.batch.job import Job
from leanmatch.batch.parts import PartNote
from leanmatch.errors import DataError, LeanmatchError, MissingExtraError, UsageError

IN_HAND = 2
"""How many slices an actor has at once: while it encodes one, the next is already waiting."""

STARTS = 2
"""How often a local Ray is started before its failure counts.

Ray's raylet gives its agents 15 seconds to start and ends otherwise, and no setting changes that. On a busy
machine the first start can take longer; by the second, the files of the agents are in memory.
"""


class SliceWorker:
    """An actor: takes numbers of slices, returns notes of the parts. Neither texts nor vectors travel."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def open(self) -> None:
        """Open the model."""
        _ = self._job.encode.encoder

    def run(self, number: int) -> PartNote:
        """Encode a slice."""
        return self._job.run(number)


def run_on_ray(job: Job, missing: list[int], workers: int, address: str | None) -> Iterator[PartNote]:
    """Encode slices on Ray. A killed actor is started again and repeats its unfinished slices.

    Args:
        job: what is worked on. Actors on other machines need the inputs and the output at the same paths, or
            by URL, and the model by a name or path that they know.
        missing: numbers of the slices.
        workers: actors; the cluster's CPUs are shared among them. Actors for which the cluster has no room
            get no slices.
        address: of a running cluster, None for a local one.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: no cluster at the address.
        LeanmatchError: what a worker raised; or no local Ray could be started.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "ray", "ray", "the engine ray") from error
    owned = not ray.is_initialized()
    if owned:
        _start(ray) if address in (None, "local") else _join(ray, address)
    actors: list[Any] = []
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus = max(1, int(resources.get("CPU", 1)) // workers)
        job.encode.threads = cpus if hasattr(job.encode.encoder, "choices") else None
        kind: Any = ray.remote(num_cpus=cpus, max_restarts=-1, max_task_retries=-1)(SliceWorker)
        actors += [kind.remote(job) for _ in range(min(workers, len(missing)))]
        left, waiting = len(missing), iter(missing)
        pending = {actor.open.remote(): actor for actor in actors}
        while left:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            actor = pending.pop(done)
            note: PartNote | None = ray.get(done)
            for number in islice(waiting, IN_HAND if note is None else 1):
                pending[actor.run.remote(number)] = actor
            if note is not None:
                left -= 1
                yield note
    except RayError as error:
        raise _cause(error) from error
    finally:
        if owned:
            ray.shutdown()
        else:
            for actor in actors:
                ray.kill(actor)


def _join(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"Ray could not be reached at {address}: {error}",
            remedy="start it on its head node, or name another address; auto finds one that runs here",
        ) from error


def _start(ray: Any) -> None:
    """Start Ray on this machine."""
    for left in reversed(range(STARTS)):
        try:
            ray.init(address="local", log_to_driver=False, include_dashboard=False)
            return
        except Exception as error:  # Ray raises nothing more specific when a process of its own is too slow
            if not left:
                raise LeanmatchError(
                    f"Ray could not be started on this machine: {error}",
                    remedy="give the same command again when the machine has less to do; or leave Ray out: "
                    "engine='local' with workers",
                    command="give the same command again when the machine has less to do; or leave Ray out: "
                    "--engine local --workers N",
                ) from error


def _cause(error: BaseException) -> LeanmatchError:
    """Our own error inside one of Ray's."""
    inner: BaseException | None = error
    while inner is not None:
        for candidate in (getattr(inner, "cause", None), inner):
            if isinstance(candidate, LeanmatchError):
                return candidate
        inner = inner.__cause__
    return DataError(
        f"Ray failed: {error}", remedy="see Ray's own logs; the same command encodes what is missing"
    )
