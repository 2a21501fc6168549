"""A change that was let in beside another one names that one."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Add the name; what was begun before had the fleet's lock itself."""
    op.add_column("changes", sa.Column("beside", sa.String(63)))
