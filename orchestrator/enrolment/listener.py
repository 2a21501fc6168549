"""The enrolment port, where hosts without a certificate ask for one: two requests, and nothing else."""

import logging

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestrator.api.limits import Kind, Limits
from orchestrator.api.size import Short
from orchestrator.crowd import crowd_of
from orchestrator.enrolment.desk import Desk
from orchestrator.enrolment.messages import EnrolmentAsked
from policies.model.errors import BadInput, NotAllowed, PenstockError, TooMany

AUTHORITY, ENROL = "/v1/authority", "/v1/enrol"
STATUS: dict[type[PenstockError], int] = {TooMany: 429, NotAllowed: 403, BadInput: 400}
_log = logging.getLogger(__name__)


def enrolment_application(desk: Desk) -> Starlette:
    """Return what answers there; who asks too often waits."""
    limits = Limits()

    async def authority(request: Request) -> Response:
        limits.take(crowd_of(_peer(request)), Kind.LOOK)
        return Response(desk.authority_pem, media_type="application/x-pem-file")

    async def enrol(request: Request) -> Response:
        limits.take(crowd_of(_peer(request)), Kind.STRANGER)
        try:
            asked = EnrolmentAsked.model_validate_json(await request.body())
        except ValidationError as error:
            raise BadInput("that is no request for a certificate; penstock agent enrol sends one") from error
        given = await desk.enrol(asked, _peer(request))
        return Response(given.model_dump_json(), media_type="application/json")

    app = Starlette(
        routes=[Route(AUTHORITY, authority), Route(ENROL, enrol, methods=["POST"])],
        exception_handlers={PenstockError: _refused},
    )
    app.add_middleware(Short)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, TooMany):  # whoever asks too often does not choose how long the log is
        _log.warning("an enrolment from %s was refused: %s", _peer(request), error)
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 503)
    return JSONResponse({"code": type(error).__name__, "sentence": str(error)}, status)


def _peer(request: Request) -> str:
    return request.client.host if request.client is not None else "somewhere"
