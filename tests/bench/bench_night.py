"""An order by chat on a real lab: how soon it has worked, whether it works twice, and what a chat is told.

The canary's instance is the only one that refuses right passwords, so the clients' own log of logins says
which instance took each. The judge is kept from deciding meanwhile.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from activities.files import load
from deploy.lab.__main__ import get_homeserver
from deploy.lab.chat_room import BOT, PERSON, LabRoom, Posted, chat_room
from deploy.lab.lab import CHAT_SINK, DEMO, FLEET, GATES, Lab, lab, write_yaml
from deploy.lab.rehearsal import Rehearsal
from deploy.lab.synapse import NAME
from policies.model.change import Phase
from policies.model.chat import ChatMessage
from policies.model.errors import Unavailable
from policies.model.gates import GatePolicy
from policies.model.notice import Occasion
from policies.model.verdict import Window
from tests.fakes.notice_counts import NoticeCounts, counted

REPLAYS = 1_000
AT_ONCE = 8
"""Replays under way at a time: fewer than a person's orders may be within a minute."""
BAR_SECONDS = 3.0
LOGINS_PER_SECOND = 10.0
SEEN_FIRST = 3
"""Logins that the canary has to have taken before somebody orders, so that the log is known to show them."""
WAIT = 60.0
CODE = re.compile(r"confirm ([0-9a-z]{4})\b")
ENDLESS = Window(minimum=timedelta(hours=2), nominal=timedelta(hours=2), cap=timedelta(hours=3))
NEVER = 1_000_000
"""Logins that have to be bad before anything is proven."""


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
    get_homeserver(print)
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
        night = _Night(built, room)
        night.keep_the_judge_out()
        seconds = [await night.rollback(number) for number in range(runs)]
        doubled = await night.replays()
        notices = await night.notices()
    p95 = quantiles(seconds, n=20, method="inclusive")[18] if len(seconds) > 1 else seconds[0]
    return {
        "chat_confirm_to_off_canary_p95_s": round(p95, 3),
        "chat_confirm_to_off_canary_s": [round(one, 3) for one in seconds],
        "replays": REPLAYS,
        "double_actions": doubled,
        "notices": {
            "sent": dict(sorted(notices.sent.items())),
            "received": dict(sorted(notices.received.items())),
            "repeats": notices.raw - sum(notices.received.values()),
            "missing": len(notices.missing),
            "which": list(notices.missing),
        },
        "holds": p95 <= BAR_SECONDS and doubled == 0 and not notices.missing,
    }


