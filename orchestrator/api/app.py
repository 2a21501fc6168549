"""The application: every route under /v1, each behind the same questions: who, how often, once."""

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from orchestrator.api import problems
from orchestrator.api.document import described
from orchestrator.api.limits import Limits, descriptions, streams
from orchestrator.api.long_answers import LongAnswers
from orchestrator.api.routes import (
    audit,
    certificates,
    changes,
    chat,
    commands,
    complaints,
    desired,
    drills,
    fleets,
    gateways,
    handovers,
    login,
    notices,
    plans,
    reports,
    tokens,
    windows,
)
from orchestrator.api.size import Short
from orchestrator.api.turns import Turns
from orchestrator.api.watch import Watch, health
from orchestrator.service.service import Service

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"model": problems.Problem, "content": {problems.MEDIA_TYPE: {}}}
    for status in (400, 401, 403, 404, 409, 413, 422, 429, 503)
}

_ROUTES = (
    audit,
    fleets,
    changes,
    reports,
    drills,
    commands,
    plans,
    gateways,
    handovers,
    certificates,
    desired,
    tokens,
    windows,
    login,
    notices,
    complaints,
    chat,
)


def _under_v1() -> APIRouter:
    router = APIRouter()
    for routes in _ROUTES:
        router.include_router(routes.router, prefix="/v1", responses=DOCUMENTED)
    return router


_V1 = _under_v1()
"""Every application of a process serves these very routes, of which FastAPI makes its own once: for 0.4 s."""


def application(service: Service, limits: Limits | None = None, watch: Watch | None = None) -> FastAPI:
    """Return the API of this service; two of them can share what everybody may ask how often.

    With a `watch` requests are counted, and whoever asks hears whether the API is ready.
    """
    app = FastAPI(
        title="penstock",
        version="v1",
        description="Upgrades of VPN gateways, as people and programs ask for them.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.include_router(described(app))
    app.state.service = service
    app.state.limits = limits or Limits()
    app.state.streams = streams()
    app.state.descriptions = descriptions()
    app.state.answers = LongAnswers()
    app.add_middleware(Short)
    problems.install(app)

    @app.middleware("http")
    async def _number(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        request.state.number = secrets.token_hex(8)
        began = time.monotonic()
        response = await go_on(request)
        if watch is not None:
            watch.requests.count(request.method, response.status_code, time.monotonic() - began)
        response.headers["X-Request-Id"] = request.state.number
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    app.add_middleware(Turns)  # before all others, which cost the most
    app.router.routes.extend(_V1.routes)
    if watch is not None:
        app.include_router(health(watch.readiness))
    return app
