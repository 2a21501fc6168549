"""Renew a channel's index before it ends: the same content, a later serial, signed anew.

Whoever may write to a repository's folder must not have the key of its index at work for them. So the index
that is there has to be signed as the trust policy wants, and no older than the last one that was seen here.
The new one is pointed to after its signature held under the same policy: hosts never see a worse one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from activities.drivers.store.states import TrustStates
from activities.verdicts import Document, LoadedTrust, signed_index
from orchestrator.publishing.builder import index_statement
from orchestrator.publishing.folder import (
    add_signature,
    offer,
    offered,
    publish,
    read_signatures,
    read_statement,
)
from orchestrator.publishing.signing import Signer
from policies.model.errors import BadInput, Conflict
from policies.model.refusals import ReplayDetected, ScopeMismatch
from policies.model.release import ChannelIndex
from policies.model.trust import Rule
from policies.model.value import Digest
from policies.model.verification import Signed, TrustState
from policies.trust.admission import rule_for


@dataclass(frozen=True)
class Renewal:
    """The index that a channel has now: its serial, its end, and whether it was just made."""

    digest: Digest
    serial: int
    expires_at: datetime
    new: bool


@dataclass(frozen=True)
class Channel:
    """One channel of a repository's folder, the trust policy of its hosts, and what was seen of it here."""

    root: Path
    product: str
    name: str
    trust: LoadedTrust
    seen: Path
    """A folder of this machine's own, where nobody writes who may write to the repository."""

    def renew(self, signer: Signer, now: datetime, *, within: timedelta, days: int) -> Renewal:
        """Return the channel's index, signed anew when it ends within that time; it may have ended already.

        Raises:
            TrustError: the index that is there is not to be trusted, or the new signature would not be.
            BadInput: there is no index, or every new one would be near its end at once.
            Conflict: somebody else is renewing it.
        """
        if within >= timedelta(days=days):
            raise BadInput(f"an index of {days} days would be signed anew each time; let --within be shorter")
        with self._alone():
            states, rule = TrustStates(self.seen), rule_for(self.trust.policy, self.product, self.name)
            digest = offered(self.root, self.product, self.name)
            index = self._read(digest, rule, now)
            self._require_newest(states.read(self.product, self.name), digest, index)
            new = index.expires_at - now <= within
            if new:
                digest = self._signed(index, signer, now, days)
                index = self._read(digest, rule, now)
                offer(self.root, self.product, self.name, digest)
            # Noted last: whoever is killed before finds an index that is as new as what was seen, or newer.
            self._note(states, digest, index)
        return Renewal(digest, index.serial, index.expires_at, new)

    def _read(self, digest: Digest, rule: Rule, now: datetime) -> ChannelIndex:
        document = Document(read_statement(self.root, digest), read_signatures(self.root, digest))
        index = signed_index(document, self.trust, rule, now)
        if (index.product, index.channel) != (self.product, self.name):
            raise ScopeMismatch(
                f"the index is for {index.product}/{index.channel}, not for {self.product}/{self.name}"
            )
        return index

    def _require_newest(self, state: TrustState, digest: Digest, index: ChannelIndex) -> None:
        """Refuse an old index that was put back, and one beside the last: renewed, both would count again."""
        beside = (
            state.index is not None and index.serial == state.index_serial and state.index.statement != digest
        )
        if index.serial < state.index_serial or beside:
            raise ReplayDetected(
                f"{self.root} offers an index of {self.product}/{self.name} with serial {index.serial}, and "
                f"{self.seen} has seen {state.index_serial}; make and sign one with a later serial"
            )

    def _signed(self, index: ChannelIndex, signer: Signer, now: datetime, days: int) -> Digest:
        statement = index_statement(
            self.product,
            self.name,
            index.current,
            serial=index.serial + 1,
            issued_at=now.replace(microsecond=0),
            days=days,
            revoked=index.revoked,
            security_floor=index.security_floor,
        )
        signature = signer.sign(statement)
        digest = publish(self.root, statement, [], {})
        add_signature(self.root, digest, signer.kind, signature, signer.time_stamp)
        return digest

    def _note(self, states: TrustStates, digest: Digest, index: ChannelIndex) -> None:
        last = {"index_serial": index.serial, "index": Signed(statement=digest, signatures=())}
        states.change(self.product, self.name, lambda state: state.model_copy(update=last))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.seen.mkdir(parents=True, exist_ok=True)
        with (self.seen / "renewing").open("w") as lock:
            try:
                flock(lock, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"another process renews an index with {self.seen}; wait for it") from None
            yield