class _Night:
    """What is measured on one lab."""

    def __init__(self, built: Lab, room: LabRoom) -> None:
        self._lab = built
        self._room = room
        self._rehearsal = Rehearsal(built)
        self._said: list[ChatMessage] = []

    def keep_the_judge_out(self) -> None:
        """Have the next plans prove nothing bad by logins."""
        policy = load(GATES, GatePolicy).model_dump(mode="json", exclude_none=True)
        for gate in policy["gates"]:
            if gate["id"] == "connect-success":
                gate["margin"]["min_bad"] = NEVER
        policy["window"] = ENDLESS.model_dump(mode="json")
        write_yaml(self._lab.installation.settings.gates, policy)

    async def rollback(self, number: int) -> float:
        """Return the seconds from sending a confirmation to the last new session on the canary."""
        trial = await self._rehearsal.on_trial(self._lab.faulty, f"night {number}")
        await self._met(trial.gateway, trial.since)
        answer = await self._asks(f"!penstock rollback {FLEET} run {number}")
        code = CODE.search(answer)
        if code is None:
            raise Unavailable(f"the chat gives no code: {answer}")
        sent = datetime.now(UTC)
        begun = await self._asks(f"!penstock confirm {code[1]}")
        if not begun.startswith("Started "):
            raise Unavailable(f"the chat does not roll back: {begun}")
        status = await self._rehearsal.until(lambda seen: seen.phase is Phase.ENDED)
        if PERSON not in status.why and f"run {number}" not in status.why:
            raise Unavailable(f"it went back by itself: {status.why}")
        await self._rested()
        last = self._lab.last_login_on_the_new_instance([trial.gateway], sent)
        print(f"run {number + 1}: {last - sent.timestamp():.2f} s; {status.why}", flush=True)
        return last - sent.timestamp()

    async def replays(self) -> int:
        """Return how many actions 1,000 exact replays have led to, while another change is on trial."""
        await self._rehearsal.on_trial(self._lab.faulty, "replays")
        for order in (f"hold {FLEET}", "help", f"resume {FLEET}"):
            await self._asks(f"!penstock {order}")
        before = self._actions()
        messages = [one.model_dump(mode="json") for one in islice(cycle(self._said), REPLAYS)]
        token = (self._room.folder / "penstock.token").read_text()
        transport = httpx.AsyncHTTPTransport(uds=os.fspath(self._lab.folder / "penstock.sock"))
        fresh = 0
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://penstock/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=WAIT,
        ) as api:
            for start in range(0, REPLAYS, AT_ONCE):
                some = messages[start : start + AT_ONCE]
                answers = await asyncio.gather(*(api.post("/chat/messages", json=one) for one in some))
                for answer in answers:
                    fresh += not answer.raise_for_status().json()["repeated"]
        goes_back = (await self._lab.status()).phase in {Phase.ROLLING_BACK, Phase.ENDED}
        doubled = self._actions() - before + fresh + goes_back
        await self._rehearsal.end()
        await self._rested()
        return doubled

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
        before = {one.event for one in await self._room.posts()}
        event = await self._room.say(text)
        self._said.append(
            ChatMessage(
                workspace=NAME,
                user=f"@{PERSON}:{NAME}",
                name=PERSON,
                channel=self._room.room,
                message=event,
                text=text,
                at=datetime.now(UTC),
            )
        )

        def answers(post: Posted) -> bool:
            new = post.event not in before and post.sender == BOT
            return new and post.thread is None and post.replaces is None and not _is_card(post)

        found = await self._room.heard(answers, WAIT)
        if found is None:
            raise Unavailable(f"the chat does not answer {text!r}")
        return found.body

    async def _met(self, gateway: str, since: datetime) -> None:
        """Wait until the canary's instance has taken so many logins."""
        log, deadline = self._lab.logins.settings.folder / "logins.jsonl", time.monotonic() + WAIT
        while time.monotonic() < deadline:
            logins = [json.loads(line) for line in log.read_text().splitlines()]
            met = [
                one
                for one in logins
                if one["gateway"] == gateway and one["at"] > since.timestamp() and not one["mistyped"]
            ]
            if sum(one["outcome"] != "accepted" for one in met) >= SEEN_FIRST:
                return
            await asyncio.sleep(0.2)
        raise Unavailable(f"no login at {gateway} is refused by the release that refuses them")

    async def _rested(self) -> None:
        """Wait until every gateway runs one instance only."""
        deadline = time.monotonic() + WAIT
        await asyncio.sleep(1.0)  # a login that began before is over
        while time.monotonic() < deadline:
            states = (await self._lab.states()).values()
            if all(sum(one.state.value == "running" for one in state.instances) == 1 for state in states):
                return
            await asyncio.sleep(0.3)


def _is_card(post: Posted) -> bool:
    """Say whether a post tells how a change stands: a card, or a notice of a change that has no card."""
    return re.match(rf"(?:{FLEET}: )?{FLEET}-\d+\b", post.body) is not None


def _tables(figures: dict[str, Any]) -> Sequence[Table]:
    bars = Table(title="Orders by chat", title_justify="left")
    for title in ("", "figure", "bar"):
        bars.add_column(title)
    p95 = figures["chat_confirm_to_off_canary_p95_s"]
    bars.add_row("confirmation to last new session on the canary, p95", f"{p95:.2f} s", f"{BAR_SECONDS:g} s")
    bars.add_row(f"actions of {REPLAYS:,} exact replays", str(figures["double_actions"]), "0")
    bars.add_row("notices that did not come", str(figures["notices"]["missing"]), "0")
    told = Table(title="Notices in the chat", title_justify="left")
    for title in ("state", "sent", "received"):
        told.add_column(title)
    for state, sent in figures["notices"]["sent"].items():
        told.add_row(state, str(sent), str(figures["notices"]["received"].get(state, 0)))
    return bars, told
