"""Chat: the same message that arrives several times in one moment is carried out once."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import httpx

from orchestrator.store.ledger import Ledger
from tests.service.chat_rooms import Process, code_in
from tests.service.test_chat import ledger, room
from tests.service.test_safe_direction import Night, night
from tests.workflows.conftest import engines, server  # noqa: F401 - fixtures

__all__ = ["ledger", "night", "room"]

AT_ONCE = 12


async def test_a_message_that_comes_many_times_in_one_moment_is_carried_out_once(
    night: Night, room: Process, ledger: Ledger
) -> None:
    same: dict[str, object] = {"message": uuid4().hex, "at": datetime.now(UTC).isoformat()}
    answers = await asyncio.gather(*(room.say("ana", "hold edge", **same) for _ in range(AT_ONCE)))
    done = [one for one in answers if one.status == httpx.codes.OK]
    assert sum(not one.repeated for one in done) == 1
    assert {one.refused for one in answers if one.status != httpx.codes.OK} <= {"Conflict"}
    assert len(await night.heard()) == 1
    again = await room.say("ana", "hold edge", **same)
    assert again.repeated
    assert again.lines == done[0].lines

    assert sum(entry.action == "hold asked for" for entry in ledger.audit_entries()) == 1


async def test_a_code_that_is_said_many_times_in_one_moment_rolls_back_once(
    night: Night, room: Process
) -> None:
    code = code_in(await room.say("ana", "rollback edge it hurts"))
    answers = await asyncio.gather(*(room.say("ana", f"confirm {code}") for _ in range(AT_ONCE)))
    assert sum(one.begun == "rollback" for one in answers) == 1
    assert len(await night.heard()) == 1
