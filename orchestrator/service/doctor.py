"""Examining an installation: what everything rests on, each with one sentence and what to do."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from activities.files import FleetFiles
from orchestrator.engine.sealing import sealing_keys
from orchestrator.noticing.rules import RulesFile
from orchestrator.service.checkpoints import Checkpoints
from orchestrator.service.standing import looked_at_within
from orchestrator.service.updates import silence_of
from orchestrator.store.ledger import Ledger
from policies.model.errors import PenstockError
from policies.model.fleet import Fleet
from policies.model.instance import GatewayState
from policies.model.offer import Offer, Verb
from policies.model.value import Value
from policies.rebuilding import ahead, older_than_gateways
from workflows.steps import CONTROL_QUEUE

WITHIN = timedelta(seconds=2)
"""How long each look may take; what does not answer by then is what is found."""

POLLED_WITHIN = timedelta(seconds=75)
"""A worker asks at least once a minute."""
CLOCKS_APART = timedelta(seconds=2)
CHECKPOINT_WITHIN = timedelta(hours=2)
LEAST_FREE, LEAST_SHARE = 1 << 30, 0.05
NAMED = 5
"""Gateways that a sentence names."""

READER = ThreadPoolExecutor(1, thread_name_prefix="doctor")
T = TypeVar("T")
Said = tuple[dict[str, GatewayState], dict[str, str]]
"""What gateways said of themselves, and why others were silent."""

BOOTED = "vpngw_boot_info"
"""What every exporter says, whatever runs beside it."""


class Health(StrEnum):
    """How something is."""

    WELL = "well"
    DOUBTFUL = "doubtful"
    """It works, and somebody should look."""
    WRONG = "wrong"


class Finding(Value):
    """What one look has found."""

    about: str
    health: Health
    sentence: str
    next: tuple[Offer, ...] = ()


@dataclass(frozen=True)
class DoctorService:
    """Looks at everything an installation rests on; nothing is changed by it."""

    client: Client
    ledger: Ledger
    files: FleetFiles
    checkpoints: Checkpoints
    prometheus_url: str
    folders: tuple[Path, ...]
    """Where the installation keeps what it must not lose."""
    notices: RulesFile | None = None
    """Who is told what without asking; None where nobody is."""

    async def examine(self, fleets: Iterable[Fleet], *, everything: bool) -> tuple[Finding, ...]:
        """Return what was found, of these fleets; of files and disks only where everything may be told."""
        looks: list[tuple[str, Callable[[], Awaitable[Finding]]]] = [
            ("engine", self._engine),
            ("worker", self._worker),
            ("ledger", self._ledger),
            ("metrics", self._metrics),
        ]
        if everything:
            looks += [
                ("sealing", self._sealing),
                ("files", self._files),
                ("audit", self._audit),
                ("disk", self._disk),
            ]
        if everything and self.notices is not None:
            looks.append(("notices", partial(self._notices, self.notices)))
        found = list(await asyncio.gather(*[_bounded(about, look) for about, look in looks]))
        heard = asyncio.ensure_future(self._heard())
        for fleet in fleets:  # one after the other: the installation has other things to do
            within = looked_at_within(len(fleet.gateways))
            said = asyncio.ensure_future(_read(self.ledger.states, fleet.name, within))
            of_fleet = (
                (f"{fleet.name}: gateways", partial(self._gateways, fleet, asyncio.shield(said))),
                (f"{fleet.name}: known-good", partial(self._known_good, fleet, asyncio.shield(said))),
                (f"{fleet.name}: certificates", partial(self._certificates, fleet, asyncio.shield(said))),
                (f"{fleet.name}: metrics", partial(self._series, fleet, asyncio.shield(heard))),
            )
            found += [await _bounded(about, look) for about, look in of_fleet]
        await asyncio.wait([heard])
        return tuple(found)

    async def _engine(self) -> Finding:
        await self.client.service_client.check_health(timeout=WITHIN)
        return _well("engine", "it answers")

    async def _worker(self) -> Finding:
        asked = DescribeTaskQueueRequest(
            namespace=self.client.namespace,
            task_queue=TaskQueue(name=CONTROL_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        found = await self.client.workflow_service.describe_task_queue(asked, timeout=WITHIN)
        now = datetime.now(UTC)
        asking = sum(now - one.last_access_time.ToDatetime(UTC) <= POLLED_WITHIN for one in found.pollers)
        if not asking:
            sentence = "none asks for work, so no change goes on; start penstock worker, or serve"
            return Finding(about="worker", health=Health.WRONG, sentence=sentence)
        return _well("worker", f"{asking} asked for work within {POLLED_WITHIN}")

    async def _ledger(self) -> Finding:
        head = await asyncio.to_thread(self.ledger.audit_head)
        kind = self.ledger.engine.dialect.name
        return _well("ledger", f"{kind} answers; its audit record has {head.seq} entries")

    async def _metrics(self) -> Finding:
        began = datetime.now(UTC)
        _, said = (await self._asked("time()"))["result"]
        now = began + (datetime.now(UTC) - began) / 2
        apart = abs(float(said) - now.timestamp())
        if apart > CLOCKS_APART.total_seconds():
            sentence = f"Prometheus' clock is {apart:.1f} s from this one: windows are read at another time"
            return Finding(about="metrics", health=Health.DOUBTFUL, sentence=sentence)
        return _well("metrics", "Prometheus answers, and its clock is this one's")

    async def _sealing(self) -> Finding:
        if names := sealing_keys(self.client.data_converter):
            return _well("sealing", f"what travels through the engine is sealed, for: {', '.join(names)}")
        sentence = "nothing is sealed: whoever reaches the engine gives orders; set PENSTOCK_PAYLOAD_KEYS"
        return Finding(about="sealing", health=Health.DOUBTFUL, sentence=sentence)

    async def _files(self) -> Finding:
        wrong = await asyncio.to_thread(self.files.wrong)
        if wrong:
            return Finding(about="files", health=Health.WRONG, sentence="; ".join(map(str, wrong)))
        known = await asyncio.to_thread(self.files.all)
        return _well("files", f"{len(known)} fleets are described as they must be")

    async def _audit(self) -> Finding:
        newest = await asyncio.to_thread(self.checkpoints.newest)
        signed = newest.seq if newest is not None else 0
        unsigned = await asyncio.to_thread(self.ledger.audit_entries, signed, limit=1)
        head = await asyncio.to_thread(self.ledger.audit_head)
        if head.seq < signed:
            sentence = (
                f"the record ends with entry {head.seq}, and {signed} were signed; penstock audit verify"
            )
            return Finding(about="audit", health=Health.WRONG, sentence=sentence)
        since = datetime.fromisoformat(unsigned[0].at) if unsigned else None
        if since is not None and datetime.now(UTC) - since > CHECKPOINT_WITHIN:
            entered = f"what was entered since {since:%Y-%m-%d %H:%M} UTC is not signed"
            sentence = f"{entered}; a worker does it every hour"
            return Finding(about="audit", health=Health.DOUBTFUL, sentence=sentence)
        return _well(
            "audit", f"{signed} of {head.seq} entries are signed; what is new waits for an hour at most"
        )

    async def _disk(self) -> Finding:
        scarce = []
        for folder in self.folders:
            place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
            usage = await asyncio.to_thread(shutil.disk_usage, place)
            if usage.free < max(LEAST_FREE, usage.total * LEAST_SHARE):
                scarce.append(f"{folder} has {usage.free >> 20} MB left")
        if scarce:
            return Finding(about="disk", health=Health.WRONG, sentence="; ".join(scarce))
        return _well("disk", "there is room where the installation writes")

    async def _notices(self, rules: RulesFile) -> Finding:
        wrong = await asyncio.to_thread(rules.wrong)
        if wrong is not None:
            sentence = f"{wrong}; what was good before counts until then"
            return Finding(about="notices", health=Health.WRONG, sentence=sentence)
        unready = await asyncio.to_thread(rules.unready)
        if unready:
            sentence = "; ".join(f"the sink {sink} tells nobody: {why}" for sink, why in unready.items())
            return Finding(about="notices", health=Health.WRONG, sentence=sentence)
        health = await asyncio.to_thread(self.ledger.sink_health)
        bad = {sink: one for sink, one in sorted(health.items()) if one.given_up or one.failing}
        if bad:
            said = [
                f"{sink} did not take {one.failing} and never took {one.given_up}: {one.error}"
                for sink, one in bad.items()
            ]
            lost = any(one.given_up for one in bad.values())
            sentence = f"{'; '.join(said)}; mend it, then penstock notice test {next(iter(bad))}"
            return Finding(
                about="notices", health=Health.WRONG if lost else Health.DOUBTFUL, sentence=sentence
            )
        waiting = sum(one.waiting for one in health.values())
        return _well("notices", f"every sink takes what it is told; {waiting} are on their way")

    async def _gateways(self, fleet: Fleet, said: Awaitable[Said]) -> Finding:
        about = f"{fleet.name}: gateways"
        states, silent = await said
        left_out = [one.gateway for one in await _read(self.ledger.quarantined, fleet.name)]
        unseen = [one.name for one in fleet.gateways if one.name not in states and one.name not in silent]
        if silent or unseen:
            who = _named([*sorted(silent), *unseen])
            why = "".join(f"; {name}: {said}" for name, said in sorted(silent.items())[:1])
            sentence = f"{len(silent)} are silent and {len(unseen)} were not looked at lately: {who}{why}"
            asks = Offer(verb=Verb.SESSIONS, fleet=fleet.name)
            return Finding(about=about, health=Health.DOUBTFUL, sentence=sentence, next=(asks,))
        if left_out:
            sentence = f"{len(left_out)} are in quarantine, and take part in no change: {_named(left_out)}"
            back = Offer(verb=Verb.RETURN, fleet=fleet.name, gateway=left_out[0])
            return Finding(about=about, health=Health.DOUBTFUL, sentence=sentence, next=(back,))
        return _well(about, f"all {len(states)} have answered within {looked_at_within(len(states))}")

    async def _known_good(self, fleet: Fleet, said: Awaitable[Said]) -> Finding:
        about = f"{fleet.name}: known-good"
        known = await _read(self.ledger.known_good, fleet.name)
        states, _ = await said
        newest = await _read(self.ledger.newest_number, fleet.name)
        if unknown := ahead(fleet.name, states, newest):
            sentence = f"{older_than_gateways(unknown)}; no change and no way back takes these along"
            rebuild = Offer(verb=Verb.REBUILD, fleet=fleet.name)
            return Finding(about=about, health=Health.WRONG, sentence=sentence, next=(rebuild,))
        without = [gateway.name for gateway in fleet.gateways if gateway.name not in known]
        if without:
            sentence = f"{len(without)} have none, so no upgrade takes them along: {_named(without)}"
            asks = tuple(Offer(verb=verb, fleet=fleet.name) for verb in (Verb.EXAMINE, Verb.INSTALL))
            return Finding(about=about, health=Health.DOUBTFUL, sentence=sentence, next=asks)
        return _well(about, f"all {len(known)} gateways have what they go back to")

    async def _certificates(self, fleet: Fleet, said: Awaitable[Said]) -> Finding:
        about = f"{fleet.name}: certificates"
        states, _ = await said
        late = {name: state.unrenewed for name, state in sorted(states.items()) if state.unrenewed}
        if late:
            first, why = next(iter(late.items()))
            sentence = f"{len(late)} do not get the next one: {_named([*late])}; {first} {why}"
            return Finding(about=about, health=Health.DOUBTFUL, sentence=sentence)
        return _well(about, f"none of the {len(states)} gateways that answered lacks its next certificate")

    async def _series(self, fleet: Fleet, heard: Awaitable[frozenset[str]]) -> Finding:
        about, seen = f"{fleet.name}: metrics", await heard
        missing = [one.name for one in fleet.gateways if one.metrics_target not in seen]
        if missing:
            sentence = (
                f"Prometheus hears nothing of {len(missing)}, which cannot be judged: {_named(missing)}"
            )
            return Finding(about=about, health=Health.DOUBTFUL, sentence=sentence)
        return _well(about, "Prometheus hears every gateway's exporter")

    async def _heard(self) -> frozenset[str]:
        """Return the targets whose exporter Prometheus hears."""
        found = (await self._asked(BOOTED))["result"]
        return frozenset(str(one["metric"].get("instance", "")) for one in found)

    async def _asked(self, query: str) -> dict[str, Any]:
        async with httpx.AsyncClient(trust_env=False, timeout=WITHIN.total_seconds()) as client:
            place = f"{self.prometheus_url.rstrip('/')}/api/v1/query"
            answer = (await client.get(place, params={"query": query})).raise_for_status()
        found: dict[str, Any] = answer.json()["data"]
        return found


async def _read(look: Callable[..., T], *arguments: object) -> T:
    """Read in a thread that nobody else waits for: of many fleets it is much."""
    return await asyncio.get_running_loop().run_in_executor(READER, partial(look, *arguments))


async def _bounded(about: str, look: Callable[[], Awaitable[Finding]]) -> Finding:
    """Look, and say what did not answer; one look that fails hides no other."""
    try:
        async with asyncio.timeout(WITHIN.total_seconds() * 2):
            return await look()
    except TimeoutError:
        sentence = f"it did not answer within {WITHIN.total_seconds() * 2:g} s"
    except RPCError as error:
        sentence = silence_of(error)
    except RuntimeError:  # what the engine's client says of its first connection is for programmers
        sentence = "the engine cannot be reached"
    except httpx.HTTPStatusError as error:  # its own words have the whole address, with a login in it
        sentence = f"it answers with status {error.response.status_code}"
    except (PenstockError, OSError, httpx.HTTPError) as error:
        sentence = f"it does not answer: {str(error) or type(error).__name__}"
    except (ValueError, KeyError, TypeError, IndexError) as error:
        sentence = f"its answer cannot be read: {error}"
    return Finding(about=about, health=Health.WRONG, sentence=sentence)


def _well(about: str, sentence: str) -> Finding:
    return Finding(about=about, health=Health.WELL, sentence=sentence)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
