"""The site: every page behind the same questions, and what browsers are told about all of them."""

from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.datastructures import MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.limits import AtOnce, Limits
from orchestrator.api.long_answers import LongAnswers
from orchestrator.api.problems import NotLoggedIn, unforeseen
from orchestrator.api.size import Short
from orchestrator.api.watch import Watch
from orchestrator.api.written import wrong
from orchestrator.charts.gate import stylesheet
from orchestrator.page.live import Lookout
from orchestrator.page.render import CHARTS, STATIC, Internal, compile_templates, problem_of, rendered
from orchestrator.page.routes import (
    audit,
    certificates,
    changes,
    chat,
    doctor,
    drills,
    explain,
    fleets,
    gateways,
    login,
    orders,
    plans,
    releases,
    reports,
    windows,
)
from orchestrator.page.runbooks import Runbooks, named_only
from orchestrator.page.stale_while_revalidate import StaleWhileRevalidate
from orchestrator.service.doctor import Finding
from orchestrator.service.service import Service
from policies.model.errors import BadInput, PenstockError
from policies.model.value import sentence

ROUTES = (
    login,
    fleets,
    changes,
    reports,
    orders,
    plans,
    releases,
    gateways,
    certificates,
    audit,
    doctor,
    drills,
    windows,
    explain,
    chat,
)
"""What answers, by the kind of thing that people look at or do."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing runs, loads or is sent elsewhere that is not a file of penstock's own (CSP level 3)."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send forms from an origin called null
}


LONGEST_PATH = 200
"""How long a path may be that is seen after a login."""

KEPT = "public, max-age=31536000, immutable"
"""How long a file is kept whose address is another one when its content is."""

FOUND = frozenset({200, 304})


class Guarded:
    """Gives every answer of the page its headers, those that tell of errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)  # a report says itself what it may do, which is less
                named = scope["path"].startswith("/static/") and "v" in QueryParams(scope["query_string"])
                if named and message["status"] in FOUND:
                    headers["Cache-Control"] = KEPT
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except Exception:
            if not begun:
                raise  # what was answered is in the log under its number, and nowhere else again


def site(
    service: Service,
    limits: Limits,
    streams: AtOnce,
    watch: Watch | None = None,
    runbooks: Runbooks = named_only,
    answers: LongAnswers | None = None,
) -> ASGIApp:
    """Return the page as an application of its own, which shares what everybody may ask how often.

    With a `watch` every page says when engine or ledger do not answer; `runbooks` says where one opens.
    """
    return Guarded(pages(service, limits, streams, watch, runbooks, answers))


def pages(
    service: Service,
    limits: Limits,
    streams: AtOnce,
    watch: Watch | None = None,
    runbooks: Runbooks = named_only,
    answers: LongAnswers | None = None,
) -> FastAPI:
    """Return every route of the page."""
    compile_templates()
    app = FastAPI(
        title="penstock",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # where to, only the Host header would say, which anybody can write
    )
    app.state.service = service
    app.state.limits = limits
    app.state.streams = streams
    app.state.answers = answers or LongAnswers()
    app.state.watch = watch
    app.state.runbooks = runbooks
    app.state.lookout = Lookout(service, runbooks)
    app.state.examined = StaleWhileRevalidate[tuple[Finding, ...]]()
    app.add_middleware(Short)
    app.add_api_route(CHARTS, _charts, methods=["GET"])
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for routes in ROUTES:
        app.include_router(routes.router)
    _answer_errors(app)
    return app


async def _charts() -> Response:
    """Give the style sheet of charts, which reports carry in themselves."""
    return Response(stylesheet(), media_type="text/css")


def _answer_errors(app: FastAPI) -> None:
    """Answer everything that goes wrong with a page that says what, and what makes sense next."""

    @app.exception_handler(NotLoggedIn)
    async def _stranger(request: Request, _: NotLoggedIn) -> Response:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        streamed = "text/event-stream" in request.headers.get("accept", "")
        back = request.method == "GET" and not streamed and wanted != "/" and len(wanted) <= LONGEST_PATH
        return RedirectResponse(f"/login?{urlencode({'to': wanted})}" if back else "/login", 303)

    @app.exception_handler(PenstockError)
    async def _ours(request: Request, error: PenstockError) -> Response:
        code, headers = problem_of(error)
        return rendered(request, "problem.html", problem=error, code=code, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        problem = BadInput(sentence(wrong(error.errors()[0])))
        return rendered(request, "problem.html", problem=problem, code=422)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        problem = BadInput(str(error.detail))
        return rendered(request, "problem.html", problem=problem, code=error.status_code)

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> Response:
        problem = Internal(f"an internal error; the log names it under {unforeseen(request, error)}")
        return rendered(request, "problem.html", problem=problem, code=500)
