"""SIMULATED agents that only wait: a connection and a certificate each, one poll at a time, for ever.

`python -m tests.bench.relay_pollers CERTIFICATES NAMESPACE RELAY [RELAY …]` says `polling: N SECONDS` once
all are connected.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest

from orchestrator.enrolment.names import RELAY_NAME
from orchestrator.relay.calls import SERVICE

POLL_SECONDS = 70.0
AT_ONCE = 50
"""Handshakes at a time: a fleet that comes back after an outage comes in minutes, not at once."""

AGAIN_AFTER = 5.0


class Pollers:
    """All of them, with a count of their polls."""

    def __init__(self, namespace: str, authority: bytes) -> None:
        self._namespace = namespace
        self._authority = authority
        self._door = asyncio.Semaphore(AT_ONCE)
        self.connected = 0
        self.polls = 0
        self.failed = 0

    async def poll(self, one: dict[str, str], relay: str) -> None:
        """Poll for one gateway, for ever."""
        credentials = grpc.ssl_channel_credentials(
            self._authority, one["key"].encode(), one["certificate"].encode()
        )
        options = [
            ("grpc.ssl_target_name_override", RELAY_NAME),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        channel = grpc.aio.secure_channel(relay, credentials, options=options)
        async with self._door:
            await channel.channel_ready()
            self.connected += 1
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(SERVICE + "PollActivityTaskQueue")
        queue = TaskQueue(name=f"gateway/bench/{one['gateway']}")
        wanted = PollActivityTaskQueueRequest(namespace=self._namespace, task_queue=queue)
        while True:
            began = time.monotonic()
            try:
                self.polls += 1
                await call(wanted.SerializeToString(), timeout=POLL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    self.failed += 1
                    why = f"{one['gateway']}: {error.code().name}: {error.details()}"
                    print(f"a poll failed after {time.monotonic() - began:.1f} s: {why}", file=sys.stderr)
                await asyncio.sleep(AGAIN_AFTER)


async def main(certificates: Path, namespace: str, relays: list[str]) -> None:
    """Poll until the process is ended, and say how much every few seconds."""
    held = json.loads(await asyncio.to_thread(certificates.read_text))
    pollers = Pollers(namespace, held["authority"].encode())
    began = time.monotonic()
    tasks = [
        asyncio.create_task(pollers.poll(one, relays[number % len(relays)]))
        for number, one in enumerate(held["gateways"])
    ]
    while pollers.connected < len(tasks):  # noqa: ASYNC110 - a line a second tells how far it is
        await asyncio.sleep(0.2)
    print(f"polling: {len(tasks)} {time.monotonic() - began:.1f}", flush=True)
    while True:
        before = pollers.polls
        await asyncio.sleep(5)
        print(f"polls: {(pollers.polls - before) / 5:.1f} {pollers.failed}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
