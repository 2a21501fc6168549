"""Spoiled releases on a lab with users, one change after the other, and then the good one.

`python -m tests.lab.exposure` tells what became of each as a line of JSON. Who got new sessions is told by
the kernel, which reports every change of a gateway's table, and who came by the new daemon's own log.
"""

import asyncio
import json
import re
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from deploy.lab.lab import FLEET, Lab, Shape, lab
from deploy.lab.rehearsal import Rehearsal
from deploy.lab.spoiled import Spoiled
from orchestrator.processes.process import leave
from policies.model.audit import AuditEntry
from policies.model.plan import ReleaseRef, Strategy
from policies.model.release_tests import Asked, LoadTest, ReleaseTests
from policies.model.verdict import Window
from tests.lab.kernel_witness import KernelWitness

PREFIX = "pse-"
CANARY = "gw-1"
TESTS = ReleaseTests(
    # Resumed handshakes are too few in so short a round to say anything on a machine with other work.
    skip=(Asked.RESUMED,),
    pings_lost=0.3,
    load=LoadTest(
        gateway=CANARY, sessions=3, within=timedelta(seconds=1), throughput=0.4, handshakes=0.2, cpu=3.0
    ),
)
"""Wide enough for a machine that does other things; what is spoiled is slower by far."""
SHORT = Window(
    minimum=timedelta(seconds=6),
    nominal=timedelta(seconds=8),
    extension=timedelta(seconds=10),
    cap=timedelta(seconds=60),
)
"""The good release is judged by its users, too, though this is not what is told here."""
SHAPE = Shape(prefix=PREFIX, folder="lab-exposure", gateways=3, sites=6, tests=TESTS)
PINGS_END_WITHIN = 1.5
"""Seconds after which a ping has come back, or is lost."""

_CAME = re.compile(r"auth init for user '(?P<user>[^']*)'")


class Exposure:
    """Changes on one lab, and what became of each."""

    def __init__(self, built: Lab, witnesses: dict[str, KernelWitness]) -> None:
        """Take the lab, and who watches the table of each gateway."""
        self._lab = built
        self._witnesses = witnesses
        self._rehearsal = Rehearsal(built)
        self._rehearsal.judge_by(SHORT)

    async def change_to(self, release: ReleaseRef) -> dict[str, Any]:
        """Add the release, change the fleet to it, and return what that did to users."""
        built = self._lab
        await built.add(release)
        before, entries = built.figures(), len(self._entries())
        for witness in self._witnesses.values():
            witness.exposed()  # of the change before
        came = self._came()
        await built.start(await built.plan(release, Strategy.CANARY), "said to be better")
        await self._rehearsal.until(lambda _: False)
        result = await built.result()
        await asyncio.sleep(PINGS_END_WITHIN)
        after, states = built.figures(), await built.states()
        tested = [
            json.loads(entry.body) | {"gateway": entry.subject.rpartition("/")[2]}
            for entry in self._entries()[entries:]
        ]
        slots = {body["slot"] for body in tested if body["gateway"] == CANARY}
        return {
            "outcome": result.outcome,
            "reason": result.reason,
            "tested": tested,
            "exposed": {name: witness.exposed() for name, witness in self._witnesses.items()},
            "came": sorted({user for slot in slots for user in self._came()[slot][len(came[slot]) :]}),
            "up": after["up"],
            "lost": after["lost"] - before["lost"],
            "pings": after["pings"]["sent"] - before["pings"]["sent"],
            "pings_lost": after["pings"]["lost"] - before["pings"]["lost"],
            "running": sorted({state.serving.release or "" for state in states.values() if state.serving}),
            "release": release.digest,
            "older": built.older.digest,
        }

    def _entries(self) -> list[AuditEntry]:
        entries = self._lab.installation.ledger.audit_entries(fleets=[FLEET])
        return [entry for entry in entries if entry.action == "release tested"]

    def _came(self) -> dict[str, list[str]]:
        """Return by slot whom the canary's daemons have asked who they are, by their own logs."""
        slots = self._lab.folder / "gateways" / CANARY / "slots"
        return {
            slot.name: _CAME.findall(log.read_text(errors="replace")) if log.exists() else []
            for slot in self._lab.fleet.gateway(CANARY).slots
            for log in [slots / slot.name / "log"]
        }


async def main() -> None:
    """Change the lab's fleet to each spoiled release and to the good one."""
    async with lab(print, SHAPE) as built:
        releases = {how.name: built.offers.spoiled(how) for how in Spoiled} | {"GOOD": built.newer}
        with ExitStack() as watched:
            witnesses = {
                host.name: KernelWitness(host, built.fleet.gateway(host.name))
                for host in built.topology.gateways
            }
            for witness in witnesses.values():
                watched.callback(witness.close)
            exposure = Exposure(built, witnesses)
            for name, release in releases.items():
                print(name, json.dumps(await exposure.change_to(release)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    leave(0)
