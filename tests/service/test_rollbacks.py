"""What a rollback answers before it acts, on every surface; what is never offered, or called stored."""

import httpx
import pytest

from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from tests.service.command_line import CommandLine

SERVES = "1.3.0, promoted by edge-2, is taken back: edge-1 serves 1.1.6"


def change(ledger: Ledger, kind: ChangeKind, version: str, outcome: Outcome | None = Outcome.PROMOTED) -> str:
    """Write a change down, and its known-good where it moved any."""
    opening = ChangeOpening(
        key=f"{kind} {version} {ledger.newest_number('edge')}",
        fleet="edge",
        kind=kind,
        requested_by="ada",
        reason="CVE-2030-1",
        release=version,
        release_digest=digest_of(version.encode()),
    )
    name = ledger.open_change(opening)
    if outcome in {Outcome.PROMOTED, Outcome.ROLLED_BACK} and kind is not ChangeKind.CONFIGURE:
        digest = digest_of(version.encode())
        release = ReleaseRef(digest=digest, product="ocserv", version=version, executable=digest)
        batch = KnownGoodBatch(fleet="edge", change=name, releases={"edge-1": release})
        ledger.record_known_good_batch(batch)
    if outcome is not None:
        ledger.close_change(ChangeEnding(change=name, outcome=outcome, sentence="every gateway answers"))
    return name


@pytest.fixture
def promoted(ledger: Ledger) -> Ledger:
    """A first installation and a promotion."""
    change(ledger, ChangeKind.INSTALL, "1.1.6")
    change(ledger, ChangeKind.UPGRADE, "1.3.0")
    return ledger


async def test_the_api_answers_which_release_each_gateway_serves_and_does_nothing(
    api: httpx.AsyncClient, promoted: Ledger
) -> None:
    """Issue item 1: the answer comes before the act."""
    answer = (await api.get("/fleets/edge/rollback")).json()
    assert answer == {"change": "edge-2", "does": True, "sentence": SERVES, "confirm": None}
    named = (await api.get("/fleets/edge/rollback", params={"to": "1.1.6"})).json()
    assert (named["code"], "1.1.6" in named["detail"]) == ("Unknown", True)
    assert [row.name for row in promoted.history("edge")] == ["edge-2", "edge-1"]


async def test_a_rollback_prints_which_release_each_gateway_will_serve_before_it_acts(
    penstock: CommandLine, promoted: Ledger
) -> None:
    """Issue item 1."""
    del promoted
    said = await penstock("rollback", "edge", "--reason", "users call")
    assert said.err.splitlines()[0] == f"edge: {SERVES}."


async def test_a_rollback_of_settings_is_an_order_of_its_own(penstock: CommandLine, promoted: Ledger) -> None:
    """Newcomer 10: a rollback after a promotion and a change of settings undid the settings."""
    settings = change(promoted, ChangeKind.CONFIGURE, "settings")
    release = await penstock("rollback", "edge", "--reason", "users call")
    assert release.err.splitlines()[0] == f"edge: {SERVES}."
    said = await penstock("rollback", "edge", "--settings", "--reason", "users call")
    assert said.err.splitlines()[0] == (
        f"edge: what runs gets again the settings that it had before {settings}; "
        "every gateway keeps its release."
    )
    status = await penstock("status", "edge")
    assert (
        "penstock rollback edge --reason TEXT | penstock rollback edge --settings --reason TEXT"
        in " ".join(status.out.split())
    )


async def test_the_page_shows_which_release_each_gateway_will_serve_above_the_button(
    page: httpx.AsyncClient, promoted: Ledger
) -> None:
    """Issue item 1."""
    shown = (await page.get("/fleets/edge/orders/roll_back")).text
    assert f'<p class="does">{SERVES}.</p>' in shown
    change(promoted, ChangeKind.CONFIGURE, "settings")
    shown = (await page.get("/fleets/edge/orders/roll_back", params={"settings": "true"})).text
    assert "every gateway keeps its release" in shown


async def test_a_change_that_only_waits_is_named_with_what_stands_under_it(
    api: httpx.AsyncClient, promoted: Ledger
) -> None:
    """A1: the answer covers both steps of such a rollback."""
    change(promoted, ChangeKind.UPGRADE, "1.4.0", None)
    answer = (await api.get("/fleets/edge/rollback")).json()
    assert answer["sentence"] == f"edge-3 has moved no session and ends; then {SERVES}"


@pytest.mark.parametrize("last", [ChangeKind.INSTALL, ChangeKind.GO_BACK])
async def test_a_rollback_that_has_nothing_to_do_is_offered_nowhere(
    penstock: CommandLine, page: httpx.AsyncClient, ledger: Ledger, last: ChangeKind
) -> None:
    """Screens 9: the only filled button did nothing after an installation and after a rollback."""
    change(ledger, ChangeKind.INSTALL, "1.1.6")
    if last is ChangeKind.GO_BACK:
        change(ledger, ChangeKind.UPGRADE, "1.3.0")
        change(ledger, ChangeKind.GO_BACK, "1.1.6", Outcome.ROLLED_BACK)
    assert "penstock rollback" not in (await penstock("status", "edge")).out
    assert "orders/roll_back" not in (await page.get("/fleets/edge")).text


async def test_a_rollback_is_offered_after_a_promotion_and_after_a_canary_that_failed(
    penstock: CommandLine, promoted: Ledger
) -> None:
    """Screens 9, A1."""
    assert "penstock rollback edge --reason TEXT" in (await penstock("status", "edge")).out
    change(promoted, ChangeKind.UPGRADE, "1.4.0", Outcome.REFUSED)
    assert "penstock rollback edge --reason TEXT" in (await penstock("status", "edge")).out


async def test_an_order_that_was_not_stored_is_not_called_stored(
    penstock: CommandLine, promoted: Ledger
) -> None:
    """Screens 7: with a dead engine the command called the order stored; nothing was, and nothing ran."""
    del promoted
    said = await penstock("rollback", "edge", "--reason", "users call")
    assert said.code == 1
    last = said.err.splitlines()[-1]
    assert "NOT DONE, nothing is stored" in last
    assert "penstock agent break-glass --back" in last
    assert "order is stored" not in said.err


async def test_a_pin_is_called_what_it_is_where_an_operator_reads_it(
    penstock: CommandLine, promoted: Ledger
) -> None:
    """Screens 10: PINNED pinned nothing for operators."""
    change(promoted, ChangeKind.GO_BACK, "1.1.6", Outcome.ROLLED_BACK)
    status = await penstock("status", "edge")
    assert "PINNED" in " ".join(status.out.split())
    assert "files, schedules and machines do not start it again, an operator still can" in " ".join(
        status.out.split()
    )
