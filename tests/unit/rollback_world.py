"""A fleet whose known-good moves at random, and an oracle that knows what each gateway has to go back to.

The oracle follows single gateways: what each one served, how it came to that, and when. It reads no change.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from policies.model.change import ChangeKind, KnownGoodMove
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from policies.rollback import rollback_targets

HOUR = timedelta(hours=1)
KEPT = timedelta(hours=24)
NAMES = ("gw-1", "gw-2", "gw-3", "gw-4")


def release(version: str) -> ReleaseRef:
    return ReleaseRef(
        digest=digest_of(version.encode()), product="ocserv", version=version, executable=digest_of(b"e")
    )


FIRST = release("1.1.6")
RELEASES = tuple(map(release, ("1.3.0", "1.4.0", "1.5.0")))


@dataclass
class Served:
    """What a gateway serves: how it came to that, from what, and when."""

    release: ReleaseRef
    promoted: bool = False
    returned: bool = False
    before: ReleaseRef | None = None
    at: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    turn: int = 0


@dataclass(repr=False)
class World:
    """The facts as a ledger holds them, and beside them what the oracle follows."""

    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    number: int = 1
    trail: list[KnownGoodMove] = field(default_factory=list)
    served: dict[str, list[Served]] = field(default_factory=lambda: {name: [Served(FIRST)] for name in NAMES})

    def __post_init__(self) -> None:
        for name in NAMES:
            self._write(name, FIRST, ChangeKind.INSTALL)

    def __repr__(self) -> str:
        """What happened to each gateway, for a test that fails."""
        moves = (f"{m.gateway} {m.release.version} by {m.kind} {m.number}" for m in self.trail[len(NAMES) :])
        return f"World({'; '.join(moves)})"

    def known_good(self) -> dict[str, ReleaseRef]:
        return {name: trail[-1].release for name, trail in self.served.items()}

    def do(self, step: str, to: ReleaseRef, names: Collection[str]) -> str:
        """Let one thing happen; return the name of its change."""
        self.number += 1
        name_of_change = f"edge-{self.number}"
        if step == "rollback":
            self.number -= 1
            self.roll_back(rollback_targets(self.moves(), None, KEPT, self.now).targets)
        elif step == "hours":
            self.now += 9 * HOUR
        for name in sorted(names):
            self._do_to(name, step, to)
        return name_of_change

    def _do_to(self, name: str, step: str, to: ReleaseRef) -> None:
        trail = self.served[name]
        match step:
            case "promote":
                self._promote(name, to)
            case "alone" if trail[-1].promoted and trail[-1].before is not None:
                self._return(name, trail[-1].before)
            case "named" if to != trail[-1].release and to in [one.release for one in trail]:
                self._return(name, to)
            case "stray returns":
                self._write(name, trail[-1].release, ChangeKind.GO_BACK)
            case "took itself back":
                self._write(name, trail[-1].release, ChangeKind.UPGRADE, back=True)
            case _:
                pass  # nothing of what else happens to a fleet moves known-good

    def roll_back(self, targets: dict[str, ReleaseRef]) -> None:
        if targets:
            self.number += 1
        for name, to in sorted(targets.items()):
            self._return(name, to)

    def moves(self) -> tuple[KnownGoodMove, ...]:
        """Return the last move of each gateway, as the ledger does."""
        last = {move.gateway: move for move in self.trail if move.before != move.release}
        return tuple(last[name] for name in NAMES)

    # --- the oracle ------------------------------------------------------------------------

    def expected(self) -> dict[str, ReleaseRef]:
        """Return where a rollback has to take each gateway: off the release that users met or left last."""
        led = [trail[-1] for trail in self.served.values() if trail[-1].promoted or trail[-1].returned]
        turn = max((one.turn for one in led), default=0)
        bad = [one.release if one.promoted else one.before for one in led if one.turn == turn]
        return {
            name: last.before
            for name, trail in self.served.items()
            if (last := trail[-1]).promoted
            and last.before is not None
            and last.release in bad
            and self.now - last.at <= KEPT
        }

    def taken_back_since_it_was_left(self, name: str, to: ReleaseRef) -> list[ReleaseRef]:
        """Return what the gateway went back from since it had that release last."""
        trail = self.served[name]
        left = max(place for place, one in enumerate(trail) if one.release == to)
        return [one.before for one in trail[left + 1 :] if one.returned and one.before is not None]

    def left_by_promotion(self) -> dict[str, set[ReleaseRef]]:
        found: dict[str, set[ReleaseRef]] = {}
        for name, trail in self.served.items():
            for one in trail:
                if one.promoted and one.before is not None and self.now - one.at <= KEPT:
                    found.setdefault(name, set()).add(one.before)
        return found

    # --- what the ledger is told -----------------------------------------------------------

    def _promote(self, name: str, to: ReleaseRef) -> None:
        before = self.served[name][-1].release
        self._write(name, to, ChangeKind.UPGRADE)
        if before != to:
            self.served[name].append(Served(to, promoted=True, before=before, at=self.now, turn=self.number))

    def _return(self, name: str, to: ReleaseRef) -> None:
        before = self.served[name][-1].release
        self._write(name, to, ChangeKind.GO_BACK)
        self.served[name].append(Served(to, returned=True, before=before, at=self.now, turn=self.number))

    def _write(self, name: str, to: ReleaseRef, kind: ChangeKind, *, back: bool = False) -> None:
        earlier = [move.release for move in self.trail if move.gateway == name]
        self.trail.append(
            KnownGoodMove(
                gateway=name,
                release=to,
                before=earlier[-1] if earlier else None,
                change=f"edge-{self.number}",
                number=self.number,
                kind=kind,
                at=self.now,
                returned=back or kind is ChangeKind.GO_BACK,
            )
        )


STEPS = (
    "promote",
    "promote",
    "rollback",
    "alone",
    "named",
    "stray returns",
    "took itself back",
    "canary",
    "waits",
    "settings",
    "reload",
    "hours",
)


@st.composite
def steps(draw: st.DrawFn) -> World:
    """Return a fleet after any history of up to twelve events."""
    world = World()
    for _ in range(draw(st.integers(0, 12))):
        step, to = draw(st.sampled_from(STEPS)), draw(st.sampled_from((FIRST, *RELEASES)))
        world.do(step, to, draw(st.sets(st.sampled_from(NAMES), min_size=1)))
    return world
