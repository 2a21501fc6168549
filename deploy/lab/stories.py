"""The demo's stories: a clean upgrade, a faulty release that is undone, a tampered one that is refused."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from deploy.lab.lab import OPERATOR, Lab
from deploy.lab.screen import Screen
from orchestrator.exit_code import ExitCode, code_of
from orchestrator.words.plans import prediction_line
from policies.model.change import ChangeResult, Outcome, Phase
from policies.model.errors import BadInput, Unavailable
from policies.model.instance import GatewayState, InstanceState
from policies.model.plan import ReleaseRef, Strategy
from policies.model.refusals import TrustError
from policies.model.status import ChangeStatus
from policies.planning.outline import outlined

LOOK_EVERY = 0.3
WAITS_FOR = 60.0
"""Seconds for which a change may wait for a person: metrics that come back end that by themselves."""
DAY_ENDS_IN_GROUPS_OF = 12


@dataclass
class Told:
    """What one story proved; the JSON of the demo is made of these."""

    name: str
    outcome: Outcome
    sessions_before: int
    sessions_after: int
    sessions_lost: int
    pings_sent: int
    pings_lost: int
    gateways: list[dict[str, str]]
    decision: dict[str, Any]
    seconds: dict[str, float]
    signers: list[str] = field(default_factory=list)
    seen: dict[str, Any] | None = None
    """What else a story has to show, each as it was seen; what is empty was not."""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command that a person would have typed."""
        return code_of(self.outcome)

    def as_json(self) -> dict[str, Any]:
        """Return the story as the README documents it."""
        return {
            "name": self.name,
            "outcome": self.outcome,
            "exit": int(self.exit_code),
            "sessions": {
                "before": self.sessions_before,
                "after": self.sessions_after,
                "lost": self.sessions_lost,
            },
            "pings": {"sent": self.pings_sent, "lost": self.pings_lost},
            "gateways": self.gateways,
            "decision": self.decision,
            "seconds": self.seconds,
            "signers": self.signers,
        } | ({"seen": self.seen} if self.seen is not None else {})


