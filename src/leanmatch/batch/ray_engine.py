"""Ray Data hands out the slices; each actor of its pool opens the model once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from leanmatch.batch.job import Job
from leanmatch.batch.parts import PartNote
from leanmatch.errors import DataError, LeanmatchError, MissingExtraError, UsageError


class SliceWorker:
    """An actor: numbers of slices in, notes of the parts out. The vectors stay in the parts."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        notes = [asdict(self._job.run(int(number))) for number in batch["number"]]
        return {name: [note[name] for note in notes] for name in PartNote.__dataclass_fields__}


def run_on_ray(job: Job, missing: list[int], workers: int, address: str | None) -> Iterator[PartNote]:
    """Encode slices on Ray.

    Args:
        job: what is worked on. Actors on other machines need the inputs and the output at the same paths, or
            by URL, and the model by a name or path that they know.
        missing: numbers of the slices.
        workers: actors; the cluster's CPUs are shared among them.
        address: of a running cluster, None for a local one.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: no cluster at the address.
        LeanmatchError: what a worker raised.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy, from_items
        from ray.exceptions import RayError
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "ray", "ray", "the engine ray") from error
    owned = not ray.is_initialized()
    if owned:
        try:
            ray.init(address=address or "local", log_to_driver=False, include_dashboard=None)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"Ray could not be reached at {address or 'local'}: {error}",
                remedy="start it on its head node, or name another address; auto finds one that runs here",
            ) from error
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus = max(1, int(resources.get("CPU", 1)) // workers)
        job.encode.threads = cpus if hasattr(job.encode.encoder, "choices") else None
        numbers = from_items([{"number": number} for number in missing], override_num_blocks=len(missing))
        notes = numbers.map_batches(
            SliceWorker,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(workers, len(missing))),
            num_cpus=cpus,
        )
        for row in notes.iter_rows():
            yield PartNote(**row)
    except RayError as error:
        raise _cause(error) from error
    finally:
        if owned:
            ray.shutdown()


def _cause(error: BaseException) -> LeanmatchError:
    """Our own error inside one of Ray's."""
    inner: BaseException | None = error
    while inner is not None:
        for candidate in (inner, getattr(inner, "cause", None)):
            if isinstance(candidate, LeanmatchError):
                return candidate
        inner = inner.__cause__
    return DataError(
        f"Ray failed: {error}", remedy="see Ray's own logs; the same command encodes what is missing"
    )
