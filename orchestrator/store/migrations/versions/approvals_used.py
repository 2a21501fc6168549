"""Approvals that a start used up before starts deleted them are deleted."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Delete the approvals that are older than a start of their plan; the audit record keeps them."""
    op.execute(
        "DELETE FROM approvals WHERE EXISTS (SELECT 1 FROM changes"
        " WHERE changes.plan = approvals.plan AND changes.began >= approvals.at)"
    )
