"""Sinks are tested by a worker, which alone has their credentials."""

import sqlalchemy as sa
from alembic import op

from orchestrator.store.tables import Moment

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "sink_tests",
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("sink", sa.String(63), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("asked", Moment(), nullable=False),
        sa.Column("claimed", Moment()),
        sa.Column("answer", sa.Text()),
        sa.Column("failed", sa.String(63), nullable=False),
    )
    op.create_table(
        "sink_faults",
        sa.Column("sink", sa.String(63), primary_key=True),
        sa.Column("fault", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
    )
