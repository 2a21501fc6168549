"""The engine as a relay reaches it: calls are handed on as bytes, with their deadline."""

import grpc
import grpc.aio

from orchestrator.engine.secured import Secured
from orchestrator.relay.calls import SERVICE

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
)


class EngineSide:
    """A channel to the engine."""

    def __init__(self, address: str, namespace: str, secured: Secured) -> None:
        self._namespace = namespace
        self._secured = secured
        credentials = secured.channel_credentials()
        options = [*OPTIONS]
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            if secured.server_name is not None:
                options.append(("grpc.ssl_target_name_override", secured.server_name))  # type: ignore[arg-type]
            self._channel = grpc.aio.secure_channel(address, credentials, options=options)

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
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(SERVICE + method)
        return await ask(body, timeout=seconds, metadata=tuple(told))

    async def close(self) -> None:
        """Let go of the engine."""
        await self._channel.close()
