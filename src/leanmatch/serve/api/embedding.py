"""``POST /v1/embeddings``: vectors of texts, or of token ids where the server was started to take them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from leanmatch.models import TokenCounts, normalized
from leanmatch.serve.api.matching import check_texts, note
from leanmatch.serve.api.problems import RefusedError
from leanmatch.serve.api.schemas import EmbeddingsRequest
from leanmatch.serve.api.tokens import count_tokens, encode_tokens
from leanmatch.serve.engine import Embed
from leanmatch.serve.service import Service

COUNTED_ON_LOOP = 2_000
"""Characters whose tokens are counted at once; more are counted in a thread."""


async def embed(service: Service, body: EmbeddingsRequest, http: Request) -> Response:
    """Answer a request."""
    if body.model != service.model:
        raise RefusedError(
            404,
            f"the model {body.model[:200]!r} does not exist; this server has {service.model!r}",
            param="model",
            code="model_not_found",
        )
    whole = service.catalogue.dimension
    kept = body.dimensions or service.options.dimensions or whole
    if kept > whole:
        raise RefusedError(
            400, f"dimensions is {kept}; this server's vectors have {whole}", param="dimensions"
        )
    texts, tokens = _inputs(body.input)
    if texts:
        check_texts(texts, service)
        note(http.scope["state"], service, texts)
        vectors = await service.ask(Embed(texts))
    else:
        vectors = await encode_tokens(service, tokens)
    if kept < whole:
        vectors = normalized(vectors[:, :kept])
    service.metrics.texts.labels("embed").inc(len(vectors))
    used = TokenCounts(len(tokens), sum(map(len, tokens))) if tokens else await _tokens_of(service, texts)
    return JSONResponse(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": i, "embedding": _encoded(vector, body.encoding_format)}
                for i, vector in enumerate(vectors)
            ],
            "model": service.model,
            "usage": {
                "prompt_tokens": used.tokens,
                "total_tokens": used.tokens,
                "truncated_texts": used.truncated,
            },
        }
    )


async def _tokens_of(service: Service, texts: list[str]) -> TokenCounts:
    encoder = service.engine.encoder
    if sum(map(len, texts)) <= COUNTED_ON_LOOP:
        return count_tokens(encoder, texts)
    return await service.aside(count_tokens, encoder, texts)


def _inputs(value: Any) -> tuple[list[str], list[list[int]]]:
    if isinstance(value, str):
        return [value], []
    if isinstance(value[0], str):
        return list(value), []
    return [], [list(value)] if isinstance(value[0], int) else [list(tokens) for tokens in value]


def _encoded(vector: Any, form: str) -> Any:
    if form == "base64":
        return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode("ascii")
    return [float(value) for value in vector]
