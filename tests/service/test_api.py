"""The API on a real ledger, at a real socket; the engine is away unless a test says otherwise."""

import asyncio
import errno
import os
import re
import socket
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from sqlalchemy import insert
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.processes.api import socket_at
from orchestrator.service import drains
from orchestrator.service.changes import ChangeService
from orchestrator.service.service import Service
from orchestrator.store import requests, tables
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening, ChangeOrder, Phase
from policies.model.command import Command, CommandReceipt
from policies.model.drain import DrainEnding
from policies.model.errors import Conflict
from policies.model.people import Caller, Role, Via
from policies.model.plan import ReleaseRef
from policies.model.request import Answer
from policies.model.status import Event
from policies.model.value import digest_of
from policies.status.story import Story
from policies.status.told import Told

AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def token(ledger: Ledger, *roles: Role, fleet: str = "edge", name: str = "robot") -> dict[str, str]:
    secret, _ = ledger.make_token(name, {fleet: frozenset(roles)}, timedelta(days=1), "root")
    return {"Authorization": f"Bearer {secret}"}


def added(ledger: Ledger, product: str, version: str) -> str:
    """Have a release in the ledger; return its digest."""
    digest = digest_of(f"{product} {version}".encode())
    release = ReleaseRef(digest=digest, product=product, version=version, executable=digest)
    ledger.add_release(release, source="https://repository.example", signers=("ana",), manifest_json="{}")
    return digest


def planned(ledger: Ledger, fleet: str, beginning: str) -> None:
    """Have a plan of that digest in the ledger, of which nothing else is known."""
    row = {"digest": f"sha256:{beginning:0<64}", "fleet": fleet, "at": AT, "body": b""}
    with writing(ledger._engine) as connection:
        connection.execute(insert(tables.plans).values(**row))


def under_way(ledger: Ledger, **more: object) -> str:
    """Have a change in the ledger that tells this of itself; return its name."""
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE")
    opening = ChangeOpening(
        key="run", fleet="edge", kind=order.kind, requested_by="ana", reason="CVE", release="1.3.0"
    )
    name = ledger.open_change(opening)
    told = Told.model_validate({"name": name, "phase": Phase.OBSERVING} | more)
    ledger.record_story(order, told, 0, [Event(at=AT, sentence="ana asked for an upgrade: CVE")])
    return name


async def test_the_kernel_says_who_is_at_the_socket(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "bob")
    found = (await api.get("/whoami")).json()
    assert found["person"] == "root"
    assert not found["machine"]


async def test_a_token_is_its_machine_and_not_who_shows_it(api: httpx.AsyncClient, ledger: Ledger) -> None:
    found = (await api.get("/whoami", headers=token(ledger, Role.VIEWER))).json()
    assert (found["person"], found["machine"]) == ("robot", True)


