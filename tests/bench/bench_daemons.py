"""What an upgrade costs users, by what their gateways run: counted by the users' own clients.

A row is a daemon, a runtime and a steering. Its failing release goes to the canary of a lab with live
users, the gates find it, and the fleet goes back by itself (`./run demo --scenario bad-auth`): sessions and
pings that were lost meanwhile, and the seconds from the decision until the last login that failed on it. Then
one client at a gateway of its own is told to go, a few times: how long its pings get no answer until it is
back at the other instance, by itself or, where its client ends for good, started again at once.

Some change networks while their instance drains: `networks` says who of them kept the session. At last
users log in again and again at a bad release on trial, of each kind that refuses them, until it was rolled
back: `refused` has the seconds from the decision to each address' own next good login.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass, field, replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from activities.drivers.programs import run
from deploy.lab.__main__ import FULL_LOGINS_PER_SECOND
from deploy.lab.containers import Containers
from deploy.lab.ground import Hosts
from deploy.lab.lab import Shape, lab
from deploy.lab.namespaces import inside
from deploy.lab.pings import Pings
from deploy.lab.screen import Screen
from deploy.lab.stories import Storyteller, Told
from orchestrator.exit_code import ExitCode
from orchestrator.processes.leaving import leave
from policies.model.errors import PenstockError, Unavailable
from tests.drivers.front_lab import BalancerLab, HookLab, RedirectLab
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.networks import TARGET, Change, change_networks
from tests.drivers.openvpn_lab import OpenVpnLab
from tests.drivers.podman_lab import PodmanLab
from tests.drivers.refused_users import Refusal, refuse
from tests.drivers.strongswan_lab import StrongSwanLab

PINGS_A_SECOND = 20.0
BACK_WITHIN = 60.0
SETTLES = 1.5
"""Seconds of pings before a client is told to go, and after it is back."""
USER = 1
WATCHED = 30.0
"""Seconds in which each client that changed networks finds out: the lab's notice a dead peer after ten."""


@dataclass(frozen=True)
class Setup:
    """One row: what it is called, its lab, and a gateway of its own for the kicks."""

    daemon: str
    runtime: str
    steering: str
    shape: Shape
    gateway: Callable[[Path, str, int], GatewayLab]
    changes: tuple[Change, ...] = tuple(Change)
    ground: type[Hosts] = Hosts
    refuses: bool = False
    """Whether it can be given the bad releases of `refused`, which are an ocserv's on its host."""

    @property
    def name(self) -> str:
        """What it is called here."""
        return f"{self.daemon}/{self.runtime}/{self.steering}"


LAB = Shape(prefix="psd-", folder="lab-daemons")
FULL = replace(LAB, logins_per_second=FULL_LOGINS_PER_SECOND)
BY_ITSELF = (Change.ADDRESS, Change.PORT, Change.MOVED)
"""Changes of users whose client takes no order to connect again."""
SETUPS = (
    Setup("ocserv", "host", "nftables", LAB, GatewayLab, refuses=True),
    Setup("ocserv", "host", "redirect", replace(LAB, steering="redirect"), RedirectLab, refuses=True),
    Setup("ocserv", "host", "haproxy", replace(LAB, steering="haproxy"), BalancerLab, refuses=True),
    Setup("ocserv", "host", "hook", replace(LAB, steering="hook"), HookLab, refuses=True),
    Setup("ocserv", "podman", "nftables", LAB, PodmanLab, ground=Containers),
    Setup("openvpn", "host", "nftables", replace(FULL, daemon="openvpn"), OpenVpnLab, BY_ITSELF),
    Setup("strongswan", "host", "nftables", replace(FULL, daemon="strongswan"), StrongSwanLab, BY_ITSELF),
)
LEFT_OUT = {
    "ocserv/kubernetes/nftables": "needs a cluster; `./run demo --runtime kubernetes` tells the story there",
}
"""What is offered and not measured here, each with the reason."""


