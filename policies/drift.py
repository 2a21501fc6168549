"""Drift: does a gateway do what its last promotion says, and do its fleet's file and its agent's agree?"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from policies.history import UnfinishedSettings
from policies.model.adoption import ADOPTED
from policies.model.change import PENSTOCK, ChangeRecord, KnownGoodMove, Quarantine
from policies.model.fleet import ANY_HOOK, Gateway
from policies.model.instance import GatewayState, InstanceState
from policies.model.operation import BREAK_GLASS
from policies.model.plan import ReleaseRef
from policies.model.value import Digest, Name, digest_of
from policies.rebuilding import is_newer

LAST_SECOND = datetime.max.replace(tzinfo=UTC).timestamp() - 1
"""The last one that a calendar has; a host may report a later epoch."""


def strays(states: Mapping[str, GatewayState], known_good: Mapping[str, ReleaseRef]) -> dict[str, str]:
    """Return each gateway that is not on its known-good, and how; silent gateways are not judged."""
    known = [(name, state, known_good[name]) for name, state in sorted(states.items()) if name in known_good]
    return {name: why for name, state, release in known if (why := astray(state, release))}


def pages_due(
    gateways: Sequence[Name], asked: Mapping[Name, datetime], size: int, most: int, at: datetime
) -> tuple[int, ...]:
    """Return where the pages of a fleet begin that are scanned next: those that were asked longest ago.

    A page is as old as its oldest gateway, and one that nobody ever asked comes first, as does what was asked
    by a clock that has been set back since. The turn of a page lasts until it has been scanned, however long
    scans take and whenever they begin.

    Args:
        gateways: All of the fleet, in the order of its pages.
        asked: When each was asked last.
        size: Gateways of a page.
        most: Pages of a scan.
        at: Now.
    """
    never = datetime.min.replace(tzinfo=UTC)
    known = {name: when for name, when in asked.items() if when <= at}
    oldest = {
        first: min(known.get(name, never) for name in gateways[first : first + size])
        for first in range(0, len(gateways), size)
    }
    return tuple(sorted(oldest, key=oldest.__getitem__)[:most])


def steered_by_hand(
    fleet: Name,
    states: Mapping[str, GatewayState],
    known_good: Mapping[str, ReleaseRef],
    left_out: Collection[Quarantine],
) -> dict[str, str]:
    """Return each gateway that an operator took from its known-good on its host, and how.

    Penstock leaves these alone until an operator returns them, or they are on their known-good again: it
    brings one back that was returned after that.
    """
    returned = handed_over(left_out)
    return {
        name: by_hand(fleet, states[name], why)
        for name, why in strays(states, known_good).items()
        if is_by_hand(states[name], returned)
    }


def is_by_hand(state: GatewayState, returned: Mapping[Name, datetime]) -> bool:
    """Return whether an operator steered the gateway on its host, and no operator has returned it since."""
    since = returned.get(state.gateway)
    return state.owner == BREAK_GLASS and not (since is not None and since > steered_at(state))


def taken_off(state: GatewayState, release: Digest | None) -> bool:
    """Return whether an operator steered the gateway on its host, and to anything but that release."""
    serving = state.serving
    is_on_it = release is not None and serving is not None and serving.release == release
    return state.owner == BREAK_GLASS and not is_on_it


def handed_over(left_out: Collection[Quarantine]) -> dict[Name, datetime]:
    """Return the gateways that operators have returned and that are not back yet, each with since when."""
    return {one.gateway: one.since for one in left_out if one.person == PENSTOCK and one.handed_over}


def steered_at(state: GatewayState) -> datetime:
    """Return when an operator steered the gateway on its host, by the host's clock."""
    return datetime.fromtimestamp(min(state.epoch / 1000, LAST_SECOND), UTC)


def spoken(moment: datetime) -> str:
    """Return the moment as operators read it."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def by_hand(fleet: Name, state: GatewayState, why: str = "") -> str:
    """Return that a gateway is left as an operator steered it on its host, and what to do about it."""
    is_so = f", and it {why}" if why else ""
    return (
        f"an operator steered it by break-glass at {spoken(steered_at(state))}{is_so}; penstock leaves it "
        f"alone. Return it to its known-good: penstock gateway return {fleet} {state.gateway} --reason TEXT; "
        "or roll the fleet back, which takes it along"
    )


def left_behind(states: Mapping[str, GatewayState]) -> tuple[str, ...]:
    """Return the gateways on which something runs that gets no new sessions: somebody has to empty it."""
    return tuple(name for name, state in sorted(states.items()) if state.left_behind)


def runs_beside(state: GatewayState, release: Digest) -> bool:
    """Return whether an instance of that release runs on the gateway and gets no new sessions."""
    return any(one.release == release for one in state.instances if one.slot in state.left_behind)


def astray(state: GatewayState, release: ReleaseRef) -> str | None:
    """Return why new sessions do not all go to the very process that the release's manifest names."""
    if state.steering.trial is not None:
        return f"has slot {state.steering.trial} on trial"
    serving = state.serving
    if serving is None:
        return "sends new sessions nowhere"
    if serving.state is not InstanceState.RUNNING:
        return f"sends new sessions to slot {serving.slot}, where nothing runs"
    if serving.release != release.digest:
        return f"runs a release that is not its known-good {release.version}"
    if serving.executable != release.executable:
        return "runs an executable that its manifest does not name"
    return None


def version_served(state: GatewayState | None, versions: Mapping[Digest, str]) -> str:
    """Return the version of the release that takes a gateway's new sessions; empty where it is not known."""
    serving = state.serving if state is not None else None
    if serving is None or serving.state is not InstanceState.RUNNING or serving.release is None:
        return ""
    return versions.get(serving.release, "")


