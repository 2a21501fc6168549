"""The audit record: its checkpoints, its program for auditors, and who may read it."""

import json
import re
from pathlib import Path

import httpx
import pytest

from orchestrator.service.checkpoints import Checkpoints, signing_key, to_webhook
from orchestrator.service.drains import DrainService
from orchestrator.service.service import Service
from orchestrator.store import verifier
from orchestrator.store.ledger import Ledger
from policies.model.drain import DrainEnding
from policies.model.errors import BadInput, Conflict, Unavailable
from policies.model.people import Caller, Role, Via
from tests.fakes.audit_record import attack, edit, noted
from tests.fakes.connect_proxy import connect_proxy
from tests.fakes.hostile_peer import hostile, named_by, says
from tests.service.command_line import CommandLine
from tests.service.test_api import added, token, under_way


@pytest.fixture
def points(tmp_path: Path, ledger: Ledger) -> Checkpoints:
    return noted(ledger, tmp_path)


def test_a_record_that_nobody_touched_is_whole(points: Checkpoints) -> None:
    found = points.verify()
    assert (found.entries, found.checkpoints, found.fault) == (25, 2, None)


def test_the_program_for_auditors_can_be_read_in_a_minute() -> None:
    assert len(Path(verifier.__file__).read_text().splitlines()) <= 60


def test_a_checkpoint_that_somebody_else_signed_is_none(points: Checkpoints, tmp_path: Path) -> None:
    kept = tmp_path / "checkpoints.jsonl"
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    lines[0]["hash"] = "f" * 64
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert points.verify().fault == "the checkpoint of entry 10 is not signed with this key"


def test_a_checkpoint_is_written_when_it_is_due_and_not_before(tmp_path: Path, ledger: Ledger) -> None:
    found = Checkpoints(ledger, tmp_path / "audit.key", tmp_path / "checkpoints.jsonl")
    assert found.note() is None
    ledger.audit("ana", "cli", "looked", "edge", {})
    assert found.note() is not None
    ledger.audit("ana", "cli", "looked", "edge", {})
    assert found.note() is None
    assert found.note(now=True) is not None
    assert found.note(now=True) is None


def test_a_sink_that_is_away_keeps_no_checkpoint_from_the_others(tmp_path: Path, ledger: Ledger) -> None:
    sent: list[str] = []

    def away(line: str) -> None:
        raise Unavailable(f"nobody is there for {line}")

    found = Checkpoints(ledger, tmp_path / "audit.key", tmp_path / "kept.jsonl", [away, sent.append])
    ledger.audit("ana", "cli", "looked", "edge", {})
    found.note()
    assert len(sent) == len((tmp_path / "kept.jsonl").read_text().splitlines()) == 1


