"""Plans and releases: what would happen, and what may be rolled out."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import Field
from starlette.responses import Response

from orchestrator.api.disconnects import while_connected
from orchestrator.api.limits import Kind
from orchestrator.api.long_answers import answered
from orchestrator.api.once import Once
from orchestrator.api.routes.commands import Release, Why
from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.texts import LONGEST_RELEASE
from orchestrator.api.who import Asking, Serving, limits_of
from orchestrator.api.written import PLAN
from orchestrator.service.planning import PlanView
from policies.model.approval import Approval
from policies.model.plan import Strategy
from policies.model.release import ReleaseRow
from policies.model.value import Digest, Name, Value

router = APIRouter(tags=["plans and releases"])

ReleaseName = Annotated[
    str,
    Path(
        min_length=1, max_length=LONGEST_RELEASE, description="a release: digest, its beginning, or version"
    ),
]
PlanName = Annotated[str, Path(pattern=PLAN, description="a plan's digest, or the beginning of it")]


class PlanAsked(Value):
    """What is to be planned."""

    fleet: Name
    to: Release
    strategy: Strategy = Strategy.CANARY


class Yes(Value):
    """Why a plan is approved."""

    reason: Why


class ReleaseAsked(Value):
    """A release of the repository, for the product and channel of a fleet."""

    fleet: Name
    digest: Digest


class Verified(Value):
    """Who signed a release, and why that is enough."""

    digest: Digest
    version: str
    reason: str
    signers: tuple[str, ...]


class ReleaseList(Value):
    """The releases of the ledger, the newest first."""

    releases: tuple[ReleaseRow, ...]


class Withdrawal(Value):
    """Why a release is withdrawn."""

    reason: Why


class Withdrawn(Value):
    """Whether a release was offered until now."""

    digest: Digest
    new: bool = Field(description="whether it was offered until now")


@router.post("/plans")
async def plan(asked: PlanAsked, caller: Asking, service: Serving) -> PlanView:
    """Say what an upgrade would do, to whom, and how long it takes; no gateway is changed."""
    return await service.plan(caller, asked.fleet, asked.to, asked.strategy)


@router.post("/fleets/{fleet}/settings/plan")
async def plan_settings(fleet: Fleet, caller: Asking, service: Serving) -> PlanView:
    """Say which settings of the fleet's file would change on which gateways; none is changed."""
    return await service.plan_settings(caller, fleet)


@router.get("/plans/{plan}")
async def planned(request: Request, plan: PlanName, caller: Asking, service: Serving) -> PlanView:
    """Show a plan that somebody made, and who has approved it."""
    return await while_connected(request, service.planned(caller, plan))


@router.post("/plans/{plan}/approvals", response_model=Approval, status_code=201)
async def approve(plan: PlanName, asked: Yes, once: Once) -> Response:
    """Approve a plan that somebody else starts; the yes is for this plan alone, and expires."""

    async def work() -> Approval:
        return await once.service.approve_plan(once.caller, plan, asked.reason)

    return await once.answer(work, 201)


@router.get("/releases", response_model=ReleaseList)
async def releases(request: Request, caller: Asking, service: Serving) -> Response:
    """List the releases of the products that whoever asks has to do with."""

    async def read() -> ReleaseList:
        return ReleaseList(releases=await service.releases(caller))

    return await answered(request, caller, read)


@router.get("/releases/{release}")
async def release(release: ReleaseName, caller: Asking, service: Serving) -> ReleaseRow:
    """Show one release, withdrawn or not."""
    return await service.release(caller, release)


@router.post("/releases", response_model=ReleaseRow, status_code=201)
async def add(asked: ReleaseAsked, once: Once) -> Response:
    """Verify a release of the repository and have it in the ledger."""

    async def work() -> ReleaseRow:
        return await once.service.add_release(once.caller, asked.fleet, asked.digest)

    return await once.answer(work, 201)


@router.post("/releases/verify")
async def verify(asked: ReleaseAsked, request: Request, caller: Asking, service: Serving) -> Verified:
    """Verify a release of the repository without adding it. A caller verifies 60 releases an hour at most."""
    limits_of(request).take(caller.person, Kind.CHANGE)
    found = await service.verify_release(caller, asked.fleet, asked.digest)
    return Verified(
        digest=found.reference.digest,
        version=found.reference.version,
        reason=found.reason,
        signers=found.signers,
    )


@router.post("/releases/{release}/yank", response_model=Withdrawn)
async def yank(release: ReleaseName, asked: Withdrawal, once: Once) -> Response:
    """Withdraw a release: it is not rolled out any more; gateways that run it are left alone."""

    async def work() -> Withdrawn:
        row = await once.service.release(once.caller, release)
        return Withdrawn(
            digest=row.release.digest, new=await once.service.yank_release(once.caller, release, asked.reason)
        )

    return await once.answer(work)
