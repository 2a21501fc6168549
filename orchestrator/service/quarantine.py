"""What a caller may ask of quarantine: leave gateways out of changes by name, and take them in again."""

import asyncio
import logging
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from temporalio.service import RPCError

from activities.incomplete_ends import complete_ends
from orchestrator.service.changes import ChangeService
from orchestrator.service.drains import DrainService
from orchestrator.service.updates import ANSWER, silence_of
from policies.drift import left_behind, strays
from policies.model.change import Phase, Quarantine
from policies.model.command import Command, CommandKind
from policies.model.errors import BadInput, Conflict
from policies.model.fleet import Fleet
from policies.model.instance import GatewayState
from policies.model.offer import Offer, Verb
from policies.model.plan_part import MOST_MEMBERS
from policies.planning.naming import named
from policies.status.told import NAMED, listed, subject_of
from workflows.identities import beside, change_of, return_of
from workflows.restore import Restore

_log = logging.getLogger(__name__)

RETURNING = "WorkflowType = 'Restore' AND ExecutionStatus = 'Running'"
"""The query for everything that returns gateways to their known-good."""

SOON = "penstock {} within minutes, and returns the gateway by itself"
"""What becomes of a gateway that is returned while it is not on its known-good, or runs more than that."""

AFTER_THE_CHANGE = "when the change under way has ended, penstock {}, and returns the gateway by itself"
"""The same while nobody but that change may move gateways."""


class Returned(NamedTuple):
    """What became of gateways that were to take part again, and why some stay in quarantine."""

    sentence: str
    stays: dict[str, str]


