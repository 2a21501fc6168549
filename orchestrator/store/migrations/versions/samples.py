"""What gates measured is in the ledger over the whole window, not only where a decision changed."""

import sqlalchemy as sa
from alembic import op

from orchestrator.store.tables import Moment

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the table; of windows before, the decisions remain."""
    op.create_table(
        "samples",
        sa.Column("change", sa.String(63), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("change", "wave", "at", name="pk_samples"),
    )
    op.create_index("ix_samples_at", "samples", ["change", "at"])
