"""Credentials reloaded beside and on a daemon that was adopted: its own files, its own configuration."""

import asyncio
import os
import shutil
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest

from policies.model.adoption import ADOPTED
from policies.model.errors import BadInput, PenstockError, Refused, Unavailable
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.unprepared import Unprepared
from tests.drivers.wire import served
from tests.patience import PATIENCE

pytestmark = ON_A_REAL_GATEWAY


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return each file's bytes and when it was written."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "log"]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


class Host:
    """A daemon with files of its own at its own paths, which asks for client certificates."""

    def __init__(self, lab: GatewayLab) -> None:  # noqa: F811
        self.lab, self.files = lab, lab.root / "own files"
        self.files.mkdir()
        shutil.copy(lab.folder / "ca.pem", self.files)
        self.certify("own")
        self.revoke()
        lab.certify_user(1)
        named = {"server-cert": "own.pem", "server-key": "own.key", "ca-cert": "ca.pem", "crl": "crl"}
        own = {key: str(self.files / name) for key, name in named.items()}
        self.daemon = Unprepared(lab, more="cert-user-oid = 2.5.4.3\n", own={"auth": "certificate", **own})

    def certify(self, name: str, *ends: str) -> str:
        """Make a certificate and key, and put them, or these ends of them, in place; return its SHA-256."""
        made = self.lab.certify(name)
        for end in ends or ("pem", "key"):
            shutil.copy(self.lab.folder / f"{name}.{end}", self.files / f"own.{end}")
            # a file of the second in which it was last read is not read again, and tests are fast
            os.utime(self.files / f"own.{end}", (time.time() + 2, time.time() + 2))
        return made

    def revoke(self) -> None:
        """Write a good list of revoked certificates."""
        self.lab.revoke()
        shutil.copy(self.lab.folder / "crl", self.files / "crl")

    async def person(self) -> Client:
        """Return a user with a session on the daemon, in which it pings."""
        client = await self.lab.client(1, more=self.lab.shown_by(1)).up()
        client.ping(host=9)
        return client

    async def adopt(self) -> None:
        """Take it over as it runs."""
        await self.lab.adoption.adopt(operation("adopt"), ("auth",))


@pytest.fixture
def host(lab: GatewayLab) -> Host:  # noqa: F811
    return Host(lab)


async def test_an_adopted_daemon_takes_its_own_present_files_and_nothing_of_it_is_written(
    lab: GatewayLab,  # noqa: F811
    host: Host,
) -> None:
    person = await host.person()
    await host.adopt()
    slot = await lab.running("1")
    ours = lab.certify("gw")
    own = host.certify("next")
    before = contents(host.files), host.daemon.config.read_bytes()
    done = await lab.slots.reload(operation("reload"), older=False)
    assert sorted(done.slots) == sorted((ADOPTED, slot))
    assert [await served(port) for port in (443, 4431)] == [own, ours]
    assert (contents(host.files), host.daemon.config.read_bytes()) == before
    assert [path.name for path in (lab.root / "slots" / ADOPTED / "conf").iterdir()] == []
    assert host.daemon.process.poll() is None
    assert (await lab.slots.probe(ADOPTED)).passed
    await asyncio.sleep(1)  # however fast all that was, its pings went on for a second
    sent, lost = person.lost()
    assert (sent > 5, lost, person.alive) == (True, 0, True)


def damage(host: Host, how: str) -> None:
    """Make something of the daemon's own such that it may not be told to read it again."""
    match how:
        case "revoked":
            (host.files / "crl").write_text("nothing\n")
        case "other key":
            host.certify("other", "key")
        case "no certificate":
            (host.files / "own.pem").unlink()
        case "no line":
            host.daemon.config.write_text(f"{host.daemon.config.read_text()}nothing\n")
        case _:
            text = host.daemon.config.read_text()
            host.daemon.config.write_text(text.replace("10.90.9.0/24", "10.90.0.0/24"))


