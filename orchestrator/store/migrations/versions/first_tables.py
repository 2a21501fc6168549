"""The first tables, and the triggers that let nobody change or remove an audit entry."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DIGEST, _NAME = sa.String(71), sa.String(63)


def upgrade() -> None:
    """Make the tables."""
    _releases_and_rollouts()
    _proofs()
    _audit()


def _releases_and_rollouts() -> None:
    op.create_table(
        "releases",
        sa.Column("digest", _DIGEST),
        sa.Column("product", _NAME, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("executable", _DIGEST, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("signers", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("added_at", _TIME, nullable=False),
        sa.Column("added_by", sa.Text, nullable=False),
        sa.Column("yanked_at", _TIME),
        sa.Column("yanked_by", sa.Text),
        sa.Column("yanked_reason", sa.Text),
        sa.PrimaryKeyConstraint("digest", name="pk_releases"),
    )
    op.create_table(
        "known_good",
        sa.Column("id", _SERIAL),
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("gateway", _NAME, nullable=False),
        sa.Column("rollout", _NAME, nullable=False),
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_known_good"),
    )
    op.create_index("ix_known_good_fleet", "known_good", ["fleet", "gateway", "id"])
    op.create_table(
        "rollouts",
        sa.Column("number", _SERIAL),
        sa.Column("rollout", _NAME, nullable=False),
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("plan", _DIGEST, nullable=False),
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("order", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("requested_because", sa.Text, nullable=False),
        sa.Column("started", _TIME, nullable=False),
        sa.Column("ended", _TIME),
        sa.Column("outcome", _NAME),
        sa.Column("result", sa.Text),
        sa.PrimaryKeyConstraint("number", name="pk_rollouts"),
        sa.UniqueConstraint("rollout", name="uq_rollouts_rollout"),
    )
    op.create_index("ix_rollouts_fleet", "rollouts", ["fleet"])


def _proofs() -> None:
    op.create_table(
        "verdicts",
        sa.Column("id", _SERIAL),
        sa.Column("rollout", _NAME, nullable=False),
        sa.Column("wave", sa.Integer, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("action", _NAME, nullable=False),
        sa.Column("verdict", _NAME, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_verdicts"),
        sa.UniqueConstraint("rollout", "wave", "at", name="uq_verdicts_rollout"),
    )
    op.create_table(
        "evidence",
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("kind", _NAME, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("digest", "kind", "subject", name="pk_evidence"),
    )
    op.create_table(
        "snapshots",
        sa.Column("rollout", _NAME, nullable=False),
        sa.Column("gateway", _NAME, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("rollout", "gateway", "digest", name="pk_snapshots"),
    )
    op.create_table(
        "approvals",
        sa.Column("plan", _DIGEST, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("plan", "person", name="pk_approvals"),
    )
    op.create_table(
        "floors",
        sa.Column("product", _NAME, nullable=False),
        sa.Column("channel", _NAME, nullable=False),
        sa.Column("group", _NAME, nullable=False),
        sa.Column("rollback_index", sa.BigInteger, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("product", "channel", "group", name="pk_floors"),
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger, autoincrement=False),
        *(
            sa.Column(n, sa.Text, nullable=False)
            for n in ("at", "person", "via", "action", "subject", "body")
        ),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_table(
        "audit_keys",
        sa.Column("key", sa.Text),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_audit_keys"),
        sa.ForeignKeyConstraint(["seq"], ["audit.seq"], name="fk_audit_keys_seq"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'the audit record is append-only'; END$$"
        )
        op.execute(
            "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{change.lower()} BEFORE {change} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit record is append-only'); END"
        )
