"""Worker, API and relay as processes: what they tell Prometheus, and whether they say that they are ready."""

import asyncio
import json
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from activities.drivers.private_files import write_private
from activities.files import FleetFiles
from deploy.ports import free_port
from orchestrator.monitoring import readiness as looks
from orchestrator.monitoring.ends import IndexEnds
from orchestrator.monitoring.installation import FRESH, InstallationFacts
from orchestrator.monitoring.readiness import FORGOTTEN, Readiness, in_a_thread
from orchestrator.monitoring.shown import ShownInstallation
from orchestrator.processes.composition import checkpoints_of
from orchestrator.processes.monitored import monitored
from orchestrator.publishing.builder import index_statement
from orchestrator.settings import Settings
from orchestrator.store import tables
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, ChangeOrder, Outcome, Phase
from policies.model.errors import BadInput, Unavailable
from policies.model.verdict import Action, Decision, GateVerdict
from policies.status.told import Told
from tests import patience
from tests.patience import PATIENCE
from tests.service.conftest import installed
from tests.service.test_exporter import Keys
from tests.workflows.engine import Engine, engine

TOKEN = "0" * 64


async def answer(port: int, path: str) -> tuple[int, str]:
    shown = {"Authorization": f"Bearer {TOKEN}"} if path == "/metrics" else {}
    async with httpx.AsyncClient(trust_env=False) as client:
        found = await client.get(f"http://127.0.0.1:{port}{path}", headers=shown)
    return found.status_code, found.text


async def until(port: int, wanted: Callable[[int, str], bool], path: str = "/readyz") -> str:
    """Return what is answered there once it is as wanted."""
    said: tuple[int, str] = (0, "")

    async def is_wanted() -> bool:
        nonlocal said
        with suppress(httpx.HTTPError):
            said = await answer(port, path)
        return wanted(*said)

    await patience.until(is_wanted, found=lambda: said)
    return said[1]


def samples(text: str) -> Mapping[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            found.setdefault(one.name, {})[tuple(one.labels.values())] = one.value
    return found


@asynccontextmanager
async def process(name: str, settings: Settings, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    said = {
        f"PENSTOCK_{key.upper()}": str(value)
        for key, value in settings.model_dump(exclude_defaults=True).items()
    }
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd())}
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator", name),
        env=base | said | more,
        stdout=asyncio.subprocess.PIPE,
    )
    assert started.stdout is not None
    try:
        assert (await asyncio.wait_for(started.stdout.readline(), PATIENCE)).startswith(b"ready")
        yield started
        started.terminate()
        assert await asyncio.wait_for(started.wait(), PATIENCE) == 0
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


@pytest.fixture
async def own() -> AsyncIterator[Engine]:
    """An engine of this test's own, which it may kill."""
    with engine() as made:
        yield made


@pytest.mark.sweep
async def test_each_process_says_that_it_is_ready_and_why_not_when_the_engine_or_the_ledger_is_away(
    own: Engine, tmp_path: Path
) -> None:
    client = await own.client("monitored")
    ports = {name: free_port() for name in ("worker", "api", "relay")}
    settings = installed(tmp_path, own.address, client.namespace).model_copy(
        update={
            "socket": tmp_path / "penstock.sock",
            "api_address": f"127.0.0.1:{free_port()}",
            "relay_address": f"127.0.0.1:{free_port()}",
            "relay_key": tmp_path / "relay.key",
            "authority": tmp_path / "authority",
            "windows": tmp_path / "windows",
            "metrics_token": tmp_path / "metrics.token",
            **{f"{name}_metrics_address": f"127.0.0.1:{port}" for name, port in ports.items()},
        }
    )
    write_private(tmp_path / "metrics.token", TOKEN.encode())
    assert settings.api_address is not None
    doors = {**ports, "the API's own": int(settings.api_address.rpartition(":")[2])}
    Ledger.open(settings.ledger_url).close()
    state = {"PENSTOCK_STATE": str(tmp_path / "state")}
    async with AsyncExitStack() as held:
        begun = (held.enter_async_context(process(name, settings, **state)) for name in ports)
        await asyncio.gather(*begun)
        for port in doors.values():
            await until(port, lambda status, said: (status, said) == (200, "ready\n"))
            assert await answer(port, "/healthz") == (200, "alive\n")
        text = await until(ports["worker"], lambda _, said: "penstock_gateways{" in said, "/metrics")
        shown = samples(text)
        assert shown["penstock_gateways"] == {("core",): 1, ("edge",): 1}
        assert shown["penstock_changes"]["edge", "held"] == 0
        assert shown["penstock_changes_ended_total"]["core", "rolled_back"] == 0
        assert shown["penstock_ready"]["worker", "worker"] == 1
        relay = samples((await answer(ports["relay"], "/metrics"))[1])
        assert relay["penstock_certificate_expiry_seconds"]["", "authority"] > time.time()
        api = samples((await answer(ports["api"], "/metrics"))[1])
        assert api["penstock_api_requests_total"]["GET", "200"] >= 2

        ledger = tmp_path / "ledger.db"
        ledger.rename(tmp_path / "away.db")
        own.kill()
        for port in doors.values():
            said = await until(
                port, lambda status, said: status == 503 and "engine" in said and "ledger" in said
            )
            assert "127.0.0.1" not in said, "a stranger hears no address"
            assert await answer(port, "/healthz") == (200, "alive\n")
        ready = samples((await answer(ports["api"], "/metrics"))[1])["penstock_ready"]
        assert ready == {("engine", "api"): 0, ("ledger", "api"): 0}
        (tmp_path / "ledger.db").unlink(missing_ok=True)
        (tmp_path / "away.db").rename(ledger)
        own.start()
        for port in doors.values():
            await until(port, lambda status, _: status == 200)


