"""Complaints and tickets by signed webhook, each with a key of its own for every fleet, or one for all.

Whoever holds the key of complaints may have changes held. Whoever holds that of tickets may also say that
one is over, which ends a hold: so it is another one, and no sender of complaints has it.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from activities.drivers.private_files import secret_line
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
    ticket_keys: Path | None = None
    """The same of tickets."""

    def read(self, fleet: str, body: bytes, at: str, signature: str) -> Complaint:
        """Return a genuine and fresh complaint about a fleet of that name, whether or not there is one.

        Raises:
            Unknown: No complaints are taken here about any fleet.
            NotAllowed: The signature does not fit, as it cannot where there is no such fleet or no key, or
                the message is old.
            BadInput: Signed, but no complaint.
        """
        key = self._or_none_at_all(self.keys, lambda: self.key_of(fleet))
        return read_complaint(key, fleet, body, at, signature, time.time())

    def read_ticket(self, fleet: str, body: bytes, at: str, signature: str) -> Ticket:
        """Return a genuine and fresh ticket about a fleet of that name.

        Raises:
            Unknown, NotAllowed: As of complaints.
            BadInput: As of complaints; or it is signed with a key of complaints, whose sender may close no
                ticket. Only who has that key is told of which fleet.
        """
        key = self._or_none_at_all(self.ticket_keys, lambda: _key_in(self.ticket_keys, "tickets", fleet))
        ticket = read_ticket(key, fleet, body, at, signature, time.time())
        self._refuse_key_of_complaints(fleet, key)
        return ticket

    def record_ticket(self, fleet: Fleet, ticket: Ticket) -> bool:
        """Record the ticket as it stands now; return whether that is new.

        Raises:
            BadInput: It is about no gateway of the fleet.
            Conflict: There are too many tickets of the fleet.
        """
        return Tickets(self.engine).record_ticket(fleet, ticket)

    @staticmethod
    def _or_none_at_all(keys: Path | None, key: Callable[[], bytes]) -> bytes:
        """Return the fleet's key, or one that fits no signature: who guesses learns of no fleet."""
        try:
            return key()
        except Unknown:
            if keys is None:
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
        return _key_in(self.keys, "complaints", fleet)

    def _refuse_key_of_complaints(self, fleet: str, key: bytes) -> None:
        for other in self._with_complaints(fleet):
            try:
                theirs = self.key_of(other)
            except Unknown:
                continue
            except BadInput:
                if other == fleet:
                    raise
                continue  # no complaints are taken with it: no reason to refuse this fleet's tickets
            if key == theirs:
                raise BadInput(
                    f"tickets of {fleet} have the key of complaints about {other}: "
                    "make another one for PENSTOCK_TICKETS_KEY, with `openssl rand -hex 32`"
                )

    def _with_complaints(self, fleet: str) -> list[str]:
        """Return the fleets whose complaints have a key of their own, or the fleet itself."""
        if self.keys is None or not self.keys.is_dir():
            return [fleet]
        return sorted(path.stem for path in self.keys.glob("*.key"))


def _key_in(keys: Path | None, what: str, fleet: str) -> bytes:
    if keys is None:
        raise Unknown(f"no {what} are taken here: PENSTOCK_{what.upper()}_KEY names no key")
    path = keys / f"{fleet}.key" if keys.is_dir() else keys
    try:
        path.lstat()
    except FileNotFoundError as error:
        raise Unknown(f"no {what} are taken about {fleet}: there is no {path.name}") from error
    except OSError as error:
        raise BadInput(f"the key {path} cannot be read: {error.strerror}; correct its path") from error
    return secret_line(path, "the key", LEAST_KEY).encode()
