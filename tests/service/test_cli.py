"""The command line against the API at a real socket: what it prints, and with which code it ends."""

import asyncio
import json
import os
from pathlib import Path

import pytest
import yaml

from activities.files import load
from orchestrator.cli.client import ANSWER_SECONDS
from orchestrator.exit_code import OF_OUTCOMES
from orchestrator.service.quarantine import QuarantineService, Returned
from orchestrator.service.service import Service
from orchestrator.service.surveys import Surveyed, SurveyService
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, Outcome
from policies.model.drain import DrainEvent
from policies.model.fleet import Fleet
from policies.model.instance import InstanceState
from policies.model.people import Role
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from policies.model.verdict import Action, Against, Decision, GateReading, GateVerdict
from tests.fakes.gateway import FakeGateway
from tests.service.command_line import CommandLine
from tests.service.test_api import token, under_way

RELEASE = {"digest": digest_of(b"release"), "product": "ocserv", "executable": digest_of(b"program")}
WORST = "fix [/etc/ocserv] \x1b[31mred\x07"


async def test_a_person_is_whom_the_kernel_names(penstock: CommandLine) -> None:
    """H1: who asked was what LOGNAME said, and one root user was two people."""
    said = await penstock("whoami", LOGNAME="bob", USER="bob")
    assert said.code == 0
    assert said.out.splitlines()[0] == "root"


async def test_status_ends_as_the_fleet_stands(penstock: CommandLine, ledger: Ledger) -> None:
    assert (await penstock("status", "edge")).code == 0
    under_way(ledger, phase="held", holds={"ana": WORST})
    said = await penstock("status", "edge")
    assert said.code == 6
    assert "held by ana: fix [/etc/ocserv] �[31mred�" in said.out
    assert "\x1b" not in said.out


async def test_a_watch_without_a_change_reports_what_the_fleet_is_on_and_ends(
    penstock: CommandLine, ledger: Ledger
) -> None:
    """`watch` ended with 0 and printed nothing."""
    said = await penstock("watch", "edge")
    assert said.code == 0
    assert said.out.startswith("No change of edge is under way. edge on ")
    name = under_way(ledger)
    ending = ChangeEnding(change=name, outcome=Outcome.ROLLED_BACK, sentence="logins failed")
    ledger.close_change(ending)
    said = await penstock("watch", "edge")
    assert said.code == 3
    last = said.out.splitlines()[-1]
    assert last.startswith(f"No change of edge is under way; the last, {name}, has ended: "), said.out
    assert " edge on " in last


@pytest.mark.parametrize("words", [("7",), ("exit", "7"), ("exit 7",)])
async def test_an_exit_code_is_explained_however_it_is_written(
    penstock: CommandLine, words: tuple[str, ...]
) -> None:
    said = await penstock("explain", *words)
    assert said.code == 0, said.err
    assert said.out.startswith("7  rollback incomplete: rolled back, but some gateways are not on their")


@pytest.mark.parametrize("form", ["json", "yaml", "jsonl"])
async def test_every_document_for_machines_has_a_version(
    penstock: CommandLine, ledger: Ledger, form: str
) -> None:
    under_way(ledger)
    for words, kind in (
        (("status", "edge"), "FleetStatus"),
        (("history", "edge"), "ChangeList"),
        (("whoami",), "Caller"),
        (("fleet", "list"), "FleetList"),
        (("token", "list"), "TokenList"),
        (("snapshot", "list", "edge"), "SnapshotList"),
    ):
        said = await penstock(*words, "-o", form)
        assert said.code == (6 if words[0] == "status" else 0), said.err  # its engine is away
        documents = (
            [json.loads(line) for line in said.out.splitlines()]
            if form == "jsonl"
            else [json.loads(said.out) if form == "json" else yaml.safe_load(said.out)]
        )
        for found in documents:
            assert (found["apiVersion"], found["kind"]) == ("penstock/v1", kind)


