"""strongSwan in the lab: Debian's and the next Debian's, charons as clients, and a certificate for everybody.

As with OpenVPN, two authorities have signed people's certificates: one of today, and one of years ago that
signed a tenth of them. Gateways know both; the faulty release asks for the old one alone.
"""

import asyncio
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vici import Session
from vici.exception import CommandException

from deploy.lab import packages
from deploy.lab.credentials import Credentials
from deploy.lab.daemons.certified import STRANGER, CertifiedPeople
from deploy.lab.daemons.port import Attempted, LogsIn, Outcome, Tunnel
from deploy.lab.processes import Process
from deploy.lab.topology import Host
from orchestrator.publishing.debian import unpack
from orchestrator.publishing.tree import collect, lay_out
from policies.model.errors import BadInput

CHARON = "usr/lib/ipsec/charon"
PROGRAMS = (CHARON, "usr/sbin/swanctl", "usr/bin/dash")
"""charon, what loads its connections, and what starts both."""
PLUGINS = (
    *("random", "nonce", "openssl", "pem", "pubkey", "pkcs1", "pkcs8", "x509", "constraints", "kdf"),
    *("kernel-libipsec", "kernel-netlink", "socket-default", "vici"),
)
"""What the template has it load; where openssl derives keys, as from 6.0 on, there is no `kdf`."""
PACKAGES = (
    *("strongswan-charon", "strongswan-swanctl", "libcharon-extra-plugins"),
    *("libstrongswan-standard-plugins", "dash"),
)
SCRIPT = Path(__file__).with_name("strongswan-tunnel.sh")
PATIENCE = 15.0
AT_ONCE = 32
"""Logins that wait at the same time."""
CALLER = f"""
charon {{
  load = {" ".join(PLUGINS)} updown
  retransmit_tries = 3
  retransmit_timeout = 1.0
  %s
  plugins {{
    vici {{
      socket = unix://%s/charon.vici
    }}
  }}
  filelog {{
    stderr {{
      default = 1
    }}
  }}
}}
"""
"""How a charon of the lab begins that calls gateways: with more settings, and the folder of its socket."""
PERSON = """
swanctl {{
  load = random nonce openssl pem pubkey pkcs1 pkcs8 x509
}}
connections {{
  home {{
    version = 2
    remote_addrs = {gateway}
    vips = 0.0.0.0
    dpd_delay = 10s
    keyingtries = 0
    local {{
      auth = pubkey
      certs = {certificate}
    }}
    remote {{
      auth = pubkey
      id = {gateway}
      cacerts = {authority}
    }}
    children {{
      home {{
        remote_ts = 10.0.0.0/8
        updown = {script} {events}
        start_action = start
        close_action = start
        dpd_action = restart
      }}
    }}
  }}
}}
"""
# charon writes its pid to /run, and looks for its file where this says.
ALONE = 'mount -t tmpfs run /run; STRONGSWAN_CONF="$1" exec /usr/lib/ipsec/charon'


