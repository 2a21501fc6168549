"""ocserv in the lab: Debian's 1.1.6 and the next Debian's, openconnect, and a list of users for everybody."""

import signal
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.lab import packages, trees
from deploy.lab.anyconnect import log_in
from deploy.lab.credentials import LEGACY_SHARE, PROBE, Credentials, write
from deploy.lab.daemons.port import Attempted, LogsIn, Tunnel
from deploy.lab.processes import Process
from deploy.lab.topology import TARGET4, Host
from policies.model.errors import BadInput

SCRIPT = Path(__file__).parents[1] / "tunnel.sh"


class LabOcserv:
    """ocserv and its people."""

    name = "ocserv"
    executable = "usr/sbin/ocserv"
    template = Path(__file__).parents[1] / "ocserv.conf.template"
    stale = ("$credential_users", "$credential_users_legacy")
    night = 4.0
    programs: Mapping[str, str] = {"ocserv": "ocserv", "openconnect": "openconnect"}

    def fetch(self, cache: Path) -> None:
        """Fetch the next Debian's ocserv."""
        packages.fetch(cache)

    def collect_older(self, into: Path) -> str:
        """Make a tree of this Debian's ocserv."""
        return trees.collect_host_tree(into)

    def collect_newer(self, into: Path, cache: Path) -> str:
        """Make a tree of the next Debian's ocserv."""
        return trees.collect_next_tree(into, cache)

    def issue(self, credentials: Credentials, names: Sequence[str]) -> None:
        """Write the list of everybody, and a stale one of a tenth; all have one password and one slow hash.

        Raises:
            BadInput: ocpasswd is missing, or does not work.
        """
        everybody, hashed = [PROBE, *names], _hash(credentials.password, credentials.folder / "one")
        _list(credentials.users, everybody, hashed)
        _list(credentials.legacy_users, [PROBE, *everybody[LEGACY_SHARE::LEGACY_SHARE]], hashed)
        write(credentials.probe_password, f"{credentials.password}\n".encode())

    def given(self, issued: Credentials) -> Mapping[str, Path]:
        """Return both lists, certificate and key."""
        return {
            "users": issued.users,
            "users_legacy": issued.legacy_users,
            "certificate": issued.certificate,
            "key": issued.key,
        }

    def probe(self, issued: Credentials, host: Host) -> Mapping[str, str]:
        """Return a user with a password."""
        return {
            "user": PROBE,
            "password": str(issued.probe_password),
            "authority": str(issued.authority),
            "name": host.address4,
            "target": TARGET4,
        }

    def tunnel(self, site: Host, url: str, issued: Credentials, folder: Path) -> Tunnel:
        """Return an openconnect."""
        return Openconnect(site, url, issued, folder)

    def logs_in(self, issued: Credentials, port: int) -> LogsIn:
        """Return logins as openconnect makes them, without its process."""
        return Passwords(issued, port)


class Openconnect:
    """One openconnect; told to leave it says goodbye."""

    leaves_by = signal.SIGINT

    def __init__(self, site: Host, url: str, issued: Credentials, folder: Path) -> None:
        self._log, self._password = folder / "client.log", issued.password
        options = {
            "--protocol": "anyconnect",
            "--cafile": issued.authority,
            "--user": site.name,
            "--script": SCRIPT,
            "--interface": "tun0",
            "--reconnect-timeout": "60",
        }
        command = ["openconnect", *(f"{key}={value}" for key, value in options.items())]
        self.process = Process(
            f"openconnect of {site.name}",
            [*command, "--passwd-on-stdin", "--non-inter", "--timestamp", url],
            log=self._log,
            namespace=site.namespace,
            environment={"PENSTOCK_EVENTS": str(folder / "events")},
        )

    def start(self) -> None:
        """Start it and tell it the password."""
        self.process.start(stdin=f"{self._password}\n".encode())

    def over_udp(self) -> bool:
        """Return whether DTLS is there."""
        words = self._log.read_text(errors="replace")
        return words.rfind("Established DTLS") > words.rfind("Connected to HTTPS")


class Passwords:
    """Logs in with the password that everybody has, and where asked pings once through a tunnel."""

    def __init__(self, issued: Credentials, port: int, *, tunnels: bool = False) -> None:
        self._password, self._port = issued.password, port
        self._target = TARGET4 if tunnels else None
        self._trust = ssl.create_default_context(cafile=str(issued.authority))

    async def log_in(self, gateway: Host, user: str, source: str, *, mistyped: bool) -> Attempted:
        """Log in by AnyConnect's XML."""
        password = f"{self._password}?" if mistyped else self._password
        return await log_in(
            gateway.address4,
            self._port,
            user,
            password,
            trust=self._trust,
            source=source,
            target=self._target,
        )


def _hash(password: str, scratch: Path) -> str:
    scratch.unlink(missing_ok=True)
    try:
        subprocess.run(
            ["ocpasswd", "--passwd", str(scratch), PROBE],
            input=f"{password}\n{password}\n".encode(),
            capture_output=True,
            check=True,
        )
        return scratch.read_text().strip().rsplit(":", 1)[1]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise BadInput(f"ocpasswd does not work: {error}; `apt-get install ocserv` brings it") from error
    finally:
        scratch.unlink(missing_ok=True)


def _list(path: Path, names: Sequence[str], hashed: str) -> None:
    write(path, "".join(f"{name}:*:{hashed}\n" for name in names).encode())