async def test_a_change_is_explained_by_its_gates_numbers_and_the_runbook(
    penstock: CommandLine, ledger: Ledger
) -> None:
    reading = GateReading(
        gate="login-success",
        verdict=GateVerdict.UNHEALTHY,
        reason="9 of 60 failed",
        numbers={"log_e": 5.25, "canary_n": 60},
        against=Against.CONTROL,
    )
    decision = Decision(
        action=Action.ROLL_BACK,
        verdict=GateVerdict.UNHEALTHY,
        reason="worse than control",
        readings=(reading,),
    )
    name = under_way(ledger, phase="rolling_back", decision=decision.model_dump(mode="json"))
    said = await penstock("explain", name)
    assert said.code == 0, said.err
    assert "roll_back, unhealthy: worse than control" in said.out
    assert "login-success against control: proven worse: 9 of 60 failed (canary_n 60, log_e 5.25)" in said.out
    assert "runbooks/canary-rejected.md" in said.out
    # newcomer 14: a fleet's name means its newest change.
    assert (await penstock("explain", "edge")).out == said.out


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("7", "some gateways are not on their known-good; wake somebody"),
        ("ThresholdNotMet", "Fewer distinct people than required signed exactly these bytes."),
        ("LeaseLapsed", "Exit code   9"),
    ],
)
async def test_a_code_and_a_refusals_name_are_explained_without_any_api(word: str, meaning: str) -> None:
    said = await CommandLine({"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd())})(
        "explain", word
    )
    assert (said.code, meaning in said.out) == (0, True)


async def test_what_cannot_be_explained_is_refused_with_where_names_are(penstock: CommandLine) -> None:
    for word in ("edge-99", "Nonsense", "99"):
        said = await penstock("explain", word)
        assert (said.code, word in said.err) == (2, True)


async def test_names_alone_are_a_line_each(penstock: CommandLine) -> None:
    assert (await penstock("fleet", "list", "-o", "name")).out == "core\nedge\n"


async def test_a_fleet_is_named_when_there_are_several(penstock: CommandLine) -> None:
    said = await penstock("status")
    assert said.code == 2
    assert "say which fleet; there is core, edge" in said.err


async def test_a_refusal_says_why_and_what_to_ask_next(penstock: CommandLine, ledger: Ledger) -> None:
    headers = token(ledger, Role.VIEWER)
    shown = headers["Authorization"].removeprefix("Bearer ")
    said = await penstock("hold", "edge", "--reason", "lunch", PENSTOCK_TOKEN=shown)
    assert said.code == 4
    assert said.err.splitlines()[-1].startswith("NotAllowed: robot may not hold or abort changes of edge")
    said = await penstock("plan", "edge", "--to", "9.9")
    assert said.code == 2
    assert said.err.splitlines()[-1] == "Next: penstock release list"


async def test_without_an_api_a_command_says_where_it_asked(penstock: CommandLine, tmp_path: Path) -> None:
    said = await penstock("status", PENSTOCK_SOCKET=os.fspath(tmp_path / "nobody.sock"))
    assert said.code == 1
    assert "no API answers at" in said.err


async def test_a_token_is_made_once_listed_and_revoked(penstock: CommandLine) -> None:
    made = await penstock("token", "create", "ci-edge", "--grant", "edge=ci", "--grant", "edge=viewer")
    assert made.code == 0, made.err
    secret = made.out.strip()
    assert (await penstock("whoami", PENSTOCK_TOKEN=secret)).out.startswith("ci-edge (a machine)")
    listed = await penstock("token", "list")
    assert "edge: ci, viewer" in listed.out
    assert secret not in listed.out
    assert (await penstock("token", "revoke", "ci-edge", "--reason", "lost")).code == 0
    assert (await penstock("whoami", PENSTOCK_TOKEN=secret)).code == 4


def test_every_outcome_of_a_change_has_its_code() -> None:
    assert set(OF_OUTCOMES) == {outcome.value for outcome in Outcome}


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("words", "code", "place"),
    [
        (("hold", "edge", "--reason", ""), 2, "--reason"),
        (("hold", "edge", "--reason", "   "), 2, "--reason"),
        (("rollback", "edge", "--reason", ""), 2, "--reason"),
        (("hold", "edge"), 2, "--reason"),
        (("hold", "nowhere", "--reason", "x"), 2, "nowhere"),
        (("rollback", "edge-us", "--reason", "x"), 2, "edge-us"),
        (("status", "EDGE"), 2, "path.fleet: 'EDGE' is no name; one has small letters"),
        (("status", "../core"), 2, "../core"),
        (("status", "edge; rm -rf"), 2, "path.fleet"),
        (("status", ""), 2, "no name"),
        (("status", "e" * 64), 2, "path.fleet"),
        (("plan", "edge", "--to", ""), 2, "body.to"),
        (("plan", "edge", "--to", "1.3.0", "--strategy", "fast"), 2, "body.strategy"),
        (
            ("upgrade", "start", "edge", "--to", "1.3.0", "--reason", "x", "--plan", "zz"),
            2,
            "body.plan: 'zz' is",
        ),
        (
            ("release", "add", "1.4.1", "--fleet", "edge"),
            2,
            "body.digest: '1.4.1' is no digest; write sha256:",
        ),
        (("rollback", "edge", "--reason", "x", "--timeout", "soon"), 2, '"soon"'),
        (("drain", "extend", "edge", "--by", "8", "--reason", "x"), 2, '"8"'),
        (("drain", "extend", "edge", "--by", "0s", "--reason", "x"), 2, "by_seconds"),
        (("drain", "extend", "edge", "--by", "30d", "--reason", "x"), 2, "by_seconds"),
        (("history", "edge", "--limit", "0"), 2, "--limit"),
        (("history", "edge", "--before", "edge-99"), 2, "edge-99"),
        (("gateway", "quarantine", "edge", "GW", "--reason", "x"), 2, "body.gateways"),
        (("snapshot", "get", "xyz", "edge"), 2, "path.name: 'xyz' is no digest of a snapshot; write"),
        (("snapshot", "get", "abcdef", "edge"), 2, "abcdef"),
        (("token", "create", "Robot", "--grant", "edge=ci"), 2, "body.name"),
        (("token", "create", "robot", "--grant", "edge"), 2, '"edge"'),
        (("token", "create", "robot", "--grant", "edge=king"), 2, "roles"),
        (("token", "create", "robot", "--grant", "edge=admin"), 2, "admin"),
        (("token", "create", "penstock", "--grant", "edge=ci"), 2, "penstock"),
        (("token", "create", "robot", "--grant", "edge=ci", "--days", "900"), 2, "--days"),
        (("token", "revoke", "nobody", "--reason", "x"), 2, "nobody"),
        (("approve", "edge", "--reason", "x"), 9, "nothing waits"),
        (("status", "edge", "-o", "xml"), 2, "xml"),
        (("stauts",), 2, "stauts"),
        (("hold", "edge", "--reason", "x" * 501), 2, "body.reason"),
        (("hold", "edge", "--reason", "x", "--id", "two words"), 2, "idempotency-key"),
        (("resume", "edge", "--reason", "x", "--hold-of", "Ana Lopez"), 2, "body.hold_of"),
    ],
)
async def test_bad_input_gets_one_clear_error(
    penstock: CommandLine, words: tuple[str, ...], code: int, place: str
) -> None:
    said = await penstock(*words)
    assert said.code == code, said.err
    assert place.lower() in said.err.lower()
    assert said.out == ""


