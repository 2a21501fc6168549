"""A real PostgreSQL, Debian's, of the tests' own: on a socket in a folder of its own, gone with them."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import create_engine, text

from orchestrator.store.ledger import Ledger
from tests.patience import PATIENCE

PROGRAMS = Path("/usr/lib/postgresql")
OWNER = "postgres"
"""PostgreSQL refuses to run as root; Debian's package makes this user for it."""

UP_WITHIN = PATIENCE

NEW_LEDGER = "ledger_new"
"""Of the newest schema with nothing in it; migrated once, and copied for each test that wants one."""


class PostgreSQL:
    """A server with as many databases as tests want."""

    def __init__(self) -> None:
        self._migrated = False

    def __enter__(self) -> Self:
        found = sorted(PROGRAMS.glob("*/bin"), key=lambda place: float(place.parent.name))
        if not found:
            raise RuntimeError("PostgreSQL is not installed: ./run test installs it")
        self._programs: Path = found[-1]
        self._owner = OWNER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-postgresql-"))
        shutil.chown(self._folder, self._owner)
        data = self._folder / "data"
        self._run("initdb", "--no-sync", "--auth=trust", f"--username={OWNER}", "-D", str(data))
        quick = ("fsync=off", "full_page_writes=off", "listen_addresses=", "shared_buffers=32MB")
        chosen = (*quick, f"unix_socket_directories={self._folder}")
        options = [part for one in chosen for part in ("-c", one)]
        with (self._folder / "log").open("wb") as log:
            self._server = subprocess.Popen(
                [self._programs / "postgres", "-D", str(data), *options],
                stdout=log,
                stderr=log,
                user=self._owner if os.geteuid() == 0 else None,
                cwd=self._folder,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._server.terminate()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str = OWNER) -> str:
        """Return the address of a database, for its owner."""
        return f"postgresql+psycopg://{OWNER}@/{database}?host={self._folder}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """Give the address of an empty database for the length of the body."""
        with self._copy("template0") as address:
            yield address

    @contextmanager
    def ledger(self) -> Iterator[str]:
        """Give the address of a new ledger for the length of the body."""
        if not self._migrated:
            self._administer(f"CREATE DATABASE {NEW_LEDGER}")
            Ledger.open(self.url(NEW_LEDGER)).close()
            self._migrated = True
        with self._copy(NEW_LEDGER) as address:
            yield address

    @contextmanager
    def _copy(self, template: str) -> Iterator[str]:
        name = f"ledger_{secrets.token_hex(6)}"
        self._administer(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            yield self.url(name)
        finally:
            self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    def _administer(self, command: str) -> None:
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(command))
        engine.dispose()

    def _wait(self) -> None:
        until = time.monotonic() + UP_WITHIN
        while self._ready().returncode:
            if time.monotonic() > until or self._server.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not come up: {(self._folder / 'log').read_text()}")
            time.sleep(0.05)

    def _ready(self) -> "subprocess.CompletedProcess[bytes]":
        asked = [os.fspath(self._programs / "pg_isready"), "-h", str(self._folder)]
        return subprocess.run(asked, capture_output=True, check=False)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [os.fspath(self._programs / program), *arguments],
            check=True,
            capture_output=True,
            user=self._owner if os.geteuid() == 0 else None,
            cwd=self._folder,
        )
