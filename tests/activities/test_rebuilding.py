"""A ledger that was lost, or is an older copy, is written again from what gateways serve."""

import pytest

from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.errors import Conflict
from policies.model.plan import ReleaseRef
from tests.unit.fleets import NEW, OLD


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger.open(url)


def promote(ledger: Ledger, key: str, release: ReleaseRef, *gateways: str) -> str:
    opening = ChangeOpening(
        key=key,
        fleet="edge",
        kind=ChangeKind.INSTALL,
        requested_by="ana",
        reason="first",
        release=release.version,
    )
    name = ledger.open_change(opening)
    ledger.record_known_good_batch(
        KnownGoodBatch(fleet="edge", change=name, releases=dict.fromkeys(gateways, release))
    )
    ledger.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="installed"))
    return name


def test_a_ledger_that_knows_all_its_gateways_heard_of_is_not_written_again(ledger: Ledger) -> None:
    promote(ledger, "one", OLD, "gw-1")
    with pytest.raises(Conflict, match="nothing to rebuild"):
        ledger.rebuild("edge", {"gw-1": NEW}, 1, "ana", "no reason")
    assert ledger.known_good("edge") == {"gw-1": OLD}


def test_what_an_older_copy_called_known_good_moves_nobody_once_it_was_rebuilt(ledger: Ledger) -> None:
    promote(ledger, "one", OLD, "gw-1", "gw-2")
    name = ledger.rebuild("edge", {"gw-1": NEW}, 7, "ana", "an older copy was restored")
    assert name == "edge-101"
    assert ledger.newest_number("edge") == 101
    assert ledger.known_good("edge") == {"gw-1": NEW}  # nobody knows what gw-2 serves, which was silent
    assert [(one.gateway, one.before) for one in ledger.moves("edge")] == [("gw-1", None)]
    with pytest.raises(Conflict, match="nothing to rebuild"):
        ledger.rebuild("edge", {"gw-1": NEW}, 7, "ana", "once more")


def test_what_one_gateway_says_changes_what_it_goes_back_to_itself_and_nobody_else(ledger: Ledger) -> None:
    promote(ledger, "one", OLD, "gw-1", "gw-2")
    ledger.rebuild("edge", {"gw-1": NEW}, 7, "ana", "one change was lost", only={"gw-1"})
    assert ledger.known_good("edge") == {"gw-1": NEW, "gw-2": OLD}


def test_an_empty_ledger_is_written_again_whatever_its_gateways_heard_of(ledger: Ledger) -> None:
    assert ledger.newest_number("edge") == 0
    assert ledger.rebuild("edge", {"gw-1": NEW}, 0, "ana", "the disk has died") == "edge-101"