class LabStrongSwan(CertifiedPeople):
    """strongSwan and its people."""

    name = "strongswan"
    executable = CHARON
    template = Path(__file__).parents[1] / "strongswan.conf.template"
    stale = (
        "$credential_authority, $credential_authority_legacy",
        "$credential_authority_legacy",
    )
    night = 4.0
    programs: Mapping[str, str] = {
        f"/{CHARON}": "strongswan-charon",
        "swanctl": "strongswan-swanctl",
        "/usr/lib/ipsec/lookip": "libcharon-extra-plugins",
    }

    def fetch(self, cache: Path) -> None:
        """Fetch the next Debian's strongSwan."""
        packages.fetch(cache, PACKAGES)

    def collect_older(self, into: Path) -> str:
        """Make a tree of this Debian's strongSwan.

        Raises:
            BadInput: it is not installed.
        """
        if not Path("/", CHARON).is_file():
            raise BadInput(
                "strongSwan is not installed: `apt-get install strongswan-charon strongswan-swanctl`"
            )
        return collected(Path("/"), into)

    def collect_newer(self, into: Path, cache: Path) -> str:
        """Make a tree of the next Debian's strongSwan."""
        files = packages.fetch(cache, PACKAGES)
        with packages.scratch(cache) as home:
            lay_out(home / "root")
            unpack(files, home / "root")
            return collected(home / "root", into)

    def probe(self, issued: Credentials, host: Host) -> Mapping[str, str]:
        """Return somebody with a certificate, and the name in the gateway's."""
        return {**super().probe(issued, host), "name": host.address4}

    def tunnel(self, site: Host, url: str, issued: Credentials, folder: Path) -> Tunnel:
        """Return a charon that comes back by itself when it is told to go."""
        return Charon(site, url, issued, folder)

    def logs_in(self, issued: Credentials, port: int) -> LogsIn:
        """Return logins by one charon for everybody."""
        del port
        return Certificates(issued)


class Charon:
    """One charon for one person; told to leave it says goodbye."""

    leaves_by = signal.SIGTERM

    def __init__(self, site: Host, url: str, issued: Credentials, folder: Path) -> None:
        gateway = url.removeprefix("https://").rpartition(":")[0]
        self._own, self._key = folder / "charon", issued.folder / "people.key"
        self._said = PERSON.format(
            gateway=gateway,
            certificate=issued.folder / "people" / f"{site.name}.pem",
            authority=issued.authority,
            script=SCRIPT,
            events=folder / "events",
        )
        alone = ["unshare", "-m", "--propagation", "private", "sh", "-c", ALONE, "charon"]
        self.process = Process(
            f"charon of {site.name}",
            [*alone, self._own / "strongswan.conf"],
            log=folder / "client.log",
            namespace=site.namespace,
        )

    def start(self) -> None:
        """Write its files, and start it."""
        (self._own / "private").mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            (self._own / "private/key").symlink_to(self._key)
        file = self._own / "strongswan.conf"
        load = f"swanctl --load-all --noprompt --file {file} --uri unix://{self._own}/charon.vici"
        begins = CALLER % (f"start-scripts {{\n load = {load}\n }}", self._own)
        file.write_text(begins + self._said)
        self.process.start()

    def over_udp(self) -> bool:
        """Return True: IKE has nothing else."""
        return True


