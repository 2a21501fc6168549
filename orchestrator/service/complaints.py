"""Complaints by signed webhook: whoever holds a fleet's key may have its changes held, and nothing else."""

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from activities.drivers.rights import require_own
from orchestrator.store.complaints import ComplaintList
from orchestrator.store.tickets import Tickets
from policies.judge.complaints import Complaint, read_complaint
from policies.judge.tickets import read_ticket
from policies.model.errors import BadInput, Unknown
from policies.model.fleet import Fleet
from policies.model.ticket import Ticket

LEAST_KEY = 32


@dataclass(frozen=True)
class ComplaintService:
    """Takes complaints into the ledger, each under the key of its fleet."""

    engine: Engine
    keys: Path | None
    """A file with the key of every fleet, or a folder with `FLEET.key` for each; None where none is taken."""

    def read(self, fleet: str, body: bytes, at: str, signature: str) -> Complaint:
        """Return a genuine and fresh complaint about a fleet of that name, whether or not there is one.

        Raises:
            Unknown: No complaints are taken here about any fleet.
            NotAllowed: The signature does not fit, as it cannot where there is no such fleet or no key, or
                the message is old.
            BadInput: Signed, but no complaint.
        """
        return read_complaint(self._key_or_none_at_all(fleet), fleet, body, at, signature, time.time())

    def read_ticket(self, fleet: str, body: bytes, at: str, signature: str) -> Ticket:
        """Return a genuine and fresh ticket about a fleet of that name; raises as `read` does."""
        return read_ticket(self._key_or_none_at_all(fleet), fleet, body, at, signature, time.time())

    def record_ticket(self, fleet: Fleet, ticket: Ticket) -> bool:
        """Record the ticket as it stands now; return whether that is new.

        Raises:
            BadInput: It is about no gateway of the fleet.
            Conflict: There are too many tickets of the fleet.
        """
        return Tickets(self.engine).record_ticket(fleet, ticket)

    def _key_or_none_at_all(self, fleet: str) -> bytes:
        """Return the fleet's key, or one that fits no signature: who guesses learns of no fleet."""
        try:
            return self.key_of(fleet)
        except Unknown:
            if self.keys is None:
                raise
            return secrets.token_bytes(LEAST_KEY)

    def record(self, fleet: Fleet, complaint: Complaint) -> bool:
        """Record the complaint; return whether it is new.

        Raises:
            BadInput: It is about no gateway of the fleet.
        """
        return ComplaintList(self.engine, fleet).add(complaint)

    def key_of(self, fleet: str) -> bytes:
        """Return what complaints about that fleet are signed with.

        Raises:
            Unknown: No complaints are taken about it.
            BadInput: The file is none with a key, or others may read it; no sentence says what is in it.
        """
        if self.keys is None:
            raise Unknown("no complaints are taken here: PENSTOCK_COMPLAINTS_KEY names no key")
        path = self.keys / f"{fleet}.key" if self.keys.is_dir() else self.keys
        require_own(path, secret=True)
        try:
            key = path.read_bytes().strip()
        except FileNotFoundError as error:
            raise Unknown(f"no complaints are taken about {fleet}: there is no {path.name}") from error
        except OSError as error:
            raise BadInput(f"the key {path} cannot be read: {error.strerror}; correct its path") from error
        if len(key) < LEAST_KEY or b"\n" in key:
            raise BadInput(f"the key {path} must be one line of at least {LEAST_KEY} characters")
        return key
