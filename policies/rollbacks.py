"""Decide whether a rollback that a person asks for waits for a second one.

An automatic rollback to known-good never does. What needs a yes is in the fleet's `rollback`
section: another release than known-good, and, where the policy says so, a whole group at once.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime

from policies.words.errors import Refused
from policies.words.fleet import AtDeadline, Fleet
from policies.words.plan import ReleaseRef
from policies.words.way_back import Answer, AnswerKind, Confirmation
from policies.words.word import Digest, digest_of


def confirmation_of(
    fleet: Fleet,
    targets: Mapping[str, ReleaseRef],
    known_good: Mapping[str, ReleaseRef],
    previous: Mapping[str, ReleaseRef],
) -> Confirmation | None:
    """Return what a person has to confirm first, None when the rollback begins at once.

    Args:
        fleet: The fleet, whose `rollback` rules apply.
        targets: What is asked for.
        known_good: What each gateway's known-good is now.
        previous: What it was before its last rollout: going back there is going back to known-good.
    """
    rules, reasons = fleet.rollback, []
    others = sorted(
        name for name, to in targets.items() if to not in (known_good.get(name), previous.get(name))
    )
    if others and rules.confirm_other_release:
        version = targets[others[0]].version
        reasons.append(f"{version} is not the known-good of {_few(others)}")
    whole = sorted(group for group, members in _groups(fleet).items() if members <= set(targets))
    if whole and rules.confirm_whole_group:
        reasons.append(f"every gateway of {_few(whole)} goes back at once")
    if not reasons:
        return None
    otherwise = {name: previous.get(name, known_good[name]) for name in targets if name in known_good}
    return Confirmation(
        reason="; ".join(reasons),
        within=rules.answer_within,
        change=digest_of_targets(fleet.name, targets),
        known_good=otherwise if rules.at_deadline is AtDeadline.KNOWN_GOOD else {},
    )


def digest_of_targets(fleet: str, targets: Mapping[str, ReleaseRef]) -> Digest:
    """Return the digest that answers to such a rollback name."""
    content = {name: release.digest for name, release in targets.items()}
    return digest_of(json.dumps([fleet, content], sort_keys=True).encode())


def refusal_of(answer: Answer, confirmation: Confirmation, requested_by: str) -> str | None:
    """Return why an answer does not count, None when it does; nobody approves what they asked for."""
    if answer.kind is not AnswerKind.APPROVE:
        return None
    if answer.person == requested_by:
        return f"{answer.person} asked for this rollback; somebody else has to approve it"
    if answer.change != confirmation.change:
        return "the approval names another change than the one that waits; look at it and approve it anew"
    return None


def targets_of(
    release: ReleaseRef, proven: Mapping[str, Collection[ReleaseRef]], known_good: Mapping[str, ReleaseRef]
) -> dict[str, ReleaseRef]:
    """Return the gateways that can go back to the release and are not on it.

    Raises:
        Refused: The release was never promoted on any of them, so that going there is an upgrade.
    """
    able = [name for name, releases in sorted(proven.items()) if release in releases]
    if not able:
        raise Refused(
            f"{release.product} {release.version} was never known-good here, so this is no way back: "
            "use penstock upgrade start"
        )
    return {name: release for name in able if known_good.get(name) != release}


def within_kept(fleet: Fleet, since: Mapping[str, datetime], now: datetime) -> frozenset[str]:
    """Return the gateways whose earlier release is still kept, by when their last one was promoted."""
    return frozenset(name for name, at in since.items() if now - at <= fleet.limits.kept)


def _groups(fleet: Fleet) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for gateway in fleet.gateways:
        groups.setdefault(gateway.group, set()).add(gateway.name)
    return groups


def _few(names: Collection[str], most: int = 3) -> str:
    first = sorted(names)
    more = f" and {len(first) - most} more" if len(first) > most else ""
    return ", ".join(first[:most]) + more