class Indexes:
    """A repository whose indexes end when the test says so."""

    def __init__(self) -> None:
        self.end: datetime | None = None
        self.asked: list[str] = []

    async def __call__(self, product: str, channel: str) -> bytes:
        self.asked.append(product)
        if self.end is None:
            raise Unavailable("the repository does not answer")
        issued = self.end - timedelta(days=1)
        return index_statement(product, channel, [], serial=1, issued_at=issued, days=1)


class Known:
    """An installation's ledger, and what its metrics say of it."""

    def __init__(self, folder: Path) -> None:
        self.settings = settings = installed(folder)
        self.ledger = Ledger.open(settings.ledger_url)
        points = checkpoints_of(settings, self.ledger)
        self.points = points
        self.facts = InstallationFacts(self.ledger, FleetFiles(settings.fleet), points)
        self.indexes = Indexes()
        self.shown = ShownInstallation(IndexEnds(self.indexes))
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self.shown)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"penstock_{name}", labels)

    def read(self) -> None:
        self.shown.facts = self.facts.read()

    def begin(self, fleet: str = "edge") -> str:
        opening = ChangeOpening(
            key=f"one of {fleet}",
            fleet=fleet,
            kind=ChangeKind.UPGRADE,
            requested_by="alice",
            reason="a fix",
            release="ocserv 1.3.0",
        )
        return self.ledger.open_change(opening)

    def tell(self, name: str, **told: object) -> None:
        order = ChangeOrder(fleet=name.partition("-")[0], kind=ChangeKind.UPGRADE, reason="a fix", key="k")
        self.ledger.record_story(order, Told.model_validate({"name": name, **told}), 0, ())
        self.read()


@pytest.fixture
def known(tmp_path: Path) -> Known:
    return Known(tmp_path)


def test_a_change_is_counted_by_its_phase_and_by_whom_it_waits_for(known: Known) -> None:
    name = known.begin()
    known.tell(name, phase=Phase.OBSERVING)
    assert known("changes", fleet="edge", phase="observing") == 1
    assert known("changes_needing_people", fleet="edge") == 0
    known.tell(name, phase=Phase.HELD, holds={"alice": "lunch"})
    assert known("changes", fleet="edge", phase="observing") == 0
    assert known("changes", fleet="edge", phase="held") == 1
    assert known("changes_needing_people", fleet="edge") == 1
    assert known("changes_needing_people", fleet="core") == 0


def test_a_change_without_evidence_is_blind_and_one_that_went_back_is_not(known: Known) -> None:
    name = known.begin()
    verdict = GateVerdict.METRICS_UNAVAILABLE
    decision = Decision(action=Action.HOLD, verdict=verdict, reason="nothing seen for 2 minutes")
    known.tell(name, phase=Phase.HELD, decision=decision)
    assert known("changes_blind", fleet="edge") == 1
    known.tell(name, phase=Phase.ROLLING_BACK, decision=decision)
    assert known("changes_blind", fleet="edge") == 0


def test_gateways_that_are_not_back_are_counted_until_the_change_has_its_end(known: Known) -> None:
    name = known.begin()
    not_back = {"edge-1": "the agent does not answer"}
    known.tell(name, phase=Phase.ROLLING_BACK, not_back=not_back, more_not_back=2)
    assert known("gateways_not_back", fleet="edge") == 3
    ending = ChangeEnding(change=name, outcome=Outcome.ROLLBACK_INCOMPLETE, sentence="edge-1 was given up")
    known.ledger.close_change(ending)
    known.read()
    assert known("gateways_not_back", fleet="edge") == 0
    assert known("changes_ended_total", fleet="edge", outcome="rollback_incomplete") == 1


