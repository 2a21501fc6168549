"""Spoiled releases on a lab with users, one change after the other, and then the good one.

`python -m tests.lab.exposure` tells what became of each as a line of JSON. Who got new sessions is told by
the kernel, which reports every change of a gateway's table, and who came by the new daemon's own log. At the
end, while the older instances drain, a user is taken out of the list.
"""

import asyncio
import json
import re
import ssl
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from temporalio.api.enums.v1 import EventType

from deploy.lab.anyconnect import log_in
from deploy.lab.daemons.port import Outcome
from deploy.lab.lab import FLEET, OPERATOR, Lab, Shape, lab
from deploy.lab.rehearsal import Rehearsal
from deploy.lab.spoiled import Spoiled
from orchestrator.processes.leaving import leave
from policies.model.audit import AuditEntry
from policies.model.instance import GatewayState, Instance, InstanceState
from policies.model.plan import ReleaseRef, Strategy
from policies.model.release_tests import Asked, LoadTest, NameTests, ReleaseTests
from policies.model.verdict import Window
from tests.lab.kernel_witness import KernelWitness
from tests.patience import PATIENCE

PREFIX = "pse-"
CANARY = "gw-1"
TESTS = ReleaseTests(
    # Resumed handshakes are too few in so short a round to say anything on a machine with other work.
    skip=(Asked.RESUMED,),
    pings_lost=0.3,
    names=NameTests(outside=("www.example.org",)),
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

NOTED_FROM = 1.0
"""Seconds without an event of the engine that are told, where an order took too long."""

GIVEN_UP_AFTER = 20.0
"""Seconds after which somebody who still gets in is not tried any more."""

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
        after, states = built.figures(), await built.every_state()
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


class Doors:
    """Every instance of every gateway, at its own port, and who gets in there."""

    def __init__(self, built: Lab) -> None:
        """Take the lab."""
        self._lab, self._who = built, built.logins.settings.who
        self._trust = ssl.create_default_context(cafile=str(self._who.authority))

    async def take_out(self) -> dict[str, Any]:
        """Take a user out of the list, and return the seconds from the order to where it gets in no more."""
        built, leaver, stays = self._lab, self._who.people[-1], self._who.people[-2]
        states, running = await self._emptied()
        before = built.figures()
        doors = {
            f"{host.name} {one.slot}": (host.address4, self._port(host.name, one.slot))
            for host in built.topology.gateways
            for one in running[host.name]
        }
        came = [(await self._tried(*door, leaver)).value for door in doors.values()]
        look = await self._look()
        for path in (self._who.users, self._who.legacy_users):
            kept = [line for line in path.read_text().splitlines() if not line.startswith(f"{leaver}:")]
            path.write_text("\n".join(kept) + "\n")
        began, since = time.monotonic(), datetime.now(UTC)
        asked = asyncio.create_task(
            built.installation.service.reload(OPERATOR, FLEET, "has left", at_once=True)
        )
        refused = await asyncio.gather(*(self._refused(*door, leaver, began) for door in doors.values()))
        await asked
        result, after = await built.result(), built.figures()
        return {
            "outcome": result.outcome,
            "reason": result.reason,
            "look": max(look, await self._look()),
            "waits": await self._waits(since),
            "came": came,
            "refused": dict(zip(doors, refused, strict=True)),
            "later": [(await self._tried(*door, leaver)).value for door in doors.values()],
            "others": [(await self._tried(*door, stays)).value for door in doors.values()],
            "draining": {
                name: sum(
                    one.sessions or 0 for one in running[name] if one.slot != states[name].steering.serving
                )
                for name in running
            },
            "up": after["up"],
            "lost": after["lost"] - before["lost"],
        }

    async def _look(self) -> float:
        """Return the seconds of a survey: the road of an order, from the engine to every agent and back."""
        began = time.monotonic()
        await self._lab.states()
        return time.monotonic() - began

    async def _waits(self, since: datetime) -> list[str]:
        """Return where the engine's histories have a second or more between two events of the order."""
        client, told = self._lab.installation.changes.client, list[str]()
        async for one in client.list_workflows(f"StartTime > '{since.isoformat()}'"):
            history = await client.get_workflow_handle(one.id, run_id=one.run_id).fetch_history()
            for before, event in pairwise(history.events):
                at = event.event_time.ToDatetime(UTC)
                waited = (at - before.event_time.ToDatetime(UTC)).total_seconds()
                if waited >= NOTED_FROM:
                    what = f"{EventType.Name(before.event_type)} to {EventType.Name(event.event_type)}"
                    told.append(f"{(at - since).total_seconds():.1f} s: {one.id}: {waited:.1f} s from {what}")
        return told

    async def _emptied(self) -> tuple[dict[str, GatewayState], dict[str, list[Instance]]]:
        """Return what gateways say, and what runs there, once what nobody is logged in to was stopped.

        The instance of a release that was refused is emptied after its change has ended.
        """
        ends = time.monotonic() + PATIENCE
        while True:
            states = await self._lab.every_state()
            running = {
                name: [one for one in state.instances if one.state is InstanceState.RUNNING]
                for name, state in states.items()
            }
            if all(
                one.sessions or one.slot == states[name].steering.serving
                for name in running
                for one in running[name]
            ):
                return states, running
            if time.monotonic() > ends:
                raise AssertionError(f"what nobody is logged in to still runs: {running}")
            await asyncio.sleep(0.5)

    async def _refused(self, address: str, port: int, user: str, began: float) -> float | None:
        """Return when the user first came there and was refused, in seconds; None when that was not seen.

        How long it takes to be told so is the time of a login on this machine, and not of the order.
        """
        while (came := time.monotonic()) < began + GIVEN_UP_AFTER:
            found = await self._tried(address, port, user)
            if found is Outcome.REJECTED:
                return came - began
            await asyncio.sleep(0.2)
        return None

    async def _tried(self, address: str, port: int, user: str) -> Outcome:
        outcome, _ = await log_in(address, port, user, self._who.password, trust=self._trust)
        return outcome

    def _port(self, gateway: str, slot: str) -> int:
        return next(one.port for one in self._lab.fleet.gateway(gateway).slots if one.name == slot)


async def main() -> None:
    """Change the lab's fleet to each spoiled release and to the good one; then take a user out."""
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
        print("TAKEN_OUT", json.dumps(await Doors(built).take_out()), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    leave(0)
