"""Gateways: left out and taken in again, their drains extended and ended, the evidence of their failures."""

from datetime import timedelta
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query, Request
from pydantic import ConfigDict, Field, model_validator
from starlette.responses import Response

from orchestrator.api.disconnects import while_connected
from orchestrator.api.limits import Kind
from orchestrator.api.once import Once
from orchestrator.api.routes.commands import Release, Started, Why, started
from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.who import Asking, Serving, limits_of
from orchestrator.api.written import SNAPSHOT
from orchestrator.service.enrolment import EnrolmentToken
from orchestrator.service.rebuilding import Rebuilt
from policies.model.adoption import Examined
from policies.model.command import MOST_GATEWAYS, CommandReceipt
from policies.model.drain import DrainEnding, DrainExtension
from policies.model.path import PathWalked
from policies.model.snapshot import SnapshotRow
from policies.model.value import Name, Value

router = APIRouter(tags=["gateways"])

Gateway = Annotated[Name, Path(description="a gateway's name")]
Key = Annotated[str, Field(pattern=r"^[a-z0-9\[][a-zA-Z0-9.:*\] -]*$", max_length=80)]
"""A key of a daemon's configuration, or a section's heading."""

SnapshotName = Annotated[
    str, Path(max_length=71, pattern=SNAPSHOT, description="its digest, or the beginning of it")
]


class Reason(Value):
    """Why."""

    reason: Why


class Several(Value):
    """Which gateways, and why."""

    gateways: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MOST_GATEWAYS, fail_fast=True)]
    reason: Why


class Told(Value):
    """What became of it, in a sentence."""

    sentence: str
    stays: dict[str, str] = {}
    """Gateways that were to return and may not yet, each with why."""


class CertificatesRevoked(Value):
    """How many certificates of a gateway were made worthless, not counting other authorities'."""

    certificates: int
    known: bool
    """Whether the fleet's file has such a gateway."""


class OfDrains(Value):
    """Which drains are meant: all, those of one gateway, or the one of a slot of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"slot": {"type": "null"}}},
                {"properties": {"gateway": {"type": "string"}}, "required": ["gateway"]},
            ]
        }
    )

    gateway: Name | None = None
    slot: Name | None = None
    reason: Why

    @model_validator(mode="after")
    def _slot_has_its_gateway(self) -> Self:
        if self.slot is not None and self.gateway is None:
            raise ValueError("a slot is one of a gateway; name the gateway, too")
        return self


class Extension(OfDrains):
    """How much longer drains wait."""

    by_seconds: Annotated[float, Field(ge=1, le=7 * 24 * 3600)]


class Ending(OfDrains):
    """Drains are not waited for any longer."""

    exempt_too: bool = False


class Receipts(Value):
    """What became of a command to several drains."""

    receipts: tuple[CommandReceipt, ...]


class Install(Value):
    """What a fleet begins with."""

    to: Release
    reason: Why = "first installation"


class Adoption(Value):
    """Which gateways keep what serves them; all of the fleet when none is named."""

    gateways: tuple[Name, ...] = Field(default=(), max_length=10_000, fail_fast=True)
    without: Annotated[
        tuple[Key, ...],
        Field(
            max_length=64,
            fail_fast=True,
            description="keys of their own configuration that may stay behind",
        ),
    ] = ()
    reason: Why = "adoption"


class HandBack(Value):
    """Which gateways go back to their own daemons."""

    gateways: tuple[Name, ...] = Field(min_length=1, max_length=10_000, fail_fast=True)
    reason: Why


class Snapshots(Value):
    """Evidence of failures that is kept, the newest first."""

    snapshots: tuple[SnapshotRow, ...]


@router.get("/fleets/{fleet}/gateways/{gateway}/path")
async def path(fleet: Fleet, gateway: Gateway, caller: Asking, service: Serving) -> PathWalked:
    """Ask one gateway what keeps users' packets from passing through it; a tunnel is tried for it."""
    return await service.walk(caller, fleet, gateway)


@router.post("/fleets/{fleet}/gateways/quarantine", response_model=Told)
async def quarantine(fleet: Fleet, asked: Several, once: Once) -> Response:
    """Go on without gateways that refuse or are silent; each is named until it is returned."""

    async def work() -> Told:
        return Told(sentence=await once.service.leave_out(once.caller, fleet, asked.gateways, asked.reason))

    return await once.answer(work)


@router.post("/fleets/{fleet}/gateways/return", response_model=Told)
async def take_in(fleet: Fleet, asked: Several, once: Once) -> Response:
    """Let gateways take part again, each once it is seen on its known-good; the others are named."""

    async def work() -> Told:
        said = await once.service.take_in(once.caller, fleet, asked.gateways, asked.reason)
        return Told(sentence=said.sentence, stays=said.stays)

    return await once.answer(work)


