"""The orchestrator's own connections to an engine that asks for TLS, a certificate or an API key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.service import RPCError, RPCStatusCode

from activities.drivers.private_files import write_private
from deploy.ports import free_port
from orchestrator.engine.client import connect
from orchestrator.engine.secured import PLAIN, Secured, secured
from orchestrator.enrolment.authority import Authority
from orchestrator.processes.composition import shown_to_the_engine, shown_to_the_engine_now
from orchestrator.processes.relay import relaying
from orchestrator.relay.calls import POLL
from orchestrator.relay.engine import EngineSide
from orchestrator.relay.server import pass_on
from orchestrator.settings import Settings
from orchestrator.store.ledger import Ledger
from policies.model.errors import BadInput, Unavailable
from tests.fakes.authority import EnterpriseCa
from tests.patience import PATIENCE, until
from tests.relay.installation import Installation, installed, settings_of, working
from tests.workflows.engine import Engine

API_KEY = "key-of-a-test"


@dataclass(frozen=True)
class Known:
    """What is shown to the engine, as long as nobody changes a file."""

    shown: Secured

    def __call__(self) -> Secured:
        return self.shown


class Mirror(grpc.GenericRpcHandler):
    """Answers every call with what the caller has shown, and polls once they may end."""

    def __init__(self) -> None:
        self.polls, self.over = 0, asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        path = details.method
        shown = dict(details.invocation_metadata or ()).get("authorization", "")

        async def answer(body: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
            (certificate,) = context.auth_context()["x509_pem_cert"]
            if path.endswith(POLL):
                self.polls += 1
                await self.over.wait()
            return bytes(certificate) + str(shown).encode()

        return grpc.unary_unary_rpc_method_handler(answer)


class Front(grpc.GenericRpcHandler):
    """Stands before a real engine, and asks for the API key as a hosted one does."""

    def __init__(self, engine: str, api_key: str | None) -> None:
        self._channel = grpc.aio.insecure_channel(engine)
        self._api_key = api_key
        self.calls = 0

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        path = details.method
        shown = dict(details.invocation_metadata or ()).get("authorization")

        async def answer(body: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
            self.calls += 1
            if self._api_key is not None and shown != f"Bearer {self._api_key}":
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no API key of ours")
            ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
            try:
                return await ask(body, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await pass_on(error, context)
            raise AssertionError

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def front(
    engine: str, pki: EnterpriseCa, *, api_key: str | None = None, mutual: bool = False
) -> AsyncIterator[tuple[str, Front]]:
    names = (x509.DNSName("engine.example"),)
    key, certificate = pki.leaf("engine", usage=ExtendedKeyUsageOID.SERVER_AUTH, names=names)
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        pki.roots.read_bytes() if mutual else None,
        require_client_auth=mutual,
    )
    standing, address = Front(engine, api_key), f"127.0.0.1:{free_port()}"
    server = grpc.aio.server(handlers=[standing])
    server.add_secure_port(address, credentials)
    await server.start()
    yield address, standing
    await server.stop(0)


async def test_tls_a_certificate_and_an_api_key_open_the_engine(server: Engine, tmp_path: Path) -> None:
    pki, key_file = EnterpriseCa(tmp_path / "pki"), tmp_path / "api.key"
    key, certificate = pki.leaf("orchestrator", usage=None)
    key.chmod(0o600)
    write_private(key_file, f"{API_KEY}\n".encode())
    client = await server.client()
    async with front(server.address, pki, api_key=API_KEY, mutual=True) as (address, standing):
        settings = settings_of(tmp_path, client.namespace, address).model_copy(
            update={
                "temporal_authority": pki.roots,
                "temporal_certificate": certificate,
                "temporal_key": key,
                "temporal_server_name": "engine.example",
                "temporal_api_key": key_file,
            }
        )
        found = await connect(address, client.namespace, shown=shown_to_the_engine(settings))
        assert (await found.count_workflows()).count == 0
        async with relaying(settings) as relay:
            ledger = Ledger.open(settings.ledger_url)
            made = Installation(settings, found, relay, ledger, Authority.open(settings.authority))
            async with working(await made.agent("gw-1"), "gw-1"):
                assert await made.errand("gw-1", "secured") == ["said secured", "told to stop"]
            ledger.close()
        assert standing.calls > 10
        for left_out in ("temporal_certificate", "temporal_authority", "temporal_api_key"):
            nothing = {left_out: None} | ({"temporal_key": None} if "certificate" in left_out else {})
            shown = shown_to_the_engine(settings.model_copy(update=nothing))
            with pytest.raises(Unavailable, match="does not answer"):
                await connect(address, client.namespace, shown=shown)


async def test_an_engine_of_another_name_or_authority_is_not_believed(server: Engine, tmp_path: Path) -> None:
    pki, other = EnterpriseCa(tmp_path / "pki"), EnterpriseCa(tmp_path / "other")
    client = await server.client()
    async with front(server.address, pki) as (address, standing):
        for authority, name in ((other.roots, "engine.example"), (pki.roots, "elsewhere.example")):
            shown = secured(address, authority=authority, server_name=name)
            with pytest.raises(Unavailable):
                await connect(address, client.namespace, shown=shown)
            side = EngineSide(address, client.namespace, Known(shown))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await side.call("GetSystemInfo", b"", (), PATIENCE)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            await side.close()
        assert standing.calls == 0


async def test_a_new_certificate_and_api_key_are_shown_to_the_engine_without_a_restart(
    tmp_path: Path,
) -> None:
    pki, key_file, mirror = EnterpriseCa(tmp_path / "pki"), tmp_path / "api.key", Mirror()
    names = (x509.DNSName("engine.example"),)
    own_key, own = pki.leaf("engine", usage=ExtendedKeyUsageOID.SERVER_AUTH, names=names)
    pair = (own_key.read_bytes(), own.read_bytes())
    server, address = grpc.aio.server(handlers=[mirror]), f"127.0.0.1:{free_port()}"
    server.add_secure_port(
        address, grpc.ssl_server_credentials([pair], pki.roots.read_bytes(), require_client_auth=True)
    )
    await server.start()
    key, certificate = pki.leaf("relay", usage=None)
    key.chmod(0o600)
    write_private(key_file, b"first")
    settings = settings_of(tmp_path, "default", address).model_copy(
        update={
            "temporal_authority": pki.roots,
            "temporal_certificate": certificate,
            "temporal_key": key,
            "temporal_server_name": "engine.example",
            "temporal_api_key": key_file,
        }
    )
    side = EngineSide(address, "default", shown_to_the_engine_now(settings))
    first = await side.call("GetSystemInfo", b"", (), PATIENCE)
    assert first == certificate.read_bytes() + b"Bearer first"
    poll = asyncio.create_task(side.call(POLL, b"", (), PATIENCE))
    await until(lambda: mirror.polls == 1)
    new_key, new = pki.leaf("relay-next", usage=None)
    write_private(key, new_key.read_bytes())
    write_private(certificate, new.read_bytes())
    write_private(key_file, b"second")
    assert await side.call("GetSystemInfo", b"", (), PATIENCE) == new.read_bytes() + b"Bearer second"
    mirror.over.set()
    assert await poll == first, "what waits goes on as it was"
    key_file.write_bytes(b"")
    assert await side.call("GetSystemInfo", b"", (), PATIENCE) == new.read_bytes() + b"Bearer second"
    await side.close()
    await server.stop(0)


class Crowded(grpc.GenericRpcHandler):
    """Answers everything but polls, which wait until they are ended."""

    def __init__(self) -> None:
        self.polls = 0

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        path = details.method

        async def answer(body: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
            if path.endswith(POLL):
                self.polls += 1
                await asyncio.Event().wait()
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


async def test_polls_that_fill_a_connection_keep_no_answer_of_an_agent_waiting() -> None:
    crowded, address = Crowded(), f"127.0.0.1:{free_port()}"
    server = grpc.aio.server(handlers=[crowded], options=[("grpc.max_concurrent_streams", 3)])
    server.add_insecure_port(address)
    await server.start()
    side = EngineSide(address, "default", Known(PLAIN))
    polls = [asyncio.create_task(side.call(POLL, b"", (), PATIENCE)) for _ in range(4)]
    await until(lambda: crowded.polls == 3)
    assert await side.call("RespondActivityTaskCompleted", b"", (), PATIENCE) == b""
    for poll in polls:
        poll.cancel()
    await side.close()
    await server.stop(0)


def test_an_api_key_never_travels_in_the_clear(tmp_path: Path) -> None:
    key = tmp_path / "api.key"
    write_private(key, b"secret")
    with pytest.raises(BadInput, match="would travel in the clear"):
        secured("engine.example:7233", api_key=key)
    assert secured("engine.example:7233", api_key=key, tls=True).api_key == "secret"
    assert secured("127.0.0.1:7233", api_key=key).client_tls is False
    key.chmod(0o644)
    with pytest.raises(BadInput, match="may be read by others"):
        secured("engine.example:7233", api_key=key, tls=True)


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_a_certificate_without_its_key_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="goes with its key"):
        secured("engine.example:7233", **{name: tmp_path / name})  # type: ignore[arg-type]


async def test_what_the_engine_says_beside_an_error_reaches_the_agent(server: Engine, tmp_path: Path) -> None:
    client = await server.client()
    async with installed(tmp_path, client, server.address) as made:
        changed = {"temporal_namespace": "never-made", "relay_address": f"127.0.0.1:{free_port()}"}
        missing = made.settings.model_copy(update=changed | {"enrolment_address": None})
        async with relaying(missing) as relay:
            other = Installation(missing, client, relay, made.ledger, made.authority)
            agent = await other.agent("gw-1")
            with pytest.raises(RPCError) as refused:
                await agent.workflow_service.describe_namespace(
                    DescribeNamespaceRequest(namespace="never-made")
                )
    assert refused.value.status is RPCStatusCode.NOT_FOUND
    assert len(refused.value.grpc_status.details) == 1


def test_settings_name_every_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PENSTOCK_TEMPORAL_TLS", "true")
    monkeypatch.setattr(Settings, "file", tmp_path / "penstock.toml")
    assert shown_to_the_engine(Settings()).client_tls
