"""How a host gets its certificate, keeps it and loses it: by the real commands, on real files and ports."""

import asyncio
import json
import os
import resource
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice import v1 as api
from temporalio.client import Client

from activities.drivers.private_files import write_private
from activities.files import load
from activities.refusals import only_logged
from deploy.ports import free_port
from orchestrator.api.limits import Kind
from orchestrator.engine.keys import MasterKeys, read_keys
from orchestrator.enrolment import host
from orchestrator.enrolment.authority import Authority, fingerprint_in, fingerprint_of, new_key
from orchestrator.enrolment.desk import Desk
from orchestrator.enrolment.host import ROOM, HostFiles
from orchestrator.enrolment.listener import enrolment_application
from orchestrator.enrolment.messages import CertificateGiven, EnrolmentAsked, RenewalAsked
from orchestrator.enrolment.names import RELAY_NAME, RENEW, Certified, certified
from orchestrator.enrolment.renewal import Renewal, ask_for_the_next, exchange
from orchestrator.enrolment.token import carried
from orchestrator.processes import agent as agent_process
from orchestrator.processes.agent_file import AgentSettings
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import compose
from orchestrator.processes.relay import relaying
from orchestrator.refusals import MOST_ENTRIES, Refusals
from orchestrator.relay import revocations
from orchestrator.relay.calls import SERVICE
from orchestrator.relay.revocations import Revocations
from orchestrator.relay.task_tokens import read_token_keys
from orchestrator.settings import Settings
from orchestrator.store.certificates import MOST_LIVING
from orchestrator.store.database import BUSY_MILLISECONDS
from orchestrator.store.ledger import Ledger
from policies.model.errors import BadInput, NotAllowed, Unavailable
from tests.fakes.authority import EnterpriseCa
from tests.fakes.hostile_requests import HOSTILE, Parsed, answer_to
from tests.patience import PATIENCE, until
from tests.relay.installation import (
    Installation,
    Shown,
    issued,
    request_for,
    working,
)
from tests.relay.test_attacks import ask_until_refused, caller, refusal_of
from tests.service import conftest as two_fleets
from tests.service.command_line import CommandLine
from tests.workflows.engine import Engine

MASTER = f"one:{'5a' * 32}\n"
AGENT = """\
gateway:
  name: edge-1
  fleet: edge
  addresses: [192.0.2.1]
  slots:
    - {{name: a, port: 4441, device: oca, pool4: 10.0.0.0/24}}
    - {{name: b, port: 4442, device: ocb, pool4: 10.0.1.0/24}}
root: {folder}/root
product: ocserv
channel: stable
trust: {folder}/trust.yaml
temporal_address: {relay}
temporal_namespace: {namespace}
certificate: {folder}/host/agent.pem
key: {folder}/host/agent.key
authority: {folder}/host/authority.pem
payload_keys: {folder}/host/payload.keys
probe: {{user: probe, password: {folder}/none, authority: {folder}/none}}
"""


HOSTS = ThreadPoolExecutor(8, thread_name_prefix="host")
"""The relay's own threads are those of this process."""


@dataclass
class House:
    """An installation with its API, a relay, and the host of the gateway edge-1."""

    folder: Path
    settings: Settings
    penstock: CommandLine
    relay: Installation
    files: HostFiles

    async def token(self) -> str:
        made = await self.penstock("gateway", "enrol", "edge", "edge-1")
        assert made.code == 0, made.err
        assert "good until" in made.err
        return made.out.strip()

    @property
    def at(self) -> str:
        assert self.settings.enrolment_address is not None
        return self.settings.enrolment_address

    async def enrol(self, token: str) -> None:
        enrol = partial(host.enrol, self.files, self.at, carried(token))
        await asyncio.get_running_loop().run_in_executor(HOSTS, enrol)

    @property
    def shown(self) -> Shown:
        return Shown(self.files.certificate.read_bytes(), self.files.key.read_bytes())

    def audited(self, *actions: str) -> list[tuple[str, str, str]]:
        entries = self.relay.ledger.audit_entries()
        return [(one.action, one.person, one.subject) for one in entries if one.action in actions]


def desk_in(folder: Path) -> tuple[Ledger, Desk]:
    ledger = Ledger.open(f"sqlite:///{folder / 'desk.db'}")
    authority = Authority.open(folder / "authority")
    return ledger, Desk(authority, ledger, timedelta(days=30), Refusals(ledger))


