"""One process's service: the engine, its queue, the monitor, and the generations of its items."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from leanmatch.errors import LeanmatchError
from leanmatch.index import Catalogue, Item
from leanmatch.index.changes import Change
from leanmatch.index.storage.manifest import REFERENCE
from leanmatch.models import QUERY
from leanmatch.runtime import load_reranker
from leanmatch.serve.api.problems import RefusedError
from leanmatch.serve.batching import Batcher
from leanmatch.serve.engine import Answer, Embed, Engine, Explain, Job, Recommend
from leanmatch.serve.explaining import Explained
from leanmatch.serve.following import Follower
from leanmatch.serve.holding import CatalogueHolding, Holding, warm_columns
from leanmatch.serve.monitoring.drift import Monitor, TokenCounter, observe
from leanmatch.serve.monitoring.metrics import Metrics
from leanmatch.serve.options import ServeOptions
from leanmatch.serve.reranking import Reranking
from leanmatch.serve.selecting import select, takes_long
from leanmatch.serve.stored import StoreHolding
from leanmatch.serve.suggestions import Suggester, sample_queries
from leanmatch.stores import StoreError, UnreachableError
from leanmatch.stores.opening import is_store_url
from leanmatch.types import Vectors

if TYPE_CHECKING:
    from leanmatch.serve.monitoring.tracing import Tracing

EXPLAINED_TOGETHER = 16
"""Queries that one pass explains."""

STORE_SEARCHES = 8
"""Searches of a store that run at one time; each has a connection."""

T = TypeVar("T")
J = TypeVar("J", Embed, Recommend, Explain)
log = logging.getLogger("leanmatch.serve")


class Service:
    """Everything behind the routes. :meth:`start` and :meth:`stop` run in the server's event loop."""

    def __init__(
        self, options: ServeOptions, metrics: Metrics, encoder: Any = None, tracing: Tracing | None = None
    ) -> None:
        """``encoder``: one that is loaded already; else the catalogue says which. ``tracing``: its spans."""
        self.options, self.metrics, self.tracing = options, metrics, tracing
        self.status = "starting"
        self.monitor: Monitor | None = None
        kind = StoreHolding if is_store_url(options.catalogue) else CatalogueHolding
        self._holding: Holding = kind(options, metrics.tally, encoder)
        self._engine: Engine | None = None
        self._counter = TokenCounter(None)
        self._suggester: Suggester | None = None
        self._side = ThreadPoolExecutor(2, thread_name_prefix="leanmatch-side")
        self._selecting = ThreadPoolExecutor(1, thread_name_prefix="leanmatch-select")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="leanmatch-write")
        self._searching = ThreadPoolExecutor(STORE_SEARCHES, thread_name_prefix="leanmatch-search")
        self._batcher = Batcher(
            self._run,
            most=options.limits.batch_texts,
            window_seconds=options.limits.window_ms / 1000,
            timeout_seconds=options.limits.timeout_seconds,
            watch=self._watch,
        )
        self._explaining = Batcher(  # apart, so that nobody waits behind an explanation
            self._explain, most=EXPLAINED_TOGETHER, window_seconds=0.0
        )
        self.reranking = Reranking(tracing, options.rerank_weight)
        self._tasks: list[asyncio.Task[None]] = []
        self._settled = asyncio.Event()
        self._follower: Follower | None = None
        self._followed: asyncio.Task[None] | None = None
        self._description: tuple[Catalogue, dict[str, Any]] | None = None
        self.failed: BaseException | None = None
        self.unreachable: UnreachableError | None = None
        self._monitor_lacks_store = False

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            RefusedError: 503, while it is loading or after loading failed.
            UnreachableError: the store has not answered since the server started.
        """
        if self._engine is None:
            if self.unreachable is not None:
                raise UnreachableError(self.unreachable.problem, remedy=self.unreachable.remedy)
            raise RefusedError(503, f"not ready: {self.status}", headers={"retry-after": "1"})
        return self._engine

    @property
    def catalogue(self) -> Catalogue:
        """The current generation."""
        return self.engine.catalogue

    @property
    def model(self) -> str:
        """The model's name, as clients give it."""
        return _last_part(self.catalogue.manifest.model.name)

    def start(self) -> None:
        """Begin to load."""
        self._batcher.start()
        self._explaining.start()
        self.reranking.start()
        loading = asyncio.create_task(self._load_and_follow())
        loading.add_done_callback(lambda _: self._settled.set())
        self._tasks.append(loading)

    async def settled(self) -> None:
        """Wait until it is ready, loading has failed, or the store has not answered."""
        await self._settled.wait()

    async def stop(self) -> None:
        """Finish what was accepted."""
        self.status = "stopping"
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._batcher.close()
        await self._explaining.close()
        await self.reranking.close()
        self._selecting.shutdown(wait=True, cancel_futures=True)
        self._searching.shutdown(wait=True, cancel_futures=True)
        self._writer.shutdown(wait=True)
        self._side.shutdown(wait=True, cancel_futures=True)
        self._holding.close()

    async def ask(self, job: Embed) -> Vectors:
        """Vectors, through the queue.

        Raises:
            RefusedError: 503, after the time-out or while not ready.
        """
        _ = self.engine
        try:
            vectors: Vectors = await self._batcher.submit(self._placed(job))
        except TimeoutError as error:
            raise self._late() from error
        return vectors

    async def select(self, given: dict[str, Any] | str | None) -> Any:
        """Read a request's filter. In a catalogue, find the rows that it leaves; in a thread if it is long.

        Raises:
            UsageError: it is none, or does not fit the columns.
            RefusedError: 503, after the time-out or while not ready.
        """
        if given is None:
            return None
        catalogue = self.catalogue
        if isinstance(self._holding, StoreHolding):
            return self._holding.select(given)
        if not takes_long(given, len(catalogue)):
            return select(given, catalogue)
        over = Event()
        try:
            async with self._in_time():
                return await asyncio.get_running_loop().run_in_executor(
                    self._selecting, select, given, catalogue, over
                )
        finally:
            over.set()

    async def recommend(self, job: Recommend) -> Answer:
        """What is found: through the queue, and of a store in a thread.

        Raises:
            RefusedError: 503, after the time-out or while not ready.
            StoreError: the store cannot be reached.
        """
        engine = self.engine
        if isinstance(self._holding, StoreHolding):
            async with self._in_time():
                vectors = await self.ask(Embed(job.texts, QUERY))
                return await asyncio.get_running_loop().run_in_executor(
                    self._searching, self._search_store, self._holding, engine, self._placed(job), vectors
                )
        try:
            answer: Answer = await self._batcher.submit(self._placed(job))
        except TimeoutError as error:
            raise self._late() from error
        return answer

    async def reranked(self, job: Recommend) -> Answer:
        """What is found, the best ``rerank_top`` reranked. Cancelling ends the work.

        Raises:
            RefusedError: 400 where the server has no reranker; 503, after the time-out or while not ready.
        """
        _ = self.engine
        self.reranking.check()
        async with self._in_time():
            answer = await self.recommend(replace(job, k=max(job.k, self.options.rerank_top)))
            return await self.reranking.rerank(job.texts, answer, job.k)

    async def explain(self, job: Recommend, *, rerank: bool) -> tuple[Answer, list[list[Explained]]]:
        """What is found, with the effect of each word of the first results. Cancelling ends the work.

        Raises:
            RefusedError: as :meth:`reranked`.
        """
        async with self._in_time():
            answer = await (self.reranked(job) if rerank else self.recommend(job))
            explaining = self._placed(Explain(answer.pairs(job.texts)))
            try:
                return answer, await self._explaining.submit(explaining)
            finally:
                explaining.over.set()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """What is awaited within is cancelled at the time-out of requests, and answered 503."""
        try:
            async with asyncio.timeout(self.options.limits.timeout_seconds):
                yield
        except TimeoutError as error:
            raise self._late() from error

    async def aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do work in a thread, so that no other request waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._side, work, *arguments)

    def _placed(self, job: J) -> J:
        """The job, with its place in its request's trace where there are traces."""
        return job if self.tracing is None else replace(job, place=self.tracing.here())

    def _late(self) -> RefusedError:
        seconds = self.options.limits.timeout_seconds
        return RefusedError(503, f"no answer within {seconds:g} seconds", headers={"retry-after": "2"})

    async def change(self, items: Sequence[Item], deleted: Sequence[str]) -> Change:
        """Write to the catalogue or the store; what is new answers the next request here.

        The change holds even where the new generation cannot be loaded, which the follower then tells.
        """
        engine = self.engine

        def write() -> Change:
            change = self._holding.change(engine, items, deleted)
            self._take_up()
            return change

        return await asyncio.get_running_loop().run_in_executor(self._writer, write)

    async def suggest(self, typed: str) -> list[str]:
        """Item texts that hold what was typed: at the beginning first, then shorter ones."""
        _ = self.engine
        return await self.aside(self._suggest, typed)

    async def describe(self) -> dict[str, Any]:
        """The current generation: models, columns with their values or ranges, sample queries; made once."""
        catalogue = self.catalogue
        if self._description is None or self._description[0] is not catalogue:
            self._description = catalogue, await self.aside(self._describe, catalogue)
        state = self._holding.state(catalogue)
        return {**self._description[1], "items": state.items, "generation": state.generation}

    def _describe(self, catalogue: Catalogue) -> dict[str, Any]:
        model = catalogue.manifest.model
        return {
            "model": _last_part(model.name),
            "weights": model.weights,
            "reranker": None if self.reranking.reranker is None else _last_part(self.reranking.reranker.name),
            "items": 0,
            "generation": 0,
            "columns": self._holding.columns(catalogue),
            "samples": sample_queries(catalogue),
        }

    @property
    def following(self) -> dict[str, Any]:
        """What is served, and whether its changes are taken up; ``unavailable`` while a store is."""
        state = self._holding.state(self.catalogue)
        problem = None if self._follower is None else self._follower.problem
        if self._followed is not None and self._followed.done():  # it never should be
            problem = problem or "the server no longer looks for changes of its catalogue"
        lost = self._follower is not None and isinstance(self._follower.error, StoreError)
        return {
            "status": "ready" if problem is None else "unavailable" if lost else "degraded",
            "items": state.items,
            "generation": state.generation,
            "identity": state.identity or None,
            "reason": problem
            and (problem if lost else f"the catalogue's changes are not taken up: {problem}"),
        }

    async def report(self) -> dict[str, Any]:
        """The monitor's document, for the page; its figures also become metrics."""
        state, monitor = self._holding.state(self.catalogue), self.monitor
        document: dict[str, Any] = {
            "model": self.model,
            "items": state.items,
            "generation": state.generation,
            "drift": None,
        }
        if monitor is not None:
            document["drift"] = await self.aside(monitor.report)
            for measure in document["drift"]["measures"]:
                self.metrics.drift.labels(measure["name"]).set(measure["live"])
        return document

    async def _load_and_follow(self) -> None:
        try:
            engine = await self._loaded()
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # also the panics of native libraries, which are no Exception
            anticipated = isinstance(error, LeanmatchError)
            problem = (
                error.problem if isinstance(error, LeanmatchError) else f"{type(error).__name__}: {error}"
            )
            self.failed, self.unreachable, self.status = error, None, f"failed: {problem}"
            log.error(str(error), exc_info=None if anticipated else error)
            if self._settled.is_set() and self.options.workers > 1:
                signal.raise_signal(signal.SIGTERM)  # the worker in its place ends the server with this error
            return
        self._engine, self.status = engine, "ready"
        self._settled.set()
        self._show(engine.catalogue)
        follower = self._follower = Follower(
            self._look,
            self._swap,
            lambda: self._holding.loaded,
            self._writer,
            self.options.poll_seconds,
            self._not_followed,
        )
        self._followed = asyncio.create_task(follower.run())
        self._tasks.append(self._followed)
        await self.aside(self._warm, engine)

    async def _loaded(self) -> Engine:
        """The engine. A store that does not answer is asked again, as often as a server looks for changes."""
        while True:
            try:
                engine = await self.aside(self._load)
            except UnreachableError as error:
                if self.unreachable is None or self.unreachable.problem != error.problem:
                    log.error(json.dumps({"event": "store", "message": error.problem}, ensure_ascii=False))
                self.unreachable, self.status = error, "unavailable"
                self._settled.set()
                await asyncio.sleep(self.options.poll_seconds)
            else:
                self.unreachable = None
                return engine

    def _not_followed(self, error: BaseException) -> None:
        self.metrics.follow_failures.labels(type(error).__name__).inc()
        self.metrics.following.set(0)

    def _load(self) -> Engine:
        options = self.options
        engine = self._holding.load()
        if options.rerank is not None:
            self.reranking.reranker = load_reranker(options.rerank, threads=options.threads)
        engine.run([Recommend(["warm-up"], 1)])
        return engine

    def _warm(self, engine: Engine) -> None:
        """What need not be there for the first request."""
        try:
            self._watch_drift(engine)
            self._suggest("warm-up")
            warm_columns(engine.catalogue)
        except Exception as error:  # requests make what they need themselves
            log.error(f"not everything could be prepared: {type(error).__name__}: {error}")

    def _watch_drift(self, engine: Engine) -> None:
        self._counter = TokenCounter(getattr(engine.encoder, "tokenizer", None))
        try:
            self.monitor = Monitor(self._holding.reference(engine, self._counter))
            self._monitor_lacks_store = False
        except LeanmatchError as error:
            self.monitor = None
            self._monitor_lacks_store = isinstance(error, UnreachableError)
            log.error(f"no drift monitor: {error}")

    def _look(self) -> str:
        """What is there now; when a store answers again, the drift monitor that lacked it is made."""
        digest = self._holding.look()
        if self._monitor_lacks_store:
            self._watch_drift(self.engine)
        return digest

    def _take_up(self) -> None:
        """Load what this server has written. A failure is the follower's to tell and to try again."""
        try:
            self._swap()
        except Exception as error:
            log.warning(f"the generation that was written is not loaded yet: {type(error).__name__}: {error}")

    def _swap(self) -> None:
        """Load what is there now; requests under way keep what they began with.

        Raises:
            Exception: anything; what was there before goes on answering.
        """
        engine = self.engine
        fresh = self._holding.renewed(engine)
        if fresh is None:
            return
        fresh.run([Recommend(["warm-up"], 1)])
        self._engine = fresh
        self._show(fresh.catalogue)
        old, manifest = engine.catalogue.manifest, fresh.catalogue.manifest
        state = self._holding.state(fresh.catalogue)
        log.info(json.dumps({"event": "generation", "generation": state.generation, "items": state.items}))
        renewed = manifest.extras.get(REFERENCE) != old.extras.get(REFERENCE)
        if renewed or fresh.encoder is not engine.encoder or manifest.identity != old.identity:
            self._watch_drift(fresh)

    def _show(self, catalogue: Catalogue) -> None:
        self.metrics.following.set(1)
        state = self._holding.state(catalogue)
        self.metrics.items.set(state.items)
        self.metrics.generation.set(state.generation)

    def _watch(self, texts: int, waited: float) -> None:
        self.metrics.batch_texts.observe(texts)
        self.metrics.batch_wait.observe(waited)

    def _run(self, jobs: Sequence[Job]) -> list[Any]:
        if self.tracing is None:
            answers = self.engine.run(jobs)
        else:
            with self.tracing.batch(jobs) as phases:
                answers = self.engine.run(jobs, phases)
        paths: Counter[str] = Counter()
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Answer) and isinstance(job, Recommend):
                paths.update(result.path for result in answer.found)
                self._note(job, answer)
        for path, count in paths.items():
            self.metrics.searches.labels(path).inc(count)
        return answers

    def _search_store(
        self, holding: StoreHolding, engine: Engine, job: Recommend, vectors: Vectors
    ) -> Answer:
        """What a store has for a job."""
        if self.tracing is None:
            answer = holding.search(engine, job, vectors)
        else:
            with self.tracing.batch([job]) as phases, phases.phase("search"):
                answer = holding.search(engine, job, vectors)
        self.metrics.searches.labels("store").inc(len(answer.found))
        self._note(job, answer)
        return answer

    def _explain(self, jobs: Sequence[Explain]) -> list[Any]:
        if self.tracing is None:
            explanations = self.engine.explain(jobs)
        else:
            with self.tracing.batch(jobs) as phases, phases.phase("explain"):
                explanations = self.engine.explain(jobs)
        return [TimeoutError() if explanation is None else explanation for explanation in explanations]

    def _note(self, job: Recommend, answer: Answer) -> None:
        """Queries without a filter tell about drift; a filter would change what the best item is."""
        monitor = self.monitor
        if monitor is None or job.filter is not None or not monitor.wants(len(job.texts)):
            return
        best = [
            None if result.best is None else (result.best[0], answer.catalogue.metadata(result.best[1]))
            for result in answer.found
        ]
        monitor.add(observe(self._counter, job.texts, monitor.reference.column, best))

    def _suggest(self, typed: str) -> list[str]:
        catalogue, suggester = self.catalogue, self._suggester
        if suggester is None or suggester.catalogue is not catalogue:
            suggester = self._suggester = Suggester(catalogue)
        return suggester(typed)


@lru_cache(8)
def _last_part(name: str) -> str:
    return Path(name).name
