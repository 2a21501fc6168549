"""S2: floods of HTTP/2 at a relay as it is deployed, by holders of good and of revoked certificates."""

import asyncio
import os
import signal
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest
from asn1crypto.x509 import Certificate
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice import v1 as api

from deploy.ports import free_port
from orchestrator.enrolment.authority import Authority
from orchestrator.processes.relay import relaying
from orchestrator.relay import front
from orchestrator.relay.calls import SERVICE
from orchestrator.relay.front import MOST_CONNECTIONS, MOST_REFUSALS
from tests.patience import PATIENCE, until
from tests.relay.bare import Bare
from tests.relay.flooded import flooding, noticed, resident_mb
from tests.relay.floods import KINDS
from tests.relay.installation import Installation, Shown, issued, queue_of, request_for, working
from tests.relay.test_attacks import caller
from tests.relay.test_processes import beside, relay_process
from tests.relay.test_thieves import another_relay

GROWTH_MB = 100
ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the curve's group (SEC 2, 2.4.2)."""

CALLS = 25
"""Of another agent during each flood: two seconds, where none of them is delayed."""


@pytest.mark.sweep
async def test_floods_by_one_certificate_good_or_revoked_delay_no_other_agent_and_take_no_memory(
    installation: Installation,
) -> None:
    settings = another_relay(installation)
    good, stolen, other = (issued(installation.authority, f"gw-{number}") for number in (1, 2, 3))
    installation.ledger.revoke_certificates("edge", "gw-2", "ada", "stolen")
    async with relay_process(settings) as process:
        at = beside(settings, installation).address
        before = resident_mb(process.pid)
        for kind in KINDS:
            for shown in (good, stolen):
                async with flooding(kind, at, shown):
                    found = await noticed(at, other, installation.authority.pem, CALLS)
                    grown = resident_mb(process.pid) - before
                print(f"{kind}: p99 {found.p99_ms:.0f} ms, {grown} MB")
                assert (kind, found.failures) == (kind, [])
                assert grown <= GROWTH_MB, kind


async def test_a_connection_by_a_revoked_certificate_ends_after_a_few_refused_calls(
    installation: Installation,
) -> None:
    stolen = issued(installation.authority, "gw-2")
    installation.ledger.revoke_certificates("edge", "gw-2", "ada", "stolen")
    assert await installation.relay.look_again()
    with closing(await asyncio.to_thread(Bare, installation.address, stolen)) as thief:
        for number in range(MOST_REFUSALS):
            thief.whole(1 + 2 * number, SERVICE + "GetSystemInfo", b"")
            while 1 + 2 * number not in thief.ended:
                await asyncio.to_thread(thief.listen, 0.1)
            assert b"was revoked" in thief.ended[1 + 2 * number]
        assert not thief.closed
        thief.whole(1 + 2 * MOST_REFUSALS, SERVICE + "GetSystemInfo", b"")
        while not thief.closed:
            await asyncio.to_thread(thief.listen, 0.1)
    assert installation.relay.told.calls["GetSystemInfo"] == MOST_REFUSALS


async def test_a_connection_without_a_call_ends_although_it_pings(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "IDLE", timedelta(seconds=1))
    settings = another_relay(installation)
    async with relaying(settings):
        at = beside(settings, installation).address
        with closing(await asyncio.to_thread(Bare, at, issued(installation.authority, "gw-1"))) as idle:
            idle.call(1, SERVICE + "GetSystemInfo")
            idle.message(1, b"")
            while not idle.closed:
                idle.ping()
                await asyncio.to_thread(idle.listen, 0.05)


async def test_one_certificate_has_so_many_connections_with_calls_or_without(
    installation: Installation,
) -> None:
    """S2 again, a fresh reader's H1: signed once more, it was a certificate of its own to the limits."""
    shown = issued(installation.authority, "gw-1")
    held = []
    try:
        for _ in range(MOST_CONNECTIONS):
            held.append(await asyncio.to_thread(Bare, installation.address, shown))
            assert not held[-1].closed
        more = 0
        for same in (shown, signed_otherwise(shown), signed_again(installation.authority, shown)):
            try:
                held.append(await asyncio.to_thread(Bare, installation.address, same))
                more += not held[-1].closed
            except OSError:
                continue
        assert more == 0
        ask = caller(installation, issued(installation.authority, "gw-2"))
        await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
    finally:
        for one in held:
            one.close()


