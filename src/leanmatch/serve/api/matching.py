"""``POST /v1/recommend``: from a request to an answer's bytes.

It is the request that comes by the thousand. Its route is FastAPI's as any other, with its schema and its
errors, but its requests pass by the framework (:class:`DirectRoute`), and the answer is put together from
bytes that are kept for each item.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from leanmatch.index.filters.expression import shortened
from leanmatch.serve.api.middleware import App, ClientGoneError
from leanmatch.serve.api.problems import RefusedError
from leanmatch.serve.api.schemas import RecommendRequest
from leanmatch.serve.engine import Answer, Recommend
from leanmatch.serve.explaining import Effects
from leanmatch.serve.service import Service

EXPLAINED_TEXTS = 16
"""Texts of one request that are explained; each word of each result costs a pass through the model."""

RERANKED_TEXTS = 16
"""Texts of one request that are reranked; each of their best items costs a pass through the cross-encoder."""

RESULTS_ON_LOOP = 500
"""More results than this are put together in a thread."""

_quoted = json.JSONEncoder(ensure_ascii=False).encode


class DirectRoute(APIRoute):
    """A route whose endpoint takes a pydantic model, ``body``, and the request, and gives a response.

    FastAPI describes it and routes to it as to any other. Its ``app`` does without dependencies, and
    :func:`direct_apps` gives it to the gate, so that a request passes by routing and middleware, too.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        model = self.dependant.body_params[0].field_info.annotation
        read = body_reader(model)

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            message = await receive()
            body = message.get("body", b"")
            while message.get("more_body"):  # not from the gate, which gives bodies whole
                message = await receive()
                body += message.get("body", b"")
            content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
            response: Response = await endpoint(read(body, content_type), Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = answer


def direct_apps(app: FastAPI) -> dict[str, App]:
    """Every :class:`DirectRoute` of an application by its path, with the application's error handlers."""

    def handled(route: DirectRoute) -> App:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            try:
                await route.app(scope, receive, send)
            except ClientGoneError:
                raise
            except Exception as error:
                handlers: dict[Any, Any] = app.exception_handlers
                handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
                await handler(Request(scope), error)(scope, receive, send)

        return answer

    return {route.path: handled(route) for route in app.routes if isinstance(route, DirectRoute)}


def body_reader(model: Any) -> Callable[[bytes, bytes], Any]:
    """A function from a body and its content type to what the schema reads.

    It raises :class:`RefusedError` where the body does not say that it is JSON, and
    ``RequestValidationError`` where it is not, or not what the schema asks for.
    """
    adapter = TypeAdapter(model)

    def read(body: bytes, content_type: bytes) -> Any:
        if content_type.partition(b";")[0].strip().lower() != b"application/json":
            raise RefusedError(422, "the body is not application/json, or does not say so")
        try:
            return adapter.validate_json(body)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False, include_context=False)
        if (
            details[0]["type"] == "json_invalid"
        ):  # half a surrogate pair is; Python reads it and can say where
            try:
                adapter.validate_python(json.loads(body))
            except ValidationError as error:
                details = error.errors(include_url=False, include_input=False, include_context=False)
            except (ValueError, RecursionError):
                pass
        raise RequestValidationError(details)

    return read


async def recommend(service: Service, request: RecommendRequest, http: Request) -> Response:
    """Answer a request."""
    texts, limits = request.texts, service.options.limits
    check_texts(texts, service)
    if request.k > limits.results:
        raise RefusedError(
            400, f"k is {shortened(request.k)}; at most {limits.results} is served here", param="k"
        )
    if len(request.exclude) > limits.excluded:
        raise RefusedError(
            400,
            f"{len(request.exclude):,} identifiers to leave out; at most {limits.excluded:,}; use a filter",
            param="exclude",
        )
    if request.explain and len(texts) > EXPLAINED_TEXTS:
        raise RefusedError(
            400, f"{len(texts)} texts; at most {EXPLAINED_TEXTS} a request are explained", param="texts"
        )
    if request.rerank and len(texts) > RERANKED_TEXTS:
        raise RefusedError(
            400, f"{len(texts)} texts; at most {RERANKED_TEXTS} a request are reranked", param="texts"
        )
    selected = await service.select(request.filter)
    job = Recommend(
        texts,
        request.k,
        selected,
        request.exclude,
        request.exclude_self,
        request.hybrid,
        request.lexical_weight,
    )
    note(http.scope["state"], service, texts)
    service.metrics.texts.labels("recommend").inc(len(texts))
    explained = None
    if request.explain:
        work = service.explain(job, rerank=request.rerank)
        answer, explained = await unless_gone(http.receive, work)
    elif request.rerank:
        answer = await unless_gone(http.receive, service.reranked(job))
    else:
        answer = await service.recommend(job)
    if len(texts) * request.k > RESULTS_ON_LOOP or explained is not None:
        content = await service.aside(_document, service.model, texts, answer, explained)
    else:
        content = _document(service.model, texts, answer, explained)
    return Response(content, media_type="application/json")


async def unless_gone(receive: Callable[[], Awaitable[Any]], work: Awaitable[Any]) -> Any:
    """What the work gives; it is cancelled when its client closes the connection.

    Raises:
        ClientGoneError: the client did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_closed(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for future in (task, gone):
            future.cancel()


async def _closed(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _document(
    model: str,
    texts: Sequence[str],
    answer: Answer,
    explained: Sequence[Sequence[tuple[Effects, Effects]]] | None,
) -> bytes:
    documents = answer.documents()
    if explained is not None:
        hybrid = any(result.lexical is not None for result in answer.found)
        matched = answer.matched(texts) if hybrid else None
        for number, (items, effects) in enumerate(zip(documents, explained, strict=True)):
            for at, (query, item) in enumerate(effects):
                terms = b"" if matched is None else b',"terms":%b' % json.dumps(matched[number][at]).encode()
                items[at] += b',"explanation":{"query":%b,"item":%b%b}' % (_words(query), _words(item), terms)
    results = b",".join(
        b'{"text":%b,"recommendations":[%b]}'
        % (_text(text), b",".join([b"{%b}" % fields for fields in items]))
        for text, items in zip(texts, documents, strict=True)
    )
    return b'{"model":%b,"generation":%d,"results":[%b]}' % (_text(model), answer.generation, results)


def check_texts(texts: Sequence[str], service: Service) -> None:
    """Refuse too many or too long texts.

    Raises:
        RefusedError: 400.
    """
    limits = service.options.limits
    if len(texts) > limits.request_texts:
        raise RefusedError(
            400, f"{len(texts)} texts; at most {limits.request_texts} a request", param="texts"
        )
    longest = max(map(len, texts))
    if longest > limits.text_characters:
        raise RefusedError(400, f"a text has {longest:,} characters; at most {limits.text_characters:,}")


def note(state: dict[str, Any], service: Service, texts: Sequence[str]) -> None:
    """Leave for the log how many texts there are; the texts only where that was asked for."""
    state["texts"] = len(texts)
    if service.options.log_texts:
        state["queries"] = list(texts)


def _text(text: str) -> bytes:
    return _quoted(text).encode()


def _words(effects: Effects) -> bytes:
    return json.dumps(
        [{"start": start, "end": end, "importance": round(effect, 6)} for start, end, effect in effects]
    ).encode()
