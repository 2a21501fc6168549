"""What differs on a fleet: what runs, what fleet.yaml says, and what the agents' own files say."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.service.background import LOOKS
from orchestrator.service.changes import ChangeService
from orchestrator.service.surveys import Surveyed
from policies.drift import disagreements, strays, unlike_their_hosts
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


@dataclass(frozen=True)
class DriftService:
    """Compares; nothing is changed."""

    changes: ChangeService

    async def drift(self, fleet: Fleet, person: str = "") -> Drift:
        """Return what differs now, for this person.

        Raises:
            Unavailable: The fleet could not be looked at.
        """
        survey, out = await self.changes.surveys.participants(fleet)
        known_good = await asyncio.to_thread(self.changes.ledger.known_good, fleet.name)
        found = await LOOKS.run(lambda: tuple(differences(fleet, survey, known_good)), person)
        return Drift(
            differences=found[:MOST],
            count=len(found),
            gateways=len(survey.states),
            unserved=len(running(survey.states, out, unserved=True)),
            silent=tuple(sorted(survey.silent)[:MOST]),
        )


def differences(fleet: Fleet, survey: Surveyed, known_good: dict[str, ReleaseRef]) -> Iterator[Difference]:
    """Yield what differs, gateway by gateway."""
    astray = strays(survey.states, known_good)
    for gateway in fleet.gateways:
        state = survey.states.get(gateway.name)
        if state is None:
            continue
        if why := astray.get(gateway.name):
            yield Difference(gateway=gateway.name, sentence=f"what runs: it {why}")
        for sentence in (*disagreements(gateway, state.described), *unlike_their_hosts(state)):
            yield Difference(gateway=gateway.name, sentence=sentence)
        if lines := difference(fleet, gateway, state):
            more = f"; and {len(lines) - LINES} more lines" if len(lines) > LINES else ""
            said = f"settings of fleet.yaml: {'; '.join(lines[:LINES])}{more}"
            yield Difference(gateway=gateway.name, sentence=said)
