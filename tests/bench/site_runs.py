"""Two sites of two gateways each behind HAProxy: upgrades that are clean, failing, and struck in the middle.

Each part begins with the older release everywhere and looks at the same four things from outside: the sites'
capacity as users meet it, the shares of 2,000 source addresses, users' sessions, and the change's own story.
"""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

from activities.drivers.programs import run
from activities.drivers.runtime.host.process import Process
from activities.drivers.steering.haproxy_process import HaproxyProcess
from activities.drivers.steering.haproxy_steering import FOLDER, MAP
from activities.drivers.steering.haproxy_switch import read_switch
from activities.drivers.steering.switch import Switch
from activities.files import load
from deploy.lab.lab import GATES, HTTPS_PORT, LIMITS, Lab, Shape
from deploy.lab.rehearsal import Rehearsal
from deploy.lab.stories import LOOK_EVERY, running
from deploy.lab.topology import Host
from policies.model.change import Outcome, Phase
from policies.model.errors import Unavailable
from policies.model.gates import GatePolicy
from policies.model.plan import Plan, ReleaseRef, Strategy
from policies.model.status import ChangeStatus
from policies.model.verdict import Window
from tests.bench.capacity_sampler import EVERY, PATIENCE, Sample, Sampler, away, capacity
from tests.drivers.carried import addresses, carried, sides_of
from tests.drivers.front_lab import reloaded_by_somebody, simulated_liar

ADDRESSES = 2000
SHARES = (5, 25, 50)
CANARY_SHARE = 25
CONNECTIONS_PER_SECOND = 40.0
"""To one gateway, beside logins: each costs the instance a process."""
WITHIN = 300.0
MENDED_WITHIN, SETTLES = 10.0, 15.0
LOOK_AT_A_STRIKE = 0.05
STILL_SILENT = 2.0
"""Seconds without an answer to a ping: longer than answers take to be written down."""
WRONG_SHARE = 95
LIES = ("took a change and did not make it", "says one thing and does another", "its lease was not renewed")
"""What a change says whose orders a HAProxy does not obey."""
"""Seconds in which a share of a wave comes, on a busy machine."""
SHAPE = Shape(
    prefix="pss-",
    folder="sites",
    steering="haproxy",
    groups=("east", "west"),
    capacity=16,
    dial6=3,  # behind HAProxy these have no DTLS: what becomes of TCP is seen by their pings
    limits=LIMITS.model_copy(update={"shares": (*SHARES, 100), "canary_share": CANARY_SHARE}),
)
WINDOW = Window(
    minimum=timedelta(seconds=32),
    nominal=timedelta(seconds=32),
    extension=timedelta(seconds=20),
    cap=timedelta(seconds=120),
)
"""Of each share: in which 2,000 addresses have connected."""
USUAL = load(GATES, GatePolicy).window
LONG = Window(minimum=timedelta(minutes=5), nominal=timedelta(minutes=5), cap=timedelta(minutes=9))
"""Of a share whose HAProxies are struck."""


@dataclass(frozen=True)
class Share:
    """How many percent of the addresses reached the trial of a site, of those that were to."""

    site: str
    asked: int
    found: float
    after: str = ""
    """What had just been done to the HAProxy."""


@dataclass(frozen=True)
class Strike:
    """What was done to one HAProxy in the middle of a trial, and what came of it; seconds since then."""

    what: str
    gateway: str
    mended_s: float | None
    """Until HAProxy said again what it had to."""
    turned_away_s: float
    """For how long no new session came in there."""
    reconnected: int
    """Sessions that had to connect again."""
    lost: int
    gap_over_udp_s: float | None
    gap_over_tcp_s: float | None
    """The longest time without an answer to any ping, of users with DTLS and of those without."""


@dataclass
class Part:
    """One upgrade and what users met meanwhile."""

    name: str
    outcome: str = ""
    reason: str = ""
    floor: dict[str, int] = field(default_factory=dict)
    """Sessions that each site has to be able to carry: `limits.headroom` times its users."""
    samples: int = 0
    longest_between_samples_s: float = 0.0
    least_capacity: dict[str, int] = field(default_factory=dict)
    below_floor: int = 0
    """Samples in which a site could not carry that."""
    all_served: int = 0
    """Samples in which every gateway took new sessions."""
    slowest_answer_s: float = 0.0
    sessions: int = 0
    sessions_lost: int = 0
    pings_sent: int = 0
    pings_lost: int = 0
    shares: list[Share] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    liar_noticed_s: float | None = None
    trial_over_s: float | None = None
    """Seconds from its first lie until the change said so, and until nobody new reached the trial there."""
    told: list[str] = field(default_factory=list)
    """What the change said of a balancer that does not do what it says."""

    def as_json(self) -> dict[str, Any]:
        """Return it as the JSON of the measurement has it."""
        return asdict(self)


