"""What `penstock doctor` finds: of an installation whose peers are away, and of one whose peers are there."""

import asyncio
import json
import os
import re
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pysequoia
import pytest

from activities.drivers.private_files import write_private
from orchestrator.noticing.checking import Checking
from orchestrator.noticing.rules import RulesFile
from orchestrator.processes.composition import checkpoints_of, compose
from orchestrator.service import doctor
from orchestrator.service.doctor import OF_FLEET, DoctorService, Finding, Health
from orchestrator.service.service import Service
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from orchestrator.store.rebuilding import note_restored
from orchestrator.words.offers import spelled
from policies.adoption import release_of
from policies.model.change import ChangeKind, Outcome
from policies.model.errors import Unavailable
from policies.model.instance import NO_ANSWER
from policies.model.people import EVERY_FLEET, Caller, Role, Via
from policies.model.value import digest_of
from tests.drivers.test_prometheus import envelope, page, server
from tests.fakes.openpgp import Crafted
from tests.patience import PATIENCE, until
from tests.service.command_line import CommandLine
from tests.service.conftest import installed
from tests.service.test_api import token
from tests.service.test_every_state import ended, written
from tests.service.test_rollbacks import change


async def test_what_is_away_is_named_and_hides_nothing_else(penstock: CommandLine) -> None:
    found = await penstock("doctor", "-o", "json")
    assert found.code == 10, found
    health = {one["about"]: one["health"] for one in json.loads(found.out)["data"]}
    assert [health[name] for name in ("engine", "worker", "metrics")] == ["wrong"] * 3
    assert [health[name] for name in ("ledger", "audit", "files", "disk")] == ["well"] * 4
    assert health["sealing"] == "doubtful"
    assert health["edge: gateways"] == health["core: known-good"] == "doubtful"
    assert health["edge: certificates"] == "doubtful", "no gateway answered, so nothing is known"


async def test_an_installation_that_sends_no_notices_is_named(penstock: CommandLine) -> None:
    """A reader's finding: an installation by docs/install.md woke no operator, and its doctor was green."""
    found = await found_of(penstock, "notices")
    assert (found["health"], "penstock sends no notice" in found["sentence"]) == ("doubtful", True)
    assert found["mend"] == "set PENSTOCK_NOTICES"


async def test_each_finding_that_is_not_well_names_what_mends_it(
    penstock: CommandLine, tmp_path: Path
) -> None:
    """A fresh reader's M8: with the engine down, four lines that were WRONG had an empty NEXT."""
    (tmp_path / "fleets" / "core.yaml").write_text("name: core\ngateways: []\n")
    found = json.loads((await penstock("doctor", "-o", "json")).out)["data"]
    assert {"engine", "worker", "metrics", "files"} <= {
        one["about"] for one in found if one["health"] == "wrong"
    }
    assert [
        one["about"] for one in found if one["health"] != "well" and not (one["next"] or one["mend"])
    ] == []
    mends = {one["about"]: one["mend"] for one in found}
    assert mends["engine"] == mends["worker"] == "penstock runbook show worker-or-temporal-down"
    assert "penstock check FILE" in (await penstock("doctor")).out


async def found_of(penstock: CommandLine, about: str) -> dict[str, Any]:
    found = json.loads((await penstock("doctor", "-o", "json")).out)["data"]
    return next(one for one in found if one["about"] == about)


async def test_a_gateway_that_a_rollback_waits_for_is_wrong_and_hides_no_other(
    penstock: CommandLine, ledger: Ledger
) -> None:
    """A fresh reader's H2: it was LOOK and 0 while a rollback was incomplete."""
    written(ledger, ended(Outcome.ROLLBACK_INCOMPLETE, moved=True, not_back={"edge-1": "its disk is full"}))
    ledger.record_states("edge", [], {"edge-1": f"{NO_ANSWER} (observe gateway)"})
    found = await found_of(penstock, "edge: gateways")
    assert found["health"] == "wrong"
    assert found["sentence"] == "a rollback waits for edge-1; edge-1: its disk is full"
    assert [one["verb"] for one in found["next"]] == ["status"]


