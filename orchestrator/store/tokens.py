"""Tokens: what machines show instead of a person, scoped, expiring, and kept as a hash only."""

import hashlib
import hmac
import json
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, insert, or_, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.errors import BadInput, Conflict, NotAllowed, Unknown
from policies.model.offer import Offer, Verb
from policies.model.people import EVERY_FLEET, Caller, Grants, Role, TokenRow, Via

LONGEST = timedelta(days=365)
OF_MACHINES = frozenset({Role.VIEWER, Role.AUDITOR, Role.OPERATOR, Role.CI, Role.CHAT})
"""Roles a token can have: approving and administering take people."""

SECRET_BYTES = 32
"""So much chance needs no slow hash: nobody tries 2 to the power of 256 of them."""

USED_EVERY = timedelta(minutes=1)
"""How fresh `last_used` is: a machine that asks all the time does not write all the time."""

TOKENS_BEGIN = "pst_"
_SHAPE = re.compile(TOKENS_BEGIN + r"(?P<id>[0-9a-f]{16})_(?P<secret>[A-Za-z0-9_-]{43})")


class Tokens(Book):
    """Which machines may do what, until when."""

    def make_token(self, name: str, grants: Grants, lives: timedelta, person: str) -> tuple[str, TokenRow]:
        """Make a token; return its secret, which is never seen again, and what is known of it.

        Raises:
            BadInput: It would live too long, or not at all, or have a role that takes a person.
            Conflict: There is one of that name that was not revoked.
        """
        if not timedelta(0) < lives <= LONGEST:
            raise BadInput(f"a token lives for at most {LONGEST.days} days, and for longer than none")
        granted = frozenset[Role]().union(*grants.values())
        if not granted <= OF_MACHINES:
            raise BadInput(
                f"no token can be {', '.join(sorted(granted - OF_MACHINES))}: that takes a person; "
                f"it can be {', '.join(sorted(OF_MACHINES))}"
            )
        if not granted:
            raise BadInput("a token without any role can do nothing; give it one")
        made, number, secret = datetime.now(UTC), secrets.token_hex(8), secrets.token_urlsafe(SECRET_BYTES)
        row = TokenRow(
            id=number, name=name, grants=grants, made_by=person, made_at=made, expires=made + lives
        )
        table = tables.tokens
        with writing(self._engine) as connection:
            if connection.execute(select(table.c.id).where(table.c.name == name)).first():
                raise Conflict(
                    f"there is or was a token {name}; its name stays with what it did: take another"
                )
            values = row.model_dump(exclude={"grants"}) | {"hash": _hash(secret), "grants": _written(grants)}
            connection.execute(insert(table).values(values))
            body = {"grants": json.loads(_written(grants)), "expires": row.expires.isoformat()}
            for fleet in sorted(grants):
                append(connection, person, Via.SYSTEM, "token made", name, body, fleet=_whose(fleet))
        return f"{TOKENS_BEGIN}{number}_{secret}", row

    def tokens(self) -> tuple[TokenRow, ...]:
        """Return all tokens, those that are no good any more too, by name."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(tables.tokens).order_by(tables.tokens.c.name))
            return tuple(_row(row) for row in rows)

    def makers_of(self, name: str) -> tuple[str, ...]:
        """Return who made the token of that name, and so may be asking through it; nobody, if it is none."""
        table = tables.tokens
        with reading(self._engine) as connection:
            return tuple(connection.execute(select(table.c.made_by).where(table.c.name == name)).scalars())

    def revoke_token(self, name: str, person: str, reason: str) -> bool:
        """Make the token worthless from now on; return whether it was not before.

        Raises:
            BadInput: There is no token of that name.
        """
        table = tables.tokens
        with writing(self._engine) as connection:
            known = connection.execute(select(table).where(table.c.name == name)).one_or_none()
            if known is None:
                raise Unknown(f"there is no token {name}", Offer(verb=Verb.TOKENS))
            if known.revoked_at is not None:
                return False
            connection.execute(
                update(table)
                .where(table.c.name == name)
                .values(revoked_at=datetime.now(UTC), revoked_by=person)
            )
            for fleet in sorted(json.loads(known.grants)):
                body = {"reason": reason}
                append(connection, person, Via.SYSTEM, "token revoked", name, body, fleet=_whose(fleet))
            return True

    def caller_of(self, token: str, via: Via) -> Caller:
        """Return whose token this is.

        Raises:
            NotAllowed: It is none of ours, has expired or was revoked.
        """
        shape, now = _SHAPE.fullmatch(token), datetime.now(UTC)
        if shape is None:
            raise NotAllowed(
                "that is no token of penstock; an administrator makes one", Offer(verb=Verb.CREDENTIAL)
            )
        table = tables.tokens
        with reading(self._engine) as connection:
            known = connection.execute(select(table).where(table.c.id == shape["id"])).one_or_none()
        if known is None or not hmac.compare_digest(known.hash, _hash(shape["secret"])):
            raise NotAllowed("that token is not known here")
        if known.revoked_at is not None:
            raise NotAllowed(f"the token {known.name} was revoked; an administrator makes another")
        if known.expires <= now:
            raise NotAllowed(f"the token {known.name} expired at {known.expires:%Y-%m-%d %H:%M} UTC")
        row = _row(known)
        return Caller(person=row.name, grants=row.grants, via=via, machine=True)

    def note_use(self, token: str) -> None:
        """Write down that a token that is good was used now; seldom, and never while its caller waits."""
        shape, now, table = _SHAPE.fullmatch(token), datetime.now(UTC), tables.tokens
        if shape is None:
            return
        number = shape["id"]
        stale = or_(table.c.last_used.is_(None), table.c.last_used < now - USED_EVERY)
        with reading(self._engine) as connection:
            if connection.execute(select(table.c.id).where(table.c.id == number, stale)).first() is None:
                return
        with writing(self._engine) as connection:
            connection.execute(update(table).where(table.c.id == number, stale).values(last_used=now))


def _whose(granted: str) -> str | None:
    """Return whose audit entry it is that concerns a grant; None for one on every fleet."""
    return None if granted == EVERY_FLEET else granted


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _written(grants: Grants) -> str:
    return json.dumps({fleet: sorted(roles) for fleet, roles in sorted(grants.items())})


def _row(row: "Row[Any]") -> TokenRow:
    known = {name: getattr(row, name) for name in TokenRow.model_fields}
    return TokenRow(**known | {"grants": json.loads(row.grants)})
