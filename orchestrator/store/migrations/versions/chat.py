"""Chat accounts that are people, codes that confirm orders, and cards that are edited."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

_NAME, _ID, _DIGEST = sa.String(63), sa.String(255), sa.String(71)
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "chat_links",
        sa.Column("workspace", _ID, nullable=False),
        sa.Column("account", _ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("uid", sa.BigInteger),
        sa.Column("vouched", sa.Text),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "account", name="pk_chat_links"),
    )
    op.create_table(
        "chat_link_offers",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("workspace", _ID, nullable=False),
        sa.Column("account", _ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_chat_link_offers"),
    )
    op.create_index("ix_chat_link_offers_expires", "chat_link_offers", ["expires"])
    op.create_table(
        "chat_codes",
        sa.Column("person", _NAME, nullable=False),
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("verb", _NAME, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("state", _DIGEST, nullable=False),
        sa.Column("change", _NAME),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("workspace", _ID, nullable=False),
        sa.Column("channel", _ID, nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("wrong", sa.Integer, nullable=False),
        sa.Column("used_by", _ID),
        sa.PrimaryKeyConstraint("person", "fleet", name="pk_chat_codes"),
    )
    op.create_index("ix_chat_codes_expires", "chat_codes", ["expires"])
    op.create_table(
        "chat_cards",
        sa.Column("workspace", _ID, nullable=False),
        sa.Column("channel", _ID, nullable=False),
        sa.Column("change", _NAME, nullable=False),
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("message", _ID, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("over", sa.Boolean, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "channel", "change", name="pk_chat_cards"),
    )
    op.create_index("ix_chat_cards_over", "chat_cards", ["workspace", "over"])
    op.create_table(
        "chat_silent_rooms",
        sa.Column("workspace", _ID, nullable=False),
        sa.Column("channel", _ID, nullable=False),
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "channel", "fleet", name="pk_chat_silent_rooms"),
    )