def test_a_story_that_an_earlier_penstock_wrote_needs_a_person_and_hides_no_other(known: Known) -> None:
    old, new = known.begin(), known.begin("core")
    known.tell(new, phase=Phase.OBSERVING)
    with known.ledger.engine.begin() as connection:
        row = {"change": old, "order": "{}", "told": "{}", "at": datetime.now(UTC)}
        connection.execute(tables.stories.insert().values(**row))
    known.read()
    assert known("changes", fleet="edge", phase="unknown") == 1
    assert known("changes_needing_people", fleet="edge") == 1
    assert known("changes", fleet="core", phase="observing") == 1


def test_silent_unseen_and_quarantined_gateways_are_counted_of_the_fleets_file_only(known: Known) -> None:
    known.read()
    assert known("gateways_unseen", fleet="edge") == 1
    known.ledger.record_states("edge", [], {"edge-1": "no answer", "gone-1": "no answer"})
    known.read()
    assert known("gateways_silent", fleet="edge") == 1
    assert known("gateways_unseen", fleet="edge") == 0


def test_entries_without_a_checkpoint_are_told_from_a_record_that_nobody_added_to(known: Known) -> None:
    known.begin()
    known.read()
    assert known("audit_entries") == 1
    assert known("audit_signed_entries") == 0
    known.points.note(now=True)
    known.read()
    assert known("audit_signed_entries") == 1
    signed = known("audit_checkpoint_seconds")
    assert signed is not None
    assert abs(signed - time.time()) < 60


def test_a_gateway_whose_certificate_was_not_renewed_in_time_is_late_whatever_its_life(known: Known) -> None:
    def issue(serial: str, gateway: str, life: int = 30, **spent: float) -> None:
        issued = datetime.now(UTC) - timedelta(**spent)
        row = {"serial": serial, "fleet": "edge", "gateway": gateway, "issued_at": issued}
        with known.ledger.engine.begin() as connection:
            table = tables.gateway_certificates
            connection.execute(table.insert().values(**row, expires=issued + timedelta(days=life)))
        known.read()

    issue("1", "not-of-the-file", days=40)
    issue("2", "edge-1", days=21)
    assert known("gateway_certificates_late", fleet="edge") == 0
    with known.ledger.engine.begin() as connection:
        connection.execute(
            tables.gateway_certificates.delete().where(tables.gateway_certificates.c.serial == "2")
        )
    issue("3", "edge-1", days=23)
    assert known("gateway_certificates_late", fleet="edge") == 1
    issue("4", "edge-1", days=1)
    assert known("gateway_certificates_late", fleet="edge") == 0
    issue("5", "edge-1", life=1, hours=20)  # the one before it would have held longer
    assert known("gateway_certificates_late", fleet="edge") == 1


async def test_the_end_of_an_index_is_fetched_once_an_hour_and_stays_known_while_its_repository_is_away() -> (
    None
):
    now, indexes = [0.0], Indexes()
    ends = IndexEnds(indexes, clock=lambda: now[0])
    channel = ("ocserv", "stable")
    await ends.refresh({channel})
    assert ends.known == {}
    now[0] += 601
    indexes.end = datetime.now(UTC).replace(microsecond=0)
    for _ in range(3):
        await ends.refresh({channel})
        now[0] += 60
    assert ends.known == {channel: indexes.end.timestamp()}
    assert len(indexes.asked) == 2
    indexes.end, now[0] = None, now[0] + 3600
    await ends.refresh({channel})
    assert len(indexes.asked) == 3
    assert channel in ends.known
    await ends.refresh(set())
    assert ends.known == {}


def test_what_was_read_too_long_ago_is_not_shown(known: Known) -> None:
    known.read()
    assert known.shown.facts is not None
    then = known.shown.facts.at - FRESH.total_seconds() - 1
    known.shown.facts = replace(known.shown.facts, at=then)
    assert known("gateways", fleet="edge") is None