@dataclass(frozen=True)
class NetworkRow:
    """What became of one user who changed networks while the instance drained."""

    daemon: str
    runtime: str
    steering: str
    change: str
    kept: bool
    gap_s: float | None
    pings_sent: int
    pings_lost: int


@dataclass(frozen=True)
class RefusedRow:
    """What the users counted whom a bad release refused until it was rolled back."""

    daemon: str
    runtime: str
    steering: str
    refusal: str
    addresses: int
    refusals_before: int
    refusals_after: int
    """Logins that began after the rollback, and failed."""
    next_good_s: float
    """From the decision to its own next good login, of the address that waited longest."""
    worked_kept: bool
    """Whether a session that worked on the bad release was kept."""


@dataclass(frozen=True)
class Row:
    """What was measured; seconds are None where nobody lost or waited for anything."""

    daemon: str
    runtime: str
    steering: str
    outcome: str
    sessions: int
    sessions_lost: int
    pings_sent: int
    pings_lost: int
    rollback_s: float
    kick_gap_s: float
    kick_gaps_s: list[float]


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Print what was counted at each kind of gateway; 0 when each went back at no session's cost."""
    chosen = _parse(arguments)
    if chosen.lab is not None and json_path is not None:
        _be_a_lab(chosen.lab, json_path)
    found, failed = _Found(), dict[str, str]()
    for setup in [setup for setup in SETUPS if setup.name in chosen.only]:
        try:
            _measure(setup, chosen, found)
        except Unavailable as error:  # the others are worth what they cost all the same
            failed[setup.name] = str(error)
    left_out = LEFT_OUT | failed
    found.show(Console(width=120), left_out)
    if json_path:
        json_path.write_text(json.dumps(asdict(found) | {"left_out": left_out}, indent=1) + "\n")
    return 0 if found.is_as_promised and not failed else 1


@dataclass
class _Found:
    """Everything that was measured."""

    rows: list[Row] = field(default_factory=list)
    networks: list[NetworkRow] = field(default_factory=list)
    refused: list[RefusedRow] = field(default_factory=list)

    @property
    def is_as_promised(self) -> bool:
        """Whether each went back at no session's cost, and no login failed that began after that."""
        kept = all(row.outcome == "rolled_back" and not row.sessions_lost for row in self.rows)
        return kept and not any(row.refusals_after for row in self.refused)

    def show(self, console: Console, left_out: Mapping[str, str]) -> None:
        """Print the tables, and what was not measured."""
        if self.rows:
            console.print(_table(self.rows))
        if self.networks:
            console.print(_networks_table(self.networks))
        if self.refused:
            console.print(_refused_table(self.refused))
        for name, why in left_out.items():
            console.print(f"not measured: {name}: {why}")


