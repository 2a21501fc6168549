"""The relay's calls: gRPC behind HAProxy (`front.py`), where an agent is whoever its certificate says.

Strangers end in its handshake. Who calls, and whether it may, is looked at before its message is received.
What a gateway may not do is refused by name, counted, logged and told to the audit record; everything else is
handed on with its deadline, and its answer with the engine's own details.
"""

import asyncio
import base64
import binascii
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
from cryptography import x509
from temporalio.api.workflowservice.v1 import request_response_pb2

from orchestrator.enrolment.names import RENEW, Certified, certified
from orchestrator.relay.calls import OF_A_TASK, POLL, SERVICE, Calls
from orchestrator.relay.engine import LONGEST_CALL, EngineSide
from orchestrator.relay.front import CALLER, CERTIFICATE, REFUSED, STREAMS
from orchestrator.relay.limits import (
    LARGEST_MESSAGE,
    MOST_CALLS,
    MOST_POLLS,
    SMALL_MESSAGE,
    Busy,
    Limits,
)
from orchestrator.relay.revocations import Revocations
from policies.model.errors import BadInput, Conflict, NotAllowed, PenstockError, Unavailable

UNREAD = 16 << 10
"""Bytes of a call's message that arrive before it is asked for."""

WHOLE_WITHIN = 30.0
"""Seconds in which a call's message has to be there as a whole."""

DETAILS = "grpc-status-details-bin"
METHODS = frozenset(
    SERVICE + name.removesuffix("Request")
    for name in request_response_pb2.DESCRIPTOR.message_types_by_name
    if name.endswith("Request")
)
NOTED_EVERY = 3_600.0
"""Seconds for which the same refusal of the same gateway is written down once; all of them are counted."""


Own = Callable[[Certified, x509.Certificate, bytes, str], Awaitable[bytes]]
"""A call that the relay answers itself: who asks, with which certificate, what, and from where."""

Note = Callable[[Certified, str, str, str], Coroutine[None, None, None]]
"""Writes down whose call of what was refused from where, and why."""

NONE: Mapping[str, Own] = {}

STATUS: dict[type[PenstockError], grpc.StatusCode] = {
    Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    BadInput: grpc.StatusCode.INVALID_ARGUMENT,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}
_log = logging.getLogger(__name__)


class Ended(NotAllowed):
    """The certificate is revoked or has expired; HAProxy closes a connection that goes on calling."""


@dataclass
class Told:
    """What a relay counts: calls by method, refusals by method and gateway."""

    calls: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Poll:
    """A poll that waits for a task."""

    caller: Certified
    task: "asyncio.Task[Any] | None"


