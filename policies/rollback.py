"""Decide what a rollback takes back, from facts, and whether a second operator confirms it.

The facts are the known-good of each gateway, what it was before and when it moved. What changes were called
and what happened since does not count: a change that only waited, a failed canary, new settings. A rollback
to known-good never waits. What needs a yes is in the fleet's `rollback` section: another release than
known-good, and, where the policy says so, a whole group at once.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from policies.model.adoption import ADOPTED
from policies.model.change import (
    ChangeKind,
    ChangeRecord,
    KnownGoodMove,
    RollbackTargets,
    UnfinishedChange,
)
from policies.model.errors import BadInput, Refused
from policies.model.fleet import Fleet
from policies.model.instance import GatewayState, InstanceState
from policies.model.offer import Offer, Verb
from policies.model.plan import ReleaseRef
from policies.model.value import Digest
from policies.planning.naming import named

NOBODY: Mapping[str, ReleaseRef] = MappingProxyType({})


class Takes(NamedTuple):
    """Which release takes new sessions on a gateway by its own word, and when it was asked.

    It is empty where nobody knows the release, and None where nothing alive takes any or nobody answered.
    """

    release: str | None
    at: datetime


def rollback_targets(
    moves: Collection[KnownGoodMove],
    unfinished: UnfinishedChange | None,
    kept: timedelta,
    at: datetime,
    *,
    by_hand: Collection[str] = (),
    astray: Mapping[str, ReleaseRef] = NOBODY,
    silent: Collection[str] = (),
    unknown: Collection[str] = (),
    as_steered: Collection[str] = (),
) -> RollbackTargets:
    """Return what a rollback of the release does now.

    A change that has not ended is taken back first, as a whole; one that has moved no session only ends.
    Otherwise the release that was promoted last is taken back on every gateway that still has it by a
    promotion within the kept window, whichever changes promoted it there. A gateway that went back already
    stays: twice is the same as once, and a rollback to what was before that names the release. A return
    counts as the promotion that it left: that of a gateway of an older promotion never hides a newer one. A
    gateway that an operator steered on its host stays, too, unless something is taken back from it, or
    nothing is left to take back: then each gateway that is not on its known-good goes there.

    Args:
        moves: The last move of each gateway's known-good.
        unfinished: The change that has not ended, or not well, None without one.
        kept: How long a promotion is taken back without naming a release.
        at: Now.
        by_hand: The gateways that operators steered on their hosts.
        astray: Those that are not on their known-good by their own word (`not_on_known_good`), with that.
        silent: Those that do not say what serves there.
        unknown: Those that changes steered which the ledger does not know: they stay as they are.
        as_steered: Those of which only the operators who steered them on their hosts know what they serve.
    """
    goes = astray if unfinished is None else NOBODY
    standing = _standing(moves, kept, at, goes, silent, unknown, as_steered, astray)
    moves = [move for move in moves if move.gateway not in unknown]
    if unfinished is None:
        return standing
    if unfinished.moved or not standing.targets:
        own = {move.gateway for move in moves if move.change == unfinished.change}
        before = {name: to for name, to in standing.targets.items() if name not in own}
        return _completed(moves, unfinished, by_hand, before)
    everybody = {move.gateway: move.release for move in moves if move.gateway not in by_hand}
    everybody |= standing.targets
    sentence = f"{unfinished.change} has moved no session and ends; {standing.sentence}"
    sentence += _stay_by_hand(sorted(move.gateway for move in moves if move.gateway not in everybody))
    return standing.model_copy(update={"targets": everybody, "sentence": sentence})


def beyond(
    moves: Collection[KnownGoodMove],
    way_back: ChangeRecord,
    kept: timedelta,
    at: datetime,
    *,
    not_back: Collection[str] = (),
    silent: Collection[str] = (),
    elsewhere: Collection[str] = (),
) -> RollbackTargets:
    """Return what a rollback takes back beside a way back that only waits for gateways which are not back.

    That is the release that this one leaves, on gateways of other promotions, or one that was promoted later.
    A release under that one stays: whoever asks twice for the same rollback goes no release too far.

    Args:
        moves: The last move of each gateway's known-good.
        way_back: The change that goes back.
        kept: How long a promotion is taken back without naming a release.
        at: Now.
        not_back: The gateways that it waits for.
        silent: Those that do not say what serves there.
        elsewhere: Those that serve another release than their known-good by their own word.
    """
    standing = _standing(moves, kept, at)
    if not standing.targets and standing.needs_name is None:
        found = ": ".join(
            filter(
                None, ("no other promotion can be taken back", serving(moves, silent, elsewhere, not_back))
            )
        )
        return RollbackTargets(sentence=found)
    of = [one for move in moves if move.change == way_back.name and (one := move.promotion) is not None]
    left = {one.release.digest for one in of}
    if way_back.kind is ChangeKind.UPGRADE:
        left.add(way_back.release_digest or "")
    has = {move.gateway: move for move in moves}
    is_newer = max((has[name].number for name in standing.targets), default=0) > max(
        (one.number for one in of), default=way_back.number
    )
    if is_newer or all(has[name].release.digest in left for name in standing.targets):
        return standing
    stay = [has[name] for name in sorted(standing.targets)]
    versions = named(sorted({move.release.version for move in stay}))
    again = f"another rollback after it takes {versions} back{_or_at_once(standing.targets)}"
    return RollbackTargets(sentence=f"{serving(stay, silent, elsewhere, not_back)}; {again}")


def _or_at_once(targets: Mapping[str, ReleaseRef]) -> str:
    """Return that a rollback by name waits for nothing, where one name is enough."""
    names = {release.version for release in targets.values()}
    return f", and one by name (--to {names.pop()}) does so at once" if len(names) == 1 else ""


def not_on_known_good(
    moves: Iterable[KnownGoodMove], takes: Mapping[str, Takes], departed: Collection[str]
) -> dict[str, ReleaseRef]:
    """Return the gateways whose new sessions go elsewhere by their own word, with their known-good.

    What a gateway said before its known-good moved counts for nothing. Nobody asks one that left the fleet's
    file any more: where a rollback went without it, it counts as long as it has not said that it is back.
    """
    found = {}
    for move in moves:
        said = _said_since(move, takes)
        on = said.release if said is not None else None
        if on == move.release.digest:
            continue
        if on is not None or (move.gateway in departed and move.returned):
            found[move.gateway] = move.release
    return found


def served_elsewhere(moves: Iterable[KnownGoodMove], takes: Mapping[str, Takes]) -> set[str]:
    """Return the gateways that serve another release than their known-good by their own word."""
    return {
        name
        for name in not_on_known_good(moves, takes, ())
        if takes[name].release  # an unknown one may be its known-good
    }


def silent_since(moves: Iterable[KnownGoodMove], takes: Mapping[str, Takes], since: datetime) -> set[str]:
    """Return the gateways that do not say what serves there.

    They were asked after their known-good moved and did not answer, or neither has happened `since` then.
    """
    found = set()
    for move in moves:
        said = _said_since(move, takes)
        if (said is not None and said.release is None) or (said.at if said is not None else move.at) < since:
            found.add(move.gateway)
    return found


def _said_since(move: KnownGoodMove, takes: Mapping[str, Takes]) -> Takes | None:
    """Return what the gateway said after its known-good moved, None for nothing."""
    said = takes.get(move.gateway)
    return said if said is not None and said.at > move.at else None


def _standing(
    moves: Collection[KnownGoodMove],
    kept: timedelta,
    at: datetime,
    astray: Mapping[str, ReleaseRef] = NOBODY,
    silent: Collection[str] = (),
    unknown: Collection[str] = (),
    as_steered: Collection[str] = (),
    elsewhere: Collection[str] = (),
) -> RollbackTargets:
    """Return what a rollback takes back where every change has ended well."""
    promotions = [promoted for move in moves if (promoted := move.promotion) is not None]
    last = max((promoted.number for promoted in promotions), default=0)
    left = {promoted.release.digest for promoted in promotions if promoted.number == last}
    # A gateway that stays as it is counts for which release was promoted last, and is not taken along.
    moves = [move for move in moves if move.gateway not in unknown]
    same = [move for move in moves if move.is_promotion and move.release.digest in left]
    within = [move for move in same if at - move.at <= kept]
    if not same and astray:
        one = len(astray) == 1
        say = "does not say that it is" if one else "do not say that they are"
        goes = f"{say} on known-good, and {'goes' if one else 'go'} there: {will_serve(astray)}"
        sentence = f"{named(sorted(astray))} {goes}{were_steered(astray.keys() & {*as_steered})}"
        return RollbackTargets(targets=dict(astray), sentence=sentence)
    if not same:
        return RollbackTargets(sentence=_nothing(moves, silent, as_steered, elsewhere))
    newest = max(same, key=lambda move: move.number)
    if not within:
        sentence = (
            f"{newest.change} promoted {newest.release.version} before the kept window of {kept}: name the "
            "release to go back to"
        )
        return RollbackTargets(change=newest.change, needs_name=newest.before, sentence=sentence)
    changes = dict.fromkeys(move.change for move in sorted(within, key=lambda move: -move.number))
    targets = {move.gateway: move.before for move in within if move.before is not None}
    stay = sorted(
        move.gateway for move in moves if move.release.digest in left and move.gateway not in targets
    )
    sentence = (
        f"{newest.release.version}, promoted by {named(list(changes))}, is taken back: {will_serve(targets)}"
    )
    if stay:
        they = "stays" if len(stay) == 1 else "stay"
        sentence += f"; {named(stay)} had no other release within the kept window of {kept} and {they} on it"
    return RollbackTargets(change=newest.change, targets=targets, sentence=sentence)


def targets_of_unfinished(
    moves: Iterable[KnownGoodMove], change: str, takes_back: str | None = None
) -> dict[str, ReleaseRef]:
    """Return where each gateway is once a change that has not ended is taken back, or its rollback completed.

    Known-good that the change, or the promotion that it `takes_back`, has moved is what it was before; every
    other gateway has its known-good.
    """
    return {
        move.gateway: move.before
        if move.before is not None and not move.returned and move.change in {change, takes_back}
        else move.release
        for move in moves
    }


def will_serve(targets: Mapping[str, ReleaseRef]) -> str:
    """Return which release each gateway is to serve: `gw-1, gw-2 will serve 1.1.6; gw-3 will serve 1.3.0`."""
    return _by_release(targets, one="will serve", several="will serve")


def _by_release(releases: Mapping[str, ReleaseRef], *, one: str, several: str) -> str:
    """Return the gateways of each release with a verb between, the largest group first."""
    by_release = defaultdict[str, list[str]](list)
    for gateway, release in sorted(releases.items()):
        by_release[release.version].append(gateway)
    return "; ".join(
        f"{named(gateways)} {one if len(gateways) == 1 else several} {version}"
        for version, gateways in sorted(by_release.items(), key=lambda group: (-len(group[1]), group[0]))
    )


def known_good_within(
    moves: Iterable[KnownGoodMove], kept: timedelta, at: datetime
) -> dict[str, frozenset[ReleaseRef]]:
    """Return what each gateway had before its promotions of the kept window: that counts as known-good.

    A release from which the gateway went back since does not. `moves` are all moves of that time, the oldest
    first, not only each gateway's last.
    """
    found = defaultdict[str, set[ReleaseRef]](set)
    for move in moves:
        if move.before is None or move.before == move.release:
            continue
        if move.returned:
            found[move.gateway].discard(move.before)
        elif move.is_promotion and at - move.at <= kept:
            found[move.gateway].add(move.before)
    return {gateway: frozenset(releases) for gateway, releases in found.items()}


def _completed(
    moves: Collection[KnownGoodMove],
    unfinished: UnfinishedChange,
    by_hand: Collection[str],
    standing: Mapping[str, ReleaseRef],
) -> RollbackTargets:
    targets = targets_of_unfinished(moves, unfinished.change, unfinished.takes_back)
    known_good = {move.gateway: move.release for move in moves}
    stay = sorted(name for name in by_hand if name in targets and targets[name] == known_good[name])
    targets = {name: release for name, release in targets.items() if name not in stay}
    how = "has an incomplete rollback" if unfinished.ended else "has not ended"
    sentence = f"{unfinished.change} {how}, which is completed first"
    if targets:
        sentence += f": {will_serve(targets)}"
    if standing and unfinished.takes_back is None:
        sentence += f"; another rollback takes back what was promoted before it{_or_at_once(standing)}"
    if not targets and not stay:
        sentence = f"{unfinished.change} {how}, and no gateway has a known-good"
    return RollbackTargets(
        change=unfinished.takes_back or unfinished.change,
        finished=False,
        targets=targets,
        sentence=sentence + _stay_by_hand(stay),
    )


def _stay_by_hand(stay: Sequence[str]) -> str:
    if not stay:
        return ""
    if len(stay) == 1:
        return f"; {stay[0]} stays as an operator steered it on its host"
    return f"; {named(stay)} stay as operators steered them on their hosts"


def were_steered(gateways: Collection[str]) -> str:
    """Return what is said of gateways that a rollback takes along although operators steered them."""
    if not gateways:
        return ""
    return f"; {named(sorted(gateways))} {'was' if len(gateways) == 1 else 'were'} steered by break-glass"


def serving(
    moves: Collection[KnownGoodMove],
    silent: Collection[str],
    elsewhere: Collection[str],
    not_back: Collection[str] = (),
) -> str:
    """Return what every gateway serves, and of which ones that is not known; empty without gateways.

    A gateway that answered serves its known-good unless it is one of those `elsewhere`.
    """
    has = {move.gateway: move.release for move in moves}
    waited_for = sorted(has.keys() & {*not_back})
    unsaid = sorted(has.keys() & {*silent} - {*not_back})
    other = {name: has[name] for name in has.keys() & {*elsewhere} - {*waited_for, *unsaid}}
    known = {name: release for name, release in has.items() if name not in {*waited_for, *unsaid, *other}}
    return "; ".join(
        filter(
            None,
            (
                _by_release(known, one="serves", several="serve"),
                _by_release(
                    other,
                    one="serves another release than its known-good",
                    several="serve other releases than their known-good",
                ),
                f"{named(unsaid)} {_do(unsaid)} not say what serves there" if unsaid else "",
                f"{named(waited_for)} {'is' if len(waited_for) == 1 else 'are'} not back"
                if waited_for
                else "",
            ),
        )
    )


def stays_on(moves: Iterable[KnownGoodMove], takes: Mapping[str, Takes], versions: Mapping[str, str]) -> str:
    """Return what gateways stay on that a rollback does not touch, by their own word; empty without any.

    `versions` are those of releases by digest.
    """
    on = defaultdict[str, list[str]](list)
    for move in sorted(moves, key=lambda move: move.gateway):
        said = _said_since(move, takes)
        if said is None or said.release is None:
            serves = "as it is, and does not say what serves there"
        else:
            serves = f"on {versions.get(said.release, 'a release that is not known')}"
        on[serves].append(move.gateway)
    return "; ".join(
        f"{named(gateways)} {'is' if len(gateways) == 1 else 'are'} not taken along and "
        f"{'stays' if len(gateways) == 1 else 'stay'} {serves}"
        for serves, gateways in on.items()
    )


def _do(names: Collection[str]) -> str:
    return "does" if len(names) == 1 else "do"


def on_it_already(
    fleet: str,
    to: ReleaseRef,
    moves: Iterable[KnownGoodMove],
    silent: Collection[str],
    elsewhere: Collection[str] = (),
) -> str:
    """Return that no gateway goes to the release, and which ones of those that have it say that they do."""
    has = [move for move in moves if move.release == to]
    if not {move.gateway for move in has} & {*silent, *elsewhere}:
        return f"{fleet} is on {to.version} already"
    return f"known-good of {fleet} is {to.version} already: {serving(has, silent, elsewhere)}"


def _nothing(
    moves: Collection[KnownGoodMove],
    silent: Collection[str],
    as_steered: Collection[str],
    elsewhere: Collection[str],
) -> str:
    """Return why there is nothing to take back, what every gateway serves, and who does not say so."""
    returned = [move for move in moves if move.returned]
    stay = sorted({move.gateway for move in moves} & {*as_steered})
    serves = serving([move for move in moves if move.gateway not in stay], silent, elsewhere)
    serves = (serves + _stay_by_hand(stay)).removeprefix("; ")
    if returned:
        last = max(returned, key=lambda move: (move.left.number if move.left else 0, move.number))
        if last.by_name:
            went = f"{last.change} took gateways to {last.release.version}, which was named"
            return f"no promotion can be taken back since {went}: {serves}"
        return f"{last.change} went back already: {serves}; name the release to go back further"
    if moves:
        return f"no promotion can be taken back: {serves}"
    return "no change that could be taken back has been promoted"


def confirmation_of(
    fleet: Fleet,
    targets: Mapping[str, ReleaseRef],
    known_good: Mapping[str, ReleaseRef],
    before: Mapping[str, Collection[ReleaseRef]],
    pin: str | None = None,
) -> str | None:
    """Return what a second operator has to approve first, None when the rollback begins at once.

    A gateway that goes to the known-good that it has never waits.

    Args:
        fleet: Whose rules count.
        targets: Where gateways are to go.
        known_good: What each gateway has now.
        before: What each had before its promotions of the kept window, which is known-good, too.
        pin: That the fleet went back from the release that is named, which is known-good of nobody then.
    """
    rules, reasons = fleet.rollback, []
    going = {name for name, to in targets.items() if to != known_good.get(name)}
    others = sorted(name for name in going if pin or targets[name] not in before.get(name, ()))
    if others and rules.confirm_other_release:
        version = targets[others[0]].version
        why = f": {pin}" if pin else ""
        reasons.append(f"{version} is not the known-good of {named(others)}{why}")
    whole = [group for group, members in fleet.groups.items() if {g.name for g in members} <= going]
    if whole and rules.confirm_whole_group:
        reasons.append(f"every gateway of {named(sorted(whole))} goes back at once")
    return "; ".join(reasons) or None


def targets_of(
    release: ReleaseRef, proven: Mapping[str, Collection[ReleaseRef]], known_good: Mapping[str, ReleaseRef]
) -> dict[str, ReleaseRef]:
    """Return the gateways that can go back to the release and are not on it.

    Raises:
        Refused: The release was never promoted on any of them, so that going there is an upgrade.
    """
    able = [name for name, releases in sorted(proven.items()) if release in releases]
    if not able:
        never = f"{release.product} {release.version} was never known-good here, so this is no way back"
        raise Refused(f"{never}; an upgrade can bring it", Offer(verb=Verb.START, release=release.version))
    return {name: release for name in able if known_good.get(name) != release}


def kept_slot(state: GatewayState, known_good: Digest | None = None) -> str:
    """Return the slot that a gateway's new sessions went to before: the way back that is left on its host.

    Args:
        state: What runs there, and what serves.
        known_good: The release that the host itself knows as good; None where it knows none.

    Raises:
        BadInput: No other instance runs, or several do.
        Refused: No release is on trial, and what serves is known-good or was adopted.
    """
    steering = state.steering
    if steering.trial is not None and steering.serving is not None:
        return steering.serving
    running = [one for one in state.instances if one.state is InstanceState.RUNNING]
    others = sorted(one.slot for one in running if one.slot != steering.serving)
    if len(others) == 1:
        _require_other_serves(state, known_good, others[0])
        return others[0]
    if not others:
        raise BadInput(f"no other instance runs on {state.gateway}, so there is nothing to go back to")
    raise BadInput(f"{state.gateway} runs {', '.join(others)} beside what serves: name the slot with --slot")


def _require_other_serves(state: GatewayState, known_good: Digest | None, other: str) -> None:
    """Return if what serves, without a trial, is neither the host's known-good nor what was adopted."""
    serving = state.steering.serving
    if serving is None:
        return
    release = state.instance(serving).release
    if serving != ADOPTED and (release is None or release != known_good):
        return
    good = "the daemon that was adopted" if serving == ADOPTED else f"its known-good {(release or '')[:19]}"
    raise Refused(
        f"{state.gateway} serves slot {serving}, {good}, and no release is on trial: nothing was changed. To "
        f"leave it for slot {other} nonetheless, type --slot {other} instead of --back"
    )
