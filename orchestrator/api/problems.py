"""Problems: every refusal as problem+json (RFC 9457), with its code and what makes sense next."""

import logging
import secrets
from http import HTTPStatus
from math import ceil

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from orchestrator.api.limits import Kind
from orchestrator.api.written import wrong
from policies.model.errors import (
    BadInput,
    Conflict,
    NotAllowed,
    OtherContent,
    PenstockError,
    Refused,
    TooMany,
    Unavailable,
    Unknown,
)
from policies.model.offer import Offer
from policies.model.value import Value, sentence

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger(__name__)


class NotLoggedIn(PenstockError):
    """Nobody has said who asks."""

    exit_code = 4


_STATUS: tuple[tuple[type[PenstockError], HTTPStatus], ...] = (
    (Unknown, HTTPStatus.NOT_FOUND),
    (OtherContent, HTTPStatus.UNPROCESSABLE_ENTITY),
    (NotAllowed, HTTPStatus.FORBIDDEN),
    (BadInput, HTTPStatus.BAD_REQUEST),
    (Refused, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Conflict, HTTPStatus.CONFLICT),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (TooMany, HTTPStatus.TOO_MANY_REQUESTS),
    (NotLoggedIn, HTTPStatus.UNAUTHORIZED),
)


class Problem(Value):
    """Why nothing was done, and what makes sense instead."""

    type: str
    """`urn:penstock:` and the code."""
    code: str
    """The stable name of the error, which its runbook is filed under."""
    title: str
    status: int
    detail: str
    next: tuple[Offer, ...] = ()
    exit_code: int
    """With what a command ends that met this."""
    request_id: str


def answer(request: Request, error: PenstockError) -> JSONResponse:
    """Return an error of ours as a problem."""
    status = status_of(error)
    headers = None
    if isinstance(error, TooMany):
        headers = {"Retry-After": str(ceil(error.after))}
    if isinstance(error, NotLoggedIn):
        headers = {"WWW-Authenticate": "Bearer"}
    return _problem(
        request,
        status,
        error.code,
        str(error),
        offers=error.offers,
        headers=headers,
        exit_code=error.exit_code,
    )


def status_of(error: PenstockError) -> HTTPStatus:
    """Return with which status of HTTP an error of ours is answered."""
    found = (status for kind, status in _STATUS if isinstance(error, kind))
    return next(found, HTTPStatus.INTERNAL_SERVER_ERROR)


def unforeseen(request: Request, error: Exception) -> str:
    """Write an error of penstock's own into the log, and return the number that names it there.

    Which route it was is written down, not the path: a link that logs somebody in is part of one.
    """
    number = secrets.token_hex(8)
    route = getattr(request.scope.get("route"), "path", "no route")
    _log.error("request %s failed: %s %s", number, request.method, route, exc_info=error)
    return number


def install(app: FastAPI) -> None:
    """Answer everything that goes wrong with a problem, and nothing with a traceback."""

    @app.exception_handler(PenstockError)
    async def _ours(request: Request, error: PenstockError) -> JSONResponse:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        person = getattr(request.state, "uncharged", None)
        if person is not None:
            try:
                request.app.state.limits.take(person, Kind.INVALID)
            except TooMany as refused:
                return answer(request, refused)
        detail = sentence(wrong(error.errors()[0]))
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return _problem(request, status, BadInput.__name__, detail, exit_code=BadInput.exit_code)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        return _problem(request, status, status.name, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        number = unforeseen(request, error)
        detail = f"an internal error; the log names it under {number}"
        return _problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, "Internal", detail, number=number)


def _problem(  # the parts of an answer
    request: Request,
    status: HTTPStatus,
    code: str,
    detail: str,
    *,
    offers: tuple[Offer, ...] = (),
    exit_code: int = 1,
    headers: dict[str, str] | None = None,
    number: str = "",
) -> JSONResponse:
    problem = Problem(
        type=f"urn:penstock:{code}",
        code=code,
        title=status.phrase,
        status=status.value,
        detail=detail,
        next=offers,
        exit_code=exit_code,
        request_id=number or getattr(request.state, "number", "") or secrets.token_hex(8),
    )
    return JSONResponse(
        problem.model_dump(mode="json"), status_code=status.value, headers=headers, media_type=MEDIA_TYPE
    )
