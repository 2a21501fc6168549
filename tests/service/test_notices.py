"""Notices at the API and on the command line: the chat's token, tests of sinks, and acknowledgements."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from activities.drivers.notices.alertmanager import Alertmanager
from orchestrator.noticing.checking import Checking
from orchestrator.noticing.rules import RulesFile
from orchestrator.service.service import Service
from orchestrator.store.addressed import Addressed
from orchestrator.store.ledger import Ledger
from policies.model.notice import Notice, NoticeLevel, Occasion
from policies.model.people import EVERY_FLEET, Role
from tests.fakes.notice_receivers import KEY, webhook
from tests.fakes.notice_sinks import KINDS, SECRET, answering, dripping, receiver
from tests.service.command_line import CommandLine


def told(ledger: Ledger, fleet: str, key: str, sink: str = "chat") -> None:
    at = datetime.now(UTC)
    notice = Notice(
        key=key, fleet=fleet, state="held", level=NoticeLevel.NEEDS_YOU, headline=f"{fleet}: held", at=at
    )
    ledger.add_notices([Addressed(notice, fleet, waits=True, sinks={sink: (Occasion.SAID, at)})])


async def test_the_chats_token_fetches_its_fleets_notices_and_does_nothing_else(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    told(ledger, "edge", "edge-1/held/1")
    told(ledger, "core", "core-1/held/1")
    secret, _ = ledger.make_token("chat", {"edge": frozenset({Role.CHAT})}, timedelta(days=1), "root")
    headers = {"Authorization": f"Bearer {secret}"}
    found = (await api.get("/notices/outbox/chat", headers=headers)).json()
    assert [one["notice"]["key"] for one in found["deliveries"]] == ["edge-1/held/1"]
    body = {"keys": ["edge-1/held/1", "core-1/held/1", "nothing"]}
    for new in (1, 0):
        answer = await api.post("/notices/outbox/chat/delivered", json=body, headers=headers)
        assert answer.json() == {"new": new}
    assert (await api.get("/notices/outbox/chat", headers=headers)).json() == {"deliveries": []}
    assert (await api.get("/fleets/edge", headers=headers)).status_code == 404  # it hears of none
    assert (await api.get("/notices/outbox/chat")).status_code == 403, "root is a person"


async def test_nobodys_word_counts_for_a_sink_that_the_worker_tells(
    api: httpx.AsyncClient, service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    told(ledger, "edge", "edge-1/held/1", "hook")
    sink = {"name": "hook", "kind": "webhook", "url": "https://hook.example.com/", "key_file": "hook.key"}
    file = tmp_path / "notices.yaml"
    file.write_text(json.dumps({"apiVersion": "penstock/v1", "sinks": [sink]}))
    object.__setattr__(service.notices, "rules", RulesFile(file))
    secret, _ = ledger.make_token("chat", {"edge": frozenset({Role.CHAT})}, timedelta(days=1), "root")
    headers = {"Authorization": f"Bearer {secret}"}
    body = {"keys": ["edge-1/held/1"]}
    for refused in (
        await api.get("/notices/outbox/hook", headers=headers),
        await api.post("/notices/outbox/hook/delivered", json=body, headers=headers),
    ):
        assert (refused.status_code, "takes nobody's word" in refused.json()["detail"]) == (403, True)
    assert len(ledger.outbox("hook", 10)) == 1, "it is still to be told"


async def test_what_a_receiver_answered_hears_only_who_may_mend_it(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    told(ledger, "edge", "edge-1/held/1", "mail")
    claim, _ = ledger.claim_notices("mail", 1, timedelta(minutes=1))
    why = "mail.internal:587 refuses the account penstock: wrong password in /etc/penstock/mail.key"
    ledger.notice_failed("mail", "edge-1/held/1", claim, why, datetime.now(UTC) + timedelta(minutes=1))
    for role, hears in (
        (Role.VIEWER, False),
        (Role.CI, False),
        (Role.CHAT, False),
        (Role.OPERATOR, True),
        (Role.AUDITOR, True),
    ):
        secret, _ = ledger.make_token(f"of-{role}", {"edge": frozenset({role})}, timedelta(days=1), "root")
        answer = await api.get("/notices", headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == 200, answer.text
        assert ("mail.internal" in answer.text) is hears, role
        assert [one["failing"] for one in answer.json()["sinks"]] == [1], role
    secret, _ = ledger.make_token("of-core", {"core": frozenset({Role.OPERATOR})}, timedelta(days=1), "root")
    answer = await api.get("/notices", headers={"Authorization": f"Bearer {secret}"})
    assert answer.json()["notices"] == []
    assert "edge" not in answer.text


async def test_whoever_looks_at_every_fleet_sees_what_all_of_them_need(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    told(ledger, "installation", "installation/part_away/1", "hook")
    for grants, sees in (
        ({EVERY_FLEET: frozenset({Role.VIEWER})}, True),
        ({"edge": frozenset({Role.OPERATOR})}, False),
    ):
        secret, _ = ledger.make_token(f"sees-{int(sees)}", grants, timedelta(days=1), "root")
        answer = await api.get("/notices", headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == 200, answer.text
        assert ("installation/part_away/1" in answer.text) is sees
    for grants, has in (
        ({EVERY_FLEET: frozenset({Role.CHAT})}, True),
        ({"edge": frozenset({Role.CHAT})}, False),
    ):
        secret, _ = ledger.make_token(f"has-{int(has)}", grants, timedelta(days=1), "root")
        answer = await api.get("/notices/outbox/hook", headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == 200, answer.text
        assert ("installation/part_away/1" in answer.text) is has


async def test_a_guessed_key_of_a_notice_names_no_fleet_to_who_has_no_role_there(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    """L8: the refusal of a guessed key said that there is a fleet of that name."""
    told(ledger, "core", "core-1/held/1", "hook")
    secret, _ = ledger.make_token("of-edge", {"edge": frozenset({Role.OPERATOR})}, timedelta(days=1), "root")
    shown = {"Authorization": f"Bearer {secret}", "Idempotency-Key": "guessed"}
    there, nowhere = [
        await api.post("/notices/acknowledge", json={"key": key}, headers=shown)
        for key in ("core-1/held/1", "core-1/held/2")
    ]
    assert (there.status_code, nowhere.status_code) == (404, 404)
    assert there.json()["detail"].replace("/1;", "/2;") == nowhere.json()["detail"]


@asynccontextmanager
async def worker(ledger: Ledger, file: Path) -> AsyncIterator[None]:
    """Test sinks as a worker does, for the length of the body."""
    checking = Checking(ledger, RulesFile(file))

    async def keep() -> None:
        while True:
            await checking.begin_tests()
            await asyncio.sleep(0.05)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        await checking.settle()


async def test_a_sink_is_tested_without_its_credential_by_the_api(
    penstock: CommandLine, service: Service, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S5: the API, which people reach, read every receiver's key to test one."""
    monkeypatch.setattr("orchestrator.service.notices.TAKEN_WITHIN", timedelta(seconds=0.1))
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker/hook.key").write_text(KEY)
    (tmp_path / "worker/hook.key").chmod(0o600)
    with webhook() as heard:
        sink = {"name": "hook", "kind": "webhook", "url": heard.place, "key_file": "hook.key"}
        for folder in (tmp_path, tmp_path / "worker"):
            (folder / "notices.yaml").write_text(json.dumps({"apiVersion": "penstock/v1", "sinks": [sink]}))
        rules = RulesFile(tmp_path / "notices.yaml")
        object.__setattr__(service.notices, "rules", rules)
        assert "no worker has told the sink" in (await penstock("notice", "test", "hook")).err
        monkeypatch.setattr("orchestrator.service.notices.TAKEN_WITHIN", timedelta(seconds=20))
        async with worker(ledger, tmp_path / "worker/notices.yaml"):
            assert "hook: it answers 202" in (await penstock("notice", "test", "hook")).out


