"""The engine as a relay reaches it: calls are handed on as bytes, with their deadline.

Polls wait for a minute, and what stands before an engine often takes a hundred calls of one connection. They
have one to themselves: no answer to a step, and no sign that one goes on, ever queues behind them.
"""

import grpc
import grpc.aio

from orchestrator.engine.secured import Secured
from orchestrator.relay.calls import POLL, SERVICE

LARGEST = 4 << 20
"""Bytes of a message; the engine itself takes no more."""

HANDED_ON = frozenset({"client-name", "client-version"})
"""What an agent says about itself beside its message, as far as the engine asks for it."""

OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST * 4),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),  # channels of one address would share a connection
)


class EngineSide:
    """Two channels to the engine: one for polls, one for everything else."""

    def __init__(self, address: str, namespace: str, secured: Secured) -> None:
        self._namespace = namespace
        self._secured = secured
        self._polls, self._others = (_channel(address, secured) for _ in range(2))

    async def call(
        self, method: str, body: bytes, metadata: tuple[tuple[str, str | bytes], ...], seconds: float
    ) -> bytes:
        """Return the engine's answer within so many seconds.

        Raises:
            grpc.aio.AioRpcError: It gives none, or refuses.
        """
        told = [(name, value) for name, value in metadata if name in HANDED_ON]
        told.append(("temporal-namespace", self._namespace))
        if self._secured.api_key is not None:
            told.append(("authorization", f"Bearer {self._secured.api_key}"))
        channel = self._polls if method == POLL else self._others
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(SERVICE + method)
        return await ask(body, timeout=seconds, metadata=tuple(told))

    async def close(self) -> None:
        """Let go of the engine."""
        await self._polls.close()
        await self._others.close()


def _channel(address: str, secured: Secured) -> grpc.aio.Channel:
    credentials = secured.channel_credentials()
    options: list[tuple[str, int | str]] = [*OPTIONS]
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    if secured.server_name is not None:
        options.append(("grpc.ssl_target_name_override", secured.server_name))
    return grpc.aio.secure_channel(address, credentials, options=options)
