"""A fleet whose known-good moves at random, and an oracle that knows what each gateway has to go back to.

The oracle, `tests.moments.oracle`, follows single gateways.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import strategies as st

from policies.model.change import ChangeKind, KnownGoodMove
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from policies.rollback import rollback_targets
from tests.moments.oracle import BEGINNING, KEPT, Oracle

HOUR = timedelta(hours=1)
NAMES = ("gw-1", "gw-2", "gw-3", "gw-4")


def release(version: str) -> ReleaseRef:
    return ReleaseRef(
        digest=digest_of(version.encode()), product="ocserv", version=version, executable=digest_of(b"e")
    )


FIRST = release("1.1.6")
RELEASES = tuple(map(release, ("1.3.0", "1.4.0", "1.5.0")))


@dataclass(repr=False)
class World:
    """The facts as a ledger holds them, and beside them what the oracle follows."""

    names: tuple[str, ...] = NAMES
    now: datetime = BEGINNING
    number: int = 1
    trail: list[KnownGoodMove] = field(default_factory=list)
    oracle: Oracle = field(default_factory=Oracle)

    def __post_init__(self) -> None:
        self.oracle.begin(self.names, FIRST)
        for name in self.names:
            self.write(name, FIRST, ChangeKind.INSTALL)

    def __repr__(self) -> str:
        """What happened to each gateway, for a test that fails."""
        moves = (f"{m.gateway} {m.release.version} by {m.kind} {m.number}" for m in self.trail)
        return f"World({'; '.join(moves)})"

    @property
    def change(self) -> str:
        """The name of the newest change."""
        return f"edge-{self.number}"

    def known_good(self) -> dict[str, ReleaseRef]:
        return self.oracle.known_good()

    def expected(self) -> dict[str, ReleaseRef]:
        """Return where a rollback has to take each gateway, as the oracle knows it."""
        return self.oracle.expected(self.now)

    def do(self, step: str, to: ReleaseRef, names: Collection[str]) -> str:
        """Let one thing happen; return the name of its change."""
        self.number += 1
        name_of_change = self.change
        if step == "rollback":
            self.number -= 1
            self.roll_back(rollback_targets(self.moves(), None, KEPT, self.now).targets)
        elif step == "hours":
            self.now += 9 * HOUR
        for name in sorted(names):
            self._do_to(name, step, to)
        return name_of_change

    def _do_to(self, name: str, step: str, to: ReleaseRef) -> None:
        trail = self.oracle.served[name]
        match step:
            case "promote":
                self.promote(name, to)
            case "alone" if trail[-1].promoted and trail[-1].before is not None:
                self.take_back(name, trail[-1].before)
            case "named" if to != trail[-1].release and to in [one.release for one in trail]:
                self.take_back(name, to)
            case "stray returns":
                self.write(name, trail[-1].release, ChangeKind.GO_BACK)
            case "took itself back":
                self.write(name, trail[-1].release, ChangeKind.UPGRADE, back=True)
            case _:
                pass  # nothing of what else happens to a fleet moves known-good

    def roll_back(self, targets: Mapping[str, ReleaseRef]) -> None:
        """Take gateways back in a change of its own."""
        if targets:
            self.number += 1
        for name, to in sorted(targets.items()):
            self.take_back(name, to)

    def promote(self, name: str, to: ReleaseRef) -> None:
        """Promote a gateway in the newest change."""
        self.write(name, to, ChangeKind.UPGRADE)
        self.oracle.promote(name, to, self.now, self.number)

    def take_back(self, name: str, to: ReleaseRef) -> None:
        """Take a gateway back in the newest change."""
        self.write(name, to, ChangeKind.GO_BACK)
        self.oracle.take_back(name, to, self.now, self.number)

    def moves(self) -> tuple[KnownGoodMove, ...]:
        """Return the last move of each gateway, as the ledger does."""
        last = {move.gateway: move for move in self.trail if move.before != move.release}
        left = {move.gateway: move.promotion for move in self.trail if move.is_promotion}
        found = (last[name] for name in sorted(last))
        return tuple(
            one.model_copy(update={"left": left.get(one.gateway)}) if one.returned else one for one in found
        )

    def write(self, name: str, to: ReleaseRef, kind: ChangeKind, *, back: bool = False) -> None:
        """Write a move of known-good down as the ledger does."""
        earlier = [move.release for move in self.trail if move.gateway == name]
        self.trail.append(
            KnownGoodMove(
                gateway=name,
                release=to,
                before=earlier[-1] if earlier else None,
                change=self.change,
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
