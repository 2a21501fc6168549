"""Complaints and tickets, by webhook: the signature says who may, and no caller is asked for."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Header, Request

from orchestrator.api.limits import Kind
from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.who import Serving, crowd_asking, limits_of
from policies.judge.complaints import MOST_BYTES, Complaint
from policies.model.errors import BadInput, PenstockError
from policies.model.ticket import Ticket
from policies.model.value import Value

router = APIRouter(tags=["complaints"])

At = Annotated[
    str, Header(alias="X-Penstock-At", max_length=12, description="seconds since the epoch, as signed")
]
Signature = Annotated[
    str, Header(alias="X-Penstock-Signature", max_length=64, description="HMAC-SHA256 in hex")
]


class Recorded(Value):
    """Whether a complaint or ticket is in the ledger, and new there."""

    recorded: bool = True
    new: bool


@router.post(
    "/fleets/{fleet}/complaints",
    status_code=202,
    openapi_extra={
        "requestBody": {
            "content": {"application/json": {"schema": Complaint.model_json_schema()}},
            "required": True,
        }
    },
)
async def complain(
    fleet: Fleet, request: Request, service: Serving, at: At = "", signature: Signature = ""
) -> Recorded:
    """Record that a user complained about a gateway; signed over `at.fleet.body` as it is sent."""
    return await _taken(request, Kind.COMPLAINT, lambda body: service.complain(fleet, body, at, signature))


@router.post(
    "/fleets/{fleet}/tickets",
    status_code=202,
    openapi_extra={
        "requestBody": {
            "content": {"application/json": {"schema": Ticket.model_json_schema()}},
            "required": True,
        }
    },
)
async def ticket(
    fleet: Fleet, request: Request, service: Serving, at: At = "", signature: Signature = ""
) -> Recorded:
    """Record how a ticket about a fleet or a gateway stands; signed over `at.fleet.body` as it is sent."""
    return await _taken(request, Kind.TICKET, lambda body: service.ticket(fleet, body, at, signature))


async def _taken(request: Request, kind: Kind, record: Callable[[bytes], Awaitable[bool]]) -> Recorded:
    """Record what was sent, unless whoever sends asks too often or sends too much."""
    crowd, limits = crowd_asking(request), limits_of(request)
    limits.take(crowd, kind)
    body = await request.body()
    if len(body) > MOST_BYTES:
        raise BadInput(f"a {kind.value} has at most {MOST_BYTES} bytes")
    try:
        return Recorded(new=await record(body))
    except PenstockError:
        limits.take(crowd, Kind.STRANGER)
        raise
