"""Reports by themselves: of every change that has ended there is one, in HTML and Markdown, in a folder."""

import asyncio
import logging
import math
import os
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.reporting.render import as_html, as_markdown, is_final
from orchestrator.service.service import Service
from policies.model.errors import PenstockError, Unavailable

LOOK_SECONDS = 10.0
LOOKED_AT = timedelta(days=30)
"""How long after a change's end its report is written by itself; an older one is asked for."""
RESTED = 4
"""Times as long as a report took is rested before the next: there may be thousands."""
READABLE = 0o640
"""Whoever looks after this host reads them; they have reasons and names of gateways."""
ASKED_AGAIN_SECONDS = 300.0
"""How often the ledger is asked whether old sessions of a change may still end: it reads all its gateways."""
LEFT_SECONDS = 600.0
"""No file takes as long to be written."""
_log = logging.getLogger(__name__)


@dataclass
class Known:
    """What one process has found of its reports, so that it seldom reads and asks again."""

    settled: set[str] = field(default_factory=set)
    """Changes whose reports are the last word, or of which none can be made."""
    ending: set[str] = field(default_factory=set)
    """Changes of which no old session was left when the ledger was last asked."""
    asked_at: dict[str, float] = field(default_factory=dict)
    """When it was asked, in seconds by a clock that nobody sets."""

    def forget_all_but(self, changes: Collection[str]) -> None:
        """Forget those whose reports nobody looks after any more."""
        self.settled.intersection_update(changes)
        self.ending.intersection_update(changes)
        self.asked_at = {change: at for change, at in self.asked_at.items() if change in changes}


async def keep_reporting(service: Service, folder: Path) -> None:
    """Keep the report of every change that has ended, for as long as this runs."""
    known = Known()
    while True:
        try:
            await write_missing(service, folder, known)
        except (PenstockError, OSError) as error:
            _log.warning("reports are not written now: %s", error)
        await asyncio.sleep(LOOK_SECONDS)


async def write_missing(service: Service, folder: Path, known: Known | None = None) -> tuple[str, ...]:
    """Write the reports that are not there yet, or are not the last word any more; return of which changes.

    A file is there whole or not at all, and a repeat after a kill at any line writes what is missing.
    Several processes may do so at once: each writes a file of its own and moves it to its place. A change of
    which no report can be made does not keep the others from theirs; it is named once, and left alone from
    then on.

    Args:
        service: What reports are made by.
        folder: Where they are.
        known: What earlier looks of this process have found; it is added to.

    Raises:
        OSError: The folder cannot be written.
        PenstockError: The ledger does not answer.
    """
    known = Known() if known is None else known
    written = []
    since = datetime.now(UTC) - LOOKED_AT
    ended = await asyncio.to_thread(service.reports.ended_since, since)
    there = await asyncio.to_thread(_names_in, folder)
    known.forget_all_but(frozenset(ended))
    for change in ended:
        text, page = folder / f"{change}.md", folder / f"{change}.html"
        if change in known.settled:
            continue
        began = time.monotonic()
        if there >= {text.name, page.name} and not await asyncio.to_thread(
            _is_out_of_date, service, change, page, known
        ):
            continue
        try:
            texts = await asyncio.to_thread(_texts, service, change)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - one report that fails keeps none of the others away
            _log.exception("no report of %s can be made", change)
            known.settled.add(change)
            continue
        # The page says whether both are the last word, so it comes last.
        for path, said in zip((text, page), reversed(texts), strict=True):
            await asyncio.to_thread(_write, path, said)
        written.append(change)
        await asyncio.sleep(RESTED * (time.monotonic() - began))
    return tuple(written)


def _is_out_of_date(service: Service, change: str, page: Path, known: Known) -> bool:
    """Return whether a written report says what may have changed since, and cannot change any more."""
    if is_final(page.read_text()):
        known.settled.add(change)
        return False
    now = time.monotonic()
    if now - known.asked_at.get(change, -math.inf) < ASKED_AGAIN_SECONDS:
        return False
    known.asked_at[change] = now
    if not service.reports.is_final(change):
        known.ending.discard(change)
        return False
    # What ended the last session is told a moment after the gateway was seen without it.
    ending = change in known.ending
    known.ending.add(change)
    return ending


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return frozenset()


def _texts(service: Service, change: str) -> tuple[str, str]:
    document = service.reports.of_change(change).model_dump(mode="json")
    return as_html(document), as_markdown(document)


def _write(path: Path, text: str) -> None:
    """Have the text at that path, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    _sweep(path)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, READABLE), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


def _sweep(path: Path) -> None:
    """Remove what processes left that were killed while they wrote this file."""
    for left in path.parent.glob(f".{path.name}.*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                left.unlink()