def signed_otherwise(shown: Shown) -> Shown:
    """Return the same certificate with the other signature that anybody can make of one: s becomes n - s."""
    whole = Certificate.load(load_pem_x509_certificate(shown.certificate).public_bytes(Encoding.DER))
    r, s = decode_dss_signature(whole["signature_value"].native)
    whole["signature_value"] = encode_dss_signature(r, ORDER_OF_P256 - s)
    made = load_der_x509_certificate(whole.dump(force=True))
    return Shown(made.public_bytes(Encoding.PEM), shown.key)


def signed_again(authority: Authority, shown: Shown) -> Shown:
    """Return what a repeated renewal is answered with: the same serial, signed once more."""
    was = load_pem_x509_certificate(shown.certificate)
    key = load_pem_private_key(shown.key, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    request, serial = request_for(key), f"{was.serial_number:x}"
    begun, ends = was.not_valid_before_utc, was.not_valid_after_utc
    made = authority.issue_gateway_again(request, "edge", "gw-1", serial, begun, ends)
    return Shown(made.pem.encode(), shown.key)


async def test_no_caller_names_another_certificate_than_its_own(installation: Installation) -> None:
    shown = issued(installation.authority, "gw-2")
    credentials = grpc.ssl_channel_credentials(installation.authority.pem, shown.key, shown.certificate)
    options = [("grpc.ssl_target_name_override", "relay.penstock")]
    wanted = api.PollActivityTaskQueueRequest(
        namespace=installation.client.namespace, task_queue=TaskQueue(name=queue_of("gw-1"))
    )
    forged = ((front.CERTIFICATE, "AAAA"), (front.CALLER, "192.0.2.1:1"), (front.REFUSED, "yes"))
    async with grpc.aio.secure_channel(installation.address, credentials, options=options) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            SERVICE + "PollActivityTaskQueue"
        )
        with pytest.raises(grpc.aio.AioRpcError, match="edge/gw-2 may not poll 'gateway/edge/gw-1'"):
            await call(wanted.SerializeToString(), metadata=forged, timeout=PATIENCE)


@pytest.mark.sweep
async def test_agents_come_back_when_haproxy_ended(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(front, "AGAIN_AFTER", 0.01)
    settings = another_relay(installation)
    before = children()
    async with relaying(settings):
        again = beside(settings, installation)
        async with working(await again.agent("gw-1"), "gw-1"):
            (haproxy,) = children() - before
            os.kill(haproxy, signal.SIGKILL)
            await until(lambda: "HAProxy before the relay ended with" in caplog.text)
            assert await again.errand("gw-1", "after-all") == ["said after-all", "told to stop"]
    assert children() == before


@pytest.mark.sweep
async def test_a_relay_whose_haproxy_ended_is_not_ready(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "AGAIN_AFTER", 3_600.0)
    metrics = f"127.0.0.1:{free_port()}"
    settings = another_relay(installation).model_copy(update={"relay_metrics_address": metrics})
    before = children()
    async with relaying(settings), httpx.AsyncClient() as client:
        (haproxy,) = children() - before
        os.kill(haproxy, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while "haproxy: does not answer" not in (await client.get(f"http://{metrics}/readyz")).text:
                continue


async def test_a_relay_at_every_address_takes_agents_by_ipv6_and_ipv4(installation: Installation) -> None:
    port = free_port()
    settings = another_relay(installation).model_copy(update={"relay_address": f"[::]:{port}"})
    async with relaying(settings):
        for number, host in enumerate(("[::1]", "127.0.0.1")):
            reached = settings.model_copy(update={"relay_address": f"{host}:{port}"})
            ask = caller(beside(reached, installation), issued(installation.authority, "gw-1"), number)
            await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())


def children() -> set[int]:
    """Return the processes named haproxy that this one has started."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "haproxy":
                found.add(pid)
    return found
