"""Which change steered a gateway last: a column, and not only inside what the gateway said."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Add the column; the next look at each gateway fills it."""
    op.add_column("gateway_states", sa.Column("steered_by", sa.BigInteger))