def _measure(setup: Setup, chosen: argparse.Namespace, found: _Found) -> None:
    if "canary" in chosen.parts:
        found.rows.append(_row(setup, chosen.kicks))
    if "networks" in chosen.parts:
        found.networks += asyncio.run(_changing(setup))
    if "refused" in chosen.parts and setup.refuses:
        found.refused += asyncio.run(_refused(setup))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    known, parts = [setup.name for setup in SETUPS], ["canary", "networks", "refused"]
    parser = argparse.ArgumentParser(prog="./run bench daemons", description=__doc__)
    parser.add_argument("--only", action="append", help=f"one of these, repeatable: {', '.join(known)}")
    parser.add_argument("--part", action="append", choices=parts, dest="parts", help="nothing but this")
    parser.add_argument("--kicks", type=int, default=5, help="how often a client is told to go (5)")
    parser.add_argument("--lab", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    chosen.only, chosen.parts = chosen.only or known, chosen.parts or parts
    if unknown := sorted(set(chosen.only) - set(known)):
        parser.error(f"there is no {unknown[0]!r}; there are {', '.join(known)}")
    return chosen


def _row(setup: Setup, kicks: int) -> Row:
    told = _told(setup)
    gaps = asyncio.run(_kicked(setup, kicks))
    return Row(
        daemon=setup.daemon,
        runtime=setup.runtime,
        steering=setup.steering,
        outcome=told["outcome"],
        sessions=told["sessions"]["before"],
        sessions_lost=told["sessions"]["lost"],
        pings_sent=told["pings"]["sent"],
        pings_lost=told["pings"]["lost"],
        rollback_s=told["seconds"]["decision_to_steered"],
        kick_gap_s=round(statistics.median(gaps), 2),
        kick_gaps_s=gaps,
    )


def _told(setup: Setup) -> dict[str, Any]:
    """Play the story in a lab and a process of its own, and return what it told.

    Raises:
        Unavailable: It did not come to its end.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        report = Path(scratch, "told.json")
        command = [sys.executable, "-m", "tests.bench", "daemons", "--json", str(report), "--lab", setup.name]
        if subprocess.run(command, check=False).returncode:
            raise Unavailable("its lab did not come to its end, as it says above")
        return dict(json.loads(report.read_text()))


def _be_a_lab(name: str, report: Path) -> None:
    """Tell the story on a lab of one kind of gateways, and end this process."""
    setup = next(setup for setup in SETUPS if setup.name == name)

    async def told() -> Told:
        with Screen() as screen:
            async with lab(screen.tell, setup.shape, setup.ground()) as built:
                return await Storyteller(built, screen).bad_auth()

    try:
        report.write_text(json.dumps(asyncio.run(told()).as_json()))
        code = int(ExitCode.DONE)
    except PenstockError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        code = int(error.exit_code)
    leave(code)


# --- who is told to go --------------------------------------------------------------


async def _kicked(setup: Setup, times: int) -> list[float]:
    """Tell one client to go, so often, each time from the instance that does not serve any more."""
    async with _own(setup, 1) as own:
        await run(["ip", "address", "add", f"{TARGET}/32", "dev", "lo"])
        return await _gaps(own, times)


@asynccontextmanager
async def _own(setup: Setup, clients: int) -> AsyncIterator[GatewayLab]:
    """Build a gateway of that kind, and be in its network."""
    with tempfile.TemporaryDirectory(prefix="pb") as scratch:
        own = setup.gateway(Path(scratch), f"b{setup.daemon[0]}{setup.steering[:2]}", clients)
        own.build()
        try:
            with inside(own.namespace):
                await own.table.prime()
                yield own
                await own.clients_gone()
        finally:
            own.clear()


# --- who changes networks -----------------------------------------------------------


async def _changing(setup: Setup) -> list[NetworkRow]:
    """Have one user for each kind of change on an instance that drains."""
    async with _own(setup, len(setup.changes)) as own:
        with redirect_stdout(StringIO()):  # each client tells every single ping that it misses
            found = await change_networks(own, setup.changes, watched=WATCHED)
    where = (setup.daemon, setup.runtime, setup.steering)
    return [
        NetworkRow(*where, str(one.change), one.kept, one.gap_s, one.pings_sent, one.pings_lost)
        for one in found
    ]


# --- who is refused -----------------------------------------------------------------


async def _refused(setup: Setup) -> list[RefusedRow]:
    """Have each kind of bad release refuse users of a gateway of its own, and roll it back."""
    rows = list[RefusedRow]()
    for how in Refusal:
        async with _own(setup, 5) as own:
            found = await refuse(own, how)
        rows.append(
            RefusedRow(
                *(setup.daemon, setup.runtime, setup.steering, str(how), len(found.addresses)),
                refusals_before=sum(one.refusals_before for one in found.addresses),
                refusals_after=sum(one.refusals_after for one in found.addresses),
                next_good_s=max(one.next_good_s for one in found.addresses),
                worked_kept=found.worked_kept,
            )
        )
    return rows


# --- what is printed ----------------------------------------------------------------


async def _gaps(own: GatewayLab, times: int) -> list[float]:
    slot = await own.running("0")
    await own.table.make_permanent(operation("keep 0"), slot)
    person, gaps = await own.client(USER).up(), list[float]()
    for number in range(1, times + 1):
        new = await own.running(str(number))
        await own.table.make_permanent(operation(f"keep {number}"), new)
        person, gap = await _gap(own, person, slot)
        gaps.append(round(gap, 2))
        await _emptied(own, slot)
        await own.slots.stop(operation(f"stop {number}"), slot)
        slot = new
    await person.leave()
    return gaps


async def _gap(own: GatewayLab, person: Client, slot: str) -> tuple[Client, float]:
    """End the client's session; return who is back and how long its pings had no answer."""
    may = ("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    await run(["ip", "netns", "exec", person.name, *may])
    log = own.folder / f"gap-{slot}-{time.monotonic_ns()}.jsonl"
    pings = Pings(person.name, log, per_second=PINGS_A_SECOND, target=TARGET)
    pings.start()
    await asyncio.sleep(SETTLES)
    watching = asyncio.create_task(_again(own, person))
    await own.sessions.end(operation(f"end {slot}"), slot, 1)
    async with asyncio.timeout(BACK_WITHIN):
        while not await _is_elsewhere(own, slot):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)
    answered = pings.count.answered
    await asyncio.sleep(SETTLES)
    pings.close()
    if pings.count.answered == answered:
        raise SystemExit(f"bench: no ping came back after {person.name} was at another instance")
    watching.cancel()
    with suppress(asyncio.CancelledError):
        person = await watching
    return person, _longest_silence(log)


def _longest_silence(log: Path) -> float:
    """Return the longest time between the sending of two answered pings, one after the other."""
    pings = map(json.loads, log.read_text().splitlines())
    sent = sorted(float(ping["at"] - ping["seconds"]) for ping in pings if ping["seconds"] is not None)
    return max((after - before for before, after in pairwise(sent)), default=0.0)


async def _is_elsewhere(own: GatewayLab, slot: str) -> bool:
    live = await own.folders.live()
    return any(sessions for name, sessions in live.items() if name != slot)


async def _again(own: GatewayLab, person: Client) -> Client:
    """Start the client again as soon as it has ended, as a person's own loop does; else leave it alone."""
    while person.alive:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    return own.client(USER)


async def _emptied(own: GatewayLab, slot: str) -> None:
    async with asyncio.timeout(BACK_WITHIN):
        while await own.sessions.count(slot):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.2)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="A failing canary, as clients count it", title_justify="left")
    titles = ("daemon", "runtime", "steering", "sessions lost", "pings lost", "back within", "gap of a kick")
    for title in titles:
        table.add_column(title)
    for row in rows:
        table.add_row(
            *(row.daemon, row.runtime, row.steering),
            f"{row.sessions_lost} of {row.sessions}",
            f"{row.pings_lost} of {row.pings_sent}",
            f"{row.rollback_s:.1f} s",
            f"{row.kick_gap_s:.2f} s",
        )
    return table


def _networks_table(rows: Sequence[NetworkRow]) -> Table:
    title = "Who changes networks while the instance drains, as clients count it"
    table = Table(title=title, title_justify="left")
    for name in ("daemon", "runtime", "steering", "change", "session", "without an answer", "pings lost"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            *(row.daemon, row.runtime, row.steering, row.change),
            "kept" if row.kept else "lost",
            "" if row.gap_s is None else f"{row.gap_s:.2f} s",
            f"{row.pings_lost} of {row.pings_sent}",
        )
    return table


def _refused_table(rows: Sequence[RefusedRow]) -> Table:
    title = "Users whom a bad release refused, until it was rolled back, as clients count it"
    table = Table(title=title, title_justify="left")
    for name in (
        "steering",
        "refused",
        "before",
        "after",
        "to the own next good login",
        "a session that worked",
    ):
        table.add_column(name)
    for row in rows:
        table.add_row(
            *(row.steering, row.refusal, str(row.refusals_before), str(row.refusals_after)),
            f"{row.next_good_s:.1f} s",
            "kept" if row.worked_kept else "lost",
        )
    return table
