"""The outer rings of the way back: the kernel's lease, and the reconcile schedule."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from deploy.lab.faults import cut_off, lose_the_engine
from deploy.lab.lab import FLEET
from policies.model.command import Command, CommandKind
from policies.model.errors import PenstockError, Unavailable
from policies.model.plan import Plan, Strategy
from policies.model.verdict import Window
from tests.chaos.facts import LOGINS_END_WITHIN, Host
from tests.chaos.runs import Chaos
from tests.patience import PATIENCE
from workflows.identities import change_of

LEASE = timedelta(seconds=12)
OUTLASTS = timedelta(minutes=5)
"""A lease that cannot be what brings the gateways back."""
NEVER = Window(
    minimum=timedelta(hours=1), nominal=timedelta(hours=1), extension=timedelta(0), cap=timedelta(hours=2)
)
"""A window that nothing is promoted in."""
LOOK_EVERY = 0.05
_ENDED = {"cancel": "cancelled", "terminate": "terminated"}
WATCHED = 2.5


@dataclass(frozen=True)
class Returned:
    """How long new sessions still went to the instance on trial, and that they then went back."""

    what: str
    seconds: float
    on_known_good: bool
    logins: tuple[int, int] = (0, 0)
    """How often somebody logged in on known-good, and on the trial's instance, in the seconds after."""
    started: float | None = None
    """Seconds until the gateway heard of the rollback, where a workflow is left to begin one."""