def test_a_thousand_gateways_have_as_many_series_as_ten(tmp_path: Path) -> None:
    counts = []
    for count in (10, 1_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        known = Known(folder)
        gateways: list[dict[str, Any]] = [
            {
                "name": f"gw-{number}",
                "addresses": [f"192.{number >> 16}.{number >> 8 & 255}.{number & 255}"],
                "slots": [
                    {"name": name, "port": 4440 + place, "device": f"oc{name}", "pool4": f"10.{place}.0.0/16"}
                    for place, name in enumerate("ab")
                ],
            }
            for number in range(count)
        ]
        content = {"name": "edge", "product": "ocserv", "nat": True, "gateways": gateways}
        (folder / "fleets" / "edge.yaml").write_text(json.dumps(content))
        known.ledger.record_states("edge", [], {one["name"]: "no answer" for one in gateways})
        known.read()
        assert known("gateways_silent", fleet="edge") == count
        counts.append(len([sample for family in known.shown.collect() for sample in family.samples]))
    assert counts[0] == counts[1]


async def test_a_look_that_hangs_ends_in_time_and_one_that_is_old_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    hangs = threading.Event()
    readiness = Readiness({"ledger": in_a_thread(hangs.wait, "hanging")}, clock=lambda: now[0])
    assert readiness.sentence == "ledger: was not looked at yet"
    monkeypatch.setattr(looks, "WITHIN", timedelta(seconds=0.2))
    await readiness.look()
    assert readiness.sentence == "ledger: does not answer within 0.2 s"
    hangs.set()
    await readiness.look()
    assert readiness.sentence is None
    now[0] += FORGOTTEN.total_seconds() + 1
    assert readiness.sentence == "ledger: was not looked at for 31 s"


async def test_a_thousand_questions_for_readiness_ask_no_part(tmp_path: Path) -> None:
    asked = []

    async def look() -> None:
        asked.append(1)

    readiness = Readiness({"engine": look}, clock=lambda: 0.0)
    await readiness.look()
    port = free_port()
    async with (
        monitored(installed(tmp_path), "api", f"127.0.0.1:{port}", readiness),
        httpx.AsyncClient(trust_env=False) as client,
    ):
        for _ in range(1000):
            assert (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
    assert asked == [1]


async def test_beyond_loopback_metrics_take_a_certificate_and_a_token_and_readiness_no_token(
    tmp_path: Path,
) -> None:
    keys, readiness = Keys(tmp_path / "keys"), Readiness({})
    plain = installed(tmp_path)
    with pytest.raises(BadInput, match="name PENSTOCK_METRICS_CERTIFICATE and PENSTOCK_METRICS_KEY"):
        async with monitored(plain, "worker", f"0.0.0.0:{free_port()}", readiness):
            pass
    shown = plain.model_copy(update={"metrics_certificate": keys.certificate, "metrics_key": keys.key})
    with pytest.raises(BadInput, match="name PENSTOCK_METRICS_TOKEN, or PENSTOCK_METRICS_CLIENTS"):
        async with monitored(shown, "worker", f"0.0.0.0:{free_port()}", readiness):
            pass
    whole, port = shown.model_copy(update={"metrics_token": keys.token}), free_port()
    async with (
        monitored(whole, "worker", f"0.0.0.0:{port}", readiness),
        httpx.AsyncClient(trust_env=False, verify=keys.trust) as client,
    ):
        at = f"https://127.0.0.1:{port}"
        assert (await client.get(f"{at}/metrics")).status_code == 401
        assert (await client.get(f"{at}/readyz")).text == "ready\n"
        scraped = await client.get(f"{at}/metrics", headers=keys.shown)
        assert "penstock_build_info" in scraped.text
        assert "process_cpu_seconds_total" in scraped.text


async def test_on_loopback_only_who_is_asked_for_a_token_hears_of_fleets(
    known: Known, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known.read()
    plain = known.settings
    write_private(tmp_path / "metrics.token", TOKEN.encode())
    asked = plain.model_copy(update={"metrics_token": tmp_path / "metrics.token"})
    heard = {}
    for name, settings in (("everybody", plain), ("known", asked)):
        port = free_port()
        async with monitored(settings, "worker", f"127.0.0.1:{port}", Readiness({}), [known.shown]):
            heard[name] = (await answer(port, "/metrics"))[1]
    assert "penstock_build_info" in heard["everybody"]
    assert "edge" not in heard["everybody"]
    assert 'penstock_gateways{fleet="edge"}' in heard["known"]
    assert [one.message.partition("; ")[2] for one in caplog.records] == [
        "set PENSTOCK_METRICS_TOKEN, and show it in the jobs of Prometheus"
    ]


async def test_a_port_in_use_is_named_with_the_setting_that_changes_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BadInput, match="PENSTOCK_RELAY_METRICS_ADDRESS"):
            async with monitored(installed(tmp_path), "relay", address, Readiness({})):
                pass
