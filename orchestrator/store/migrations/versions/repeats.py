"""A change of settings that is brought to those who missed it names the one that it repeats."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the name; what was begun before repeats nothing."""
    op.add_column("changes", sa.Column("repeats", sa.String(63)))
