"""Whoever has no certificate gets nothing; whoever has a gateway's gets its work and nothing more."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from google.protobuf.message import Message
from temporalio.api.enums.v1 import TaskQueueKind
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice import v1 as api
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from deploy.ports import free_port
from orchestrator.enrolment.authority import Authority
from orchestrator.enrolment.names import RELAY_NAME, uri_of
from orchestrator.processes.relay import relaying
from orchestrator.relay.calls import SERVICE
from tests.fakes.authority import EnterpriseCa
from tests.patience import PATIENCE, until
from tests.relay.installation import Installation, Shown, issued, queue_of, working

Ask = Callable[[str, Message], Awaitable[bytes]]


def caller(installation: Installation, shown: Shown, connection: int = 0) -> Ask:
    """Return what calls the relay as the holder of this certificate, whatever a client would allow.

    Of each `connection` there is one, which gRPC tells from others by its options.
    """
    credentials = grpc.ssl_channel_credentials(installation.authority.pem, shown.key, shown.certificate)
    options = [("grpc.ssl_target_name_override", RELAY_NAME), ("penstock.connection", connection)]
    channel = grpc.aio.secure_channel(installation.address, credentials, options=options)

    async def ask(path: str, message: Message) -> bytes:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        return await call(message.SerializeToString(), timeout=PATIENCE)

    return ask


async def refusal_of(asked: Awaitable[bytes]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asked
    return refused.value.code(), refused.value.details() or ""


def audited(installation: Installation, action: str) -> Sequence[dict[str, str]]:
    entries = installation.ledger.audit_entries()
    return [json.loads(one.body) | {"subject": one.subject} for one in entries if one.action == action]


async def noted(installation: Installation, action: str) -> Sequence[dict[str, str]]:
    """Return the audit record's entries of that action, once there is one."""
    await until(lambda: bool(audited(installation, action)))
    return audited(installation, action)


async def test_an_agent_is_refused_another_gateways_queue(installation: Installation) -> None:
    ask = caller(installation, issued(installation.authority, "gw-2"))
    wanted = api.PollActivityTaskQueueRequest(
        namespace=installation.client.namespace, task_queue=TaskQueue(name=queue_of("gw-1"))
    )
    code, why = await refusal_of(ask(SERVICE + "PollActivityTaskQueue", wanted))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert why == "edge/gw-2 may not poll 'gateway/edge/gw-1'"
    assert installation.relay.told.refused == {("edge/gw-2", "PollActivityTaskQueue"): 1}
    (entry,) = await noted(installation, "call refused")
    assert (entry["subject"], entry["method"], entry["why"]) == ("edge/gw-2", "PollActivityTaskQueue", why)
    assert entry["from"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": "another"},
        {"namespace": ""},
        {"task_queue": TaskQueue(name="control")},
        {"task_queue": TaskQueue(name="/_sys/gateway/edge/gw-1/1")},
        {"task_queue": TaskQueue(name=queue_of("gw-1"), kind=TaskQueueKind.TASK_QUEUE_KIND_STICKY)},
        {"task_queue": TaskQueue(name=queue_of("gw-1"), normal_name="control")},
        {"worker_version_capabilities": {"build_id": "x", "use_versioning": True}},
        {"deployment_options": {"deployment_name": "x", "build_id": "y"}},
    ],
    ids=str,
)
async def test_a_poll_is_for_the_own_queue_and_nothing_that_looks_like_it(
    installation: Installation, change: dict[str, object]
) -> None:
    ask = caller(installation, issued(installation.authority, "gw-1"))
    usual = {
        "namespace": installation.client.namespace,
        "task_queue": TaskQueue(name=queue_of("gw-1")),
    }
    wanted = api.PollActivityTaskQueueRequest(**usual | change)  # type: ignore[arg-type]
    code, _ = await refusal_of(ask(SERVICE + "PollActivityTaskQueue", wanted))
    assert code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_gateways_certificate_starts_signals_lists_and_ends_nothing(
    installation: Installation,
) -> None:
    agent = await installation.agent("gw-1")
    attempts: dict[str, Callable[[], Awaitable[object]]] = {
        "StartWorkflowExecution": lambda: agent.start_workflow("Errand", id="evil", task_queue="control"),
        "SignalWorkflowExecution": lambda: agent.get_workflow_handle("errand").signal("promote"),
        "ListWorkflowExecutions": lambda: anext(agent.list_workflows()),
        "GetWorkflowExecutionHistory": lambda: agent.get_workflow_handle("errand").fetch_history(),
        "TerminateWorkflowExecution": lambda: agent.get_workflow_handle("errand").terminate(),
        "QueryWorkflow": lambda: agent.get_workflow_handle("errand").query("status"),
    }
    for method, attempt in attempts.items():
        with pytest.raises(RPCError) as refused:
            await attempt()
        assert refused.value.status is RPCStatusCode.PERMISSION_DENIED, method
        assert str(refused.value) == f"agents may not call {method}"
    assert set(installation.relay.told.refused) == {("edge/gw-1", method) for method in attempts}


