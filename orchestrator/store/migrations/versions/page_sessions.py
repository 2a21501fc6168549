"""People who look at the page are known by a session, which a one-time link or the provider begins."""

import sqlalchemy as sa
from alembic import op

from orchestrator.store.tables import Moment

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the table; nobody was logged in before."""
    op.create_table(
        "page_sessions",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("link", sa.Boolean(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("uid", sa.BigInteger()),
        sa.Column("vouched", sa.Text()),
        sa.Column("begun", Moment(), nullable=False),
        sa.Column("expires", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_page_sessions"),
    )
    op.create_index("ix_page_sessions_expires", "page_sessions", ["expires"])