class Storyteller:
    """Tells stories on one lab; each begins with what the one before left."""

    def __init__(self, lab: Lab, screen: Screen) -> None:
        self._lab = lab
        self._screen = screen
        self._status: ChangeStatus | None = None

    async def clean(self) -> Told:
        """Upgrade the whole fleet to the newer ocserv; then the users' day ends and a new one begins."""
        lab, before, began = self._lab, self._lab.figures(), time.monotonic()
        self._screen.headline(f"Story 1: upgrade {len(lab.fleet.gateways)} gateways to {lab.newer.version}")
        result = await self._upgrade(lab.newer, "the newer ocserv")
        if result.outcome is Outcome.PROMOTED:
            await self._let_the_day_end()
            await self._wait_for_drains()
        return await self._told("clean", result, before, self._seconds(result, None, began))

    async def bad_auth(self) -> Told:
        """Roll out a release that is signed and starts, but on which most logins fail."""
        lab, before, began = self._lab, self._lab.figures(), time.monotonic()
        self._screen.headline(f"Story 2: {lab.faulty.version}, signed like the others, but logins fail on it")
        result = await self._upgrade(lab.faulty, "said to be a small fix")
        await self._wait_for_drains()
        faulted = self._said_at("on trial")
        return await self._told("bad-auth", result, before, self._seconds(result, faulted, began))

    async def blue_green(self) -> Told:
        """Start every green instance, give them shares of the logins beside blue, then switch all at once."""
        lab, before, began = self._lab, self._lab.figures(), time.monotonic()
        self._screen.headline(f"Story: blue-green to {lab.newer.version} on all gateways at once")
        result = await self._upgrade(lab.newer, "the newer ocserv", Strategy.BLUE_GREEN)
        if result.outcome is Outcome.PROMOTED:
            await self._is_kept()
        return await self._told("blue-green", result, before, self._seconds(result, None, began))

    async def bad_green(self) -> Told:
        """The same with a release on which most logins fail: green never gets more than its first share."""
        lab, before, began = self._lab, self._lab.figures(), time.monotonic()
        self._screen.headline(f"Story: blue-green to {lab.faulty.version}, on which logins fail")
        result = await self._upgrade(lab.faulty, "said to be a small fix", Strategy.BLUE_GREEN)
        await self._wait_for_drains()  # a story that follows counts instances
        faulted = self._said_at("on trial")
        return await self._told("bad-green", result, before, self._seconds(result, faulted, began))

    async def green_back(self) -> Told:
        """Switch everybody to green; then a person on call says rollback, and blue has never been away."""
        lab, before, began = self._lab, self._lab.figures(), time.monotonic()
        self._screen.headline(f"Story: blue-green to {lab.newer.version}, taken back after the switch")
        result = await self._upgrade(lab.newer, "the newer ocserv", Strategy.BLUE_GREEN)
        if result.outcome is Outcome.PROMOTED:
            await self._is_kept()
            await lab.roll_back("demo", "users say that something is odd")
            self._status = await self._follow()
            result = await lab.result()
        seconds = self._seconds(result, None, began)
        if result.steered_back_after is not None:
            seconds["decision_to_steered"] = result.steered_back_after.total_seconds()
        return await self._told("green-back", result, before, seconds)

    async def bad_signature(self) -> Told:
        """Offer a release that was changed after it was signed."""
        lab, before, began = self._lab, self._lab.figures(), time.monotonic()
        self._screen.headline("Story: a release that was changed after it had been signed")
        try:
            await lab.add(lab.tampered)
        except TrustError as refusal:
            reason = f"{refusal.code}: {refusal}"
            self._screen.tell(f"refused, nothing was changed: {reason}")
            outcome = Outcome.REFUSED
        else:
            raise BadInput("the tampered release was admitted; this must never happen")
        result = ChangeResult(rollout="none", outcome=outcome, reason=reason)
        return await self._told("bad-signature", result, before, self._seconds(result, None, began))

    # --- following a rollout -------------------------------------------------------

    async def _upgrade(
        self, release: ReleaseRef, reason: str, strategy: Strategy = Strategy.CANARY
    ) -> ChangeResult:
        lab = self._lab
        plan = await lab.plan(release, strategy)
        for wave in plan.waves:
            self._screen.tell(f"plan: wave {wave.number} is {', '.join(wave.gateways)}")
        seen = await lab.installation.plans.view(outlined(plan), plan.fleet, OPERATOR.person)
        for prediction in seen.predictions:
            self._screen.tell(f"plan: {prediction_line(prediction.model_dump(mode='json'))}")
        name = await lab.start(plan, reason)
        self._screen.tell(f"{name} started; the same from another terminal: {lab.watch_command}")
        self._status = await self._follow()
        return await lab.result()

    async def _follow(self) -> ChangeStatus:
        """Show the change until it has ended, and return its last status.

        Raises:
            Unavailable: It waits for a person, as on a machine that is too slow for the demo's windows.
        """
        decided = time.monotonic()
        while True:
            status = await self._lab.status()
            if status.phase is Phase.ENDED:
                self._screen.leave(status, self._lab.figures())
                return status
            if status.needs_you is None:
                decided = time.monotonic()
            elif time.monotonic() - decided > WAITS_FOR:
                raise Unavailable(f"the change waits for a person, whom a story has not: {status.needs_you}")
            self._screen.show(status, self._lab.figures())
            await asyncio.sleep(LOOK_EVERY)

    async def _let_the_day_end(self) -> None:
        """Users log out and in again a few at a time; nobody is moved, they come back by themselves."""
        self._screen.tell("the users' day ends: they log out, and in again on whatever serves now")
        names = [user["name"] for user in self._lab.users.view()["users"]]
        for start in range(0, len(names), DAY_ENDS_IN_GROUPS_OF):
            await asyncio.to_thread(self._lab.users.come_back, names[start : start + DAY_ENDS_IN_GROUPS_OF])

    async def _wait_for_drains(self) -> None:
        """Wait until every gateway runs one instance only."""
        await self._each_runs(1, "the old instances to stop", seconds=180)
        self._screen.tell("every old instance had no session left and has stopped")

    async def _is_kept(self) -> None:
        """See that every gateway still runs what it ran before, beside what it runs now."""
        await self._each_runs(2, "every old instance to run beside the new one", seconds=10)
        self._screen.tell("every old instance is kept with its sessions, one map change away")

    async def _each_runs(self, instances: int, what: str, *, seconds: float) -> None:
        """Wait until so many instances run on every gateway."""
        deadline = time.monotonic() + seconds
        while others := [
            f"{state.gateway} runs {', '.join(running(state)) or 'none'}"
            for state in (await self._lab.every_state()).values()
            if len(running(state)) != instances
        ]:
            if time.monotonic() > deadline:
                raise BadInput(f"waited {seconds:.0f} s for {what}; now {'; '.join(others)}")
            await asyncio.sleep(LOOK_EVERY)

    # --- telling what was proved ---------------------------------------------------

    async def _told(
        self,
        name: str,
        result: ChangeResult,
        before: dict[str, Any],
        seconds: dict[str, float],
    ) -> Told:
        await asyncio.sleep(1.5)  # a ping is lost only when its second is over
        after, states = self._lab.figures(), await self._lab.every_state()
        return Told(
            name=name,
            outcome=result.outcome,
            sessions_before=before["up"],
            sessions_after=after["up"],
            sessions_lost=after["lost"] - before["lost"],
            pings_sent=after["pings"]["sent"] - before["pings"]["sent"],
            pings_lost=after["pings"]["lost"] - before["pings"]["lost"],
            gateways=[gateway_line(state) for _, state in sorted(states.items())],
            decision=decision_of(result),
            seconds=seconds,
            signers=list(self._lab.signers),
        )

    def _touched(self) -> list[str]:
        """Return the gateways whose users met the new release."""
        gateways = self._status.gateways if self._status else ()
        return [gateway.gateway for gateway in gateways if gateway.state != "waiting"]

    def _said_at(self, words: str) -> datetime | None:
        events = self._status.events if self._status else ()
        return next((event.at for event in events if words in event.sentence), None)

    def _seconds(self, result: ChangeResult, faulted: datetime | None, began: float) -> dict[str, float]:
        decided = self._said_at("verdict unhealthy") if result.outcome is Outcome.ROLLED_BACK else None
        seconds = {"fault_to_decision": 0.0, "decision_to_steered": 0.0}
        if faulted and decided:
            seconds["fault_to_decision"] = round((decided - faulted).total_seconds(), 3)
            last = self._lab.last_login_on_the_new_instance(self._touched(), decided)
            seconds["decision_to_steered"] = round(max(0.0, last - decided.timestamp()), 3)
        return seconds | {"total": round(time.monotonic() - began, 1)}


def running(state: GatewayState) -> list[str]:
    """Return the slots in which an instance runs."""
    return [instance.slot for instance in state.instances if instance.state is InstanceState.RUNNING]


def gateway_line(state: GatewayState) -> dict[str, str]:
    """Return what a gateway serves: the release its slot was given and the digest of what really runs."""
    serving = state.serving
    return {
        "name": state.gateway,
        "release": (serving.release if serving else None) or "",
        "running_digest": (serving.executable if serving else None) or "",
    }


def decision_of(result: ChangeResult) -> dict[str, Any]:
    """Return the decision that ended a rollout, with its readings by gate."""
    if result.decision is None:
        return {"verdict": result.outcome, "reason": result.reason, "readings": {}}
    readings = {
        reading.gate: {"verdict": reading.verdict, "reason": reading.reason, **reading.numbers}
        for reading in result.decision.readings
    }
    return {"verdict": result.decision.verdict, "reason": result.decision.reason, "readings": readings}


def write_json(told: list[Told]) -> str:
    """Return all stories as the document that `--json` writes."""
    return json.dumps({"stories": [story.as_json() for story in told]}, indent=2) + "\n"
