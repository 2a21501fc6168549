"""Drills on spare gateways: whose turn it is, and what was seen."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Protocol

from temporalio import activity

from activities.liveness import in_a_thread
from policies.drill_turns import Past, Turn, next_turn, place_of
from policies.model.change import PENSTOCK, ChangeRecord
from policies.model.drill import DrillReport, DrillRun
from policies.model.fleet import Fleet, GatewayRef
from policies.model.value import Name, Value


class DrillBook(Protocol):
    """What was rehearsed, and what goes on."""

    def drills_at(self, places: Collection[str]) -> Past:
        """Return when each drill last began in each of these places."""
        ...

    def last_change(self, fleet: str) -> ChangeRecord | None:
        """Return the fleet's newest change, None when there never was one."""
        ...

    def record_drill(self, report: DrillReport, person: str) -> DrillRun:
        """Write down what was seen; a repeat is the same run."""
        ...


class FleetFolder(Protocol):
    """Fleets by name."""

    def fleet(self, name: str) -> Fleet:
        """Return the fleet as its file describes it now; BadInput without one."""
        ...


class Windows(Protocol):
    """Whether something may begin on a gateway."""

    def open_until(self, fleet: Fleet, gateway: str, at: datetime) -> datetime | None:
        """Return until when something may begin there; None when nothing may, or no window is declared."""
        ...


class DrillTurn(Value):
    """The drill that begins now and the gateway that it is rehearsed on; None, and why, when none does."""

    drill: Name | None = None
    gateway: GatewayRef | None = None
    place: Name | None = None
    sentence: str


class DrillTurnActivities:
    """Asking whose turn it is changes nothing, and a record is the same however often it is written."""

    def __init__(self, book: DrillBook, folder: FleetFolder, windows: Windows) -> None:
        self._book = book
        self._folder = folder
        self._windows = windows

    @activity.defn(name="ask_drill_turn")
    async def ask_drill_turn(self, fleet: Name) -> DrillTurn:
        """Return which drill may begin now on which spare gateway of the fleet."""
        return await in_a_thread(self._turn, fleet, datetime.now(UTC))

    @activity.defn(name="record_spare_drill")
    async def record_spare_drill(self, report: DrillReport) -> bool:
        """Write down what was seen; a repeat is the same run."""
        await in_a_thread(self._book.record_drill, report, PENSTOCK)
        return True

    def _turn(self, name: str, at: datetime) -> DrillTurn:
        fleet = self._folder.fleet(name)
        if fleet.drills is None:
            return DrillTurn(sentence=next_turn(fleet, {}, at, open_until=None, under_way=None).sentence)
        places = {place_of(name, one): one for one in fleet.drills.spare}
        found = self._book.drills_at(places)
        past = {(drill, places[place]): began for (drill, place), began in found.items()}
        newest = self._book.last_change(name)
        goes_on = newest.name if newest is not None and newest.ended is None else None
        until = [self._windows.open_until(fleet, one, at) for one in fleet.drills.spare]
        open_until = min((one for one in until if one is not None), default=None) if all(until) else None
        turn: Turn = next_turn(fleet, past, at, open_until=open_until, under_way=goes_on)
        if turn.gateway is None:
            return DrillTurn(sentence=turn.sentence)
        gateway = fleet.gateway(turn.gateway)
        return DrillTurn(
            drill=turn.drill,
            gateway=GatewayRef.model_validate({f: getattr(gateway, f) for f in GatewayRef.model_fields}),
            place=place_of(name, turn.gateway),
            sentence=turn.sentence,
        )
