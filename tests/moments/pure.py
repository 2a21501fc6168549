"""Random histories on the pure decisions alone: what a rollback does, drift, known-good, lost changes.

A history has the moves of known-good and the changes as a ledger keeps them. The oracle follows gateways.
"""

import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from policies.drift import steered_by_hand, strays
from policies.history import reload_to_take_back, unfinished_change
from policies.model.change import PENSTOCK, ChangeKind, ChangeRecord, Outcome, UnfinishedChange
from policies.model.instance import GatewayState, Instance, InstanceState, Steering
from policies.model.operation import BREAK_GLASS
from policies.model.plan import ReleaseRef
from policies.rollback import known_good_within, rollback_targets
from tests.moments.oracle import KEPT, differences
from tests.unit.rollback_world import FIRST, HOUR, RELEASES, World

FEWEST, MOST = 12, 16
NAMES = tuple(f"gw-{number}" for number in range(1, 9))
STEPS = (
    *("promote",) * 4,
    *("rollback",) * 3,
    *("alone",) * 2,
    *("named", "stray returns", "canary fails", "refused", "reload", "hours", "joins"),
    *("settings", "settings", "settings go back"),
    *("dies promoting", "dies on trial", "dies waiting", "break-glass", "reconcile", "rollback incomplete"),
)


