"""A random sequence of events on one simulated fleet, and what came of it against the oracle.

Every event ends with the fleet at rest, or with one change under way that waits, is watched or is held: the
events after it meet that. After each one every gateway has to serve what the oracle says.
"""

import asyncio
import random
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from orchestrator.service.pins import Pins
from policies.model.change import PENSTOCK, ChangeEnding, KnownGoodBatch, Outcome, Phase
from policies.model.command import CommandKind, CommandReceipt
from policies.model.errors import Conflict, PenstockError, Unavailable
from policies.model.fleet import Automation
from policies.model.operation import BREAK_GLASS
from policies.model.people import Caller
from policies.model.plan import Plan, ReleaseRef, Strategy, Wave
from policies.model.settings import lines_of
from policies.model.value import digest_of
from policies.model.verdict import Decision, Window
from policies.model.way_back import RollbackAsked
from tests.fakes.control import (
    AT_CAP,
    CLOSED,
    CRASHING,
    HEALTHY,
    OPEN,
    PASSED,
    QUIET,
    UNDECIDED,
    UNHEALTHY,
)
from tests.fakes.gateway import FakeGateway
from tests.moments.oracle import Oracle, differences
from tests.moments.stage import FLEET, GATEWAYS, Stage, operator
from tests.patience import until
from tests.workflows.hanging import waits_for
from tests.workflows.world import GATES, began_with, reconcile, release
from workflows.bake import BakeOrder
from workflows.change import Change
from workflows.identities import bake_of, change_of

T = TypeVar("T")
FEWEST = 12
"""Events of a sequence at least, the first installation among them."""

MOST = 16
SOON = 90.0
"""Seconds within which what was ordered is over, on a machine that has other things to do."""

RELEASES = tuple(release(version) for version in ("1.3.0", "1.4.0", "1.5.0", "1.6.0"))
FIRST = release("1.1.6")
REQUESTER, ANA, BEA = operator("rita"), operator("ana"), operator("bea")
AT_REST = ("every gateway is on its known-good", "left alone, since operators steered them")


STRAY_FOR = 10.0
"""Seconds for which a bake that has been told to end may still be there."""

STAYS_FOR = 3.0
"""Seconds after which a gateway that nothing may take back has stayed where it is."""

FEWEST_LEFT = 4
"""Gateways that an upgrade may change, of which one may be left out or removed."""

IN_WAVES = 0.5
"""Share of promotions that have waves of several gateways, of which one may fail alone."""

IN_QUARANTINE = 0.15
"""Share of gateways that an operator has just quarantined when they fail alone."""

GOES_ON = 0.5
"""Share of upgrades that go on where one of their later gateways has failed on the release of before."""

LATER_WAVES = 3
"""Gateways at least of an upgrade with a canary and a wave in which one may fail alone."""

Event = tuple[str, float, Callable[[], Awaitable[None]]]
"""What may happen, how likely beside others, and how it is played."""


class Wrong(AssertionError):
    """What was found is not what the oracle says."""


FAULTS = (
    "wrong_targets",
    "internal_errors",
    "refused_rollbacks",
    "operators_undone",
    "refused_orders",
    "stuck",
)
"""What must not be, each counted by its own figure."""


@dataclass
class Found:
    """What came of one sequence."""

    seed: int
    events: list[str] = field(default_factory=list)
    wrong_targets: list[str] = field(default_factory=list)
    internal_errors: list[str] = field(default_factory=list)
    refused_rollbacks: list[str] = field(default_factory=list)
    operators_undone: list[str] = field(default_factory=list)
    refused_orders: list[str] = field(default_factory=list)
    """Orders other than rollbacks that were refused although they make sense."""
    stuck: list[str] = field(default_factory=list)
    harm_to_rollback_s: list[float] = field(default_factory=list)
    """From the moment at which the harm can be read to the last gateway's return, by the workflows' clock."""
    alone_to_return_s: list[float] = field(default_factory=list)
    """From the moment at which one gateway's own failure can be read to its return, by the same clock."""
    kinds: list[str] = field(default_factory=list)
    """What each event was."""
    seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        """Everything that must not be."""
        return [f"{name}: {one}" for name in FAULTS for one in getattr(self, name)]


@dataclass
class UnderWay:
    """A change that does not go on by itself."""

    change: str
    to: ReleaseRef
    waves: tuple[tuple[str, ...], ...]
    waits: bool
    """Whether its next wave waits for its window; that wave is on trial otherwise."""
    passed: int = 0
    """How many of its waves have passed."""
    aside: set[str] = field(default_factory=set)
    """Gateways that failed alone: the change goes on without them."""
    holds: set[str] = field(default_factory=set)

    @property
    def names(self) -> tuple[str, ...]:
        """The gateways that it changes."""
        return tuple(name for wave in self.waves for name in wave)

    @property
    def keeps(self) -> tuple[str, ...]:
        """The gateways that get its release once it is promoted."""
        return tuple(name for name in self.names if name not in self.aside)

    @property
    def wave(self) -> int:
        """The number of the wave that waits or is on trial."""
        return self.passed + 1

    @property
    def has_moved(self) -> bool:
        """Whether any gateway has given sessions to the release."""
        return self.passed > 0 or not self.waits

    @property
    def serving(self) -> set[str]:
        """The gateways that give new sessions to the release."""
        begun = self.waves[: self.passed + (not self.waits)]
        return {name for wave in begun for name in wave} - self.aside

    @property
    def may_fail_on_trial(self) -> list[str]:
        """Return the gateways of which one may fail alone now: of a canary none may, of a later wave one."""
        mine = self.waves[self.passed]
        is_free = not self.waits and self.passed > 0 and len(mine) > 1 and self.aside.isdisjoint(mine)
        return sorted(mine) if is_free else []

    @property
    def may_fail_after_their_wave(self) -> list[str]:
        """Return the gateways of which one may fail alone after its wave, as many as these waves allow."""
        passed = self.waves[: self.passed]
        if may_fail(passed) <= len(self.aside):
            return []
        return sorted({name for wave in passed for name in wave} - self.aside)


def may_fail(waves: Iterable[tuple[str, ...]]) -> int:
    """Return how many gateways may fail alone: of the canary none, one of each later wave of several."""
    return sum(len(wave) > 1 for wave in [*waves][1:])


