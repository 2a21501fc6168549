"""Renewal: the next certificate is asked for, proved, and laid down; until then the old one counts.

What runs gets it by a reload, which is a change: docs/decisions/0028.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from activities.drivers.certificate.folder import CertificateFolder, Failed
from activities.drivers.certificate.port import Pair, Source
from activities.drivers.certificate.proof import names_all, require_proved
from policies.model.errors import PenstockError, Refused, Unavailable
from policies.renewal import LONGEST_AGAIN, again, due


class CertificateRenewal:
    """Looks after the certificate that the users of one gateway see."""

    def __init__(
        self,
        gateway: str,
        names: tuple[str, ...],
        authority: Path,
        folder: CertificateFolder,
        source: Callable[[], Source],
        lies_ready: Callable[[Pair | None], bool] = lambda _: False,
    ) -> None:
        """Take the parts.

        Args:
            gateway: Whose certificate it is.
            names: What it has to name.
            authority: Whom users trust, in PEM.
            folder: Where it is kept.
            source: From where it comes; made when it is asked, since that may load much.
            lies_ready: Whether another one than that lies ready, whatever its life; nobody is asked for it.
        """
        self._gateway = gateway
        self._names = names
        self._authority = authority
        self._folder = folder
        self._source = source
        self._lies_ready = lies_ready

    def is_due(self, now: datetime) -> bool:
        """Say whether it is time: at two thirds of its life, where it names too little or another is ready.

        After a failure it is time again when the wait is over. Nobody is asked for that.
        """
        failed, leaf = self._folder.failed, self._folder.leaf
        if failed is not None and timedelta(0) < failed.again - now <= LONGEST_AGAIN * 2:
            return False  # of a wait that a clock set back has made longer nothing is known
        if leaf is None or self._lies_ready(self._folder.current) or not names_all(leaf, self._names):
            return True
        begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        return now >= due(begin, end, self._folder.came, now, self._gateway)

    def renew(self, *, older: bool = False) -> datetime:
        """Have the next certificate count; return when it ends. Killed anywhere, a repeat goes on.

        Args:
            older: Whether it may also end sooner than the one that counts.

        Raises:
            Refused: None came, or one that users would not take; the one before counts.
            BadInput: What the host was told is wrong; nobody was asked in vain.
            Unavailable: The source does not answer, or the disk takes nothing; what was begun is kept.
            Conflict: Another process renews it.
        """
        with self._folder.alone():
            self._drop_what_is_done()
            try:
                ends = self._proved(older=older)
                self._folder.lay()
            except Refused:
                self._folder.pending.forget()
                raise
            except OSError as error:
                raise Unavailable(f"{self._folder.path} cannot be written: {error.strerror}") from error
        return ends

    @property
    def failing(self) -> str:
        """Since when it is not renewed, and why, in half a sentence; empty where it is."""
        failed = self._folder.failed
        return "" if failed is None else f"since {failed.since:%Y-%m-%d %H:%M} UTC: {failed.why}"

    def note(self, error: PenstockError, now: datetime) -> Failed:
        """Write down that it failed, for metrics and for the gateway's state; return what was written."""
        before = self._folder.failed
        times = before.times + 1 if before else 1
        since = before.since if before else now
        failed = Failed(since=since, times=times, why=str(error), again=now + again(times, self._gateway))
        self._folder.note(failed)
        return failed

    @property
    def ends(self) -> datetime | None:
        """When the certificate that counts ends, None before the first one."""
        leaf = self._folder.leaf
        return None if leaf is None else leaf.not_valid_after_utc

    def _drop_what_is_done(self) -> None:
        """Forget what was pending where its certificate was laid down and the host was killed just then."""
        leaf = self._folder.leaf
        if leaf is not None and self._folder.pending.has_key():
            key = load_pem_private_key(self._folder.pending.key(), None)
            if key.public_key() == leaf.public_key():
                self._folder.pending.forget()

    def _proved(self, *, older: bool) -> datetime:
        """Have the next certificate ready to be laid down; return when it ends."""
        pair = self._source().obtain(self._folder.pending)
        if pair == self._folder.current:
            raise Refused(f"its source has only the certificate that {self._gateway} has already")
        require_proved(pair, self._folder.propose(pair), self._names, self._authority)
        leaf = x509.load_pem_x509_certificate(pair.chain.encode())
        end, before = leaf.not_valid_after_utc, self._folder.leaf
        if before is not None and end <= before.not_valid_after_utc and not older:
            raise Refused(
                f"the certificate that came ends at {end:%Y-%m-%d %H:%M} UTC, not later than the one in use; "
                "penstock agent certify --even-if-older takes it"
            )
        return end
