"""How often gateways were brought back, which outlives their quarantine."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Add the table; the tries of before are not counted."""
    op.create_table(
        "returns",
        sa.Column("fleet", sa.String(63), nullable=False),
        sa.Column("gateway", sa.String(63), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("came_back", sa.Boolean, nullable=False),
        sa.Column("relapses", sa.Integer, nullable=False),
        sa.Column("last", sa.DateTime(timezone=True), nullable=False),
        sa.Column("change", sa.String(63)),
        sa.Column("paged", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("fleet", "gateway", name="pk_returns"),
    )
    for column in ("tries", "tried", "tried_in"):
        op.drop_column("quarantine", column)
