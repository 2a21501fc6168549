"""The examples of hooks when what they steer is silent: simulated ones, without a lab."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from activities.drivers.programs import Completed, run
from activities.drivers.steering.hook import WITHIN, document
from activities.drivers.steering.switch import Switch
from policies.model.fleet import Gateway
from tests.drivers.gateway_lab import gateway

EXAMPLES = Path(__file__).parents[2] / "deploy/examples"
BIRDC = """#!/bin/sh
case "$*" in
*timeout*) exec sleep 20 ;;
*configure*) echo Reconfigured ;;
esac
"""
TRIAL = Switch(steer="a").on_trial("b", timedelta(seconds=30), share=100, seed=1)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for a socket's."""
    with TemporaryDirectory(prefix="pse") as name:
        yield Path(name)


async def called(folder: Path, name: str, **places: str) -> Completed:
    """Write a trial of slot b by that example with its files at these places, as the packaged agent does."""
    program = (EXAMPLES / f"steering-hook-{name}").read_text()
    for key, place in places.items():
        program, changed = re.subn(rf"^{key} = .*$", f"{key} = {place}", program, flags=re.MULTILINE)
        assert changed == 1
    hook = folder / "steer"
    hook.write_text(program)
    hook.chmod(0o700)
    slots = [
        slot.model_copy(update={"users_at": f"10.78.{number}.1"})
        for number, slot in enumerate(gateway().slots, 1)
    ]
    changes = {"steering": "hook", "slots": tuple(slots), "addresses": (ip_address("10.77.0.1"),)}
    told = document(Gateway.model_validate(gateway().model_copy(update=changes).model_dump()), TRIAL)
    return await run(
        ["sh", "-c", f"umask 077; PATH={folder}:$PATH exec {hook} write"], json.dumps(told), within=WITHIN
    )


@contextmanager
def silent(listening: socket.socket, place: tuple[str, int] | str) -> Iterator[None]:
    """Take connections there, and say nothing."""
    with listening:
        listening.bind(place)
        listening.listen()
        yield


async def test_a_bird_that_is_silent_is_told_and_what_holds_after_a_trial_is_on_the_disk(
    folder: Path,
) -> None:
    (folder / "birdc").write_text(BIRDC)
    (folder / "birdc").chmod(0o700)
    done = await called(folder, "bird", FOLDER=f'Path("{folder}")')
    assert (done.status, done.err.strip()) == (1, "BIRD has not answered within 1 s")
    kept = folder / "penstock-gw-1.conf"
    assert kept.read_text().count("preference = 200") == 1
    assert "preference = 250" not in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o644


async def test_an_envoy_that_is_silent_is_told_and_can_read_what_was_written(folder: Path) -> None:
    admin = folder / "admin.sock"
    for part in ("serving", "trial"):
        (folder / f"gw-1.{part}").mkdir()
    with silent(socket.socket(socket.AF_UNIX), str(admin)):
        done = await called(folder, "envoy", FOLDER=f'Path("{folder}")', ADMIN=f'"{admin}"')
    assert (done.status, done.err.strip()) == (1, "Envoy: timed out")
    for part in ("serving", "trial"):
        assert (folder / f"gw-1.{part}/endpoints.json").stat().st_mode & 0o777 == 0o644


async def test_a_powerdns_that_is_silent_is_told(folder: Path) -> None:
    (folder / "key").write_text("secret")
    listening = socket.socket()
    with silent(listening, ("127.0.0.1", 0)):
        place = listening.getsockname()
        done = await called(folder, "powerdns", API=repr(place), KEY=f'Path("{folder}/key")')
    assert (done.status, done.err.strip()) == (1, "PowerDNS: timed out")