async def test_a_fleet_where_nobody_has_a_role_is_no_fleet_and_the_question_is_written_down(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    shown = token(ledger, Role.VIEWER, fleet="core")
    assert (await api.get("/fleets", headers=shown)).json() == {"fleets": ["core"]}
    refused = await api.get("/fleets/edge", headers=shown)
    assert refused.status_code == 404
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"] == "there is no fleet edge; there is core"
    assert [entry.action for entry in ledger.audit_entries()][-1] == "refused"


async def test_the_status_of_a_change_comes_from_the_ledger_while_the_engine_is_away(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    name = under_way(ledger)
    found = (await api.get("/fleets/edge")).json()
    assert found["change"]["rollout"] == name
    assert found["change"]["phase"] == "observing"
    assert [event["sentence"] for event in found["change"]["events"]] == ["ana asked for an upgrade: CVE"]
    assert "the engine cannot be reached" in found["concern"]


async def test_a_fleet_that_was_never_changed_says_what_begins_it(api: httpx.AsyncClient) -> None:
    found = (await api.get("/fleets/edge")).json()
    assert found["change"] is None
    assert [offer["verb"] for offer in found["offers"]] == ["examine", "install"]


async def test_events_are_read_on_from_where_they_were_left(api: httpx.AsyncClient, ledger: Ledger) -> None:
    name = under_way(ledger)
    first = (await api.get("/fleets/edge/events")).json()
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE")
    told = Told(name=name, phase=Phase.HELD)
    ledger.record_story(order, told, 1, [Event(at=AT, sentence="held")])
    ledger.record_story(order, told, 1, [Event(at=AT, sentence="held")])
    second = (await api.get("/fleets/edge/events", params={"after": first["after"]})).json()
    assert [event["sentence"] for event in second["events"]] == ["held"]


async def test_a_change_is_shown_with_what_happened_in_it_and_to_nobody_of_another_fleet(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    name = under_way(ledger)
    found = (await api.get(f"/changes/{name}")).json()
    assert (found["record"]["reason"], found["status"]["phase"]) == ("CVE", "observing")
    page = (await api.get(f"/changes/{name}/events")).json()
    assert [event["change"] for event in page["events"]] == [name]
    assert (await api.get(f"/changes/{name}/events", params={"after": page["after"]})).json()["events"] == []
    strange = token(ledger, Role.VIEWER, fleet="core")
    for path in (f"/changes/{name}", f"/changes/{name}/events", "/changes/edge-99"):
        refused = await api.get(path, headers=strange)
        assert (refused.status_code, refused.json()["code"]) == (404, "Unknown")


async def test_a_stream_gives_what_happens_and_goes_on_after_the_last_that_was_heard(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    under_way(ledger)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "0"}
    async with api.stream("GET", "/fleets/edge/events", headers=headers) as stream:
        lines = []
        async for line in stream.aiter_lines():
            lines.append(line)
            if line.startswith("data:"):
                break
    assert "id: 1" in lines


async def test_a_command_without_a_key_is_refused(api: httpx.AsyncClient) -> None:
    refused = await api.post("/fleets/edge/commands", json={"kind": "hold", "reason": "lunch"})
    assert refused.status_code == 422
    assert "idempotency-key" in refused.json()["detail"].lower()


async def test_a_viewer_commands_nothing_and_hears_who_may(api: httpx.AsyncClient, ledger: Ledger) -> None:
    headers = token(ledger, Role.VIEWER) | {"Idempotency-Key": "1"}
    refused = await api.post(
        "/fleets/edge/commands", json={"kind": "hold", "reason": "lunch"}, headers=headers
    )
    assert refused.status_code == 403
    assert "operator" in refused.json()["detail"]
    assert [entry.action for entry in ledger.audit_entries()][-1] == "refused"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "hold"},
        {"kind": "hold", "reason": ""},
        {"kind": "hold", "reason": " "},
        {"kind": "fly"},
        [],
    ],
)
async def test_bad_input_is_a_problem_that_names_the_place(api: httpx.AsyncClient, body: object) -> None:
    refused = await api.post("/fleets/edge/commands", json=body, headers={"Idempotency-Key": "1"})
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("body")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/releases", {"fleet": "edge", "digest": "1.4.1"}),
        ("POST", "/releases/verify", {"fleet": "edge", "digest": "1.4.1"}),
        ("POST", "/changes", {"fleet": "edge", "to": "2", "reason": "why", "plan": "1.4.1"}),
        ("GET", "/plans/1.4.1", None),
        ("POST", "/plans/1.4.1/approvals", {"reason": "why"}),
    ],
)
async def test_what_is_no_digest_is_named_with_how_one_is_written(
    api: httpx.AsyncClient, method: str, path: str, body: object
) -> None:
    refused = await api.request(method, path, json=body, headers={"Idempotency-Key": "1"})
    assert refused.status_code == 422
    assert re.fullmatch(
        r"(body|path)\.(digest|plan): '1\.4\.1' is no digest.*; write .* digits\b.*",
        refused.json()["detail"],
    )


async def test_an_expired_and_a_revoked_token_are_named(
    api: httpx.AsyncClient, ledger: Ledger, service: Service
) -> None:
    headers = token(ledger, Role.VIEWER)
    ledger.revoke_token("robot", "root", "lost")
    refused = await api.get("/whoami", headers=headers)
    assert refused.status_code == 403
    assert "robot was revoked" in refused.json()["detail"]
    assert await service.write_refusals() == 1
    assert [entry.action for entry in ledger.audit_entries()][-1] == "token refused"


async def test_a_stale_card_commands_no_newer_change(api: httpx.AsyncClient, ledger: Ledger) -> None:
    name = under_way(ledger)
    asked = {"kind": "promote", "reason": "fine", "change": "edge-99"}
    refused = await api.post("/fleets/edge/commands", json=asked, headers={"Idempotency-Key": "1"})
    assert refused.status_code == 409
    assert name in refused.json()["detail"]