async def given_by(ledger: Ledger, desk: Desk, gateway: str) -> Certified:
    """Return the certificate that somebody with a new key is enrolled with."""
    token, _ = ledger.make_enrolment("edge", gateway, "ada")
    asked = EnrolmentAsked(token=token, request=request_for(new_key()), fleet="edge", gateway=gateway)
    given = await desk.enrol(asked, "192.0.2.1")
    return certified(x509.load_pem_x509_certificate(given.certificate.encode()))


@pytest.fixture
async def house(server: Engine, tmp_path: Path) -> AsyncIterator[House]:
    client = await server.client()
    changed = {
        "relay_address": f"127.0.0.1:{free_port()}",
        "enrolment_address": f"127.0.0.1:{free_port()}",
        "relay_key": tmp_path / "relay.key",
        "authority": tmp_path / "authority",
        "payload_keys": tmp_path / "payload.keys",
    }
    write_private(tmp_path / "payload.keys", MASTER.encode())
    settings = two_fleets.installed(tmp_path, server.address, client.namespace).model_copy(update=changed)
    (tmp_path / "agent.yaml").write_text(
        AGENT.format(folder=tmp_path, relay=settings.relay_address, namespace=client.namespace)
    )
    socket = tmp_path / "penstock.sock"
    penstock = CommandLine(
        {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.fspath(Path.cwd()),
            "PENSTOCK_SOCKET": os.fspath(socket),
        }
    )
    files = HostFiles(
        fleet="edge",
        gateway="edge-1",
        certificate=tmp_path / "host" / "agent.pem",
        key=tmp_path / "host" / "agent.key",
        authority=tmp_path / "host" / "authority.pem",
        payload_keys=tmp_path / "host" / "payload.keys",
    )

    service = (await compose(settings)).service
    async with relaying(settings) as relay, serving(service, socket_at(socket)):
        authority = Authority.open(settings.authority)
        ledger = Ledger.open(settings.ledger_url)
        made = Installation(settings, client, relay, ledger, authority)
        yield House(tmp_path, settings, penstock, made, files)
        ledger.close()


async def test_a_host_enrols_by_the_commands_and_its_agent_works(house: House) -> None:
    token = await house.token()
    done = await house.penstock.fed(
        token, "agent", "enrol", "--config", str(house.folder / "agent.yaml"), "--at", house.at
    )
    assert done.code == 0, done.err
    assert done.out.startswith("edge/edge-1 has certificate ")
    for path in (house.files.key, house.files.certificate, house.files.authority, house.files.payload_keys):
        assert path is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert house.files.payload_keys is not None
    derived = MasterKeys(read_keys(house.folder / "payload.keys")).lines_for("gateway/edge/edge-1")
    assert house.files.payload_keys.read_text() == derived
    assert MASTER not in derived
    assert not list((house.folder / "authority").glob("*edge*"))
    agent = await house.relay.agent("edge-1", house.shown)
    async with working(agent, "edge-1"):
        assert await house.relay.errand("edge-1") == ["said hello", "told to stop"]
    assert house.audited("enrolment asked for", "enrolment token made", "gateway enrolled") == [
        ("enrolment asked for", "root", "edge/edge-1"),
        ("enrolment token made", "root", "edge/edge-1"),
        ("gateway enrolled", "root", "edge/edge-1"),
    ]


@pytest.mark.sweep
async def test_the_driver_of_a_cluster_enrols_under_its_clusters_name_and_takes_orders_there(
    house: House,
) -> None:
    described = house.folder / "fleets" / "edge.yaml"
    refused = await house.penstock("gateway", "enrol", "edge", "west")
    assert (refused.code, "edge has no gateway west, and no cluster of that name" in refused.err) == (2, True)
    described.write_text(
        described.read_text().replace(
            "  - name: edge-1\n",
            "  - name: edge-1\n    runtime: kubernetes\n    placement: {cluster: west, node: worker-1}\n",
        )
    )
    made = await house.penstock("gateway", "enrol", "edge", "west")
    assert made.code == 0, made.err
    driver = HostFiles(**vars(house.files) | {"gateway": "west"})
    await asyncio.to_thread(host.enrol, driver, house.at, carried(made.out.strip()))
    assert house.files.payload_keys is not None
    derived = MasterKeys(read_keys(house.folder / "payload.keys")).lines_for("gateway/edge/west")
    assert house.files.payload_keys.read_text() == derived
    async with working(await house.relay.agent("west", house.shown), "west"):
        assert await house.relay.errand("west") == ["said hello", "told to stop"]
    said = await house.penstock("gateway", "certificates", "edge", "-o", "json")
    states = {one["gateway"]: one["state"] for one in json.loads(said.out)["data"]["certificates"]}
    assert states == {"edge-1": "unknown", "west": "good"}


