"""How often reconcile has tried to bring back a gateway that penstock left out, and who is returned."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Add the columns; the tries of before are not counted."""
    op.add_column("quarantine", sa.Column("tries", sa.Integer, nullable=False, server_default="0"))
    op.add_column("quarantine", sa.Column("tried", sa.DateTime(timezone=True)))
    op.add_column("quarantine", sa.Column("tried_in", sa.String(63)))
    op.add_column(
        "quarantine", sa.Column("handed_over", sa.Boolean, nullable=False, server_default=sa.false())
    )
