"""The complaints that arrive by webhook."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "complaints",
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("gateway", sa.String(63), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("arrived", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("user", "gateway", "at", name="pk_complaints"),
    )
    op.create_index("ix_complaints_arrived", "complaints", ["arrived"])
