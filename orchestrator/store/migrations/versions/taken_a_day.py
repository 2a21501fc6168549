"""How much of a host's own record was taken into the audit record in a day."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    """Add the columns; what was taken before is not counted."""
    op.add_column("host_records", sa.Column("day", sa.String(10), nullable=False, server_default=""))
    op.add_column("host_records", sa.Column("taken", sa.Integer, nullable=False, server_default="0"))
