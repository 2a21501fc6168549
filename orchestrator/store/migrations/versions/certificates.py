"""Gateways get certificates: one-time tokens, what was issued, and what was revoked."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_TIME = sa.DateTime(timezone=True)
_NAME = sa.String(63)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "enrolments",
        sa.Column("id", _NAME, nullable=False),
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("gateway", _NAME, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("used_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_enrolments"),
    )
    op.create_table(
        "gateway_certificates",
        sa.Column("serial", _NAME, nullable=False),
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("gateway", _NAME, nullable=False),
        sa.Column("issued_at", _TIME, nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("renews", _NAME),
        sa.PrimaryKeyConstraint("serial", name="pk_gateway_certificates"),
    )
    op.create_index("ix_gateway_certificates_gateway", "gateway_certificates", ["fleet", "gateway"])
    op.create_table(
        "gateway_revocations",
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("gateway", _NAME, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("fleet", "gateway", name="pk_gateway_revocations"),
    )
