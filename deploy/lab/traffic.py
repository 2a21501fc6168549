"""The lab's people: users with tunnels, and many who only log in; each crowd is one process.

`python -m deploy.lab.traffic users|logins SETTINGS` runs a crowd until it is told to stop; it
dies with the lab. `Users` and `Logins` start one and read what it counted; every figure comes
from the clients' own logs.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from deploy.lab import logins, namespaces
from deploy.lab.credentials import Credentials
from deploy.lab.daemons.ocserv import Passwords
from deploy.lab.daemons.products import DAEMONS
from deploy.lab.processes import Process
from deploy.lab.topology import Topology
from deploy.lab.users import User
from policies.model.errors import Unavailable

_VIEW, _CONTROL = "view.json", "control"
_AT_ONCE = 6
"""Logins begun together: more only wait for each other on two cores."""
_COUNTED_WITHIN = 15.0
"""Seconds after which a count that is renewed twice a second is none of now."""


@dataclass(frozen=True)
class Settings:
    """Everything a crowd must know; handed over as one line of JSON."""

    folder: Path
    credentials: Path
    password: str
    people: int = 0
    prefix: str = "pst-"
    gateways: int = 4
    sites: int = 24
    port: int = 443
    daemon: str = "ocserv"
    """What the gateways run."""
    dial6: int = 0
    """Every how manyth user dials the gateway's IPv6 address; 0 for nobody."""
    idle: int = 0
    """Every how manyth user, the first among them, logs in and sends nothing; 0 for nobody."""
    per_second: float = 2.0
    mistyped: float = 0.02
    addresses: int = 0
    """From how many addresses people log in, one after the other; 0 for all that there are."""
    tunnels: bool = False
    """Whether each login at an ocserv goes on to a tunnel and a ping through it."""

    @classmethod
    def of(cls, topology: Topology, credentials: Credentials, folder: Path, **more: Any) -> Self:
        """Return the settings for this topology, with any other field given by name."""
        return cls(
            folder=folder.absolute(),
            credentials=credentials.folder.absolute(),
            password=credentials.password,
            people=len(credentials.people),
            prefix=topology.prefix,
            gateways=len(topology.gateways),
            sites=len(topology.sites),
            **more,
        )

    def to_json(self) -> str:
        """Return all of it as one line."""
        return json.dumps(self.__dict__, default=str)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return what `to_json` wrote."""
        plain = cls(**json.loads(line))
        return replace(plain, folder=Path(plain.folder), credentials=Path(plain.credentials))

    @property
    def topology(self) -> Topology:
        """The network the crowd lives in."""
        return Topology(gateways=self.gateways, sites=self.sites, prefix=self.prefix)

    @property
    def who(self) -> Credentials:
        """Their password and the CA they trust."""
        people = tuple(f"user-{number:05}" for number in range(1, self.people + 1))
        return Credentials(self.credentials, self.password, people)


class Crowd:
    """A crowd's process and what it counted."""

    kind = ""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # The settings travel by standard input: they hold the password.
        self.process = Process(
            f"the {self.kind}",
            [sys.executable, "-m", "deploy.lab.traffic", self.kind],
            log=settings.folder / f"{self.kind}.log",
            environment={"PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def start(self) -> int:
        """Start it and return its pid."""
        self.settings.folder.mkdir(parents=True, exist_ok=True)
        (self.settings.folder / _VIEW).unlink(missing_ok=True)
        return self.process.start(stdin=self.settings.to_json().encode())

    def wait_until_counting(self, seconds: float = 60.0) -> None:
        """Wait until it has counted for the first time: on a busy machine its start takes seconds.

        Raises:
            Unavailable: it has not in that time, or died before it could.
        """
        deadline = time.monotonic() + seconds
        while not (self.settings.folder / _VIEW).exists():
            if time.monotonic() > deadline or self.process.exit_code is not None:
                self.view()
            time.sleep(0.05)

    def view(self) -> dict[str, Any]:
        """Return what it counted, at most half a second old while it runs.

        Raises:
            Unavailable: it has not counted anything yet, or died before it could.
        """
        try:
            seen: dict[str, Any] = json.loads((self.settings.folder / _VIEW).read_text())
        except FileNotFoundError:
            said = "; ".join(self.process.last_lines(2)) or "nothing in its log"
            raise Unavailable(f"{self.process.name} have not counted anything yet: {said}") from None
        return seen

    def counts(self) -> dict[str, Any]:
        """Return what it counts now.

        Raises:
            Unavailable: its process has ended or hangs; what it counted last is no count of now.
        """
        seen = self.view()
        last = f"the last count is of {datetime.fromtimestamp(seen['at'], UTC):%H:%M:%S} UTC"
        if self.process.pid is None:
            said = "; ".join(self.process.last_lines(1)) or "nothing in its log"
            raise Unavailable(f"{self.process.name} do not run any more, {last}: {said}")
        if time.time() - seen["at"] > _COUNTED_WITHIN:
            raise Unavailable(f"{self.process.name} do not count any more, {last}")
        return seen

    def stop(self) -> dict[str, Any]:
        """Let it end in order, and return its final count."""
        self.process.stop(signal.SIGTERM, grace=20.0)
        return self.view()


class Users(Crowd):
    """The users with tunnels."""

    kind = "users"

    def wait_until_up(self, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until every user has a session, and return the view.

        Raises:
            Unavailable: someone has none in that time; the sentence quotes their client.
        """
        deadline = time.monotonic() + seconds
        view: dict[str, Any] = {}
        while time.monotonic() < deadline and self.process.exit_code is None:
            with contextlib.suppress(Unavailable):
                view = self.view()
            if view and view["totals"]["up"] == self.settings.sites:
                return view
            time.sleep(0.1)
        down = [user for user in view.get("users", []) if not user["up"]]
        first = f": {down[0]['name']} says {down[0]['last_line']!r}" if down else ""
        raise Unavailable(
            f"{len(down) or self.settings.sites} users have no session after {seconds:g} s{first}"
        )

    def come_back(self, names: Sequence[str], *, seconds: float = 60.0) -> dict[str, Any]:
        """Let these users end their day and log in anew; return the view after every one has tried.

        Raises:
            Unavailable: the crowd does not answer in that time.
        """
        try:
            with (
                _short(self.settings.folder) as folder,
                socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller,
            ):
                caller.settimeout(seconds)
                caller.connect(str(folder / _CONTROL))
                caller.sendall(json.dumps(list(names)).encode() + b"\n")
                answer = b"".join(iter(lambda: caller.recv(65536), b""))
            seen: dict[str, Any] = json.loads(answer)
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.process.name} do not answer: {error}") from error
        return seen


class Logins(Crowd):
    """Those who only log in."""

    kind = "logins"


async def run_users(settings: Settings, stop: asyncio.Event) -> None:
    """Be the users until told to stop, then log everybody out."""
    folder = settings.folder
    crowd = [_user(settings, number) for number in range(settings.sites)]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def live(user: User) -> None:
        async with gate:
            await user.come_back()
        await user.live()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names = set(json.loads(await reader.readline()))
        await asyncio.gather(*(user.come_back() for user in crowd if user.name in names))
        writer.write(json.dumps(view_of(crowd)).encode())
        await writer.drain()
        writer.close()

    (folder / _CONTROL).unlink(missing_ok=True)
    with _short(folder) as short:
        server = await asyncio.start_unix_server(answer, short / _CONTROL)
    lives = [asyncio.create_task(live(user)) for user in crowd]
    while not stop.is_set():
        for user in crowd:
            user.pings.flush()
        write_view(folder, view_of(crowd))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5)
    server.close()
    for task in lives:
        task.cancel()
    await asyncio.gather(*lives, return_exceptions=True)
    before = {user.name: user.up for user in crowd}
    await asyncio.gather(*(user.leave() for user in crowd))
    final = view_of(crowd)
    final["totals"]["up_at_stop"] = sum(before.values())
    write_view(folder, final)


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """Give a short path to a folder: a socket's path may have 107 bytes (unix(7)), a checkout's has more."""
    descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _user(settings: Settings, number: int) -> User:
    topology = settings.topology
    site, gateway = topology.sites[number], topology.gateways[number % settings.gateways]
    over6 = settings.dial6 and number % settings.dial6 == settings.dial6 - 1
    host = f"[{gateway.address6}]" if over6 else gateway.address4
    url = f"https://{host}:{settings.port}"
    idle = bool(settings.idle) and number % settings.idle == 0
    return User(
        site, gateway, DAEMONS[settings.daemon], settings.who, settings.folder / site.name, url, idle=idle
    )


def view_of(crowd: Sequence[User]) -> dict[str, Any]:
    """Return what the users see, and the totals."""
    users = [user.view() for user in crowd]
    keys = ("logins", "failed_logins", "planned_logouts", "lost", "reconnects")
    totals: dict[str, Any] = {key: sum(user[key] for user in users) for key in keys}
    totals["up"] = sum(user["up"] for user in users)
    totals["pings"] = {key: sum(u["pings"][key] for u in users) for key in ("sent", "answered", "lost")}
    totals["pings"]["longest_silence"] = max((u["pings"]["longest_silence"] for u in users), default=0.0)
    return {"at": time.time(), "totals": totals, "users": users}


def write_view(folder: Path, view: dict[str, Any]) -> None:
    """Replace the view in one step: a reader sees the old one or the new one."""
    fresh = folder / f"{_VIEW}.new"
    fresh.write_text(json.dumps(view))
    fresh.replace(folder / _VIEW)


async def run_logins(settings: Settings, stop: asyncio.Event) -> None:
    """Be those who log in until told to stop."""
    logs_in = (
        Passwords(settings.who, settings.port, tunnels=True)
        if settings.tunnels
        else DAEMONS[settings.daemon].logs_in(settings.who, settings.port)
    )
    load = logins.Load(
        topology=settings.topology,
        credentials=settings.who,
        log=settings.folder / "logins.jsonl",
        logs_in=logs_in,
        addresses=settings.addresses,
        per_second=settings.per_second,
        mistyped=settings.mistyped,
    )
    work = asyncio.create_task(load.run(stop))
    while not work.done():
        write_view(settings.folder, load.view())
        await asyncio.wait([work], timeout=0.5)
    await work
    write_view(settings.folder, load.view())


async def _main(kind: str, settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await (run_users if kind == Users.kind else run_logins)(settings, stop)


if __name__ == "__main__":
    if sys.argv[1:] not in ([Users.kind], [Logins.kind]):
        sys.exit("usage: python -m deploy.lab.traffic users|logins < SETTINGS")
    chosen = Settings.from_json(sys.stdin.readline())
    if sys.argv[1] == Logins.kind:
        namespaces.enter(chosen.topology.load.namespace)
    os.nice(5)
    asyncio.run(_main(sys.argv[1], chosen))