async def test_what_is_said_of_certificates_is_what_hosts_have(house: House) -> None:
    async def told() -> dict[str, Any]:
        said = await house.penstock("gateway", "certificates", "edge", "-o", "json")
        assert said.code == 0, said.err
        (one,) = json.loads(said.out)["data"]["certificates"]
        return cast(dict[str, Any], one)

    assert (await told())["state"] == "unknown"
    token = await house.token()
    assert (await told())["token"]["person"] == "root"
    await house.enrol(token)
    one, held = await told(), house.files.held()[0]
    assert (one["state"], one["token"]) == ("good", None)
    assert datetime.fromisoformat(one["expires"]) == held.not_valid_after_utc
    done = await house.penstock("gateway", "revoke", "edge", "edge-1", "--reason", "stolen from rack 7")
    assert done.code == 0, done.err
    one = await told()
    assert (one["state"], one["expires"]) == ("revoked", None)
    assert (one["revocation"]["person"], one["revocation"]["reason"]) == ("root", "stolen from rack 7")


async def test_a_token_is_used_once_even_by_many_at_once(house: House) -> None:
    token = await house.token()
    tried = await asyncio.gather(*(house.enrol(token) for _ in range(8)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in tried) == ["NoneType", *["NotAllowed"] * 7]
    with pytest.raises(NotAllowed, match="was used at"):
        await house.enrol(token)
    assert len(house.audited("gateway enrolled")) == 1


async def test_strangers_of_many_networks_are_a_bounded_number_of_entries_of_refused_enrolments(
    server: Engine, tmp_path: Path
) -> None:
    """S3, the enrolment port: each client network was an entry an hour of a record that is kept for ever."""
    client = await server.client()
    changed = {
        "relay_address": f"127.0.0.1:{free_port()}",
        "enrolment_address": f"127.0.0.1:{free_port()}",
        "relay_key": tmp_path / "relay.key",
        "authority": tmp_path / "authority",
    }
    settings = two_fleets.installed(tmp_path, server.address, client.namespace).model_copy(update=changed)
    nothing = EnrolmentAsked(token=f"pse_{'0' * 16}_{'a' * 43}", request="x", fleet="edge", gateway="gw-1")
    strangers = 3 * MOST_ENTRIES
    async with relaying(settings):
        for number in range(1, strangers + 1):
            asked = httpx.AsyncHTTPTransport(verify=False, local_address=f"127.9.0.{number}")
            async with httpx.AsyncClient(transport=asked, timeout=PATIENCE) as stranger:
                url = f"https://{settings.enrolment_address}/v1/enrol"
                assert (await stranger.post(url, content=nothing.model_dump_json())).status_code == 403
    ledger = Ledger.open(settings.ledger_url)
    entries = [one for one in ledger.audit_entries() if one.action == "enrolment refused"]
    assert 1 <= len(entries) <= MOST_ENTRIES
    ledger.close()


async def test_a_token_is_good_for_a_quarter_of_an_hour(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.store.certificates.GOOD_FOR", timedelta(minutes=-1))
    token = await house.token()
    with pytest.raises(NotAllowed, match="expired"):
        await house.enrol(token)
    assert not house.files.key.exists()


async def test_a_token_is_for_one_gateway(house: House) -> None:
    token = carried(await house.token())
    other = HostFiles(**vars(house.files) | {"gateway": "edge-2"})
    with pytest.raises(NotAllowed, match="for another gateway"):
        await asyncio.to_thread(host.enrol, other, house.at, token)
    await house.enrol(str(token))


async def test_a_host_shows_its_token_to_no_relay_of_a_stranger(house: House, tmp_path: Path) -> None:
    token = carried(await house.token())
    stranger = Authority.open(tmp_path / "stranger")
    forged = token._replace(fingerprint=fingerprint_of(stranger.certificate))
    with pytest.raises(BadInput, match="nothing was shown to it"):
        await asyncio.to_thread(host.enrol, house.files, house.at, forged)
    await house.enrol(str(token))


@pytest.mark.parametrize("typed", ["", "pse_1", "pst_0123.x", "a" * 300, "pse_0.zz", "pse_0." + "Z" * 64])
def test_what_is_no_token_is_said_to_be_none(typed: str) -> None:
    with pytest.raises(BadInput, match="no enrolment token"):
        carried(typed)


@pytest.mark.sweep
async def test_the_command_says_what_is_missing(house: House) -> None:
    config = str(house.folder / "agent.yaml")
    done = await house.penstock.fed("nonsense", "agent", "enrol", "--config", config, "--at", house.at)
    assert (done.code, "no enrolment token" in done.err) == (2, True)
    done = await house.penstock("agent", "enrol", "--config", config)
    assert (done.code, "say --at HOST:PORT of a relay" in done.err) == (2, True)
    done = await house.penstock("agent", "renew", "--config", config)
    assert (done.code, "penstock agent enrol gets one" in done.err) == (2, True)
    unknown = await house.penstock("gateway", "enrol", "edge", "edge-9")
    assert (unknown.code, "edge has no gateway edge-9" in unknown.err) == (2, True)


@pytest.mark.sweep
async def test_a_certificate_is_renewed_by_the_command_and_by_what_keeps_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.enrol(await house.token())
    first, key = house.files.held()[1], house.files.key.read_bytes()
    done = await house.penstock("agent", "renew", "--config", str(house.folder / "agent.yaml"))
    assert done.code == 0, done.err
    second = house.files.held()[1]
    assert second.serial != first.serial
    assert house.files.key.read_bytes() == key
    assert house.audited("certificate renewed") == [("certificate renewed", "penstock", "edge/edge-1")]
    agent = await house.relay.agent("edge-1", house.shown)
    asked, exchanged = [], asyncio.Event()
    settings = load(house.folder / "agent.yaml", AgentSettings)

    async def ask() -> None:
        asked.append(datetime.now(UTC))
        await ask_for_the_next(house.folder / "agent.yaml")

    monkeypatch.setattr("orchestrator.enrolment.renewal.LOOK", timedelta(milliseconds=50))
    monkeypatch.setattr("orchestrator.enrolment.host.RENEWED_AT", -1.0)
    monkeypatch.setattr("orchestrator.enrolment.host.RESTED", 0.0)
    worker = working(agent, "edge-1")

    async def connected() -> Client:
        monkeypatch.setattr("orchestrator.enrolment.host.RENEWED_AT", 2 / 3)
        return await agent_process.connected(settings, only_logged)

    def exchanging(client: Client) -> None:
        exchange(worker, client)
        exchanged.set()

    async with worker:
        keeping = asyncio.create_task(Renewal(house.files, ask).keep(connected, exchanging))
        await asyncio.wait_for(exchanged.wait(), PATIENCE)
        before = len(asked)
        assert await house.relay.errand("edge-1", "renewed") == ["said renewed", "told to stop"]
        assert len(asked) == before
        keeping.cancel()
    assert house.files.held()[1].serial not in {first.serial, second.serial}


def test_the_next_certificate_is_due_at_two_thirds_of_a_life(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "authority")
    files = HostFiles("edge", "gw-1", tmp_path / "c", tmp_path / "k", tmp_path / "a")
    files.certificate.write_bytes(issued(authority, "gw-1", timedelta(days=30)).certificate)
    now = datetime.now(UTC)
    assert timedelta(days=19, hours=23) < files.renew_at(now) - now < timedelta(days=20)


@pytest.mark.parametrize("ahead", [21, 300])
def test_a_clock_that_is_weeks_ahead_has_a_certificate_renewed_every_few_days(
    tmp_path: Path, ahead: int
) -> None:
    authority = Authority.open(tmp_path / "authority")
    files = HostFiles("edge", "gw-1", tmp_path / "c", tmp_path / "k", tmp_path / "a")
    now = datetime.now(UTC) + timedelta(days=ahead)
    files.certificate.write_bytes(issued(authority, "gw-1", timedelta(days=30)).certificate)
    os.utime(files.certificate, (now.timestamp(), now.timestamp()))
    assert timedelta(days=4, hours=23) < files.renew_at(now) - now <= timedelta(days=5, minutes=5)
    mended = now - timedelta(days=ahead)
    assert timedelta(days=19, hours=23) < files.renew_at(mended) - mended < timedelta(days=20)


async def test_a_certificate_that_was_not_kept_is_given_again_and_counted_once(house: House) -> None:
    await house.enrol(await house.token())
    before = house.files.certificate.read_bytes()
    given = await asyncio.to_thread(host.renew, house.files, house.relay.address)
    for _ in range(MOST_LIVING):
        house.files.certificate.write_bytes(before)
        assert await asyncio.to_thread(host.renew, house.files, house.relay.address) == given
    assert len(house.audited("certificate renewed")) == 1
    ask = caller(house.relay, house.shown)
    await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
    assert await asyncio.to_thread(host.renew, house.files, house.relay.address) != given


@pytest.mark.sweep
async def test_the_command_that_renews_a_certificate_which_ended_says_that_this_host_is_to_be_enrolled_anew(
    house: House,
) -> None:
    """It said `TSI_DATA_CORRUPTED`, as if the relay were ill."""
    await house.enrol(await house.token())
    ended = issued(house.relay.authority, "edge-1", timedelta(seconds=-1))
    house.files.certificate.write_bytes(ended.certificate)
    house.files.key.write_bytes(ended.key)
    done = await house.penstock("agent", "renew", "--config", str(house.folder / "agent.yaml"))
    assert (done.code, "enrol this host anew" in done.err) == (BadInput.exit_code, True), done.err
    assert "`penstock gateway enrol edge edge-1`" in done.err
    assert "`penstock agent enrol --config FILE --at RELAY:PORT`" in done.err
    await house.enrol(await house.token())
    done = await house.penstock("agent", "renew", "--config", str(house.folder / "agent.yaml"))
    assert done.code == 0, done.err


async def test_a_certificate_is_renewed_for_its_own_key_alone(house: House) -> None:
    await house.enrol(await house.token())
    asked = RenewalAsked(request=request_for(new_key())).model_dump_json().encode()
    credentials = grpc.ssl_channel_credentials(
        house.relay.authority.pem, house.shown.key, house.shown.certificate
    )
    options = (("grpc.ssl_target_name_override", RELAY_NAME),)
    async with grpc.aio.secure_channel(house.relay.address, credentials, options=options) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(RENEW)
        with pytest.raises(grpc.aio.AioRpcError, match="is renewed for its own key"):
            await ask(asked, timeout=PATIENCE)
    assert not house.audited("certificate renewed")


async def test_a_host_that_can_keep_no_certificate_asks_for_none(house: House, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    closed = replace(house.files, payload_keys=tmp_path / "file" / "payload.keys")
    token = await house.token()
    with pytest.raises(BadInput, match=r"file/payload\.keys cannot be written: "):
        await asyncio.to_thread(host.enrol, closed, house.at, carried(token))
    await house.enrol(token)
    with pytest.raises(BadInput, match=r"file/payload\.keys cannot be written: "):
        await asyncio.to_thread(host.renew, closed, house.relay.address)
    assert not house.audited("certificate renewed")
    assert sorted(path.name for path in house.files.key.parent.iterdir()) == [
        "agent.key",
        "agent.pem",
        "authority.pem",
        "payload.keys",
    ]


@pytest.mark.parametrize("cut_short_at", [".agent.key.next", "authority.pem", "agent.pem", "agent.key"])
def test_whoever_is_killed_while_keeping_a_new_key_and_certificate_leaves_a_pair_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_short_at: str
) -> None:
    authority = Authority.open(tmp_path / "authority")
    files = HostFiles(
        "edge", "gw-1", *(tmp_path / name for name in ("agent.pem", "agent.key", "authority.pem"))
    )

    def given() -> tuple[CertificateGiven, bytes]:
        made = issued(authority, "gw-1")
        pem = authority.pem.decode()
        return CertificateGiven(certificate=made.certificate.decode(), authorities=pem), made.key

    def killed(path: Path, content: bytes) -> None:
        if path.name == cut_short_at:
            raise KeyboardInterrupt
        write_private(path, content)

    def killed_at_the_end(_: HostFiles) -> None:
        raise KeyboardInterrupt

    files.keep(*given())
    first = files.held()[1].serial
    following = given()
    with monkeypatch.context() as patched:
        patched.setattr(host, "write_private", killed)
        if cut_short_at == files.key.name:
            patched.setattr(HostFiles, "settle", killed_at_the_end)
        with pytest.raises(KeyboardInterrupt):
            files.keep(*following)
    files.settle()
    assert files.key_held().public_key() == files.held()[0].public_key()
    assert (files.held()[1].serial == first) == (cut_short_at != files.key.name)
    files.keep(*given())
    assert files.key_held().public_key() == files.held()[0].public_key()
    assert not (tmp_path / ".agent.key.next").exists()


def test_a_file_for_which_the_disk_has_no_room_is_named(tmp_path: Path) -> None:
    files = HostFiles("edge", "gw-1", tmp_path / "c", tmp_path / "k", tmp_path / "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM - 1, hard))
    try:
        with pytest.raises(BadInput, match=f"{files.key} cannot be written: File too large"):
            files.require_room()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*tmp_path.iterdir()]


async def test_a_revoked_gateway_is_out_until_it_is_enrolled_anew(house: House) -> None:
    await house.enrol(await house.token())
    old, open_token = house.shown, await house.token()
    ask = caller(house.relay, old)
    await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
    done = await house.penstock("gateway", "revoke", "edge", "edge-1", "--reason", "stolen")
    assert done.code == 0, done.err
    assert done.out.startswith("edge-1 is let in no more: 1 certificate of ours")
    assert await house.relay.relay.look_again()
    code, why = await refusal_of(ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest()))
    assert (code, "was revoked" in why) == (grpc.StatusCode.PERMISSION_DENIED, True)
    with pytest.raises(NotAllowed, match="was revoked"):
        await asyncio.to_thread(host.renew, house.files, house.relay.address)
    with pytest.raises(NotAllowed, match="the enrolment token of edge/edge-1 was revoked at"):
        await house.enrol(open_token)
    await house.enrol(await house.token())
    await caller(house.relay, house.shown)(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
    code, _ = await refusal_of(ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest()))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert house.audited("revocation asked for", "certificates revoked") == [
        ("revocation asked for", "root", "edge/edge-1"),
        ("certificates revoked", "root", "edge/edge-1"),
    ]


async def test_a_host_that_is_enrolled_anew_ends_its_predecessors_certificates_and_polls(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.relay.revocations.EVERY", timedelta(milliseconds=50))
    changed = {"relay_address": f"127.0.0.1:{free_port()}", "enrolment_address": None}
    settings = house.settings.model_copy(update=changed)
    async with relaying(settings) as relay:
        beside = replace(house.relay, settings=settings, relay=relay)
        await house.enrol(await house.token())
        first, whose = house.files.held()[1].serial, caller(beside, house.shown)
        polling = asyncio.create_task(
            refusal_of(
                whose(
                    SERVICE + "PollActivityTaskQueue",
                    api.PollActivityTaskQueueRequest(
                        namespace=settings.temporal_namespace,
                        task_queue=TaskQueue(name="gateway/edge/edge-1"),
                    ),
                )
            )
        )
        await until(lambda: relay.told.calls["PollActivityTaskQueue"] == 1)
        await house.enrol(await house.token())
        code, why = await polling
        assert (code, "was revoked" in why) == (grpc.StatusCode.PERMISSION_DENIED, True)
        code, why = await refusal_of(whose(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest()))
        assert (code, "was revoked" in why) == (grpc.StatusCode.PERMISSION_DENIED, True)
        await caller(beside, house.shown, 1)(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
        await asyncio.to_thread(host.renew, house.files, beside.address)
        await caller(beside, house.shown, 2)(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
    bodies = [one.body for one in house.relay.ledger.audit_entries() if one.action == "gateway enrolled"]
    assert [json.loads(body)["ended"] for body in bodies] == [[], [first]]


async def test_strangers_of_one_network_are_one_stranger_at_the_enrolment_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each request that was refused for too many of them was a line of the log, too."""
    monkeypatch.setattr(Kind, "per_second", 1 / 3600)  # however long a busy machine takes for so many
    ledger, _ = desk_in(tmp_path)
    refusals = Refusals(ledger)
    authority = Authority.open(tmp_path / "authority")
    application = enrolment_application(Desk(authority, ledger, timedelta(days=30), refusals))
    nothing = EnrolmentAsked(token=f"pse_{'0' * 16}_{'a' * 43}", request="x", fleet="edge", gateway="gw-1")

    async def asked_from(address: str) -> int:
        transport = httpx.ASGITransport(app=application, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="https://relay") as client:
            return (await client.post("/v1/enrol", content=nothing.model_dump_json())).status_code

    answers = [await asked_from(f"2001:db8::{number:x}") for number in range(Kind.STRANGER.size + 10)]
    assert answers.count(403) == Kind.STRANGER.size
    assert answers[-1] == 429
    assert len(caplog.records) == Kind.STRANGER.size
    assert await asked_from("2001:db8:0:1::1") == 403
    assert await asked_from("192.0.2.1") == 403
    assert ledger.audit_entries() == ()
    refusals.write()
    refused = {one.subject: json.loads(one.body)["count"] for one in ledger.audit_entries()}
    assert refused == {"2001:db8::/64": Kind.STRANGER.size, "2001:db8:0:1::/64": 1, "192.0.2.1": 1}
    ledger.close()


async def test_enrolling_anew_ends_nobody_elses_certificates(tmp_path: Path) -> None:
    ledger, desk = desk_in(tmp_path)
    neighbour = await given_by(ledger, desk, "gw-2")
    first, second = [await given_by(ledger, desk, "gw-1") for _ in range(2)]
    known = Revocations(ledger.admitted_certificates)
    assert await known.refresh()
    assert [await known.refuses(one) for one in (neighbour, first, second)] == [False, True, False]
    ledger.close()


async def test_a_name_that_no_gateway_has_is_revoked_and_said(house: House) -> None:
    done = await house.penstock("gateway", "revoke", "edge", "egde-1", "--reason", "stolen")
    assert done.code == 0, done.err
    assert "edge has no gateway of that name now; check the spelling" in done.out


async def test_a_certificate_of_ones_own_authority_is_taken_from_files(house: House, tmp_path: Path) -> None:
    enterprise = EnterpriseCa(tmp_path / "enterprise")
    usage = x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH
    config = str(house.folder / "agent.yaml")

    def leaf(uri: str) -> tuple[str, ...]:
        key, certificate = enterprise.leaf(
            "edge-1", usage=usage, names=(x509.UniformResourceIdentifier(uri),)
        )
        key.chmod(0o600)
        files = ("--certificate", certificate, "--key", key, "--authority", enterprise.roots)
        return tuple(map(str, files))

    other = await house.penstock(
        "agent", "enrol", "--config", config, *leaf("penstock://gateway/edge/edge-2")
    )
    assert (other.code, "is the certificate of edge/edge-2" in other.err) == (2, True)
    done = await house.penstock("agent", "enrol", "--config", config, *leaf("penstock://gateway/edge/edge-1"))
    assert done.code == 0, done.err
    named = {
        "relay_authorities": enterprise.roots,
        "relay_address": f"127.0.0.1:{free_port()}",
        "enrolment_address": None,
    }
    settings = house.settings.model_copy(update=named)
    async with relaying(settings) as relay:
        beside = Installation(settings, house.relay.client, relay, house.relay.ledger, house.relay.authority)
        ask = caller(beside, house.shown)
        await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
        files = HostFiles(**vars(house.files) | {"authority": house.folder / "authority/authority.pem"})
        with pytest.raises(NotAllowed, match="not from this authority"):
            await asyncio.to_thread(host.renew, files, beside.address)


async def test_a_revocation_reaches_a_relay_by_itself(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {"relay_address": f"127.0.0.1:{free_port()}", "enrolment_address": None}
    monkeypatch.setattr("orchestrator.relay.revocations.EVERY", timedelta(milliseconds=50))
    settings = house.settings.model_copy(update=changed)
    async with relaying(settings) as relay:
        beside = replace(house.relay, settings=settings, relay=relay)
        ask = caller(beside, issued(house.relay.authority, "edge-1"))
        await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
        done = await house.penstock("gateway", "revoke", "edge", "edge-1", "--reason", "stolen")
        assert done.code == 0, done.err
        code, why = await refusal_of(ask_until_refused(ask, SERVICE + "GetSystemInfo"))
        assert (code, "was revoked" in why) == (grpc.StatusCode.PERMISSION_DENIED, True)


def test_a_revocation_is_effective_within_a_minute_even_if_one_reading_fails() -> None:
    assert revocations.EVERY * 2 + timedelta(milliseconds=BUSY_MILLISECONDS) < timedelta(minutes=1)


def test_a_relay_and_an_api_take_what_was_made_for_them_from_a_mounted_secret(tmp_path: Path) -> None:
    """S5: in a cluster the authority's key lay on a disk that API and worker had, too."""
    made = tmp_path / "made"
    said = subprocess.run(
        [sys.executable, "-m", "orchestrator", "keys", "relay", str(made)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    relays, apis = tmp_path / "relays", tmp_path / "apis"
    for secret, names in (
        (relays, ("authority.pem", "authority.key", "relay.key")),
        (apis, ("authority.pem",)),
    ):
        (secret / "..2026").mkdir(parents=True)
        secret.chmod(0o1777)  # as the kubelet has it
        (secret / "..data").symlink_to("..2026")
        for name in names:
            (secret / "..2026" / name).write_bytes((made / name).read_bytes())
            (secret / "..2026" / name).chmod(0o400)
            (secret / name).symlink_to(f"..data/{name}")
    authority = Authority.open(relays)
    assert fingerprint_of(authority.certificate) == fingerprint_in(apis)
    assert fingerprint_in(apis) in said.stdout
    assert read_token_keys(relays / "relay.key") == read_token_keys(made / "relay.key")


def test_two_processes_that_begin_at_once_have_one_authority(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as beginning:
        found = list(beginning.map(lambda _: Authority.open(tmp_path / "authority").pem, range(8)))
    assert len(set(found)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authority"]
    for path in (tmp_path / "authority").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_authority_whose_key_others_can_read_is_refused(tmp_path: Path) -> None:
    Authority.open(tmp_path / "authority")
    (tmp_path / "authority" / "authority.key").chmod(0o640)
    with pytest.raises(BadInput, match="may be read by others"):
        Authority.open(tmp_path / "authority")


@pytest.mark.parametrize("lives", [timedelta(minutes=4), timedelta(seconds=-1)])
def test_an_authority_that_has_expired_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: timedelta
) -> None:
    monkeypatch.setattr("orchestrator.enrolment.authority.LIVES", lives)
    with pytest.raises(BadInput, match="move it away"):
        Authority.open(tmp_path / "authority")


@pytest.mark.parametrize("key", [b"no key", None], ids=["no key", "under a password"])
def test_an_authority_with_a_broken_key_says_so(tmp_path: Path, key: bytes | None) -> None:
    Authority.open(tmp_path / "authority")
    sealed = new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    write_private(tmp_path / "authority" / "authority.key", key or sealed)
    with pytest.raises(BadInput, match="is no key in PEM"):
        Authority.open(tmp_path / "authority")


async def test_a_gateway_cannot_fill_the_ledger_with_certificates(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.store.certificates.MOST_LIVING", 3)
    await house.enrol(await house.token())
    for _ in range(2):
        await asyncio.to_thread(host.renew, house.files, house.relay.address)
    with pytest.raises(Unavailable, match="3 living certificates"):
        await asyncio.to_thread(host.renew, house.files, house.relay.address)


async def test_a_missing_authority_is_made_by_a_relay_alone_and_only_before_anybody_was_enrolled(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    said = [record.getMessage() for record in caplog.get_records("setup")]
    assert any(f"made a new authority in {house.settings.authority}" in one for one in said)
    missing = house.settings.model_copy(
        update={"authority": house.folder / "elsewhere", "relay_address": f"127.0.0.1:{free_port()}"}
    )
    token = await house.token()
    (house.folder / "authority").rename(house.folder / "moved")
    done = await house.penstock("gateway", "enrol", "edge", "edge-1")
    assert (done.code, "authority.pem is not there: copy it from a relay" in done.err) == (2, True)
    assert not (house.folder / "authority").exists()
    await house.enrol(token)
    for _ in ("with a certificate", "with a revoked one"):
        with pytest.raises(BadInput, match="from the first relay or a backup"):
            async with relaying(missing):
                pass
        assert not missing.authority.exists()
        house.relay.ledger.revoke_certificates("edge", "edge-1", "ada", "stolen")


async def test_an_agent_that_wants_keys_where_none_are_handed_out_is_told_at_once(house: House) -> None:
    named = {"relay_address": f"127.0.0.1:{free_port()}", "enrolment_address": f"127.0.0.1:{free_port()}"}
    plain = house.settings.model_copy(update={**named, "payload_keys": None})
    config = str(house.folder / "agent.yaml")
    async with relaying(plain):
        token = await house.token()
        assert plain.enrolment_address is not None
        done = await house.penstock.fed(
            token, "agent", "enrol", "--config", config, "--at", plain.enrolment_address
        )
    assert (done.code, "payload.keys is not there, and the relay handed out no keys" in done.err) == (2, True)
    assert done.out.startswith("edge/edge-1 has certificate ")
    done = await house.penstock("agent", "renew", "--config", config)
    assert done.code == 0, done.err


async def test_a_fingerprint_that_was_copied_wrongly_is_told_from_a_strangers(house: House) -> None:
    token = await house.token()
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    with pytest.raises(BadInput, match="copied wrongly at its end"):
        await house.enrol(wrong)
    await house.enrol(token)


async def test_a_host_whose_clock_is_wrong_hears_it_and_keeps_its_token(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"relay_address": f"127.0.0.1:{free_port()}", "enrolment_address": f"127.0.0.1:{free_port()}"}
    later = house.settings.model_copy(update=named)
    token = await house.token()
    # The relay's certificate begins tomorrow, as it does for a host whose clock is a day behind.
    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.enrolment.authority.SLACK", timedelta(days=-1))
        async with relaying(later):
            assert later.enrolment_address is not None
            asking = partial(host.enrol, house.files, later.enrolment_address, carried(token))
            with pytest.raises(BadInput, match="this host's clock says"):
                await asyncio.get_running_loop().run_in_executor(HOSTS, asking)
    await house.enrol(token)


async def test_the_enrolment_port_refuses_a_body_in_chunks_before_it_is_parsed(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = Parsed(monkeypatch)
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    host, _, port = str(installation.settings.enrolment_address).rpartition(":")
    request = HOSTILE["chunks of one byte"][0].replace(b"/v1/fleets/edge/commands", b"/v1/enrol")
    answer = await answer_to((host, int(port)), [request], anybody)
    assert answer.startswith(b"HTTP/1.1 411")
    assert parsed.bodies == 0
