"""Token ids as input of ``/v1/embeddings``, and counting tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from leanmatch.errors import DataError
from leanmatch.models import SentenceEncoder, TokenCounts
from leanmatch.serve.api.problems import RefusedError
from leanmatch.serve.engine import Embed
from leanmatch.serve.monitoring.drift import TokenCounter
from leanmatch.serve.service import Service
from leanmatch.types import Vectors


async def encode_tokens(service: Service, tokens: Sequence[Sequence[int]]) -> Vectors:
    """Vectors of token ids of the model's own tokenizer.

    The runtime takes ids as they are. With another encoder they are decoded, and refused where the text would
    not give the same ids again.

    Raises:
        RefusedError: the server takes none; or ids that the model does not have or that no text gives.
    """
    options = service.options
    if not options.allow_token_ids:
        raise RefusedError(
            400,
            "the input is token ids, and this server takes texts: ids of another tokenizer (OpenAI clients "
            "send tiktoken's) would give unrelated vectors; send texts (LangChain: "
            "OpenAIEmbeddings(check_embedding_ctx_length=False)), or start the server with --allow-token-ids "
            "if the ids come from this model's own tokenizer",
            param="input",
        )
    if len(tokens) > options.limits.request_texts:
        raise RefusedError(
            400, f"{len(tokens)} inputs; at most {options.limits.request_texts}", param="input"
        )
    encoder = service.engine.encoder
    direct = getattr(encoder, "encode_tokens", None)
    if direct is not None:
        try:
            unit = {"normalize_embeddings": True} if isinstance(encoder, SentenceEncoder) else {}
            result: Vectors = await service.aside(partial(direct, **unit), tokens)
            return result
        except DataError as error:
            raise RefusedError(400, error.problem, param="input") from error
    tokenizer = getattr(encoder, "tokenizer", None)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if backend is None or not hasattr(backend, "decode"):
        raise RefusedError(
            400, "this model has no tokenizer to read token ids with; send texts", param="input"
        )
    texts = []
    for ids in tokens:
        try:
            text = backend.decode(list(ids), skip_special_tokens=False)
            again = backend.encode(text, add_special_tokens=False).ids
        except (OverflowError, ValueError, TypeError):
            text, again = "", []
        if list(again) != list(ids) or not text.strip():
            raise RefusedError(
                400,
                "these token ids are not those of a text in this model's tokenizer; send the text",
                param="input",
            )
        texts.append(text)
    vectors: Vectors = await service.ask(Embed(texts))
    return vectors


def count_tokens(encoder: Any, texts: Sequence[str]) -> TokenCounts:
    """What the model reads of the texts, and what is cut off; words where the encoder counts no tokens."""
    if hasattr(encoder, "count_tokens"):
        counts: TokenCounts = encoder.count_tokens(texts)
        return counts
    counter = TokenCounter(getattr(encoder, "tokenizer", None))
    if counter.there:
        return TokenCounts(len(texts), sum(tokens for tokens, _ in counter(texts)))
    return TokenCounts(len(texts), sum(len(text.split()) for text in texts))