def part_of(json: Mapping[str, Any]) -> Part:
    """Return the part that the JSON says."""
    shares, strikes = [Share(**one) for one in json["shares"]], [Strike(**one) for one in json["strikes"]]
    return Part(**{**json, "shares": shares, "strikes": strikes})


class Sites:
    """The parts, on one lab."""

    def __init__(self, lab: Lab, tell: Callable[[str], None]) -> None:
        """Take the lab and who is told what is done."""
        self._lab, self._tell = lab, tell
        self._same, self._faulty = lab.offers.equals()
        hosts = {host.name: host.address4 for host in lab.topology.gateways}
        authority = lab.logins.settings.who.authority
        self._sampler = Sampler(lab.topology.load.namespace, hosts, authority, lab.folder / "sampler")
        self._floor = {
            group: ceil(lab.fleet.limits.headroom * sum(len(self._people(one.name)) for one in gateways))
            for group, gateways in lab.fleet.groups.items()
        }
        self._before: dict[str, Any] = {}
        self._began = 0.0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator["Sites"]:
        """Look at every gateway every 100 ms, from where the users' logins come from."""
        load = self._lab.topology.load
        await run(["ip", "-n", load.namespace, "route", "add", "local", "10.88.0.0/16", "dev", "lo"])
        for host in self._lab.topology.gateways:
            await run(["ip", "-n", host.namespace, "route", "add", "10.88.0.0/16", "via", load.address4])
        for release in (self._same, self._faulty):
            await self._lab.add(release)
        try:
            yield self
        finally:
            self._sampler.stop()

    # --- the parts ------------------------------------------------------------------

    async def failing(self) -> Part:
        """Upgrade to a release on which logins fail: the canary gets a quarter of the addresses."""
        Rehearsal(self._lab).judge_by(USUAL)
        part, plan = await self._started("failing", self._faulty, Strategy.CANARY)
        canary = plan.waves[0].gateways[0]
        await self._says_until(canary, lambda now: now.trial is not None and now.share == CANARY_SHARE)
        return await self._ended(part)

    async def struck(self) -> Part:
        """Reload, write on and kill the HAProxies of a site on trial, one after the other; then go back."""
        Rehearsal(self._lab).judge_by(LONG)
        part, _ = await self._started("struck", self._same, Strategy.BLUE_GREEN)
        await self._in_force("east", SHARES[0])
        for name in self._gateways_of("east"):
            await self._strike(part, "killed", name, self._kill)
            await self._strike(part, "written on", name, self._write_on)
            await self._strike(part, "reloaded", name, self._reload)
        await self._look_no_more(part)
        await self._share(part, "east", "struck")
        await self._lab.roll_back("bench", "the HAProxies were struck often enough")
        return await self._ended(part)

    async def lying(self) -> Part:
        """Have a HAProxy take what it is told and not do it, until its trial is over."""
        Rehearsal(self._lab).judge_by(USUAL)
        part, _ = await self._started("lying", self._same, Strategy.BLUE_GREEN)
        name, since = self._gateways_of("east")[0], time.monotonic()
        await self._in_force("east", SHARES[0])
        async with simulated_liar(self._front(name), _writes):
            since = time.monotonic()
            await self._until(lambda seen: bool(_of_a_liar(seen)))
            noticed = time.monotonic() - since
            await self._says_until(name, lambda now: now.trial is None)
            part.liar_noticed_s, part.trial_over_s = round(noticed, 1), round(time.monotonic() - since, 1)
        return await self._ended(part)

    async def clean(self) -> Part:
        """Upgrade site after site."""
        Rehearsal(self._lab).judge_by(USUAL)
        part, _ = await self._started("clean", self._same, Strategy.BLUE_GREEN)
        return await self._ended(part)

    async def shares(self) -> Part:
        """The same to another release: of 2,000 addresses 5, 25 and 50 percent come to it before all do.

        Nobody looks at the capacity meanwhile: both together are more logins than two cores make.
        """
        Rehearsal(self._lab).judge_by(WINDOW)
        release = self._lab.newer
        part, _ = await self._started("shares", release, Strategy.BLUE_GREEN, sampled=False)
        for site in self._lab.fleet.groups:
            for share in SHARES:
                await self._in_force(site, share)
                await self._share(part, site)
        return await self._ended(part)

    async def _started(
        self, name: str, release: ReleaseRef, strategy: Strategy, *, sampled: bool = True
    ) -> tuple[Part, Plan]:
        if sampled:
            self._sampler.start()
        plan = await self._lab.plan(release, strategy)
        self._tell(f"{name}: {strategy} to {release.version}")
        self._before, self._began = self._lab.figures(), time.time()
        await self._lab.start(plan, name)
        return Part(name, floor=self._floor, sessions=self._before["up"]), plan

    async def _ended(self, part: Part) -> Part:
        """Wait for the change's end and until only one instance runs on each gateway that went back."""
        await self._until(lambda seen: seen.phase is Phase.ENDED)
        result, status = await self._lab.result(), await self._lab.status()
        part.outcome, part.reason, part.told = result.outcome, result.reason, _of_a_liar(status)
        if result.outcome is not Outcome.PROMOTED:
            async with asyncio.timeout(WITHIN):
                while any(len(running(one)) > 1 for one in (await self._lab.every_state()).values()):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY)
        await self._look_no_more(part)
        after = self._lab.figures()
        part.sessions_lost = after["lost"] - self._before["lost"]
        part.pings_sent = after["pings"]["sent"] - self._before["pings"]["sent"]
        part.pings_lost = after["pings"]["lost"] - self._before["pings"]["lost"]
        self._tell(f"{part}")
        return part

    async def _look_no_more(self, part: Part) -> None:
        """Stop the looks at the capacity where there are any, and count what they were answered."""
        if not self._sampler.looks:
            return
        await asyncio.sleep(PATIENCE + EVERY)
        self._sampler.stop()
        if samples := self._sampler.between(self._began, time.time() - PATIENCE):
            self._count(part, samples)

    def _count(self, part: Part, samples: Sequence[Sample]) -> None:
        each, sites = SHAPE.capacity, {group: self._gateways_of(group) for group in self._lab.fleet.groups}
        had = [{site: capacity(one, names, each) for site, names in sites.items()} for one in samples]
        answers = [seconds for one in samples for seconds in one.answers.values()]
        part.samples = len(samples)
        part.longest_between_samples_s = round(max(b.at - a.at for a, b in pairwise(samples)), 2)
        part.least_capacity = {site: min(one[site] for one in had) for site in sites}
        part.below_floor = sum(any(one[site] < self._floor[site] for site in sites) for one in had)
        part.all_served = sum(None not in one.answers.values() for one in samples)
        part.slowest_answer_s = round(max(one for one in answers if one is not None), 2)

    # --- what is done to a HAProxy --------------------------------------------------

    async def _reload(self, name: str) -> None:
        reloaded_by_somebody(self._front(name), self._running(name), self._host(name).namespace)

    async def _kill(self, name: str) -> None:
        self._running(name).tell(signal.SIGKILL)

    async def _write_on(self, name: str) -> None:
        await self._haproxy(name).socket.order(f"set map {self._front(name) / MAP} share {WRONG_SHARE}")

    async def _strike(self, part: Part, what: str, name: str, do: Callable[[str], Awaitable[None]]) -> None:
        """Do it, wait until HAProxy says again what it said before, and count what users noticed."""
        before, people, began = await self._says(name), self._people(name), time.time()
        await do(name)
        mended = await self._said_again(name, before)
        await asyncio.sleep(SETTLES)
        after, samples = self._people(name), self._sampler.between(began - 0.5, time.time())
        gaps = {
            over: self._gap([one for one in people if one["udp"] is over], began) for over in (True, False)
        }
        strike = Strike(
            what=what,
            gateway=name,
            mended_s=mended,
            turned_away_s=round(max(away(samples, name), default=0.0), 1),
            reconnected=_sum(after, "reconnects") - _sum(people, "reconnects"),
            lost=_sum(after, "lost") - _sum(people, "lost"),
            gap_over_udp_s=gaps[True],
            gap_over_tcp_s=gaps[False],
        )
        self._tell(f"{strike}")
        part.strikes.append(strike)

    async def _said_again(self, name: str, before: Switch) -> float | None:
        """Return after how many seconds HAProxy says that again, None if it never said anything else."""
        since, differed = time.monotonic(), False
        while time.monotonic() - since < MENDED_WITHIN:
            same = _saying(await self._says(name)) == _saying(before)
            if same and differed:
                return round(time.monotonic() - since, 1)
            differed = differed or not same
            await asyncio.sleep(LOOK_AT_A_STRIKE)
        return None

    # --- what is looked at ----------------------------------------------------------

    async def _says(self, name: str) -> Switch:
        """Return what the gateway's HAProxy says; nothing when none answers."""
        try:
            return await read_switch(self._haproxy(name).socket, self._front(name) / MAP)
        except Unavailable:
            return Switch()

    async def _says_until(self, name: str, is_so: Callable[[Switch], bool]) -> None:
        """Wait until it says that.

        Raises:
            Unavailable: It does not in time, or the change is over before.
        """
        deadline = time.monotonic() + WITHIN
        while not is_so(await self._says(name)):
            status = await self._lab.status()
            if time.monotonic() > deadline or status.phase is Phase.ENDED:
                raise Unavailable(f"the HAProxy of {name} says {await self._says(name)}; {status.why}")
            await asyncio.sleep(LOOK_EVERY)

    async def _in_force(self, site: str, share: int) -> None:
        for name in self._gateways_of(site):
            await self._says_until(name, lambda now: now.trial is not None and now.share == share)

    async def _share(self, part: Part, site: str, after: str = "") -> None:
        """Connect once from each of the addresses, to the site's gateways in turn; count who is on trial.

        Nothing is counted when the share was another one before everybody had connected.
        """
        names = self._gateways_of(site)
        before = [await self._says(name) for name in names]
        sources = addresses(ADDRESSES)
        sides = await asyncio.gather(
            *(self._sides(name, sources[place :: len(names)]) for place, name in enumerate(names))
        )
        if [_saying(await self._says(name)) for name in names] != [_saying(one) for one in before]:
            self._tell(f"{site} had another share before all had connected; it is not counted")
            return
        tried = [sum(slot == now.trial for slot in found) for found, now in zip(sides, before, strict=True)]
        part.shares.append(Share(site, before[0].share, round(100 * sum(tried) / ADDRESSES, 2), after))
        self._tell(f"{part.shares[-1]}")

    async def _sides(self, name: str, sources: Sequence[str]) -> list[str]:
        """Return the slots to which these addresses are carried by the gateway."""
        host, slots = self._host(name), self._lab.fleet.gateway(name).slots
        load = self._lab.topology.load.namespace
        with carried(host.namespace, {slot.port: slot.name for slot in slots}) as watched:
            found = await sides_of(
                watched, load, sources, host.address4, HTTPS_PORT, per_second=CONNECTIONS_PER_SECOND
            )
        return [*found.values()]

    async def _until(self, is_so: Callable[[ChangeStatus], bool]) -> None:
        """Wait until the change's status is so, or the change is over.

        Raises:
            Unavailable: Neither is in time.
        """
        deadline = time.monotonic() + WITHIN
        while not is_so(status := await self._lab.status()) and status.phase is not Phase.ENDED:
            if time.monotonic() > deadline:
                raise Unavailable(f"waited {WITHIN:.0f} s; {status.what} {status.why}")
            await asyncio.sleep(LOOK_EVERY)

    def _people(self, name: str) -> list[dict[str, Any]]:
        return [user for user in self._lab.users.view()["users"] if user["gateway"] == name]

    def _gap(self, people: Sequence[Mapping[str, Any]], since: float) -> float | None:
        """Return the longest time since then in which one of these people had no answer to any ping.

        What waits in a client that connects again is answered late, and shortens nothing here.
        """
        gaps = []
        for one in people:
            log = self._lab.folder / "users" / one["name"] / "pings.jsonl"
            pings = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
            heard = sorted(one["at"] for one in pings if one["seconds"] is not None)
            heard += [time.time()] if time.time() - heard[-1] > STILL_SILENT else []
            gaps += [later - earlier for earlier, later in pairwise(heard) if later > since]
        return round(max(gaps), 1) if gaps else None

    def _gateways_of(self, group: str) -> list[str]:
        return [gateway.name for gateway in self._lab.fleet.groups[group]]

    def _host(self, name: str) -> Host:
        return next(host for host in self._lab.topology.gateways if host.name == name)

    def _front(self, name: str) -> Path:
        return self._lab.folder / "gateways" / name / FOLDER

    def _haproxy(self, name: str) -> HaproxyProcess:
        return HaproxyProcess(self._front(name), name)

    def _running(self, name: str) -> Process:
        running = self._haproxy(name).running
        if running is None:
            raise Unavailable(f"no HAProxy runs on {name}")
        return running


def _saying(switch: Switch) -> tuple[str | None, str | None, int]:
    return switch.steer, switch.trial, switch.share


def _sum(people: Sequence[Mapping[str, Any]], what: str) -> int:
    return sum(int(one[what]) for one in people)


def _writes(command: str) -> bool:
    """Whether it changes anything."""
    return not command.startswith("show")


def _of_a_liar(status: ChangeStatus) -> list[str]:
    """Return what the change says of a HAProxy that does not do what it takes."""
    told = [event.sentence for event in status.events]
    return sorted(
        {
            one
            for one in (*told, *status.aside.values(), *status.incomplete)
            if any(lie in one for lie in LIES)
        }
    )
