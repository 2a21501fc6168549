"""Endings: what must be true of a lab when a run is over, whatever was struck on its way."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.lab.lab import FLEET, Lab
from policies.model.change import Outcome
from policies.model.plan import ReleaseRef
from tests.chaos.cases import Direction, Run
from tests.chaos.facts import LOGINS_END_WITHIN, Host, Marks, Serves, effects
from tests.patience import PATIENCE

EXPECTED = {
    Direction.FORWARDS: {Outcome.PROMOTED},
    Direction.JUDGED_BACK: {Outcome.ROLLED_BACK, Outcome.ABORTED},
    Direction.ASKED_BACK: {Outcome.ROLLED_BACK, Outcome.ABORTED},
    Direction.TAKEN_BACK: {Outcome.ROLLED_BACK},
}
GONE_WITHIN = 10.0
"""Seconds after its kept time in which an instance that nobody uses has been stopped."""
LOOK_EVERY = 0.1


@dataclass(frozen=True)
class Ending:
    """A lab as it was before a run; judges what the run has made of it."""

    lab: Lab
    hosts: Mapping[str, Host]
    before: Mapping[str, Serves]
    marks: Mapping[str, Marks]
    lost: Mapping[str, int]

    @classmethod
    async def to_come(cls, lab: Lab, hosts: Mapping[str, Host]) -> "Ending":
        """Look at the lab now, before the run."""
        return cls(
            lab,
            hosts,
            before={name: await host.serves() for name, host in hosts.items()},
            marks={name: host.marks() for name, host in hosts.items()},
            lost={user["name"]: user["lost"] for user in _users(lab)},
        )

    async def see_blue(self, run: Run, kept_until: datetime, *, gone: bool) -> None:
        """See that what served before is kept for its time, and is `gone` after it where nobody uses it."""
        while True:
            now = datetime.now(UTC)
            ended = {name for name, serves in self.before.items() if not _lives(serves)}
            if now < kept_until:
                if ended:
                    run.unsafe.append(f"blue was ended before its time on {', '.join(sorted(ended))}")
                    return
            else:
                left = self._unused() - ended if gone else set()
                if left and (now - kept_until).total_seconds() > GONE_WITHIN:
                    run.unsafe.append(f"blue still runs, of no use to anybody, on {', '.join(sorted(left))}")
                    return
                if not left:
                    return
            await asyncio.sleep(LOOK_EVERY)

    async def judge(self, run: Run, wanted: ReleaseRef) -> None:
        """Write down what is not as it must be, when `wanted` is what the run is to leave everywhere."""
        back = run.case.direction is not Direction.FORWARDS
        if run.outcome not in EXPECTED[run.case.direction]:
            run.unsafe.append(f"it ended {run.outcome or 'nowhere'}")
        for name, host in self.hosts.items():
            now, before = await host.serves(), self.before[name]
            if not now.is_on(wanted):
                run.unsafe.append(f"{name} is not on {wanted.version}: {now}")
            elif back and now.process != before.process:
                run.unsafe.append(f"{name} went back to another process than it came from: {now}")
            done = effects(host, {run.rollout, run.taken_back_by}, before, self.marks[name])
            run.doubled += [f"{name}: {what}" for what in done.doubled(back=back)]
        run.unsafe += await self._signs_of_life()
        run.unsafe += await asyncio.to_thread(self._in_the_ledger, run, wanted)
        run.lost = [*self._lost()]

    def _unused(self) -> set[str]:
        """Return the gateways where no user has a tunnel to what served before."""
        users = _users(self.lab)
        return {
            name
            for name, host in self.hosts.items()
            if not host.sessions(
                self.before[name].permanent, [user["address"] for user in users if user["gateway"] == name]
            )
        }

    async def _signs_of_life(self) -> list[str]:
        """Return where logins do not come to the slot that the table names, and dead tunnels."""
        await asyncio.sleep(LOGINS_END_WITHIN)
        marks = {name: host.marks() for name, host in self.hosts.items()}
        answered = {user["name"]: user["pings"]["answered"] for user in _users(self.lab)}
        deadline = time.monotonic() + PATIENCE
        while True:
            logins = {name: host.logins(marks[name]) for name, host in self.hosts.items()}
            dead = [u["name"] for u in _users(self.lab) if u["pings"]["answered"] <= answered[u["name"]]]
            if (all(logins.values()) and not dead) or time.monotonic() > deadline:
                break
            await asyncio.sleep(LOOK_EVERY)
        found = [f"{name} gets no answer through its tunnel" for name in dead]
        for name, host in self.hosts.items():
            serving = (await host.serves()).permanent
            if set(logins[name]) != {serving}:
                found.append(f"{name} sends new sessions to {serving}, and got them in {dict(logins[name])}")
        return found

    def _in_the_ledger(self, run: Run, wanted: ReleaseRef) -> list[str]:
        """Return what the ledger says otherwise."""
        ledger, found = self.lab.installation.ledger, []
        known_good = ledger.known_good(FLEET)
        wrong = sorted(name for name, release in known_good.items() if release.digest != wanted.digest)
        if wrong:
            found.append(f"the ledger has another known-good for {', '.join(wrong)}")
        ends = {run.rollout: run.outcome}
        if run.taken_back_by:
            ends = {run.rollout: Outcome.PROMOTED, run.taken_back_by: run.outcome}
        said = {row.name: row.outcome for row in ledger.history(FLEET) if row.name in ends}
        if said != ends:
            found.append(f"the ledger says {said}")
        return found

    def _lost(self) -> Iterator[str]:
        """Yield each session that was lost since, with its client's last words."""
        for user in _users(self.lab):
            for _ in range(user["lost"] - self.lost[user["name"]]):
                yield f"{user['name']}: {user['last_line']}"


def _users(lab: Lab) -> list[dict[str, Any]]:
    users: list[dict[str, Any]] = lab.users.view()["users"]
    return users


def _lives(serves: Serves) -> bool:
    return serves.process is not None and serves.process.alive
