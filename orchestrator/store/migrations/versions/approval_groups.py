"""By which groups of the identity provider a person might approve a plan."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Add the column; approvals of before count by the names of people.yaml alone."""
    op.add_column("approvals", sa.Column("groups", sa.Text, nullable=False, server_default="[]"))
