"""Which release takes new sessions on a gateway: a column, and not only inside what the gateway said."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; the next look at each gateway fills it."""
    op.add_column("gateway_states", sa.Column("takes", sa.String(71)))