@dataclass
class PureFound:
    """What came of many sequences."""

    sequences: int = 0
    events: int = 0
    rollbacks: int = 0
    wrong_targets: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class History:
    """A fleet of eight, its changes with the oldest first, and what operators steered on hosts."""

    rng: random.Random
    world: World = field(default_factory=lambda: World(names=NAMES))
    records: list[ChangeRecord] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)
    """Lost changes that have moved sessions."""
    hand: dict[str, ReleaseRef] = field(default_factory=dict)
    incomplete: int = 0
    """The upgrade whose rollback is incomplete: the next rollback completes it, once."""
    events: list[str] = field(default_factory=list)

    def happens(self) -> bool:
        """Let one thing happen; return whether it was a rollback."""
        step = self.rng.choice(STEPS)
        to = self.rng.choice((FIRST, *RELEASES))
        names = sorted(self.rng.sample(sorted(self.world.oracle.served), self.rng.randint(1, 8)))
        self.events.append(f"{step} {to.version} {' '.join(names)}")
        if step == "rollback":
            self.roll_back()
            self._settings_to_take_back()
            return True
        getattr(self, f"_{step.replace(' ', '_').replace('-', '_')}")(to, names)
        self._settings_to_take_back()
        return False

    # --- what a rollback does ------------------------------------------------------------

    def roll_back(self) -> None:
        """Roll back, hold it to the oracle, and roll back once more, which moves no gateway."""
        world, expected = self.world, self._expected()
        unfinished = self._unfinished()
        found = rollback_targets(world.moves(), unfinished, KEPT, world.now)
        if wrong := differences(world.known_good() | expected, world.known_good() | found.targets):
            raise AssertionError(f"a rollback leads to the wrong release: {wrong}")
        for name, to in found.targets.items():
            known = known_good_within(world.trail, KEPT, world.now).get(name, frozenset())
            if to != world.known_good()[name] and to not in known:
                raise AssertionError(f"{name} goes to {to.version}, which is not known-good")
        if not found.targets:
            return
        self._open(ChangeKind.GO_BACK, Outcome.ROLLED_BACK, cause=found.change, by="ana")
        for name, to in found.targets.items():
            self._back(name, to)
            self.hand.pop(name, None)
        self.incomplete = 0
        self._close_lost()
        again = rollback_targets(world.moves(), self._unfinished(), KEPT, world.now)
        if unfinished is None and (world.known_good() | again.targets) != world.known_good():
            raise AssertionError(f"a second rollback goes on: {again.sentence}")

    def _unfinished(self) -> UnfinishedChange | None:
        return unfinished_change(reversed(self.records), lambda one: one.name in self.moved)

    def _expected(self) -> dict[str, ReleaseRef]:
        """Return where gateways have to go, as the oracle knows it."""
        lost = [one for one in self.records if one.outcome is None]
        moved = [one for one in lost if one.name in self.moved]
        if moved:
            return self.world.oracle.undo(moved[-1].number)
        stands = [one.number for one in self.records if one.moved > one.taken_back]
        completes = self.incomplete and self.incomplete > max(stands, default=0)
        return {} if completes else self.world.expected()

    # --- what happens --------------------------------------------------------------------

    def _promote(self, to: ReleaseRef, names: list[str]) -> None:
        self._close_lost()
        self._open(ChangeKind.UPGRADE, Outcome.PROMOTED)
        self._promoted(to, names)

    def _promoted(self, to: ReleaseRef, names: list[str]) -> None:
        moved = [name for name in names if self.world.known_good()[name] != to and name not in self.hand]
        for name in moved:
            self.world.promote(name, to)
        self.records[-1] = self.records[-1].model_copy(update={"moved": len(moved)})

    def _alone(self, to: ReleaseRef, names: list[str]) -> None:
        """Have one gateway fail alone, of the newest promotion or of an older one."""
        del to
        name = self.rng.choice(names)
        last = self.world.oracle.served[name][-1]
        if last.promoted and last.before is not None and not self._has_lost:
            self._open(ChangeKind.GO_BACK, Outcome.ROLLED_BACK, cause=self._name_of(last.turn))
            self._back(name, last.before)

    def _named(self, to: ReleaseRef, names: list[str]) -> None:
        if self._has_lost:
            return
        served = self.world.oracle.served
        able = [n for n in names if to != served[n][-1].release and to in [one.release for one in served[n]]]
        if able:
            cause = rollback_targets(self.world.moves(), self._unfinished(), KEPT, self.world.now).change
            self._open(ChangeKind.GO_BACK, Outcome.ROLLED_BACK, by="ana", cause=cause)
            self.incomplete = 0
            for name in able:
                self._back(name, to)

    def _stray_returns(self, to: ReleaseRef, names: list[str]) -> None:
        del to
        if not self._has_lost:
            self._open(ChangeKind.GO_BACK, Outcome.ROLLED_BACK)
            for name in names:
                self.world.write(name, self.world.known_good()[name], ChangeKind.GO_BACK)

    def _canary_fails(self, to: ReleaseRef, names: list[str]) -> None:
        del to
        self._close_lost()
        self._open(ChangeKind.UPGRADE, Outcome.ROLLED_BACK)
        for name in names:
            self.world.write(name, self.world.known_good()[name], ChangeKind.UPGRADE, back=True)

    def _refused(self, to: ReleaseRef, names: list[str]) -> None:
        del to, names
        self._close_lost()
        self._open(ChangeKind.UPGRADE, self.rng.choice((Outcome.REFUSED, Outcome.ABORTED)))

    def _settings(self, to: ReleaseRef, names: list[str]) -> None:
        del to
        if self._has_lost:
            return
        outcome = self.rng.choice((Outcome.PROMOTED, Outcome.HELD, Outcome.REFUSED))
        self._open(ChangeKind.CONFIGURE, outcome)
        if outcome is not Outcome.REFUSED:
            given = names if outcome is Outcome.HELD else self.world.known_good()
            self.world.oracle.configure(given, self.world.number)

    def _settings_go_back(self, to: ReleaseRef, names: list[str]) -> None:
        """Take the last settings back, once: those before them are not kept."""
        del to, names
        taken = self._settings_to_take_back()
        if taken is not None and not self._has_lost:
            self._open(ChangeKind.CONFIGURE, Outcome.ROLLED_BACK, cause=taken.name, by="ana")
            self.world.oracle.take_settings_back()

    def _settings_to_take_back(self) -> ChangeRecord | None:
        """Return the settings that a rollback of them takes back now, held to the oracle."""
        found = reload_to_take_back(reversed(self.records))
        taken = found if found is not None and found.cause is None else None
        expected, number = self.world.oracle.settings_to_take_back(), taken.number if taken else None
        if number != expected:
            raise AssertionError(f"a rollback of settings takes back those of {number} and not of {expected}")
        return taken

    def _reload(self, to: ReleaseRef, names: list[str]) -> None:
        del to, names
        if not self._has_lost:
            self._open(ChangeKind.RELOAD, Outcome.PROMOTED)

    def _hours(self, to: ReleaseRef, names: list[str]) -> None:
        del to, names
        self.world.now += 9 * HOUR

    def _joins(self, to: ReleaseRef, names: list[str]) -> None:
        del names
        if len(self.world.oracle.served) < 12 and not self._has_lost:
            name = f"gw-{len(self.world.oracle.served) + 1}"
            self._open(ChangeKind.INSTALL, Outcome.PROMOTED)
            self.world.oracle.begin([name], to)
            self.world.write(name, to, ChangeKind.INSTALL)

    def _dies_promoting(self, to: ReleaseRef, names: list[str]) -> None:
        self._close_lost()
        name = self._open(ChangeKind.UPGRADE, None)
        self.moved.add(name)
        self._promoted(to, names[: self.rng.randint(0, len(names))])

    def _dies_on_trial(self, to: ReleaseRef, names: list[str]) -> None:
        del to, names
        self._close_lost()
        self.moved.add(self._open(ChangeKind.UPGRADE, None))

    def _dies_waiting(self, to: ReleaseRef, names: list[str]) -> None:
        del to, names
        self._close_lost()
        self._open(ChangeKind.UPGRADE, None)

    def _rollback_incomplete(self, to: ReleaseRef, names: list[str]) -> None:
        del to, names
        self._close_lost()
        self._open(ChangeKind.UPGRADE, Outcome.ROLLBACK_INCOMPLETE)
        self.incomplete = self.world.number

    def _break_glass(self, to: ReleaseRef, names: list[str]) -> None:
        if to != self.world.known_good()[names[0]]:
            self.hand[names[0]] = to

    def _reconcile(self, to: ReleaseRef, names: list[str]) -> None:
        """Look at what gateways serve: what operators steered is left alone, anything else goes back."""
        known_good = self.world.known_good()
        astray = {name: to for name in names if to != known_good[name] and name not in self.hand}
        states = {name: _state(name, release) for name, release in (known_good | astray).items()}
        states |= {name: _state(name, release, by_hand=True) for name, release in self.hand.items()}
        by_hand = steered_by_hand("edge", states, known_good, ())
        returned = strays(states, known_good).keys() - by_hand.keys()
        steered = {name for name, release in self.hand.items() if release != known_good[name]}
        if returned != astray.keys() or by_hand.keys() != steered:
            raise AssertionError(f"reconcile brings back {sorted(returned)} and not {sorted(astray)}")
        self._close_lost()

    # --- the ledger ------------------------------------------------------------------------

    def _name_of(self, number: int) -> str:
        return next(one.name for one in self.records if one.number == number)

    @property
    def _has_lost(self) -> bool:
        return any(one.outcome is None for one in self.records)

    def _open(
        self, kind: ChangeKind, outcome: Outcome | None, *, cause: str | None = None, by: str = PENSTOCK
    ) -> str:
        self.world.number += 1
        name = self.world.change
        self.records.append(
            ChangeRecord(
                name=name,
                number=self.world.number,
                fleet="edge",
                kind=kind,
                requested_by=by,
                reason="because",
                release="any",
                cause=cause,
                began=self.world.now,
                outcome=outcome,
            )
        )
        return name

    def _back(self, name: str, to: ReleaseRef) -> None:
        """Take a gateway back in the newest change, and count that for the change that promoted it."""
        last = self.world.oracle.served[name][-1]
        for place, one in enumerate(self.records):
            if last.promoted and one.number == last.turn and to != last.release:
                self.records[place] = one.model_copy(update={"taken_back": one.taken_back + 1})
        self.world.take_back(name, to)

    def _close_lost(self) -> None:
        """End lost changes as reconcile does: what they promoted goes back, and their end is written."""
        for place, one in enumerate(self.records):
            if one.outcome is not None:
                continue
            self.records[place] = one.model_copy(update={"outcome": Outcome.ROLLED_BACK})
            before = self.world.oracle.undo(one.number)
            if before:
                self._open(ChangeKind.GO_BACK, Outcome.ROLLED_BACK)
                for name, to in before.items():
                    self._back(name, to)


def _state(name: str, release: ReleaseRef, *, by_hand: bool = False) -> GatewayState:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    one = Instance(
        slot="a",
        state=InstanceState.RUNNING,
        release=release.digest,
        executable=release.executable,
        pid=1,
        started_at=at,
        sessions=0,
    )
    return GatewayState(
        gateway=name,
        instances=(one,),
        steering=Steering(primed=True, serving="a"),
        epoch=1,
        owner=BREAK_GLASS if by_hand else "edge-1",
        observed_at=at + timedelta(hours=1),
    )


def play_pure(sequences: int, first: int) -> PureFound:
    """Play so many histories from that seed on; what is wrong is named with its seed and events."""
    found, began = PureFound(), time.monotonic()
    for seed in range(first, first + sequences):
        rng = random.Random(f"pure {seed}")
        history = History(rng)
        found.sequences += 1
        try:
            for _ in range(rng.randint(FEWEST, MOST)):
                found.rollbacks += history.happens()
                found.events += 1
            history.roll_back()
        except AssertionError as wrong:
            found.wrong_targets.append(f"seed {seed}: {wrong}; {'; '.join(history.events)}")
    found.seconds = round(time.monotonic() - began, 1)
    return found