def test_an_address_that_is_away_is_named_without_its_path(
    tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    away = to_webhook("http://127.0.0.1:1/hooks/a-secret-of-ours")
    found = Checkpoints(ledger, tmp_path / "audit.key", tmp_path / "kept.jsonl", [away])
    ledger.audit("ana", "cli", "looked", "edge", {})
    found.note()
    assert "127.0.0.1: Connection refused" in caplog.text
    assert "a-secret-of-ours" not in caplog.text


def test_a_checkpoint_reaches_a_receiver_outside_through_the_proxy_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, authority = named_by(tmp_path / "ca", "log.corp.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    took = says(b"HTTP/1.1 204 No Content\r\n\r\n")
    with hostile(took, tls) as receiver, connect_proxy(receiver.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        to_webhook("https://log.corp.example/hooks/a-secret-of-ours")("a checkpoint")
        assert receiver.requests[0].startswith(b"POST /hooks/a-secret-of-ours HTTP/1.1\r\n")
        assert b"a-secret-of-ours" not in proxy.requests[0]


def test_a_process_without_the_key_verifies_checkpoints_and_signs_none(
    tmp_path: Path, ledger: Ledger
) -> None:
    """S5: the API, which people reach, had the key with which the past can be signed anew."""
    kept = tmp_path / "evidence/checkpoints.jsonl"
    kept.parent.mkdir()
    signer = Checkpoints(ledger, tmp_path / "worker/audit.key", kept)
    reader = Checkpoints(ledger, tmp_path / "api/audit.key", kept)
    ledger.audit("ana", "cli", "looked", "edge", {})
    with pytest.raises(Conflict, match="start penstock worker"):
        _ = reader.public_key
    assert reader.verify().fault is None
    signer.publish()
    signer.note()
    assert reader.public_key == signer.public_key
    assert (reader.verify().checkpoints, reader.verify().fault) == (1, None)
    (tmp_path / "evidence/audit.pub").write_text(f"{'5a' * 32}\n")
    assert reader.verify().fault == "the checkpoint of entry 1 is not signed with this key"
    assert not (tmp_path / "api").exists()


def test_a_key_that_others_can_read_signs_nothing(tmp_path: Path) -> None:
    signing_key(tmp_path / "audit.key")
    (tmp_path / "audit.key").chmod(0o644)
    with pytest.raises(BadInput, match="read by others"):
        signing_key(tmp_path / "audit.key")


async def test_the_command_verifies_exports_and_ends_with_ten_when_something_is_wrong(
    penstock: CommandLine, points: Checkpoints, ledger: Ledger, tmp_path: Path
) -> None:
    said = await penstock("audit", "verify")
    assert (said.code, said.out[:3]) == (0, "OK ")
    assert (await penstock("audit", "export", "--to", str(tmp_path / "record.jsonl"))).code == 0
    assert len((tmp_path / "record.jsonl").read_text().splitlines()) == 26
    assert (await penstock("audit", "key")).out.strip() == points.public_key
    attack(ledger.engine, edit)
    said = await penstock("audit", "verify")
    assert (said.code, said.out.strip()) == (10, "BROKEN  audit entry 7 was changed")


async def test_the_page_begins_with_the_newest_entry_and_leads_back_to_the_first(
    page: httpx.AsyncClient, ledger: Ledger
) -> None:
    for number in range(230):
        ledger.audit("ana", "cli", f"act {number}", "edge", {})
    path, numbers = "/audit", []
    for _ in range(4):
        shown = (await page.get(path)).text
        numbers += [int(found) for found in re.findall(r'<th scope="row">(\d+)</th>', shown)]
        if (earlier := re.search(r'href="(/audit\?before=\d+)"', shown)) is None:
            break
        path = earlier[1]
    assert numbers == [*range(ledger.audit_head().seq, 0, -1)]


async def test_an_auditor_of_one_fleet_reads_its_entries_and_no_others(
    api: httpx.AsyncClient, ledger: Ledger, points: Checkpoints
) -> None:
    del points
    shown = token(ledger, Role.AUDITOR)
    found = (await api.get("/audit", headers=shown)).json()["entries"]
    assert found
    assert {entry["fleet"] for entry in found} == {"edge"}
    assert (await api.post("/audit/verify", headers=shown)).status_code == 403
    assert (await api.get("/audit/export", headers=shown)).status_code == 403
    viewer = token(ledger, Role.VIEWER, name="looker")
    assert (await api.get("/audit", headers=viewer)).status_code == 403


async def test_who_exports_the_record_again_and_again_is_in_it_once_an_hour(
    api: httpx.AsyncClient, ledger: Ledger, points: Checkpoints
) -> None:
    del points
    for _ in range(4):
        assert (await api.get("/audit/export")).status_code == 200
    exported = [one for one in ledger.audit_entries() if one.action == "audit exported"]
    assert 1 <= len(exported) <= 2  # an hour may end meanwhile


async def test_what_is_asked_for_is_in_the_record_before_it_is_done(
    service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tell(*_: object) -> None:
        assert ledger.audit_entries()[-1].action == "end of drain asked for"
        raise RuntimeError("sessions were ended, and then it broke")

    monkeypatch.setattr(DrainService, "tell", tell)
    ana = Caller(person="ana", grants={"edge": frozenset({Role.OPERATOR})}, via=Via.API)
    with pytest.raises(RuntimeError):
        await service.tell_drains(ana, "edge", None, DrainEnding(id="1", person="ana", reason="x"))
    assert [entry.action for entry in ledger.audit_entries()] == ["end of drain asked for", "failed"]


async def test_what_may_have_had_an_effect_is_not_called_refused(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    asked = {"kind": "hold", "reason": "lunch"}
    answer = await api.post("/fleets/edge/commands", json=asked, headers={"Idempotency-Key": "1"})
    assert answer.status_code == 503
    assert [entry.action for entry in ledger.audit_entries()] == ["hold asked for", "failed"]


async def test_the_auditor_of_a_fleet_sees_who_made_tokens_for_it_and_by_which_door(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    grants = [{"fleet": "edge", "roles": ["operator"]}, {"fleet": "core", "roles": ["viewer"]}]
    assert (await api.post("/tokens", json={"name": "bot", "grants": grants})).status_code == 201
    for fleet in ("edge", "core"):
        shown = token(ledger, Role.AUDITOR, name=f"auditor-{fleet}", fleet=fleet)
        seen = (await api.get("/audit", headers=shown)).json()["entries"]
        assert ("token made", "bot") in [(entry["action"], entry["subject"]) for entry in seen]
    (entry,) = (entry for entry in ledger.audit_entries() if entry.action == "token asked for")
    assert (entry.person, entry.via) == ("root", "cli")


async def test_every_door_in_the_record_is_one(api: httpx.AsyncClient, ledger: Ledger) -> None:
    under_way(ledger)
    added(ledger, "ocserv", "1.3.0")
    await api.get("/fleets/nowhere", headers=token(ledger, Role.VIEWER))
    assert {entry.via for entry in ledger.audit_entries()} <= {via.value for via in Via}


async def test_who_asks_for_the_newest_entries_sees_the_last_one_first(
    penstock: CommandLine, ledger: Ledger
) -> None:
    for number in range(5):
        ledger.audit("ana", "cli", f"looked {number}", "edge", {}, fleet="edge")
    last = await penstock("audit", "list", "--newest", "--limit", "2", "-o", "json")
    assert [one["action"] for one in json.loads(last.out)["data"]] == ["looked 4", "looked 3"]
    both = await penstock("audit", "list", "--newest", "--after", "3")
    assert (both.code, "give one of them" in both.err) == (2, True)
