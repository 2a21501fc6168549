"""Decide whether a rollback that a person asks for waits for a second one.

An automatic rollback to known-good never does. What needs a yes is in the fleet's `rollback`
section: another release than known-good, and, where the policy says so, a whole group at once.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from policies.model.change import WayBack
from policies.model.errors import BadInput, Refused
from policies.model.fleet import Fleet
from policies.model.instance import GatewayState, InstanceState
from policies.model.offer import Offer, Verb
from policies.model.plan import ReleaseRef
from policies.planning.naming import named


def confirmation_of(
    fleet: Fleet,
    targets: Mapping[str, ReleaseRef],
    known_good: Mapping[str, ReleaseRef],
    previous: Mapping[str, ReleaseRef],
) -> str | None:
    """Return what a second person has to confirm first, None when the rollback begins at once.

    `targets` is what is asked for, `known_good` what each gateway has now, `previous` what it had before
    the last change: going back there is going back to known-good.
    """
    rules, reasons = fleet.rollback, []
    known = {name: (known_good.get(name), previous.get(name)) for name in targets}
    others = sorted(name for name, to in targets.items() if to not in known[name])
    if others and rules.confirm_other_release:
        version = targets[others[0]].version
        reasons.append(f"{version} is not the known-good of {named(others)}")
    whole = [group for group, members in fleet.groups.items() if {g.name for g in members} <= targets.keys()]
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


def stands(last: WayBack, kept: timedelta, at: datetime) -> bool:
    """Whether the last change was promoted so long ago that going back names a release, for two persons.

    One that has not ended well never stands: what is left to go back are gateways that nobody has promoted.
    """
    return last.finished and last.since is not None and at - last.since > kept


def kept_slot(state: GatewayState) -> str:
    """Return the slot that a gateway's new sessions went to before: the way back that is left on its host.

    Raises:
        BadInput: No other instance runs, or several do.
    """
    steering = state.steering
    if steering.trial is not None and steering.serving is not None:
        return steering.serving
    running = [one for one in state.instances if one.state is InstanceState.RUNNING]
    others = sorted(one.slot for one in running if one.slot != steering.serving)
    if len(others) == 1:
        return others[0]
    if not others:
        raise BadInput(f"no other instance runs on {state.gateway}, so there is nothing to go back to")
    raise BadInput(f"{state.gateway} runs {', '.join(others)} beside what serves: name the slot with --slot")
