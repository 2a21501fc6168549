"""What a lab has to know of the daemon on its gateways: trees, credentials, people and their logins."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from signal import Signals
from typing import Protocol

from deploy.lab.credentials import Credentials
from deploy.lab.processes import Process
from deploy.lab.topology import Host


class Outcome(StrEnum):
    """How one login ended."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    TIMED_OUT = "timed_out"


Attempted = tuple[Outcome, str]
"""How a login ended, and why."""


class Tunnel(Protocol):
    """One person's client for one login: its script writes `connect ADDRESS` when its tunnel is there."""

    process: Process
    leaves_by: Signals
    """What has it log out in order."""

    def start(self) -> None:
        """Start it."""
        ...

    def over_udp(self) -> bool:
        """Return whether what it carries goes over UDP now."""
        ...


class LogsIn(Protocol):
    """Logs in people who have no tunnel, or none that stays."""

    async def log_in(self, gateway: Host, user: str, source: str, *, mistyped: bool) -> Attempted:
        """Log in once from this source address; who mistypes shows what nobody is let in with."""
        ...


class LabDaemon(Protocol):
    """One product in the lab."""

    @property
    def name(self) -> str:
        """The product's name, as releases and fleets have it."""
        ...

    @property
    def executable(self) -> str:
        """Its program, below a release's root."""
        ...

    @property
    def template(self) -> Path:
        """The template of its configuration."""
        ...

    @property
    def stale(self) -> tuple[str, str]:
        """What of the template the faulty release changes, and into what: who was let in years ago."""
        ...

    @property
    def night(self) -> float:
        """Seconds between a logout and the next login: long enough for the gateway to forget the session."""
        ...

    @property
    def programs(self) -> Mapping[str, str]:
        """The programs that have to be installed here for it, each with the Debian package that brings it."""
        ...

    def fetch(self, cache: Path) -> None:
        """Fetch the packages of the newer tree; raises what `packages.fetch` does."""
        ...

    def collect_older(self, into: Path) -> str:
        """Make a tree of this Debian's own daemon; return its version."""
        ...

    def collect_newer(self, into: Path, cache: Path) -> str:
        """Make a tree of the next Debian's daemon; return its version."""
        ...

    def issue(self, credentials: Credentials, names: Sequence[str]) -> None:
        """Make what people of these names, and the probe, log in with."""
        ...

    def given(self, issued: Credentials) -> Mapping[str, Path]:
        """Return what templates may ask for by name, each with its file."""
        ...

    def probe(self, issued: Credentials, host: Host) -> Mapping[str, str]:
        """Return who the agent's probe is, as the agent's file says it."""
        ...

    def tunnel(self, site: Host, url: str, issued: Credentials, folder: Path) -> Tunnel:
        """Return the client of who sits at this site and dials there; its events go into the folder."""
        ...

    def logs_in(self, issued: Credentials, port: int) -> LogsIn:
        """Return what logs people in; its caller is in their network."""
        ...
