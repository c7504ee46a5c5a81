"""One process's service: the engine, its queue, the monitor, and the catalogue's generations."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from leanmatch.errors import LeanmatchError, ModelError
from leanmatch.index import Catalogue, Item, WriteOptions, delete_items, read_manifest, upsert_items
from leanmatch.index.changes import Change
from leanmatch.index.encoders import encoder_for
from leanmatch.index.storage.manifest import Manifest
from leanmatch.serve.api.problems import RefusedError
from leanmatch.serve.batching import Batcher
from leanmatch.serve.engine import Answer, Embed, Engine, Explain, Job, Recommend
from leanmatch.serve.explaining import Effects
from leanmatch.serve.monitoring.drift import (
    REFERENCE,
    Monitor,
    Reference,
    TokenCounter,
    catalogue_reference,
    observe,
)
from leanmatch.serve.monitoring.metrics import Metrics
from leanmatch.serve.options import ServeOptions
from leanmatch.serve.suggestions import Suggester
from leanmatch.types import Vectors

EXPLAINED_TOGETHER = 16
"""Queries that one pass explains."""

WRITER_PATIENCE_SECONDS = 30.0

log = logging.getLogger("leanmatch.serve")


class Service:
    """Everything behind the routes. :meth:`start` and :meth:`stop` run in the server's event loop."""

    def __init__(self, options: ServeOptions, metrics: Metrics, encoder: Any = None) -> None:
        """``encoder``: one that is loaded already; else the catalogue says which."""
        self.options, self.metrics = options, metrics
        self.status = "starting"
        self.monitor: Monitor | None = None
        self._given = encoder
        self._engine: Engine | None = None
        self._counter = TokenCounter(None)
        self._suggester: Suggester | None = None
        self._side = ThreadPoolExecutor(2, thread_name_prefix="leanmatch-side")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="leanmatch-write")
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
        self._tasks: list[asyncio.Task[None]] = []
        self._settled = asyncio.Event()
        self.failed: LeanmatchError | None = None

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            RefusedError: 503, while it is loading or after loading failed.
        """
        if self._engine is None:
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
        loading = asyncio.create_task(self._load_and_follow())
        loading.add_done_callback(lambda _: self._settled.set())
        self._tasks.append(loading)

    async def settled(self) -> None:
        """Wait until it is ready, or loading has failed."""
        await self._settled.wait()

    async def stop(self) -> None:
        """Finish what was accepted."""
        self.status = "stopping"
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._batcher.close()
        await self._explaining.close()
        self._writer.shutdown(wait=True)
        self._side.shutdown(wait=True, cancel_futures=True)

    async def ask(self, job: Embed) -> Vectors:
        """Vectors, through the queue.

        Raises:
            RefusedError: 503, after the time-out or while not ready.
        """
        _ = self.engine
        try:
            vectors: Vectors = await self._batcher.submit(job)
        except TimeoutError as error:
            raise self._late() from error
        return vectors

    async def recommend(
        self, job: Recommend, explain: bool = False
    ) -> tuple[Answer, list[list[tuple[Effects, Effects]]] | None]:
        """What is found, through the queue; with the effect of each word of the first results on request.

        Raises:
            RefusedError: 503, after the time-out or while not ready.
        """
        _ = self.engine
        end = asyncio.get_running_loop().time() + self.options.limits.timeout_seconds
        try:
            answer: Answer = await self._batcher.submit(job)
            if not explain:
                return answer, None
            async with asyncio.timeout_at(end):
                return answer, await self._explaining.submit(Explain(answer.pairs(job.texts)))
        except TimeoutError as error:
            raise self._late() from error

    def _late(self) -> RefusedError:
        seconds = self.options.limits.timeout_seconds
        return RefusedError(503, f"no answer within {seconds:g} seconds", headers={"retry-after": "2"})

    async def change(self, items: Sequence[Item], deleted: Sequence[str]) -> Change:
        """Write to the catalogue; the new generation answers the next request here."""
        engine = self.engine
        options = WriteOptions(wait_seconds=WRITER_PATIENCE_SECONDS)

        def write() -> Change:
            folder = engine.catalogue.folder
            if items:
                change = upsert_items(folder, items, _Identified(engine), options)
            else:
                change = delete_items(folder, deleted, options)
            if change.generation != engine.catalogue.manifest.generation:
                self._swap(engine)
            return change

        return await asyncio.get_running_loop().run_in_executor(self._writer, write)

    async def suggest(self, typed: str) -> list[str]:
        """Item texts that hold what was typed: at the beginning first, then shorter ones."""
        _ = self.engine
        return await asyncio.get_running_loop().run_in_executor(self._side, self._suggest, typed)

    async def report(self) -> dict[str, Any]:
        """The monitor's document, for the page; its figures also become metrics."""
        catalogue = self.catalogue
        monitor = self.monitor
        found: dict[str, Any] = {
            "model": self.model,
            "items": len(catalogue),
            "generation": catalogue.manifest.generation,
            "drift": None,
        }
        if monitor is not None:
            found["drift"] = await asyncio.get_running_loop().run_in_executor(self._side, monitor.report)
            for measure in found["drift"]["measures"]:
                self.metrics.drift.labels(measure["name"]).set(measure["live"])
        return found

    async def _load_and_follow(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            engine = await loop.run_in_executor(self._side, self._load)
        except LeanmatchError as error:
            self.failed, self.status = error, f"failed: {error.problem}"
            log.error(str(error))
            return
        self._engine, self.status = engine, "ready"
        self._settled.set()
        self._show(engine.catalogue)
        await loop.run_in_executor(self._side, self._warm, engine)
        while True:
            await asyncio.sleep(self.options.poll_seconds)
            try:
                await loop.run_in_executor(self._writer, self._swap, engine)
            except (LeanmatchError, OSError) as error:  # the generation at hand goes on answering
                self.metrics.errors.labels(type(error).__name__).inc()
                log.error(f"the new generation cannot be loaded: {error}")

    def _load(self) -> Engine:
        options = self.options
        manifest = read_manifest(options.catalogue)
        encoder = self._given
        if encoder is None:
            encoder = self._open(manifest, options.model)
        engine = Engine(encoder, Catalogue.open(options.catalogue), options.threads)
        engine.run([Recommend(["warm-up"], 1)])
        return engine

    def _open(self, manifest: Manifest, model: str | None) -> Any:
        """The encoder of queries.

        Raises:
            ModelError: see :func:`encoder_for`; or another precision than the items', with a write key.
        """
        encoder = encoder_for(manifest, model, weights=self.options.weights)
        found, items = str(getattr(encoder, "weights", "")), manifest.model
        if not items.goes_with(replace(items, weights=found)):
            said = f"queries are encoded in {found}, the catalogue's items were in {items.weights}"
            if self.options.write_keys:
                raise ModelError(
                    f"{said}: items that come over HTTP would not match the others",
                    remedy="leave out --weights, or --write-key",
                )
            log.warning(json.dumps({"event": "precision", "message": said}))
        return encoder

    def _warm(self, engine: Engine) -> None:
        """What need not be there for the first request."""
        catalogue = engine.catalogue
        tokenizer = getattr(engine.encoder, "tokenizer", None)
        self._counter = TokenCounter(tokenizer)
        stored = catalogue.manifest.extras.get(REFERENCE)
        try:
            reference = (
                Reference.read(catalogue.folder / stored.name)
                if stored is not None
                else catalogue_reference(catalogue, self._counter)
            )
            self.monitor = Monitor(reference)
        except LeanmatchError as error:
            log.error(f"no drift monitor: {error}")
        self._suggest("warm-up")
        for name in catalogue.manifest.columns:
            catalogue.column(name)

    def _swap(self, engine: Engine) -> None:
        """Load a newer generation, if there is one; requests under way keep the one they began with."""
        manifest = read_manifest(engine.catalogue.folder)
        if manifest.generation == engine.catalogue.manifest.generation:
            return
        if not manifest.model.same_vectors(engine.catalogue.manifest.model):
            engine_encoder = self._open(manifest, None)
            fresh = Engine(engine_encoder, Catalogue.open(engine.catalogue.folder), self.options.threads)
            engine.encoder, engine.catalogue, engine.explainer = fresh.encoder, fresh.catalogue, None
        else:
            catalogue = Catalogue.open(engine.catalogue.folder)
            catalogue.same_as("")  # made now, so that no request waits for it
            engine.catalogue = catalogue
        self._show(engine.catalogue)
        log.info(
            json.dumps(
                {"event": "generation", "generation": manifest.generation, "items": len(engine.catalogue)}
            )
        )

    def _show(self, catalogue: Catalogue) -> None:
        self.metrics.items.set(len(catalogue))
        self.metrics.generation.set(catalogue.manifest.generation)

    def _watch(self, texts: int, waited: float) -> None:
        self.metrics.batch_texts.observe(texts)
        self.metrics.batch_wait.observe(waited)

    def _run(self, jobs: Sequence[Job]) -> list[Any]:
        answers = self.engine.run(jobs)
        paths: Counter[str] = Counter()
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Answer) and isinstance(job, Recommend):
                paths.update(one.plan.path for one in answer.found)
                self._note(job, answer)
        for path, count in paths.items():
            self.metrics.searches.labels(path).inc(count)
        return answers

    def _explain(self, jobs: Sequence[Explain]) -> list[Any]:
        return list(self.engine.explain(jobs))

    def _note(self, job: Recommend, answer: Answer) -> None:
        """Queries without a filter tell about drift; a filter would change what the best item is."""
        monitor = self.monitor
        if monitor is None or job.filter is not None or not monitor.wants(len(job.texts)):
            return
        best = [
            (float(one.scores[0]), answer.catalogue.metadata(int(one.rows[0]))) if len(one.rows) else None
            for one in answer.found
        ]
        monitor.add(observe(answer.catalogue, self._counter, job.texts, monitor.reference.column, best))

    def _suggest(self, typed: str) -> list[str]:
        catalogue, suggester = self.catalogue, self._suggester
        if suggester is None or suggester.catalogue is not catalogue:
            suggester = self._suggester = Suggester(catalogue)
        return suggester(typed)


@lru_cache(8)
def _last_part(name: str) -> str:
    return Path(name).name


class _Identified:
    """The engine's encoder as the writer wants it: with an identity that need not be computed again."""

    def __init__(self, engine: Engine) -> None:
        model = engine.catalogue.manifest.model
        self.name, self.fingerprint = model.name, model.fingerprint
        self.tokenizer_fingerprint, self.dimension = model.tokenizer, model.dimension
        self.weights = str(getattr(engine.encoder, "weights", ""))
        self._engine = engine

    def __call__(self, texts: Sequence[str]) -> Any:
        return self._engine.encode(texts)
