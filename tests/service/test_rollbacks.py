"""What a rollback answers before it acts, on every surface; what is never offered, or called stored."""

import asyncio
import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from orchestrator.exit_code import ExitCode
from orchestrator.service.changes import Turned
from orchestrator.service.service import Service
from orchestrator.service.ways_back import WaysBack
from orchestrator.store import tables
from orchestrator.store.ledger import Ledger
from orchestrator.words.offers import spelled
from policies.drift import by_hand
from policies.model.adoption import MARK
from policies.model.change import (
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    KnownGoodBatch,
    Outcome,
    Phase,
    Quarantine,
)
from policies.model.command import CommandReceipt
from policies.model.errors import Unavailable
from policies.model.operation import BREAK_GLASS
from policies.model.plan import ReleaseRef
from policies.model.settings import Setting
from policies.model.value import digest_of
from policies.model.way_back import Confirmation, RollbackAsked, RollbackPreview
from policies.planning.settings import Changing
from policies.rebuilding import became_known_good
from policies.status.told import Told
from tests.service.command_line import CommandLine
from tests.service.conftest import PAGE
from tests.service.shown import Element, shown
from tests.service.test_every_state import STATES, written
from tests.unit.fleets import OLD, facts_of, fleet, gateway, planned
from tests.unit.test_rebuilding import steered_by

SERVES = "1.3.0, promoted by edge-2, is taken back: edge-1 will serve 1.1.6"


def release(version: str) -> ReleaseRef:
    digest = digest_of(version.encode())
    return ReleaseRef(digest=digest, product="ocserv", version=version, executable=digest)


def change(
    ledger: Ledger,
    kind: ChangeKind,
    version: str,
    outcome: Outcome | None = Outcome.PROMOTED,
    *,
    gateway: str = "edge-1",
    plan: str | None = None,
) -> str:
    """Write a change down, and its known-good where it moved any."""
    opening = ChangeOpening(
        key=f"{kind} {version} {ledger.newest_number('edge')}",
        fleet="edge",
        kind=kind,
        requested_by="ada",
        reason="CVE-2030-1",
        release=version,
        release_digest=digest_of(version.encode()),
        plan=plan,
    )
    name = ledger.open_change(opening)
    if outcome in {Outcome.PROMOTED, Outcome.ROLLED_BACK} and kind is not ChangeKind.CONFIGURE:
        batch = KnownGoodBatch(fleet="edge", change=name, releases={gateway: release(version)})
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
    digest = answer.pop("digest")
    assert digest.startswith("sha256:")
    assert answer == {"change": "edge-2", "does": True, "sentence": SERVES, "confirm": None, "below": None}
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


@pytest.mark.sweep
@pytest.mark.parametrize("words", [(), ("--yes",), ("--id", "one")])
async def test_a_second_rollback_says_that_it_goes_below_what_has_gone_back_and_asks_on_a_terminal(
    penstock: CommandLine, promoted: Ledger, words: tuple[str, ...]
) -> None:
    """Given twice, it took the good release under a failed canary back, fleet-wide and without a question."""
    canary = change(promoted, ChangeKind.UPGRADE, "1.4.0", None)
    ended = ChangeEnding(change=canary, outcome=Outcome.ROLLED_BACK, sentence="every gateway is back")
    promoted.close_change(ended)
    unless = "Unless one was ordered before: " if words == ("--id", "one") else ""
    line = f"{unless}edge: edge-3 to 1.4.0 has gone back already, and this goes further: {SERVES}."
    typed = ("rollback", "edge", *words, "--reason", "logins fail")
    said = await penstock(*typed)
    assert (said.err.splitlines()[0] == line, "Go further" in said.err) == ("--yes" not in words, False)
    code, shown = await asyncio.to_thread(at_a_terminal, penstock, typed, "n")
    assert ("Go further back? [y/n]" in shown, code == ExitCode.CONFLICT) == (not words, not words), shown


