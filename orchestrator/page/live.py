"""Looking at fleets while people watch: once a second for all who see the same, however many they are."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import Request

from orchestrator.page.render import Judged, part
from orchestrator.page.runbooks import Runbooks, named_only
from orchestrator.page.stale_while_revalidate import StaleWhileRevalidate
from orchestrator.service.background import EVIDENCE
from orchestrator.service.evidence import KEPT_SAMPLES, KEPT_VERDICTS, Evidence
from orchestrator.service.service import FleetStatus, Service
from policies.model.errors import PenstockError
from policies.model.people import Caller, Role
from policies.traffic import Traffic

LOOK_SECONDS = 1.0
LINGER_SECONDS = 5.0
"""How long a look goes on when the last viewer has gone: whoever loads a page again finds it."""

TRAFFIC_KEPT_SECONDS = 10.0
"""How old sessions may be that are shown while Prometheus does not answer."""
NO_TRAFFIC_YET = "Prometheus has not answered yet"

KEPT_READINGS = 100_000
"""What gates measured and decided that is in memory of all changes together; each takes about a kilobyte."""

DRAWN: Any = {
    "wave": True,
    "at": True,
    "decision": {
        "action": True,
        "verdict": True,
        "readings": {"__all__": {"gate", "verdict", "numbers"}},
    },
}
"""What a view is drawn of; a decision names thousands of gateways besides."""

REGIONS = ("heading", "told", "orders", "sessions", "waves", "gates", "gateways", "story", "moment")
"""The parts of a fleet's page that change by themselves, each sent only when it is another one."""

Json = Mapping[str, Any]
Regions = dict[str, str]


@dataclass(frozen=True)
class View:
    """A fleet at one moment, as those see it who may do the same."""

    status: FleetStatus
    traffic: Traffic
    judged: Judged
    taken: datetime
    runbooks: Runbooks = named_only

    def regions(self) -> Regions:
        """Return the parts of the page, rendered."""
        known = self.known()
        return {name: part(f"regions/{name}.html", **known) for name in REGIONS}

    def known(self) -> dict[str, Any]:
        """Return what templates are given."""
        status = self.status.model_dump(mode="json")
        return {
            "status": status,
            "change": status["change"],
            "traffic": self.traffic.model_dump(mode="json"),
            "judged": self.judged,
            "taken": self.taken,
            "trouble": "",
            "runbooks": self.runbooks,
        }


@dataclass
class _Watch:
    """One look a second, in the name of one of those who see the same."""

    caller: Caller
    fleet: str
    viewers: int = 0
    regions: Regions = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    looking: "asyncio.Task[None] | None" = None

    @property
    def is_looking(self) -> bool:
        """Whether somebody looks on."""
        return self.looking is not None


