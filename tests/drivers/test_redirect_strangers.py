"""Strangers who take all the connections of a HAProxy that redirects: a real one, on loopback."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from activities.drivers.daemon.port import Session
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.steering import redirect
from activities.drivers.steering.haproxy_socket import HaproxySocket
from activities.drivers.steering.haproxy_steering import FOLDER, HaproxySteering
from activities.drivers.steering.orders import SteeringOrders
from activities.drivers.steering.port import Means
from activities.drivers.steering.redirect import redirect_of
from deploy.ports import free_port
from policies.model.errors import Conflict
from policies.model.fleet import Gateway
from tests.drivers.front_lab import why_not_here
from tests.drivers.gateway_lab import gateway, operation
from tests.patience import PATIENCE, until

pytestmark = pytest.mark.skipif(why_not_here() is not None, reason="needs haproxy")
LEASE = timedelta(minutes=5)
CONNECTIONS, PER_SOURCE = 300, 60


class Redirected:
    """A gateway whose slots a and b run, and a HAProxy that redirects to them."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        own = {"addresses": ["127.0.0.1"], "port": self.port, "steering": "redirect"}
        plain = Gateway.model_validate(gateway().model_dump() | own)
        key, certificate = certified(folder)

        async def live(within: timedelta) -> Mapping[str, tuple[Session, ...] | None]:
            return {"a": (), "b": ()}

        journal = Journal(folder / "journal.jsonl", HostBounds("gw-1"))
        orders = SteeringOrders(plain, journal, live, folder / "steering.json")
        shown = {"certificate": certificate.read_text, "key": key.read_text}
        self.haproxy = HaproxySocket(folder / FOLDER / "haproxy.sock", "gw-1")
        self.steering: HaproxySteering = redirect_of(orders, Means(folder, credentials=shown))

    def strangers(self, count: int, *sources: str) -> list[socket.socket]:
        """Make so many connections that say nothing, from each of the sources in turn; return those taken."""
        made = []
        for number in range(count):
            stranger = socket.socket()
            stranger.settimeout(PATIENCE)
            stranger.bind((sources[number % len(sources)], 0))
            with suppress(ConnectionResetError):
                stranger.connect(("127.0.0.1", self.port))
                made.append(stranger)
        return made


def certified(folder: Path) -> tuple[Path, Path]:
    key, certificate, template = (folder / f"gw.{kind}" for kind in ("key", "pem", "cfg"))
    template.write_text("expiration_days = 2\ntls_www_server\n")
    make = ["certtool", "--generate-privkey", "--ecc", "--outfile", str(key)]
    sign = ["certtool", "--generate-self-signed", "--load-privkey", str(key), "--template", str(template)]
    for command in (make, [*sign, "--outfile", str(certificate)]):
        subprocess.run(command, check=True, capture_output=True)
    return key, certificate


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for a socket's."""
    with TemporaryDirectory(prefix="pst") as name:
        yield Path(name)


@pytest_asyncio.fixture(loop_scope="function")
async def redirected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Redirected]:
    """A gateway that serves in slot a, and has fewer connections than a real one."""
    monkeypatch.setattr(redirect, "MOST_CONNECTIONS", CONNECTIONS)
    monkeypatch.setattr(redirect, "MOST_PER_SOURCE", PER_SOURCE)
    made = Redirected(folder)
    try:
        await made.steering.make_permanent(operation("keep"), "a")
        yield made
    finally:
        await made.steering.remove()


async def test_strangers_who_have_all_connections_keep_no_agent_from_steering(
    redirected: Redirected, caplog: pytest.LogCaptureFixture
) -> None:
    held = redirected.strangers(CONNECTIONS + 20, *(f"127.0.1.{number}" for number in range(1, 11)))

    async def are_all_taken() -> bool:
        said = (await redirected.haproxy.ask("show stat")).splitlines()
        return any(line.startswith(f"users,FRONTEND,,,{CONNECTIONS},") for line in said)

    try:
        await until(are_all_taken)
        trial = await redirected.steering.start_trial(operation("trial"), "b", LEASE)
        assert (trial.serving, trial.trial) == ("a", "b")
        assert "has no connection left for users" in caplog.text
        back = await redirected.steering.end_trial(operation("back"))
        assert (back.serving, back.trial) == ("a", None)
    finally:
        for stranger in held:
            stranger.close()


async def test_a_stranger_at_one_address_has_no_more_than_its_share_of_the_connections(
    redirected: Redirected, caplog: pytest.LogCaptureFixture
) -> None:
    held = await asyncio.to_thread(redirected.strangers, CONNECTIONS + 20, "127.0.1.1")
    try:
        await until(lambda: sum(not was_closed(stranger) for stranger in held) <= PER_SOURCE)
        await asyncio.sleep(0.2)
        assert sum(not was_closed(stranger) for stranger in held) == PER_SOURCE
        assert (await redirected.steering.make_permanent(operation("keep new"), "b")).serving == "b"
        assert "has no connection left" not in caplog.text
    finally:
        for stranger in held:
            stranger.close()


def was_closed(stranger: socket.socket) -> bool:
    stranger.setblocking(False)
    try:
        return stranger.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def test_a_haproxy_that_serves_nobody_is_not_taken_for_a_full_one(redirected: Redirected) -> None:
    front = redirected.steering
    await front._process.socket.order("disable frontend users")
    with pytest.raises(Conflict, match="does not answer users"):
        await front.make_permanent(operation("keep new"), "b")