@dataclass(frozen=True)
class QuarantineService:
    """Which gateways of an installation are left out."""

    service: ChangeService

    async def leave_out(self, fleet: Fleet, gateways: Collection[str], person: str, reason: str) -> str:
        """Leave the gateways out until they are returned; return the sentence that says so.

        A change under way that waits for one to come back goes on without it. It starts none that is left out
        and that it has not begun with, compares nobody with it, and counts on none of its capacity. A return
        of a single gateway ends.

        Raises:
            BadInput: The fleet has no such gateway; then none is left out.
        """
        under_way = await self.service.is_under_way(fleet.name)
        status = await self.service.status(fleet.name) if under_way else None
        waits_for = frozenset(status.waits_for if status else ())
        if status is not None and status.not_back > len(waits_for):  # the change knows all of them by name
            out = await asyncio.to_thread(self.service.ledger.quarantined, fleet.name)
            waits_for |= {one.gateway for one in out} | {gateway.name for gateway in fleet.gateways}
        # A rollback may wait for one that is not in the fleet's file any more: it has no row to be left out.
        asked = _known(fleet, {*gateways} - waits_for)
        waited_for = sorted(waits_for.intersection(gateways))
        # Rows come before the command, in the person's name: what penstock has left out by itself it
        # also takes in again.
        since = datetime.now(UTC)
        rows = [
            Quarantine(fleet=fleet.name, gateway=name, reason=reason, person=person, since=since)
            for name in sorted({gateway.name for gateway in fleet.gateways}.intersection(gateways))
        ]
        new = await asyncio.to_thread(self.service.ledger.set_quarantines, rows)
        why = f"in quarantine by {person}: {reason}"
        await self._end_returns(fleet.name, {row.gateway: why for row in rows}, since)
        said = []
        if waited_for:
            command = Command(
                id=f"quarantine-{secrets.token_hex(6)}",
                kind=CommandKind.QUARANTINE,
                person=person,
                reason=reason,
                gateways=tuple(waited_for),
            )
            try:
                said.append((await self.service.command(fleet.name, command)).sentence)
            except Conflict:
                # All are back meanwhile, or the change is over: they are left out like the others.
                asked = sorted({*asked, *waited_for}.intersection(row.gateway for row in rows))
                if gone := sorted({*waited_for}.difference(asked)):
                    said.append(f"{subject_of(gone)} not waited for any more, and not of {fleet.name}.")
        if asked and new.isdisjoint(asked):
            said.append(f"{subject_of(asked)} left out already.")
        elif asked:
            they = "it" if len(asked) == 1 else "them"
            said.append(f"{subject_of(asked)} left out of changes until somebody returns {they}.")
            if status is not None and status.phase is Phase.ROLLING_BACK:
                said.append(f"The rollback under way tries {they} at most once more.")
            elif under_way:
                said.append(f"The change under way does not begin with {they}; what it has begun goes on.")
        return " ".join(said)

    async def _end_returns(self, fleet: str, reasons: dict[str, str], since: datetime) -> None:
        """Have returns of single gateways that began before this give up these, also in the middle of a try.

        A return that this does not reach reads the quarantine before its next try. A later one is of a wave
        that leaves the gateway out, and tries it once.
        """
        client, guest = self.service.client, f"{beside(change_of(fleet))}/"
        try:
            async with asyncio.timeout(ANSWER.total_seconds()):
                async for one in client.list_workflows(RETURNING, rpc_timeout=ANSWER):
                    named = reasons if one.id.startswith(guest) else _returned_by(one.id, fleet, reasons)
                    if named and one.start_time < since:
                        returning = client.get_workflow_handle(one.id)
                        await returning.signal(Restore.give_up, named, rpc_timeout=ANSWER)
        except TimeoutError:
            _log.warning("returns of quarantined gateways end later: the engine has not answered in time")
        except RPCError as error:
            _log.warning("returns of quarantined gateways end later: %s", silence_of(error))

    async def take_in(self, fleet: Fleet, gateways: Collection[str], person: str, reason: str) -> Returned:
        """Let the gateways take part again, each once it is seen on its known-good.

        Those that are seen elsewhere, or that run an instance beside which no drain empties, are reconcile's
        from then on: it brings them to their known-good, has what was left behind emptied and stopped, and
        takes them in. Those that are silent stay left out until they are returned again.

        Raises:
            BadInput: The fleet has no such gateway; then none is taken in.
            Conflict: None of them is left out.
        """
        asked, ledger = _known(fleet, gateways), self.service.ledger
        left_out = {one.gateway for one in await asyncio.to_thread(ledger.quarantined, fleet.name)}
        returning = [name for name in asked if name in left_out]
        if not returning:
            raise Conflict(f"{subject_of(asked)} not in quarantine; nothing to do")
        survey = await self.service.surveys.of(fleet, _first_of_few(fleet, returning), anew=True)
        known_good = await asyncio.to_thread(ledger.known_good, fleet.name)
        seen = {name: survey.states[name] for name in returning if name in survey.states}
        astray = {name: f"it {how}" for name, how in strays(seen, known_good).items()}
        there = {name: state for name, state in seen.items() if name in known_good and name not in astray}
        beside = await self._left_running(fleet, there)
        under_way = bool(astray or beside) and await self.service.is_under_way(fleet.name)
        when = AFTER_THE_CHANGE if under_way else SOON
        stays = {
            **{name: f"{why}; {when.format('brings it back')}" for name, why in astray.items()},
            **{name: f"{why}; {when.format('empties and stops it')}" for name, why in beside.items()},
        }
        if stays:  # also those that penstock left out: their next try may be an hour away
            await asyncio.to_thread(ledger.hand_over, fleet.name, astray | beside, person, reason)
        stays |= {
            name: f"it is silent: {survey.silent.get(name, 'its agent did not answer')}"
            for name in returning
            if name not in seen
        }
        taken_in = [name for name in returning if name not in stays]
        if not taken_in:
            stay = f"{returning[0]} stays" if len(returning) == 1 else f"all {len(returning)} gateways stay"
            why = stays[returning[0]] if len(returning) == 1 else listed(stays)
            return Returned(f"{stay} in quarantine: {why}.", stays)
        await asyncio.to_thread(ledger.clear_quarantines, fleet.name, taken_in, person, reason)
        members = {gateway.name for gateway in fleet.gateways}
        await asyncio.to_thread(complete_ends, ledger, fleet.name, members)
        if len(taken_in) == 1:
            said = [f"{taken_in[0]} was seen on its known-good and takes part in changes again."]
        else:
            said = [f"{len(taken_in)} gateways were seen on their known-good and take part in changes again."]
        if stays:
            said.append(f"{len(stays)} of {len(returning)} stay in quarantine: {listed(stays)}.")
        if others := [name for name in asked if name not in left_out]:
            said.append(f"{subject_of(others)} not in quarantine.")
        return Returned(" ".join(said), stays)

    async def _left_running(self, fleet: Fleet, states: Mapping[str, GatewayState]) -> dict[str, str]:
        """Return the gateways that run an instance beside the one that serves, and that no drain empties.

        What a change under way has begun on a gateway is its own. A drain that is not found may have stopped
        its instance just now: those gateways are looked at once more.
        """
        left = {name: states[name].left_behind for name in left_behind(states)}
        if not left:
            return {}
        begun = await asyncio.to_thread(self.service.ledger.touched_by_open_changes, fleet.name)
        drained = await DrainService(self.service.client, self.service).slots(fleet.name)
        undrained = {
            name: slots
            for name, found in left.items()
            if name not in begun and (slots := [slot for slot in found if (name, slot) not in drained])
        }
        if not undrained:
            return {}
        survey = await self.service.surveys.of(fleet, _first_of_few(fleet, undrained), anew=True)
        later = {name: survey.states.get(name, states[name]).left_behind for name in undrained}
        return {
            name: f"slot {slots[0]} runs beside its known-good, and no drain empties it"
            for name, found in undrained.items()
            if (slots := [slot for slot in found if slot in later[name]])
        }


def _returned_by(workflow: str, fleet: str, reasons: dict[str, str]) -> dict[str, str]:
    """Return the one of these gateways that the workflow of this id returns alone, with the reason."""
    change = workflow.rpartition("/")[2]
    if change.rpartition("-")[0] != fleet:
        return {}
    return {name: why for name, why in reasons.items() if workflow == return_of(name, change)}


def _known(fleet: Fleet, gateways: Collection[str]) -> list[str]:
    """Return the gateways by name, each once; BadInput when the fleet has not all of them."""
    asked = sorted({*gateways})
    known = {gateway.name for gateway in fleet.gateways}
    if unknown := [name for name in asked if name not in known]:
        seen = Offer(verb=Verb.SESSIONS, fleet=fleet.name)
        raise BadInput(f"{fleet.name} has no gateway {named(unknown, NAMED + 1)}", seen)
    return asked


def _first_of_few(fleet: Fleet, gateways: Collection[str]) -> str | None:
    """Return where a look begins that sees all of these; None where that is a look at the whole fleet."""
    wanted = frozenset(gateways)
    places = [place for place, gateway in enumerate(fleet.gateways) if gateway.name in wanted]
    return fleet.gateways[places[0]].name if places[-1] - places[0] < MOST_MEMBERS else None
