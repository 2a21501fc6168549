"""Under which names identities are known, people of people.yaml among them: not only subjects of groups."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Make the table anew; its rows named subjects without their provider."""
    op.drop_table("logins")
    op.create_table(
        "logins",
        sa.Column("identity", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("by_provider", sa.Boolean(), nullable=False),
        sa.Column("last", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_logins_name", "logins", ["name"])
