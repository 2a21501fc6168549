"""Read from gateways what a ledger has lost: what they serve for good, and which changes they know of.

A gateway that was last steered by a change that the ledger does not know is left alone: what the ledger
calls its known-good is no reason to move it. When so many say so that no thief of a few hosts could, the
ledger is an older copy, or another installation's, and what it says of silent ones counts for nothing either.
A number that no ledger can have lost says nothing of the ledger: it is the word of that one host.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from policies.model.instance import GatewayState, InstanceState
from policies.model.offer import Offer, Verb
from policies.model.value import Digest, Value
from policies.planning.naming import named

ON_THE_HOST = (
    "penstock agent break-glass --config /etc/penstock/agent.yaml --back --reason TEXT, or --slot SLOT "
    "instead of --back where it refuses"
)
"""Brings one gateway back to the instance that its users went to before, and needs no ledger."""

GAP = 100
"""Numbers are taken up at the next multiple: a host may know of a change that no table names any more."""


FEW = 10
"""Fewer than one in so many gateways, and one in any case, may be lying hosts."""

MOST_LOST = 1_000_000
"""Changes that a ledger which knows some may have lost; a host that speaks of a later one is not believed."""

LARGEST = 10**9 - 1
"""The last number that a ledger which knows none takes from a host; the table has room for twice as many."""


TO_REPEAT = (
    "revoked gateways: penstock gateway revoke",
    "withdrawn releases: penstock release yank",
    "revoked tokens: penstock token revoke",
    "unlinked chat accounts: penstock chat unlink",
    "quarantines: penstock gateway quarantine",
    "freezes, added or imported: penstock window freeze add",
    "pins, of releases that were rolled back: penstock release yank, or name another in upgrade.yaml",
)
"""Restrictions that only the ledger holds, each with the command by which an operator repeats it."""


_NUMBERED = r"(.+)-([0-9]{1,10})"


class Ahead(Value):
    """What is reported of gateways that changes steered which the ledger does not know, and what helps."""

    sentence: str
    is_older: bool
    """Whether they are so many that the ledger is an older copy. A few of many may be lying hosts."""
    next: tuple[Offer, ...]


def served_for_good(state: GatewayState) -> Digest | None:
    """Return the release that a gateway falls back to when a trial ends; None where nothing known runs."""
    if state.steering.serving is None:
        return None
    instance = state.instance(state.steering.serving)
    known = instance.state is InstanceState.RUNNING and instance.executable is not None
    return instance.release if known else None


def highest_heard(fleet: str, states: Iterable[GatewayState], newest: int) -> int:
    """Return the number of the newest change that a gateway of the fleet was steered by; 0 without any.

    `newest` is that of the ledger's newest change: numbers that are too far from it are a liar's.
    """
    heard = (steered_by(fleet, state) for state in states)
    return max((number for number in heard if number is not None and can_be_lost(number, newest)), default=0)


def can_be_lost(number: int, newest: int) -> bool:
    """Return whether a ledger whose newest change is `newest` can have lost a change of that number."""
    return number <= (newest + MOST_LOST if newest else LARGEST)


def number_above(heard: int) -> int:
    """Return a number that no change has had, when this is the newest that gateways have heard of."""
    return (heard // GAP + 1) * GAP


def knows_all(newest: int, heard: int) -> bool:
    """Return whether a ledger whose newest change has this number knows every one that gateways heard of."""
    return 0 < newest >= heard


def steered_by(fleet: str, state: GatewayState) -> int | None:
    """Return the number of the change that wrote the gateway's steering table last."""
    found = re.fullmatch(rf"{re.escape(fleet)}-([0-9]{{1,10}})/.*", state.steering.generation)
    return int(found[1]) if found is not None else None


def later_than(fleet: str, states: Mapping[str, GatewayState], newest: int) -> dict[str, int]:
    """Return which gateways were steered by changes after the newest of the ledger, with their numbers."""
    found = {name: steered_by(fleet, state) for name, state in states.items()}
    return {name: number for name, number in found.items() if number is not None and number > newest}


def ahead(fleet: str, states: Mapping[str, GatewayState], newest: int) -> dict[str, str]:
    """Return which gateways were steered by changes after the newest of the ledger, each with by which."""
    later = later_than(fleet, states, newest)
    return {name: _steered_by(fleet, number, newest) for name, number in later.items()}


def _steered_by(fleet: str, number: int, newest: int) -> str:
    why = "of which the ledger knows nothing"
    if not can_be_lost(number, newest):
        why = "and there can be no change of that number"
    return f"was last steered by {fleet}-{number}, {why}"


