"""The audit record: read by page, exported whole, and verified against its checkpoints."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from orchestrator.api.disconnects import while_connected
from orchestrator.api.limits import Kind
from orchestrator.api.long_answers import answered
from orchestrator.api.who import Asking, Serving, limits_of
from orchestrator.service.checkpoints import Checkpoint, Verified
from policies.model.audit import AuditEntry
from policies.model.value import Value

AT_ONCE = 500
"""Entries that are written together."""

router = APIRouter(tags=["audit"])


class AuditPage(Value):
    """Entries of the audit record, the oldest first, and after which number the next page begins."""

    entries: tuple[AuditEntry, ...]
    after: int


class NewestAudit(Value):
    """Entries of the audit record, the newest first."""

    entries: tuple[AuditEntry, ...]


class AuditState(Value):
    """The newest checkpoint, and the key that its signature is checked with."""

    public_key: str
    newest: Checkpoint | None


@router.get("/audit", response_model=AuditPage)
async def entries(
    request: Request,
    caller: Asking,
    service: Serving,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Read entries of the fleets that whoever asks audits; all entries where that is every fleet."""

    async def read() -> AuditPage:
        found = await service.audit.entries(caller, after, limit)
        return AuditPage(entries=found, after=found[-1].seq if found else after)

    return await answered(request, caller, read)


@router.get("/audit/newest", response_model=NewestAudit)
async def newest(
    request: Request,
    caller: Asking,
    service: Serving,
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Read the newest of these entries, or those before a number, the newest first."""

    async def read() -> NewestAudit:
        return NewestAudit(entries=await service.audit.newest_entries(caller, before, limit))

    return await answered(request, caller, read)


@router.get("/audit/head")
async def head(caller: Asking, service: Serving) -> AuditState:
    """Show the newest checkpoint, and the public key."""
    public_key, newest = await service.audit.state(caller)
    return AuditState(public_key=public_key, newest=newest)


@router.post("/audit/verify")
async def verify(request: Request, caller: Asking, service: Serving) -> Verified:
    """Check the whole record, and every checkpoint that is kept here."""
    return await while_connected(request, service.audit.verify(caller))


@router.get("/audit/export", response_class=StreamingResponse)
async def export(request: Request, caller: Asking, service: Serving) -> StreamingResponse:
    """Give the whole record as JSON lines, to be verified elsewhere."""
    limits_of(request).take(caller.person, Kind.CHANGE)
    found = await service.audit.export(caller)

    def lines() -> Iterator[str]:
        while some := list(islice(found, AT_ONCE)):
            yield "".join(json.dumps(dict(entry)) + "\n" for entry in some)

    return StreamingResponse(lines(), media_type="application/x-ndjson")