class Rings:
    """Plays what only the outer rings can answer, on a lab that serves known-good."""

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self._lab = chaos.lab

    async def leases(self) -> list[Returned]:
        """Cut off, freeze and kill what confirms a canary's lease, each in a rollout of its own."""
        return [await self._lease(name) for name in ("cut off", "agent frozen", "agent killed")]

    async def _lease(self, name: str) -> Returned:
        host = self._canary(await self._on_trial(LEASE))
        slots = await host.serves()
        with self._troubles(host)[name]():
            returned = await self._returns(host, name)
            await asyncio.sleep(LOGINS_END_WITHIN)
            before = host.logins()
            await asyncio.sleep(WATCHED)
            logins = host.logins() - before
        await self._end()
        return replace(returned, logins=(logins[str(slots.permanent)], logins[str(slots.trial)]))

    async def unplugged(self, lasting: timedelta) -> Returned:
        """Cut every gateway off from the whole control plane for so long, with a canary on trial."""
        host = self._canary(await self._on_trial(LEASE))
        slots = await host.serves()
        what = f"control plane unplugged for {lasting.total_seconds():.0f} s"
        began = time.monotonic()
        with cut_off(self._lab, *self._lab.topology.gateways):
            returned = await self._returns(host, what)
            await asyncio.sleep(LOGINS_END_WITHIN)
            before = host.logins()
            while time.monotonic() - began < lasting.total_seconds():
                if await on_trial(host):
                    return replace(returned, on_known_good=False)
                await asyncio.sleep(1)
            logins = host.logins() - before
        await self._end()
        return replace(returned, logins=(logins[str(slots.permanent)], logins[str(slots.trial)]))

    async def ended(self) -> list[Returned]:
        """End change or wave, each in an upgrade of its own; whoever is left goes back at once."""
        return [await self._ended(who, how) for who in ("change", "wave") for how in _ENDED]

    async def _ended(self, who: str, how: str) -> Returned:
        host = self._canary(await self._on_trial(OUTLASTS))
        rollout = (await self._chaos.service.status(FLEET)).rollout
        name = change_of(FLEET) if who == "change" else _wave_of(rollout)
        workflow, orders = self._chaos.client.get_workflow_handle(name), _orders_back(host)
        began = time.monotonic()
        await (workflow.cancel() if how == "cancel" else workflow.terminate("the rings are tested"))

        async def heard() -> bool:
            return _orders_back(host) > orders

        what = f"{who} {_ENDED[how]}"
        await until(heard, f"{what}: the gateway hears of the way back")
        started = round(time.monotonic() - began, 2)
        returned = await self._closed(host, what)
        return replace(returned, seconds=round(started + returned.seconds, 2), started=started)

    async def terminated(self) -> Returned:
        """End change and wave in one breath."""
        plan = await self._on_trial(OUTLASTS)
        rollout = (await self._chaos.service.status(FLEET)).rollout
        for workflow in (_wave_of(rollout), change_of(FLEET)):
            await self._chaos.client.get_workflow_handle(workflow).terminate("the rings are tested")
        return await self._closed(self._canary(plan), "change and wave terminated")

    async def engine_lost(self) -> Returned:
        """Delete everything that the engine knows."""
        plan = await self._on_trial(OUTLASTS)
        lose_the_engine(self._lab)
        return await self._closed(self._canary(plan), "engine's database deleted")

    # --- parts -------------------------------------------------------------------

    def _troubles(self, host: Host) -> dict[str, Callable[[], Any]]:
        name = host.gateway.name
        place = next(place for place in self._lab.topology.gateways if place.name == name)
        agent = self._lab.agents[name]

        @contextmanager
        def frozen() -> Iterator[None]:
            agent.freeze()
            yield
            agent.thaw()

        @contextmanager
        def killed() -> Iterator[None]:
            agent.kill()
            yield
            agent.start()

        return {"cut off": lambda: cut_off(self._lab, place), "agent frozen": frozen, "agent killed": killed}

    async def _on_trial(self, lease: timedelta) -> Plan:
        plan = await self._chaos.plan(self._chaos.other, Strategy.CANARY, NEVER, lease=lease)
        await self._chaos.start(plan)
        await until(lambda: on_trial(self._canary(plan)), "the canary is on trial")
        return plan

    def _canary(self, plan: Plan) -> Host:
        return self._chaos.hosts[plan.waves[0].gateways[0]]

    async def _returns(self, host: Host, what: str) -> Returned:
        began = time.monotonic()

        async def back() -> bool:
            return not await on_trial(host)

        await until(back, f"{what}: new sessions go back")
        seconds = time.monotonic() - began
        now = await host.serves()
        return Returned(what, round(seconds, 2), now.is_on(self._chaos.here))

    async def _closed(self, host: Host, what: str) -> Returned:
        """Wait until new sessions are back, the ledger knows of it, and the fleet's lock is free."""
        returned = await self._returns(host, what)

        async def closed() -> bool:
            still_open = await asyncio.to_thread(self._lab.installation.ledger.open_changes, FLEET)
            return not still_open and not await self._is_locked()

        await until(closed, f"{what}: the rollout is closed")
        return returned

    async def _is_locked(self) -> bool:
        try:
            change = await self._chaos.client.get_workflow_handle(change_of(FLEET)).describe()
        except RPCError:
            return True
        return change.status is WorkflowExecutionStatus.RUNNING

    async def _end(self) -> None:
        """Go back, unless the judge has said so already, and wait until all is over."""
        order = Command(id=secrets.token_hex(8), kind=CommandKind.ROLL_BACK, person="chaos", reason="enough")
        with suppress(PenstockError):
            await self._chaos.service.command(FLEET, order)

        async def ended() -> bool:
            return not await self._is_locked()

        await until(ended, "the rollback has ended")


def _wave_of(rollout: str) -> str:
    return f"{change_of(FLEET)}/{rollout}/wave/001"


def _orders_back(host: Host) -> int:
    """Return how many orders to send new sessions back the gateway has heard."""
    return sum(line["step"] in {"back", "end-trial"} for line in host.journal())


async def on_trial(host: Host) -> bool:
    """Say whether new sessions go to an instance that has yet to prove itself."""
    return (await host.serves()).trial is not None


async def until(is_so: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until something is so; Unavailable when it is not in time."""
    deadline = time.monotonic() + PATIENCE
    while not await is_so():
        if time.monotonic() > deadline:
            raise Unavailable(f"not after {PATIENCE:.0f} s: {what}")
        await asyncio.sleep(LOOK_EVERY)
