"""The engine as a relay reaches it: calls are handed on as bytes, with their deadline.

Polls wait for a minute, and what stands before an engine often takes a hundred calls of one connection. They
have one to themselves: no answer to a step, and no sign that one goes on, ever queues behind them.
"""

import asyncio
import logging
from collections.abc import Callable

import grpc
import grpc.aio

from orchestrator.engine.secured import Secured
from orchestrator.relay.calls import POLL, SERVICE

LARGEST = 4 << 20
"""Bytes of a message; the engine itself takes no more."""

HANDED_ON = frozenset({"client-name", "client-version"})
"""What an agent says about itself beside its message, as far as the engine asks for it."""

LONGEST_CALL = 75.0
"""Seconds that a call may take at most; a poll of the engine's client takes up to 70."""

LOOK_SECONDS = 2.0
"""How long the engine may take to say that it is there."""

OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST * 4),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),  # channels of one address would share a connection
)

_log = logging.getLogger(__name__)


class EngineSide:
    """Two channels to the engine: one for polls, one for everything else."""

    def __init__(self, address: str, namespace: str, shown: Callable[[], Secured]) -> None:
        """Reach the engine there with what is `shown` now; when that is something else, with new channels."""
        self._address = address
        self._namespace = namespace
        self._shown = shown
        self._secured = shown()
        self._polls, self._others = self._channels()
        self._ending: set[asyncio.Task[None]] = set()

    async def call(
        self, method: str, body: bytes, metadata: tuple[tuple[str, str | bytes], ...], seconds: float
    ) -> bytes:
        """Return the engine's answer within so many seconds.

        Raises:
            grpc.aio.AioRpcError: It gives none, or refuses.
        """
        self._show()
        told = [(name, value) for name, value in metadata if name in HANDED_ON]
        told.append(("temporal-namespace", self._namespace))
        if self._secured.api_key is not None:
            told.append(("authorization", f"Bearer {self._secured.api_key}"))
        channel = self._polls if method == POLL else self._others
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(SERVICE + method)
        return await ask(body, timeout=seconds, metadata=tuple(told))

    async def look(self) -> None:
        """Return if the engine answers.

        Raises:
            grpc.aio.AioRpcError: It does not, or refuses.
        """
        await self.call("GetSystemInfo", b"", (), LOOK_SECONDS)

    async def close(self) -> None:
        """Let go of the engine."""
        for ending in self._ending:
            ending.cancel()
        await asyncio.gather(self._polls.close(), self._others.close(), *self._ending, return_exceptions=True)

    def _show(self) -> None:
        """Have channels that show what the files say now; calls that wait on the old ones end there."""
        if (shown := self._shown()) == self._secured:
            return
        for old in (self._polls, self._others):
            ending = asyncio.create_task(old.close(LONGEST_CALL))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        self._secured = shown
        self._polls, self._others = self._channels()
        _log.info("the engine is reached with another certificate or key")

    def _channels(self) -> tuple[grpc.aio.Channel, grpc.aio.Channel]:
        return _channel(self._address, self._secured), _channel(self._address, self._secured)


def _channel(address: str, secured: Secured) -> grpc.aio.Channel:
    credentials = secured.channel_credentials()
    options: list[tuple[str, int | str]] = [*OPTIONS]
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    if secured.server_name is not None:
        options.append(("grpc.ssl_target_name_override", secured.server_name))
    return grpc.aio.secure_channel(address, credentials, options=options)