class Certificates:
    """Logs in with certificates, by one charon for everybody."""

    def __init__(self, issued: Credentials) -> None:
        self._issued = issued
        self._own = issued.folder / "callers"
        self._charon: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._threads = ThreadPoolExecutor(AT_ONCE, "login")

    async def log_in(self, gateway: Host, user: str, source: str, *, mistyped: bool) -> Attempted:
        """Log in once, and leave as soon as that went well."""
        async with self._starting:
            if self._charon is None:
                self._charon = await self._started()
        asked = (f"login-{next(self._numbers)}", gateway, STRANGER if mistyped else user, source)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._log_in, *asked)

    async def _started(self) -> asyncio.subprocess.Process:
        self._own.mkdir(mode=0o700, exist_ok=True)
        file = self._own / "strongswan.conf"
        file.write_text(CALLER % ("reuse_ikesa = no", self._own))
        (self._own / "charon.vici").unlink(missing_ok=True)
        alone = ["unshare", "-m", "--propagation", "private", "sh", "-c", ALONE, "charon", str(file)]
        with (self._own / "log").open("wb") as log:
            charon = await asyncio.create_subprocess_exec(
                "setpriv", "--pdeathsig", "KILL", *alone, stdout=log, stderr=log
            )
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(self._keys_are_loaded):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
        return charon

    def _keys_are_loaded(self) -> bool:
        with suppress(OSError), self._line() as line:
            for name in ("people.key", "stranger.key"):
                line.load_key({"type": "any", "data": (self._issued.folder / name).read_bytes()})
            return True
        return False

    def _log_in(self, name: str, gateway: Host, user: str, source: str) -> Attempted:
        said, words = self._connection(gateway, user, source), ""
        try:
            with self._line() as line:
                line.load_conn({name: said})
                try:
                    asked = {"child": "all", "ike": name, "timeout": int(PATIENCE * 1000)}
                    for event in line.streamed_request("initiate", "control-log", asked):
                        words = _telling(event, words)
                    line.request("terminate", {"ike": name, "force": "yes"})
                finally:
                    line.unload_conn({"name": name})
        except CommandException as failed:
            return _outcome(words or str(failed)), words or str(failed)
        except OSError as error:
            return Outcome.BROKEN, str(error)
        return Outcome.ACCEPTED, ""

    def _connection(self, gateway: Host, user: str, source: str) -> dict[str, Any]:
        certificate = (self._issued.folder / "people" / f"{user}.pem").read_bytes()
        authority = self._issued.authority.read_bytes()
        return {
            "version": 2,
            "local_addrs": [source],
            "remote_addrs": [gateway.address4],
            "vips": ["0.0.0.0"],  # noqa: S104 - any address of the pool
            "keyingtries": 1,
            "local": {"auth": "pubkey", "certs": [certificate]},
            "remote": {"auth": "pubkey", "id": gateway.address4, "cacerts": [authority]},
            "children": {"all": {"remote_ts": ["10.0.0.0/8"]}},
        }

    @contextmanager
    def _line(self) -> Iterator[Session]:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(2 * PATIENCE)
            there = os.open(self._own, os.O_PATH | os.O_DIRECTORY)  # a path may have 107 bytes (unix(7))
            try:
                line.connect(f"/proc/self/fd/{there}/charon.vici")
            finally:
                os.close(there)
            yield Session(line)


_TELLING = re.compile(r"notify|giving up|failed|unreachable")


def _telling(event: Mapping[str, bytes], before: str) -> str:
    words = event.get("msg", b"").decode(errors="replace")
    return words if _TELLING.search(words) and "notify error" not in before else before


def _outcome(words: str) -> Outcome:
    if "AUTHENTICATION_FAILED" in words:
        return Outcome.REJECTED
    if "unreachable" in words:
        return Outcome.UNREACHABLE
    return Outcome.TIMED_OUT if "giving up" in words or "not established after" in words else Outcome.BROKEN


def collected(root: Path, into: Path) -> str:
    """Make a tree of the root's strongSwan; return its version.

    Raises:
        BadInput: it does not run here.
    """
    if into.exists():
        shutil.rmtree(into)
    named = [f"usr/lib/ipsec/plugins/libstrongswan-{name}.so" for name in PLUGINS]
    plugins = [path for path in named if (root / path).is_file() or not path.endswith("-kdf.so")]
    # What ends a thread asks for it by name, so that no program's own needs tell.
    ends_threads = [str(path.relative_to(root)) for path in root.glob("usr/lib/*/libgcc_s.so.1")]
    collect(root, into, PROGRAMS, [*plugins, *ends_threads])
    (into / "usr/bin/sh").symlink_to("dash")
    (into / "var").mkdir()
    (into / "var/run").symlink_to("../run/penstock")  # where charon insists on writing its pid
    config = into / "etc/penstock/empty"  # without any it says nothing
    config.touch()
    done = subprocess.run(
        ["chroot", str(into), f"/{CHARON}", "--version"],
        env={**os.environ, "STRONGSWAN_CONF": "/etc/penstock/empty"},
        text=True,
        capture_output=True,
        check=False,
    )
    config.unlink()
    found = re.search(r"strongSwan (\d[\w.]*)", done.stdout)
    if not found:
        said = (done.stdout + done.stderr).strip()[:200]
        raise BadInput(f"{into}: its charon does not run here: {said or 'no output'}")
    return found[1]
