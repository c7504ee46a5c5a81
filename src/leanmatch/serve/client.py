"""A small typed client with retries.

>>> from leanmatch.serve import Client
>>> client = Client("http://127.0.0.1:8080")  # nothing is sent yet
>>> client.close()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leanmatch.errors import DataError, LeanmatchError, MissingExtraError, UsageError
from leanmatch.types import Vectors

try:
    import httpx
    import tenacity
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "httpx", "client", "the client") from error

RETRIED = (429, 502, 503, 504)
"""Answers that another attempt may change."""

LONGEST_WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Word:
    """A word by its place in a text (in code points), and how much the score falls without it."""

    start: int
    end: int
    importance: float


@dataclass(frozen=True)
class Hit:
    """One recommended item; ``score`` is the cosine. The words are there where ``explain`` was asked for."""

    rank: int
    score: float
    id: str
    text: str
    metadata: Mapping[str, Any]
    query_words: tuple[Word, ...] = ()
    item_words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class ClientItem:
    """An item to add or replace."""

    id: str
    text: str
    metadata: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


class ServerError(LeanmatchError):
    """The server refused a request, or failed.

    Attributes:
        status: the HTTP status.
        request: the request's id, as it stands in the server's log.
    """

    def __init__(self, status: int, message: str, request: str) -> None:
        self.status, self.request = status, request
        super().__init__(f"{message} (HTTP {status}, request {request})")


class Client:
    """Speaks with a server; one connection pool, safe to use from several threads.

    429 and 503 are tried again after the time that the server names, else after growing pauses with jitter;
    so are connections that fail. Every operation may be repeated without harm.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        attempts: int = 5,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """``attempts`` of each request; ``transport`` and ``sleep`` are for tests.

        Raises:
            UsageError: ``attempts`` below 1.
        """
        if attempts < 1:
            raise UsageError(f"attempts is {attempts}", remedy="give 1 or more")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        more: dict[str, Any] = {} if sleep is None else {"sleep": sleep}
        self._retry = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(attempts),
            wait=_wait,
            retry=tenacity.retry_if_exception(_again),
            reraise=True,
            **more,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recommend(
        self,
        texts: Sequence[str],
        k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        exclude: Sequence[str] = (),
        exclude_self: bool = True,
        explain: bool = False,
        hybrid: bool | None = None,
        lexical_weight: float | None = None,
        rerank: bool = False,
    ) -> list[list[Hit]]:
        """The ``k`` best items for each text; the options are those of ``/v1/recommend``.

        Raises:
            UsageError: one string in place of a list.
            ServerError: the server refused, or failed for good.
        """
        if isinstance(texts, str):
            raise UsageError(f"recommend was given one string, {texts!r:.60}", remedy="give a list of texts")
        if not texts:
            return []
        body = {
            "texts": list(texts),
            "k": k,
            "filter": dict(filter) if isinstance(filter, Mapping) else filter,
            "exclude": list(exclude),
            "exclude_self": exclude_self,
            "explain": explain,
            "rerank": rerank,
        }
        choices = {"hybrid": hybrid, "lexical_weight": lexical_weight}
        body |= {name: value for name, value in choices.items() if value is not None}
        answer = self._ask("POST", "/v1/recommend", body)
        return [[_hit(entry) for entry in result["recommendations"]] for result in answer["results"]]

    def embed(self, texts: Sequence[str], model: str | None = None) -> Vectors:
        """Vectors of texts, float32 ``(texts, dimension)``, to the bit as the server has them.

        Raises:
            ServerError: the server refused, or failed for good.
        """
        named = model or self.models()[0]
        body = {"input": list(texts), "model": named, "encoding_format": "base64"}
        answer = self._ask("POST", "/v1/embeddings", body)
        import base64

        rows = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in answer["data"]]
        return np.array(rows, dtype=np.float32)

    def upsert(self, items: Sequence[ClientItem]) -> dict[str, Any]:
        """Add or replace items; when it returns they are on the server's disk."""
        body = {"items": [{"id": i.id, "text": i.text, "metadata": dict(i.metadata)} for i in items]}
        answer: dict[str, Any] = self._ask("POST", "/v1/items", body)
        return answer

    def delete(self, ids: Sequence[str]) -> dict[str, Any]:
        """Delete items; those that are not there are counted as unknown."""
        answer: dict[str, Any] = self._ask("POST", "/v1/items/delete", {"ids": list(ids)})
        return answer

    def models(self) -> list[str]:
        """The names of the server's models."""
        return [str(model["id"]) for model in self._ask("GET", "/v1/models")["data"]]

    def catalogue(self) -> dict[str, Any]:
        """Number of items, columns, and their values or ranges."""
        description: dict[str, Any] = self._ask("GET", "/v1/catalogue")
        return description

    def status(self) -> dict[str, Any]:
        """The drift monitor's document."""
        document: dict[str, Any] = self._ask("GET", "/v1/status")
        return document

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        def attempt() -> Any:
            response = self._http.request(method, path, json=body)
            if response.is_success:
                return response.json()
            raise _RefusedError(response)

        try:
            return self._retry(attempt)
        except _RefusedError as error:
            raise error.told() from None
        except httpx.TransportError as error:
            raise LeanmatchError(
                f"{self._http.base_url} does not answer ({type(error).__name__}: {error})",
                remedy="is the server running there?",
            ) from error
        except ValueError as error:
            raise DataError(f"the server's answer is no JSON: {error}", remedy="check the address") from error


class _RefusedError(Exception):
    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response.status_code)
        self.response = response

    def told(self) -> ServerError:
        try:
            message = str(self.response.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            message = self.response.reason_phrase
        return ServerError(
            self.response.status_code, message, self.response.headers.get("x-request-id", "unknown")
        )


def _again(error: BaseException) -> bool:
    if isinstance(error, _RefusedError):
        return error.response.status_code in RETRIED
    return isinstance(error, httpx.TransportError)


_growing = tenacity.wait_random_exponential(multiplier=0.2, max=5.0)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, _RefusedError):
        retry_after = error.response.headers.get("retry-after", "")
        if retry_after.isdigit():
            return min(float(retry_after), LONGEST_WAIT_SECONDS)
    return float(_growing(state))


def _hit(document: Mapping[str, Any]) -> Hit:
    why = document.get("explanation") or {"query": [], "item": []}
    return Hit(
        rank=document["rank"],
        score=document["score"],
        id=document["id"],
        text=document["text"],
        metadata=document["metadata"],
        query_words=tuple(Word(**word) for word in why["query"]),
        item_words=tuple(Word(**word) for word in why["item"]),
    )