@pytest.mark.sweep
async def test_root_holds_and_goes_back_where_no_api_answers_any_more(
    penstock: CommandLine, service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    """The engine is away, too: what counts is that the order gets as far as it, and stands in the record."""
    del service  # its files are there
    under_way(ledger)
    alone = {
        "PENSTOCK_SOCKET": os.fspath(tmp_path / "nobody.sock"),
        "PENSTOCK_STATE": os.fspath(tmp_path),
        "PENSTOCK_LEDGER_URL": f"sqlite:///{tmp_path / 'ledger.db'}",
        "PENSTOCK_FLEET": os.fspath(tmp_path / "fleets"),
        "PENSTOCK_PEOPLE": os.fspath(tmp_path / "people.yaml"),
        "PENSTOCK_TEMPORAL_ADDRESS": "127.0.0.1:1",
    }
    for words in (("hold", "edge", "--reason", "odd"), ("rollback", "edge", "--reason", "odd")):
        said = await penstock(*words, **alone)
        assert said.code == 1
        assert "root goes on by itself" in said.err
        assert "engine" in said.err.splitlines()[-1]
        assert ledger.audit_entries()[-1].person == "root"
    said = await penstock("promote", "edge", "--reason", "odd", **alone)
    assert "root goes on" not in said.err


def names_in(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


async def test_a_refused_export_leaves_an_earlier_one_alone(
    penstock: CommandLine, ledger: Ledger, tmp_path: Path
) -> None:
    kept = tmp_path / "audit.jsonl"
    kept.write_text('{"seq": 1}\n')
    before = names_in(tmp_path)
    shown = token(ledger, Role.VIEWER)["Authorization"].removeprefix("Bearer ")
    said = await penstock("audit", "export", "--to", str(kept), PENSTOCK_TOKEN=shown)
    assert said.code == 4
    assert kept.read_text() == '{"seq": 1}\n'
    assert (await penstock("audit", "export", "--to", str(kept))).code == 0
    assert len(kept.read_text().splitlines()) > 1
    assert names_in(tmp_path) == before


@pytest.mark.parametrize("url", ["penstock.example", "https://host:port", "ftp://host", "https://"])
async def test_a_url_that_leads_nowhere_is_named_by_every_command(penstock: CommandLine, url: str) -> None:
    for words in (["explain", "edge-1"], ["status"], ["hold", "edge", "--reason", "x"]):
        said = await penstock(*words, PENSTOCK_URL=url)
        assert (said.code, "PENSTOCK_URL" in said.err) == (2, True), said.err


@pytest.mark.sweep
async def test_who_asks_every_gateway_hears_that_it_takes_a_while(
    service: Service, penstock: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def survey(*_: object) -> Surveyed:
        await asyncio.sleep(ANSWER_SECONDS + 1)
        return Surveyed(states={}, silent={"edge-1": "its agent did not answer"})

    del service
    monkeypatch.setattr(SurveyService, "of", survey)
    said = await penstock("sessions", "edge")
    assert said.code == 0, said.err
    assert said.err == "Every gateway is asked; one that is silent takes 20 s.\n"


async def test_a_gateway_that_answers_and_runs_nothing_of_ours_is_not_called_silent(
    service: Service, penstock: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = FakeGateway(load(tmp_path / "fleets" / "edge.yaml", Fleet).gateways[0])

    async def survey(*_: object) -> Surveyed:
        return Surveyed(states={fake.gateway.name: await fake.observe()}, silent={})

    del service
    monkeypatch.setattr(SurveyService, "of", survey)
    said = await penstock("sessions", "edge")
    assert said.code == 0, said.err
    assert said.out.splitlines()[1].split()[1:] == ["runs", "nothing", "of", "penstock's", "unknown"]


async def test_a_return_that_some_may_not_take_part_in_yet_names_the_others_and_exits_with_5(
    service: Service, penstock: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def take_in(*_: object) -> Returned:
        return Returned("edge-1 takes part. edge-2 stays: it is silent.", {"edge-2": "it is silent"})

    del service
    monkeypatch.setattr(QuarantineService, "take_in", take_in)
    command = ("gateway", "return", "edge", "edge-1", "edge-2", "--reason", "power is back")
    said = await penstock(*command)
    assert (said.code, said.out) == (5, "edge-1 takes part. edge-2 stays: it is silent.\n")
    said = await penstock(*command, "-o", "name")
    assert (said.code, said.out) == (5, "edge-1\n")
    said = await penstock(*command, "-o", "json")
    assert json.loads(said.out)["data"]["stays"] == {"edge-2": "it is silent"}


async def test_no_operator_reads_what_the_engines_client_says_to_programmers(
    penstock: CommandLine, ledger: Ledger
) -> None:
    under_way(ledger)
    said = await penstock("status", "edge")
    assert "the engine cannot be reached" in said.out
    assert "tonic" not in said.out
    assert said.code == 6


async def test_a_drain_that_waits_for_a_person_needs_you_until_its_instance_has_stopped(
    penstock: CommandLine, ledger: Ledger, tmp_path: Path
) -> None:
    fake = FakeGateway(load(tmp_path / "fleets" / "edge.yaml", Fleet).gateways[0])
    old, new = (ReleaseRef(**RELEASE | {"version": version}) for version in ("1.3.0", "1.4.0"))
    for slot, release in (("a", old), ("b", new)):
        fake.serve(release, slot)
    fake.slots["a"].state = InstanceState.RUNNING
    body = {"sentence": "slot a: 40 of 40 sessions are left after the deadline, which may end 2 (5%)"}
    ledger.audit("penstock", "system", DrainEvent.HELD, "edge-1/edge-7", body, fleet="edge")
    ledger.record_states("edge", [await fake.observe()], {})
    said = await penstock("status", "edge")
    assert "NEEDS YOU  Drain of edge-1/a: 40 of 40 sessions are left after the deadline" in said.out
    assert said.code == 6
    offered = json.loads((await penstock("status", "edge", "-o", "json")).out)["data"]["offers"]
    assert {"extend", "end"} <= {one["verb"] for one in offered}
    fake.slots["a"].state = InstanceState.STOPPED
    ledger.record_states("edge", [await fake.observe()], {})
    assert "NEEDS YOU" not in (await penstock("status", "edge")).out
