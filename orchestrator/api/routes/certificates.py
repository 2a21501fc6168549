"""Certificates of agents: whose hold and until when, which were revoked, and of whom nothing is known."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from orchestrator.api.long_answers import answered
from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.who import Asking, Serving
from orchestrator.service.agent_certificates import FleetCertificates
from policies.agent_certificates import CertificateState

router = APIRouter(tags=["gateways"])

After = Annotated[
    str | None,
    Query(
        max_length=80,
        pattern=rf"^(?:{'|'.join(CertificateState)}):[a-z0-9.-]*$",
        description="where an answer's next ones begin",
    ),
]
"""A place among a fleet's gateways: a state and a gateway's name."""


@router.get("/fleets/{fleet}/certificates", response_model=FleetCertificates)
async def certificates(
    request: Request,
    fleet: Fleet,
    caller: Asking,
    service: Serving,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Say how the certificates of the fleet's agents stand, worst first; no gateway is asked."""
    return await answered(request, caller, partial(service.certificates.of, caller, fleet, after, limit))
