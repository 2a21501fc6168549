"""Subjects of the identity provider have one name each."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the table; whoever logs in next is known by the name of then."""
    op.create_table(
        "logins",
        sa.Column("subject", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
    )
