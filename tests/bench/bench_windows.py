"""Windows: what a question costs, of 300 fleets every half minute and of one fleet of 10,000 gateways.

Calendars and files of fleets are real; what people have frozen and plans are in this process's memory.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from activities.calendars import Calendars, ReadCalendars
from activities.files import FleetFiles
from activities.windows import WindowActivities, WindowQuery
from deploy.lab.lab import write_yaml
from orchestrator.store.ledger import Ledger
from policies.model.fleet import Fleet
from policies.model.plan import Plan
from policies.model.windows import Freeze, KeptFreeze, PatchWindow
from tests.bench.simulated_agents import fleet as large_fleet
from tests.unit.fleets import OLD, gateway, planned, state

EVERY = 30.0
"""Seconds between two questions of one wave."""
FINANCE = Freeze.model_validate({"name": "finance", "ics": "finance.ics", "tz": "site"})
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Lord_Howe", "Pacific/Chatham")
NIGHTS = (
    PatchWindow.model_validate(
        {
            "name": "night",
            "tz": "site",
            "rrule": "FREQ=WEEKLY;BYDAY=TU,WE,TH",
            "start": "02:00",
            "duration": "20h",
        }
    ),
)


@dataclass(frozen=True)
class Cost:
    """What something cost, in milliseconds of the clock and of this process."""

    what: str
    wall_ms: float
    cpu_ms: float


class Book:
    """Plans by digest; nobody has frozen anything."""

    def __init__(self, plans: dict[str, Plan]) -> None:
        self._plans = plans

    def plan(self, digest: str) -> Plan:
        return self._plans[digest]

    def freezes(self, fleet: str) -> tuple[KeptFreeze, ...]:
        return ()

    def take_turn(self, fleet: str, change: str, most: int | None) -> tuple[str, ...]:
        return ()

    def give_turn_back(self, fleet: str, change: str) -> None:
        """Nobody has any."""


class Anew(ReadCalendars):
    """Calendars that are read at every question, as they once were."""

    def _keep(self, asked: object, found: object) -> None:
        """Remember nothing."""


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Measure questions of many fleets, and of a large one."""
    parser = argparse.ArgumentParser(prog="bench windows")
    parser.add_argument("--fleets", type=int, default=300)
    parser.add_argument("--gateways", type=int, default=10_000)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        costs = _of_many(Path(folder), asked.fleets)
        costs += _of_a_large_one(Path(folder), asked.gateways)
        costs.append(asyncio.run(_delay_of_the_loop(Path(folder))))
    print(f"{'':<66}{'wall ms':>10}{'cpu ms':>10}")
    for cost in costs:
        print(f"{cost.what:<66}{cost.wall_ms:>10.1f}{cost.cpu_ms:>10.1f}")
    before, after = costs[0], costs[1]
    load = asked.fleets / EVERY * after.cpu_ms / 1000
    print(f"calendars remembered: {before.cpu_ms / after.cpu_ms:.0f} times less; {load:.2f} processors busy")
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n")
    return 0


def _of_many(folder: Path, count: int) -> list[Cost]:
    _write_calendar(folder / "finance.ics", events=300, padding=100)
    described = [
        Fleet(
            name=f"edge-{n}",
            product="ocserv",
            gateways=(gateway("gw-1"), gateway("gw-2")),
            windows=NIGHTS,
            freezes=(FINANCE,),
            tz=ZONES[n % len(ZONES)],
        )
        for n in range(count)
    ]
    (folder / "fleets").mkdir()
    for fleet in described:
        write_yaml(folder / "fleets" / f"{fleet.name}.yaml", fleet)
    (folder / "finance.ics").rename(folder / "fleets" / "finance.ics")
    plans = {fleet.name: _planned(fleet) for fleet in described}
    files = FleetFiles(folder / "fleets")
    files.all()
    asking = WindowActivities(Book({plan.digest: plan for plan in plans.values()}), files)
    _age(folder / "fleets" / "finance.ics")

    def ask(names: list[str]) -> None:
        for name in names:
            query = WindowQuery(change=f"{name}-1", plan=plans[name].digest, wave=1)
            asking._ask(query, datetime.now(UTC))

    few = [fleet.name for fleet in described[:10]]
    kept, asking.calendars = asking.calendars, Calendars(files, Anew())
    read_anew = _cost("a question, calendar of 300 events read anew", lambda: ask(few), len(few))
    asking.calendars = kept
    ask(few)
    names = [fleet.name for fleet in described]
    return [read_anew, _cost("a question, calendar remembered", lambda: ask(names), len(names))]


