"""What differs on a fleet: what runs, what fleet.yaml says, and what the agents' own files say."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from activities.drivers.daemon.ocserv.settings import refused_settings
from orchestrator.service.background import LOOKS
from orchestrator.service.changes import ChangeService
from orchestrator.service.standing import looked_at_within, versions_by_release
from orchestrator.service.surveys import Surveyed
from orchestrator.service.telling import aside_of
from orchestrator.store.ledger import Ledger
from policies.drift import (
    disagreements,
    known_good_and_served,
    not_reached,
    strays,
    unlike_their_hosts,
)
from policies.model.change import IN_QUARANTINE
from policies.model.fleet import Fleet
from policies.model.plan import ReleaseRef
from policies.model.value import Name, Value
from policies.planning.reload import running
from policies.planning.settings import difference

MOST = 500
"""Differences that a look names; more are counted."""


LINES = 8
"""Lines of settings that a difference shows; `config plan` shows more of them."""


class Difference(Value):
    """One thing of one gateway that is not as something else says."""

    gateway: Name
    sentence: str


class Behind(NamedTuple):
    """Gateways that the promotion which stands did not reach."""

    change: str
    release: str
    gateways: dict[str, str]
    """The known-good of each, and what it serves."""
    reasons: dict[str, str]
    """Why the promotion went without some of them."""
    left_out: frozenset[str]
    """Gateways that are in quarantine, those of other releases too."""

    def sentence(self, fleet: str, name: str) -> str:
        """Return that one of them was left on its release, with the commands that bring it along."""
        plan = f"penstock plan {fleet} --to {self.release}"
        returned = f"penstock gateway return {fleet} {name} --reason TEXT, then "
        first = returned if name in self.left_out else ""
        return f"release: {self.gateways[name]}; {self.passed_over(name)}. Bring it along: {first}{plan}"

    def passed_over(self, name: str) -> str:
        """Return that the promotion went without one of them, and why, where that is known."""
        why = f" ({self.reasons[name]})" if name in self.reasons else ""
        return f"{self.change} promoted {self.release} without it{why}"


class Drift(Value):
    """What differs, of the gateways that answered, and who did not."""

    differences: tuple[Difference, ...]
    count: int
    """How many there are in all."""
    gateways: int
    """How many gateways were compared."""
    unserved: int = 0
    """How many a reload would give credentials that lie on their hosts and that nothing there has."""
    silent: tuple[Name, ...] = ()
    as_of: datetime | None = None
    """When the gateways began to be asked; no answer is older."""


@dataclass(frozen=True)
class DriftService:
    """Compares; nothing is changed."""

    changes: ChangeService

    async def drift(self, fleet: Fleet, person: str = "", survey: Surveyed | None = None) -> Drift:
        """Return what differs now, or as of the survey that is given, for this person.

        Raises:
            Unavailable: The fleet could not be looked at.
        """
        survey = survey if survey is not None else await self.changes.surveys.of(fleet)
        out = await self.changes.surveys.left_out(fleet)
        known_good = await asyncio.to_thread(self.changes.ledger.known_good, fleet.name)
        behind = await asyncio.to_thread(behind_of, self.changes.ledger, fleet)
        found = await LOOKS.run(lambda: tuple(differences(fleet, survey, known_good, behind)), person)
        return Drift(
            differences=found[:MOST],
            count=len(found),
            gateways=len(survey.states),
            unserved=len(running(survey.states, out, unserved=True)),
            silent=tuple(sorted(survey.silent)[:MOST]),
            as_of=survey.as_of,
        )


def behind_of(ledger: Ledger, fleet: Fleet) -> Behind | None:
    """Return the gateways that the promotion which stands did not reach; None without any.

    A change that has not ended may reach them yet.
    """
    newest = ledger.last_change(fleet.name)
    promoted = next(iter(ledger.standing_promotions(fleet.name)), None)
    if promoted is None or newest is None or newest.outcome is None:
        return None
    names = {gateway.name for gateway in fleet.gateways}
    moves = [move for move in ledger.moves(fleet.name) if move.gateway in names]
    found = not_reached(moves, promoted)
    if not found:
        return None
    header = ledger.plan_header(promoted.plan) if promoted.plan is not None else None
    left_alone = {one.gateway: one.reason for one in header.left_alone} if header is not None else {}
    left_out = frozenset(one.gateway for one in ledger.quarantined(fleet.name))
    why = {
        name: reason if name in left_out else _of_then(reason)
        for name, reason in (left_alone | aside_of(ledger, promoted.name)).items()
    }
    return Behind(
        change=promoted.name,
        release=promoted.release,
        gateways=_known_good_and_served(ledger, fleet, found),
        reasons={name: why[name] for name in found if name in why},
        left_out=left_out,
    )


def _known_good_and_served(
    ledger: Ledger, fleet: Fleet, known_good: Mapping[str, ReleaseRef]
) -> dict[str, str]:
    """Return of each of these gateways what its known-good is and what it serves, by its last answer."""
    answered = ledger.heard_of(fleet.name, looked_at_within(len(fleet.gateways)))
    states = ledger.states_of(fleet.name, sorted(known_good.keys() & answered))
    serving = (state.serving for state in states.values())
    releases = {one.release for one in serving if one is not None and one.release is not None}
    versions = versions_by_release(ledger, fleet.name, releases, ledger.versions(releases))
    return {
        name: known_good_and_served(release, states.get(name), versions)
        for name, release in sorted(known_good.items())
    }


def _of_then(reason: str) -> str:
    """Return why the promotion left out a gateway that is in no quarantine now."""
    if not reason.startswith(IN_QUARANTINE):
        return reason
    return f"quarantined{reason.removeprefix(IN_QUARANTINE)}; returned since"


def _refused(fleet: Fleet) -> dict[str, str]:
    """Return why no gateway takes a setting, by the gateway whose own it is; empty for the fleet's."""
    return {
        fleet.gateways[place[1]].name if isinstance(place[1], int) else "": why
        for place, why in refused_settings(fleet)
    }


def differences(
    fleet: Fleet, survey: Surveyed, known_good: dict[str, ReleaseRef], behind: Behind | None = None
) -> Iterator[Difference]:
    """Yield what differs, gateway by gateway; also of silent ones which release they were left on."""
    astray = strays(survey.states, known_good)
    refused = _refused(fleet)
    for gateway in fleet.gateways:
        if behind is not None and gateway.name in behind.gateways:
            yield Difference(gateway=gateway.name, sentence=behind.sentence(fleet.name, gateway.name))
        state = survey.states.get(gateway.name)
        if state is None:
            continue
        if why := astray.get(gateway.name):
            yield Difference(gateway=gateway.name, sentence=f"what runs: it {why}")
        for sentence in (*disagreements(gateway, state.described), *unlike_their_hosts(state)):
            yield Difference(gateway=gateway.name, sentence=sentence)
        if why := refused.get(gateway.name) or refused.get(""):
            yield Difference(gateway=gateway.name, sentence=f"fleet.yaml: no gateway takes these {why}")
        if lines := difference(fleet, gateway, state):
            more = f"; and {len(lines) - LINES} more lines" if len(lines) > LINES else ""
            said = f"settings of fleet.yaml: {'; '.join(lines[:LINES])}{more}"
            yield Difference(gateway=gateway.name, sentence=said)