async def test_no_second_process_takes_the_socket_of_one_that_answers(
    api: httpx.AsyncClient, tmp_path: Path
) -> None:
    assert (await api.get("/whoami")).status_code == 200
    with pytest.raises(Conflict, match="another process answers"):
        socket_at(tmp_path / "penstock.sock")


def test_no_second_process_takes_the_socket_of_one_that_is_too_busy_to_answer(tmp_path: Path) -> None:
    path = tmp_path / "penstock.sock"
    with ExitStack() as held:
        busy = held.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(os.fspath(path))
        busy.listen(1)
        waiting = [held.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(10)]
        for one in waiting:
            one.setblocking(False)
        assert {one.connect_ex(os.fspath(path)) for one in waiting} == {0, errno.EAGAIN}
        with pytest.raises(Conflict, match="another process answers"):
            socket_at(path)
    assert socket_at(path).fileno() >= 0


async def test_the_same_key_with_another_body_is_refused(api: httpx.AsyncClient, ledger: Ledger) -> None:
    ledger.begin_request("root", "1", b"POST /v1/fleets/edge/commands\n{}")
    asked = {"kind": "hold", "reason": "lunch"}
    refused = await api.post("/fleets/edge/commands", json=asked, headers={"Idempotency-Key": "1"})
    assert refused.status_code == 422
    assert refused.json()["code"] == "OtherContent"


async def test_a_plan_is_named_by_its_digest_or_enough_of_it(api: httpx.AsyncClient, ledger: Ledger) -> None:
    added(ledger, "ocserv", "1.3.0")
    for written in ("sha256:", "sha256:a", "p-", "abcdefg1", ""):
        asked = {"fleet": "edge", "to": "1.3.0", "reason": "x", "plan": written}
        answer = await api.post("/changes", json=asked, headers={"Idempotency-Key": written or "empty"})
        assert answer.status_code == 422, answer.text


