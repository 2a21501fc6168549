"""Changes know the engine's run that carries them out: no other one goes on with them."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the run; it is empty for changes that are older."""
    with op.batch_alter_table("changes") as table:
        table.add_column(sa.Column("run", sa.Text(), nullable=False, server_default=""))
