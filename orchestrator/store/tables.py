"""The ledger's tables. Times are aware and in UTC; digests and JSON are text that is never rewritten."""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class Moment(TypeDecorator[datetime]):
    """A time in UTC; SQLite forgets the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Store in UTC; a naive time is a bug of the caller."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone cannot go into the ledger")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return an aware time."""
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value) if value else None


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)
Serial = BigInteger().with_variant(Integer, "sqlite")
"""A growing number; SQLite counts by itself only in an INTEGER key."""

releases = Table(
    "releases",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("product", String(63), nullable=False),
    Column("version", Text, nullable=False),
    Column("executable", String(71), nullable=False),
    Column("source", Text, nullable=False),
    Column("signers", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("added_at", Moment, nullable=False),
    Column("added_by", Text, nullable=False),
    Column("yanked_at", Moment),
    Column("yanked_by", Text),
    Column("yanked_reason", Text),
)

known_good = Table(
    "known_good",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("fleet", String(63), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("rollout", String(63), nullable=False),
    Column("release", Text, nullable=False),
    Column("since", Moment, nullable=False),
    Index("ix_known_good_fleet", "fleet", "gateway", "id"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("number", Serial, primary_key=True),
    Column("rollout", String(63), nullable=False, unique=True),
    Column("fleet", String(63), nullable=False, index=True),
    Column("plan", String(71), nullable=False),
    Column("release", Text, nullable=False),
    Column("order", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requested_because", Text, nullable=False),
    Column("started", Moment, nullable=False),
    Column("ended", Moment),
    Column("outcome", String(63)),
    Column("result", Text),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("rollout", String(63), nullable=False),
    Column("wave", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("action", String(63), nullable=False),
    Column("verdict", String(63), nullable=False),
    Column("decision", Text, nullable=False),
    UniqueConstraint("rollout", "wave", "at"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("digest", String(71), nullable=False),
    Column("kind", String(63), nullable=False),
    Column("subject", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("digest", "kind", "subject"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("rollout", String(63), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("rollout", "gateway", "digest"),
)

complaints = Table(
    "complaints",
    metadata,
    Column("user", String(64), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("at", Moment, nullable=False),
    Column("arrived", Moment, nullable=False, index=True),
    PrimaryKeyConstraint("user", "gateway", "at"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("plan", String(71), nullable=False),
    Column("person", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    PrimaryKeyConstraint("plan", "person"),
)

floors = Table(
    "floors",
    metadata,
    Column("product", String(63), nullable=False),
    Column("channel", String(63), nullable=False),
    Column("group", String(63), nullable=False),
    Column("rollback_index", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("product", "channel", "group"),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

audit_keys = Table(
    "audit_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("seq", BigInteger, ForeignKey("audit.seq"), nullable=False),
)