class Player:
    """Plays one sequence on a stage of its own."""

    def __init__(self, stage: Stage, seed: int, found: Found) -> None:
        """Draw everything from the seed."""
        self.stage = stage
        self.rng = random.Random(seed)
        self.found = found
        self.oracle = Oracle()
        self.turn = 0
        self.turns: dict[str, int] = {}
        """The turn of each change that was promoted, by its name."""
        self.waves: dict[str, tuple[tuple[str, ...], ...]] = {}
        """The waves of each upgrade, by its name."""
        self.spent = Counter[str]()
        """How many gateways of each upgrade have failed alone, by its name."""
        self.failed: dict[str, ReleaseRef] = {}
        """Gateways that failed alone and were not upgraded since, each with the release that it failed on."""
        self.up: UnderWay | None = None
        self.hand: dict[str, ReleaseRef] = {}
        """What operators had gateways serve by break-glass."""
        self.steered = set[str]()
        """Gateways that are left out for break-glass alone, which ends once they serve their known-good."""
        self.out: set[str] = set()
        """Gateways that operators left out of changes."""
        self.gone: set[str] = set()
        """Gateways that the fleet's file has not any more."""
        self.dead: set[str] = set()
        """Those of them whose agents have gone, too."""
        self.unknown: set[str] = set()
        """Gateways of which the ledger knows no known-good: they have been renamed."""
        self.ahead: set[str] = set()
        """Gateways whose host has seen a clock that ran ahead: only upgrades refuse them."""
        self.banner: dict[str, str | None] = {}
        """The banner of each gateway's settings, None without one; only of gateways of which it is known."""
        self.banner_before: dict[str, str | None] = {}
        """The banner that each gateway had before the last settings, until they are taken back."""
        self.configured: set[str] = set()
        """The gateways that got the last settings, until they are taken back."""
        self.numbers = 0

    # --- what is played ----------------------------------------------------------------

    async def play(self, count: int) -> None:
        """Play so many events; the first is the first installation."""
        for one in (FIRST, *RELEASES):
            self.stage.ledger.add_release(
                one, source="http://repository", signers=("a", "b"), manifest_json="{}"
            )
        beginning = self.rng.choice((self.install, self.installed, self.installed, self.installed))
        await self._one(beginning.__name__, beginning)
        self.banner = dict.fromkeys(self.stage.gateways)
        for _ in range(count - 1):
            allowed = self._allowed()
            weights = [weight for _, weight, _ in allowed]
            [(name, _, event)] = self.rng.choices(allowed, weights)
            await self._one(name, event)
        if self.up is not None:
            await self._one("rollback at the end", self.roll_back)

    def _allowed(self) -> list[Event]:
        """Return what may happen now, each with its weight."""
        always: list[Event] = [
            ("rollback", 4.5 if self.failed else 3, self.roll_back),
            ("rollback by force", 0.7, self.roll_back_by_force),
            ("reconcile", 1, self.reconcile),
            ("the engine is killed", 0.4, self.engine_killed),
            ("no worker for a while", 0.5, self.worker_away),
            ("the ledger is locked for a while", 0.5, self.ledger_locked),
            ("a host's clock steps", 0.7, self.clock_steps),
            ("leave out", 0.6, self.leave_out),
            ("return", 1.5 if self.out else 0, self.take_in),
            ("gateway removed from the file", 0.7 if self.up is None else 0.3, self.remove),
            ("gateway back in the file", 1 if self.gone - self.dead else 0, self.put_back),
            ("a command without sense", 0.5, self.senseless),
            ("one fails alone after its promotion", 12 if self._may_fail() else 0, self.alone_promoted),
            ("removal of one that failed alone", 1.5 if self._removable_failed() else 0, self.remove_failed),
            ("gateway renamed", 0.5, self.rename),
            ("rollback by name", 0.7, self.roll_back_by_name),
            ("break-glass", 1, self.break_glass),
        ]
        if self.up is None:
            return [
                *always,
                ("upgrade is promoted", 4, self.promoted),
                ("upgrade fails", 1, self.fails),
                ("upgrade dies in its promotion", 1.5, self.dies_in_promotion),
                ("upgrade waits", 2, self.waits),
                ("upgrade is on trial", 2, self.on_trial),
                ("upgrade in later waves", 6 if self._later_waves() else 0, self.in_later_waves),
                ("retry of one that failed alone", 4 if self._retryable() else 0, self.retry),
                ("harm in the bake", 2, self.harm),
                ("settings", 2 if self.failed else 1, self.configure),
                ("rollback of settings", 0.7, self.roll_back_settings),
                ("reload", 0.5, self.reload),
                ("gateway added and installed", 0.7, self.add),
            ]
        found: list[Event] = [
            *always,
            ("hold", 1, self.hold),
            ("resume", 2 if self.up.holds else 0, self.resume),
            ("abort", 1, self.abort),
            ("the engine loses the change", 1, self.lost),
            ("settings amid an upgrade", 0.5, self.configure_amid_an_upgrade),
            ("break-glass amid an upgrade", 2 if self._steerable() else 0, self.break_glass_amid_an_upgrade),
        ]
        goes_on = 6 if self.up.aside else 1.5
        if self.up.may_fail_after_their_wave:
            found.append(("one fails alone after its wave", 30, self.alone_after_its_wave))
        if self.up.waits:
            return [
                *found,
                ("harm in the bake", 1.5, self.harm),
                ("the window opens", goes_on, self.window_opens),
                ("rollback of settings beside an upgrade", 3, self.roll_back_settings),
                ("reload beside an upgrade", 2, self.reload),
            ]
        return [
            *found,
            ("one fails alone on trial", 30 if self.up.may_fail_on_trial else 0, self.alone_on_trial),
            ("verdict: healthy", goes_on, self.healthy),
            ("verdict: unhealthy", 1.5, self.unhealthy),
            ("votes to promote", 1, self.voted),
        ]

    async def _one(self, name: str, event: Callable[[], Awaitable[None]]) -> None:
        self.found.events.append(name)
        self.found.kinds.append(name)
        await event()
        await self._compare(name)

    def _tell(self, more: str) -> None:
        """Add to the newest event's line."""
        self.found.events[-1] += f" {more}"

    # --- events ------------------------------------------------------------------------

    async def install(self) -> None:
        fleet = self.stage.fleet
        await self.stage.changes.install(fleet, FIRST, "http://repository", ANA.person)
        await self._ended(Outcome.PROMOTED)
        self.oracle.begin(self.stage.gateways, FIRST)

    async def installed(self) -> None:
        """Begin as a fleet that was installed long ago."""
        for fake in self.stage.gateways.values():
            fake.serve(FIRST)
        self.stage.ledger.begin(FLEET, FIRST, self.stage.gateways)
        self.oracle.begin(self.stage.gateways, FIRST)

    async def promoted(self) -> None:
        in_waves = self._later_waves() and self.rng.random() < IN_WAVES
        to, waves = self._drawn_in_waves() if in_waves else self._drawn()
        change = await self._start(to, waves)
        await self._ended(Outcome.PROMOTED)
        self._promote(change, to, [name for wave in waves for name in wave])

    async def fails(self) -> None:
        to, waves = self._drawn()
        self.stage.world.judge.says(UNHEALTHY, wave=self.rng.randint(1, len(waves)))
        await self._start(to, waves)
        await self._goes_back()

    async def waits(self) -> None:
        to, waves = self._drawn()
        self.stage.world.windows.answer = CLOSED
        self.up = UnderWay(await self._start(to, waves), to, waves, waits=True)

    async def on_trial(self) -> None:
        to, waves = self._drawn()
        self.stage.world.judge.says(UNDECIDED)
        self.up = UnderWay(await self._start(to, waves), to, waves, waits=False)
        await self._in_phase(Phase.OBSERVING)

    async def in_later_waves(self) -> None:
        """Bring an upgrade so far that waves have passed; the next waits for its window or is on trial."""
        to, waves = self._drawn_in_waves()
        up = UnderWay(
            "", to, waves, waits=self.rng.random() < 0.4, passed=self.rng.randint(1, len(waves) - 1)
        )
        stops = up.passed if up.waits else up.wave
        self._tell(f"(wave {up.wave} of {len(waves)} {'waits' if up.waits else 'is on trial'})")
        judge = self.stage.world.judge
        judge.says(UNDECIDED, wave=stops)
        up.change = await self._start(to, waves)
        self.up = up
        await self._in_phase(Phase.OBSERVING, stops)
        if up.waits:
            self.stage.world.windows.answer = CLOSED
            judge.says(HEALTHY, wave=up.passed)
            await self._in_phase(Phase.WAITING)

    async def window_opens(self) -> None:
        self.stage.world.windows.answer = OPEN
        await self._goes_on()
        if self.up is None:
            return
        windows = self.stage.world.windows
        windows.answer, asked = CLOSED, len(windows.asked)
        with suppress(TimeoutError):  # until it is heard; the question before may be under way
            await until(lambda: len(windows.asked) > asked + 1, STRAY_FOR)

    async def healthy(self) -> None:
        wave, judge = self._now().wave, self.stage.world.judge
        judge.says(HEALTHY, wave=wave)
        await self._goes_on()
        if self.up is not None:
            judge.says(UNDECIDED, wave=wave)

    async def _goes_on(self) -> None:
        """Have a change promoted, or see that it stays where it is while it is held."""
        up = self._now()
        if up.holds:
            await asyncio.sleep(2)
            if not await self._repeated(lambda: self.stage.changes.is_under_way(FLEET)):
                self.found.operators_undone.append(f"{up.change} went on though {up.holds} held it")
            return
        await self._ended(Outcome.PROMOTED)
        self._promote(up.change, up.to, up.keeps)

    async def voted(self) -> None:
        """Have two operators promote what cannot be proven."""
        up = self._now()
        if up.holds:
            return
        self.stage.world.judge.says(AT_CAP, wave=up.wave)
        await self._in_phase(Phase.HELD)
        for caller in (ANA, BEA):
            status = await self._repeated(lambda: self.stage.changes.status(FLEET))
            await self._commanded(caller, CommandKind.PROMOTE, approves=status.ballot)
        await self._ended(Outcome.PROMOTED)
        self._promote(up.change, up.to, up.keeps)

    async def unhealthy(self) -> None:
        self.stage.world.judge.says(UNHEALTHY, wave=self._now().wave)
        await self._goes_back()

    async def _goes_back(self) -> None:
        """See an upgrade go back after harm; where the fleet asks, only once an operator has said so."""
        if self.stage.fleet.limits.automation is Automation.ASK:

            async def is_asked() -> bool:
                status = await self._repeated(lambda: self.stage.changes.status(FLEET))
                return status.phase is Phase.HELD and status.needs_you is not None and "logins" in status.why

            held = bool(self.up and self.up.holds)
            if not held:
                await self._soon(is_asked, "operators are asked about harm")
            self._tell("[asked]")
            await self._commanded(ANA, CommandKind.ROLL_BACK)
        await self._ended(Outcome.ROLLED_BACK)

    # --- one gateway fails alone ---------------------------------------------------------

    async def alone_on_trial(self) -> None:
        """Have one gateway of a later wave fail alone: it returns, and its wave goes on without it."""
        up = self._now()
        name = self.rng.choice(up.may_fail_on_trial)
        self.stage.world.judge.says(_with_failed(UNDECIDED, name), wave=up.wave)
        await self._set_aside(name)

    async def alone_after_its_wave(self) -> None:
        """Have one gateway fail alone whose wave has passed, whatever the next wave waits for."""
        up, judge = self._now(), self.stage.world.judge
        name = self.rng.choice(up.may_fail_after_their_wave)
        said = sorted(up.aside - {*up.waves[up.passed]})
        judge.says(_with_failed(UNDECIDED, name, *said), wave=PASSED)
        await self._set_aside(name)

    async def _set_aside(self, name: str) -> None:
        """See a gateway of the change under way return to its known-good, and the change name it."""
        up = self._now()
        self._tell(f"({name})")
        await self._returns(name, self.oracle.known_good()[name])
        up.aside.add(name)
        self.spent[up.change] += 1
        self.failed[name] = up.to

        async def is_named() -> bool:
            status = await self._repeated(lambda: self.stage.changes.status(FLEET))
            return status.rollout == up.change and status.outcome is None and {*status.aside} == up.aside

        await self._soon(is_named, f"{up.change} goes on and names {sorted(up.aside)} as set aside")

    async def alone_promoted(self) -> None:
        """Have one gateway fail alone of any promotion that stands, whatever is under way on others."""
        name = self.rng.choice(self._may_fail())
        served, up, ledger = self.oracle.served[name][-1], self.up, self.stage.ledger
        [change] = [change for change, turn in self.turns.items() if turn == served.turn]
        self._tell(f"({name} of {change})")
        await self._is_watched(change)
        if self.rng.random() < IN_QUARANTINE and name in self._may_be_left_out():
            await self._leave_out(name)
        self.stage.world.judge.after[change] = _with_failed(QUIET, name)
        quarantined = name in self.out
        kept_out = up is not None and up.has_moved and name in up.names
        if quarantined or kept_out:
            await asyncio.sleep(STAYS_FOR)
            if self.stage.serving()[name] != served.release:
                raise Wrong(f"{name} was taken back while {'it was in quarantine' if quarantined else up}")
        if quarantined:
            self._tell("in quarantine")
            self.stage.look()
            await self._soon(partial(self._taken_in, name), f"{name} takes part again")
        if kept_out and up is not None and not up.holds and self.rng.random() < GOES_ON:
            self._tell("of a later wave of the upgrade under way, which takes it over")
            self.stage.world.windows.answer = OPEN
            await self.healthy()
            del self.stage.world.judge.after[change]
            return
        if kept_out:
            self._tell("of a later wave of the upgrade under way, which goes back")
            await self._roll_back_what_has_moved()
        elif up is not None and name in up.names:
            self._tell("of the upgrade that waits, which ends")
            await self._soon(lambda: ledger.change(up.change).outcome is not None, f"{up.change} ends")
            if (found := ledger.change(up.change)).outcome is not Outcome.REFUSED:
                raise Wrong(f"{up.change} ended {found.outcome}: {found.sentence}")
            self.up = None
        assert served.before is not None
        await self._returns(name, served.before)
        still = {up.change} if self.up is not None and up is not None else set[str]()
        await self._soon(lambda: {*ledger.open_changes(FLEET)} == still, "its return has ended")
        if self.up is None:
            await self._free()
        del self.stage.world.judge.after[change]
        self.turn += 1
        self.oracle.fail_alone(name, datetime.now(UTC), self.turn)
        self.spent[change] += 1
        self.failed[name] = served.release

    async def _roll_back_what_has_moved(self) -> None:
        """Have an operator take back the change under way, which has moved sessions, and nothing else."""
        receipt = await self._rolled_back()
        if receipt is not None:
            await self._went_back(receipt, {})

    async def _returns(self, name: str, to: ReleaseRef) -> None:
        """See one gateway return by itself within the time that is promised."""
        began = time.monotonic()
        await self._soon(
            lambda: self.stage.serving().get(name) == to, f"{name}, which failed alone, serves {to.version}"
        )
        self.found.alone_to_return_s.append(round(time.monotonic() - began, 1))

    async def _is_watched(self, change: str) -> None:
        """See that a promotion which stands is watched, at the latest after reconcile has looked."""
        bakes = self.stage.world.judge.bakes
        begin = len(bakes)

        def is_asked() -> bool:
            return any(order.change == change for order in bakes[begin:])

        with suppress(TimeoutError):
            await until(is_asked, STRAY_FOR)
            return
        self._tell("(after reconcile)")
        await reconcile(self.stage.world)
        await self._soon(is_asked, f"the promotion {change} is watched")

    def _may_fail(self) -> list[str]:
        """Return the gateways that may fail alone after their promotion, and that one can see return.

        That is as many of each promotion as its waves allow. One that the upgrade under way has moved is that
        one's, and one that an operator steered or took out of the fleet's file is the operator's.
        """
        not_ours = self.dead | self.gone | {*self.hand}
        if self.up is not None:
            not_ours |= self.up.serving | self.up.aside
        found = set[str]()
        for change, turn in self.turns.items():
            is_spare = may_fail(self.waves[change]) > self.spent[change]
            if is_spare and self.oracle.is_watched(turn):
                found |= self.oracle.stands(turn) - not_ours
        return sorted(found)

    def _retryable(self) -> list[str]:
        """Return the gateways that failed alone and that an upgrade may bring to the same release again."""
        able, known_good = self._able(), self.oracle.known_good()
        return sorted(name for name, to in self.failed.items() if name in able and known_good[name] != to)

    async def retry(self) -> None:
        """Upgrade a gateway that failed alone to the same release again, by itself."""
        name = self.rng.choice(self._retryable())
        to = self.failed.pop(name)
        fails = self.rng.random() < 0.3
        self._tell(f"({to.version} on {name}{', which fails' if fails else ''})")
        if fails:
            self.stage.world.judge.says(UNHEALTHY)
        change = await self._start(to, ((name,),))
        if fails:
            await self._goes_back()
            return
        await self._ended(Outcome.PROMOTED)
        self._promote(change, to, [name])

    def _removable_failed(self) -> list[str]:
        return [name for name in self._may_be_left_out() if name in self.failed]

    async def remove_failed(self) -> None:
        """Take a gateway that failed alone out of the fleet's file, also while its change goes on."""
        self._remove(self.rng.choice(self._removable_failed()))

    async def roll_back(self, *, force: bool = False) -> None:
        """Roll the release back as an operator does, and compare what was answered with what has to be."""
        on_trial = self.up is not None and self.up.has_moved
        targets = {} if on_trial else self.oracle.expected(datetime.now(UTC))
        if (
            not targets and self.up is None
        ):  # beside a change the first rollback ends that, and the next takes them
            targets = self._led_astray()
        receipt = await self._rolled_back(force=force)
        if receipt is not None:
            await self._went_back(receipt, targets)

    def _led_astray(self) -> dict[str, ReleaseRef]:
        """Return the gateways that operators steered off their known-good, each with that."""
        known_good = self.oracle.known_good()
        ours = {name: to for name, to in self.hand.items() if name not in self.gone | self.unknown}
        return {name: known_good[name] for name, to in ours.items() if to != known_good[name]}

    async def roll_back_by_force(self) -> None:
        await self.roll_back(force=True)

    async def roll_back_by_name(self) -> None:
        """Roll back to a release that a promotion replaced on every gateway that could go there."""
        known_good = self.oracle.known_good()
        left = self.oracle.left_by_promotion(datetime.now(UTC))
        proven = {name: {one.release for one in trail} for name, trail in self.oracle.served.items()}
        for to in self.rng.sample((FIRST, *RELEASES), len(RELEASES) + 1):
            able = {name for name, had in proven.items() if to in had and name not in self.unknown}
            targets = {name: to for name in able if known_good[name] != to}
            if Pins(self.stage.ledger).of(FLEET, to.digest) is not None:
                continue  # a second operator is waited for
            if targets and all(to in left.get(name, ()) for name in targets):
                astray = self._led_astray()
                targets |= {name: to for name, home in astray.items() if home == to and name in able}
                self._tell(f"({to.version})")
                if self.up is not None and self.up.has_moved:
                    await self._refused(partial(self._ordered_back, to=to.version))
                    return
                receipt = await self._rolled_back(to=to.version)
                if receipt is not None:
                    await self._went_back(receipt, targets)
                return

    async def _went_back(self, receipt: CommandReceipt, targets: dict[str, ReleaseRef]) -> None:
        if targets and not receipt.accepted:
            self.found.refused_rollbacks.append(f"{self.found.events[-1]}: {receipt.sentence}")
        self._tell(f"[{receipt.sentence}]")
        await self._free()
        self._took_back(targets)
        self.up = None

    async def _refused(self, order: Callable[[], Awaitable[object]]) -> None:
        """See that an order is refused since a change is under way, in words, and ends nothing."""
        try:
            done = await order()
        except Conflict:
            return
        raise Wrong(f"it was taken though {self._now().change} is under way: {done}")

    async def _ordered_back(self, *, force: bool = False, **asked: Any) -> CommandReceipt:
        service, rollback = self.stage.service, RollbackAsked(**asked, force=force)
        return await service.roll_back(ANA, FLEET, "users call", asked=rollback)

    async def _rolled_back(self, *, force: bool = False, **asked: Any) -> CommandReceipt | None:
        try:
            return await self._ordered_back(force=force, **asked)
        except PenstockError as error:
            self.found.refused_rollbacks.append(f"{self.found.events[-1]}: {type(error).__name__}: {error}")
            return None

    async def dies_in_promotion(self) -> None:
        """Have the engine lose an upgrade with a part promoted; reconcile or an operator ends it."""
        to, waves = self._drawn()
        parts, ledger, calls = self.rng.randint(0, len(waves)), self.stage.ledger, list[object]()
        names = [name for wave in waves[:parts] for name in wave]
        write, close = ledger.record_known_good_batch, ledger.close_change

        def record(batch: KnownGoodBatch) -> int:
            calls.append(batch)
            if len(calls) > parts:
                raise Unavailable("the ledger has gone")
            return write(batch)

        def end(ending: ChangeEnding) -> None:
            calls.append(ending)
            raise Unavailable("the ledger has gone")

        ledger.record_known_good_batch, ledger.close_change = record, end  # type: ignore[method-assign]
        try:
            change = await self._start(to, waves)
            await self._soon(lambda: len(calls) > parts, "it is promoted")
            await self._terminated()
        finally:
            ledger.record_known_good_batch, ledger.close_change = write, close  # type: ignore[method-assign]
        whole = parts == len(waves)
        self._tell(f"after {parts} of {len(waves)} parts")
        if self.rng.random() < 0.5:
            self._tell("and a rollback")
            receipt = await self._rolled_back()
            if receipt is None:
                return
            await self._went_back(receipt, {})
            self.turn += 1
            self.turns[change] = self.turn
            for name in names:  # it was promoted, and went back
                before = self.oracle.known_good()[name]
                self.oracle.promote(name, to, datetime.now(UTC), self.turn)
                self.oracle.take_back(name, before, datetime.now(UTC), self.turn)
            return
        self._tell("and reconcile")
        await self._reconciled()
        if whole:
            self._promote(change, to, names)
            return
        self.turn += 1
        for name in names:
            before = self.oracle.known_good()[name]
            self.oracle.promote(name, to, datetime.now(UTC), self.turn)
            self.oracle.take_back(name, before, datetime.now(UTC), self.turn)

    async def lost(self) -> None:
        """Have the engine lose the change under way; reconcile or an operator ends it."""
        up = self._now()
        await self._terminated()
        if self.rng.random() < 0.5:
            self._tell("and a rollback")
            targets = {} if up.has_moved else self.oracle.expected(datetime.now(UTC))
            self._as_usual()
            receipt = await self._rolled_back()
            if receipt is not None:
                await self._went_back(receipt, targets)
            return
        self._tell("and reconcile")
        self.up = None
        self._as_usual()
        await self._reconciled()

    async def _terminated(self) -> None:
        await self.stage.world.client.get_workflow_handle(change_of(FLEET)).terminate("the engine lost it")

    async def harm(self) -> None:
        """Have harm found in what was promoted: it goes back by itself, whatever waits."""
        client, bake = self.stage.world.client, None
        with suppress(RPCError):
            bake = await client.get_workflow_handle(bake_of(FLEET)).describe()
        if bake is None or bake.status is not WorkflowExecutionStatus.RUNNING:
            self._tell("(nothing bakes)")
            return
        over = partial(self._bake_is_over, bake.run_id)
        order, _ = await began_with(client, bake_of(FLEET), BakeOrder, bake.run_id)
        if order.change not in self.turns:
            with suppress(TimeoutError):
                await until(over, STRAY_FOR)
                self._tell(f"({order.change} has just ended, and nothing bakes)")
                return
            raise Wrong(f"{order.change} is watched after its promotion, and it was never promoted")
        targets = self.oracle.undo(self.turns[order.change])
        expected = {name: to for name, to in targets.items() if name not in self.dead}
        self._tell(f"(of {order.change}: {' '.join(expected)})")
        began = time.monotonic()
        self.stage.world.judge.after[order.change] = CRASHING  # other promotions are watched beside it
        try:
            await self._soon(
                lambda: all(self.stage.serving().get(name) == to for name, to in expected.items()),
                "harm in the bake goes back",
            )
        except Stuck as stuck:
            serving = {name: to for name, to in self.stage.serving().items() if name in expected}
            raise Stuck(f"{stuck}; {differences(expected, serving)}") from None
        self.found.harm_to_rollback_s.append(round(time.monotonic() - began, 1))
        # An operator may have steered all of them back before it is read, and it is still read then.
        await self._soon(over, "the bake has ended")
        del self.stage.world.judge.after[order.change]
        await self._free()
        self.up = None
        self._took_back(targets)

    async def _bake_is_over(self, run: str) -> bool:
        found = await self.stage.world.client.get_workflow_handle(bake_of(FLEET), run_id=run).describe()
        return found.status is not WorkflowExecutionStatus.RUNNING

    # --- commands ----------------------------------------------------------------------

    async def _commanded(self, caller: Caller, kind: CommandKind, **more: Any) -> CommandReceipt:
        command, key = self.stage.service.command, f"{kind} {len(self.found.events)}"
        return await self._repeated(lambda: command(caller, FLEET, kind, "because", key=key, **more))

    async def hold(self) -> None:
        caller = self.rng.choice((ANA, BEA))
        await self._commanded(caller, CommandKind.HOLD)
        self._now().holds.add(caller.person)

    async def resume(self) -> None:
        """Lift one hold: the other ones stay."""
        up = self._now()
        person = self.rng.choice(sorted(up.holds))
        await self._commanded(operator(person), CommandKind.RESUME)
        up.holds.discard(person)

    async def abort(self) -> None:
        """Abort a change that waits; of one that has moved sessions a stored abort is a rollback."""
        try:
            receipt = await self._commanded(ANA, CommandKind.ABORT)
        except Conflict:
            if not self._now().has_moved:
                raise
            return
        if not self._now().has_moved:
            await self._ended(Outcome.ABORTED)
            return
        self._tell(f"[{receipt.sentence}]")
        if "is stored" not in receipt.sentence:
            raise Wrong("it was aborted after sessions had moved")
        await self._ended(Outcome.ROLLED_BACK)

    async def senseless(self) -> None:
        """Give a command that makes no sense now, and meet a refusal in words."""
        if self.up is None:
            kind = self.rng.choice([*CommandKind])
        else:
            kind = self.rng.choice((CommandKind.APPROVE, CommandKind.REJECT))
        self._tell(f"({kind})")
        if kind is CommandKind.QUARANTINE:
            return
        with suppress(PenstockError):
            await self._commanded(BEA, kind)

    async def reconcile(self) -> None:
        """Look as every minute does: nothing that is as it should be is touched."""
        if self.up is None:
            await self._reconciled()
            return
        await reconcile(self.stage.world)

    async def _reconciled(self) -> None:
        """Reconcile until nothing is left to do."""
        for _ in range(6):
            found = await reconcile(self.stage.world)
            await self._free()
            if found.sentence.startswith(AT_REST):
                return
        raise Stuck(f"reconcile finds something to do again and again: {found.sentence}")

    # --- what goes away ----------------------------------------------------------------

    async def engine_killed(self) -> None:
        async with self.stage.without_engine():
            await asyncio.sleep(self.rng.random())

    async def worker_away(self) -> None:
        """Have no worker; an operator's rollback of what is on trial is stored meanwhile."""
        goes_back = self.up is not None and self.up.has_moved and self.rng.random() < 0.5
        async with self.stage.without_worker():
            receipt = await self._rolled_back() if goes_back else None
            await asyncio.sleep(self.rng.random())
        if receipt is not None:
            await self._went_back(receipt, {})

    async def ledger_locked(self) -> None:
        """Lock the ledger; an operator's rollback of what is on trial is taken meanwhile."""
        goes_back = self.up is not None and self.up.has_moved and self.rng.random() < 0.5
        with self.stage.locked_ledger():
            receipt = await self._rolled_back() if goes_back else None
            await asyncio.sleep(1 + self.rng.random())
        if receipt is not None:
            await self._went_back(receipt, {})

    async def clock_steps(self) -> None:
        """Have a host's clock step, or have it see one that ran ahead and was set back."""
        fake = self.stage.gateways[self.rng.choice(sorted(self._alive()))]
        self._tell(fake.gateway.name)
        if self.rng.random() < 0.5 or len(self._able()) < 5:
            hours = self.rng.uniform(-30, 30)
            lasts = fake.trial_ends - fake.now()  # a lease runs by the kernel's clock, which never steps
            fake.now = lambda: datetime.now(UTC) + timedelta(hours=hours)
            fake.trial_ends = fake.now() + lasts if fake.trial is not None else fake.trial_ends
        elif fake.gateway.name not in self.hand and self.up is None:
            fake.owner = (max(fake.owner[0], int(time.time() * 1000)) + 3_600_000, fake.owner[1])
            self.ahead.add(fake.gateway.name)

    # --- operators and single gateways -------------------------------------------------

    async def leave_out(self) -> None:
        able = self._may_be_left_out()
        if not able:
            return
        name = self.rng.choice(able)
        self._tell(name)
        await self._leave_out(name)

    def _may_be_left_out(self) -> list[str]:
        """Return the gateways that an operator may leave out or remove; some are always left."""
        able = sorted(self._able() - {*(self.up.keeps if self.up is not None else ())})
        return able if len(able) >= FEWEST_LEFT else []

    async def _leave_out(self, name: str) -> None:
        await self._repeated(lambda: self.stage.service.leave_out(ANA, FLEET, (name,), "its disk"))
        self.out.add(name)
        self.steered.discard(name)
        self._forget_settings(name)

    async def take_in(self) -> None:
        """Return a gateway: what an operator steered by hand goes to its known-good only now."""
        name = self.rng.choice(sorted(self.out))
        self._tell(name)
        if name in self.gone or (self.up is not None and name in self.hand):
            return
        try:
            takes_part = await self._taken_in(name)
        except Conflict:
            if name not in self.steered or name in self.hand:
                raise
            self._tell("[takes part again: its known-good moved to what an operator had it serve]")
            self.out.discard(name)
            return
        if takes_part and self.hand.pop(name, None) is not None:
            self.stage.hand_over_long_ago(name)
            await self._reconciled()

    async def _taken_in(self, name: str) -> bool:
        """Return a gateway, and whether it takes part again."""
        returned = await self._repeated(lambda: self.stage.service.take_in(ANA, FLEET, (name,), "mended"))
        left = [one for one in self.stage.ledger.quarantined(FLEET) if one.gateway == name]
        if any(row.person != PENSTOCK for row in left):  # it stays as it was, which only a silent one may
            self._tell(f"[{returned.sentence}]")
            if "it is silent" not in returned.sentence:
                raise Wrong(f"{name} was not returned: {returned.sentence}")
            return False
        self.out.discard(name)
        return True

    async def break_glass(self) -> None:
        """Have an operator steer a gateway on its host to the release that it had before."""
        able = [
            name
            for name in sorted(self._able() - self._changing())
            if len(trail := self.oracle.served[name]) > 1 and trail[-2].release != trail[-1].release
        ]
        if not able:
            return
        name = self.rng.choice(able)
        to = self.oracle.served[name][-2].release
        self._steer(name, to)
        self.hand[name] = to
        self.out.add(name)
        self.steered.add(name)
        self._forget_settings(name)
        await self.reconcile()

    def _steer(self, name: str, to: ReleaseRef) -> None:
        """Start a release on a gateway's host, and give it all new sessions."""
        self._tell(name)
        fake = self.stage.gateways[name]
        slot = min(slot for slot in fake.slots if slot not in (fake.serving, fake.trial))
        fake.serve(to, slot)
        fake.trial, fake.owner = None, (max(fake.owner[0], int(time.time() * 1000)), BREAK_GLASS)

    async def break_glass_amid_an_upgrade(self) -> None:
        """Have an operator steer a gateway back that serves the upgrade's release: the upgrade leaves it."""
        up = self._now()
        name = self.rng.choice(self._steerable())
        self._steer(name, self.oracle.known_good()[name])
        await self.reconcile()
        up.aside.add(name)

        async def is_left() -> bool:
            status = await self._repeated(lambda: self.stage.changes.status(FLEET))
            return status.outcome is not None or name in status.aside

        await self._soon(is_left, f"{up.change} leaves {name}")
        if self.stage.ledger.change(up.change).outcome is not None:  # too many of its wave have left it
            await self._ended(Outcome.ROLLED_BACK)

    def _steerable(self) -> list[str]:
        """Return the gateways that serve the upgrade's release, of waves in which another one is left to."""
        up = self.up
        if up is None or not up.passed:
            return []
        mine = [{*wave} & up.serving - self.out for wave in up.waves]
        return sorted(name for wave in mine if len(wave) > 1 for name in wave)

    # --- the fleet's file --------------------------------------------------------------

    async def remove(self) -> None:
        if able := self._may_be_left_out():
            self._remove(self.rng.choice(able))

    def _remove(self, name: str) -> None:
        self._tell(name)
        self.stage.members(lambda members: [one for one in members if one.name != name])
        self.gone.add(name)
        self._forget_settings(name)

    async def put_back(self) -> None:
        name = self.rng.choice(sorted(self.gone - self.dead))
        self._tell(name)
        self.stage.members(lambda members: [*members, self.stage.gateways[name].gateway])
        self.gone.discard(name)

    async def add(self) -> None:
        """Add an empty gateway to the file, and install the first release on it."""
        self.numbers += 1
        added = self.stage.added(GATEWAYS + self.numbers)
        self._tell(added.name)
        self.stage.members(lambda members: [*members, added])
        await self.stage.power_on(FakeGateway(added))
        await self.stage.changes.install(self.stage.fleet, FIRST, "http://repository", ANA.person)
        await self._ended(Outcome.PROMOTED)
        self.oracle.begin([added.name], FIRST)
        # An installation takes in what serves its release already.
        self.unknown -= {name for name in self.unknown if self.oracle.known_good()[name] == FIRST}

    async def rename(self) -> None:
        """Rename a gateway in the file and on its host: its old name is gone, its new one has no history."""
        able = sorted(self._able() - self._changing())
        if len(able) < FEWEST_LEFT:
            return
        old = self.rng.choice(able)
        self.numbers += 1
        new = f"{old}-renamed-{self.numbers}"
        self._tell(f"{old} to {new}")
        before = self.stage.gateways[old]
        described = before.gateway.model_copy(update={"name": new})
        self.stage.members(lambda members: [described if one.name == old else one for one in members])
        await self.stage.power_off(old)
        fake = FakeGateway(described)
        for mine in ("slots", "serving", "staged", "owner", "settings", "pools", "generation"):
            setattr(fake, mine, getattr(before, mine))
        await self.stage.power_on(fake)
        self.gone.add(old)
        self.dead.add(old)
        self.unknown.add(new)
        self.oracle.begin([new], self.oracle.known_good()[old])
        self._forget_settings(old)

    # --- settings and credentials --------------------------------------------------------

    async def configure(self) -> None:
        """Give every gateway that takes part another banner."""
        text = await self._described()
        await self._configured(text)
        await self._others_over()
        taking = {one.name for one in self.stage.fleet.gateways} - self.out
        self.configured = taking
        self.banner_before = {name: self.banner[name] for name in taking & self.banner.keys()}
        self.banner |= dict.fromkeys(taking, text)

    async def configure_amid_an_upgrade(self) -> None:
        """Order another banner, of which the plan under way knows nothing: that is refused."""
        before = self.stage.fleet
        text = await self._described()
        await self._refused(partial(self._configured, text))
        self.stage.describe(self.stage.fleet.model_copy(update={"settings": before.settings}))

    async def _described(self) -> str:
        """Write another banner into the fleet's file."""
        text = f"banner {len(self.found.events)}"
        self._tell(text)
        self.stage.describe(self.stage.fleet.model_copy(update={"settings": {"banner": (text,)}}))
        return text

    async def _configured(self, text: str) -> None:
        """Order that the hosts get the settings of the fleet's file."""
        fleet, changes = self.stage.fleet, self.stage.changes
        plan = await self._repeated(lambda: changes.plan_settings(fleet))
        await self._repeated(lambda: changes.reload(fleet, plan, ANA.person, "a banner", key=text))

    def _settings(self, name: str) -> tuple[str, ...]:
        return lines_of(self.stage.gateways[name].settings)

    def _forget_settings(self, name: str) -> None:
        """Know no more which settings a gateway has: penstock gives it those that it misses at some time."""
        self.banner.pop(name, None)
        self.banner_before.pop(name, None)

    async def roll_back_settings(self) -> None:
        """Roll settings back: no gateway changes its release by that."""
        receipt = await self._rolled_back(settings=True)
        if receipt is not None:
            self._tell(f"[{receipt.sentence}]")
            await self._others_over()
            for name in self.configured:
                self.banner.pop(name, None)
            self.banner |= self.banner_before
            self.banner_before, self.configured = {}, set()

    async def reload(self) -> None:
        fleet, changes = self.stage.fleet, self.stage.changes
        plan = await self._repeated(lambda: changes.plan_reload(fleet))
        await self._repeated(lambda: changes.reload(fleet, plan, ANA.person, "a new user"))
        await self._others_over()

    # --- the parts of events -----------------------------------------------------------

    def _drawn(self) -> tuple[ReleaseRef, tuple[tuple[str, ...], ...]]:
        """Return a release and some gateways that are not on it, the first of them as the canary."""
        known_good = self.oracle.known_good()
        able = sorted(self._able())
        to = self.rng.choice([one for one in (FIRST, *RELEASES) if any(known_good[n] != one for n in able)])
        names = [name for name in able if known_good[name] != to]
        chosen = self.rng.sample(names, min(len(names), self.rng.choice((1, 1, 2, 2, 3, 3, 8))))
        self._tell(f"({to.version} on {' '.join(chosen)})")
        waves = (tuple(chosen[:1]), tuple(chosen[1:]))
        return to, tuple(wave for wave in waves if wave)

    def _later_waves(self) -> dict[ReleaseRef, list[str]]:
        """Return the gateways that each release is new on, where a wave after the canary can have several."""
        known_good, able = self.oracle.known_good(), sorted(self._able())
        new = {to: [name for name in able if known_good[name] != to] for to in (FIRST, *RELEASES)}
        return {to: names for to, names in new.items() if len(names) >= LATER_WAVES}

    def _drawn_in_waves(self) -> tuple[ReleaseRef, tuple[tuple[str, ...], ...]]:
        """Return a release and gateways in two or three waves: a canary, and several in the second."""
        able = self._later_waves()
        to = self.rng.choice([*able])
        chosen = self.rng.sample(able[to], self.rng.randint(LATER_WAVES, len(able[to])))
        self._tell(f"({to.version} on {' '.join(chosen)})")
        second = self.rng.randint(LATER_WAVES, max(LATER_WAVES, len(chosen) - 1))
        waves = (tuple(chosen[:1]), tuple(chosen[1:second]), tuple(chosen[second:]))
        return to, tuple(wave for wave in waves if wave)

    def _able(self) -> set[str]:
        """Return the gateways that an upgrade may change."""
        return self._alive() - self.gone - self.out - self.unknown - self.ahead

    def _changing(self) -> set[str]:
        """Return the gateways that the change under way changes."""
        return {*(self.up.names if self.up is not None else ())}

    def _alive(self) -> set[str]:
        return {*self.oracle.served} - self.dead

    def _plan(self, to: ReleaseRef, waves: tuple[tuple[str, ...], ...]) -> Plan:
        fleet = self.stage.fleet
        return Plan(
            fleet=fleet,
            release=to,
            strategy=Strategy.CANARY,
            waves=tuple(
                Wave(number=number, gateways=names, lease=fleet.limits.lease)
                for number, names in enumerate(waves, 1)
            ),
            known_good=self.stage.ledger.known_good(FLEET),
            sessions={},
            window=Window(),
            gates=GATES,
            trust_policy=digest_of(b"trust"),
        )

    async def _repeated(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return the answer of an engine that may be busy; only rollbacks have to be taken at once."""
        until = time.monotonic() + SOON
        while True:
            try:
                return await ask()
            except Unavailable:
                if time.monotonic() > until:
                    raise

    async def _start(self, to: ReleaseRef, waves: tuple[tuple[str, ...], ...]) -> str:
        self.stage.look()
        plan = self._plan(to, waves)
        start, key = self.stage.changes.start, f"{self.found.seed} {len(self.found.events)}"
        name = await self._repeated(
            lambda: start(plan, "http://repository", REQUESTER.person, "new features", key=key)
        )
        name = name if name is not None else await self._repeated(partial(self._begun, key))
        self.waves[name] = waves
        return name

    async def _begun(self, key: str) -> str:
        name = await self.stage.changes.begun_before(key, timedelta(seconds=SOON))
        if name is None:
            raise Stuck("the upgrade has no name yet")
        return name

    def _promote(self, change: str, to: ReleaseRef, names: Iterable[str]) -> None:
        self.turn += 1
        self.turns[change] = self.turn
        for name in names:
            self.oracle.promote(name, to, datetime.now(UTC), self.turn)
            self.failed.pop(name, None)

    def _took_back(self, targets: dict[str, ReleaseRef]) -> None:
        if targets:
            self.turn += 1
        for name, to in targets.items():
            self.oracle.take_back(name, to, datetime.now(UTC), self.turn)
            self.hand.pop(name, None)

    def _now(self) -> UnderWay:
        assert self.up is not None
        return self.up

    async def _in_phase(self, phase: Phase, wave: int = 1) -> None:
        change = self.stage.world.client.get_workflow_handle(change_of(FLEET))

        async def is_there() -> bool:
            with suppress(RPCError):
                status = await change.query(Change.status)
                return status.phase is phase and (phase is Phase.WAITING or status.wave >= wave)
            return False

        await self._soon(is_there, f"the change is {phase}")

    async def _ended(self, *outcomes: Outcome) -> None:
        """Wait for the end of the change; another outcome than these is wrong."""
        await self._free()
        found = await self._repeated(lambda: self.stage.changes.result(FLEET))
        if found.outcome not in outcomes:
            raise Wrong(f"it ended {found.outcome}: {found.reason}")
        self.up = None
        self._as_usual()

    def _as_usual(self) -> None:
        """Have judge and windows say again what they usually say."""
        self.stage.world.judge.script.clear()
        self.stage.world.windows.answer = OPEN

    async def _free(self) -> None:
        """Wait until no change has the fleet's lock."""

        async def is_free() -> bool:
            return not await self._repeated(lambda: self.stage.changes.is_under_way(FLEET))

        await self._soon(is_free, "the fleet's lock is free")
        self._as_usual()

    async def _others_over(self) -> None:
        """Wait until nothing is under way but the change that waits, which is as it was."""
        if self.up is None:
            await self._free()
            return
        still = {self.up.change}
        await self._soon(
            lambda: {*self.stage.ledger.open_changes(FLEET)} == still, f"{self.up.change} alone is under way"
        )

        async def waits() -> bool:
            status = await self._repeated(lambda: self.stage.changes.status(FLEET))
            return status.rollout in still and status.phase in {Phase.WAITING, Phase.HELD}

        await self._soon(waits, f"{self.up.change} waits on")

    async def _soon(self, is_so: Callable[[], Awaitable[bool] | bool], what: str) -> None:
        try:
            await until(is_so, SOON)
        except TimeoutError:
            told = "no change"
            with suppress(PenstockError):
                status = await self.stage.changes.status(FLEET)
                told = f"{status.rollout}: {status.phase}: {status.why} {status.next}"
            runs = [
                one async for one in self.stage.world.client.list_workflows("ExecutionStatus = 'Running'")
            ]
            waits = [await waits_for(self.stage.world.client, one) for one in runs]
            raise Stuck(f"not within {SOON:.0f} s: {what}; {told}; {'; '.join(waits)}") from None

    # --- what has to be so -------------------------------------------------------------

    def _expected(self) -> dict[str, ReleaseRef]:
        """Return what each gateway has to serve now."""
        found = {name: to for name, to in self.oracle.known_good().items() if name not in self.dead}
        found |= self.hand
        if self.up is not None:
            found |= dict.fromkeys(self.up.serving, self.up.to)
        return found

    async def _compare(self, event: str) -> None:
        """Hold what gateways serve, and what the ledger calls known-good, to the oracle."""
        expected = self._expected()
        with suppress(TimeoutError):
            await until(lambda: not differences(expected, self.stage.serving()), 5)
        wrong = differences(expected, self.stage.serving())
        if undone := sorted(wrong.keys() & self.hand.keys()):
            self.found.operators_undone.append(f"{event}: {undone} were steered by hand; {wrong}")
        if wrong:
            raise Wrong(f"serving after {event!r}: {wrong}")
        known_good = {n: to for n, to in self.oracle.known_good().items() if n not in self.unknown}
        if wrong := differences(known_good, self.stage.ledger.known_good(FLEET)):
            raise Wrong(f"known-good after {event!r}: {wrong}")
        settings = {name: ", ".join(self._settings(name)) for name in self.banner}
        for name, has in settings.items():
            wanted = self.banner[name]
            if has != "" if wanted is None else not has.endswith(wanted):
                raise Wrong(f"settings of {name} after {event!r}: {has!r} instead of {wanted!r}")


class Stuck(AssertionError):
    """What was ordered did not come to its end."""


def _with_failed(decision: Decision, *names: str) -> Decision:
    """Return the decision with these gateways failed by themselves."""
    return decision.model_copy(update={"failed": names})


def automation_of(seed: int) -> Automation:
    """Return how much the fleet of that sequence does by itself: of three, one asks operators after harm."""
    return random.Random(f"{seed} automation").choice((Automation.ACT, Automation.ACT, Automation.ASK))


async def play(stage: Stage, seed: int) -> Found:
    """Play the sequence of that seed; a fault ends it."""
    found = Found(seed)
    began = time.monotonic()
    player = Player(stage, seed, found)
    try:
        await player.play(random.Random(f"{seed} events").randint(FEWEST, MOST))
    except Wrong as wrong:
        found.wrong_targets.append(str(wrong))
    except Stuck as stuck:
        found.stuck.append(str(stuck))
    except PenstockError as error:
        newest = stage.ledger.last_change(FLEET)
        of = f"{newest.name}, {newest.kind}: {newest.reason}" if newest is not None else "none"
        found.refused_orders.append(f"{found.events[-1]}: {type(error).__name__}: {error} ({of} is newest)")
    except Exception as error:  # noqa: BLE001 - whatever a person would have met
        trace = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{trace.filename.rpartition('/')[2]}:{trace.lineno}"
        found.internal_errors.append(f"{found.events[-1]}: {type(error).__name__}: {error} ({where})")
    found.internal_errors += sorted(stage.unexpected.found)
    found.seconds = round(time.monotonic() - began, 1)
    return found
