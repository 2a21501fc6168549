"""Long work: what callers of lower rights may make the API do, and that it ends with them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from activities import files
from activities.files import parse
from orchestrator.processes.api import serving, socket_at
from orchestrator.service import foreign_files
from orchestrator.service.background import LOOKS, MOST_OF_ONE, Pool
from orchestrator.service.foreign_files import read
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.desired import Compared, Text, Upgrade
from policies.model.errors import BadInput, TooMany
from policies.model.people import Role
from tests.patience import PATIENCE
from tests.service.test_api import token


def unknown_keys(count: int) -> str:
    return "{" + ",".join(f"k{number:x}: 1" for number in range(count)) + "}"


@pytest.fixture
async def place(tmp_path: Path, service: Service) -> AsyncIterator[Path]:
    path = tmp_path / "penstock.sock"
    async with serving(service, socket_at(path)):
        yield path


def client(place: Path, shown: dict[str, str] | None = None) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=os.fspath(place), verify=False)
    headers = {"Idempotency-Key": "k"} | (shown or {})
    return httpx.AsyncClient(transport=transport, base_url="http://p/v1", headers=headers, timeout=PATIENCE)


def test_the_causes_among_ten_thousand_mistakes_are_found_in_one_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S1: each error was compared with every other one."""
    compared = 0

    class Counted(tuple[str | int, ...]):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

        __hash__ = tuple.__hash__

    causes = files._causes

    def counting(errors: list[dict[str, object]], lines: object) -> object:
        wrapped = [{**error, "loc": Counted(error["loc"])} for error in errors]  # type: ignore[arg-type]
        return causes(wrapped, lines)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "_causes", counting)
    with pytest.raises(BadInput, match=r"the file has no key k0; .* \(1000. more after this one\)"):
        parse(unknown_keys(10_000), "upgrade.yaml", Upgrade)
    assert compared < 100_000


@pytest.mark.sweep
def test_a_mapping_or_file_of_more_keys_than_any_real_one_is_refused() -> None:
    """S1: the number of keys had no bound but the file's length."""
    with pytest.raises(BadInput, match="more than 10000 keys"):
        parse(unknown_keys(10_001), "upgrade.yaml", Upgrade)
    many = "gateways:\n" + "- [" + "1," * 600_000 + "1]\n" + "- [" + "1," * 600_000 + "1]\n"
    with pytest.raises(BadInput, match="more than 1000000 values"):
        parse(many, "fleet.yaml", Upgrade)


