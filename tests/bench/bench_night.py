"""Orders by chat on a lab: from a confirmed code to the last new session on the canary, exact replays of what
was said and what is said many times at once, and what a chat is told.

The canary's instance is the only one that refuses right passwords, so the clients' own log of logins says
which instance took each. The judge is kept from deciding meanwhile. A way back after which known-good is not
seen to take logins has no witness, and ends the measurement.
"""

import argparse
import asyncio
import hashlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from statistics import quantiles
from typing import Any
from uuid import uuid4

import httpx
from rich.console import Console
from rich.table import Table

from deploy.lab import synapse
from deploy.lab.chat_room import BOT, CODE, COLLEAGUE, PERSON, LabRoom, chat_room
from deploy.lab.lab import CHAT_SINK, DEMO, FLEET, Lab, lab
from deploy.lab.rehearsal import Rehearsal
from deploy.lab.synapse import NAME
from policies.model.change import Outcome, Phase
from policies.model.chat import ChatAnswer, ChatMessage
from policies.model.errors import Unavailable
from policies.model.notice import Occasion
from tests.fakes.notice_counts import NoticeCounts, counted

REPLAYS = 1_000
AT_ONCE = 8
"""Equal requests under way at a time: fewer than a person's orders may be within a minute."""
BAR_SECONDS = 3.0
LOGINS_PER_SECOND = 10.0
SEEN_FIRST = 3
"""Logins that the canary has to have taken before somebody orders, and known-good afterwards."""
WAIT = 60.0
METHOD = "of the sorted samples, between neighbours in a straight line (statistics.quantiles, inclusive)"


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Print the figures; 0 when every bar holds."""
    parser = argparse.ArgumentParser(prog="./run bench night", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="rollbacks that are confirmed in the chat (10)")
    chosen = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    figures = asyncio.run(_measured(chosen.runs))
    console = Console(width=120)
    for table in _tables(figures):
        console.print(table)
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if figures["holds"] else 1


async def _measured(runs: int) -> dict[str, Any]:
    synapse.ensure(print)
    shape = replace(
        DEMO,
        prefix="psn-",
        folder="lab-night",
        gateways=3,
        sites=3,
        logins_per_second=LOGINS_PER_SECOND,
        chat=True,
    )
    async with lab(print, shape) as built, chat_room(built) as room:
        Rehearsal(built).keep_the_judge_out()
        night = _Night(built, room)
        ways_back = [await night.rollback(number) for number in range(runs)]
        doubled = await night.replays()
        at_once = await night.many_at_once()
        notices = await night.notices()
    seconds = [one.seconds for one in ways_back]
    p95 = quantiles(seconds, n=20, method="inclusive")[18] if len(seconds) > 1 else seconds[0]
    return {
        "chat_confirm_to_off_canary_p95_s": round(p95, 3),
        "chat_confirm_to_off_canary_s": [round(one, 3) for one in seconds],
        "samples": len(seconds),
        "p95_method": METHOD if len(seconds) > 1 else "the only sample",
        "max_s": round(max(seconds), 3),
        "known_good_took_a_login_s": [round(one.taken, 3) for one in ways_back],
        "replays": REPLAYS,
        "said_at_once": {"messages": night.raced, "times": AT_ONCE, "double_actions": at_once},
        "double_actions": doubled + at_once,
        "notices": {
            "sent": dict(sorted(notices.sent.items())),
            "received": dict(sorted(notices.received.items())),
            "repeats": notices.raw - sum(notices.received.values()),
            "missing": len(notices.missing),
            "which": list(notices.missing),
        },
        "holds": p95 <= BAR_SECONDS and doubled + at_once == 0 and not notices.missing,
    }


@dataclass(frozen=True)
class WayBack:
    """One confirmed rollback, in seconds after its code was sent."""

    seconds: float
    """When the last login began that the canary refused; where none did, when known-good took the first."""
    taken: float
    """When the first login began that known-good took, with none refused after it."""


class _Night:
    """What is measured on one lab."""

    def __init__(self, built: Lab, room: LabRoom) -> None:
        self._lab = built
        self._room = room
        self._rehearsal = Rehearsal(built)
        self._said: list[ChatMessage] = []
        self.raced = 0
        """Messages that were said many times at once."""

    async def rollback(self, number: int) -> WayBack:
        """Return how long it took from sending a code to the last new session on the canary."""
        trial = await self._rehearsal.on_trial(self._lab.faulty, f"night {number}")
        await self._met(trial.gateway, trial.since)
        answer = await self._asks(f"rollback {FLEET} run {number}")
        code = CODE.search(answer)
        if code is None:
            raise Unavailable(f"the chat gives no code: {answer}")
        sent = datetime.now(UTC)
        begun = await self._asks(f"confirm {code[1]}")
        if not begun.startswith("Started "):
            raise Unavailable(f"the chat does not roll back: {begun}")
        status = await self._rehearsal.until(lambda seen: seen.phase is Phase.ENDED)
        if status.outcome is not Outcome.ROLLED_BACK or status.why != f"{PERSON}: run {number}":
            raise Unavailable(f"it is not this order by which it went back: {status.why}")
        found = await self._off(trial.gateway, sent)
        await self._rested()
        print(
            f"run {number + 1}: {found.seconds:.2f} s, known-good took one after {found.taken:.2f} s; "
            f"{status.why}",
            flush=True,
        )
        return found

    async def _off(self, gateway: str, sent: datetime) -> WayBack:
        """Return when the gateway's logins went to known-good again, once some have for sure.

        Raises:
            Unavailable: Known-good was not seen to take logins: nothing says that the canary takes none.
        """
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            logins = await asyncio.to_thread(self._lab.logins_at, gateway, sent)
            if (found := way_back(logins, sent.timestamp())) is not None:
                return found
            await asyncio.sleep(0.2)
        raise Unavailable(f"known-good on {gateway} was not seen to take a login within {WAIT:g} s")

    async def replays(self) -> int:
        """Return how many actions 1,000 exact replays have led to, while another change is on trial."""
        await self._rehearsal.on_trial(self._lab.faulty, "replays")
        for order in (f"hold {FLEET}", "help", f"resume {FLEET}"):
            await self._asks(order)
        before, fresh = self._actions(), 0
        messages = list(islice(cycle(self._said), REPLAYS))
        async with self._as_the_process() as api:
            for start in range(0, REPLAYS, AT_ONCE):
                some = messages[start : start + AT_ONCE]
                fresh += sum([not one.repeated for one in await _sent(api, some)])
        goes_back = (await self._lab.status()).phase in {Phase.ROLLING_BACK, Phase.ENDED}
        doubled = self._actions() - before + fresh + goes_back
        await self._rehearsal.end()
        await self._rested()
        return doubled

    async def many_at_once(self) -> int:
        """Return how many actions too many came of messages that were each handed on many times at once."""
        await self._rehearsal.on_trial(self._lab.faulty, "at once")
        before, fresh, code = self._actions(), 0, ""
        async with self._as_the_process() as api:
            for person, order in (
                (PERSON, f"hold {FLEET}"),
                (PERSON, f"resume {FLEET}"),
                (COLLEAGUE, f"rollback {FLEET} at once"),  # one alone may not say so much within a minute
                (COLLEAGUE, "confirm"),
            ):
                said = self._message(f"!penstock {order} {code}".strip(), f"${uuid4().hex}", person)
                answers = await _sent(api, [said] * AT_ONCE)
                fresh += sum(not one.repeated for one in answers)
                if wrong := next(
                    (one for one in answers if one.refused or one.lines != answers[0].lines), None
                ):
                    raise Unavailable(f"{said.text!r} is answered in two ways, or refused: {wrong.lines}")
                found = CODE.search("\n".join(answers[0].lines))
                code = found[1] if found else ""
                self.raced += 1
        status = await self._rehearsal.until(lambda seen: seen.phase is Phase.ENDED)
        if status.why != f"{COLLEAGUE}: at once":
            raise Unavailable(f"it is not this order by which it went back: {status.why}")
        await self._rested()
        return self._actions() - before - self.raced + fresh - self.raced

    def _as_the_process(self) -> httpx.AsyncClient:
        """Return a way to the API with the token of the chat's own process."""
        token = (self._room.folder / "penstock.token").read_text()
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=os.fspath(self._lab.folder / "penstock.sock")),
            base_url="http://penstock/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=WAIT,
        )

    async def notices(self) -> NoticeCounts:
        """Return what was to be told in the chat, and which of it stands in the room."""
        ledger, deadline = self._lab.installation.ledger, time.monotonic() + WAIT
        await asyncio.sleep(5)  # what has just happened is found by the next look, two seconds apart
        while ledger.outbox(CHAT_SINK, 1):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
        posted = [one.transaction for one in await self._room.posts() if one.sender == BOT]
        came = []
        for row in ledger.notice_rows([FLEET], 10_000):
            for occasion in Occasion:
                named = f"{row.notice.key}/{occasion}/{self._room.room}"
                transaction = hashlib.sha256(named.encode()).hexdigest()[:32]
                came += [row.notice.key] * posted.count(transaction)
        return counted(ledger, [FLEET], {CHAT_SINK: came})

    def _actions(self) -> int:
        """Return how many orders the audit record has."""
        entries = self._lab.installation.ledger.audit_entries(limit=10_000)
        return sum(entry.action.endswith("asked for") for entry in entries)

    async def _asks(self, text: str) -> str:
        """Say something, and return what is answered."""
        event, answer = await self._room.asks(text)
        self._said.append(self._message(f"!penstock {text}", event))
        return answer.body

    def _message(self, text: str, event: str, person: str = PERSON) -> ChatMessage:
        return ChatMessage(
            workspace=NAME,
            user=f"@{person}:{NAME}",
            name=person,
            channel=self._room.room,
            message=event,
            text=text,
            at=datetime.now(UTC),
        )

    async def _met(self, gateway: str, since: datetime) -> None:
        """Wait until the canary's instance has taken so many logins."""
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            logins = await asyncio.to_thread(self._lab.logins_at, gateway, since)
            if sum(one["outcome"] != "accepted" for one in logins) >= SEEN_FIRST:
                return
            await asyncio.sleep(0.2)
        raise Unavailable(f"no login at {gateway} is refused by the release that refuses them")

    async def _rested(self) -> None:
        """Wait until every gateway runs one instance only."""
        deadline = time.monotonic() + WAIT
        await asyncio.sleep(1.0)  # a login that began before is over
        while time.monotonic() < deadline:
            states = (await self._lab.every_state()).values()
            if all(sum(one.state.value == "running" for one in state.instances) == 1 for state in states):
                return
            await asyncio.sleep(0.3)


