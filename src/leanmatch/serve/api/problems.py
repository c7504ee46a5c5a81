"""Errors to responses: one form, OpenAI's, for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from leanmatch.errors import DataError, LeanmatchError, UsageError
from leanmatch.serve.api.schemas import ErrorResponse
from leanmatch.stores import StoreError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    503: "unavailable_error",
}


HIDDEN = frozenset({"body", "as-text", "as-texts", "as-tokens", "as-token-lists"})
"""Parts of a fault's place that are the schema's, not the client's (:mod:`leanmatch.serve.api.schemas`)."""


FAULTS = {
    "string_unicode": "the text has half of a surrogate pair, which is no character; send whole characters",
    "string_pattern_mismatch": "the text is blank; leave it out, or send a text",
    "string_too_short": "the text is empty; leave it out, or send a text",
}
"""What pydantic says about a text, in words that name the remedy."""


STORE_RETRY_SECONDS = "2"


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers


def error_body(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The document of an error."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For ``responses=``: these errors, in their one form."""
    return {status: {"model": ErrorResponse} for status in statuses}


def plain_response(status: int, message: str) -> bytes:
    """An error as it goes over the wire, for where there is no request yet to answer."""
    body = json.dumps(error_body(status, message)).encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


def install(app: FastAPI, failed: Callable[[Exception], None]) -> None:
    """Make every error of the application take the form; ``failed`` is told of those that are no refusals."""

    def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RefusedError)
        body = error_body(error.status, error.message, param=error.param, code=error.code)
        return JSONResponse(body, error.status, headers=error.headers)

    def ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, LeanmatchError)
        message = error.problem if error.remedy is None else f"{error.problem}; {error.remedy}"
        if isinstance(error, StoreError):
            request.scope.get("state", {})["error"] = type(error).__name__
            headers = {"retry-after": STORE_RETRY_SECONDS}
            return JSONResponse(error_body(503, message, code="store_unavailable"), 503, headers=headers)
        if isinstance(error, UsageError | DataError):
            return JSONResponse(error_body(400, message), 400)
        return unexpected(request, error, message)

    def unexpected(request: Request, error: Exception, message: str | None = None) -> JSONResponse:
        name = type(error).__name__
        request.scope.get("state", {})["error"] = name
        failed(error)
        return JSONResponse(error_body(500, message or f"the server failed ({name})"), 500)

    def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        details = error.errors()[0]
        where = ".".join(str(part) for part in details["loc"] if part not in HIDDEN)
        problem = FAULTS.get(details["type"], str(details["msg"]))
        message = f"{where}: {problem}" if where else problem
        return JSONResponse(error_body(422, message, param=where or None), 422)

    def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers) if error.headers else None
        status = error.status_code
        return JSONResponse(error_body(status, str(error.detail)), status, headers=headers)

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(LeanmatchError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)
