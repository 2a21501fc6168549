"""What a command claims of an order when the API took longer to answer than the command waits."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.processes.api import serving
from orchestrator.processes.listening import port_at
from orchestrator.service.changes import ChangeService
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.command import Command, CommandReceipt
from policies.model.people import Role
from tests.service.test_api import token


async def test_an_order_that_is_carried_out_after_the_command_has_given_up_is_not_called_not_done(
    service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API has the whole order by then, and goes on with it: nobody may be told that nothing is stored."""
    given: list[str] = []
    recognise = service.caller_of_token

    async def slowly(shown: str, caller_at: str) -> Any:
        await asyncio.sleep(12)  # as behind strangers' logins, or on a busy host
        return await recognise(shown, caller_at)

    async def command(_: ChangeService, fleet: str, said: Command) -> CommandReceipt:
        given.append(f"{said.kind} {fleet}")
        return CommandReceipt(id=said.id, accepted=True, sentence="done")

    monkeypatch.setattr(service, "caller_of_token", slowly)
    monkeypatch.setattr(ChangeService, "command", command)
    shown = token(ledger, Role.OPERATOR)["Authorization"].removeprefix("Bearer ")
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.fspath(Path.cwd()),
        "PENSTOCK_URL": f"http://127.0.0.1:{at.getsockname()[1]}",
        "PENSTOCK_TOKEN": shown,
    }
    async with serving(service, at):
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator", "hold", "edge", "--reason", "it hurts"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        print(f"{time.monotonic() - began:.1f} s", process.returncode, out.decode(), err.decode(), given)
        assert not given
        await asyncio.sleep(8)
    assert given == ["hold edge"]
    assert b"nothing is stored" not in err
