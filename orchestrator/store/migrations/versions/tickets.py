"""Tickets of network operations centres, and who handed a fleet over to whom."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Make the tables; what was told before is not known."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "tickets",
        sa.Column("fleet", sa.String(63), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("gateway", sa.String(63)),
        sa.Column("opened", moment, nullable=False),
        sa.Column("closed", moment),
        sa.Column("told_at", moment, nullable=False),
        sa.Column("arrived", moment, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("fleet", "id", name="pk_tickets"),
    )
    op.create_index("ix_tickets_opened", "tickets", ["fleet", "opened"])
    op.create_table(
        "handovers",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("fleet", sa.String(63), nullable=False),
        sa.Column("key", sa.Text()),
        sa.Column("change", sa.String(63)),
        sa.Column("giver", sa.Text(), nullable=False),
        sa.Column("taker", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("began", moment, nullable=False),
        sa.Column("ended", moment),
        sa.Column("end", sa.String(63)),
        sa.PrimaryKeyConstraint("id", name="pk_handovers"),
        sa.UniqueConstraint("key", name="uq_handovers_key"),
        sa.ForeignKeyConstraint(["change"], ["changes.name"], name="fk_handovers_change_changes"),
    )
    op.create_index("ix_handovers_fleet", "handovers", ["fleet", "id"])
    op.create_index("ix_handovers_change", "handovers", ["change"])