async def test_every_call_of_the_engine_but_an_agents_own_is_refused(installation: Installation) -> None:
    """A stolen agent's key and certificate: what can be reached with it."""
    ask = caller(installation, issued(installation.authority, "gw-1"))
    methods = {
        name.removesuffix("Request")
        for name in api.request_response_pb2.DESCRIPTOR.message_types_by_name
        if name.endswith("Request")
    }
    others = (
        "/temporal.api.operatorservice.v1.OperatorService/ListSearchAttributes",
        "/temporal.api.cloud.cloudservice.v1.CloudService/GetUsers",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/penstock.Relay/Anything",
    )
    waiting = {"PollActivityTaskQueue"}
    paths = (*(SERVICE + name for name in sorted(methods - waiting)), *others)
    reached = [path.removeprefix(SERVICE) for path in paths if await _is_reached(ask, path)]
    print("a stolen certificate of gw-1 reaches:", ", ".join(reached))
    assert reached == ["GetSystemInfo", "RecordWorkerHeartbeat", "ShutdownWorker"]


async def _is_reached(ask: Ask, path: str) -> bool:
    """Return whether a call is let through; one that the relay's limit of calls turns away is made again."""
    while True:
        try:
            await ask(path, api.GetSystemInfoRequest())
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                await asyncio.sleep(0.1)
                continue
            return error.code() is not grpc.StatusCode.PERMISSION_DENIED
        return True


async def test_a_task_is_answered_for_only_by_the_gateway_that_was_given_it(
    installation: Installation,
) -> None:
    own, other = (caller(installation, issued(installation.authority, name)) for name in ("gw-1", "gw-2"))
    namespace = installation.client.namespace
    errand = asyncio.create_task(installation.errand("gw-1"))
    try:
        wanted = api.PollActivityTaskQueueRequest(
            namespace=namespace, task_queue=TaskQueue(name=queue_of("gw-1")), identity="me"
        )
        given = await ask_until_a_task(own, wanted)
        for token in (given.task_token, given.task_token[32:], b"", b"\0" * 32 + given.task_token[32:]):
            for thief in (own, other):
                if thief is own and token == given.task_token:
                    continue
                for method in (
                    "RespondActivityTaskCompleted",
                    "RespondActivityTaskFailed",
                    "RespondActivityTaskCanceled",
                    "RecordActivityTaskHeartbeat",
                ):
                    message = getattr(api, f"{method}Request")(task_token=token, namespace=namespace)
                    code, why = await refusal_of(thief(SERVICE + method, message))
                    assert code is grpc.StatusCode.PERMISSION_DENIED
                    assert why.endswith("was never given this task")
        beat = api.RecordActivityTaskHeartbeatRequest(task_token=given.task_token, namespace="another")
        await own(SERVICE + "RecordActivityTaskHeartbeat", beat)
    finally:
        errand.cancel()


async def ask_until_a_task(
    ask: Ask, wanted: api.PollActivityTaskQueueRequest
) -> api.PollActivityTaskQueueResponse:
    async with asyncio.timeout(PATIENCE):
        while True:
            said = await ask(SERVICE + "PollActivityTaskQueue", wanted)
            found = api.PollActivityTaskQueueResponse.FromString(said)
            if found.task_token:
                return found


