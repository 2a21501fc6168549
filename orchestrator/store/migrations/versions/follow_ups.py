"""What people found out about a change, and what is to be done about it."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add both tables; the changes of before have no cause and nothing to follow."""
    op.create_table(
        "causes",
        sa.Column("change", sa.String(63), sa.ForeignKey("changes.name"), primary_key=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "follow_ups",
        sa.Column("change", sa.String(63), sa.ForeignKey("changes.name"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("fleet", sa.String(63), nullable=False),
        sa.Column("key", sa.Text(), unique=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("due", sa.Date(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True)),
        sa.Column("done_by", sa.Text()),
        sa.PrimaryKeyConstraint("change", "number"),
    )
    op.create_index(
        "ix_follow_ups_open",
        "follow_ups",
        ["fleet", "due"],
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    )
