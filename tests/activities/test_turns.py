"""Turns: only so many fleets change at the same time, and a turn ends with its change, however that ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, Outcome
from tests.fakes.ledgers import new_ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(new_ledger(tmp_path / "ledger.db"))
    yield opened
    opened.close()


def begun(ledger: Ledger, fleet: str, key: str) -> str:
    """Return the name of a change of that fleet that begins now."""
    opening = ChangeOpening(
        key=key, fleet=fleet, kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE", release="1.4.1"
    )
    return ledger.open_change(opening)


def test_as_many_fleets_change_as_may_and_the_others_hear_for_whom_they_wait(ledger: Ledger) -> None:
    names = {fleet: begun(ledger, fleet, fleet) for fleet in ("core", "edge", "lake")}
    assert ledger.take_turn("edge", names["edge"], 2) == ()
    assert ledger.take_turn("core", names["core"], 2) == ()
    assert ledger.take_turn("lake", names["lake"], 2) == ("core", "edge")
    assert ledger.take_turn("edge", names["edge"], 2) == ()  # what it has stays its own
    assert ledger.take_turn("lake", names["lake"], 3) == ()


def test_a_change_that_waits_lets_another_fleet_go_first(ledger: Ledger) -> None:
    edge, core = begun(ledger, "edge", "e"), begun(ledger, "core", "c")
    assert ledger.take_turn("edge", edge, 1) == ()
    assert ledger.take_turn("core", core, 1) == ("edge",)
    ledger.give_turn_back("core", core)  # it has none, so nobody loses one
    assert ledger.take_turn("core", core, 1) == ("edge",)
    ledger.give_turn_back("edge", edge)
    assert ledger.take_turn("core", core, 1) == ()
    assert ledger.take_turn("edge", edge, 1) == ("core",)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_turn_ends_with_its_change_however_that_ends(ledger: Ledger, outcome: Outcome) -> None:
    edge, core = begun(ledger, "edge", "e"), begun(ledger, "core", "c")
    assert ledger.take_turn("edge", edge, 1) == ()
    ledger.close_change(ChangeEnding(change=edge, outcome=outcome, sentence="it ended"))
    assert ledger.take_turn("core", core, 1) == ()


def test_the_turn_of_a_change_that_was_killed_is_its_fleets_until_the_ledger_hears_of_its_end(
    ledger: Ledger,
) -> None:
    """Nobody gives it back: the fleet may be half changed, so it counts until its way back has ended it."""
    killed, core = begun(ledger, "edge", "e"), begun(ledger, "core", "c")
    assert ledger.take_turn("edge", killed, 1) == ()
    assert ledger.take_turn("core", core, 1) == ("edge",)
    way_back = begun(ledger, "edge", "back")
    assert ledger.take_turn("edge", way_back, 1) == ()  # a fleet never waits for itself
    assert ledger.take_turn("core", core, 1) == ("edge",)
    for change in (killed, way_back):
        ledger.close_change(ChangeEnding(change=change, outcome=Outcome.ROLLED_BACK, sentence="killed"))
    assert ledger.take_turn("core", core, 1) == ()
