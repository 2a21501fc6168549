"""Tokens of machines, requests that were answered, and what changes tell of themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_TIME = sa.DateTime(timezone=True)
_NAME = sa.String(63)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "tokens",
        sa.Column("id", _NAME, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("grants", sa.Text, nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("last_used", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.Column("revoked_by", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("name", name="uq_tokens_name"),
    )
    op.create_table(
        "requests",
        sa.Column("person", _NAME, nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("answer", sa.Text),
        sa.PrimaryKeyConstraint("person", "key", name="pk_requests"),
    )
    op.create_index("ix_requests_at", "requests", ["at"])
    op.create_table(
        "stories",
        sa.Column("change", _NAME, nullable=False),
        sa.Column("order", sa.Text, nullable=False),
        sa.Column("told", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("change", name="pk_stories"),
        sa.ForeignKeyConstraint(["change"], ["changes.name"], name="fk_stories_change"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("change", _NAME, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.UniqueConstraint("change", "number", name="uq_events_change"),
        sa.ForeignKeyConstraint(["change"], ["changes.name"], name="fk_events_change"),
    )
    op.create_index("ix_events_fleet", "events", ["fleet", "id"])
    op.add_column("audit", sa.Column("fleet", _NAME))
    op.create_index("ix_audit_fleet", "audit", ["fleet"])
    _give_complaints_their_fleet()


def _give_complaints_their_fleet() -> None:
    """Until now a ledger took complaints about one fleet only: the one of its newest change."""
    op.drop_index("ix_complaints_arrived", table_name="complaints")
    op.rename_table("complaints", "complaints_of_one_fleet")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX pk_complaints RENAME TO pk_complaints_of_one_fleet")
    op.create_table(
        "complaints",
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("gateway", _NAME, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("arrived", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("fleet", "user", "gateway", "at", name="pk_complaints"),
    )
    op.create_index("ix_complaints_arrived", "complaints", ["fleet", "arrived"])
    op.execute(
        'INSERT INTO complaints (fleet, "user", gateway, at, arrived) '
        "SELECT (SELECT fleet FROM changes ORDER BY began DESC LIMIT 1), "
        '"user", gateway, at, arrived FROM complaints_of_one_fleet WHERE EXISTS (SELECT 1 FROM changes)'
    )
    op.drop_table("complaints_of_one_fleet")
