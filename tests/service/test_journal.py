"""What processes say on standard error: with its priority for the journal, alone for people."""

import json
import os
import re
import socket
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

from tests.house.tree import ROOT
from tests.patience import PATIENCE

SAYS = """
import logging
from orchestrator.processes import journal
journal.begin()
logging.getLogger("penstock").warning("the ledger is away")
try:
    raise ValueError("as it was meant to")
except ValueError:
    logging.getLogger("penstock").exception("it failed")
logging.getLogger("penstock").info("nobody needs to know")
"""


def said(to: Path, stream: str | None, program: str = SAYS) -> str:
    """Return what a process writes into this file that is told that the journal reads that stream."""
    with to.open("wb") as file:
        found = os.fstat(file.fileno())
        own = f"{found.st_dev}:{found.st_ino}"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        if stream is not None:
            environment["JOURNAL_STREAM"] = stream.format(own=own)
        subprocess.run(
            [sys.executable, "-c", program], stderr=file, env=environment, check=True, timeout=PATIENCE
        )
    return to.read_text()


def test_every_line_for_the_journal_has_its_priority_a_trace_too(tmp_path: Path) -> None:
    lines = said(tmp_path / "log", "{own}").splitlines()
    assert lines[:2] == ["<4>the ledger is away", "<3>it failed"]
    assert lines[-1] == "<3>ValueError: as it was meant to"
    assert all(re.match(r"<[34]>", line) for line in lines)


def test_a_terminal_or_another_file_gets_the_lines_alone(tmp_path: Path) -> None:
    for stream in (None, "1:1", "nonsense"):
        assert said(tmp_path / "log", stream).startswith("the ledger is away\nit failed\n")


RUNS = """
import logging, sys, types
from orchestrator.cli import process
async def main(): logging.getLogger("penstock").warning("as every process says it")
sys.modules["orchestrator.processes.stranger"] = types.SimpleNamespace(main=main)
process.run("stranger")
"""


def test_whatever_the_command_line_runs_says_warnings_with_their_priority(tmp_path: Path) -> None:
    assert said(tmp_path / "log", "{own}", RUNS) == "<4>as every process says it\n"


CONNECTS = """
import asyncio, os, sys, types
import grpc
from orchestrator.cli import process
class Empty(grpc.GenericRpcHandler):
    def service(self, call):
        async def answer(request, context): return b""
        return grpc.unary_unary_rpc_method_handler(answer)
async def main():
    from activities.instances import InstanceActivities
    from orchestrator.engine.client import connect
    from orchestrator.processes.process import make_worker
    engine = grpc.aio.server(handlers=[Empty()])
    address = f"127.0.0.1:{engine.add_insecure_port('127.0.0.1:0')}"
    await engine.start()
    steps = [InstanceActivities(None).observe_gateway]
    await make_worker(await connect(address, "default"), "q", activities=steps).run()
sys.modules["orchestrator.processes.stranger"] = types.SimpleNamespace(main=main)
process.run("stranger")
"""


def test_what_the_engines_client_says_has_no_colours_where_no_terminal_shows_them() -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CONNECTS]
    said = list[str]()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            said.append(line)
            if "WARN temporalio_sdk_core" in line:
                break  # it warns of an engine that says nothing of itself
        process.kill()
    assert "WARN temporalio_sdk_core" in said[-1]
    assert "\x1b" not in "".join(said)


TELLS = """
import logging, pathlib, sys
from orchestrator.processes import journal
logging.getLogger().addHandler(journal.Told(pathlib.Path(sys.argv[1])))
journal.LABELS.set({"VPN_CHANGE": "edge-7", "VPN_GATEWAY": "gw-1"})
try:
    raise ValueError("as it was meant to")
except ValueError:
    logging.getLogger("penstock.tried").exception("it failed")
"""


def told(path: Path) -> str:
    """Return what a process writes to standard error that tells its log to the journal at this socket."""
    command = [sys.executable, "-c", TELLS, str(path)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    return done.stderr


def test_an_entry_of_the_journal_says_whose_it_is_and_keeps_its_trace_in_one(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "socket"))
        assert told(tmp_path / "socket") == ""
        entry = journald.recv(100_000)
    name, _, rest = entry.partition(b"\n")
    length = int.from_bytes(rest[:8], "little")
    trace, fields = rest[8 : 8 + length].decode(), rest[8 + length :].decode().strip().splitlines()
    assert (name, trace.splitlines()[0], trace.splitlines()[-1]) == (
        b"MESSAGE",
        "it failed",
        "ValueError: as it was meant to",
    )
    assert fields == [
        "PRIORITY=3",
        "SYSLOG_IDENTIFIER=penstock",
        "LOGGER=penstock.tried",
        "VPN_CHANGE=edge-7",
        "VPN_GATEWAY=gw-1",
    ]


def test_what_the_journal_does_not_take_is_said_on_standard_error(tmp_path: Path) -> None:
    assert told(tmp_path / "none").splitlines()[0] == "<3>it failed"


SAYS_JSON = """
import logging
from orchestrator.processes import journal
journal.begin()
journal.LABELS.set({"VPN_CHANGE": "edge-7", "VPN_FLEET": "edge", "VPN_GATEWAY": "gw-1", "VPN_STEP": "probe"})
journal.TRACE.set("ab" * 16)
log = logging.getLogger("penstock")
log.warning("daemon said %s", b"a\\nb\\x1b[31m\\xff\\r\\x00".decode(errors="surrogateescape") + chr(0x2028))
log.warning("%d of what", "nothing")
try:
    raise ValueError("as it\\nwas meant to")
except ValueError:
    log.exception("it failed")
"""


def as_json(form: str, program: str = SAYS_JSON) -> "subprocess.CompletedProcess[str]":
    """Return how a process ended that writes its log in this form."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PENSTOCK_LOG": form}
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_each_entry_is_one_json_object_in_one_line_whatever_is_in_it() -> None:
    lines = as_json("json").stderr.split("\n")
    assert lines.pop() == ""
    first, wrong, failed = (json.loads(line) for line in lines)
    assert datetime.fromisoformat(first.pop("time")).utcoffset() == timedelta(0)
    assert first == {
        "level": "warning",
        "logger": "penstock",
        "message": "daemon said a\nb\x1b[31m?\r\x00\u2028",
        "change": "edge-7",
        "fleet": "edge",
        "gateway": "gw-1",
        "step": "probe",
        "trace_id": "ab" * 16,
    }
    assert "nothing" in wrong["message"]
    assert failed["exception"].endswith("ValueError: as it\nwas meant to")


def test_a_form_of_the_log_that_there_is_not_is_refused() -> None:
    done = as_json("xml")
    assert done.returncode != 0
    assert "PENSTOCK_LOG is 'xml': write json" in done.stderr
