"""Certificates on this host: each generation whole in a folder of its own, and one link to that which counts.

certificate/3/chain.pem, key.pem     before
certificate/4/chain.pem, key.pem     laid down last
certificate/current -> 4             what credentials name: certificate/current/chain.pem
certificate/next/                    what is being proved
certificate/pending/                 what was begun for the one after that
certificate/failed.json              since when it is not renewed, and why
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from cryptography import x509
from pydantic import AwareDatetime, ValidationError

from activities.drivers.certificate.pending import Pending
from activities.drivers.certificate.port import Pair
from activities.drivers.disk import point, sync_folder, sync_tree, write_whole
from activities.drivers.private_files import write_private
from policies.model.errors import Conflict
from policies.model.value import Sentence, Value

KEPT = 3
"""Generations that stay; the older ones are there for who wants to go back by hand."""


class Failed(Value):
    """Since when a certificate could not be renewed, and why the last time."""

    since: AwareDatetime
    again: AwareDatetime
    times: int
    why: Sentence


class CertificateFolder:
    """The generations of one gateway's certificate."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        """Take where they are, and what certificates have to name; nothing is made yet."""
        self.path = path
        self.pending = Pending(path / "pending", names)
        self.next = path / "next"

    @property
    def current(self) -> Pair | None:
        """The generation that counts, None before the first one."""
        try:
            there = (self.path / "current").resolve(strict=True)
            return Pair((there / "chain.pem").read_text(), (there / "key.pem").read_bytes())
        except (OSError, UnicodeDecodeError):
            return None

    @property
    def leaf(self) -> x509.Certificate | None:
        """The certificate that counts, None before the first one, or where somebody has spoilt it."""
        pair = self.current
        try:
            return None if pair is None else x509.load_pem_x509_certificate(pair.chain.encode())
        except ValueError:
            return None

    @property
    def came(self) -> datetime:
        """When the generation that counts was laid down."""
        return datetime.fromtimestamp((self.path / "current" / "chain.pem").stat().st_mtime, UTC)

    @property
    def failed(self) -> Failed | None:
        """Since when it is not renewed; None where the last attempt was a good one."""
        try:
            return Failed.model_validate_json((self.path / "failed.json").read_text())
        except (OSError, ValidationError):
            return None

    def note(self, failed: Failed) -> None:
        """Write down that it is not renewed."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self.path / "failed.json", failed.model_dump_json())

    def propose(self, pair: Pair) -> Path:
        """Write what is to be proved; return its folder, which nobody serves."""
        shutil.rmtree(self.next, ignore_errors=True)
        self.next.mkdir(mode=0o700)
        write_private(self.next / "key.pem", pair.key)
        write_private(self.next / "chain.pem", pair.chain.encode())
        return self.next

    def lay(self) -> None:
        """Have what was proposed count, in one step; what was pending is done with."""
        generations = self._generations()
        sync_tree(self.next)
        new = self.path / str(max(generations, default=0) + 1)
        self.next.rename(new)
        sync_folder(self.path)
        (self.path / "failed.json").unlink(missing_ok=True)
        point(self.path / "current", new)
        self.pending.forget()
        for number in generations[: -(KEPT - 1)]:
            shutil.rmtree(self.path / str(number), ignore_errors=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have nobody else renew this certificate meanwhile.

        Raises:
            Conflict: Somebody does.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            try:
                flock(lock, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    f"another process renews the certificate in {self.path}; wait for it"
                ) from None
            yield

    def _generations(self) -> list[int]:
        return sorted(int(path.name) for path in self.path.iterdir() if path.name.isdecimal())
