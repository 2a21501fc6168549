"""Recurring upgrades: does one begin now, and why not when none does? The clock only asks."""

from collections.abc import Iterator, Sequence

from policies.model.desired import Pin
from policies.model.fleet import Fleet
from policies.model.plan import ReleaseRef
from policies.model.rollback_progress import how_left
from policies.model.value import Digest, Value
from policies.model.windows import Opening


class OfferedRelease(Value):
    """A release of the fleet's product and channel, as the ledger has it."""

    release: ReleaseRef
    rollback_index: int
    """The order of releases."""
    withdrawn: str | None = None
    """Why it may not be rolled out any more."""


class Due(Value):
    """The release that is started now, and under which key; none, and why, when nothing is."""

    release: ReleaseRef | None = None
    key: str | None = None
    """The same for the whole opening, so that it is started once in it whoever asks how often."""
    sentence: str


class Standing(Value):
    """How the fleet stands, as far as a recurring upgrade depends on it."""

    offered: tuple[OfferedRelease, ...] = ()
    """Every release of its product and channel that the ledger has, withdrawn ones too."""
    on: frozenset[Digest] = frozenset()
    """What gateways have as known-good."""
    pin: Pin | None = None
    """What pins the fleet against the newest of them."""
    unconfirmed: str | None = None
    """Why the fleet is pinned against every release, None where its ledger is whole."""
    under_way: str | None = None
    """The change that goes on."""
    tried: str | None = None
    """The change that was begun in this opening."""


def newest(offered: Sequence[OfferedRelease]) -> OfferedRelease | None:
    """Return the newest release that may be rolled out; None without one."""
    return max(
        (one for one in offered if one.withdrawn is None), key=lambda one: one.rollback_index, default=None
    )


def key_of(fleet: str, opening: Opening) -> str:
    """Return the key under which one change begins in that opening."""
    return f"recurring-{fleet}-{opening.opens:%Y%m%dT%H%M%SZ}"


def due(fleet: Fleet, opening: Opening | None, stands: Standing) -> Due:
    """Return whether an upgrade begins now; `opening` is the one that it is in, None outside of every one."""
    wanted = newest(stands.offered)
    outside = "no window is open" if opening is None else None
    why = outside or next(_in_the_way(fleet, stands, wanted), None)
    if why is not None or wanted is None or opening is None:
        return Due(sentence=why or "nothing is wanted")
    return Due(
        release=wanted.release,
        key=key_of(fleet.name, opening),
        sentence=f"{wanted.release.version} is started by itself",
    )


def outlook(
    fleet: Fleet, opening: Opening | None, stands: Standing, *, refused: str | None, then: str | None
) -> str:
    """Return what begins by itself now or next, or what keeps it, for whoever wonders.

    Args:
        fleet: It asks for recurring upgrades.
        opening: The one that it is in, None outside of every one.
        stands: How the fleet stands.
        refused: Why the last start of this opening was refused, None where none was.
        then: When a window opens next, as people read it; None in one, and where none opens.
    """
    wanted = newest(stands.offered)
    said = next(_in_the_way(fleet, stands, wanted), None)
    if said is None and wanted is not None:
        version = wanted.release.version
        said = f"{version} starts by itself" if refused is None else f"{version} did not start: {refused}"
    if opening is not None or said is None:
        return said or "nothing is wanted"
    return f"{said}; {f'the next window opens {then}' if then else 'no window opens within 400 days'}"


def _in_the_way(fleet: Fleet, stands: Standing, wanted: OfferedRelease | None) -> Iterator[str]:
    """Give why nothing begins now, what counts most first; nothing where an upgrade may begin."""
    if fleet.recurring is None:
        yield f"{fleet.name} has no recurring upgrades"
    if stands.tried is not None:
        yield f"{stands.tried} was begun in this opening already"
    if wanted is None:
        yield _nothing_offered(fleet.channel, stands.offered)
        return
    version = wanted.release.version
    if not stands.on:
        yield f"no gateway of {fleet.name} has a release yet; a person brings them up"
    if stands.under_way is not None:
        yield f"{version} is wanted, and waits for the end of {stands.under_way}"
    if stands.on == {wanted.release.digest}:
        yield f"{version} is every gateway's known-good and the newest of channel {fleet.channel}"
    indexes = {one.release.digest: one.rollback_index for one in stands.offered}
    if any(indexes.get(digest, 0) > wanted.rollback_index for digest in stands.on):
        yield f"the known-good of some gateways is later than {version}, and nothing goes back by itself"
    if stands.unconfirmed is not None:
        yield f"{fleet.name} is pinned against every release: {stands.unconfirmed}"
    if stands.pin is not None:
        left = how_left(stands.pin.by, stands.pin.rollback, "")
        yield f"{fleet.name} is pinned against {version}: {stands.pin.change} {left}"


def _nothing_offered(channel: str, offered: Sequence[OfferedRelease]) -> str:
    if not offered:
        return f"the ledger has no release of channel {channel}"
    newest_one = max(offered, key=lambda one: one.rollback_index)
    return f"every release of channel {channel} was withdrawn, the newest because: {newest_one.withdrawn}"
