"""Plans: made, read, approved and started; a start is of exactly the plan that was shown."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from orchestrator.api.limits import Kind
from orchestrator.api.once import once
from orchestrator.api.routes.commands import StartedUpgrade
from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.routes.plans import PlanName
from orchestrator.api.who import Serving, limits_of
from orchestrator.page.forms import Key, Release, Sent, Typed, reason_in, with_form
from orchestrator.page.render import rendered
from orchestrator.page.session import Looking, Own
from orchestrator.service.planning import PlanView
from orchestrator.words.changes import begun
from orchestrator.words.offers import all_spelled
from orchestrator.words.plans import approval_lines, changelog_lines, plan_facts
from policies.model.errors import PenstockError, Refused
from policies.model.people import Caller
from policies.model.plan import Strategy
from policies.model.value import Value

router = APIRouter()


@router.get("/fleets/{fleet}/plan")
async def choose(request: Request, fleet: Fleet, caller: Looking, service: Serving) -> Response:
    """Ask which release, and how it is to be brought out."""
    return await _choice(request, fleet, caller, service, Sent())


async def _choice(request: Request, fleet: str, caller: Caller, service: Serving, sent: Sent) -> Response:
    await service.status(caller, fleet)
    rows = [row for row in await service.releases(caller) if row.yanked_reason is None]
    found = [row.model_dump(mode="json") for row in rows]
    return with_form(request, "choose.html", sent, fleet=fleet, releases=found, strategies=[*Strategy])


@router.post("/fleets/{fleet}/plan", dependencies=[Own])
async def make(
    request: Request,
    fleet: Fleet,
    caller: Looking,
    service: Serving,
    to: Release,
    strategy: Annotated[Strategy, Form()],
) -> Response:
    """Make a plan, and show it; no gateway is changed."""
    try:
        limits_of(request).take(caller.person, Kind.CHANGE)
        made = await service.plan(caller, fleet, to, strategy)
    except PenstockError as error:
        return await _choice(
            request, fleet, caller, service, Sent(written={"to": to, "strategy": strategy}, refused=error)
        )
    return RedirectResponse(f"/plans/{made.digest.removeprefix('sha256:')}", 303)


@router.get("/plans/{plan}")
async def planned(request: Request, plan: PlanName, caller: Looking, service: Serving) -> Response:
    """Show what a plan would do, to whom, and who has approved it."""
    return _shown(request, await service.planned(caller, plan), Sent())


@router.post("/plans/{plan}/approve", dependencies=[Own])
async def approve(
    request: Request, plan: PlanName, caller: Looking, service: Serving, reason: Typed, key: Key
) -> Response:
    """Approve the plan that somebody else starts."""

    async def work() -> Value:
        return await service.approve_plan(caller, plan, reason_in(reason))

    try:
        await once(request, caller, key, reason.encode(), work)
    except PenstockError as error:
        return _shown(request, await service.planned(caller, plan), Sent(key, {"reason": reason}, error))
    return RedirectResponse(f"/plans/{plan}", 303)


@router.post("/plans/{plan}/start", dependencies=[Own])
async def start(
    request: Request, plan: PlanName, caller: Looking, service: Serving, reason: Typed, key: Key
) -> Response:
    """Start exactly this plan, and show what became of that: its change is on the fleet's page soon."""
    shown = await service.planned(caller, plan)

    async def work() -> Value:
        name = await _started(service, caller, shown, reason_in(reason), key)
        waits, ended = await service.windows.waited_for(name), await service.ended_for(name)
        return StartedUpgrade(change=name, waits=waits, ended=ended)

    try:
        answer = await once(request, caller, key, reason.encode(), work)
    except PenstockError as error:
        return _shown(request, shown, Sent(key, {"reason": reason}, error))
    began = StartedUpgrade.model_validate_json(answer.body)
    sentence = f"{begun(began.change, began.waits)}: {shown.fleet} to {shown.version}."
    sentence = " ".join(filter(None, (began.ended, sentence)))
    return rendered(request, "given.html", fleet=shown.fleet, verb="upgrade", sentence=sentence)


async def _started(service: Serving, caller: Caller, plan: PlanView, reason: str, key: str) -> str | None:
    if plan.release is not None and plan.strategy is not None:
        return await service.start(
            caller,
            plan.fleet,
            plan.release,
            plan.strategy,
            reason,
            digest=plan.digest,
            in_window=True,  # its page says that it waits, and for what
            key=key,
        )
    raise Refused("this plan gives files to what runs; its command starts it", *plan.offers)


def _shown(request: Request, plan: PlanView, sent: Sent) -> Response:
    said = plan.model_dump(mode="json")
    return with_form(
        request,
        "plan.html",
        sent,
        plan=said,
        facts=plan_facts(said),
        approvals=approval_lines(said["approved"]),
        changelog=changelog_lines(said["changelog"], said["version"]),
        command=all_spelled(said["offers"]),
    )
