"""Drills: what was seen whenever somebody rehearsed a failure."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Make the table; what was rehearsed before is not known."""
    op.create_table(
        "drills",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("place", sa.String(63), nullable=False),
        sa.Column("began", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(63), nullable=False),
        sa.Column("seconds", sa.Float()),
        sa.Column("budget", sa.Float(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("recorded", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", "place", "began", name="pk_drills"),
    )
    op.create_index("ix_drills_began", "drills", ["began"])
    op.create_index("ix_drills_name_began", "drills", ["name", "began"])
