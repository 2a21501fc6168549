"""Pebble, Let's Encrypt's small ACME authority, and a DNS server that tests tell what to say: real programs.

They are built from their Go module at first use and kept below `.state`; `python -m tests.drivers.pebble`
builds them ahead of the tests, where those have no network.
"""

import ipaddress
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploy.ports import free_port
from tests.fakes.authority import EnterpriseCa
from tests.patience import PATIENCE

MODULE, VERSION = "github.com/letsencrypt/pebble/v2", "v2.10.1"
PROGRAMS = ("pebble", "pebble-challtestsrv")
CALM = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
"""Pebble refuses one good nonce of twenty by chance, and two in a row end a try."""
FOLDER = Path(__file__).parents[2] / ".state" / f"pebble-{VERSION}"
BUILT_WITHIN = 150.0
"""Seconds; with a proxy for Go modules near by it takes 20."""
UP_WITHIN = PATIENCE
BLOCKED = "blocked.penstock.test"


def why_not_here() -> str | None:
    """Build the programs where they are not there yet; return why they cannot be, None when they are."""
    if all((FOLDER / name).exists() for name in PROGRAMS):
        return None
    if shutil.which("go") is None:
        return "needs Go, which builds Pebble"
    commands = [f"{MODULE}/cmd/{name}@{VERSION}" for name in PROGRAMS]
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            ["go", "install", *commands],
            env=os.environ | {"GOBIN": str(FOLDER), "GOFLAGS": "-trimpath"},
            capture_output=True,
            text=True,
            timeout=BUILT_WITHIN,
            check=False,
        )
        if done.returncode == 0:
            return None
        return f"Pebble cannot be built: {(done.stderr.strip().splitlines() or ['it is not said why'])[-1]}"
    return f"Pebble was not built within {BUILT_WITHIN:g} s"


class Pebble:
    """An authority that gives certificates to whoever proves a name, by HTTP here or by DNS."""

    def __init__(self, folder: Path, *, customers: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        folder.mkdir()
        names = ("api", "management", "http", "dns", "records")
        self.ports = {name: free_port() for name in names}
        self.directory = f"https://127.0.0.1:{self.ports['api']}/dir"
        corp = EnterpriseCa(folder / "tls", "who vouches for Pebble")
        key, certificate = corp.leaf(
            "pebble",
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            names=(x509.IPAddress(ipaddress.ip_address("127.0.0.1")),),
        )
        self.authority = corp.roots
        """Who vouches for Pebble's own HTTPS; nobody else believes it."""
        self.roots = folder / "roots.pem"
        """Who signs the certificates that it gives."""
        self.log = folder / "log"
        content = {
            "listenAddress": f"127.0.0.1:{self.ports['api']}",
            "managementListenAddress": f"127.0.0.1:{self.ports['management']}",
            "certificate": str(certificate),
            "privateKey": str(key),
            "httpPort": self.ports["http"],
            "tlsPort": 1,
            "externalAccountBindingRequired": customers is not None,
            "externalAccountMACKeys": dict(customers or {}),
            "domainBlocklist": [BLOCKED],
            "retryAfter": {"authz": 1, "order": 1},
            "profiles": {"default": {"description": "all", "validityPeriod": 30 * 86_400}},
        }
        (folder / "config.json").write_text(json.dumps({"pebble": content}))

    @contextmanager
    def running(self) -> Iterator["Pebble"]:
        """Have it answer for the length of the block; it forgets everything at its end."""
        dns = f"127.0.0.1:{self.ports['dns']}"
        records = ["-dnsserver", dns, "-management", f"127.0.0.1:{self.ports['records']}"]
        nothing = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv6", ""]
        commands: tuple[list[str | Path], ...] = (
            [FOLDER / "pebble-challtestsrv", *records, *nothing],
            [FOLDER / "pebble", "-config", self.folder / "config.json", "-dnsserver", dns],
        )
        with self.log.open("ab") as log:
            begun = [
                subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | CALM)
                for command in commands
            ]
        try:
            self.roots.write_bytes(self._until_up())
            yield self
        finally:
            for process in begun:
                process.kill()
                process.wait()

    def tell(self, what: str, said: dict[str, Any]) -> None:
        """Have the DNS server answer otherwise from now on."""
        place = f"http://127.0.0.1:{self.ports['records']}/{what}"
        with urlopen(Request(place, json.dumps(said).encode()), timeout=5):
            pass

    @property
    def orders(self) -> int:
        """How many orders it was given."""
        return self.log.read_text().count("Added order ")

    def _until_up(self) -> bytes:
        trusting = ssl.create_default_context(cafile=str(self.authority))
        place = f"https://127.0.0.1:{self.ports['management']}/roots/0"
        end = time.monotonic() + UP_WITHIN
        while True:
            try:
                with urlopen(place, context=trusting, timeout=2) as answer:
                    root: bytes = answer.read()
                    return root
            except OSError:
                assert time.monotonic() < end, self.log.read_text()
                time.sleep(0.02)


if __name__ == "__main__":
    raise SystemExit(why_not_here())