async def ask_until_refused(ask: Ask, path: str) -> bytes:
    async with asyncio.timeout(PATIENCE):
        while True:
            await ask(path, api.GetSystemInfoRequest())
            await asyncio.sleep(0.1)


async def strangers(installation: Installation, tls: TLSConfig | bool) -> str:
    with pytest.raises(RuntimeError) as refused:
        await Client.connect(installation.address, namespace=installation.client.namespace, tls=tls)
    return str(refused.value)


async def test_strangers_end_in_the_handshake(installation: Installation, tmp_path: Path) -> None:
    authority = installation.authority
    expired = issued(authority, "gw-1", timedelta(minutes=-1))
    foreign = issued(Authority.open(tmp_path / "another"), "gw-1")
    for shown in (expired, foreign):
        await strangers(installation, shown.tls(authority.pem))
    await strangers(installation, TLSConfig(server_root_ca_cert=authority.pem, domain=RELAY_NAME))
    await strangers(installation, tls=False)
    assert not installation.relay.told.calls


async def test_a_certificate_that_expires_on_a_living_connection_is_refused(
    installation: Installation,
) -> None:
    ask = caller(installation, issued(installation.authority, "gw-1", timedelta(seconds=2)))
    path = SERVICE + "GetSystemInfo"
    await ask(path, api.GetSystemInfoRequest())
    code, why = await refusal_of(ask_until_refused(ask, path))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "expired" in why


@pytest.mark.sweep
async def test_a_revoked_gateway_is_refused_at_once_where_it_polls_and_is_enrolled_anew(
    installation: Installation,
) -> None:
    shown = issued(installation.authority, "gw-1")
    ask = caller(installation, shown)
    wanted = api.PollActivityTaskQueueRequest(
        namespace=installation.client.namespace, task_queue=TaskQueue(name=queue_of("gw-1"))
    )
    polling = asyncio.ensure_future(ask(SERVICE + "PollActivityTaskQueue", wanted))
    await until(lambda: installation.relay.told.calls["PollActivityTaskQueue"] > 0)
    installation.ledger.revoke_certificates("edge", "gw-1", "ada", "its host was stolen")
    assert await installation.relay.look_again()
    code, why = await refusal_of(polling)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "was revoked" in why
    code, _ = await refusal_of(ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest()))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    (entry,) = [one for one in installation.ledger.audit_entries() if one.action == "certificates revoked"]
    assert (entry.person, entry.subject) == ("ada", "edge/gw-1")
    async with working(await installation.agent("gw-2"), "gw-2"):
        assert await installation.errand("gw-2", "meanwhile") == ["said meanwhile", "told to stop"]


async def test_a_message_that_grows_when_it_is_unpacked_is_refused_before_it_does(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    shown = issued(installation.authority, "gw-1")
    credentials = grpc.ssl_channel_credentials(installation.authority.pem, shown.key, shown.certificate)
    options = [("grpc.ssl_target_name_override", RELAY_NAME), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.secure_channel(
        installation.address, credentials, options=options, compression=grpc.Compression.Gzip
    ) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(SERVICE + "RecordActivityTaskHeartbeat")
        sent: Awaitable[bytes] = call(b"\0" * (64 << 20), timeout=PATIENCE)
        code, _ = await refusal_of(sent)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not caplog.records


async def test_a_relays_own_certificate_and_a_certificate_of_two_gateways_are_no_gateways(
    installation: Installation, tmp_path: Path
) -> None:
    key, certificate = installation.authority.issue_relay(timedelta(days=1))
    enterprise = EnterpriseCa(tmp_path / "enterprise")
    both = [x509.UniformResourceIdentifier(uri_of("edge", name)) for name in ("gw-1", "gw-2")]
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    two = enterprise.leaf("two", usage=usage, names=tuple(both))
    changed = {
        "relay_address": f"127.0.0.1:{free_port()}",
        "enrolment_address": None,
        "relay_authorities": enterprise.roots,
    }
    settings = installation.settings.model_copy(update=changed)
    async with relaying(settings) as relay:
        beside = replace(installation, settings=settings, relay=relay)
        for shown in (Shown(certificate, key), Shown(two[1].read_bytes(), two[0].read_bytes())):
            ask = caller(beside, shown)
            code, _ = await refusal_of(ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest()))
            assert code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE}