async def test_commands_list_test_and_acknowledge(
    penstock: CommandLine, service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    told(ledger, "edge", "edge-1/held/1", "hook")
    (tmp_path / "hook.key").write_text(KEY)
    (tmp_path / "hook.key").chmod(0o600)
    with webhook() as heard:
        sink = {"name": "hook", "kind": "webhook", "url": heard.place, "key_file": "hook.key"}
        file = tmp_path / "notices.yaml"
        file.write_text(json.dumps({"apiVersion": "penstock/v1", "sinks": [sink]}))
        object.__setattr__(service.notices, "rules", RulesFile(file))
        said = await penstock("notice", "list")
        assert "edge-1/held/1" in said.out
        assert "waits" in said.out
        async with worker(ledger, file):
            said = await penstock("notice", "test", "hook")
        assert "hook: it answers 202" in said.out
        assert heard.wrong == []
        assert heard.bodies[0]["data"]["state"] == "test"
        assert (await penstock("notice", "test", "nobody")).code == 2
    said = await penstock("notice", "acknowledge", "edge-1/held/1")
    assert "edge-1/held/1 is with root since" in said.out
    assert ledger.waiting_notices()[0].acknowledged
    assert [one.action for one in ledger.audit_entries()].count("notice acknowledged") == 1


@pytest.mark.sweep
async def test_whose_receiver_hangs_hears_so_of_the_receiver_and_not_of_the_api(
    penstock: CommandLine,
    service: Service,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("activities.drivers.notices.posting.DEADLINE", timedelta(seconds=6))
    (tmp_path / "it.key").write_text(KEY)
    (tmp_path / "it.key").chmod(0o600)
    file = tmp_path / "notices.yaml"
    object.__setattr__(service.notices, "rules", RulesFile(file))
    with receiver(dripping) as port:
        sink = {"name": "it", "kind": "webhook", **KINDS["webhook"].settings("http", port)}
        file.write_text(json.dumps({"apiVersion": "penstock/v1", "sinks": [sink]}))
        async with worker(ledger, file):
            said = await penstock("notice", "test", "it")
    assert "API" not in said.err
    assert "did not answer within 6 s" in said.err, said.err


async def test_a_test_of_a_sink_says_neither_its_secret_nor_what_a_driver_that_fails_had_in_hand(
    penstock: CommandLine,
    service: Service,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "it.key").write_text(SECRET)
    (tmp_path / "it.key").chmod(0o600)
    file = tmp_path / "notices.yaml"
    object.__setattr__(service.notices, "rules", RulesFile(file))
    with answering(KINDS["alertmanager"], 403, lambda heard: heard[heard.find(SECRET.encode()) :]) as (
        port,
        _,
    ):
        sink = {"name": "it", "kind": "alertmanager", **KINDS["alertmanager"].settings("http", port)}
        file.write_text(json.dumps({"apiVersion": "penstock/v1", "sinks": [sink]}))
        async with worker(ledger, file):
            echoed = await penstock("notice", "test", "it")

    async def fails(*_: object) -> str:
        raise ValueError(f"no header of {SECRET}")

    monkeypatch.setattr(Alertmanager, "tell", fails)
    async with worker(ledger, file):
        failed = await penstock("notice", "test", "it")
    assert "it answers 403: …" in echoed.err
    assert "ValueError" in failed.err
    entries = "".join(entry.body for entry in ledger.audit_entries())
    for said in (echoed.out, echoed.err, failed.out, failed.err, entries, caplog.text):
        assert SECRET[:8] not in said
