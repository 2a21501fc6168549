"""An agent looks after its certificate on a host that runs out of what it needs, or has a wrong clock."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.enrolment import renewal
from orchestrator.enrolment.authority import Authority
from orchestrator.enrolment.host import HostFiles
from orchestrator.enrolment.renewal import Renewal, ask_for_the_next
from policies.model.errors import NotAllowed, Unavailable
from tests.patience import PATIENCE, until
from tests.relay.installation import issued

REFUSED = NotAllowed.exit_code


def host_of(folder: Path) -> HostFiles:
    return HostFiles("edge", "gw-1", folder / "agent.pem", folder / "agent.key", folder / "authority.pem")


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


async def test_a_host_that_cannot_start_a_process_asks_for_its_certificate_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(renewal, "LOOK", timedelta(0))
    monkeypatch.setattr(renewal, "AGAIN", timedelta(0))
    monkeypatch.setattr("sys.executable", str(tmp_path / "absent"))
    files, asked, often = host_of(tmp_path), 0, asyncio.Event()
    files.certificate.write_bytes(issued(Authority.open(tmp_path / "a"), "gw-1", timedelta(0)).certificate)
    os.utime(files.certificate, (0, 0))

    async def ask() -> None:
        nonlocal asked
        asked += 1
        if asked >= 2:
            often.set()
        await ask_for_the_next(tmp_path / "agent.yaml")

    async def connected() -> None:
        raise AssertionError("no other certificate has come")

    keeping = asyncio.create_task(Renewal(files, ask).keep(connected, lambda client: None))  # type: ignore[arg-type]
    try:
        await asyncio.wait_for(often.wait(), PATIENCE)
        assert "cannot be started here" in caplog.text
    finally:
        keeping.cancel()


async def test_a_process_that_hangs_while_it_asks_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "ASKED_WITHIN", timedelta(milliseconds=200))
    monkeypatch.setattr("sys.executable", program(tmp_path / "hangs", "exec sleep 60"))
    with pytest.raises(Unavailable, match="did not end within"):
        await ask_for_the_next(tmp_path / "agent.yaml")


async def test_what_the_process_that_asks_says_is_why_there_is_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", program(tmp_path / "fails", "echo 'no room' >&2; exit 1"))
    with pytest.raises(Unavailable, match="no room"):
        await ask_for_the_next(tmp_path / "agent.yaml")


async def test_an_agent_asks_no_relay_every_quarter_of_an_hour_for_what_it_may_not_renew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(renewal, "LOOK", timedelta(0))
    monkeypatch.setattr(renewal, "AGAIN", timedelta(0))
    authority = Authority.open(tmp_path / "a")
    files, asked, taken = host_of(tmp_path), 0, asyncio.Event()
    monkeypatch.setattr(
        "sys.executable", program(tmp_path / "refused", f"echo 'not from this authority' >&2; exit {REFUSED}")
    )

    def put() -> None:
        files.certificate.write_bytes(issued(authority, "gw-1", timedelta(0)).certificate)
        os.utime(files.certificate, (0, 0))

    async def ask() -> None:
        nonlocal asked
        asked += 1
        await ask_for_the_next(tmp_path / "agent.yaml")

    async def connected() -> None:
        taken.set()

    put()
    keeping = asyncio.create_task(
        Renewal(files, ask).keep(connected, lambda client: None)  # type: ignore[arg-type]
    )
    try:
        await until(lambda: "is asked for again in 6:00:00" in caplog.text)
        for _ in range(100):  # looks at the file, none of which takes any time here
            await asyncio.sleep(0)
        assert asked == 1
        put()
        await until(lambda: asked == 2)
        assert taken.is_set()
    finally:
        keeping.cancel()
