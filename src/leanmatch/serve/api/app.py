"""The application: routes, their limits, and what they answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from leanmatch import __version__
from leanmatch.errors import MissingExtraError
from leanmatch.index.changes import Item
from leanmatch.serve.options import ServeOptions

try:
    from fastapi import FastAPI, Query, Request
    from fastapi import Path as PathParameter
    from fastapi.responses import JSONResponse, Response
    from fastapi.staticfiles import StaticFiles
    from starlette.exceptions import HTTPException
    from starlette.routing import Match
except ModuleNotFoundError as error:
    raise MissingExtraError("fastapi", "serve", "the server") from error

from leanmatch.serve.api import schemas
from leanmatch.serve.api.access_log import AccessLog
from leanmatch.serve.api.embedding import embed
from leanmatch.serve.api.matching import DirectRoute, direct_apps, recommend
from leanmatch.serve.api.middleware import Gate
from leanmatch.serve.api.problems import RefusedError, documented, install
from leanmatch.serve.monitoring.metrics import CONTENT_TYPE, Metrics
from leanmatch.serve.service import Service

STATIC = Path(__file__).parent.parent / "static"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(options: ServeOptions, *, encoder: Any = None, tracer_provider: Any = None) -> Gate:
    """The ASGI application: FastAPI behind the gate that every request passes.

    Args:
        options: see :class:`ServeOptions`.
        encoder: one that is loaded already; else the catalogue says which model to open.
        tracer_provider: an OpenTelemetry ``TracerProvider`` for traces; None: they are sent where the
            environment says if ``options.otel`` is set, and there are none else.

    Raises:
        MissingExtraError: traces without the extra ``otel``.
    """
    metrics = Metrics()
    tracing = None
    if options.otel or tracer_provider is not None:
        from leanmatch.serve.monitoring.tracing import Tracing

        tracing = Tracing(tracer_provider)
    service = Service(options, metrics, encoder, tracing)
    access = AccessLog()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        service.start()
        if options.workers > 1:  # of several, one that loads must not answer 503 for those that are ready
            await service.settled()
            if service.failed is not None:
                raise service.failed
        yield {"limits": options.limits}
        await service.stop()
        access.flush()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)  # exports what is left

    app = FastAPI(title="leanmatch", version=__version__, lifespan=lifespan, openapi_url=None)
    app.state.service = service
    install(app, lambda error: metrics.errors.labels(type(error).__name__).inc())
    _add_matching(app, service)
    _add_items(app, service)
    _add_insight(app, service)
    _add_page(app)
    return Gate(app, direct_apps(app), service, access)


def _add_matching(app: FastAPI, service: Service) -> None:
    common = documented(400, 401, 408, 413, 422, 429, 500, 503)

    async def matches(body: schemas.RecommendRequest, request: Request) -> Response:
        """The items that match each text best."""
        return await recommend(service, body, request)

    async def embeddings(body: schemas.EmbeddingsRequest, request: Request) -> Response:
        """Vectors of texts, as OpenAI's clients ask for them; of token ids where the server allows it."""
        return await embed(service, body, request)

    routes: list[tuple[str, Any, type, Any]] = [
        ("/v1/recommend", matches, schemas.RecommendResponse, common),
        ("/v1/embeddings", embeddings, schemas.EmbeddingsResponse, common | documented(404)),
    ]
    for path, endpoint, response_model, responses in routes:
        app.router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            response_model=response_model,
            responses=responses,
            tags=["matching"],
            route_class_override=DirectRoute,
        )

    @app.get(
        "/v1/models", response_model=schemas.ModelList, responses=documented(401, 503), tags=["matching"]
    )
    async def models() -> dict[str, Any]:
        """The model that this server has."""
        return {"data": [{"id": service.model, "dimension": service.catalogue.dimension}]}


