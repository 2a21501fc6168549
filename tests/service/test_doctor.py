"""What `penstock doctor` finds: of an installation whose peers are away, and of one whose peers are there."""

import asyncio
import json
import os
import re
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from activities.drivers.private_files import write_private
from orchestrator.processes.composition import checkpoints_of, compose
from orchestrator.service import doctor
from orchestrator.service.doctor import DoctorService, Finding, Health
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.people import Caller, Role, Via
from tests.drivers.test_prometheus import page, server
from tests.service.command_line import CommandLine
from tests.service.conftest import installed
from tests.service.test_api import token


async def test_what_is_away_is_named_and_hides_nothing_else(penstock: CommandLine) -> None:
    found = await penstock("doctor", "-o", "json")
    assert found.code == 10, found
    health = {one["about"]: one["health"] for one in json.loads(found.out)["data"]}
    assert [health[name] for name in ("engine", "worker", "metrics")] == ["wrong"] * 3
    assert [health[name] for name in ("ledger", "audit", "files", "disk")] == ["well"] * 4
    assert health["sealing"] == "doubtful"
    assert health["edge: gateways"] == health["core: known-good"] == "doubtful"


async def test_every_line_says_how_it_is_what_was_found_and_what_helps(penstock: CommandLine) -> None:
    said = (await penstock("doctor")).out
    assert re.search(r"WRONG +engine +the engine cannot be", said)
    assert re.search(r"ok +ledger +sqlite answers", said)
    assert "penstock fleet adopt edge --dry-run" in said
    assert "penstock fleet install edge" in said


async def test_the_first_silent_gateway_is_named_with_what_keeps_it(
    penstock: CommandLine, ledger: Ledger
) -> None:
    ledger.record_states("edge", [], {"edge-1": "its agent seals with another key"})
    found = json.loads((await penstock("doctor", "-o", "json")).out)["data"]
    gateways = next(one for one in found if one["about"] == "edge: gateways")
    assert gateways["sentence"].endswith("edge-1; edge-1: its agent seals with another key")


async def test_a_file_that_is_wrong_is_named_and_takes_no_other_fleet_away(
    penstock: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "fleets" / "core.yaml").write_text("name: core\ngateways: []\n")
    found = json.loads((await penstock("doctor", "-o", "json")).out)["data"]
    files = next(one for one in found if one["about"] == "files")
    assert files["health"] == "wrong"
    assert "core.yaml, line" in files["sentence"]
    assert (await penstock("status", "edge")).code == 0
    broken = await penstock("status", "core")
    assert broken.code == 2
    assert "core.yaml, line" in broken.err


async def test_whoever_sees_one_fleet_hears_of_no_file_disk_or_other_fleet(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    answer = await api.get("/doctor", headers=token(ledger, Role.VIEWER, fleet="core"))
    about = [one["about"] for one in answer.json()["findings"]]
    assert about == [
        "engine",
        "worker",
        "ledger",
        "metrics",
        "core: gateways",
        "core: known-good",
        "core: certificates",
        "core: metrics",
    ]


ANYBODY = Caller(person="ana", grants={}, via=Via.API)


async def test_nobody_is_told_the_login_of_prometheus(tmp_path: Path) -> None:
    with server(page(b"who are you", status=401)) as url:
        place = url.replace("//", "//reader:a-secret-word@")
        settings = installed(tmp_path).model_copy(update={"prometheus_url": place})
        found = await (await compose(settings)).service.examine(ANYBODY)
    metrics = next(one for one in found if one.about == "metrics")
    assert metrics.sentence == "it answers with status 401"
    assert "secret" not in "".join(one.sentence for one in found)


async def test_whoever_asks_a_hundred_times_at_once_has_one_place_in_the_queue(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def examine(*_: object, **__: object) -> tuple[Finding, ...]:
        await asyncio.sleep(0.05)
        return ()

    monkeypatch.setattr(DoctorService, "examine", examine)
    noise = [asyncio.create_task(service.examine(ANYBODY)) for _ in range(100)]
    await asyncio.sleep(0.1)
    await service.examine(ANYBODY.model_copy(update={"person": "ben"}))
    assert sum(one.done() for one in noise) <= 5
    for one in noise:
        one.cancel()


async def test_it_answers_however_many_do_not(service: Service, api: httpx.AsyncClient) -> None:
    del service
    answer = await api.get("/doctor", timeout=5)
    assert answer.status_code == 200


async def test_whether_orders_are_sealed_is_said(penstock: CommandLine, tmp_path: Path) -> None:
    assert re.search(r"LOOK +sealing +nothing is sealed", (await penstock("doctor")).out)
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    write_private(sealed / "keys", f"spring:{'5a' * 32}\n".encode())
    settings = installed(sealed).model_copy(update={"payload_keys": sealed / "keys"})
    service = (await compose(settings)).service
    found = {one.about: one for one in await service.examine(service.people.at_the_socket(os.geteuid()))}
    assert (found["sealing"].health, "for: spring" in found["sealing"].sentence) == (Health.WELL, True)


async def test_a_record_is_doubtful_when_entries_wait_for_their_signature_and_not_when_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = installed(tmp_path)
    made = await compose(settings)
    points = checkpoints_of(settings, made.ledger)

    async def said() -> Finding:
        found = await made.service.examine(made.service.people.at_the_socket(os.geteuid()))
        return next(one for one in found if one.about == "audit")

    made.ledger.audit("root", "cli", "tried", "ledger", {})
    assert (await said()).health is Health.WELL  # a worker has an hour for it
    monkeypatch.setattr(doctor, "CHECKPOINT_WITHIN", timedelta(0))
    assert "is not signed" in (await said()).sentence
    signed = points.note(now=True)
    assert signed is not None
    assert (await said()).health is Health.WELL  # nobody did anything for however long
    ahead = signed.model_copy(update={"seq": 9})  # as if the newest entries had been taken away
    settings.audit_checkpoints.write_text(f"{ahead.model_dump_json()}\n")
    assert (await said()).sentence == "the record ends with entry 1, and 9 were signed; penstock audit verify"
