"""OpenVPN in the lab: Debian's and the next Debian's, its own client, and a certificate for everybody.

Two authorities have signed people's certificates: one of today, and one of years ago that signed a tenth of
them. Gateways know both; the faulty release asks for the old one alone.
"""

import asyncio
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from deploy.lab import packages
from deploy.lab.credentials import Credentials
from deploy.lab.daemons.certified import STRANGER, CertifiedPeople
from deploy.lab.daemons.port import Attempted, LogsIn, Outcome, Tunnel
from deploy.lab.processes import Process
from deploy.lab.topology import Host
from orchestrator.publishing.debian import unpack
from orchestrator.publishing.tree import collect, lay_out
from policies.model.errors import BadInput

PROGRAM = "usr/sbin/openvpn"
PACKAGES = ("openvpn",)
SCRIPT = Path(__file__).with_name("openvpn-tunnel.sh")
PATIENCE = 15.0
_REFUSED = re.compile(r"TLS Error|AUTH_FAILED|alert|process restarting|process exiting")


class LabOpenVpn(CertifiedPeople):
    """OpenVPN and its people."""

    name = "openvpn"
    executable = PROGRAM
    in_one_file = True
    template = Path(__file__).parents[1] / "openvpn.conf.template"
    stale = ("$credential_authority", "$credential_authority_legacy")
    night = 17.0
    """OpenVPN keeps who has said goodbye for five, and whoever keeps the table looks every ten."""
    programs: Mapping[str, str] = {"openvpn": "openvpn", "conntrack": "conntrack"}

    def fetch(self, cache: Path) -> None:
        """Fetch the next Debian's OpenVPN."""
        packages.fetch(cache, PACKAGES)

    def collect_older(self, into: Path) -> str:
        """Make a tree of this Debian's OpenVPN.

        Raises:
            BadInput: it is not installed.
        """
        if not Path("/", PROGRAM).is_file():
            raise BadInput("openvpn is not installed: `apt-get install openvpn`")
        return _collected(Path("/"), into)

    def collect_newer(self, into: Path, cache: Path) -> str:
        """Make a tree of the next Debian's OpenVPN; two Debians may have one version of it."""
        files = packages.fetch(cache, PACKAGES)
        with packages.scratch(cache) as home:
            lay_out(home / "root")
            unpack(files, home / "root")
            return f"{_collected(home / 'root', into)}+{packages.SUITE}"

    def tunnel(self, site: Host, url: str, issued: Credentials, folder: Path) -> Tunnel:
        """Return an openvpn that comes back by itself when it is told to."""
        return OpenVpnClient(site, url, issued, folder)

    def logs_in(self, issued: Credentials, port: int) -> LogsIn:
        """Return logins by an openvpn without a device."""
        return Certificates(issued, port)


class OpenVpnClient:
    """One openvpn; told to leave it says goodbye."""

    leaves_by = signal.SIGTERM

    def __init__(self, site: Host, url: str, issued: Credentials, folder: Path) -> None:
        address, _, port = url.removeprefix("https://").rpartition(":")
        events = str(folder / "events")
        self.process = Process(
            f"openvpn of {site.name}",
            [
                *("openvpn", "--client", "--dev", "tun0", "--nobind", "--verb", "3"),
                *("--remote", address.strip("[]"), port, "udp6" if "[" in address else "udp4"),
                *_shown(issued, site.name),
                *("--connect-retry", "1", "2", "--explicit-exit-notify", "1"),
                *("--script-security", "2", "--setenv", "PENSTOCK_EVENTS", events, "--route-up", str(SCRIPT)),
            ],
            log=folder / "client.log",
            namespace=site.namespace,
        )

    def start(self) -> None:
        """Start it."""
        self.process.start()

    def over_udp(self) -> bool:
        """Return True: the lab's OpenVPN has nothing else."""
        return True


class Certificates:
    """Logs in with a certificate, by a client that makes neither device nor routes."""

    def __init__(self, issued: Credentials, port: int) -> None:
        self._issued, self._port = issued, port

    async def log_in(self, gateway: Host, user: str, source: str, *, mistyped: bool) -> Attempted:
        """Log in once, and leave as soon as that went well."""
        process = await asyncio.create_subprocess_exec(
            *("openvpn", "--client", "--dev", "null", "--ifconfig-noexec", "--route-noexec", "--verb", "3"),
            *("--local", source, "--lport", "0", "--remote", gateway.address4, str(self._port), "udp4"),
            *_shown(self._issued, STRANGER if mistyped else user, stranger=mistyped),
            *("--connect-retry-max", "1", "--hand-window", "10", "--tls-exit", "--explicit-exit-notify", "1"),
            "--suppress-timestamps",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._outcome(process)
        except TimeoutError:
            return Outcome.TIMED_OUT, f"nothing within {PATIENCE:g} s"
        finally:
            await _end(process)

    async def _outcome(self, process: asyncio.subprocess.Process) -> Attempted:
        heard, words = False, ""
        assert process.stdout is not None
        async for raw in process.stdout:
            words = raw.decode(errors="replace").strip()
            heard = heard or words.startswith("TLS: Initial packet")
            if words.startswith("Initialization Sequence Completed"):
                return Outcome.ACCEPTED, ""
            if "ECONNREFUSED" in words:
                return Outcome.UNREACHABLE, words
            if _REFUSED.search(words):
                return (Outcome.REJECTED if heard else Outcome.TIMED_OUT), words
        return Outcome.BROKEN, words


def _shown(issued: Credentials, name: str, *, stranger: bool = False) -> tuple[str, ...]:
    """Return the options by which a client shows who it is, and asks the same of the gateway."""
    key = issued.folder / ("stranger.key" if stranger else "people.key")
    return (
        *("--ca", str(issued.authority), "--cert", str(issued.folder / "people" / f"{name}.pem")),
        *("--key", str(key), "--remote-cert-tls", "server"),
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Have it leave in order: a gateway that hears nothing keeps its session for a minute."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(3):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()


def _collected(root: Path, into: Path) -> str:
    if into.exists():
        shutil.rmtree(into)
    collect(root, into, [PROGRAM])
    done = subprocess.run(
        ["chroot", str(into), f"/{PROGRAM}", "--version"], text=True, capture_output=True, check=False
    )
    found = re.search(r"OpenVPN (\d[\w.]*)", done.stdout)
    if not found:
        said = (done.stdout + done.stderr).strip()[:200]
        raise BadInput(f"{into}: its openvpn does not run here: {said or 'no output'}")
    return found[1]