def _add_items(app: FastAPI, service: Service) -> None:
    limits = service.options.limits
    common = documented(400, 401, 403, 413, 422, 500, 503)

    @app.post("/v1/items", response_model=schemas.ChangeResponse, responses=common, tags=["items"])
    async def upsert(body: schemas.UpsertRequest) -> Any:
        """Add items, or replace those whose id is there. When this is answered, they are on the disk."""
        if len(body.items) > limits.items:
            raise RefusedError(400, f"{len(body.items)} items; at most {limits.items}", param="items")
        for item in body.items:
            if len(item.text) > limits.text_characters:
                raise RefusedError(400, f"a text is longer than {limits.text_characters}", param="items")
        items = [Item(entry.id, entry.text, entry.metadata) for entry in body.items]
        return (await service.change(items, ())).to_json()

    @app.post("/v1/items/delete", response_model=schemas.ChangeResponse, responses=common, tags=["items"])
    async def delete(body: schemas.DeleteRequest) -> Any:
        """Delete items; ids that are not there are counted as unknown."""
        if len(body.ids) > limits.items:
            raise RefusedError(400, f"{len(body.ids)} ids; at most {limits.items}", param="ids")
        return (await service.change((), body.ids)).to_json()

    @app.delete(
        "/v1/items/{name:path}",  # a slash in an identifier comes as %2F, or as it is
        response_model=schemas.ChangeResponse,
        responses=common | documented(404),
        tags=["items"],
    )
    async def delete_one(name: Annotated[str, PathParameter(min_length=1, max_length=512)]) -> Any:
        """Delete one item."""
        change = await service.change((), [name])
        if change.unknown:
            raise RefusedError(404, f"there is no item {name!r:.80}", code="item_not_found")
        return change.to_json()


def _add_insight(app: FastAPI, service: Service) -> None:
    @app.get(
        "/health", response_model=schemas.Health, responses={503: {"model": schemas.Health}}, tags=["insight"]
    )
    async def health() -> Response:
        """200 when it answers requests, 503 until then and while its store is unavailable.

        ``degraded``: changes of the catalogue are not taken up.
        """
        if service.status != "ready":
            lost = service.unreachable
            return JSONResponse(
                {"status": service.status} | ({} if lost is None else {"reason": lost.problem}), 503
            )
        document = service.following
        return JSONResponse(document, 503 if document["status"] == "unavailable" else 200)

    @app.get(
        "/metrics",
        responses={200: {"content": {CONTENT_TYPE.partition(";")[0]: {}}}},
        response_class=Response,
        tags=["insight"],
    )
    async def metrics() -> Response:
        """Prometheus metrics."""
        if service.monitor is not None:
            await service.report()
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)

    @app.get("/v1/catalogue", responses=documented(401, 503), tags=["insight"])
    async def catalogue() -> dict[str, Any]:
        """Number of items, models, columns with their values or ranges, and texts to try as queries."""
        return await service.describe()

    @app.get(
        "/v1/suggest",
        response_model=schemas.Suggestions,
        responses=documented(401, 422, 503),
        tags=["insight"],
    )
    async def suggest(q: Annotated[str, Query(max_length=200)]) -> dict[str, Any]:
        """Item texts that hold what was typed."""
        return {"suggestions": await service.suggest(q)}

    @app.get("/v1/status", responses=documented(401, 503), tags=["insight"])
    async def status() -> dict[str, Any]:
        """The drift monitor: live queries against the reference."""
        return await service.report()


def _refuse_method(app: FastAPI, scope: Any) -> None:
    """Refuse a path of the API that is asked with a method that it does not take.

    Raises:
        HTTPException: 405, with the methods that the path takes.
    """
    routes = [route for route in app.routes if route.matches(scope)[0] is Match.PARTIAL]
    allowed = ", ".join(sorted({method for route in routes for method in getattr(route, "methods", ())}))
    if allowed:
        said = f"{scope['path']} takes {allowed}, not {scope['method']}; /docs shows an example"
        raise HTTPException(405, said, headers={"allow": allowed})


def _add_page(app: FastAPI) -> None:
    class Page(StaticFiles):
        """The web page's files, with headers that keep it from asking anyone else."""

        async def get_response(self, path: str, scope: Any) -> Response:
            try:
                response = await super().get_response(path, scope)
            except HTTPException:
                _refuse_method(app, scope)
                raise
            response.headers["content-security-policy"] = PAGE_POLICY
            response.headers["x-content-type-options"] = "nosniff"
            response.headers["referrer-policy"] = "no-referrer"
            response.headers["cache-control"] = "no-cache"
            return response

    page = Page(directory=STATIC, html=True)

    @app.get("/openapi.json", include_in_schema=False)
    async def description() -> Response:
        return Response(described(), media_type="application/json")

    @cache
    def described() -> bytes:  # made once: it is large
        return json.dumps(app.openapi(), ensure_ascii=False).encode()

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return await page.get_response("docs.html", request.scope)

    app.mount("/", page, name="page")
