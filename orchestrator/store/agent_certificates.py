"""What the ledger knows of the certificates of a fleet's agents, in one question however large it is."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, Text, cast, func, literal, null, select, union_all

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading

_ISSUED, _REVOKED, _OPEN = "issued", "revoked", "open"


class IssuedRow(NamedTuple):
    """The newest certificate that a gateway was given since the last revocation."""

    issued: datetime
    expires: datetime


class RevokedRow(NamedTuple):
    """When, by whom and why a gateway's certificates were revoked the last time."""

    at: datetime
    person: str
    reason: str


class OpenRow(NamedTuple):
    """An enrolment token that was not used yet and still can be."""

    person: str
    expires: datetime


class CertificateRows(NamedTuple):
    """What there is, by gateway."""

    issued: Mapping[str, IssuedRow]
    revoked: Mapping[str, RevokedRow]
    open: Mapping[str, OpenRow]


class AgentCertificates(Book):
    """Certificates of agents as they are looked at; who gets one is asked of `Certificates`."""

    def agent_certificates(self, fleet: str) -> CertificateRows:
        """Return what was issued to the fleet's gateways, what was revoked, and which tokens are open."""
        issued, revoked = dict[str, IssuedRow](), dict[str, RevokedRow]()
        opened = dict[str, OpenRow]()
        wanted = union_all(_issued(fleet), _revoked(fleet), _open(fleet))
        with reading(self._engine) as connection:
            for row in connection.execute(wanted):
                if row.kind == _ISSUED:
                    issued[row.gateway] = IssuedRow(row.begin, row.end)
                elif row.kind == _REVOKED:
                    revoked[row.gateway] = RevokedRow(row.begin, row.person, row.reason)
                else:
                    opened[row.gateway] = OpenRow(row.person, row.end)
        return CertificateRows(issued, revoked, opened)


def _issued(fleet: str) -> "Select[Any]":
    held = tables.gateway_certificates
    newest = func.row_number().over(partition_by=held.c.gateway, order_by=held.c.issued_at.desc())
    each = select(held.c.gateway, held.c.issued_at, held.c.expires, newest.label("place"))
    rows = each.where(held.c.fleet == fleet).subquery()
    nothing = cast(null(), Text())
    return select(
        literal(_ISSUED).label("kind"),
        rows.c.gateway,
        rows.c.issued_at.label("begin"),
        rows.c.expires.label("end"),
        nothing.label("person"),
        nothing.label("reason"),
    ).where(rows.c.place == 1)


def _revoked(fleet: str) -> "Select[Any]":
    table = tables.gateway_revocations
    never = cast(null(), tables.Moment())
    return select(
        literal(_REVOKED), table.c.gateway, table.c.at, never, table.c.person, table.c.reason
    ).where(table.c.fleet == fleet)


def _open(fleet: str) -> "Select[Any]":
    table = tables.enrolments
    nothing = cast(null(), Text())
    return select(
        literal(_OPEN), table.c.gateway, table.c.made_at, table.c.expires, table.c.made_by, nothing
    ).where(table.c.fleet == fleet, table.c.used_at.is_(None), table.c.expires > datetime.now(UTC))
