"""Reranking in a thread and a queue of its own, so that no other request waits behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING

from leanmatch.index.search.found import Found, reranked
from leanmatch.models import RERANK_WEIGHT, Reranker
from leanmatch.serve.api.problems import RefusedError
from leanmatch.serve.batching import Batcher
from leanmatch.serve.engine import Answer

if TYPE_CHECKING:
    from leanmatch.serve.monitoring.tracing import Place, Tracing

RERANKED_TOGETHER = 256
"""Pairs of texts that one pass may hold, unless a single request has more."""


@dataclass(frozen=True)
class Rerank:
    """What was found for some texts, to be reranked and cut to ``k`` a text.

    ``over`` is set when nobody waits for it any more: it is not worked on from then on. ``place``: its place
    in its request's trace, where there are traces.
    """

    texts: Sequence[str]
    answer: Answer
    k: int
    over: Event = field(default_factory=Event)
    place: Place | None = None

    @property
    def weight(self) -> int:
        """Number of pairs."""
        return sum(len(found.rows) for found in self.answer.found)


class Reranking:
    """A reranker behind a queue. :meth:`start` and :meth:`close` run in the server's event loop."""

    def __init__(self, tracing: Tracing | None = None, weight: float = RERANK_WEIGHT) -> None:
        self._weight = weight
        self._tracing = tracing
        self.reranker: Reranker | None = None
        """Set while the server loads; None where it has none."""
        self._batcher = Batcher(self._work, most=RERANKED_TOGETHER, window_seconds=0.0)

    def start(self) -> None:
        """Begin to work."""
        self._batcher.start()

    async def close(self) -> None:
        """Finish what was accepted."""
        await self._batcher.close()

    def check(self) -> None:
        """Refuse requests for a reranker that is not there.

        Raises:
            RefusedError: 400.
        """
        if self.reranker is None:
            problem = "this server has no reranker; start it with --rerank MODEL"
            raise RefusedError(400, problem, param="rerank")

    async def rerank(self, texts: Sequence[str], answer: Answer, k: int) -> Answer:
        """An answer in its new order. Cancelling ends the work after the query that is worked on."""
        job = Rerank(texts, answer, k, place=None if self._tracing is None else self._tracing.here())
        try:
            ordered: Answer = await self._batcher.submit(job)
        finally:
            job.over.set()
        return ordered

    def _work(self, jobs: Sequence[Rerank]) -> list[Answer | BaseException]:
        if self._tracing is None:
            return self._all_ordered(jobs)
        name = "" if self.reranker is None else self.reranker.name
        with self._tracing.batch(jobs) as phases, phases.phase("rerank", **{"leanmatch.reranker": name}):
            return self._all_ordered(jobs)

    def _all_ordered(self, jobs: Sequence[Rerank]) -> list[Answer | BaseException]:
        out: list[Answer | BaseException] = []
        for job in jobs:
            try:  # one request's fault is not its neighbours'
                out.append(self._ordered(job))
            except Exception as error:
                out.append(error)
        return out

    def _ordered(self, job: Rerank) -> Answer:
        assert self.reranker is not None, "requests for it are refused where there is none"
        found: list[Found] = []
        for text, result in zip(job.texts, job.answer.found, strict=True):
            if job.over.is_set():
                raise TimeoutError
            text_of = job.answer.catalogue.text
            found += reranked([text], [result], self.reranker, job.k, text_of, self._weight)
        return replace(job.answer, found=found)