def way_back(logins: Sequence[Mapping[str, Any]], sent: float) -> WayBack | None:
    """Return what logins at the canary say, the earliest first; None while nothing says that it is off.

    Only the canary refuses, and what known-good took is no session on the canary: without some of those at
    the end nobody knows.
    """
    last = max((one["at"] for one in logins if one["outcome"] != "accepted"), default=None)
    after = [one["at"] for one in logins if last is None or one["at"] > last]
    if len(after) < SEEN_FIRST:
        return None
    taken = after[0] - sent
    return WayBack(taken if last is None else last - sent, taken)


async def _sent(api: httpx.AsyncClient, messages: Sequence[ChatMessage]) -> list[ChatAnswer]:
    """Hand these on all at once; return what is answered to each, in the end.

    Who is told to wait, because an equal one is being answered or too many came, asks again.
    """
    wait = {httpx.codes.CONFLICT, httpx.codes.TOO_MANY_REQUESTS}

    async def one(message: ChatMessage) -> ChatAnswer:
        deadline = time.monotonic() + WAIT
        while True:
            answer = await api.post("/chat/messages", json=message.model_dump(mode="json"))
            if answer.status_code not in wait or time.monotonic() > deadline:
                return ChatAnswer.model_validate(answer.raise_for_status().json())
            await asyncio.sleep(1.0)  # as the chat's process does

    return list(await asyncio.gather(*(one(message) for message in messages)))


def _tables(figures: dict[str, Any]) -> Sequence[Table]:
    bars = Table(title="Orders by chat", title_justify="left", caption=f"p95: {figures['p95_method']}")
    for title in ("", "figure", "bar"):
        bars.add_column(title)
    p95 = figures["chat_confirm_to_off_canary_p95_s"]
    samples = figures["samples"]
    bars.add_row(
        f"confirmation to last new session on the canary, p95 of {samples}",
        f"{p95:.2f} s",
        f"{BAR_SECONDS:g} s",
    )
    bars.add_row("the same, the longest", f"{figures['max_s']:.2f} s", "")
    at_once = figures["said_at_once"]
    bars.add_row(
        f"actions too many of {REPLAYS:,} exact replays, and of {at_once['messages']} messages "
        f"{at_once['times']} times at once",
        str(figures["double_actions"]),
        "0",
    )
    bars.add_row("notices that did not come", str(figures["notices"]["missing"]), "0")
    told = Table(title="Notices in the chat", title_justify="left")
    for title in ("state", "sent", "received"):
        told.add_column(title)
    for state, sent in figures["notices"]["sent"].items():
        told.add_row(state, str(sent), str(figures["notices"]["received"].get(state, 0)))
    return bars, told