class Lookout:
    """Watches the fleets that somebody looks at."""

    def __init__(self, service: Service, runbooks: Runbooks = named_only) -> None:
        """Ask this service; `runbooks` says where a runbook opens."""
        self._service = service
        self._runbooks = runbooks
        self._watches: dict[tuple[str, frozenset[Role], str], _Watch] = {}
        self._judged = OrderedDict[str, Judged]()
        self._turn = threading.Lock()
        self._holders = dict[str, frozenset[str]]()
        self._traffics = StaleWhileRevalidate[Traffic](LOOK_SECONDS, TRAFFIC_KEPT_SECONDS)

    async def view(self, caller: Caller, fleet: str) -> View:
        """Return how the fleet stands now, as this caller may see it."""
        taken = datetime.now(UTC)  # what is waited for below makes it no newer
        status = await self._service.status(caller, fleet)
        self._holders[fleet] = _holders(status)
        judged = Judged()
        if status.change is not None:
            judged = await self.judged(caller, status.change.rollout)
        return View(status, await self._traffic(caller, fleet), judged, taken, self._runbooks)

    async def regions(self, caller: Caller, fleet: str) -> AsyncGenerator[Regions, None]:
        """Yield the rendered parts of the fleet's page after each look.

        Whether the caller may still see the fleet, whoever sends this on asks again.
        """
        key = self._seen_alike(caller, fleet)
        watch = self._watches.setdefault(key, _Watch(caller, fleet))
        watch.viewers += 1
        if watch.looking is None:
            watch.looking = asyncio.create_task(self._look_on(watch))
        try:
            # Where the look has failed, or shows too little by now, the stream ends: the browser comes again.
            while watch.is_looking and key == self._seen_alike(caller, fleet):
                news = watch.news
                if watch.regions:
                    yield watch.regions
                await news.wait()
        finally:
            watch.viewers -= 1

    async def _look_on(self, watch: _Watch) -> None:
        """Look once a second while somebody watches, and a little longer."""
        alone = 0.0
        try:
            while alone < LINGER_SECONDS:
                watch.regions = await self._look(watch)
                watch.news.set()
                watch.news = asyncio.Event()
                await asyncio.sleep(LOOK_SECONDS)
                alone = 0.0 if watch.viewers else alone + LOOK_SECONDS
        finally:
            watch.looking = None
            watch.news.set()
            if not watch.viewers:
                self._watches = {key: one for key, one in self._watches.items() if one is not watch}

    async def _look(self, watch: _Watch) -> Regions:
        """Return the parts as they are now; what cannot be seen now stays as it was, and says so."""
        try:
            view = await self.view(watch.caller, watch.fleet)
        except PenstockError as error:
            now = datetime.now(UTC)
            return watch.regions | {"moment": part("regions/moment.html", taken=now, trouble=str(error))}
        return await asyncio.to_thread(view.regions)

    async def _traffic(self, caller: Caller, fleet: str) -> Traffic:
        """Return the fleet's sessions; that Prometheus hangs or fails keeps nobody from seeing the rest."""

        async def look() -> Traffic:
            try:
                return await self._service.traffic(caller, fleet)
            except PenstockError as error:
                return Traffic(unknown=str(error))

        found = await self._traffics.find(fleet, look)
        return found.value or Traffic(unknown=NO_TRAFFIC_YET)

    async def judged(self, caller: Caller, change: str) -> Judged:
        """Return what the gates of a change measured and decided; all who ask together share what is read.

        Raises:
            Unknown: There is no such change, as far as the caller may know.
            TooMany: The caller has too much of this under way.
        """
        evidence = await self._service.evidence(caller, change)
        key = ("judged", self, evidence.change.name)
        return await EVIDENCE.run(partial(self.read, evidence), caller.person, key=key)

    def known(self, change: str) -> Judged | None:
        """Return what is in memory of what the gates of a change measured and decided."""
        with self._turn:
            return self._judged.get(change)

    def read(self, evidence: Evidence) -> Judged:
        """Return what is in memory with what came since; this blocks for the ledger."""
        change = evidence.change.name
        known = self.known(change)
        begun = known or Judged(margins=evidence.margins())
        after: int = begun.verdicts[-1]["number"] if begun.verdicts else 0
        since = datetime.fromisoformat(begun.samples[-1]["at"]) if begun.samples else None
        rows = [
            row.model_dump(mode="json", include=DRAWN) | {"number": number}
            for number, row in evidence.verdicts(after)
        ]
        measured = [one.model_dump(mode="json") for one in evidence.samples(since)]
        found = begun
        if rows or measured:
            found = Judged(
                verdicts=(*begun.verdicts, *rows)[-KEPT_VERDICTS:],
                samples=(*begun.samples, *measured)[-KEPT_SAMPLES:],
                margins=begun.margins,
            )
        self._keep(change, known, found)
        return found

    def _seen_alike(self, caller: Caller, fleet: str) -> tuple[str, frozenset[Role], str]:
        """Return what tells those apart who see different things: who holds a change may lift that hold."""
        holds = caller.person in self._holders.get(fleet, ())
        return fleet, caller.roles(fleet), caller.person if holds else ""

    def _keep(self, change: str, known: Judged | None, found: Judged) -> None:
        """Keep what was found after `known`, and of other changes what there is room for."""
        with self._turn:
            kept = self._judged.pop(change, None)
            self._judged[change] = found if kept is None or kept is known else kept
            while sum(one.size for one in self._judged.values()) > KEPT_READINGS:
                self._judged.popitem(last=False)


def lookout_of(request: Request) -> Lookout:
    """Return what watches the fleets for this application."""
    found: Lookout = request.app.state.lookout
    return found


def _holders(status: FleetStatus) -> frozenset[str]:
    """Return whose hold the fleet's change offers to lift."""
    offers = status.change.can_do if status.change is not None else ()
    return frozenset(offer.hold_of for offer in offers if offer.hold_of is not None)
