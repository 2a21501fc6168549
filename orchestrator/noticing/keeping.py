"""Keeping: what a worker does for notices beside its work, each part again whenever it fails."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

from orchestrator.noticing.around import LookingAround, Wrong
from orchestrator.noticing.checking import Checking
from orchestrator.noticing.delivering import Delivering
from orchestrator.noticing.folding import fold_old
from orchestrator.noticing.looking import LASTS, Looking
from orchestrator.noticing.rules import RulesFile
from orchestrator.processes.beside import begun_again
from orchestrator.store.ledger import Ledger
from policies.model.errors import PenstockError

LOOK_SECONDS, DELIVER_SECONDS, LOUDER_SECONDS, AROUND_SECONDS, EXPIRE_SECONDS = 2.0, 1.0, 10.0, 60.0, 3600.0
KEPT = timedelta(days=90)
"""How long it is known who was told what."""
UNSENT_KEPT = timedelta(days=7)
"""How long what a sink does not take is kept for it."""

_log = logging.getLogger(__name__)


def keep_noticing(
    ledger: Ledger,
    rules: RulesFile,
    delivering: Delivering,
    wrong: Callable[[], Awaitable[Wrong]],
) -> list[asyncio.Task[None]]:
    """Begin to look, deliver, escalate and forget, each in a task of its own, until these are cancelled."""
    holder = f"{socket.gethostname()[:40]}/{os.getpid()}/{secrets.token_hex(4)}"
    looking = Looking(ledger, rules.rules, holder)
    around, checking = LookingAround(ledger, looking), Checking(ledger, rules)

    async def look_around() -> None:
        known = rules.rules()
        if known is None:
            return
        if await asyncio.to_thread(ledger.begin_notice_look, "around", holder, 4 * LASTS) is not None:
            await asyncio.to_thread(around.look, known, await wrong())
            await asyncio.to_thread(fold_old, ledger)

    def expire() -> None:
        now = datetime.now(UTC)
        ledger.expire_notices(now - KEPT, now - UNSENT_KEPT)
        ledger.expire_sink_tests(now - UNSENT_KEPT)

    works: Mapping[str, tuple[Callable[[], Awaitable[object]], float]] = {
        "looking for notices": (partial(asyncio.to_thread, looking.look), LOOK_SECONDS),
        "delivering notices": (delivering.begin_due, DELIVER_SECONDS),
        "testing sinks": (checking.begin_tests, DELIVER_SECONDS),
        "looking at the files of sinks": (partial(asyncio.to_thread, checking.look), AROUND_SECONDS),
        "escalating notices": (partial(asyncio.to_thread, looking.escalate), LOUDER_SECONDS),
        "looking around for notices": (look_around, AROUND_SECONDS),
        "forgetting notices": (partial(asyncio.to_thread, expire), EXPIRE_SECONDS),
    }
    return [
        asyncio.create_task(begun_again(what, partial(_again, what, work, seconds)))
        for what, (work, seconds) in works.items()
    ]


async def _again(what: str, work: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Do this every so many seconds; that the ledger is away is said once, and not each time."""
    silent = False
    while True:
        try:
            await work()
            silent = False
        except (PenstockError, OSError) as error:
            if not silent:
                _log.warning("%s: %s", what, error)
            silent = True
        await asyncio.sleep(seconds)
