"""What drains said last is looked up whenever somebody asks how a fleet stands."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_audit_fleet_action", "audit", ["fleet", "action"])