class Relay(grpc.GenericRpcHandler):
    """Everything that agents may ask of this installation."""

    def __init__(
        self,
        calls: Calls,
        engine: EngineSide,
        revocations: Revocations,
        note: Note,
        own: Mapping[str, Own] = NONE,
    ) -> None:
        """Hand on to the engine; `note` hears of each kind of refusal of each gateway, once an hour."""
        self.told = Told()
        self._calls = calls
        self._engine = engine
        self._revocations = revocations
        self._note = note
        self._own = own
        self._limits = Limits()
        self._polls: set[_Poll] = set()
        self._noted: dict[tuple[str, str], float] = {}
        self._noting: set[asyncio.Task[None]] = set()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Answer every call there is, those that nobody may make too."""
        path = details.method

        async def answer(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            with suppress(grpc.aio.InternalError):  # the caller is gone; nobody may fill the log by that
                await self._answer(path, context)

        # A stream of one message is the same to whoever calls; it begins before its message was received.
        return grpc.stream_stream_rpc_method_handler(cast("Any", answer))

    @property
    def waiting(self) -> Counter[str]:
        """How many gateways of each fleet have an agent that waits for work here."""
        return Counter(
            fleet for fleet, _ in {(one.caller.fleet, one.caller.gateway) for one in self._polls.copy()}
        )

    def end_revoked(self) -> None:
        """End the polls of those whose certificates were revoked since they began."""
        for poll in self._polls:
            if poll.task is not None and self._revocations.knows_revoked(poll.caller):
                poll.task.cancel()

    async def look_again(self) -> bool:
        """Read the revocations again and act on them; return whether they could be read."""
        read = await self._revocations.refresh()
        self.end_revoked()
        return read

    def end_polls(self) -> None:
        """End all polls, so that no task is handed to an agent that is about to lose this relay."""
        for poll in self._polls:
            if poll.task is not None:
                poll.task.cancel()

    async def _answer(self, path: str, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        self.told.calls[_known(path)] += 1
        caller: Certified | None = None
        peer = str(_headers(context).get(CALLER, "nobody"))
        try:
            caller, certificate = _shown(context)
            await self._let_in(caller)
            with self._limits.taken(caller, peer, *self._kind(path)):
                async with AsyncExitStack() as room:
                    body = await self._asked(path, caller, context, room)
                    await context.write(await self._said(path, body, caller, certificate, context))
        except PenstockError as refusal:
            if caller is not None and isinstance(refusal, NotAllowed):
                self._refused(caller, _known(path), peer, refusal)
            if isinstance(refusal, Ended):
                context.set_trailing_metadata(((REFUSED, "yes"),))
            code = next(
                (code for kind, code in STATUS.items() if isinstance(refusal, kind)),
                grpc.StatusCode.FAILED_PRECONDITION,
            )
            await context.abort(code, str(refusal))
        except grpc.aio.AioRpcError as error:
            await pass_on(error, context)

    def _kind(self, path: str) -> tuple[str, int]:
        """Return what a call counts as, and how many of those a gateway has at once.

        Raises:
            NotAllowed: Agents do not make it.
        """
        method = path.removeprefix(SERVICE)
        if path not in self._own and not self._calls.allowed(method):
            raise NotAllowed(f"agents may not call {method}")
        return ("polls", MOST_POLLS) if method == POLL else ("calls", MOST_CALLS)

    async def _asked(
        self,
        path: str,
        caller: Certified,
        context: "grpc.aio.ServicerContext[bytes, bytes]",
        room: AsyncExitStack,
    ) -> bytes:
        """Return the call's message; a large one keeps its room until it was answered.

        Raises:
            Unavailable: It was not there in time.
            BadInput: There is none, or a larger one than such a call has.
        """
        method = path.removeprefix(SERVICE)
        try:
            async with asyncio.timeout(WHOLE_WITHIN):
                await room.enter_async_context(self._limits.room(caller))
                body = await _message(context)
        except TimeoutError:
            late = f"what {caller} sent as {method} was not there within {WHOLE_WITHIN:.0f} s; send it again"
            raise Unavailable(late) from None
        if body is None:
            raise BadInput(f"{caller} sent no message as {method}")
        if len(body) <= SMALL_MESSAGE:
            await room.aclose()
        elif method not in OF_A_TASK:
            raise BadInput(f"what {caller} sent as {method} has more than {SMALL_MESSAGE} bytes")
        return body

    async def _said(
        self,
        path: str,
        body: bytes,
        caller: Certified,
        certificate: x509.Certificate,
        context: "grpc.aio.ServicerContext[bytes, bytes]",
    ) -> bytes:
        if path in self._own:
            return await self._own[path](caller, certificate, body, str(_headers(context)[CALLER]))
        return await self._hand_on(path.removeprefix(SERVICE), body, caller, context)

    async def _let_in(self, caller: Certified) -> None:
        if caller.expires <= datetime.now(UTC):
            raise Ended(f"the certificate of {caller} expired at {caller.expires:%Y-%m-%d %H:%M} UTC")
        if await self._revocations.refuses(caller):
            raise Ended(f"the certificate of {caller} was revoked; its host has to be enrolled anew")

    async def _hand_on(
        self, method: str, body: bytes, caller: Certified, context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> bytes:
        handed = self._calls.outgoing(method, body, caller)
        if handed.answer is not None:
            return handed.answer
        left = cast("float | None", context.time_remaining())
        timeout = LONGEST_CALL if left is None else min(left, LONGEST_CALL)
        metadata = tuple(context.invocation_metadata() or ())
        with self._polling(caller, method):
            try:
                answer = await self._engine.call(method, handed.body, metadata, timeout)
            except asyncio.CancelledError:
                if not self._revocations.knows_revoked(caller):
                    raise
                revoked = f"the certificate of {caller} was revoked; its host has to be enrolled anew"
                raise Ended(revoked) from None
        return self._calls.incoming(method, answer, caller)

    @contextmanager
    def _polling(self, caller: Certified, method: str) -> Iterator[None]:
        if method != POLL:
            yield
            return
        poll = _Poll(caller, asyncio.current_task())
        self._polls.add(poll)
        try:
            yield
        finally:
            self._polls.discard(poll)

    def _refused(self, caller: Certified, method: str, peer: str, why: NotAllowed) -> None:
        """Count it, say it in the log, and have it written down without keeping the caller waiting."""
        self.told.refused[str(caller), method] += 1
        key, now = (str(caller), method), time.monotonic()
        if now - self._noted.get(key, -NOTED_EVERY) < NOTED_EVERY:
            return
        self._noted[key] = now
        _log.warning("refused %s of %s from %s: %s", method, caller, peer, why)
        noting = asyncio.create_task(self._note(caller, method, peer, str(why)))
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)


def _known(path: str) -> str:
    """Return a method's name as it is counted: of those that there are, so that nobody fills the memory."""
    return path.removeprefix(SERVICE) if path in METHODS else path if path == RENEW else "another method"


