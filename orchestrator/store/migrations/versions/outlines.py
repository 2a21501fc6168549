"""Outlines: what a plan's page shows of plan and gateways, beside them, so that nobody reads all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the columns; where they lack, what they say is read out of the whole whenever somebody asks."""
    op.add_column("plans", sa.Column("outline", sa.LargeBinary))
    op.add_column("gateway_states", sa.Column("described", sa.String(71)))
    op.add_column("gateway_states", sa.Column("elsewhere", sa.Text))
