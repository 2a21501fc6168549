"""A release whose workers die at the first packet of a tunnel, on a lab whose users have tunnels.

`python -m tests.lab.dying_tunnels` prints as a line of JSON what became of it. It turns bad once it is on
trial, since its probe would find it before: users are let in and get a tunnel, and nothing comes through.
"""

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from activities.drivers.runtime.host.versions import Versions
from deploy.lab.daemons.port import Outcome
from deploy.lab.lab import Lab, Shape, lab
from deploy.lab.rehearsal import Rehearsal, Trial
from deploy.lab.spoiled import HARM, SpoiledLater
from orchestrator.processes.leaving import leave
from policies.model.change import ChangeResult
from tests.patience import PATIENCE

PREFIX = "psg-"
SHAPE = Shape(prefix=PREFIX, folder="lab-dying-tunnels", gateways=3, sites=6, tunnels=True)
AFTERWARDS = 20
"""Logins at the canary after the end that are looked at: ten seconds of them."""


@dataclass(frozen=True)
class Met:
    """What users met of it."""

    outcome: str
    verdict: str
    reason: str
    connect_success: dict[str, Any]
    """The numbers of that gate in the decision that ended the change."""
    broken: int
    """Logins at the canary that got no ping through their tunnel, from the turn to bad to the end."""
    afterwards: dict[str, int]
    """How logins ended that began there after the change had."""
    up: int
    lost: int
    serves: str
    known_good: str


async def met(built: Lab) -> Met:
    """Upgrade the lab to the release, and wait for nobody's order."""
    release = built.offers.spoiled(SpoiledLater.DIES_IN_TUNNELS)
    await built.add(release)
    before = built.figures()
    rehearsal = Rehearsal(built)
    trial = await rehearsal.on_trial(release, "said to be better")
    root = built.folder / "gateways" / trial.gateway
    (Versions(root).path(release.digest) / "root" / HARM).touch()
    bad_since = datetime.now(UTC)
    await rehearsal.until(lambda _: False)
    ended = datetime.now(UTC)
    result = await built.result()
    later = await _logins_after(built, trial, ended)
    after, states = built.figures(), await built.every_state()
    serving = states[trial.gateway].serving
    during = [one for one in built.logins_at(trial.gateway, bad_since) if one["at"] < ended.timestamp()]
    return Met(
        outcome=result.outcome,
        verdict=result.decision.verdict if result.decision else "",
        reason=result.reason,
        connect_success=_numbers(result, "connect-success"),
        broken=sum(one["outcome"] == Outcome.BROKEN for one in during),
        afterwards={
            outcome.value: count
            for outcome in Outcome
            if (count := sum(one["outcome"] == outcome for one in later))
        },
        up=after["up"],
        lost=after["lost"] - before["lost"],
        serves=(serving.release if serving else None) or "",
        known_good=built.older.digest,
    )


async def _logins_after(built: Lab, trial: Trial, ended: datetime) -> list[dict[str, Any]]:
    deadline = time.monotonic() + PATIENCE
    while True:
        found = built.logins_at(trial.gateway, ended)
        if len(found) >= AFTERWARDS or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.5)


def _numbers(result: ChangeResult, gate: str) -> dict[str, Any]:
    readings = result.decision.readings if result.decision else ()
    return next((dict(one.numbers) for one in readings if one.gate == gate), {})


async def main() -> None:
    """Tell what became of the release."""
    async with lab(print, SHAPE) as built:
        print("MET", json.dumps(asdict(await met(built))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    leave(0)
