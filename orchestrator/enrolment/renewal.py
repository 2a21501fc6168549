"""Keeping a running agent's certificate good: the next one at two thirds of its life, and no poll is lost.

Whatever puts a new certificate into the file, this or a tool of your own, the agent's worker goes on with a
new connection; polls that wait on the old one end there.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from temporalio.client import Client
from temporalio.worker import Worker

from activities.drivers.programs import run
from orchestrator.enrolment.host import HostFiles
from policies.model.errors import NotAllowed, PenstockError, Unavailable

LOOK = timedelta(minutes=1)
"""How often the file is looked at."""

AGAIN = timedelta(minutes=15)
"""How long until a renewal that failed is tried again."""

AGAIN_WHERE_REFUSED = timedelta(hours=6)
"""How long where the relay may not renew it: it was revoked, or comes from an authority of your own.

Only another certificate in the file mends that, or a relay's clock that is set right.
"""

ASKED_WITHIN = timedelta(minutes=2)
"""How long the process that asks may take, on a host that is slow to start it."""

_AT_ONCE = datetime.min.replace(tzinfo=UTC)
_log = logging.getLogger(__name__)


async def ask_for_the_next(config: Path, whose: str = "agent") -> None:
    """Have a process of its own ask for the next certificate: what it needs for that takes memory for good.

    `whose` is the group of commands that reads this file.

    Raises:
        NotAllowed: The relay refuses it; the sentence is the relay's own.
        Unavailable: It got none, could not be started or did not end in time; the sentence says which.
    """
    command = (sys.executable, "-m", "orchestrator", whose, "renew", "--config", str(config))
    asked = await run(command, within=ASKED_WITHIN)
    if asked.status:
        kind = NotAllowed if asked.status == NotAllowed.exit_code else Unavailable
        raise kind(asked.err.strip()[-1000:])


def exchange(worker: Worker, client: Client) -> None:
    """Have the worker make its next calls through this client."""
    worker.client = client


class Renewal:
    """Looks after the certificate of one agent."""

    def __init__(self, files: HostFiles, ask: Callable[[], Awaitable[None]]) -> None:
        self._files = files
        self._ask = ask
        self._not_before = _AT_ONCE

    async def keep(
        self, connected: Callable[[], Awaitable[Client]], exchange: Callable[[Client], None]
    ) -> None:
        """Renew when it is time, and reconnect when another certificate lies there, until cancelled."""
        used = self._content()
        while True:
            await asyncio.sleep(LOOK.total_seconds())
            await self._renew_when_due()
            found = self._content()
            if found == used or found is None:
                continue
            try:
                exchange(await connected())
            except PenstockError as error:
                _log.warning("the new certificate is not in use yet: %s", error)
                continue
            used, self._not_before = found, _AT_ONCE
            _log.info("a new certificate is in use")

    async def _renew_when_due(self) -> None:
        now = datetime.now(UTC)
        try:
            if now < self._not_before or now < self._files.renew_at(now):
                return
            await self._ask()
        except PenstockError as error:
            later = AGAIN_WHERE_REFUSED if isinstance(error, NotAllowed) else AGAIN
            self._not_before = now + later
            _log.warning("the certificate was not renewed, and is asked for again in %s: %s", later, error)

    def _content(self) -> bytes | None:
        try:
            return self._files.certificate.read_bytes()
        except OSError:
            return None
