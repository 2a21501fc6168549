"""People are told of what waits and what has ended, on every sink that is to have it, whatever fails."""

import sqlalchemy as sa
from alembic import op

from orchestrator.store.tables import Moment

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the outbox; nobody is told of what was before it, but of changes that go on."""
    op.create_table(
        "notices",
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("fleet", sa.String(63), nullable=False),
        sa.Column("change", sa.String(63)),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("state", sa.String(63), nullable=False),
        sa.Column("level", sa.String(63), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False, index=True),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("waits", sa.Boolean(), nullable=False),
        sa.Column("settled", Moment()),
        sa.Column("acknowledged", Moment()),
        sa.Column("acknowledged_by", sa.Text()),
        sa.Column("escalations", sa.Integer(), nullable=False),
        sa.Column("escalated", Moment()),
    )
    waiting = sa.text("waits AND settled IS NULL")
    op.create_index(
        "ix_notices_waiting", "notices", ["subject"], sqlite_where=waiting, postgresql_where=waiting
    )
    op.create_table(
        "notice_deliveries",
        sa.Column("notice", sa.String(200), sa.ForeignKey("notices.key"), nullable=False),
        sa.Column("sink", sa.String(63), nullable=False),
        sa.Column("fleet", sa.String(63), nullable=False),
        sa.Column("level", sa.String(63), nullable=False),
        sa.Column("occasion", sa.String(63), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("due", Moment()),
        sa.Column("claim", sa.String(63)),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("stands_for", sa.Integer(), nullable=False),
        sa.Column("delivered", Moment()),
        sa.Column("given_up", Moment()),
        sa.Column("folded_into", sa.String(200)),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("notice", "sink"),
    )
    due = sa.text("due IS NOT NULL")
    op.create_index(
        "ix_notice_deliveries_due",
        "notice_deliveries",
        ["sink", "due"],
        sqlite_where=due,
        postgresql_where=due,
    )
    given_up = sa.text("given_up IS NOT NULL")
    op.create_index(
        "ix_notice_deliveries_given_up",
        "notice_deliveries",
        ["sink"],
        sqlite_where=given_up,
        postgresql_where=given_up,
    )
    op.create_table(
        "notice_looks",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("cursor", sa.Text(), nullable=False),
        sa.Column("holder", sa.String(63), nullable=False),
        sa.Column("until", Moment(), nullable=False),
    )
    op.create_index("ix_stories_at", "stories", ["at"])
    op.create_index("ix_changes_ended", "changes", ["ended"])
