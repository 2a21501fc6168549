"""Who signed a release before others signed it anew."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    """Add the column; of signers before, nothing was kept."""
    op.add_column("releases", sa.Column("former_signers", sa.Text, nullable=False, server_default="[]"))