async def test_a_viewers_file_is_refused_before_it_is_parsed(
    place: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1: the file of an upgrade was parsed for everybody who may look at the fleet."""

    def never(*_: object) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(foreign_files, "read", never)
    shown = token(ledger, Role.VIEWER)
    asked = {"file": {"path": "u", "text": unknown_keys(10)}}
    async with client(place, shown) as viewer:
        answer = await viewer.post("/fleets/edge/upgrade", json=asked)
        assert (answer.status_code, "that takes operator or ci" in answer.text) == (403, True)
        answer = await viewer.post("/fleets/core/desired/diff", content=b"[" * 100)
        assert answer.status_code == 404, answer.text
        answer = await viewer.post("/fleets/edge/description", content=b"[" * 100)
        assert answer.status_code == 403, answer.text


async def test_a_request_of_thousands_of_unknown_keys_is_refused_without_naming_each(place: Path) -> None:
    """S1, the same kind: a model reports each key that it does not know, for seconds on the event loop."""
    async with client(place) as root:
        body = json.dumps(dict.fromkeys(map(str, range(10_000)), 0))
        answer = await root.post("/fleets/edge/commands", content=body)
        assert (answer.status_code, "at most 64 keys" in answer.text) == (422, True)
        answer = await root.post("/fleets/edge/commands", content=b'{"a":' * 20_000)
        assert answer.status_code == 422, answer.text
        answer = await root.post("/fleets/edge/commands", json={"kind": "hold", "reason": "a: b" * 100})
        assert answer.status_code == 503, answer.text  # without an engine, and not for its many colons


def reading() -> list[int]:
    """Return the processes under this one that read foreign files."""
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            line, status = (one / "cmdline").read_bytes(), (one / "stat").read_text()
        except OSError:
            continue
        if (
            b"orchestrator.service.foreign_files" in line
            and int(status.rpartition(")")[2].split()[1]) == os.getpid()
        ):
            found.append(int(one.name))
    return found


async def until(wanted: bool) -> list[int]:
    async with asyncio.timeout(PATIENCE):
        while bool(found := reading()) is not wanted:  # noqa: ASYNC110 - another process begins and ends
            await asyncio.sleep(0.02)
    return found


async def test_a_comparison_ends_with_its_caller_and_holds_go_on_meanwhile(
    place: Path, ledger: Ledger
) -> None:
    """S1b: two comparisons took both threads for long work for hours after the client had gone."""
    shown = token(ledger, Role.VIEWER)
    asked = {"description": {"path": "d", "text": "[" + "1," * 8_000_000 + "1]"}}
    async with client(place, shown) as viewer, client(place) as root:
        comparing = asyncio.create_task(viewer.post("/fleets/edge/desired/diff", json=asked))
        pid = (await until(True))[0]
        os.kill(pid, signal.SIGSTOP)  # as one that takes hours
        assert (await root.get("/fleets/edge")).status_code == 200
        assert not comparing.done()
        comparing.cancel()
        await until(False)
        small = {"description": {"path": "d", "text": "a: 1"}}
        assert (await viewer.post("/fleets/edge/desired/diff", json=small)).status_code == 400


def test_the_kernel_ends_a_process_that_reads_a_callers_file_before_the_api() -> None:
    command, nothing = [sys.executable, "-m", "orchestrator.service.foreign_files"], subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing) as reads:
        score, end = Path(f"/proc/{reads.pid}/oom_score_adj"), time.monotonic() + PATIENCE
        while score.read_text() != "1000\n" and time.monotonic() < end:
            time.sleep(0.02)
        found = score.read_text()
        reads.kill()
    assert found == "1000\n"


async def test_a_verification_of_the_record_ends_with_its_caller(
    place: Path, service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1b: whatever takes long ends with its caller, not only comparisons."""
    begun, ended, rows = threading.Event(), threading.Event(), ledger.each_audit_row

    def endless() -> object:
        begun.set()
        try:
            while True:
                time.sleep(0.01)
                yield from rows()
                yield {}
        finally:
            ended.set()

    monkeypatch.setattr(service.audit.checkpoints, "_ledger", ledger)
    monkeypatch.setattr(ledger, "each_audit_row", endless)
    monkeypatch.setattr(
        "orchestrator.service.checkpoints.first_fault", lambda entries, *_: [*entries] and None
    )
    async with client(place) as root:
        verifying = asyncio.create_task(root.post("/audit/verify"))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        verifying.cancel()
        assert await asyncio.to_thread(ended.wait, PATIENCE)


async def test_long_work_of_one_person_leaves_places_to_others() -> None:
    """S1b: the work of one viewer delayed everybody's."""
    pool, free = Pool("test", 2), threading.Event()
    held = [asyncio.create_task(pool.run(free.wait, "vera")) for _ in range(MOST_OF_ONE)]
    await asyncio.sleep(0)
    with pytest.raises(TooMany, match="vera has 4 long requests under way"):
        await pool.run(free.wait, "vera")
    other = asyncio.create_task(pool.run(lambda: "done", "olga"))
    await asyncio.sleep(0)
    free.set()
    assert await other == "done"
    await asyncio.gather(*held)
    assert await pool.run(lambda: "again", "vera") == "again"


def test_a_file_is_read_alike_in_this_process_and_in_its_own() -> None:
    """S1b: long files are read in a process of their own; nobody can tell from the answer."""
    for text in ("kind: Upgrade\nfleeet: edge\n", "a: [1, 2", ""):
        body = Compared(upgrade=Text(path="u.yaml", text=text)).model_dump_json().encode()
        own = foreign_files._Reading(body + b" " * foreign_files.SMALL)
        assert own() == read(body)
    assert read(b"{}").malformed is None
    malformed = foreign_files._Reading(b'{"description": 1' + b" " * foreign_files.SMALL)()
    assert malformed.malformed is not None


async def test_a_file_that_takes_too_much_memory_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1b: what a caller sends takes bounded memory."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    body = Compared(upgrade=Text(path="u.yaml", text="x" * foreign_files.SMALL)).model_dump_json().encode()
    with pytest.raises(BadInput, match="to read; check that they are the files you mean"):
        await foreign_files.read_body(body, LOOKS, "vera")
