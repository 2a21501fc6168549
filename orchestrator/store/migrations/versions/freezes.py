"""When people have said that no wave may start, and which fleets change at the same time."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Make both tables; nobody has said anything before."""
    op.create_table(
        "freezes",
        sa.Column("fleet", sa.String(63), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("spans", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("fleet", "name", name="pk_freezes"),
    )
    op.create_table(
        "turns",
        sa.Column("fleet", sa.String(63), primary_key=True),
        sa.Column("change", sa.String(63), sa.ForeignKey("changes.name"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