def what_is_ahead(fleet: str, later: Mapping[str, int], newest: int, answered: int) -> Ahead | None:
    """Return what is reported of the gateways that `later_than` has found, None for none.

    Args:
        fleet: Whose gateways.
        later: The number of the change that steered each of them.
        newest: That of the ledger's newest change.
        answered: How many gateways of the fleet answered, these among them.
    """
    if not later:
        return None
    said = {name: _steered_by(fleet, number, newest) for name, number in later.items()}
    lost = {name: said[name] for name, number in later.items() if can_be_lost(number, newest)}
    false = {name: said[name] for name in said.keys() - lost.keys()}
    older = is_older(lost, answered)
    found, offers = [], list[Offer]()
    if lost:
        found.append(older_than_gateways(lost) if older else _first_of(lost))
        offers.append(Offer(verb=Verb.REBUILD, fleet=fleet))
    if false:
        found.append(f"{_first_of(false)}; check who controls its host")
    if not older:
        leave_out = Offer(verb=Verb.QUARANTINE, fleet=fleet, gateway=min(false or lost))
        offers.append(leave_out.model_copy(update={"note": "if its host lies"}) if lost else leave_out)
    found.append(f"no upgrade takes {'it' if len(later) == 1 else 'them'} along")
    return Ahead(sentence="; ".join(found), is_older=older, next=tuple(offers))


def cannot_say(why: str) -> str:
    """Return that a rollback does not know what to go back to, and what helps at once and for good."""
    return (
        f"{why}. The ledger cannot say what to go back to. A bad release that serves is left at once, as "
        f"root on each gateway's host: {ON_THE_HOST}. Then restore a newer backup of the ledger, or rebuild "
        "it: what serves by then becomes known-good. Runbooks: ledger-restore, ledger-lost"
    )


def became_known_good(change: str) -> str:
    """Return what a rollback cannot undo since the ledger was rebuilt by the change, and how to leave it."""
    return (
        f"{change} rebuilt the ledger, so what served by then became known-good, good or bad. A bad release "
        "is left by an upgrade to a newer one, or at once, while an older instance still runs, as root on "
        f"each gateway's host: {ON_THE_HOST}"
    )


def unknown_here(fleet: str, serving: Collection[str], silent: Collection[str]) -> str | None:
    """Return why a ledger without any known-good of the fleet may have lost it; None where nothing serves."""
    found = []
    if serving:
        found.append(f"{named(sorted(serving))} {'serves' if len(serving) == 1 else 'serve'} a release")
    if silent:
        have = "has" if len(silent) == 1 else "have"
        found.append(f"{named(sorted(silent))} {have} not said what serves there")
    if not found:
        return None
    return f"the ledger has no known-good of {fleet}, and {' and '.join(found)}"


def stay_unknown(unknown: Mapping[str, str]) -> str:
    """Return that a rollback leaves these gateways, of those that `ahead` has found, as they are, and why."""
    stay = f"{named(sorted(unknown))} stay as they are, since {_first_of(unknown)}"
    if len(unknown) == 1:
        ((name, why),) = unknown.items()
        stay = f"{name} stays as it is, since it {why}"
    return f"{stay}; penstock doctor names the command that helps"


def is_older(unknown: Collection[str], answered: int) -> bool:
    """Return whether so many of those that answered are ahead that it is the ledger which is behind."""
    return bool(unknown) and len(unknown) >= min(answered, max(2, answered // FEW))


def older_than_gateways(unknown: Mapping[str, str]) -> str:
    """Return the sentence for what `ahead` has found; it names the first gateway and counts the others."""
    return f"the ledger is older than its gateways: {_first_of(unknown)}"


def _first_of(unknown: Mapping[str, str]) -> str:
    name, why = min(unknown.items())
    more = f", and {len(unknown) - 1} more were" if len(unknown) > 1 else ""
    return f"{name} {why}{more}"


def is_newer(change: str, than: str) -> bool:
    """Return whether the change began after that other one of its fleet; False where that cannot be told."""
    later, earlier = re.fullmatch(_NUMBERED, change), re.fullmatch(_NUMBERED, than)
    if later is None or earlier is None or later[1] != earlier[1]:
        return False
    return int(later[2]) > int(earlier[2])


class UnconfirmedLedger(Value):
    """A ledger that was restored or rebuilt for a fleet, and that no operator has confirmed since."""

    at: datetime
    """When it was restored or rebuilt."""
    backup: datetime | None = None
    """When the backup was made that was restored."""
    change: str | None = None
    """The change that rebuilt it, None where it was restored."""


def nothing_starts(ledger: UnconfirmedLedger) -> str:
    """Return why no machine starts anything on a fleet, and what an operator does about it."""
    at = f"{ledger.at:%Y-%m-%d %H:%M} UTC"
    how = f"the ledger was rebuilt at {at} by {ledger.change}"
    if ledger.backup is not None:
        how = f"the ledger was restored at {at} from a backup of {ledger.backup:%Y-%m-%d %H:%M} UTC"
    return (
        f"{how}, and may lack rollbacks, freezes and withdrawals. Files, schedules and machines start "
        "nothing until an operator has repeated these and confirms it. Runbook: ledger-restore"
    )


def orders_to_repeat(fleet: str = "FLEET") -> tuple[str, ...]:
    """Return what operators do after a ledger was restored or rebuilt, a line each, in this order."""
    return (
        "The ledger may lack restrictions that were ordered before it was lost. Repeat them:",
        *(f"  {one}" for one in TO_REPEAT),
        "Until an operator confirms that, files, schedules and machines start nothing on a fleet:",
        f"  penstock unpin {fleet} --reason TEXT",
    )
