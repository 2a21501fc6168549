"""Certificates of gateways: one-time tokens for the first one, what was issued since, what was revoked.

A revocation names a gateway and forgets what was issued to it; what is issued later is remembered again.
Enrolling a gateway anew is such a revocation, too: of what its predecessor was given.
So no clock decides whether a certificate is older than a revocation.

A ledger that was lost does not know what it had issued. Of a gateway that is enrolled in this one, an unknown
certificate is good only if it began after the oldest that the ledger knows: one that an older copy of the
ledger has not seen yet, or one of another authority.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Row, delete, insert, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.host_records import forget_host
from orchestrator.store.record import append
from policies.model.change import PENSTOCK
from policies.model.errors import Conflict, NotAllowed
from policies.model.people import Via

GOOD_FOR = timedelta(minutes=15)
"""How long a one-time token is good: as long as it takes to walk to a host."""

KEPT = timedelta(days=30)
"""How long a token that is good for nothing any more is remembered, to say why."""

MOST_LIVING = 4
"""Certificates that one gateway may have at a time: a third of a life after another, it has two.

A relay gives each of them connections and calls of its own."""

SECRET_BYTES = 32
VIA = "relay"
TOKENS_BEGIN = "pse_"
_SHAPE = re.compile(TOKENS_BEGIN + r"(?P<id>[0-9a-f]{16})_(?P<secret>[A-Za-z0-9_-]{43})")


class Signed(Protocol):
    """A certificate that was signed, as far as the ledger keeps it."""

    @property
    def serial(self) -> str:
        """Its number, in hexadecimal."""

    @property
    def expires(self) -> datetime:
        """When it is good no longer."""


S = TypeVar("S", bound=Signed)


@dataclass(frozen=True)
class Admitted:
    """Which certificates of a gateway are good."""

    serials: frozenset[str]
    since: datetime | None
    """Unknown certificates that begin later are good, too; None for none of them."""

    def admits(self, serial: str, begins: datetime) -> bool:
        """Return whether the certificate of that serial is good."""
        return serial in self.serials or (self.since is not None and begins >= self.since)


class Certificates(Book):
    """Who may have a certificate, who has one, and whose are worth nothing."""

    def make_enrolment(self, fleet: str, gateway: str, person: str) -> tuple[str, datetime]:
        """Make a one-time token for the gateway's host; return it and until when it is good.

        It is never seen again: only its hash is kept.
        """
        now, number, secret = datetime.now(UTC), secrets.token_hex(8), secrets.token_urlsafe(SECRET_BYTES)
        values = {
            "id": number,
            "fleet": fleet,
            "gateway": gateway,
            "hash": _hash(secret),
            "made_by": person,
            "made_at": now,
            "expires": now + GOOD_FOR,
        }
        table = tables.enrolments
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.expires < now - KEPT))
            connection.execute(insert(table).values(values))
            body = {"expires": (now + GOOD_FOR).isoformat(timespec="seconds"), "token": number}
            subject = f"{fleet}/{gateway}"
            append(connection, person, Via.SYSTEM, "enrolment token made", subject, body, fleet=fleet)
        return f"{TOKENS_BEGIN}{number}_{secret}", now + GOOD_FOR

    def use_enrolment(self, token: str, sign: Callable[[str, str], S], peer: str) -> S:
        """Return what is signed for the gateway of this token, which is good for nothing afterwards.

        What was issued to the gateway before is good for nothing either: the name has another host now,
        or its host another key. Whatever `sign` raises leaves the token as it was.

        Raises:
            NotAllowed: It is no token of ours, was used, or has expired.
        """
        shape, now, table = _SHAPE.fullmatch(token), datetime.now(UTC), tables.enrolments
        if shape is None:
            raise NotAllowed("that is no enrolment token; `penstock gateway enrol` makes one")
        with writing(self._engine) as connection:
            known = connection.execute(select(table).where(table.c.id == shape["id"])).one_or_none()
            if known is None or not hmac.compare_digest(known.hash, _hash(shape["secret"])):
                raise NotAllowed("that enrolment token is not known here")
            _refuse_spent(known, now)
            signed = sign(known.fleet, known.gateway)
            connection.execute(update(table).where(table.c.id == known.id).values(used_at=now))
            forget_host(connection, known.fleet, known.gateway)
            ended = _forget_issued(connection, known.fleet, known.gateway)
            if ended:
                _revoke(connection, known.fleet, known.gateway, known.made_by, "enrolled anew")
            _keep(connection, known.fleet, known.gateway, signed, None)
            body = {"serial": signed.serial, "token": known.id, "from": peer, "ended": ended}
            subject = f"{known.fleet}/{known.gateway}"
            append(connection, known.made_by, VIA, "gateway enrolled", subject, body, fleet=known.fleet)
        return signed

    def renew_certificate(
        self,
        fleet: str,
        gateway: str,
        serial: str,
        begins: datetime,
        sign: Callable[[], S],
        sign_again: Callable[[str, datetime, datetime], S],
        peer: str,
    ) -> S:
        """Return what is signed for a gateway that has shown the certificate of that serial and beginning.

        Who shows it again has not got what was signed then, or could not keep it: that is what is signed
        again, by its serial and from when until when it is good, and nothing is added to the ledger.

        Raises:
            NotAllowed: The certificate was revoked.
            Conflict: It was renewed so often that something must be wrong there.
        """
        with writing(self._engine) as connection:
            admitted = _admitted(connection, fleet, gateway).get((fleet, gateway))
            if admitted is not None and not admitted.admits(serial, begins):
                raise NotAllowed(f"the certificate of {fleet}/{gateway} was revoked; enrol its host anew")
            if (next_one := _renewed_as(connection, fleet, gateway, serial)) is not None:
                return sign_again(next_one.serial, next_one.issued_at, next_one.expires)
            _refuse_many(connection, fleet, gateway)
            signed = sign()
            _keep(connection, fleet, gateway, signed, serial)
            body = {"serial": signed.serial, "renews": serial, "from": peer}
            append(connection, PENSTOCK, VIA, "certificate renewed", f"{fleet}/{gateway}", body, fleet=fleet)
        return signed

    def revoke_certificates(self, fleet: str, gateway: str, person: str, reason: str) -> int:
        """Make every certificate and open token of the gateway worthless; return how many we had issued."""
        now, tokens = datetime.now(UTC), tables.enrolments
        with writing(self._engine) as connection:
            good = _forget_issued(connection, fleet, gateway)
            _revoke(connection, fleet, gateway, person, reason)
            connection.execute(
                update(tokens)
                .where(tokens.c.fleet == fleet, tokens.c.gateway == gateway, tokens.c.used_at.is_(None))
                .values(expires=now)
            )
            body = {"reason": reason, "serials": good}
            subject = f"{fleet}/{gateway}"
            append(connection, person, Via.SYSTEM, "certificates revoked", subject, body, fleet=fleet)
        return len(good)

    def admitted_certificates(self) -> Mapping[tuple[str, str], Admitted]:
        """Return which certificates are good, for each gateway with any that is not."""
        with reading(self._engine) as connection:
            return _admitted(connection)

    def has_enrolled(self) -> bool:
        """Return whether any gateway was given a certificate, as far as that is remembered."""
        given, used = tables.gateway_certificates.c.serial, tables.enrolments.c
        with reading(self._engine) as connection:
            queries = (select(given).limit(1), select(used.id).where(used.used_at.is_not(None)).limit(1))
            return any(connection.execute(query).first() is not None for query in queries)

    def note_refusal(
        self, subject: str, fleet: str | None, action: str, body: Mapping[str, str], same: str
    ) -> None:
        """Write down that a relay refused something; what is the `same` is written once an hour."""
        key = f"relay/{action}/{same}/{datetime.now(UTC):%Y-%m-%dT%H}"
        with writing(self._engine) as connection:
            append(connection, PENSTOCK, VIA, action, subject, dict(body), key, fleet=fleet)


def _admitted(
    connection: Connection, fleet: str | None = None, gateway: str | None = None
) -> dict[tuple[str, str], Admitted]:
    held, ended = tables.gateway_certificates.c, tables.gateway_revocations.c
    issued = select(held.fleet, held.gateway, held.serial, held.issued_at)
    revoked = select(ended.fleet, ended.gateway)
    if fleet is not None:
        issued = issued.where(held.fleet == fleet, held.gateway == gateway)
        revoked = revoked.where(ended.fleet == fleet, ended.gateway == gateway)
    found: dict[tuple[str, str], dict[str, datetime]] = {}
    for row in connection.execute(issued):
        found.setdefault((row.fleet, row.gateway), {})[row.serial] = row.issued_at
    strict = {(row.fleet, row.gateway) for row in connection.execute(revoked)}
    return {
        name: Admitted(
            serials=frozenset(serials := found.get(name, {})),
            since=None if name in strict else min(serials.values()),
        )
        for name in found.keys() | strict
    }


def _forget_issued(connection: Connection, fleet: str, gateway: str) -> list[str]:
    """Forget what was issued to the gateway; return the serials of what was still good."""
    held = tables.gateway_certificates
    mine = (held.c.fleet == fleet, held.c.gateway == gateway)
    good = select(held.c.serial).where(*mine, held.c.expires > datetime.now(UTC))
    serials = sorted(connection.execute(good).scalars())
    connection.execute(delete(held).where(*mine))
    return serials


def _revoke(connection: Connection, fleet: str, gateway: str, person: str, reason: str) -> None:
    """Let only those certificates of the gateway be good that are issued from now on."""
    table = tables.gateway_revocations
    values = {"fleet": fleet, "gateway": gateway, "person": person, "reason": reason}
    connection.execute(delete(table).where(table.c.fleet == fleet, table.c.gateway == gateway))
    connection.execute(insert(table).values(values | {"at": datetime.now(UTC)}))


def _renewed_as(connection: Connection, fleet: str, gateway: str, serial: str) -> "Row[Any] | None":
    held = tables.gateway_certificates
    mine = (held.c.fleet == fleet, held.c.gateway == gateway, held.c.renews == serial)
    living = select(held).where(*mine, held.c.expires > datetime.now(UTC))
    return connection.execute(living.order_by(held.c.expires.desc())).first()


def _refuse_many(connection: Connection, fleet: str, gateway: str) -> None:
    held = tables.gateway_certificates
    mine = (held.c.fleet == fleet, held.c.gateway == gateway, held.c.expires > datetime.now(UTC))
    if len(connection.execute(select(held.c.serial).where(*mine)).all()) >= MOST_LIVING:
        raise Conflict(
            f"{fleet}/{gateway} has {MOST_LIVING} living certificates; enrol its host anew, which ends them"
        )


def _refuse_spent(known: "Row[Any]", now: datetime) -> None:
    whose = f"the enrolment token of {known.fleet}/{known.gateway}"
    if known.used_at is not None:
        raise NotAllowed(f"{whose} was used at {known.used_at:%Y-%m-%d %H:%M} UTC; make another")
    if known.expires < known.made_at + GOOD_FOR:
        raise NotAllowed(f"{whose} was revoked at {known.expires:%Y-%m-%d %H:%M} UTC; make another")
    if known.expires <= now:
        raise NotAllowed(f"{whose} expired at {known.expires:%Y-%m-%d %H:%M} UTC; make another")


def _keep(connection: Connection, fleet: str, gateway: str, signed: Signed, renews: str | None) -> None:
    table, now = tables.gateway_certificates, datetime.now(UTC)
    mine = (table.c.fleet == fleet, table.c.gateway == gateway)
    connection.execute(delete(table).where(*mine, table.c.expires < now))
    values = {"serial": signed.serial, "fleet": fleet, "gateway": gateway, "renews": renews}
    connection.execute(insert(table).values(values | {"issued_at": now, "expires": signed.expires}))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