@router.post("/fleets/{fleet}/gateways/{gateway}/enrol", status_code=201)
async def enrol(
    fleet: Fleet, gateway: Gateway, request: Request, caller: Asking, service: Serving
) -> EnrolmentToken:
    """Make a one-time token for a gateway's host. Its answer is kept nowhere: a repeat makes another one."""
    limits_of(request).take(caller.person, Kind.CHANGE)
    return await service.enrol_gateway(caller, fleet, gateway)


@router.post("/fleets/{fleet}/gateways/{gateway}/revoke", response_model=CertificatesRevoked)
async def revoke(fleet: Fleet, gateway: Gateway, asked: Reason, once: Once) -> Response:
    """Make every certificate of a gateway worthless; every relay knows within a minute."""

    async def work() -> CertificatesRevoked:
        ended, known = await once.service.revoke_gateway(once.caller, fleet, gateway, asked.reason)
        return CertificatesRevoked(certificates=ended, known=known)

    return await once.answer(work)


@router.post("/fleets/{fleet}/drains/extend", response_model=Receipts)
async def extend(fleet: Fleet, asked: Extension, once: Once) -> Response:
    """Move the deadline of drains; people are warned before the new one again."""
    by = timedelta(seconds=asked.by_seconds)
    command = DrainExtension(
        id=once.id, slot=asked.slot, by=by, person=once.caller.person, reason=asked.reason
    )

    async def work() -> Receipts:
        receipts = await once.service.tell_drains(once.caller, fleet, asked.gateway, command)
        return Receipts(receipts=receipts)

    return await once.answer(work)


@router.post("/fleets/{fleet}/drains/end", response_model=Receipts)
async def end(fleet: Fleet, asked: Ending, once: Once) -> Response:
    """End what is left in small batches; its users log in again."""
    command = DrainEnding(
        id=once.id,
        slot=asked.slot,
        person=once.caller.person,
        reason=asked.reason,
        exempt_too=asked.exempt_too,
    )

    async def work() -> Receipts:
        receipts = await once.service.tell_drains(once.caller, fleet, asked.gateway, command)
        return Receipts(receipts=receipts)

    return await once.answer(work)


@router.post("/fleets/{fleet}/install", response_model=Started, status_code=202)
async def install(fleet: Fleet, asked: Install, once: Once) -> Response:
    """Bring up gateways that serve nobody yet; those that serve are left alone."""

    async def work() -> Started:
        change = await once.service.install(once.caller, fleet, asked.to, asked.reason, once.key)
        return await started(once, change)

    return await once.answer(work, 202)


@router.post("/fleets/{fleet}/adopt", response_model=Started, status_code=202)
async def adopt(fleet: Fleet, asked: Adoption, once: Once) -> Response:
    """Take over gateways that serve by themselves, as they run; nobody is moved."""

    async def work() -> Started:
        change = await once.service.adopt(
            once.caller, fleet, asked.gateways, asked.without, asked.reason, once.key
        )
        return await started(once, change)

    return await once.answer(work, 202)


@router.post("/fleets/{fleet}/hand-back", response_model=Started, status_code=202)
async def hand_back(fleet: Fleet, asked: HandBack, once: Once) -> Response:
    """Give gateways back to the daemons that were adopted on them; live sessions stay until they end."""

    async def work() -> Started:
        change = await once.service.hand_back(once.caller, fleet, asked.gateways, asked.reason, once.key)
        return await started(once, change)

    return await once.answer(work, 202)


@router.get("/fleets/{fleet}/adoptable")
async def examine(
    fleet: Fleet,
    caller: Asking,
    service: Serving,
    gateways: Annotated[
        str, Query(max_length=3300, pattern=r"^[a-z0-9,.-]*$", description="only these, by commas")
    ] = "",
) -> Examined:
    """Say what serves gateways by themselves, and what is in the way of adopting it; nothing is changed."""
    named = tuple(name for name in gateways.split(",") if name)
    return await service.examine_gateways(caller, fleet, named)


@router.post("/fleets/{fleet}/rebuild", response_model=Rebuilt)
async def rebuild(fleet: Fleet, asked: Reason, once: Once) -> Response:
    """Write down again what gateways go back to, from what they serve, after the ledger was lost."""

    async def work() -> Rebuilt:
        return await once.service.rebuild(once.caller, fleet, asked.reason)

    return await once.answer(work)


@router.get("/fleets/{fleet}/snapshots")
async def snapshots(
    request: Request,
    fleet: Fleet,
    caller: Asking,
    service: Serving,
    change: Annotated[str | None, Query(max_length=63, description="only this change's")] = None,
) -> Snapshots:
    """List the evidence of failures that is kept."""
    found = await while_connected(request, service.snapshots(caller, fleet, change))
    return Snapshots(snapshots=found)


@router.get("/fleets/{fleet}/snapshots/{name}", response_class=Response)
async def snapshot(fleet: Fleet, name: SnapshotName, caller: Asking, service: Serving) -> Response:
    """Give one failure's evidence: JSON without secrets and without users' names."""
    return Response(await service.snapshot(caller, fleet, name), media_type="application/json")
