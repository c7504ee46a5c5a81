"""Errors to responses: one form, OpenAI's, for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from leanmatch.errors import DataError, LeanmatchError, UsageError
from leanmatch.serve.api.schemas import ErrorResponse

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "unavailable_error",
}


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


Said = tuple[int, dict[str, Any], dict[str, str] | None]
"""Status, document and headers of an error."""


def said(error: Exception) -> Said:
    """What an error of the application is answered with."""
    if isinstance(error, RefusedError):
        body = error_body(error.status, error.message, param=error.param, code=error.code)
        return error.status, body, error.headers
    if isinstance(error, LeanmatchError):
        status = 400 if isinstance(error, UsageError | DataError) else 500
        message = error.problem if error.remedy is None else f"{error.problem}; {error.remedy}"
        return status, error_body(status, message), None
    return 500, error_body(500, f"the server failed ({type(error).__name__})"), None


def invalid(details: Mapping[str, Any]) -> Said:
    """What a body or parameter that the schema refuses is answered with; ``details`` are pydantic's."""
    where = ".".join(str(part) for part in details["loc"] if part != "body")
    message = f"{where}: {details['msg']}" if where else str(details["msg"])
    return 422, error_body(422, message, param=where or None), None


def install(app: FastAPI) -> None:
    """Make every error of the application take the form."""

    def answer(_: Request, error: Exception) -> JSONResponse:
        status, body, headers = said(error)
        return JSONResponse(body, status, headers=headers)

    for kind in (RefusedError, LeanmatchError, Exception):
        app.add_exception_handler(kind, answer)

    @app.exception_handler(RequestValidationError)
    async def refused(_: Request, error: RequestValidationError) -> JSONResponse:
        status, body, _headers = invalid(error.errors()[0])
        return JSONResponse(body, status)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return JSONResponse(
            error_body(error.status_code, str(error.detail)), error.status_code, headers=headers
        )
