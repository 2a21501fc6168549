"""A rollout on a lab that is made to meet something: begun, watched, and ended by hand where it must be."""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from activities.files import load
from deploy.lab.lab import GATES, Lab, write_yaml
from deploy.lab.topology import Host
from policies.model.change import Phase
from policies.model.drill import DrillStep
from policies.model.errors import Conflict, Unavailable
from policies.model.gates import Blindness, GatePolicy
from policies.model.plan import ReleaseRef, Strategy
from policies.model.status import ChangeStatus
from policies.model.verdict import Window

LOOK_EVERY = 0.25
PATIENCE = 150.0
TRIES = 4
ENDLESS = Window(minimum=timedelta(hours=2), nominal=timedelta(hours=2), cap=timedelta(hours=3))
NEVER = 1_000_000
"""Logins that have to be bad before anything is proven."""


@dataclass(frozen=True)
class Trial:
    """A canary whose instance is on trial since `since`."""

    gateway: str
    slot: str
    pid: int
    since: datetime


class Rehearsal:
    """Rollouts of one lab, one at a time."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def judge_by(self, window: Window, blindness: Blindness | None = None) -> None:
        """Give the next plans the lab's own gates with another window."""
        policy = load(GATES, GatePolicy)
        change = {"window": window, "blindness": blindness or policy.blindness}
        write_yaml(self.lab.installation.settings.gates, policy.model_copy(update=change))

    def keep_the_judge_out(self) -> None:
        """Have the next plans prove nothing bad by logins, and promote nothing for hours."""
        policy = load(GATES, GatePolicy).model_dump(mode="json", exclude_none=True)
        for gate in policy["gates"]:
            if gate["id"] == "connect-success":
                gate["margin"]["min_bad"] = NEVER
        policy["window"] = ENDLESS.model_dump(mode="json")
        write_yaml(self.lab.installation.settings.gates, policy)

    async def on_trial(self, release: ReleaseRef, reason: str) -> Trial:
        """Return when users reach the canary of a new rollout.

        On a very busy machine a probe can time out, and the rollout ends before any user: then once more.

        Raises:
            Unavailable: no rollout gets that far.
        """
        for _ in range(TRIES - 1):
            with suppress(Unavailable):
                return await self._try(release, reason)
            await self.end()
        return await self._try(release, reason)

    async def until(self, is_so: Callable[[ChangeStatus], bool]) -> ChangeStatus:
        """Return the first status that is so, or the last one when the rollout or the patience ends."""
        deadline = time.monotonic() + PATIENCE
        while True:
            status = await self.lab.status()
            if is_so(status) or status.phase is Phase.ENDED or time.monotonic() > deadline:
                return status
            await asyncio.sleep(LOOK_EVERY)

    async def end(self) -> ChangeStatus:
        """Ensure that the fleet is on known-good again, by hand where the judge left it to a person."""
        if (await self.lab.status()).phase is not Phase.ENDED:
            with suppress(Conflict):  # its own way back can end between the look and the order
                await self.lab.roll_back("rehearsal", "it is over")
        return await self.until(lambda _: False)

    async def _try(self, release: ReleaseRef, reason: str) -> Trial:
        plan = await self.lab.plan(release, Strategy.CANARY)
        gateway = plan.waves[0].gateways[0]
        await self.lab.start(plan, reason)
        begun = f"{gateway} on trial"
        status = await self.until(lambda seen: said(seen, begun) is not None)
        since, state = said(status, begun), (await self.lab.every_state())[gateway]
        slot = state.steering.trial
        pid = state.instance(slot).pid if slot else None
        if since is None or slot is None or pid is None:
            raise Unavailable(f"{gateway} is not on trial: {status.why}")
        return Trial(gateway, slot, pid, since)


def said(status: ChangeStatus, words: str) -> datetime | None:
    """Return when the rollout's story first said something that begins with these words."""
    return next((event.at for event in status.events if event.sentence.startswith(words)), None)


def verdict_at(status: ChangeStatus) -> datetime:
    """Return when the newest decision was told; long ago when there is none."""
    told = [event.at for event in status.events if event.sentence.startswith("verdict ")]
    return told[-1] if told else datetime.min.replace(tzinfo=UTC)


def step(what: str, at: datetime, began: datetime) -> DrillStep:
    """Return a step of a drill, in seconds after the failure."""
    return DrillStep(what=what, seconds=max(0.0, round((at - began).total_seconds(), 1)))


def told(status: ChangeStatus, began: datetime, **sentences: str) -> list[DrillStep]:
    """Return what the rollout itself told, and its end; Unavailable when it did not say so."""
    words = {"rolling": "the way back begins", "back": "read back: on known-good"}
    steps = []
    for key, wanted in sentences.items():
        at = said(status, wanted)
        if at is None:
            raise Unavailable(f"the rollout never said {wanted!r}; it says: {status.why}")
        steps.append(step(words[key], at, began))
    return steps


def map_of(host: Host, name: str) -> bool:
    """Say whether that map of the steering table says where new sessions go."""
    command = [
        "nsenter",
        f"--net=/run/netns/{host.namespace}",
        "nft",
        "-j",
        "list",
        "map",
        "inet",
        "penstock",
    ]
    done = subprocess.run([*command, name], capture_output=True, text=True, check=False)
    listed = json.loads(done.stdout)["nftables"] if done.returncode == 0 else []
    return any("elem" in entry.get("map", {}) for entry in listed)