async def test_a_ledger_that_was_restored_is_doubtful_until_an_operator_has_confirmed_it(
    penstock: CommandLine, ledger: Ledger
) -> None:
    change(ledger, ChangeKind.INSTALL, "1.1.6")
    with writing(ledger.engine) as connection:
        note_restored(connection, datetime(2026, 11, 3, 4, tzinfo=UTC), "root")
    restored = await found_of(penstock, "ledger")
    assert restored["health"] == "doubtful"
    assert restored["sentence"].startswith("edge: the ledger was restored at ")
    assert "from a backup of 2026-11-03 04:00 UTC" in restored["sentence"]
    confirm = "penstock unpin edge --reason TEXT (after the restrictions are repeated)"
    assert [spelled(one) for one in restored["next"]] == [confirm]
    assert restored["mend"] == "", "the page of a lost ledger would restore an older one over this"
    assert ledger.confirm("edge", "ana", "all repeated")
    assert (await found_of(penstock, "ledger"))["health"] == "well"


async def test_a_ledger_that_does_not_answer_is_wrong_and_names_the_page_that_restores_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Ledger) -> None:
        raise Unavailable("the ledger sqlite:////var/lib/ledger.db does not answer")

    monkeypatch.setattr(Ledger, "audit_head", gone)
    lost = next(one for one in await service.examine(SEES_ALL) if one.about == "ledger")
    assert (lost.health, lost.mend) == (Health.WRONG, "penstock runbook show ledger-restore")


async def test_a_gateway_whose_agent_answers_that_it_cannot_be_read_is_wrong_and_one_that_is_silent_is_not(
    penstock: CommandLine, ledger: Ledger
) -> None:
    """A fresh reader's H2: both were silent gateways, LOOK."""
    ledger.record_states("edge", [], {"edge-1": f"{NO_ANSWER} (observe gateway)"})
    silent = await found_of(penstock, "edge: gateways")
    assert (silent["health"], silent["sentence"].split(":")[0]) == (
        "doubtful",
        "1 are silent and 0 were not looked at lately",
    )
    ledger.record_states("edge", [], {"edge-1": "nft cannot list the table of edge-1: busy"})
    broken = await found_of(penstock, "edge: gateways")
    assert broken["health"] == "wrong"
    assert broken["sentence"].startswith("1 cannot be read, as their agents answer: edge-1; edge-1: nft")
    assert [spelled(one) for one in broken["next"]] == ["penstock doctor edge edge-1"]


async def test_the_lines_of_a_fleet_whose_file_is_wrong_say_that_it_was_not_looked_at(
    penstock: CommandLine, tmp_path: Path
) -> None:
    """A fresh reader's H3: its lines vanished."""
    assert (await found_of(penstock, "core: gateways"))["sentence"].startswith("0 are silent")
    (tmp_path / "fleets" / "core.yaml").write_text("name: core\ngateways: []\n")
    for name in OF_FLEET:
        found = await found_of(penstock, f"core: {name}")
        assert found["health"] == "doubtful"
        assert re.match(r"not looked at: .*core\.yaml, line", found["sentence"])
        assert found["mend"] == "penstock check FILE", "the page of the ledger restores an older one"


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


async def test_gateways_that_a_promotion_did_not_reach_are_named_with_what_brings_them_along(
    penstock: CommandLine, ledger: Ledger
) -> None:
    async def known_good() -> dict[str, Any]:
        found = json.loads((await penstock("doctor", "-o", "json")).out)["data"]
        return next(one for one in found if one["about"] == "edge: known-good")

    change(ledger, ChangeKind.INSTALL, "1.1.6")
    change(ledger, ChangeKind.INSTALL, "1.1.6", gateway="edge-9")
    assert (await known_good())["health"] == "well"
    change(ledger, ChangeKind.UPGRADE, "1.3.0", gateway="edge-9")
    found = await known_good()
    assert found["sentence"] == (
        "edge-3 promoted 1.3.0 without 1: edge-1; "
        "edge-1: its known-good is 1.1.6; what it serves is not known"
    )
    assert "penstock plan edge --to 1.3.0" in (await penstock("doctor")).out
    change(ledger, ChangeKind.UPGRADE, "1.3.0")
    assert (await known_good())["health"] == "well"


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


async def test_gates_that_others_may_write_are_named_and_not_read(service: Service, tmp_path: Path) -> None:
    """S7: the doctor read a gates.yaml that no plan would have been judged by."""
    (tmp_path / "own").mkdir()
    settings, gates = installed(tmp_path / "own"), tmp_path / "gates.yaml"
    gates.write_bytes(settings.gates.read_bytes())
    service = (await compose(settings.model_copy(update={"gates": gates}))).service

    async def files() -> Finding:
        return next(one for one in await service.examine(SEES_ALL) if one.about == "files")

    assert (await files()).health is Health.WELL
    gates.chmod(0o666)
    wrong = await files()
    assert wrong.health is Health.WRONG
    assert wrong.sentence == f"{gates} may be written by others; chmod go-w {gates}, and check what it says"


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
    assert f"Prometheus at {url} answers HTTP Status Code 401" in metrics.sentence
    assert "secret" not in "".join(one.sentence for one in found)