def _of_a_large_one(folder: Path, gateways: int) -> list[Cost]:
    one = large_fleet(gateways)
    spread = tuple(
        member.model_copy(update={"tz": ZONES[number % len(ZONES)]})
        for number, member in enumerate(one.gateways)
    )
    fleet = one.model_copy(update={"gateways": spread, "windows": NIGHTS, "tz": "UTC"})
    (folder / "large").mkdir()
    write_yaml(folder / "large" / "fleet.yaml", fleet)
    files = FleetFiles(folder / "large")
    files.all()
    known: Fleet = files.fleet(fleet.name)
    made = _planned(known)
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}")
    ledger.record_plan(made)
    asking = WindowActivities(ledger, files)
    now = datetime.now(UTC)
    last = made.waves[-1].number

    def check() -> None:
        from policies.planning.windows import standing  # noqa: PLC0415 - beside what else it is measured with

        standing(known, asking.frozen(known, now), now)

    check()
    size = f"{gateways} gateways in {len(ZONES)} zones"
    return [
        _cost(f"window check of {size}", check, 1),
        _cost(f"the first question about a wave of {size}", lambda: _question(asking, made, 1), 1),
        _cost(f"the next question about a wave of {size}", lambda: _question(asking, made, 1), 1),
        _cost(f"the window of the first wave of {size}", lambda: _ask(asking, made, 1), 1),
        _cost(f"the window of the last wave of {size}", lambda: _ask(asking, made, last), 1),
    ]


def _planned(fleet: Fleet) -> Plan:
    names = [member.name for member in fleet.gateways]
    return planned((fleet, {name: state(name) for name in names}, dict.fromkeys(names, OLD)))


def _question(asking: WindowActivities, made: Plan, wave: int) -> None:
    query = WindowQuery(change="large-1", plan=made.digest, wave=wave)
    asking._ask(query, datetime.now(UTC))


def _ask(asking: WindowActivities, made: Plan, wave: int) -> None:
    asking.standing(made, wave, datetime.now(UTC))


async def _delay_of_the_loop(folder: Path) -> Cost:
    """Return how late the loop is at worst while the largest calendar is read beside it."""
    place = folder / "largest.ics"
    _write_calendar(place, events=900, padding=900)
    reading = asyncio.create_task(asyncio.to_thread(ReadCalendars().spans, place, FINANCE, datetime.now(UTC)))
    worst, cpu = 0.0, time.process_time()
    while not reading.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        worst = max(worst, time.perf_counter() - before)
    await reading
    what = "the loop's latest turn while a calendar of 0.9 MB is read; reading it"
    return Cost(what, 1000 * worst, 1000 * (time.process_time() - cpu))


def _write_calendar(place: Path, *, events: int, padding: int) -> None:
    now = datetime.now(UTC)
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//bench//"]
    for number in range(events):
        begins = now + timedelta(days=30, hours=8 * number)
        lines += [
            *("BEGIN:VEVENT", f"UID:{number}", f"SUMMARY:close {number}", f"DESCRIPTION:{'x' * padding}"),
            *(f"DTSTART:{begins:%Y%m%dT%H%M%SZ}", f"DTEND:{begins + timedelta(hours=1):%Y%m%dT%H%M%SZ}"),
            "END:VEVENT",
        ]
    place.write_text("\r\n".join([*lines, "END:VCALENDAR", ""]))


def _age(place: Path) -> None:
    """Have the file be written long ago, as one that is remembered was."""
    import os  # noqa: PLC0415 - only here

    os.utime(place, (1_700_000_000, 1_700_000_000))


def _cost(what: str, work: Callable[[], None], times: int) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(what, 1000 * (time.perf_counter() - wall) / times, 1000 * (time.process_time() - cpu) / times)
