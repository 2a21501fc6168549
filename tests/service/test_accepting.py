"""How connections are accepted: a few, and then everybody else has a turn."""

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack
from typing import Any

from starlette.responses import PlainTextResponse

from orchestrator.processes.listening import ACCEPTED_AT_ONCE, answering_at
from tests.patience import PATIENCE

CROWD = 200


class Counted(socket.socket):
    """Counts in which turn of the loop each connection is accepted."""

    turn = 0
    accepted: Counter[int]

    def accept(self) -> Any:
        found = super().accept()
        self.accepted[self.turn] += 1
        return found


async def test_a_crowd_that_connects_at_once_is_accepted_a_few_at_a_time() -> None:
    """S1 again, a fresh reader's H2: a thousand were accepted before a hold at the socket had its turn."""
    loop = asyncio.get_running_loop()
    listening = Counted(socket.AF_INET)
    listening.accepted = Counter()
    listening.bind(("127.0.0.1", 0))
    everybody = asyncio.Event()

    def turn() -> None:
        listening.turn += 1
        if listening.accepted.total() >= CROWD:
            everybody.set()
        else:
            loop.call_soon(turn)

    application = PlainTextResponse("here\n")
    with ExitStack() as held:
        async with answering_at(application, listening, tls=None, most=2 * CROWD):
            crowd = [
                held.enter_context(socket.create_connection(listening.getsockname())) for _ in range(CROWD)
            ]
            turn()
            await asyncio.wait_for(everybody.wait(), PATIENCE)
    assert len(crowd) == CROWD
    assert (
        max(listening.accepted.values()) <= ACCEPTED_AT_ONCE + 1
    )  # asyncio accepts one more from Python 3.13 on