def at_a_terminal(penstock: CommandLine, typed: Sequence[str], answer: str) -> tuple[int, str]:
    """Type the command and this answer at a terminal; return how it ended, and its errors."""
    terminal, inside = pty.openpty()
    try:
        os.write(terminal, f"{answer}\n".encode())
        command = [sys.executable, "-m", "orchestrator", *typed]
        ended = subprocess.run(
            command, stdin=inside, capture_output=True, text=True, env=penstock.environment, check=False
        )
    finally:
        os.close(terminal)
        os.close(inside)
    return ended.returncode, ended.stderr


async def test_a_rollback_by_force_prints_what_it_ends_before_it_acts(
    penstock: CommandLine, promoted: Ledger
) -> None:
    """It printed what a rollback without force does, and by name nothing."""
    change(promoted, ChangeKind.UPGRADE, "1.4.0", None)
    said = await penstock("rollback", "edge", "--force", "--reason", "it hangs")
    assert said.err.splitlines()[0].startswith("edge: edge-3 is ended by force; then "), said


@pytest.mark.sweep
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


def test_a_rollback_of_settings_compares_each_gateway_that_joined_since_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each was compared with all that had settings: 25 million times for 5,000 and 5,000."""
    names = [f"gw-{number}" for number in range(200)]
    had, joined = names[:100], names[100:]
    dns = {name: {"dns": (f"10.0.0.{at}",)} for at, name in enumerate(names)}
    dns[joined[-1]] = dns[had[-1]]
    many = fleet(*(gateway(name).model_copy(update={"settings": dns[name]}) for name in names))
    given = Changing(gateways=tuple(had), keys=("dns",), sentences=())
    settings = ledger.record_settings(many, tuple(had), given)
    reload = change(ledger, ChangeKind.CONFIGURE, "settings", plan=settings)
    joiners = many.model_copy(update={"gateways": many.gateways[100:]})
    first = ledger.record_first(joiners, OLD, {one.name: many.settings_of(one) for one in joiners.gateways})
    change(ledger, ChangeKind.INSTALL, "1.1.6", plan=first)
    compared, is_equal = [0], Setting.__eq__

    def counted(one: Setting, other: object) -> bool:
        compared[0] += 1
        return is_equal(one, other)

    monkeypatch.setattr(Setting, "__eq__", counted)
    order, _ = WaysBack(ledger).order(
        many, "ada", "no name is found", RollbackAsked(settings=True), None, None, None
    )
    monkeypatch.undo()
    assert order is not None
    assert order.cause == reload
    assert set(ledger.plan_members(order.plan or "")) == {*had, joined[-1]}
    assert compared[0] <= len(names)


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


@pytest.mark.sweep
async def test_no_rollback_is_offered_after_one_that_left_an_older_promotion_of_what_it_went_back_to(
    penstock: CommandLine, promoted: Ledger
) -> None:
    """M2: 1.1.6, 1.3.0, 1.1.6 by promotions and back to 1.3.0, whose own promotion nothing takes back."""
    change(promoted, ChangeKind.UPGRADE, "1.1.6")
    assert "penstock rollback edge --reason TEXT" in (await penstock("status", "edge")).out
    change(promoted, ChangeKind.GO_BACK, "1.3.0", Outcome.ROLLED_BACK)
    assert "penstock rollback" not in (await penstock("status", "edge")).out
    said = await penstock("rollback", "edge", "--reason", "users call")
    assert "Nothing to do" not in said.err
    assert "took gateways to 1.3.0, which was named" in said.err.splitlines()[0]


async def test_a_rollback_is_offered_after_a_promotion_and_after_a_canary_that_failed(
    penstock: CommandLine, promoted: Ledger
) -> None:
    """Screens 9, A1."""
    assert "penstock rollback edge --reason TEXT" in (await penstock("status", "edge")).out
    change(promoted, ChangeKind.UPGRADE, "1.4.0", Outcome.REFUSED)
    assert "penstock rollback edge --reason TEXT" in (await penstock("status", "edge")).out


async def test_no_rollback_is_offered_where_only_a_gateway_that_stays_as_it_is_has_the_release(
    penstock: CommandLine, page: httpx.AsyncClient, api: httpx.AsyncClient, promoted: Ledger
) -> None:
    promoted.record_states("edge", [steered_by("edge-1", "edge-9999999999/1")], {})
    answer = (await api.get("/fleets/edge/rollback")).json()
    assert (answer["does"], "edge-1 stays as it is" in answer["sentence"]) == (False, True)
    assert "penstock rollback" not in (await penstock("status", "edge")).out
    assert "orders/roll_back" not in (await page.get("/fleets/edge")).text


async def test_a_rollback_that_takes_force_is_offered_with_force(
    penstock: CommandLine, api: httpx.AsyncClient, promoted: Ledger
) -> None:
    promoted.record_states("edge", [steered_by("edge-1", "edge-99/1")], {})
    assert "penstock rollback edge --force" in (await penstock("status", "edge")).out
    refused = (await api.get("/fleets/edge/rollback")).json()
    assert (refused["code"], "older than its gateways" in refused["detail"]) == ("Refused", True)


async def test_a_rollback_of_an_old_promotion_is_offered_with_the_release_that_it_needs(
    penstock: CommandLine, page: httpx.AsyncClient, promoted: Ledger
) -> None:
    """A day after an upgrade no rollback was offered, and a plain one was refused without a name."""
    with promoted.engine.begin() as connection:
        connection.execute(update(tables.known_good).values(since=datetime.now(UTC) - timedelta(days=2)))
        connection.execute(update(tables.changes).values(ended=datetime.now(UTC) - timedelta(days=2)))
    named = "penstock rollback edge --to 1.1.6 --reason TEXT (a second operator approves it)"
    assert named in " ".join((await penstock("status", "edge")).out.split())
    assert "orders/roll_back?to=1.1.6" in (await page.get("/fleets/edge")).text


@pytest.mark.parametrize("owner", ["edge-1", BREAK_GLASS])
async def test_a_rollback_is_offered_where_a_gateway_is_not_on_its_known_good(
    penstock: CommandLine, ledger: Ledger, owner: str
) -> None:
    """Break-glass led a gateway to the release that had gone back, and `rollback` had nothing to do."""
    change(ledger, ChangeKind.INSTALL, "1.1.6")
    assert "penstock rollback" not in (await penstock("status", "edge")).out
    seen = steered_by("edge-1", "edge-1/1").model_copy(update={"owner": owner})
    ledger.record_states("edge", [seen], {})
    if owner == BREAK_GLASS:
        why = by_hand("edge", seen)
        row = Quarantine(
            fleet="edge", gateway="edge-1", reason=why, person=BREAK_GLASS, since=datetime.now(UTC)
        )
        ledger.set_quarantine(row)
    assert "penstock rollback edge --reason TEXT" in (await penstock("status", "edge")).out
    said = await penstock("rollback", "edge", "--reason", "users call")
    assert "edge-1 does not say that it is on known-good, and goes there: edge-1 will serve 1.1.6" in said.err
    assert ("edge-1 was steered by break-glass" in said.err) is (owner == BREAK_GLASS)


async def test_a_rollback_by_name_takes_along_what_break_glass_led_off_that_release(
    penstock: CommandLine, ledger: Ledger
) -> None:
    ledger.add_release(release("1.1.6"), source="http://repository", signers=("ana",), manifest_json="{}")
    change(ledger, ChangeKind.INSTALL, "1.1.6")
    seen = steered_by("edge-1", "edge-1/1").model_copy(update={"owner": BREAK_GLASS})
    ledger.record_states("edge", [seen], {})
    said = await penstock("rollback", "edge", "--reason", "users call", "--to", "1.1.6")
    assert "edge-1 will serve 1.1.6; edge-1 was steered by break-glass" in said.err


def test_a_hand_back_of_one_gateway_that_waits_leaves_the_rollback_of_the_fleet_whole(ledger: Ledger) -> None:
    """A rollback took only that gateway back; without an answer its newest release was taken back."""
    both = fleet(*(gateway(name) for name in ("edge-1", "edge-2")))
    for kind, version in ((ChangeKind.ADOPT, f"1.1.6{MARK}"), (ChangeKind.UPGRADE, "1.3.0")):
        for one in both.gateways:
            change(ledger, kind, version, gateway=one.name)
    with ledger.engine.begin() as connection:
        connection.execute(update(tables.known_good).values(since=datetime.now(UTC) - timedelta(days=2)))
    for one in both.gateways:
        change(ledger, ChangeKind.UPGRADE, "1.4.0", gateway=one.name)
    confirm = WaysBack(ledger).hand_back(both, ["edge-1"], "ana", "as it was", None).confirm
    assert confirm is not None
    assert confirm.by_itself is None
    assert confirm.known_good is not None
    back = {name: one.back for name, one in ledger.plan_members(confirm.known_good).items()}
    assert back == dict.fromkeys(("edge-1", "edge-2"), release("1.3.0"))


@pytest.mark.parametrize("waits", [True, False])
async def test_the_answer_to_a_second_rollback_names_what_the_first_one_leads_to(
    service: Service, api: httpx.AsyncClient, promoted: Ledger, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """H1: it named the release that the fleet was leaving, whose known-good had not moved yet."""
    fleet = service._fleets.named("edge")
    back, kept = [promoted.record_return(fleet, {"edge-1": release(one)}) for one in ("1.1.6", "1.0.0")]
    confirm = Confirmation(
        reason="every gateway of edge goes back at once",
        within=timedelta(minutes=15),
        change=kept,
        known_good=back,
        by_itself=back,
    )
    order = ChangeOrder(
        fleet="edge", kind=ChangeKind.GO_BACK, plan=kept if waits else back, reason="users call"
    )
    name = change(promoted, ChangeKind.GO_BACK, "1.1.6", None)
    told = Told(name=name, waits_until=datetime(2096, 1, 1, tzinfo=UTC) if waits else None)
    promoted.record_story(order.model_copy(update={"confirm": confirm}), told, 0, [])

    async def heard(*_: object, **__: object) -> Turned:
        return Turned(CommandReceipt(id="back", accepted=True, sentence="Rolling back."))

    monkeypatch.setattr(service._stops.__class__, "turn_round", heard)
    body = {"kind": "roll_back", "reason": "users call"}
    answer = await api.post("/fleets/edge/commands", json=body, headers={"Idempotency-Key": "again"})
    assert answer.json()["sentence"] == "Rolling back. Then edge-1 will serve 1.1.6."


@pytest.mark.parametrize("named", [(), ("--to", "1.1.6")])
async def test_a_rollback_by_a_ledger_that_lost_what_its_gateways_serve_is_refused_and_says_what_helps(
    service: Service,
    penstock: CommandLine,
    api: httpx.AsyncClient,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    named: tuple[str, ...],
) -> None:
    """It said "Nothing to do" and ended with 0 while every gateway served what was just promoted."""

    async def free(*_: object, **__: object) -> Turned:
        return Turned()

    monkeypatch.setattr(service._stops.__class__, "turn_round", free)

    async def refused(why: str) -> None:
        said = await penstock("rollback", "edge", *named, "--reason", "users call", "--wait")
        assert said.code == 5, said.err
        assert said.err.startswith(f"Refused: {why}"), said.err
        for helps in (f"penstock {ON_THE_HOST}", "ledger-lost", "penstock ledger rebuild edge --reason"):
            assert helps in said.err
        asked = {"to": "1.1.6"} if named else {}
        answer = (await api.get("/fleets/edge/rollback", params=asked)).json()
        assert (answer["code"], answer["detail"].startswith(why)) == ("Refused", True)

    nothing = "the ledger has no known-good of edge, and edge-1"
    await refused(f"{nothing} has not said what serves there")
    ledger.record_states("edge", [], {"edge-1": "its agent does not answer"})
    await refused(f"{nothing} has not said what serves there")
    ledger.record_states("edge", [steered_by("edge-1", "primed")], {})
    await refused(f"{nothing} serves a release")
    ledger.record_states("edge", [steered_by("edge-1", "edge-105/1")], {})
    await refused("the ledger is older than its gateways: edge-1 was last steered by edge-105")


async def test_a_rollback_says_after_a_rebuild_that_what_served_is_known_good_and_how_it_is_left(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    """It said that there was nothing to do, as if the release that serves had been judged."""
    rebuilt = ledger.rebuild("edge", {"edge-1": release("1.3.0")}, 7, "ana", "the disk has died")
    answer = (await api.get("/fleets/edge/rollback")).json()
    assert answer["sentence"] == (
        f"no promotion can be taken back: edge-1 serves 1.3.0; {became_known_good(rebuilt)}"
    )
    assert answer["sentence"].endswith(
        f"as root on each gateway's host: penstock {ON_THE_HOST} --reason TEXT, or --slot SLOT instead of "
        "--back where it refuses"
    )
    change(ledger, ChangeKind.UPGRADE, "1.1.6")
    assert rebuilt not in (await api.get("/fleets/edge/rollback")).json()["sentence"]


@pytest.mark.parametrize("output", ["table", "json"])
async def test_a_rollback_that_is_repeated_while_gateways_are_not_back_ends_as_status_does(
    service: Service, penstock: CommandLine, promoted: Ledger, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """It ended with 0, and said that the gateway which it waited for served known-good."""
    name = change(promoted, ChangeKind.UPGRADE, "1.4.0", None)
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, reason="CVE")
    not_back = {"edge-1": "nft cannot list its table"}
    told = Told(name=name, phase=Phase.ROLLING_BACK, moved=True, not_back=not_back, only_waits=True)
    promoted.record_story(order, told, 0, [])
    waits = f"{name} rolls back already, and waits for edge-1: nft cannot list its table."
    receipt = CommandReceipt(id="1", accepted=True, sentence=waits, only_waits=True, incomplete=True)

    async def heard(*_: object, **__: object) -> Turned:
        return Turned(receipt)

    async def given_way(*_: object, **__: object) -> str:
        return ""

    monkeypatch.setattr(service._stops.__class__, "turn_round", heard)
    monkeypatch.setattr(service._stops.__class__, "_give_way", given_way)
    said = await penstock("rollback", "edge", "--reason", "again", "--yes", "-o", output)
    status = await penstock("status", "edge")
    assert (said.code, status.code) == (7, 7), said.err
    assert waits in said.out
    assert "edge-1 is not back" in said.out
    assert "edge-1 serves" not in said.out
    if output == "json":
        assert json.loads(said.out)["data"]["incomplete"] is True


ON_THE_HOST = "agent break-glass --config /etc/penstock/agent.yaml --back"


@pytest.mark.sweep
async def test_an_order_that_was_not_stored_is_not_called_stored(
    penstock: CommandLine, promoted: Ledger
) -> None:
    """Screens 7: with a dead engine the command called the order stored; nothing was, and nothing ran."""
    del promoted
    said = await penstock("rollback", "edge", "--reason", "users call")
    assert said.code == 1
    last = said.err.splitlines()[-1]
    assert "NOT DONE, nothing is stored" in last
    assert last.endswith(f"as root: penstock {ON_THE_HOST} --reason TEXT")
    typed = await penstock(*ON_THE_HOST.split(), "--reason", "TEXT")
    assert "/etc/penstock/agent.yaml" in typed.err  # it misses that file of a gateway, and no option
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


async def test_a_rollback_that_would_serve_other_releases_than_were_shown_does_nothing_and_shows_the_new_ones(
    api: httpx.AsyncClient, promoted: Ledger
) -> None:
    """R10: the order was not bound to what its operator read."""
    shown = (await api.get("/fleets/edge/rollback")).json()["digest"]
    change(promoted, ChangeKind.UPGRADE, "1.4.0")
    answer = await ordered(api, shown)
    assert answer.status_code == httpx.codes.CONFLICT, answer.text
    assert "1.4.0, promoted by edge-3, is taken back: edge-1 will serve 1.3.0" in answer.json()["detail"]
    shown = (await api.get("/fleets/edge/rollback")).json()["digest"]
    assert_went_on(await ordered(api, shown))


async def test_a_rollback_to_the_same_releases_is_never_refused_for_what_happened_since(
    api: httpx.AsyncClient, promoted: Ledger
) -> None:
    """R10, R12: a change that only waits does not change what a rollback does."""
    shown = (await api.get("/fleets/edge/rollback")).json()["digest"]
    change(promoted, ChangeKind.UPGRADE, "1.4.0", None)
    assert_went_on(await ordered(api, shown))


async def test_a_rollback_waits_for_no_ledger_to_compare_it_with_what_was_shown(
    api: httpx.AsyncClient, service: Service, promoted: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12."""
    del promoted

    async def silent(*_: object, **__: object) -> None:
        raise Unavailable("the ledger does not answer")

    monkeypatch.setattr(service._stops.__class__, "rollback_preview", silent)
    assert_went_on(await ordered(api, digest_of(b"what was shown")))