def known_good_and_served(
    known_good: ReleaseRef, state: GatewayState | None, versions: Mapping[Digest, str]
) -> str:
    """Return which release is a gateway's known-good, and which one it serves: two facts that may differ.

    Args:
        known_good: What the ledger has the gateway go back to.
        state: What the gateway answered recently, None where it has not answered.
        versions: The versions of releases by their digest.
    """
    serves = version_served(state, versions)
    if serves:
        observed = f"it serves {serves}"
    elif state is None or (state.serving is not None and state.serving.state is InstanceState.RUNNING):
        observed = "what it serves is not known"
    else:
        observed = "it takes no new sessions"
    return f"its known-good is {known_good.version}; {observed}"


def not_reached(moves: Iterable[KnownGoodMove], promoted: ChangeRecord) -> dict[Name, ReleaseRef]:
    """Return the gateways to which a promotion gave no known-good, each with the known-good that it has.

    One that a later change moved is none of them: it went back, or was installed on its own.
    """
    return {
        move.gateway: move.release
        for move in moves
        if move.number < promoted.number and move.release.digest != promoted.release_digest
    }


def missed(states: Mapping[str, GatewayState], reload: Name) -> tuple[str, ...]:
    """Return the gateways on which something runs and which answered neither this reload nor a later one.

    No host's clock is asked when that was started: one more reload harms nobody, and one too few lets
    people in who are to be kept out. So a gateway that has joined since, or has another name, is one of them.
    """
    return tuple(
        name
        for name, state in sorted(states.items())
        if state.reload_answered != reload
        and not is_newer(state.reload_answered, reload)
        and any(one.state is InstanceState.RUNNING for one in state.instances)
    )


def unset(
    states: Mapping[str, GatewayState],
    settings: Mapping[str, tuple[str, ...]],
    unfinished: UnfinishedSettings,
) -> tuple[str, ...]:
    """Return the gateways that never answered the change of settings that the fleet is on.

    Args:
        states: What gateways that answer again are like.
        settings: The lines that each was to be given; a gateway without any counts as having others.
        unfinished: That change, and which answers are as good.
    """
    return tuple(
        name
        for name, state in sorted(states.items())
        if state.settings_answered is not None
        and state.steering.serving != ADOPTED
        and _has_missed(state.settings_answered, state.settings == settings.get(name), unfinished)
    )


def _has_missed(answered: str, has_them: bool, unfinished: UnfinishedSettings) -> bool:
    if (taken_back := unfinished.change.cause) is not None:
        return answered == taken_back
    return answered not in unfinished.answered and not (answered in unfinished.went_back and has_them)


def described_by(gateway: Gateway) -> tuple[str, ...]:
    """Return what a file says of a gateway, a line for each thing that its host acts on."""
    lines = [f"{name}: {getattr(gateway, name)}" for name in ("fleet", "port")]
    lines += [f"address {address}: yes" for address in gateway.addresses]
    lines.append(f"management: {gateway.management}, port {gateway.metrics_port}")
    if gateway.daemon != "ocserv":  # older agents, which run nothing else, tell no daemon
        lines.append(f"daemon: {gateway.daemon}")
    if gateway.runtime == "podman":  # its placement tells of a node, by agents of before, too
        lines.append("runtime: podman")
    if gateway.steering != "nftables":
        lines.append(f"steering: {gateway.steering}")
    if gateway.inside is not None:
        lines.append(f"inside: {gateway.inside}")
    if gateway.hook_can != ANY_HOOK:
        lines.append(f"hook_can: {', '.join(sorted(gateway.hook_can)) or 'nothing'}")
    if gateway.placement is not None:
        lines.append(f"placement: {gateway.placement}")
    for slot in gateway.slots:
        pools = f"{slot.pool4}" if slot.pool6 is None else f"{slot.pool4} and {slot.pool6}"
        own = "" if slot.address is None else f", address {slot.address}"
        lines.append(f"slot {slot.name}: port {slot.port}{own}, device {slot.device}, users {pools}")
        if slot.users_at is not None:
            lines.append(f"users of slot {slot.name}: {slot.users_at}")
    return tuple(lines)


def digest_of_file(lines: Collection[str]) -> Digest | None:
    """Return the digest of what a file says of a gateway, in whatever order; None where that is nothing."""
    return digest_of("\n".join(sorted(lines)).encode()) if lines else None


def disagreements(gateway: Gateway, told: tuple[str, ...]) -> tuple[str, ...]:
    """Return, a sentence each, where the fleet's file and the agent's say different things of a gateway.

    Args:
        gateway: As the fleet's file describes it.
        told: The lines that its agent tells of its own file; an older agent tells none, and disagrees with
            nobody.
    """
    if not told:
        return ()
    ours, theirs = _things(described_by(gateway)), _things(told)
    return tuple(
        f"{thing}: fleet.yaml says {ours.get(thing, 'no')}, its agent's file {theirs.get(thing, 'no')}"
        for thing in sorted(ours.keys() | theirs.keys())
        if ours.get(thing) != theirs.get(thing)
    )


def unlike_their_hosts(state: GatewayState) -> tuple[str, ...]:
    """Return, a sentence each, where what runs has not the credentials of its host, or one is not renewed."""
    names = ", ".join(state.unserved)
    lies = (f"credentials: {names} lie on its host otherwise than in what runs; reload them",) * bool(names)
    late = (f"certificate: it is not renewed {state.unrenewed}",) * bool(state.unrenewed)
    return lies + late


def _things(lines: tuple[str, ...]) -> dict[str, str]:
    """Return what is said by what it is said of; an address of IPv6 has colons of its own."""
    return {thing: said for thing, _, said in (line.rpartition(": ") for line in lines)}