async def _message(context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes | None:
    """Return what was sent, once it is whole; None where the caller ended without a message.

    Reading goes on when nobody waits for it any more, and ends with the call: gRPC's own library frees what
    arrives at that very moment only while somebody reads.
    """
    reading = asyncio.ensure_future(context.read())
    reading.add_done_callback(lambda read: read.cancelled() or read.exception())
    await asyncio.wait([reading])
    read = reading.result()
    return None if cast("Any", read) is grpc.aio.EOF else read


def _headers(context: "grpc.aio.ServicerContext[bytes, bytes]") -> dict[str, str | bytes]:
    return dict(context.invocation_metadata() or ())


def _shown(context: "grpc.aio.ServicerContext[bytes, bytes]") -> tuple[Certified, x509.Certificate]:
    """Return who calls, by the certificate of the connection, which HAProxy has verified and hands on.

    Raises:
        NotAllowed: It names no gateway.
    """
    try:
        return _parsed(_headers(context).get(CERTIFICATE, ""))
    except BadInput as error:
        raise NotAllowed(str(error)) from error


@lru_cache(maxsize=20_000)
def _parsed(shown: str | bytes) -> tuple[Certified, x509.Certificate]:
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(shown, validate=True))
    except (ValueError, binascii.Error) as error:
        raise BadInput("no certificate was shown") from error
    return certified(certificate), certificate


async def pass_on(error: grpc.aio.AioRpcError, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
    """Answer as the engine did, without the address where it could not be reached."""
    trailing = error.trailing_metadata()
    said = tuple((name, value) for name, value in (trailing or ()) if name == DETAILS)
    if said:
        context.set_trailing_metadata(said)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the engine does not answer this relay now")
    await context.abort(error.code(), error.details() or "")


def server_of(relay: Relay, at: Path, connections: int) -> grpc.aio.Server:
    """Return a server of calls at this socket, not yet started; HAProxy alone may reach it."""
    options = (
        ("grpc.max_receive_message_length", LARGEST_MESSAGE),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.absolute_max_metadata_size", 32 << 10),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.http2.lookahead_bytes", UNREAD),
        ("grpc.http2.bdp_probe", 0),  # which would let more arrive
    )
    server = grpc.aio.server(handlers=[relay], options=options, maximum_concurrent_rpcs=connections * 4)
    server.add_insecure_port(f"unix:{at}")
    return server
