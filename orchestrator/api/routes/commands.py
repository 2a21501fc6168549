"""Commands: what a person asks of a fleet's change, once for each key."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from orchestrator.api.limits import Kind
from orchestrator.api.once import Once, Ordered
from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.texts import LONGEST_REASON, LONGEST_RELEASE, TEXT
from orchestrator.api.written import PLAN
from policies.access import SAFE_DIRECTION
from policies.model.command import CommandKind, CommandReceipt
from policies.model.people import PersonName
from policies.model.plan import Strategy
from policies.model.value import Digest, Name, Value
from policies.model.way_back import RollbackAsked

router = APIRouter(tags=["commands"])

Why = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_REASON,
        pattern=TEXT,
        description="why, for whoever reads the history",
    ),
]
Release = Annotated[
    str,
    Field(
        min_length=1, max_length=LONGEST_RELEASE, description="a release: digest, its beginning, or version"
    ),
]


Ticket = Annotated[str, Field(min_length=1, max_length=64, pattern=TEXT)]

ThisPlan = Annotated[
    str | None, Field(pattern=PLAN, description="start only this plan: its digest or the beginning")
]


class CommandAsked(Value):
    """A command to the change that is under way."""

    kind: CommandKind
    reason: Why
    change: Name | None = Field(default=None, description="only if this is still the fleet's newest change")
    hold_of: PersonName | None = Field(default=None, description="whose hold a resume lifts")
    approves: Digest | None = Field(
        default=None,
        description="what an approval was shown (`confirm` of a change), or a vote to promote (`ballot`)",
    )
    to: Release | None = Field(default=None, description="where a rollback goes, if not to known-good")
    of: Name | None = Field(default=None, description="of a rollback: the reload that is taken back")
    settings: bool = Field(
        default=False, description="of a rollback: the last change of settings, and no release"
    )
    shown: Digest | None = Field(
        default=None, description="of a rollback: only if its preview (`digest`) is still the same"
    )
    force: bool = Field(default=False, description="end a change that no worker can go on with")


class UpgradeAsked(Value):
    """An upgrade of a fleet."""

    fleet: Name
    to: Release
    strategy: Strategy = Strategy.CANARY
    reason: Why
    plan: ThisPlan = None
    even_if_unusual: bool = False
    in_window: bool = Field(
        default=False, description="where nothing may start now, wait for the next window"
    )
    overrides_windows: Ticket | None = Field(
        default=None,
        description="start outside of every window, for the emergency of this ticket; takes one person more",
    )


class ReloadAsked(Value):
    """A reload of credentials."""

    reason: Why
    even_if_older: bool = Field(default=False, description="also what is older than what is in use")
    if_changed: bool = Field(
        default=False, description="only where what lies on the host is other than what runs there has"
    )
    at_once: bool = Field(default=False, description="all gateways together, and none first")
    plan: ThisPlan = None


class SettingsAsked(Value):
    """A change of settings."""

    reason: Why
    plan: ThisPlan = None


class Started(Value):
    """A change that was begun."""

    change: Name | None
    """Its name; None when it is stored, and no worker has given it one yet."""
    ended: str | None = None
    """How a rollback that only waited for gateways has ended, so that it could begin; None without one."""


class StartedUpgrade(Started):
    """An upgrade that was begun."""

    waits: str | None = None
    """What it waits for and until when, in the words of its status; None where its first wave may start."""


async def started(once: Once, change: str | None) -> Started:
    """Return what became of a change that was asked for."""
    return Started(change=change, ended=await once.service.ended_for(change))


@router.post("/fleets/{fleet}/commands", response_model=CommandReceipt)
async def command(fleet: Fleet, asked: CommandAsked, once: Ordered) -> Response:
    """Give the fleet's change a command; a rollback also works when none is under way."""

    async def give() -> CommandReceipt:
        if asked.kind is CommandKind.ROLL_BACK:
            return await once.service.roll_back(
                once.caller,
                fleet,
                asked.reason,
                asked=RollbackAsked(to=asked.to, of=asked.of, settings=asked.settings, force=asked.force),
                change=asked.change,
                shown=asked.shown,
                key=once.key,
            )
        return await once.service.command(
            once.caller,
            fleet,
            asked.kind,
            asked.reason,
            key=once.key,
            hold_of=asked.hold_of,
            approves=asked.approves,
            change=asked.change,
        )

    safe = asked.kind in SAFE_DIRECTION
    order = asked.model_dump_json(exclude={"shown"}).encode()  # a repeat shows what the first has changed
    return await once.answer(give, kind=Kind.SAFE if safe else Kind.CHANGE, content=order)


@router.post("/changes", status_code=202, response_model=StartedUpgrade)
async def start(asked: UpgradeAsked, once: Once) -> Response:
    """Start an upgrade; one change of a fleet at a time."""

    async def begin() -> StartedUpgrade:
        name = await once.service.start(
            once.caller,
            asked.fleet,
            asked.to,
            asked.strategy,
            asked.reason,
            digest=asked.plan,
            even_if_unusual=asked.even_if_unusual,
            in_window=asked.in_window,
            ticket=asked.overrides_windows,
            key=once.key,
        )
        waits = await once.service.windows.waited_for(name) if asked.in_window else None
        return StartedUpgrade(change=name, waits=waits, ended=await once.service.ended_for(name))

    return await once.answer(begin, 202)


@router.post("/fleets/{fleet}/credentials/reload", status_code=202, response_model=Started)
async def reload(fleet: Fleet, asked: ReloadAsked, once: Once) -> Response:
    """Give what runs its hosts' present accounts, certificates, authorities and revocations."""

    async def begin() -> Started:
        name = await once.service.reload(
            once.caller,
            fleet,
            asked.reason,
            older=asked.even_if_older,
            unserved=asked.if_changed,
            at_once=asked.at_once,
            digest=asked.plan,
            key=once.key,
        )
        return await started(once, name)

    return await once.answer(begin, 202)


@router.post("/fleets/{fleet}/settings", status_code=202, response_model=Started)
async def configure(fleet: Fleet, asked: SettingsAsked, once: Once) -> Response:
    """Give the fleet's gateways the settings of its file; no session is touched."""

    async def begin() -> Started:
        name = await once.service.configure(once.caller, fleet, asked.reason, digest=asked.plan, key=once.key)
        return await started(once, name)

    return await once.answer(begin, 202)
