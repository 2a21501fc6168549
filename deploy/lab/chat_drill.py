"""A way back that is ordered in a chat, rehearsed: a real homeserver, a real chat process, a typed code."""

import asyncio
import time
from datetime import UTC, datetime

from deploy.lab.chat_room import PERSON, LabRoom, chat_room
from deploy.lab.lab import FLEET, Lab
from deploy.lab.rehearsal import Rehearsal, Trial, map_of, step, told
from deploy.lab.topology import Host
from policies.model.change import Outcome, Phase
from policies.model.drill import DrillStep
from policies.model.errors import Unavailable

REASON = "it is rehearsed"
LOOK_EVERY = 0.1
PATIENCE = 60.0


async def rollback_by_chat(lab: Lab, rehearsal: Rehearsal) -> list[DrillStep]:
    """Have somebody in a room take a canary back; every step counts from the first word that is typed.

    Nobody thinks in between: the code is sent as soon as it is read.
    """
    async with chat_room(lab) as room:
        trial = await rehearsal.on_trial(lab.newer, "drill")
        host = next(host for host in lab.topology.gateways if host.name == trial.gateway)
        if not map_of(host, "trial"):
            raise Unavailable(
                f"{trial.gateway} gives no new session to the newer release: nothing can go back"
            )
        began = datetime.now(UTC)
        code = await room.asks_for_code(f"rollback {FLEET} {REASON}")
        given = step("the chat gives a code", datetime.now(UTC), began)
        kernel = asyncio.create_task(_new_sessions_go_back(host, began))
        try:
            steps = [given, *await _confirmed(room, rehearsal, trial, code, began), await kernel]
        finally:
            kernel.cancel()
    return sorted(steps, key=lambda one: one.seconds)


async def _confirmed(
    room: LabRoom, rehearsal: Rehearsal, trial: Trial, code: str, began: datetime
) -> list[DrillStep]:
    """Send the code; return what the chat and the change say of it."""
    _, answer = await room.asks(f"confirm {code}")
    if not answer.body.startswith("Started "):
        raise Unavailable(f"the chat does not roll back: {answer.body}")
    started = step("the chat says that it has started", answer.at, began)
    status = await rehearsal.until(lambda seen: seen.phase is Phase.ENDED)
    if status.outcome is not Outcome.ROLLED_BACK or not status.why.startswith(f"{PERSON}: "):
        raise Unavailable(f"it is not the order of the chat by which it ended: {status.what}; {status.why}")
    back = told(status, began, back=f"{trial.gateway} back on known-good")
    return [started, *back]


async def _new_sessions_go_back(host: Host, began: datetime) -> DrillStep:
    """Read from the canary's kernel, again and again, until new sessions go to its known-good."""
    deadline = time.monotonic() + PATIENCE
    while await asyncio.to_thread(_is_on_trial, host):
        if time.monotonic() > deadline:
            raise Unavailable(f"{host.name} still gives new sessions to the newer release")
        await asyncio.sleep(LOOK_EVERY)
    return step("the kernel sends new sessions back", datetime.now(UTC), began)


def _is_on_trial(host: Host) -> bool:
    """Say whether a new session may meet the newer release; a table that cannot be read proves nothing."""
    return map_of(host, "trial") or not map_of(host, "steer")