TESTED = r"ocserv's own test refuses the daemon's own .*/ocserv.conf on gw-1, or a file that it names: .+"
SAID: dict[str, tuple[type[PenstockError], str]] = {
    "revoked": (
        Refused,
        TESTED,
    ),
    "other key": (BadInput, r"server-key .*/own.key: it is not the key of server-cert .*/own.pem; put the"),
    "no certificate": (
        Refused,
        TESTED,
    ),
    "no line": (BadInput, r".*/ocserv.conf: line \d+ is no `key = value`: nothing"),
    "other pool": (Refused, r".*/ocserv.conf says pool4 10.90.0.0/24, and 10.90.9.0/24 was adopted"),
}


@pytest.mark.sweep
@pytest.mark.parametrize("how", SAID)
async def test_what_would_harm_an_adopted_daemon_is_refused_and_changes_nothing_on_its_gateway(
    lab: GatewayLab,  # noqa: F811
    host: Host,
    how: str,
) -> None:
    person = await host.person()
    await host.adopt()
    slot = await lab.running("1")
    lab.certify("gw")
    before = contents(lab.root / "slots" / slot), await served(4431), await served(443)
    damage(host, how)
    kind, said = SAID[how]
    with pytest.raises(kind, match=f"{said}.*; nothing was changed on gw-1$"):
        await lab.slots.reload(operation("reload"), older=False)
    # a worker reads the list again by itself: new connections are refused as soon as it lies there
    own = before[2] if how == "revoked" else await served(443)
    assert (contents(lab.root / "slots" / slot), await served(4431), own) == before
    assert (host.daemon.process.poll(), person.alive, person.lost()[1]) == (None, True, 0)


@pytest.mark.sweep
async def test_files_with_an_old_time_are_told_of_and_the_slots_beside_take_theirs(
    lab: GatewayLab,  # noqa: F811
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await host.person()
    await host.adopt()
    await lab.running("1")
    ours, own = lab.certify("gw"), host.certify("next")
    for end in ("pem", "key"):
        os.utime(host.files / f"own.{end}", (1e9, 1e9))
    with monkeypatch.context() as impatient:
        impatient.setattr("activities.drivers.daemon.ocserv.served.WITHIN", timedelta(seconds=1))
        with pytest.raises(
            Unavailable, match=r"does not serve its new certificate .*; touch its certificate"
        ):
            await lab.slots.reload(operation("reload"), older=False)
    assert await served(4431) == ours
    for end in ("pem", "key"):
        os.utime(host.files / f"own.{end}", (time.time() + 2, time.time() + 2))
    await lab.slots.reload(operation("reload"), older=False)
    assert await served(443) == own


async def test_a_list_that_cannot_be_read_ends_a_daemon_that_is_told_without_a_look(
    lab: GatewayLab,  # noqa: F811
    host: Host,
) -> None:
    """What the refusals are for."""
    await host.person()
    damage(host, "revoked")
    host.daemon.process.send_signal(signal.SIGHUP)
    assert host.daemon.process.wait(PATIENCE) is not None


async def test_a_daemon_that_ended_meanwhile_is_not_taken_for_one_that_was_told(
    lab: GatewayLab,  # noqa: F811
    host: Host,
) -> None:
    await host.person()
    await host.adopt()
    host.daemon.process.kill()
    host.daemon.process.wait(PATIENCE)
    with pytest.raises(Refused, match=r"adopted on gw-1 has ended, or was started anew: adopt it again;"):
        await lab.slots.reload(operation("reload"), older=False)


async def test_a_reload_says_how_many_removed_users_go_on_at_an_adopted_daemon(lab: GatewayLab) -> None:  # noqa: F811
    """newcomer 14: whom the list does not name any more stayed logged in there, and nothing said so."""
    Unprepared(lab)
    person = await lab.client(1).up()
    person.ping(host=9)
    await lab.adoption.adopt(operation("adopt"), ())
    done = await lab.slots.reload(operation("reload"), older=False)
    assert (done.slots, done.staying) == ((ADOPTED,), 0)
    users = lab.folder / "users"
    users.write_text("".join(line for line in users.open() if not line.startswith("user1:")))
    done = await lab.slots.reload(operation("reload", rollout="r-2", epoch=2), older=False, end_removed=True)
    assert (done.ended, done.staying, person.alive) == (0, 1, True)
