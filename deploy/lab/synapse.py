"""Synapse, a Matrix homeserver: the real program, on loopback, for nobody but the lab and the tests.

It is installed from `synapse.txt` by hash into an environment of its own below `.state` at first
use; `python -m deploy.lab.synapse` does so ahead of it, where there is no network later.
"""

import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from deploy.lab.processes import Process
from deploy.ports import free_port
from policies.model.errors import Unavailable

LOCKED = Path(__file__).with_name("synapse.txt")
"""Made with `uv pip compile --generate-hashes` from `matrix-synapse`."""
FOLDER = (
    Path(__file__).parents[2] / ".state" / f"synapse-{hashlib.sha256(LOCKED.read_bytes()).hexdigest()[:12]}"
)
INSTALLED_WITHIN = 600.0
"""Seconds; with an index near by it takes less than a minute."""
UP_WITHIN = 60.0
NAME = "chat.example.org"
SECRET = "registration is for labs"  # noqa: S105 - it guards a homeserver that lives for minutes
DONE = "installed"


def to_be_installed() -> str | None:
    """Return what would be installed and where, None when it is there."""
    if (FOLDER / DONE).exists():
        return None
    count = LOCKED.read_text().count("==")
    return (
        f"Synapse, a Matrix homeserver, is installed first: {count} Python packages by hash, "
        f"into {FOLDER}; about a minute, once"
    )


def why_not_here() -> str | None:
    """Install it where it is not there yet; return why it cannot be, None when it is."""
    if (FOLDER / DONE).exists():
        return None
    shutil.rmtree(FOLDER, ignore_errors=True)
    python = FOLDER / "bin" / "python"
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", FOLDER],
        [python, "-m", "pip", "install", "-q", "--require-hashes", "--only-binary", ":all:", "-r", LOCKED],
    ]
    for command in commands:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALLED_WITHIN, check=False
            )
        except subprocess.TimeoutExpired:
            return f"Synapse was not installed within {INSTALLED_WITHIN:g} s"
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it is not said why"]
            return f"Synapse cannot be installed: {said[-1]}"
    (FOLDER / DONE).touch()
    return None


def ensure(tell: Callable[[str], None]) -> None:
    """Return when it is installed; what has to be installed for that is told first.

    Raises:
        Unavailable: It cannot be; the sentence says why, and what to do.
    """
    if (sentence := to_be_installed()) is not None:
        tell(sentence)
    if (why := why_not_here()) is not None:
        raise Unavailable(f"{why}; where there is a network: .venv/bin/python -m deploy.lab.synapse")


class Synapse:
    """One homeserver without federation, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        self._config = folder / "homeserver.yaml"
        self.known: dict[str, str] = {}
        """Access tokens of those who were registered."""
        listener = {
            "port": port,
            "bind_addresses": ["127.0.0.1"],
            "type": "http",
            "resources": [{"names": ["client"]}],
        }
        many = {"per_second": 1000, "burst_count": 1000}
        config = {
            "server_name": NAME,
            "pid_file": str(folder / "pid"),
            "listeners": [listener],
            "database": {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}},
            "media_store_path": str(folder / "media"),
            "signing_key_path": str(folder / "signing.key"),
            "registration_shared_secret": SECRET,
            "macaroon_secret_key": "for tests",
            "form_secret": "for tests",
            "report_stats": False,
            "trusted_key_servers": [],
            "federation_domain_whitelist": [],
            "enable_registration": False,
            "url_preview_enabled": False,
            "presence": {"enabled": False},
            "rc_message": many,
            "rc_login": {"address": many, "account": many, "failed_attempts": many},
            "rc_joins": {"local": many, "remote": many},
            "rc_invites": {"per_room": many, "per_user": many, "per_issuer": many},
            "rc_registration": many,
            "bcrypt_rounds": 4,
        }
        self._config.write_text(json.dumps(config))

    def process(self, namespace: int | None = None) -> Process:
        """Return its process, not yet started: in the network namespace of that open file, or in ours."""
        program: list[str | Path] = [
            FOLDER / "bin" / "python",
            "-m",
            "synapse.app.homeserver",
            "-c",
            self._config,
        ]
        if not (self.folder / "signing.key").exists():
            subprocess.run([*program, "--generate-keys"], check=True, capture_output=True, cwd=self.folder)
        bare: list[str | Path] = ["env", "-i", "-C", self.folder, f"PATH={os.environ['PATH']}"]
        return Process("synapse", [*bare, *program], log=self.log, namespace=namespace)

    @contextmanager
    def running(self) -> Iterator["Synapse"]:
        """Have it answer for the length of the block; it remembers everything for the next one."""
        process = self.process()
        process.start()
        try:
            self.wait_until_up(process)
            yield self
        finally:
            process.stop(grace=10)

    def person(self, name: str) -> str:
        """Register somebody; return their access token."""
        place = "/_synapse/admin/v1/register"
        nonce = self.ask("GET", place)["nonce"]
        said = "\0".join((nonce, name, f"password of {name}", "notadmin")).encode()
        mac = hmac.new(SECRET.encode(), said, hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": name, "password": f"password of {name}", "mac": mac}
        token: str = self.ask("POST", place, body)["access_token"]
        return token

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        """Ask its client API; the answer as JSON."""
        content = json.dumps(body).encode() if body is not None else None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = Request(self.url + path, content, headers, method=method)  # noqa: S310 - http on loopback
        with urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
            return json.loads(answer.read())

    def wait_until_up(self, process: Process) -> None:
        """Wait until it answers.

        Raises:
            Unavailable: It has ended, or does not answer in time.
        """
        end = time.monotonic() + UP_WITHIN
        while True:
            try:
                self.ask("GET", "/_matrix/client/versions")
            except (URLError, OSError):
                if process.pid is None or time.monotonic() > end:
                    said = " / ".join(process.last_lines(3)) or "nothing"
                    raise Unavailable(f"Synapse does not answer at {self.url}; it said: {said}") from None
                time.sleep(0.1)
            else:
                return


if __name__ == "__main__":
    raise SystemExit(why_not_here())