async def test_a_version_is_looked_for_among_the_fleets_own_product(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    added(ledger, "ocserv", "1.3.0")
    of_others = added(ledger, "openvpn", "1.3.0")
    headers = token(ledger, Role.OPERATOR)
    answer = await api.post("/plans", json={"fleet": "edge", "to": "1.3.0"}, headers=headers)
    assert of_others[:19] not in answer.text
    assert answer.status_code == 503, answer.text  # the engine is away, and nothing else is wrong


async def test_a_start_whose_answer_was_lost_is_answered_under_its_key_though_the_engine_is_away(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    added(ledger, "ocserv", "1.3.0")
    opening = ChangeOpening(
        key="root/k", fleet="edge", kind=ChangeKind.UPGRADE, requested_by="root", reason="x", release="1.3.0"
    )
    name = ledger.open_change(opening)
    asked = {"fleet": "edge", "to": "1.3.0", "reason": "x"}
    answer = await api.post("/changes", json=asked, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json().get("change")) == (202, name), answer.text


@pytest.mark.sweep
async def test_a_request_that_takes_long_is_not_carried_out_twice(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "ABANDONED", timedelta(seconds=4))
    ana = Caller(person="ana", grants={}, via=Via.API)
    done, began = asyncio.Event(), 0

    async def work() -> Answer:
        nonlocal began
        began += 1
        await done.wait()
        return Answer(status=200, body="{}")

    first = asyncio.create_task(service.once(ana, "k", b"same", work))
    await asyncio.sleep(6)  # longer than somebody who has ended is waited for
    with pytest.raises(Conflict, match="still being carried out"):
        await service.once(ana, "k", b"same", work)
    done.set()
    assert await first == await service.once(ana, "k", b"same", work)
    assert began == 1


async def test_a_change_is_remembered_longer_than_its_fleet_has_a_file(
    api: httpx.AsyncClient, ledger: Ledger, tmp_path: Path
) -> None:
    name = under_way(ledger)
    (tmp_path / "fleets" / "edge.yaml").unlink()
    assert (await api.get(f"/changes/{name}")).status_code == 200
    assert (await api.get(f"/changes/{name}/events")).status_code == 200
    of_core = token(ledger, Role.VIEWER, fleet="core")
    assert (await api.get(f"/changes/{name}", headers=of_core)).status_code == 404


async def test_a_quarantine_that_is_answered_as_failed_is_not_in_effect(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    asked = {"gateways": ["edge-1"], "reason": "odd"}
    route = "/fleets/edge/gateways/quarantine"
    answer = await api.post(route, json=asked, headers={"Idempotency-Key": "1"})
    assert answer.status_code == 503
    assert ledger.quarantined("edge") == ()


async def test_drains_that_were_told_are_said_though_another_does_not_answer(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    async def give(handle: SimpleNamespace, kind: str, command: DrainEnding) -> CommandReceipt:
        if handle.id.endswith("2"):
            raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
        ended.append(handle.id)
        return CommandReceipt(id=command.id, accepted=True, sentence=f"{kind}: as asked")

    async def running(*_: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(id=f"drain/edge/{number}") for number in (1, 2)]

    monkeypatch.setattr(drains, "give", give)
    monkeypatch.setattr(drains.DrainService, "_running", running)
    ana = Caller(person="ana", grants={"edge": frozenset({Role.OPERATOR})}, via=Via.API)
    receipts = await service.tell_drains(ana, "edge", None, DrainEnding(id="1", person="ana", reason="x"))
    assert ended == ["drain/edge/1"]
    assert [receipt.accepted for receipt in receipts] == [True, False]
    assert "drain/edge/2 does not answer" in receipts[1].sentence


async def test_a_drain_of_a_slot_is_meant_by_the_name_of_its_gateway_and_its_own(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant: list[tuple[str | None, str | None]] = []

    async def give(_: object, kind: str, command: DrainEnding) -> CommandReceipt:
        meant.append((command.gateway, command.slot))
        return CommandReceipt(id=command.id, accepted=True, sentence=f"{kind}: as asked")

    async def running(*_: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(id="drain/edge/1")]

    monkeypatch.setattr(drains, "give", give)
    monkeypatch.setattr(drains.DrainService, "_running", running)
    asked = {"reason": "it hangs", "slot": "a"}
    alone = await api.post("/fleets/edge/drains/end", json=asked, headers={"Idempotency-Key": "1"})
    assert alone.status_code == 422
    assert meant == []
    for number, (route, more) in enumerate((("end", {}), ("extend", {"by_seconds": 60}))):
        told = await api.post(
            f"/fleets/edge/drains/{route}",
            json=asked | more | {"gateway": "edge-1"},
            headers={"Idempotency-Key": f"2-{number}"},
        )
        assert told.status_code == 200, told.text
    assert meant == [("edge-1", "a")] * 2


async def test_a_reason_that_no_database_can_keep_is_refused_at_the_door(api: httpx.AsyncClient) -> None:
    asked = {"kind": "hold", "reason": "lunch\x00"}
    refused = await api.post("/fleets/edge/commands", json=asked, headers={"Idempotency-Key": "1"})
    assert refused.status_code == 422, refused.text


async def test_plans_of_others_make_no_beginning_ambiguous(api: httpx.AsyncClient, ledger: Ledger) -> None:
    planned(ledger, "core", "aaaaaaaa1")
    planned(ledger, "core", "aaaaaaaa2")
    answer = await api.get("/plans/aaaaaaaa", headers=token(ledger, Role.VIEWER))
    assert answer.status_code == 404, answer.text
    assert (await api.get("/plans/aaaaaaaa")).status_code == 400


async def test_who_is_told_that_an_order_was_heard_sees_it_on_the_next_screen(
    api: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change answers first and tells the ledger, which screens read, up to half a second later."""
    under_way(ledger)
    telling = list[asyncio.Task[None]]()

    async def tell(command: Command) -> None:
        await asyncio.sleep(0.5)
        last = ledger.last_change("edge")
        row = ledger.story(last.name) if last is not None else None
        assert row is not None
        story = Story(row.order, AT, row.told)
        story.hear(command, AT)
        ledger.record_story(row.order, story.dump(), 1, story.dump().events)

    async def hear(_: ChangeService, fleet: str, command: Command) -> CommandReceipt:
        telling.append(asyncio.create_task(tell(command)))
        return CommandReceipt(id=command.id, accepted=True, sentence=f"{fleet} is held.")

    monkeypatch.setattr(ChangeService, "command", hear)
    for key in ("first", "second"):  # the same words again are another order
        asked = {"kind": "hold", "reason": "lunch"}
        answer = await api.post("/fleets/edge/commands", json=asked, headers={"Idempotency-Key": key})
        assert answer.status_code == httpx.codes.OK, answer.text
        assert "held by root: lunch" in (await api.get("/fleets/edge")).text
        assert telling[-1].done(), "the answer came before any screen could show it"
    await asyncio.gather(*telling)
