"""What each gateway has to serve after several events: an oracle that follows gateways and reads no change.

It is fed with what happened to single gateways. From that alone it names the release that each one
has to be on after a rollback, whatever the ledger, the plans and the workflows did in between.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from policies.model.plan import ReleaseRef

KEPT = timedelta(hours=24)
"""How long a promotion is taken back without a release being named."""

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class Served:
    """What a gateway serves: how it came to that, from what, and when."""

    release: ReleaseRef
    promoted: bool = False
    returned: bool = False
    before: ReleaseRef | None = None
    at: datetime = BEGINNING
    turn: int = 0


@dataclass
class Oracle:
    """The history of each gateway, the newest last."""

    served: dict[str, list[Served]] = field(default_factory=dict)
    settings: dict[str, int] = field(default_factory=dict)
    """The change of settings from which each host has those that it gives to all that it starts."""
    last_settings: int | None = None

    def begin(self, names: Iterable[str], release: ReleaseRef) -> None:
        """Have these gateways begin with a release: there is nothing before it."""
        for name in names:
            self.served[name] = [Served(release)]

    def known_good(self) -> dict[str, ReleaseRef]:
        """Return what each gateway has to be on now."""
        return {name: trail[-1].release for name, trail in self.served.items()}

    def promote(self, name: str, to: ReleaseRef, at: datetime, turn: int) -> None:
        """Have a gateway promoted in that change; to the release that it has already is no change."""
        before = self.served[name][-1].release
        if before != to:
            self.served[name].append(Served(to, promoted=True, before=before, at=at, turn=turn))

    def take_back(self, name: str, to: ReleaseRef, at: datetime, turn: int) -> None:
        """Have a gateway go back to a release in that change; to the release that it has is no change."""
        before = self.served[name][-1].release
        if before != to:
            self.served[name].append(Served(to, returned=True, before=before, at=at, turn=turn))

    def fail_alone(self, name: str, at: datetime, turn: int) -> ReleaseRef:
        """Have one gateway go back from its promotion in that change; return the release of before it."""
        last = self.served[name][-1]
        assert last.promoted
        assert last.before is not None
        self.take_back(name, last.before, at, turn)
        return last.before

    def stands(self, turn: int) -> set[str]:
        """Return the gateways that serve what the change of that number promoted on them."""
        return {name for name, trail in self.served.items() if trail[-1].promoted and trail[-1].turn == turn}

    def is_watched(self, turn: int) -> bool:
        """Return whether the promotion of that number is watched: fewer than half of it went back."""
        of_it = went_back = 0
        for trail in self.served.values():
            places = [place for place, one in enumerate(trail) if one.promoted and one.turn == turn]
            of_it += len(places)
            went_back += sum(after.returned for place in places for after in trail[place + 1 : place + 2])
        return went_back * 2 < of_it

    def undo(self, turn: int) -> dict[str, ReleaseRef]:
        """Return where gateways were before what the change of that number has promoted so far."""
        found = {}
        for name, trail in self.served.items():
            last = trail[-1]
            if last.promoted and last.turn == turn and last.before is not None:
                found[name] = last.before
        return found

    def expected(self, at: datetime, kept: timedelta = KEPT) -> dict[str, ReleaseRef]:
        """Return where a rollback has to take each gateway: off the release that a gateway got last as new.

        A gateway that went back got nothing new then, so it counts by what it had got before that.
        """
        promoted = [one for trail in self.served.values() for one in trail if one.promoted]
        turn = max((one.turn for one in promoted), default=0)
        bad = [one.release for one in promoted if one.turn == turn]
        return {
            name: last.before
            for name, trail in self.served.items()
            if (last := trail[-1]).promoted
            and last.before is not None
            and last.release in bad
            and at - last.at <= kept
        }

    def configure(self, names: Iterable[str], turn: int) -> None:
        """Have these hosts get settings in that change; the others were silent."""
        self.settings |= dict.fromkeys(names, turn)
        self.last_settings = turn

    def settings_to_take_back(self) -> int | None:
        """Return the change of the fleet's last settings where a host still has them."""
        return self.last_settings if self.last_settings in self.settings.values() else None

    def take_settings_back(self) -> None:
        """Have every host that has the last settings get those of before."""
        self.settings = {name: turn for name, turn in self.settings.items() if turn != self.last_settings}

    def taken_back_since_it_was_left(self, name: str, to: ReleaseRef) -> list[ReleaseRef]:
        """Return what the gateway went back from since it had that release last."""
        trail = self.served[name]
        left = max(place for place, one in enumerate(trail) if one.release == to)
        return [one.before for one in trail[left + 1 :] if one.returned and one.before is not None]

    def left_by_promotion(self, at: datetime, kept: timedelta = KEPT) -> dict[str, set[ReleaseRef]]:
        """Return what promotions of the kept window replaced, and no rollback has left since."""
        found: dict[str, set[ReleaseRef]] = {}
        for name, trail in self.served.items():
            for one in trail:
                if one.promoted and one.before is not None and at - one.at <= kept:
                    found.setdefault(name, set()).add(one.before)
                elif one.returned and one.before is not None:
                    found.get(name, set()).discard(one.before)
        return found


def differences(expected: Mapping[str, ReleaseRef], found: Mapping[str, ReleaseRef]) -> dict[str, str]:
    """Return each gateway that is not where it has to be, in words."""
    names = sorted(expected.keys() | found.keys())

    def version(of: Mapping[str, ReleaseRef], name: str) -> str:
        return of[name].version if name in of else "nothing"

    return {
        name: f"{version(found, name)} instead of {version(expected, name)}"
        for name in names
        if found.get(name) != expected.get(name)
    }
