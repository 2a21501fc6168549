"""What was applied to fleets, and which pins people have released."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_NAME, _DIGEST = sa.String(63), sa.String(71)
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "revisions",
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("kind", _NAME, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("commit", sa.String(64)),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("fleet", "kind", "number", name="pk_revisions"),
    )
    op.create_table(
        "pin_releases",
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("change", _NAME, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("fleet", "change", name="pk_pin_releases"),
    )
