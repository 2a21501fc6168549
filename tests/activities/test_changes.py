"""Changes in a real ledger: their names, their ends, what they moved and what going back means after them."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.event import listen
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.ledger import GatewayResults, LedgerActivities, ReturnEntry
from orchestrator.store.ledger import Ledger
from policies.model.change import (
    PENSTOCK,
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    GatewayResult,
    HistoryRow,
    KnownGoodBatch,
    Outcome,
    Quarantine,
    RollbackTargets,
)
from policies.model.errors import BadInput, Conflict, Unknown
from policies.model.operation import BREAK_GLASS
from policies.model.plan import ReleaseRef
from policies.model.status import Event
from policies.model.value import digest_of
from policies.planning.cohorts import BEGUN
from policies.returns import MOST_RELAPSES
from policies.rollback import rollback_targets
from policies.status.story import KEPT_EVENTS
from policies.status.told import Told
from tests.fakes.ledgers import new_ledger

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
GATEWAYS = ("gw-1", "gw-2", "gw-3")


def release(version: str) -> ReleaseRef:
    return ReleaseRef(
        digest=digest_of(version.encode()), product="ocserv", version=version, executable=digest_of(b"e")
    )


OLD, NEW, NEWER = release("1.1.6"), release("1.3.0"), release("1.4.0")


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger.open(url)
    yield opened
    opened.close()


def opening(key: str, kind: ChangeKind = ChangeKind.UPGRADE, fleet: str = "edge") -> ChangeOpening:
    return ChangeOpening(key=key, fleet=fleet, kind=kind, requested_by="ada", reason="CVE", release="1.3.0")


def end(ledger: Ledger, change: str, outcome: Outcome = Outcome.PROMOTED) -> None:
    ledger.close_change(ChangeEnding(change=change, outcome=outcome, sentence=f"it was {outcome}"))


def record(ledger: Ledger, change: str, to: ReleaseRef, *gateways: str, back: bool = False) -> int:
    releases = dict.fromkeys(gateways or GATEWAYS, to)
    batch = KnownGoodBatch(fleet="edge", change=change, releases=releases, back=back)
    return ledger.record_known_good_batch(batch)


def promote(ledger: Ledger, to: ReleaseRef, kind: ChangeKind = ChangeKind.UPGRADE) -> str:
    change = ledger.open_change(opening(f"{kind} {len(ledger.history('edge'))}", kind))
    record(ledger, change, to)
    end(ledger, change)
    return change


def rollback(ledger: Ledger) -> RollbackTargets:
    """Return what a rollback of the release does now, as the service asks for it."""
    unfinished = ledger.unfinished_change("edge")
    return rollback_targets(ledger.moves("edge"), unfinished, timedelta(hours=24), datetime.now(UTC))


def go_back(ledger: Ledger, outcome: Outcome = Outcome.ROLLED_BACK, only: tuple[str, ...] = GATEWAYS) -> str:
    """Take back what the ledger says is to be taken back, as a rollback does."""
    last = rollback(ledger)
    asked = opening(f"back {len(ledger.history('edge'))}", ChangeKind.GO_BACK)
    change = ledger.open_change(asked.model_copy(update={"cause": last.change}))
    wanted = {name: to for name, to in last.targets.items() if name in only}
    ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=change, releases=wanted))
    end(ledger, change, outcome)
    return change


def standings(ledger: Ledger) -> dict[str, str]:
    return {row.name: row.standing for row in ledger.history("edge")}


def test_every_change_of_whatever_kind_gets_the_next_number(ledger: Ledger) -> None:
    names = [ledger.open_change(opening(f"key {n}", kind)) for n, kind in enumerate(ChangeKind)]
    assert names == [f"edge-{number}" for number in range(1, len(ChangeKind) + 1)]
    assert ledger.open_change(opening("another", fleet="west")) == "west-1"


def test_the_same_key_is_the_same_change_and_never_another_one(ledger: Ledger) -> None:
    assert {ledger.open_change(opening("run 1")) for _ in range(3)} == {"edge-1"}
    with pytest.raises(Conflict, match="edge-1 was opened under the same key with another kind"):
        ledger.open_change(opening("run 1", ChangeKind.RELOAD))
    assert [entry.action for entry in ledger.audit_entries()] == ["change began"]


def test_fleets_whose_names_look_like_changes_never_share_a_name(ledger: Ledger) -> None:
    names = [
        ledger.open_change(opening(f"{fleet} {n}", fleet=fleet))
        for n in range(3)
        for fleet in ("edge", "edge-1", "edge-1-1")
    ]
    assert len(set(names)) == len(names)


def test_a_fleet_whose_name_leaves_no_room_for_a_number_is_refused(ledger: Ledger) -> None:
    with pytest.raises(BadInput, match="too long a name"):
        ledger.open_change(opening("key", fleet="e" * 62))
    assert ledger.history("e" * 62) == ()


def test_names_are_unique_whoever_opens_changes_at_once(url: str, ledger: Ledger) -> None:
    program = (
        "import sys\n"
        "from orchestrator.store.ledger import Ledger\n"
        "from policies.model.change import ChangeKind, ChangeOpening\n"
        f"book = Ledger.open({url!r})\n"
        "for n in range(40):\n"
        "    key = f'{sys.argv[1]} {n}' if n % 2 else f'shared {n}'\n"
        "    print(key, book.open_change(ChangeOpening(key=key, fleet='edge', kind=ChangeKind.UPGRADE,\n"
        "        requested_by='ada', reason='CVE', release='1.3.0')), sep='=')\n"
    )

    def run(writer: str) -> list[str]:
        found = subprocess.run([sys.executable, "-c", program, writer], capture_output=True, check=True)
        return found.stdout.decode().splitlines()

    with ThreadPoolExecutor(3) as pool:
        said = [line for lines in pool.map(run, "abc") for line in lines]
    names = dict(line.split("=") for line in said)
    assert len(said) == 120
    assert len(names) == 20 + 3 * 20
    assert sorted(names.values()) == sorted(f"edge-{n}" for n in range(1, 81))
    assert set(said) == {f"{key}={name}" for key, name in names.items()}  # a shared key has one name
    assert ledger.verify_audit() is None


def test_a_change_ends_once_and_a_late_repeat_of_an_earlier_end_changes_nothing(ledger: Ledger) -> None:
    change = ledger.open_change(opening("key"))
    assert ledger.open_changes("edge") == (change,)
    for outcome in (Outcome.ROLLBACK_INCOMPLETE, Outcome.ROLLED_BACK, Outcome.ROLLBACK_INCOMPLETE):
        end(ledger, change, outcome)
    last = ledger.last_change("edge")
    assert last is not None
    assert (last.outcome, last.sentence) == (Outcome.ROLLED_BACK, "it was rolled_back")
    assert ledger.open_changes("edge") == ()
    assert [entry.action for entry in ledger.audit_entries()] == [
        "change began",
        "change ended",
        "change ended",
    ]
    with pytest.raises(BadInput, match="no change edge-9"):
        end(ledger, "edge-9")


def test_the_history_is_the_same_page_by_page(ledger: Ledger) -> None:
    for n in range(7):
        ledger.open_change(opening(f"key {n}"))
    pages: list[HistoryRow] = []
    before = None
    while page := ledger.history("edge", 3, before):
        pages += page
        before = page[-1].name
    assert tuple(pages) == ledger.history("edge")
    assert [row.name for row in pages] == [f"edge-{n}" for n in range(7, 0, -1)]
    with pytest.raises(BadInput, match="no change edge-99"):
        ledger.history("edge", before="edge-99")
    ledger.open_change(opening("west", fleet="west"))
    with pytest.raises(Unknown, match="no change west-1 of edge"):
        ledger.history("edge", before="west-1")


def test_a_second_bake_rollback_is_as_good_as_the_first(ledger: Ledger) -> None:
    """D1: the ledger kept the bad release, and reconcile brought the fleet back to it."""
    promote(ledger, OLD, ChangeKind.INSTALL)
    for _ in range(2):
        promote(ledger, NEWER)
        go_back(ledger)
        assert ledger.known_good("edge") == dict.fromkeys(GATEWAYS, OLD)


def test_going_back_takes_back_the_last_promotion_and_twice_is_once(ledger: Ledger) -> None:
    """D2, first half: after a rollback another one went forward to the bad release."""
    promote(ledger, OLD, ChangeKind.INSTALL)
    promote(ledger, NEW)
    assert rollback(ledger).targets == dict.fromkeys(GATEWAYS, OLD)
    go_back(ledger)
    last = rollback(ledger)
    assert last.targets == {}
    assert last.sentence == (
        "edge-3 went back already: gw-1, gw-2, gw-3 serve 1.1.6; name the release to go back further"
    )


@pytest.mark.parametrize("outcome", [Outcome.ROLLED_BACK, Outcome.ABORTED, Outcome.REFUSED])
def test_an_upgrade_that_moved_no_known_good_hides_no_promotion_from_a_rollback(
    ledger: Ledger, outcome: Outcome
) -> None:
    """A1, 12b: a failed canary of the next release kept the fleet on the bad one."""
    promote(ledger, OLD, ChangeKind.INSTALL)
    promote(ledger, NEW)
    end(ledger, ledger.open_change(opening("fails")), outcome)
    assert rollback(ledger).targets == dict.fromkeys(GATEWAYS, OLD)


def test_changes_without_an_effect_do_not_hide_the_one_to_take_back(ledger: Ledger) -> None:
    promote(ledger, OLD, ChangeKind.INSTALL)
    upgraded = promote(ledger, NEW)
    end(ledger, ledger.open_change(opening("nothing")), Outcome.REFUSED)
    end(ledger, ledger.open_change(opening("certificates", ChangeKind.RELOAD)))
    end(ledger, ledger.open_change(opening("strays", ChangeKind.GO_BACK)), Outcome.ROLLED_BACK)
    assert rollback(ledger).change == upgraded
    assert standings(ledger)[upgraded] == "promoted"


def test_what_was_taken_back_is_never_called_promoted(ledger: Ledger) -> None:
    promote(ledger, OLD, ChangeKind.INSTALL)
    upgraded = promote(ledger, NEW)
    back = go_back(ledger)
    assert standings(ledger) == {
        back: "rolled back",
        upgraded: f"promoted, taken back by {back}",
        "edge-1": "promoted",
    }


def test_an_incomplete_way_back_says_what_it_took_back_and_is_finished_by_the_next(ledger: Ledger) -> None:
    promote(ledger, OLD, ChangeKind.INSTALL)
    upgraded = promote(ledger, NEW)
    first = go_back(ledger, Outcome.ROLLBACK_INCOMPLETE, only=("gw-1",))
    assert standings(ledger)[upgraded] == f"promoted, taken back on 1 of 3 gateways by {first}"
    last = rollback(ledger)
    assert (last.change, last.targets) == (upgraded, dict.fromkeys(GATEWAYS, OLD))
    assert ledger.targets("edge", upgraded) == {"gw-2": OLD, "gw-3": OLD}
    second = go_back(ledger)
    assert standings(ledger)[upgraded] == f"promoted, taken back by {second}"
    assert ledger.known_good("edge") == dict.fromkeys(GATEWAYS, OLD)
    assert rollback(ledger).targets == {}


def test_a_release_gone_back_to_and_then_left_is_taken_back_too(ledger: Ledger) -> None:
    promote(ledger, OLD, ChangeKind.INSTALL)
    good, bad = promote(ledger, NEW), promote(ledger, NEWER)
    first = go_back(ledger)
    further = ledger.open_change(opening("further", ChangeKind.GO_BACK))
    record(ledger, further, OLD)
    end(ledger, further, Outcome.ROLLED_BACK)
    said = standings(ledger)
    assert said[bad] == f"promoted, taken back by {first}"
    assert said[good] == f"promoted, taken back by {further}"


def test_a_return_of_an_older_promotion_hides_no_newer_one_from_a_rollback(ledger: Ledger) -> None:
    """R1: gw-2 was left out of the upgrade to 1.4.0 and fails alone; then reconcile brings it back again."""
    promote(ledger, OLD, ChangeKind.INSTALL)
    promote(ledger, NEW)
    newer = ledger.open_change(opening("newer"))
    record(ledger, newer, NEWER, "gw-1", "gw-3")
    end(ledger, newer)
    for key in ("alone", "drifted"):
        alone = ledger.open_change(opening(key, ChangeKind.GO_BACK))
        record(ledger, alone, OLD, "gw-2")
        end(ledger, alone, Outcome.ROLLED_BACK)
        assert (rollback(ledger).change, rollback(ledger).targets) == (newer, {"gw-1": NEW, "gw-3": NEW})
    go_back(ledger)
    assert rollback(ledger).targets == {}


def test_an_unfinished_change_is_taken_back_as_a_whole(ledger: Ledger) -> None:
    promote(ledger, OLD, ChangeKind.INSTALL)
    promote(ledger, NEW)
    abandoned = ledger.open_change(opening("abandoned"))
    record(ledger, abandoned, NEWER, "gw-1")
    last = rollback(ledger)
    assert (last.change, last.finished) == (abandoned, False)
    assert last.targets == dict.fromkeys(GATEWAYS, NEW)


def test_a_gateway_that_reconcile_brought_to_its_known_good_is_still_taken_back(ledger: Ledger) -> None:
    """A1, R1: bringing a gateway to what it has already moves nothing, and hides no promotion."""
    promote(ledger, OLD, ChangeKind.INSTALL)
    upgraded = promote(ledger, NEW)
    stray = ledger.open_change(opening("stray", ChangeKind.GO_BACK))
    record(ledger, stray, NEW, "gw-2", back=True)
    end(ledger, stray, Outcome.ROLLED_BACK)
    assert rollback(ledger).targets == dict.fromkeys(GATEWAYS, OLD)
    assert ledger.targets("edge", upgraded) == dict.fromkeys(GATEWAYS, OLD)


def test_a_change_of_settings_hides_no_promotion_from_a_rollback(ledger: Ledger) -> None:
    """A1, 12c: the first rollback undid a banner, and the second one had nothing to do."""
    promote(ledger, OLD, ChangeKind.INSTALL)
    promote(ledger, NEW)
    settings = ledger.open_change(opening("banner", ChangeKind.CONFIGURE))
    end(ledger, settings)
    assert rollback(ledger).targets == dict.fromkeys(GATEWAYS, OLD)
    assert ledger.has_rollback("edge")


def test_a_rollback_is_offered_while_it_has_something_to_do(ledger: Ledger) -> None:
    """Screens 9: the main button did nothing after an installation and after a rollback."""
    promote(ledger, OLD, ChangeKind.INSTALL)
    assert not ledger.has_rollback("edge")
    promote(ledger, NEW)
    assert ledger.has_rollback("edge")
    go_back(ledger)
    assert not ledger.has_rollback("edge")
    died = ledger.open_change(opening("died"))
    assert ledger.has_rollback("edge")
    end(ledger, died, Outcome.ROLLED_BACK)
    assert not ledger.has_rollback("edge")


def test_a_change_that_takes_itself_back_is_not_promoted_again_by_a_late_write(ledger: Ledger) -> None:
    promote(ledger, OLD, ChangeKind.INSTALL)
    change = ledger.open_change(opening("turned round while promoting"))
    assert record(ledger, change, NEW, "gw-1", "gw-2") == 2
    assert record(ledger, change, OLD, back=True) == 3
    assert record(ledger, change, NEW) == 0
    end(ledger, change, Outcome.ROLLED_BACK)
    assert ledger.known_good("edge") == dict.fromkeys(GATEWAYS, OLD)
    last = ledger.last_change("edge")
    assert last is not None
    assert last.moved == 0


def test_a_repeat_is_nothing_new_and_another_release_is_never_dropped(ledger: Ledger) -> None:
    change = ledger.open_change(opening("first", ChangeKind.INSTALL))
    assert [record(ledger, change, OLD), record(ledger, change, OLD)] == [3, 0]
    with pytest.raises(Conflict, match="edge-1 has recorded another release for gw-1"):
        record(ledger, change, NEW)


def test_an_older_change_cannot_overtake_a_newer_one(ledger: Ledger) -> None:
    older, newer = ledger.open_change(opening("older")), ledger.open_change(opening("newer"))
    record(ledger, newer, NEW, "gw-2")
    with pytest.raises(Conflict, match="gw-2 was moved by edge-2 after edge-1"):
        record(ledger, older, OLD)
    assert ledger.known_good("edge") == {"gw-2": NEW}  # all of a batch or none


def test_known_good_belongs_to_the_fleet_of_its_change(ledger: Ledger) -> None:
    ledger.open_change(opening("west", fleet="west"))
    with pytest.raises(Conflict, match="west-1 is a change of west"):
        record(ledger, "west-1", NEW)
    with pytest.raises(BadInput, match="no change edge-7"):
        record(ledger, "edge-7", NEW)


def test_thousands_of_gateways_are_written_in_no_one_step_and_read_by_page(ledger: Ledger) -> None:
    change, many = ledger.open_change(opening("many")), [f"gw-{n}" for n in range(501)]
    with pytest.raises(BadInput, match="501 gateways at once"):
        record(ledger, change, NEW, *many)
    for some in (many[:500], many[500:]):
        record(ledger, change, NEW, *some)
    assert ledger.known_good_of("edge", many) == dict.fromkeys(sorted(many), NEW)
    with pytest.raises(BadInput, match="501 gateways at once"):
        ledger.record_gateways(change, [GatewayResult(gateway=name, state="kept", at=AT) for name in many])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["promote", "back", "partly back", "fail", "refuse", "abandon"]),
        st.sampled_from([OLD, NEW, NEWER]),
        st.sets(st.sampled_from(GATEWAYS), min_size=1),
    ),
    max_size=8,
)


@pytest.mark.sweep
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_whatever_happened_going_back_twice_is_going_back_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, ReleaseRef, set[str]]]
) -> None:
    ledger = Ledger.open(new_ledger(tmp_path_factory.mktemp("ledger") / "ledger.db"))
    promote(ledger, OLD, ChangeKind.INSTALL)
    promoted = dict[str, tuple[ReleaseRef, set[str]]]()
    for number, (step, to, gateways) in enumerate(steps):
        if step == "promote":
            change = ledger.open_change(opening(f"step {number}"))
            promoted[change] = (to, gateways)
            record(ledger, change, to, *gateways)
            end(ledger, change)
        elif step == "back":
            go_back(ledger)
        elif step == "partly back":
            go_back(ledger, Outcome.ROLLBACK_INCOMPLETE, only=tuple(gateways))
        elif step == "abandon":
            ledger.open_change(opening(f"step {number}"))
        else:
            outcome = Outcome.ROLLED_BACK if step == "fail" else Outcome.REFUSED
            end(ledger, ledger.open_change(opening(f"step {number}")), outcome)
    unfinished = ledger.unfinished_change("edge")
    go_back(ledger)
    for abandoned in ledger.open_changes("edge"):
        end(ledger, abandoned, Outcome.ROLLED_BACK)
    if unfinished is not None and unfinished.moved:  # completed first: what stands under it goes back now
        go_back(ledger)
    once = ledger.known_good("edge")
    go_back(ledger)
    assert ledger.known_good("edge") == once
    said = standings(ledger)
    if promoted and said[newest := max(promoted, key=lambda name: int(name[5:]))] == "promoted":
        to, gateways = promoted[newest]
        assert {once[name] for name in gateways} == {to}  # what is called promoted runs
    assert ledger.verify_audit() is None
    ledger.close()


@pytest.mark.parametrize("written", ["nothing", "a batch", "a trial", "known-good"])
def test_a_lost_upgrade_has_moved_what_is_written_down_of_it(ledger: Ledger, written: str) -> None:
    """Item 1: one rollback completes a lost change that moved sessions, and passes through any other."""
    promote(ledger, OLD, ChangeKind.INSTALL)
    promote(ledger, NEW)
    lost = ledger.open_change(opening("lost"))
    ledger.record_gateways(lost, [result("gw-1", "switching")])
    if written == "a batch":  # whose gateways may be on trial: no later row of theirs is a fact
        ledger.record_gateways(lost, [result("gw-1", BEGUN, 1)])
    elif written == "a trial":
        ledger.record_gateways(lost, [result("gw-1", "on trial", 1)])
    elif written == "known-good":
        record(ledger, lost, NEWER, "gw-1")
    expected = OLD if written == "nothing" else NEW
    assert rollback(ledger).targets == dict.fromkeys(GATEWAYS, expected)


@pytest.mark.parametrize("moved", ["on trial", "promoted", "given up by a rollback before", "nothing"])
def test_a_rollback_has_moved_what_it_takes_back_has_moved(ledger: Ledger, moved: str) -> None:
    """R7: only where all of that has moved nothing is a dead gateway not waited for."""
    promote(ledger, OLD, ChangeKind.INSTALL)
    earlier, upgrade = ledger.open_change(opening("earlier")), ledger.open_change(opening("an upgrade"))
    back = opening("a rollback", ChangeKind.GO_BACK).model_copy(update={"cause": upgrade})
    if moved == "on trial":
        trial = result("gw-1", "on trial").model_copy(update={"started": AT.timestamp()})
        ledger.record_gateways(upgrade, [trial])
    elif moved == "promoted":
        record(ledger, upgrade, NEW, "gw-1")
    elif moved == "given up by a rollback before":
        record(ledger, earlier, NEW, "gw-1")
        before = ledger.open_change(back)
        record(ledger, before, OLD, "gw-1")
        end(ledger, before, Outcome.ROLLBACK_INCOMPLETE)
    now = ledger.open_change(back.model_copy(update={"key": "the next"}))
    assert ledger.has_moved(now, "gw-1", OLD.digest) is (moved != "nothing")
    assert not ledger.has_moved(now, "gw-2", OLD.digest)


def result(gateway: str, state: str, seconds: int = 0) -> GatewayResult:
    return GatewayResult(
        gateway=gateway, state=state, sentence=f"{gateway} {state}", at=AT + timedelta(seconds=seconds)
    )


def test_of_what_is_said_of_a_gateway_the_newest_counts_in_whatever_order_it_comes(ledger: Ledger) -> None:
    change = ledger.open_change(opening("key"))
    for _ in range(2):
        ledger.record_gateways(change, [result("gw-2", "failed", 2), result("gw-1", "kept", 1)])
        ledger.record_gateways(change, [result("gw-2", "switching", 1), result("gw-3", "kept", 1)])
    ledger.record_gateways(change, [result("gw-1", "draining", 3), result("gw-1", "kept", 2)])
    assert ledger.counts_of(change) == {"draining": 1, "failed": 1, "kept": 1}
    assert ledger.gateways_of(change, "failed") == (result("gw-2", "failed", 2),)
    assert ledger.gateways_of(change) == (
        result("gw-1", "draining", 3),
        result("gw-2", "failed", 2),
        result("gw-3", "kept", 1),
    )
    assert [row.gateway for row in ledger.gateways_of(change, after="gw-1", limit=1)] == ["gw-2"]


def test_results_belong_to_a_change_that_there_is(ledger: Ledger) -> None:
    with pytest.raises(BadInput, match="no change edge-1"):
        ledger.record_gateways("edge-1", [result("gw-1", "kept")])


def test_a_gateway_in_quarantine_is_named_until_it_is_returned_or_its_time_is_over(ledger: Ledger) -> None:
    one = Quarantine(fleet="edge", gateway="gw-1", reason="refuses", person="ada", since=AT)
    other = one.model_copy(update={"gateway": "gw-2", "until": AT + timedelta(hours=1)})
    assert [ledger.set_quarantine(row) for row in (one, other, one)] == [True, True, False]
    assert ledger.quarantined("edge", AT) == (one, other)
    assert ledger.quarantined("edge", AT + timedelta(hours=1)) == (one,)
    assert ledger.quarantined("west", AT) == ()
    longer = one.model_copy(update={"reason": "disk is full"})
    assert ledger.set_quarantine(longer)
    assert [ledger.clear_quarantine("edge", "gw-1", "bob", "mended") for _ in range(2)] == [True, False]
    assert ledger.quarantined("edge", AT) == (other,)
    said = [(entry.person, entry.action, entry.subject) for entry in ledger.audit_entries()]
    assert said == [
        ("ada", "gateway quarantined", "edge/gw-1"),
        ("ada", "gateway quarantined", "edge/gw-2"),
        ("ada", "gateway quarantined", "edge/gw-1"),
        ("bob", "gateway returned", "edge/gw-1"),
    ]


async def test_each_step_of_a_change_may_be_repeated_and_answers_small(ledger: Ledger) -> None:
    book, run = LedgerActivities(ledger), ActivityEnvironment().run
    installed = promote(ledger, OLD, ChangeKind.INSTALL)
    asked, names = opening("run 1"), GATEWAYS[:2]
    batch = KnownGoodBatch(fleet="edge", change="edge-2", releases=dict.fromkeys(names, NEW))
    told = GatewayResults(change="edge-2", results=(result("gw-1", "kept"), result("gw-3", "failed")))
    left_out = Quarantine(fleet="edge", gateway="gw-3", reason="dead", person="penstock", since=AT)
    for new in (2, 0):
        if new:
            assert [await run(book.open_change, asked) for _ in range(2)] == ["edge-2", "edge-2"]
            await run(book.require_open, "edge-2")
        assert await run(book.read_open_changes, "edge") == (("edge-2",) if new else ())
        await run(book.record_gateways, told)
        assert ledger.record_known_good_batch(batch) == new
        assert await run(book.quarantine_gateway, left_out) is bool(new)
        ending = ChangeEnding(change="edge-2", outcome=Outcome.PROMOTED, sentence="every wave passed")
        await run(book.close_change, ending)
    assert ledger.counts_of("edge-2") == {"failed": 1, "kept": 1}
    assert ledger.quarantined("edge") == (left_out,)
    back = ReturnEntry(fleet="edge", gateways=("gw-1", "gw-3"), person="ada", reason="mended")
    assert [await run(book.return_gateways, back) for _ in range(2)] == [("gw-3",), ()]
    last = ledger.last_change("edge")
    assert last is not None
    assert (last.name, last.moved) == ("edge-2", 2)
    began = [entry.subject for entry in ledger.audit_entries() if entry.action == "change began"]
    ended = [entry.subject for entry in ledger.audit_entries() if entry.action == "change ended"]
    assert began == ended == [installed, "edge-2"]


async def test_a_change_that_has_its_end_neither_begins_again_nor_goes_on(ledger: Ledger) -> None:
    """The engine repeats a workflow for whoever reaches it; its change must not be opened by that again."""
    book, run = LedgerActivities(ledger), ActivityEnvironment().run
    asked = opening("a request").model_copy(update={"run": "run 1"})
    change = await run(book.open_change, asked)
    with pytest.raises(ApplicationError, match="another run"):
        await run(book.open_change, asked.model_copy(update={"run": "run 2"}))
    end(ledger, change, Outcome.ROLLED_BACK)
    for going_on in (run(book.open_change, asked), run(book.require_open, change)):
        with pytest.raises(ApplicationError, match=f"{change} has ended") as refused:
            await going_on
        assert refused.value.type == "ChangeEnded"
        assert refused.value.non_retryable
    end(ledger, change, Outcome.PROMOTED)
    assert ledger.change(change).outcome is Outcome.ROLLED_BACK


async def test_a_refusal_of_the_ledger_is_not_tried_again(ledger: Ledger) -> None:
    told = GatewayResults(change="edge-1", results=(result("gw-1", "kept"),))
    with pytest.raises(ApplicationError, match="no change edge-1") as refused:
        await ActivityEnvironment().run(LedgerActivities(ledger).record_gateways, told)
    assert refused.value.non_retryable


def test_what_a_person_put_in_quarantine_only_a_person_returns(ledger: Ledger) -> None:
    one = Quarantine(fleet="edge", gateway="gw-1", reason="bad card", person="ada", since=AT)
    ledger.set_quarantine(one)
    again = one.model_copy(update={"reason": "does not answer", "person": PENSTOCK})
    assert not ledger.set_quarantine(again)
    assert not ledger.clear_quarantine("edge", "gw-1", PENSTOCK, "it is back")
    assert ledger.quarantined("edge", AT) == (one,)
    assert ledger.clear_quarantine("edge", "gw-1", "bob", "new card")


def test_the_end_of_a_quarantine_that_was_read_before_ends_no_later_one_of_a_person(ledger: Ledger) -> None:
    """An operator may quarantine the gateway between the two, for a reason of their own."""
    read = Quarantine(fleet="edge", gateway="gw-1", reason="steered", person=BREAK_GLASS, since=AT)
    own = read.model_copy(update={"reason": "bad card", "person": "ada"})
    for row in (read, own):
        ledger.set_quarantine(row)
    assert not ledger.end_quarantine(read, "it is back")
    assert ledger.quarantined("edge", AT) == (own,)


def test_what_was_done_on_a_host_replaces_no_word_of_an_operator_that_was_said_since_it_was_seen(
    ledger: Ledger,
) -> None:
    own = Quarantine(fleet="edge", gateway="gw-1", reason="bad card", person="ada", since=AT)
    tried = own.model_copy(update={"gateway": "gw-2", "person": PENSTOCK, "reason": "does not answer"})
    ledger.set_quarantines((own, tried))
    ledger.hand_over("edge", {"gw-3": "returned"}, "ada", "mended")
    steered = dict.fromkeys(("gw-1", "gw-2", "gw-3", "gw-4"), "steered")
    for _ in range(2):  # the step may be repeated
        assert ledger.leave_to_operators("edge", steered, {"gw-2": AT}) == {"gw-2", "gw-4"}
    rows = {one.gateway: (one.person, one.handed_over) for one in ledger.quarantined("edge")}
    assert rows == {
        "gw-1": ("ada", False),
        "gw-2": (BREAK_GLASS, False),
        "gw-3": (PENSTOCK, True),
        "gw-4": (BREAK_GLASS, False),
    }


def test_an_operators_quarantine_that_is_over_keeps_no_gateway_from_being_left_alone(ledger: Ledger) -> None:
    over = datetime.now(UTC) - timedelta(hours=1)
    own = Quarantine(fleet="edge", gateway="gw-1", reason="bad card", person="ada", since=over, until=over)
    ledger.set_quarantine(own)
    assert ledger.leave_to_operators("edge", {"gw-1": "steered"}, {}) == {"gw-1"}
    assert [one.person for one in ledger.quarantined("edge")] == [BREAK_GLASS]


def test_penstock_ends_a_quarantine_for_break_glass_and_its_audit_record_says_so(ledger: Ledger) -> None:
    steered = Quarantine(fleet="edge", gateway="gw-1", reason="steered", person=BREAK_GLASS, since=AT)
    ledger.set_quarantine(steered)
    assert [ledger.end_quarantine(steered, "it is back") for _ in range(2)] == [True, False]
    assert ledger.quarantined("edge", AT) == ()
    assert [(entry.person, entry.action) for entry in ledger.audit_entries()] == [
        (BREAK_GLASS, "gateway quarantined"),
        (PENSTOCK, "gateway returned"),
    ]


def test_a_gateway_that_penstock_gave_up_counts_from_its_first_failure(ledger: Ledger) -> None:
    first = Quarantine(fleet="edge", gateway="gw-1", reason="refuses", person=PENSTOCK, since=AT)
    later = first.model_copy(update={"reason": "is silent", "since": AT + timedelta(hours=1)})
    assert [ledger.set_quarantine(row) for row in (first, later)] == [True, True]
    [known] = ledger.quarantined("edge", AT)
    assert (known.reason, known.since) == ("is silent", AT)


def test_each_change_that_tries_a_gateway_counts_once_until_the_gateway_is_returned(ledger: Ledger) -> None:
    mine = Quarantine(fleet="edge", gateway="gw-1", reason="refuses", person=PENSTOCK, since=AT)
    hers = Quarantine(fleet="edge", gateway="gw-2", reason="bad card", person="ada", since=AT)
    ledger.set_quarantines((mine, hers))
    for change in ("edge-1", "edge-1", "edge-2"):
        ledger.record_tries("edge", dict.fromkeys(("gw-1", "gw-2", "gw-3"), True), change)
        ledger.set_quarantine(mine.model_copy(update={"reason": f"refuses {change}"}))
    tried, left_alone = ledger.quarantined("edge", AT)
    returns = ledger.returns("edge")
    assert {name: (one.tries, one.relapses, one.change) for name, one in returns.items()} == {
        "gw-1": (2, 0, "edge-2"),
        "gw-3": (2, 1, "edge-2"),  # which took part in changes all the time, and was not back
    }
    assert (tried.since, left_alone) == (AT, hers)
    ledger.hand_over("edge", {"gw-1": "it runs another release"}, "bob", "mended")
    assert ({*ledger.returns("edge")}, tried.handed_over) == ({"gw-3"}, False)
    ledger.set_quarantine(mine.model_copy(update={"reason": "refuses again"}))  # by the change that brings it
    assert ledger.quarantined("edge", AT)[0].handed_over


def test_a_gateway_that_leaves_its_known_good_again_after_each_return_is_left_out(ledger: Ledger) -> None:
    tried = {"gw-1": True, "gw-2": True, "gw-3": False}  # the last one by the doing of a change
    for number in range(MOST_RELAPSES + 1):
        ledger.record_tries("edge", tried, f"edge-{number}")
        ledger.clear_quarantines("edge", ["gw-1", "gw-3"], PENSTOCK, "it is back")
    assert {name: one.relapses for name, one in ledger.returns("edge").items()} == {
        "gw-1": MOST_RELAPSES + 1,
        "gw-2": 1,  # which was never back
        "gw-3": 0,
    }
    assert [row.gateway for row in ledger.quarantined("edge")] == ["gw-1"]


def test_every_event_of_a_change_is_kept_however_few_its_status_shows(ledger: Ledger) -> None:
    """D15."""
    name = ledger.open_change(opening("long"))
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ada", reason="CVE")
    said = [Event(at=AT + timedelta(seconds=n), sentence=f"event {n}") for n in range(3 * KEPT_EVENTS)]
    for first in range(0, len(said), KEPT_EVENTS // 2):
        again = max(0, first - 1)  # a step that is repeated tells what it told before
        ledger.record_story(order, Told(name=name), again, said[again : first + KEPT_EVENTS // 2])
    found, after = list[str](), 0
    while page := ledger.events_of_change(name, after):
        found += [row.sentence for row in page]
        after = page[-1].id
    assert found == [event.sentence for event in said]


async def test_to_take_one_gateway_in_again_nobody_reads_of_all_that_are_left_out(ledger: Ledger) -> None:
    """R12: of ten thousand each one that came back took half a second, and other fleets' steps waited."""
    left_out = Quarantine(fleet="edge", gateway="gw-1", reason="silent", person="penstock", since=AT)
    ledger.set_quarantines(left_out.model_copy(update={"gateway": f"gw-{n}"}) for n in range(50))
    read = list[str]()

    def note(*said: object) -> None:
        read.append(str(said[2]))

    listen(ledger._engine, "before_cursor_execute", note)
    back = ReturnEntry(fleet="edge", gateways=("gw-7", "gw-99"), person="penstock", reason="it is back")
    run = ActivityEnvironment().run
    assert await run(LedgerActivities(ledger).return_gateways, back) == ("gw-7",)
    assert read
    assert not [one for one in read if "FROM quarantine" in one and not one.startswith("DELETE")]
