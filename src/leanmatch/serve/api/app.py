"""The application: routes, their limits, and what they answer."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from leanmatch import __version__
from leanmatch.errors import MissingExtraError
from leanmatch.index.changes import Item
from leanmatch.serve.options import ServeOptions

try:
    from fastapi import FastAPI, Query, Request
    from fastapi import Path as PathParameter
    from fastapi.responses import JSONResponse, Response
    from fastapi.staticfiles import StaticFiles
except ModuleNotFoundError as error:
    raise MissingExtraError("fastapi", "serve", "the server") from error

from leanmatch.serve.api import schemas
from leanmatch.serve.api.access_log import AccessLog
from leanmatch.serve.api.matching import check_texts, note, recommend_direct
from leanmatch.serve.api.middleware import Gate
from leanmatch.serve.api.problems import RefusedError, documented, install
from leanmatch.serve.api.tokens import count_tokens, encode_tokens
from leanmatch.serve.engine import Embed
from leanmatch.serve.monitoring.metrics import CONTENT_TYPE, Metrics
from leanmatch.serve.service import Service

STATIC = Path(__file__).parent.parent / "static"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(options: ServeOptions, *, encoder: Any = None) -> Gate:
    """The ASGI application: FastAPI behind the gate that every request passes.

    Args:
        options: see :class:`ServeOptions`.
        encoder: one that is loaded already; else the catalogue says which model to open.
    """
    metrics = Metrics()
    service = Service(options, metrics, encoder)
    access = AccessLog()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        if options.workers > 1:  # of several, one that loads must not answer 503 for those that are ready
            await service.settled()
        yield
        await service.stop()
        access.flush()

    app = FastAPI(title="leanmatch", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    install(app)
    _add_matching(app, service)
    _add_items(app, service)
    _add_insight(app, service)
    _add_page(app)
    return Gate(app, options, metrics, access, {"/v1/recommend": recommend_direct(service)})


def _add_matching(app: FastAPI, service: Service) -> None:
    limits, metrics = service.options.limits, service.metrics
    common = documented(400, 401, 413, 422, 429, 500, 503)

    @app.post("/v1/recommend", response_model=schemas.RecommendResponse, responses=common, tags=["matching"])
    async def recommend(body: schemas.RecommendRequest) -> Response:
        """The items that match each text best."""
        raise AssertionError(f"the gate answers this path, see matching.py: {body!r:.80}")

    @app.post(
        "/v1/embeddings",
        response_model=schemas.EmbeddingsResponse,
        responses=common | documented(404),
        tags=["matching"],
    )
    async def embeddings(body: schemas.EmbeddingsRequest, request: Request) -> Response:
        """Vectors of texts or of this model's own token ids, as OpenAI's clients ask for them."""
        if body.model != service.model:
            raise RefusedError(
                404,
                f"the model {body.model!r} does not exist; this server has {service.model!r}",
                param="model",
                code="model_not_found",
            )
        dimension = service.catalogue.dimension
        if body.dimensions not in {None, dimension}:
            raise RefusedError(400, f"this model has {dimension} dimensions", param="dimensions")
        texts, tokens = _inputs(body.input)
        if texts:
            check_texts(texts, service)
            note(request.scope["state"], service, texts)
            vectors = await service.ask(Embed(texts))
        else:
            if len(tokens) > limits.request_texts:
                raise RefusedError(
                    400, f"{len(tokens)} inputs; at most {limits.request_texts}", param="input"
                )
            vectors = await encode_tokens(service, tokens)
        metrics.texts.labels("embed").inc(len(vectors))
        used = sum(map(len, tokens)) if tokens else count_tokens(service.engine.encoder, texts)
        return JSONResponse(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": i, "embedding": _encoded(vector, body.encoding_format)}
                    for i, vector in enumerate(vectors)
                ],
                "model": service.model,
                "usage": {"prompt_tokens": used, "total_tokens": used},
            }
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
        items = [Item(one.id, one.text, one.metadata) for one in body.items]
        return (await service.change(items, ())).to_json()

    @app.post("/v1/items/delete", response_model=schemas.ChangeResponse, responses=common, tags=["items"])
    async def delete(body: schemas.DeleteRequest) -> Any:
        """Delete items; ids that are not there are counted as unknown."""
        if len(body.ids) > limits.items:
            raise RefusedError(400, f"{len(body.ids)} ids; at most {limits.items}", param="ids")
        return (await service.change((), body.ids)).to_json()

    @app.delete(
        "/v1/items/{name}",
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
        """200 when ready, 503 until then."""
        if service.status != "ready":
            return JSONResponse({"status": service.status}, 503)
        catalogue = service.catalogue
        return JSONResponse(
            {"status": "ready", "items": len(catalogue), "generation": catalogue.manifest.generation}
        )

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
        """Number of items, and the columns with their values or ranges."""
        found = service.catalogue
        return {
            "model": service.model,
            "weights": found.manifest.model.weights,
            "items": len(found),
            "generation": found.manifest.generation,
            "columns": found.facets(),
        }

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


def _add_page(app: FastAPI) -> None:
    class Page(StaticFiles):
        """The web page's files, with headers that keep it from asking anyone else."""

        async def get_response(self, path: str, scope: Any) -> Response:
            response = await super().get_response(path, scope)
            response.headers["content-security-policy"] = PAGE_POLICY
            response.headers["x-content-type-options"] = "nosniff"
            response.headers["referrer-policy"] = "no-referrer"
            response.headers["cache-control"] = "no-cache"
            return response

    page = Page(directory=STATIC, html=True)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return await page.get_response("docs.html", request.scope)

    app.mount("/", page, name="page")


def _inputs(value: Any) -> tuple[list[str], list[list[int]]]:
    if isinstance(value, str):
        return [value], []
    if isinstance(value[0], str):
        return list(value), []
    return [], [list(value)] if isinstance(value[0], int) else [list(one) for one in value]


def _encoded(vector: Any, form: str) -> Any:
    if form == "base64":
        return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode("ascii")
    return [float(value) for value in vector]
