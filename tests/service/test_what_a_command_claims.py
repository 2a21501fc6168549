"""A command reports that nothing is stored only where that is certain, and else how to check and repeat."""

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio.client import Client
from temporalio.service import RPCStatusCode

from orchestrator.cli import client
from orchestrator.processes.api import serving
from orchestrator.processes.listening import port_at
from orchestrator.service.changes import ChangeService
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.command import Command, CommandKind, CommandReceipt
from policies.model.errors import NotOrdered, Unavailable
from policies.model.people import Role
from tests.patience import PATIENCE
from tests.service.test_api import token
from tests.workflows.test_growth import BACK, DeafEngine

LATER = client.STOP_SECONDS + 1
"""Seconds after which the API knows its caller, as on a busy host."""

HOLD = ("hold", "edge", "--reason", "it hurts")


class Penstock:
    """The command line of an operator who reaches the API by a URL."""

    def __init__(self, port: int, token: str = "pst_none") -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.fspath(Path.cwd()),
            "PENSTOCK_URL": f"http://127.0.0.1:{port}",
            "PENSTOCK_TOKEN": token,
        }

    async def __call__(self, *arguments: str) -> tuple[int | None, str]:
        """Return the code with which the command ends, and its errors."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator", *arguments),
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        return process.returncode, errors.decode()


@pytest.mark.sweep
async def test_an_order_that_is_carried_out_after_the_command_has_ended_is_not_called_not_done(
    service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = list[str]()
    recognise = service.caller_of_token
    delays = [LATER]
    done = asyncio.Event()

    async def slow(secret: str, address: str) -> Any:
        await asyncio.sleep(delays.pop() if delays else 0)
        return await recognise(secret, address)

    async def command(_: ChangeService, fleet: str, order: Command) -> CommandReceipt:
        assert (order.kind, fleet) == (CommandKind.HOLD, "edge")
        ids.append(order.id)
        done.set()
        return CommandReceipt(id=order.id, accepted=True, sentence="done")

    monkeypatch.setattr(service, "caller_of_token", slow)
    monkeypatch.setattr(ChangeService, "command", command)
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    shown = token(ledger, Role.OPERATOR)["Authorization"].removeprefix("Bearer ")
    penstock = Penstock(at.getsockname()[1], shown)
    async with serving(service, at):
        code, errors = await penstock(*HOLD)
        assert (code, ids) == (1, [])
        assert "UNKNOWN whether this is stored" in errors
        assert "Check: penstock status edge" in errors
        assert "nothing is stored" not in errors
        repeat = re.search(r"add (--id) (\w+)\.", errors)
        assert repeat is not None, errors
        await asyncio.wait_for(done.wait(), PATIENCE)
        assert (await penstock(*HOLD, *repeat.groups()))[0] == 0
    assert len({*ids}) == 1, "the engine carries out once what has one id"


@asynccontextmanager
async def ends_every_connection() -> AsyncIterator[int]:
    """Read a request at the port that this yields, and end its connection without an answer."""

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(end, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("verb", ["hold", "rollback"])
async def test_a_command_whose_connection_ends_without_an_answer_does_not_call_its_order_not_done(
    verb: str,
) -> None:
    async with ends_every_connection() as port:
        code, errors = await Penstock(port)(verb, "edge", "--reason", "it hurts")
    assert (code, "UNKNOWN whether this is stored" in errors) == (1, True), errors


async def test_any_request_that_got_no_answer_is_reported_as_unknown_with_the_id_that_repeats_it() -> None:
    async with ends_every_connection() as port:
        _, resumed = await Penstock(port)("resume", "edge", "--reason", "it is well")
        _, created = await Penstock(port)("release", "yank", "1.1.6", "--reason", "it hurts")
        _, listed = await Penstock(port)("status", "edge")
    assert re.search(r"unknown whether the request is carried out.* add --id \w+$", resumed.strip()), resumed
    assert "unknown whether the request is carried out" in created
    assert "--id" not in created
    assert "unknown" not in listed


async def test_an_order_that_reached_no_api_is_not_stored_unless_an_earlier_one_had_its_id() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        penstock = Penstock(free.getsockname()[1])
    assert "NOT DONE, nothing is stored" in (await penstock(*HOLD))[1]
    repeated = (await penstock(*HOLD, "--id", "k1"))[1]
    assert "UNKNOWN whether this is stored" in repeated
    assert "add --id k1." in repeated


async def test_an_order_that_the_engine_has_not_answered_in_time_is_not_called_not_ordered() -> None:
    """The engine may have taken it before it fell silent."""
    hold = BACK.model_copy(update={"kind": CommandKind.HOLD})

    async def given(*answers: RPCStatusCode) -> Unavailable:
        with pytest.raises(Unavailable) as found:
            await ChangeService(cast(Client, DeafEngine(*answers)), cast(Ledger, None)).command("edge", hold)
        return found.value

    gone, late = RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED
    assert isinstance(await given(gone, gone), NotOrdered)
    for answers in ((late, gone), (gone, late), (late, late)):
        unknown = await given(*answers)
        assert not isinstance(unknown, NotOrdered)
        assert "the order may be stored" in str(unknown)


async def test_a_rollback_is_repeated_by_its_id_though_its_preview_has_changed_since(
    service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first one has done changes the preview; it is the same order."""
    ordered = list[str]()

    async def roll_back(*_: object, reason: str = "", **named: Any) -> CommandReceipt:
        ordered.append(named["shown"])
        return CommandReceipt(id="1", accepted=True, sentence="done")

    monkeypatch.setattr(service, "roll_back", roll_back)
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    shown = token(ledger, Role.OPERATOR)["Authorization"].removeprefix("Bearer ")
    async with serving(service, at):
        api = client.Api(f"http://127.0.0.1:{at.getsockname()[1]}", shown)
        for preview in (f"sha256:{digit * 64}" for digit in "ab"):
            body = {"kind": "roll_back", "reason": "it hurts", "shown": preview}
            receipt = await asyncio.to_thread(api.post, "fleets", "edge", "commands", body=body, key="k1")
            assert receipt["sentence"] == "done"
    assert ordered == [f"sha256:{'a' * 64}"]
