"""Rebuilding the ledger from what a fleet's gateways serve, after it was lost or an older copy came back."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from orchestrator.service.changes import ChangeService
from orchestrator.service.releases import ReleaseService
from orchestrator.store.ledger import Ledger
from orchestrator.store.rebuilding import not_believed, nothing_to_rebuild
from policies.model.change import PENSTOCK
from policies.model.errors import Conflict, PenstockError, Refused
from policies.model.fleet import Fleet
from policies.model.instance import GatewayState
from policies.model.offer import Offer, Verb
from policies.model.plan import ReleaseRef
from policies.model.value import Value
from policies.planning.naming import counted
from policies.rebuilding import (
    ahead,
    became_known_good,
    can_be_lost,
    highest_heard,
    is_older,
    knows_all,
    later_than,
    orders_to_repeat,
    served_for_good,
)


class Rebuilt(Value):
    """What a ledger knows again of a fleet, and which gateways it could not ask."""

    change: str
    versions: dict[str, int]
    """What gateways go back to, each with how many do."""
    lost: dict[str, str] = {}
    """Gateways without a known-good now, each with why."""
    sentence: str = ""
    """What was written down, and what that means."""
    to_repeat: tuple[str, ...]
    """What operators do now, a line each."""


@dataclass(frozen=True)
class RebuildingService:
    """Asks gateways what they serve, and the repository who signed it."""

    ledger: Ledger
    changes: ChangeService
    releases: ReleaseService

    async def rebuild(self, fleet: Fleet, person: str, reason: str) -> Rebuilt:
        """Write down again what each gateway goes back to: what it serves for good, if its signatures hold.

        Where only a few gateways know of changes that the ledger does not, it is written again for these.
        The word of a gateway that an operator has quarantined is no reason to do so.

        Raises:
            Conflict: A change is under way, or the ledger knows every change that the gateways heard of.
            Refused: No gateway serves anything that may be used, or what one says of a change is no number
                that a ledger can have lost.
        """
        if await self.changes.is_under_way(fleet.name):
            raise Conflict(
                f"a change of {fleet.name} is under way", Offer(verb=Verb.STATUS, fleet=fleet.name)
            )
        survey = await self.changes.surveys.of(fleet)
        newest = await asyncio.to_thread(self.ledger.newest_number, fleet.name)
        left_out = await asyncio.to_thread(self.ledger.quarantined, fleet.name)
        out = {one.gateway for one in left_out if one.person != PENSTOCK}
        said = {name: state for name, state in survey.states.items() if name not in out}
        if knows_all(newest, highest_heard(fleet.name, said.values(), newest)):
            unknown = ahead(fleet.name, said, newest)
            raise not_believed(fleet.name, unknown) if unknown else nothing_to_rebuild(fleet.name)
        heard = highest_heard(fleet.name, survey.states.values(), newest)
        numbers = later_than(fleet.name, said, newest)
        later = {name for name, number in numbers.items() if can_be_lost(number, newest)}
        few = later if newest and not is_older(later, len(said)) else None
        states = {name: state for name, state in survey.states.items() if few is None or name in few}
        lost = dict(survey.silent) if few is None else {}
        serving = await self._serving(fleet, states, lost, person)
        if not serving:
            why = "; ".join(sorted(set(lost.values()))) or "none of them serves anything"
            raise Refused(f"nothing can be rebuilt from the gateways of {fleet.name}: {why}")
        name = await asyncio.to_thread(
            self.ledger.rebuild, fleet.name, serving, heard, person, reason, only=few
        )
        versions = Counter(release.version for release in serving.values())
        known = ", ".join(
            f"{version} on {counted(count, 'gateway')}" for version, count in sorted(versions.items())
        )
        written = f"known-good is written down again: {known}"
        return Rebuilt(
            change=name,
            versions=dict(sorted(versions.items())),
            lost=dict(sorted(lost.items())),
            sentence=f"{written}; no session has moved; {became_known_good(name)}",
            to_repeat=orders_to_repeat(fleet.name),
        )

    async def _serving(
        self, fleet: Fleet, states: dict[str, GatewayState], lost: dict[str, str], person: str
    ) -> dict[str, ReleaseRef]:
        """Return what each gateway serves for good and may; the others are added to those that are lost."""
        admitted: dict[str, ReleaseRef | str] = {}
        found: dict[str, ReleaseRef] = {}
        for name, state in sorted(states.items()):
            digest = served_for_good(state)
            if digest is None:
                lost[name] = "it serves nothing for good"
                continue
            if digest not in admitted:
                admitted[digest] = await self._admitted(fleet, digest, person)
            release = admitted[digest]
            if isinstance(release, str):
                lost[name] = release
            else:
                found[name] = release
        return found

    async def _admitted(self, fleet: Fleet, digest: str, person: str) -> ReleaseRef | str:
        """Return the release of that digest once it is in the ledger, or why it cannot be."""
        try:
            return (await self.releases.add(fleet, digest, person)).release
        except PenstockError as error:
            return f"it serves {digest[:19]}, which cannot be added: {error}"
