"""What a process does beside its work, for as long as it runs: it never ends in silence."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

AGAIN = timedelta(seconds=30)
"""How long until something that ended is begun again."""

_log = logging.getLogger(__name__)


async def begun_again(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do this until cancelled, from its beginning whenever it ends; `what` names it in the log."""
    while True:
        try:
            await work()
            _log.error("%s has ended, and is begun again in %s", what, AGAIN)
        except Exception:  # noqa: BLE001 - whatever it is, nobody else would begin it again
            _log.exception("%s has failed, and is begun again in %s", what, AGAIN)
        await asyncio.sleep(AGAIN.total_seconds())