async def test_the_command_shows_a_rollback_that_has_changed_anew_and_then_goes_on(
    penstock: CommandLine, service: Service, promoted: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R10: without a terminal no operator is there to answer, and a rollback is never refused for it."""
    asked = service.rollback_preview
    root = service.people.at_the_socket(0)
    old = await asked(root, "edge", RollbackAsked())
    change(promoted, ChangeKind.UPGRADE, "1.4.0")
    answers = [old]

    async def once_old(*given: Any, **named: Any) -> RollbackPreview:
        return answers.pop() if answers else await asked(*given, **named)

    monkeypatch.setattr(service, "rollback_preview", once_old)
    said = await penstock("rollback", "edge", "--reason", "users call")
    new = "1.4.0, promoted by edge-3, is taken back: edge-1 will serve 1.3.0"
    assert said.err.splitlines()[:2] == [
        f"edge: {SERVES}.",
        f"It does something else now than was shown, and nothing is done yet. edge: {new}.",
    ]
    assert "NOT DONE, nothing is stored: the engine" in said.err


async def test_an_order_without_a_name_reaches_no_other_fleet_because_of_a_typo_in_a_file(
    penstock: CommandLine, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    """M4: the fleet whose file is wrong was none any more, so the order was for the one that was left."""
    assert (await api.get("/fleets")).json()["fleets"] == ["core", "edge"]
    for name in ("core", "edge"):
        file = tmp_path / "fleets" / f"{name}.yaml"
        file.write_text(file.read_text() + "typo: 1\n")
        said = await penstock("hold", "--reason", "users call")
        assert (said.code, "say which fleet; there is core, edge" in said.err) == (2, True), said.err


async def test_a_change_is_followed_past_a_typo_in_the_file_of_its_fleet(
    penstock: CommandLine, promoted: Ledger, tmp_path: Path
) -> None:
    """M4: a rollback that had begun ended with "nothing was changed", and went on."""
    name = change(promoted, ChangeKind.UPGRADE, "1.4.0", None)
    file = tmp_path / "fleets" / "edge.yaml"
    right = file.read_text()
    file.write_text(right + "typo: 1\n")
    watch = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "orchestrator", "watch", "edge"],
        env=penstock.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert watch.stderr is not None
    said = (await watch.stderr.readline()).decode()
    assert said.startswith("How it goes on is not shown: "), said
    assert "typo" in said
    file.write_text(right)
    promoted.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="it is well"))
    await watch.communicate()
    assert watch.returncode == 0


async def test_a_fleet_whose_file_has_a_typo_is_shown_as_it_was_planned_for_last_and_says_so(
    penstock: CommandLine, page: httpx.AsyncClient, promoted: Ledger, tmp_path: Path
) -> None:
    """M4: status answered with the fault of the file alone, and the list of fleets left the fleet out."""
    promoted.record_plan(planned(facts_of(2)))
    assert "as it was last planned" not in (await penstock("status", "edge")).out
    file = tmp_path / "fleets" / "edge.yaml"
    file.write_text(file.read_text() + "typo: 1\n")
    said = await penstock("status", "edge")
    assert said.code == 6, said.err
    status = " ".join(said.out.split())
    assert "NEEDS YOU" in status
    assert "typo" in status
    assert "This is the fleet as it was last planned: no change begins until the file is mended" in status
    listed = (await page.get("/")).text
    assert "typo" in listed
    assert 'href="/fleets/edge"' in listed


@pytest.mark.parametrize(
    ("state", "verb"),
    [
        ("held by a person", "resume"),
        ("rolling back, one missing", "quarantine"),
    ],
)
async def test_every_command_that_is_offered_is_accepted_while_the_file_of_its_fleet_is_wrong(
    state: str, verb: str, penstock: CommandLine, promoted: Ledger, tmp_path: Path
) -> None:
    """`status` offered `resume`, which the same file then refused."""
    promoted.record_plan(planned(facts_of(2)))
    written(promoted, STATES[state])
    file = tmp_path / "fleets" / "edge.yaml"
    file.write_text(file.read_text() + "typo: 1\n")
    status = json.loads((await penstock("status", "edge", "-o", "json")).out)["data"]
    assert "typo" in status["fault"]
    assert verb in {one["verb"] for one in status["offers"]}
    for offer in status["offers"]:
        given = await penstock(*shlex.split(spelled(offer))[1:])
        assert "typo" not in given.err, (spelled(offer), given.err)


async def test_a_rollback_with_yes_acts_at_once(penstock: CommandLine, promoted: Ledger) -> None:
    del promoted
    said = await penstock("rollback", "edge", "--reason", "users call", "--yes")
    assert SERVES not in said.err
    assert "NOT DONE, nothing is stored: the engine" in said.err


async def test_the_page_shows_a_rollback_that_has_changed_anew_and_carries_that_one_out(
    page: httpx.AsyncClient, promoted: Ledger
) -> None:
    """R10: a form that was refused once was bound for ever to what was not so any more."""
    sheet = shown((await page.get("/fleets/edge/orders/roll_back")).text)
    change(promoted, ChangeKind.UPGRADE, "1.4.0")
    changed = await sent(page, sheet)
    assert changed.status_code == httpx.codes.CONFLICT
    anew = shown(changed.text)
    assert [one.text for one in anew.all("p", "does")] == [
        "1.4.0, promoted by edge-3, is taken back: edge-1 will serve 1.3.0."
    ]
    assert (await sent(page, anew)).status_code == httpx.codes.SERVICE_UNAVAILABLE


async def test_a_vote_of_the_command_is_for_the_verdict_that_it_prints(
    penstock: CommandLine, service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B4: the command sent no ballot, so its vote was for whatever spoke against the wave by then."""
    written(ledger, STATES["waiting for a person's decision"])
    ballot = (await service.status(service.people.at_the_socket(0), "edge")).change
    given: list[dict[str, Any]] = []

    async def command(*_: object, **named: Any) -> CommandReceipt:
        given.append(named)
        return CommandReceipt(id="vote", accepted=True, sentence="One more operator has to vote.")

    monkeypatch.setattr(service, "command", command)
    said = await penstock("promote", "edge", "--reason", "the canary is too small")
    assert said.code == 0, said.err
    assert said.err.splitlines() == [
        "edge-1 to known-good, wave 1: not proven either way: logins: 12 of 12",
        "  logins: not proven either way: 12 of 12 (bad 0.3)",
    ]
    assert ballot is not None
    assert [(one["approves"], one["change"]) for one in given] == [(ballot.ballot, "edge-1")]


async def test_a_vote_that_names_no_verdict_is_refused_with_the_verdict(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    """B4: no frontend may send a vote without what was shown."""
    written(ledger, STATES["waiting for a person's decision"])
    answer = await api.post(
        "/fleets/edge/commands",
        json={"kind": "promote", "reason": "it is fine"},
        headers={"Idempotency-Key": "vote"},
    )
    assert answer.status_code == httpx.codes.CONFLICT
    assert "not enough data: logins: 12 of 12" in answer.json()["detail"]


async def ordered(api: httpx.AsyncClient, shown: str) -> httpx.Response:
    """Order the rollback that was shown."""
    body = {"kind": "roll_back", "reason": "users call", "shown": shown}
    return await api.post("/fleets/edge/commands", json=body, headers={"Idempotency-Key": shown})


def assert_went_on(answer: httpx.Response) -> None:
    """Require that the rollback got as far as the engine, which is away here."""
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text


async def sent(page: httpx.AsyncClient, sheet: Element) -> httpx.Response:
    """Send the form of a sheet as it was shown."""
    (form,) = sheet.all("form", "sheet")
    hidden = {one.attributes["name"]: one.attributes["value"] for one in form.all("input")}
    data = hidden | {"reason": "users call"}
    return await page.post(form.attributes["action"], data=data, headers={"Origin": PAGE})
