"""``POST /v1/recommend``: from a body's bytes to an answer's bytes.

It is the request that comes by the thousand, so it does not pass through the framework: the same schema that
the framework describes it by (``/openapi.json``) reads the body, and the answer is put together from bytes
that are kept for each item. :class:`leanmatch.serve.api.middleware.Gate` calls it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from leanmatch.index.filters.expression import Filter, filter_from_json
from leanmatch.index.filters.text import parse_filter
from leanmatch.serve.api.middleware import Direct, Reply
from leanmatch.serve.api.problems import RefusedError, invalid, said
from leanmatch.serve.api.schemas import RecommendRequest
from leanmatch.serve.engine import Recommend
from leanmatch.serve.explaining import Effects
from leanmatch.serve.service import Service

_read = TypeAdapter(RecommendRequest).validate_json
_quoted = json.JSONEncoder(ensure_ascii=False).encode
_JSON = b"application/json"


def recommend_direct(service: Service) -> Direct:
    """What answers ``POST /v1/recommend``."""
    counted = service.metrics.texts.labels("recommend")

    async def recommend(body: bytes, headers: dict[bytes, bytes], state: dict[str, Any]) -> Reply:
        try:
            request = read_request(body, headers)
            answer = await _answered(service, request, state, counted)
        except ValidationError as error:
            return Reply.of(*invalid(error.errors(include_url=False)[0]))
        except Exception as error:
            reply = Reply.of(*said(error))
            if reply.status == 500:
                service.metrics.errors.labels(type(error).__name__).inc()
                state["error"] = type(error).__name__
            return reply
        return Reply(200, answer)

    return recommend


def read_request(body: bytes, headers: dict[bytes, bytes]) -> RecommendRequest:
    """The body as the schema reads it.

    Raises:
        RefusedError: it does not say that it is JSON.
        ValidationError: it is not, or not what the schema asks for.
    """
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != _JSON:
        raise RefusedError(422, "the body is not application/json, or does not say so")
    return _read(body)


async def _answered(
    service: Service, request: RecommendRequest, state: dict[str, Any], counted: Any
) -> bytes:
    texts, limits = request.texts, service.options.limits
    check_texts(texts, service)
    if request.k > limits.results:
        raise RefusedError(400, f"k is {request.k}; at most {limits.results} is served here", param="k")
    job = Recommend(texts, request.k, read_filter(request.filter), request.exclude, request.exclude_self)
    if job.filter is not None:
        service.catalogue.select(job.filter)  # a filter that does not fit is refused before it waits
    note(state, service, texts)
    counted.inc(len(texts))
    answer, explained = await service.recommend(job, request.explain)
    documents = answer.documents()
    if explained is not None:
        for items, effects in zip(documents, explained, strict=True):
            for at, (query, item) in enumerate(effects):
                items[at] += b',"explanation":{"query":%b,"item":%b}' % (_words(query), _words(item))
    results = b",".join(
        b'{"text":%b,"recommendations":[%b]}' % (_text(text), b",".join([b"{%b}" % one for one in items]))
        for text, items in zip(texts, documents, strict=True)
    )
    generation = answer.catalogue.manifest.generation
    return b'{"model":%b,"generation":%d,"results":[%b]}' % (_text(service.model), generation, results)


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


def read_filter(value: dict[str, Any] | str | None) -> Filter | None:
    """A request's filter in either form.

    Raises:
        UsageError: it is none.
    """
    if value is None:
        return None
    return parse_filter(value) if isinstance(value, str) else filter_from_json(value)


def _text(text: str) -> bytes:
    return _quoted(text).encode()


def _words(effects: Effects) -> bytes:
    return json.dumps(
        [{"start": start, "end": end, "importance": round(effect, 6)} for start, end, effect in effects]
    ).encode()