async def test_whoever_asks_a_hundred_times_at_once_has_one_place_in_the_queue(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, free = 0, asyncio.Event()

    async def examine(*_: object, **__: object) -> tuple[Finding, ...]:
        nonlocal begun
        begun += 1
        await free.wait()
        return ()

    monkeypatch.setattr(DoctorService, "examine", examine)
    noise = [asyncio.create_task(service.examine(ANYBODY)) for _ in range(100)]
    await until(lambda: begun == 1)
    ben = asyncio.create_task(service.examine(ANYBODY.model_copy(update={"person": "ben"})))
    await until(lambda: "ben" in service._own_turns)
    free.set()
    await ben
    assert begun <= 5
    for one in noise:
        one.cancel()


async def test_it_answers_however_many_do_not(service: Service, api: httpx.AsyncClient) -> None:
    del service
    answer = await api.get("/doctor", timeout=PATIENCE)
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


async def test_what_is_wrong_with_the_files_of_a_sink_is_what_a_worker_found(tmp_path: Path) -> None:
    """S5: the API, which people reach, read every receiver's key to say so."""
    file, there = tmp_path / "notices.yaml", tmp_path / "worker/notices.yaml"
    there.parent.mkdir()
    sink = {"name": "hook", "kind": "webhook", "url": "https://hooks.example/", "key_file": "hook.key"}
    for one in (file, there):
        one.write_text(json.dumps({"apiVersion": "penstock/v1", "sinks": [sink]}))
    made = await compose(installed(tmp_path).model_copy(update={"notices": file}))
    worker = Checking(made.ledger, RulesFile(there))

    async def said() -> Finding:
        found = await made.service.examine(made.service.people.at_the_socket(os.geteuid()))
        return next(one for one in found if one.about == "notices")

    assert "no worker has looked at the files of hook yet" in (await said()).sentence
    worker.look()
    assert (await said()).health is Health.WRONG
    assert "the sink hook tells nobody: " in (await said()).sentence
    write_private(there.parent / "hook.key", b"a key of sixteen characters or more\n")
    worker.look()
    assert "every sink takes what it is told" in (await said()).sentence


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


def written_policy(folder: Path, *valid: timedelta | None, count: int = 1) -> Path:
    """Write a trust policy of as many OpenPGP keys, each good for that time; return its file."""
    pinned, signers = {}, []
    for number, length in enumerate(valid):
        seconds = None if length is None else int(length.total_seconds())
        certificate = pysequoia.Tsk.generate("key", validity_seconds=seconds).extract_certificate()
        (folder / f"key{number}.asc").write_bytes(bytes(certificate))
        pinned[f"key{number}"] = {
            "cert": f"key{number}.asc",
            "fingerprint": certificate.fingerprint.upper(),
        }
        signers.append({"openpgp": f"key{number}", "person": str(number)})
    rule: dict[str, object] = {"product": "ocserv", "channel": "stable", "groups": {"lead": signers}}
    rule |= {"require": [{"group": "lead", "count": count}], "index_group": "lead"}
    path = folder / "trust.yaml"
    path.write_text(json.dumps({"version": 1, "openpgp": pinned, "rules": [rule]}))
    return path


YEARS, SOON, PAST = timedelta(days=900), timedelta(days=20), timedelta(seconds=1)


@pytest.mark.parametrize(
    ("valid", "count", "health", "said"),
    [
        ((None, YEARS), 1, Health.WELL, r"no key of trust\.yaml ends within 42 days"),
        (
            (YEARS, SOON),
            2,
            Health.DOUBTFUL,
            r"the OpenPGP key key1 ends at \d{4}-\d\d-\d\d \d\d:\d\d UTC; new",
        ),
        ((YEARS, PAST), 1, Health.DOUBTFUL, "the OpenPGP key key1 ended at "),
        (
            (YEARS, PAST),
            2,
            Health.WRONG,
            "too few signers are left for a new release of ocserv/stable: the OpenPGP key key1 ended at ",
        ),
    ],
)
async def test_a_signers_key_is_named_weeks_before_it_ends(
    tmp_path: Path, valid: tuple[timedelta | None, ...], count: int, health: Health, said: str
) -> None:
    """An expired key refused every release fleet-wide, and nothing had said that it would end."""
    (tmp_path / "own").mkdir()
    trust = written_policy(tmp_path, *valid, count=count)
    settings = installed(tmp_path / "own").model_copy(update={"trust": trust})
    service = (await compose(settings)).service
    await asyncio.sleep(1.1 if PAST in valid else 0)
    found = next(one for one in await service.examine(SEES_ALL) if one.about == "signers")
    assert found.health is health
    assert re.match(said, found.sentence)
    assert bool(found.mend) is (health is not Health.WELL)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_key_that_cannot_sign_is_named_beside_one_that_ends_soon(tmp_path: Path, count: int) -> None:
    """A certificate by SHA-1 was "the engine cannot be reached", and no other key's end was named."""
    (tmp_path / "own").mkdir()
    trust = written_policy(tmp_path, YEARS, SOON, None, count=count)
    policy = json.loads(trust.read_text())
    old = Crafted(hashed_by=2)
    (tmp_path / "key0.asc").write_bytes(old.content())
    policy["openpgp"]["key0"]["fingerprint"] = old.primary.fingerprint
    if count == 2:
        policy["rules"][0]["groups"]["lead"].pop()
    trust.write_text(json.dumps(policy))
    settings = installed(tmp_path / "own").model_copy(update={"trust": trust})
    service = (await compose(settings)).service
    found = next(one for one in await service.examine(SEES_ALL) if one.about == "signers")
    assert found.health is Health.WRONG
    assert "the OpenPGP key key0 signs: " in found.sentence
    assert "`gpg --quick-set-expire " in found.sentence
    assert "the OpenPGP key key1 ends at " in found.sentence
    assert ("too few signers are left" in found.sentence) is (count == 2)
    assert found.mend


async def test_a_look_that_fails_says_so_and_not_that_the_engine_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = installed(tmp_path)
    service = (await compose(settings)).service
    for error in (RuntimeError("No binding signature\n\nStack backtrace:"), AttributeError("no such field")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(doctor, "load_trust", fail)
        found = {one.about: one for one in await service.examine(SEES_ALL)}
        told = f"this look failed, so nothing is known of it ({type(error).__name__}: {str(error)[:12]}"
        assert found["signers"].sentence.startswith(told)
        assert "backtrace" not in found["signers"].sentence
        assert found["engine"].sentence == "the engine cannot be reached"


EDGE = "192.0.2.1:9500"
SEES_ALL = Caller(person="ana", grants={EVERY_FLEET: frozenset({Role.ADMIN})}, via=Via.API)
SEES_EDGE = Caller(person="ana", grants={"edge": frozenset({Role.VIEWER})}, via=Via.API)


class Scraped:
    """A Prometheus that has scraped one exporter, of which it has every series but some."""

    def __init__(self) -> None:
        self.without: set[str] = set()
        self.senseless: set[str] = set()
        self.twice = False
        self.fallen: set[str] = set()
        self.asked: set[str] = set()

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        (query,) = parse_qs(urlsplit(request.path).query)["query"]
        if "time()" in query:
            found: list[Any] = [{"metric": {}, "values": [[time.time(), str(time.time())]]}]
        else:
            (name, *_) = re.findall(r"up|vpngw_[a-z_]+", query)
            self.asked.add(name)
            there = name not in self.without
            if "resets(" in query:
                there = name in self.fallen
            elif "> 1" in query:
                there = self.twice
            elif "!=" in query.replace('instance!=""', ""):
                there = name in self.senseless
            found = [{"metric": {"instance": EDGE}, "values": [[time.time(), "1"]]}] if there else []
        page(envelope(found))(request)


async def of_metrics(folder: Path, url: str, about: str = "edge: metrics") -> Finding:
    """Return what is found of the metrics of the fleet edge, whose gateway serves."""
    settings = installed(folder).model_copy(update={"prometheus_url": url})
    found = await (await compose(settings)).service.examine(SEES_EDGE)
    return next(one for one in found if one.about == about)


@pytest.fixture
def serving_gateway(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    del ledger
    signed = release_of("ocserv", "1.3.0", digest_of(b"ocserv")).model_copy(update={"version": "1.3.0"})
    monkeypatch.setattr(Ledger, "known_good", lambda *_: {"edge-1": signed, "core-1": signed})


@pytest.mark.usefixtures("serving_gateway")
async def test_a_series_that_gates_require_and_no_exporter_has_is_named_with_its_gateways(
    tmp_path: Path,
) -> None:
    """newcomer 1: the doctor called metrics well while `vpngw_sessions` was never there."""
    scraped = Scraped()
    scraped.without = {"vpngw_sessions"}
    with server(scraped) as url:
        found = await of_metrics(tmp_path, url)
    assert found.health is Health.WRONG
    assert found.sentence == (
        "every upgrade is held: Prometheus has no vpngw_sessions of edge-1, which gates require; read why on "
        "such a host: journalctl -u penstock-exporter"
    )


@pytest.mark.usefixtures("serving_gateway")
async def test_everything_that_the_packaged_gates_require_is_asked_for_and_optional_series_are_not(
    tmp_path: Path,
) -> None:
    """newcomer 1: the same file that holds the wave says what has to be there before."""
    scraped = Scraped()
    scraped.without = {"vpngw_tunnel_probes_total", "vpngw_tunnel_probe_lossy_total", "ALERTS"}
    with server(scraped) as url:
        found = await of_metrics(tmp_path, url)
    assert (found.health, "series that gates require" in found.sentence) == (Health.WELL, True)
    assert {"vpngw_sessions", "vpngw_process_open_fds", "vpngw_probe_success", "up"} <= scraped.asked


async def test_logins_to_an_adopted_daemon_are_named_as_not_counted_and_never_called_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serving_gateway: None
) -> None:
    """Its log is its own, and with `log-level = 2` it has no failed login: the doctor called metrics well."""
    del serving_gateway
    found_running = release_of("ocserv", "1.3.0", digest_of(b"ocserv"))
    monkeypatch.setattr(Ledger, "known_good", lambda *_: {"edge-1": found_running})
    with server(Scraped()) as url:
        found = await of_metrics(tmp_path, url)
    assert found.health is Health.DOUBTFUL
    assert found.sentence.endswith(
        "; logins to the daemon that was adopted are not counted on edge-1, so the next upgrade is judged by "
        "limits alone there"
    )


@pytest.mark.usefixtures("serving_gateway")
async def test_a_series_that_is_no_number_is_named(tmp_path: Path) -> None:
    """R8, case 05: found before an upgrade is."""
    scraped = Scraped()
    scraped.senseless = {"vpngw_first_attempts_total"}
    with server(scraped) as url:
        found = await of_metrics(tmp_path, url)
    assert found.health is Health.WRONG
    assert "Prometheus has no number for vpngw_first_attempts_total of edge-1" in found.sentence


@pytest.mark.usefixtures("serving_gateway")
async def test_a_pair_of_servers_that_is_not_deduplicated_is_found_before_any_upgrade(tmp_path: Path) -> None:
    """B7, case 03."""
    scraped = Scraped()
    scraped.twice = True
    with server(scraped) as url:
        found = await of_metrics(tmp_path, url)
    assert found.health is Health.WRONG
    assert "Prometheus has each series of edge-1 twice" in found.sentence


@pytest.mark.usefixtures("serving_gateway")
async def test_a_series_with_the_samples_of_two_scrapers_is_found_before_any_upgrade(tmp_path: Path) -> None:
    """R8: Thanos and VictoriaMetrics may give one, in which counters fall by a little."""
    scraped = Scraped()
    scraped.fallen = {"vpngw_first_attempts_total"}
    with server(scraped) as url:
        found = await of_metrics(tmp_path, url)
    assert found.health is Health.WRONG
    assert found.sentence.startswith(
        "a counter of edge-1 fell without a restart, so every upgrade is held; look"
    )


@pytest.mark.usefixtures("serving_gateway")
async def test_a_replica_that_is_away_is_named_while_the_other_answers(tmp_path: Path) -> None:
    """Case 06: a pair of servers."""
    with server(Scraped()) as url, server(page(b"busy", 503)) as away:
        both = await of_metrics(tmp_path, f"{away},{url}", "metrics")
    assert both.health is Health.DOUBTFUL
    assert away in both.sentence
    assert "readings come from the other replicas" in both.sentence


async def test_a_setting_that_no_gateway_takes_is_wrong_in_the_files(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    settings = installed(tmp_path / "own")
    service = (await compose(settings)).service
    file = next(iter(sorted(settings.fleet.glob("*.yaml")))) if settings.fleet.is_dir() else settings.fleet
    file.write_text(file.read_text() + "settings: {mtu: 1}\n")
    found = next(one for one in await service.examine(SEES_ALL) if one.about == "files")
    assert found.health is Health.WRONG
    assert "settings: mtu 1 is not 576 to 9000 bytes" in found.sentence
