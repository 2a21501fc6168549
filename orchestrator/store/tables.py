"""The ledger's tables. Times are aware and in UTC; digests and JSON are text that is never rewritten."""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)


class Moment(TypeDecorator[datetime]):
    """A time in UTC; SQLite forgets the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Store in UTC; a naive time is a bug of the caller."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone cannot go into the ledger")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return an aware time."""
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value) if value else None


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)
Serial = BigInteger().with_variant(Integer, "sqlite")
"""A growing number; SQLite counts by itself only in an INTEGER key."""

releases = Table(
    "releases",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("product", String(63), nullable=False),
    Column("version", Text, nullable=False),
    Column("executable", String(71), nullable=False),
    Column("source", Text, nullable=False),
    Column("signers", Text, nullable=False),
    Column("former_signers", Text, nullable=False, server_default="[]"),
    Column("manifest", Text, nullable=False),
    Column("added_at", Moment, nullable=False),
    Column("added_by", Text, nullable=False),
    Column("yanked_at", Moment),
    Column("yanked_by", Text),
    Column("yanked_reason", Text),
)

changes = Table(
    "changes",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("fleet", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("run", Text, nullable=False, server_default=""),
    Column("kind", String(63), nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("release_digest", String(71)),
    Column("plan", String(71)),
    Column("cause", String(63)),
    Column("repeats", String(63)),
    Column("beside", String(63)),
    Column("began", Moment, nullable=False),
    Column("ended", Moment),
    Column("outcome", String(63)),
    Column("sentence", Text, nullable=False, default=""),
    Column("moved", Integer, nullable=False, default=0),
    Column("taken_back", Integer, nullable=False, default=0),
    Column("taken_back_by", String(63)),
    UniqueConstraint("fleet", "number"),
    Index("ix_changes_ended", "ended"),
)
Index(
    "ix_changes_open",
    changes.c.fleet,
    changes.c.number,
    sqlite_where=changes.c.outcome.is_(None),
    postgresql_where=changes.c.outcome.is_(None),
)

known_good = Table(
    "known_good",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("fleet", String(63), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("change", String(63), ForeignKey("changes.name"), nullable=False),
    Column("release", Text, nullable=False),
    Column("before", Text),
    Column("proven_by", String(63)),
    Column("back", Boolean, nullable=False, default=False),
    Column("newest", Boolean, nullable=False, default=True),
    Column("since", Moment, nullable=False),
    UniqueConstraint("change", "gateway"),
    Index("ix_known_good_fleet", "fleet", "gateway", "id"),
)
"""`before` is what the gateway had until then; `proven_by` the
change that promoted what it has now, `newest` marks its last row, of which there is one."""
Index(
    "uq_known_good_newest",
    known_good.c.fleet,
    known_good.c.gateway,
    unique=True,
    sqlite_where=known_good.c.newest,
    postgresql_where=known_good.c.newest,
)

plans = Table(
    "plans",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("fleet", String(63), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("header", LargeBinary),
    Column("outline", LargeBinary),
    Column("at", Moment, nullable=False),
)
"""Bodies are JSON, deflated. A plan that an older penstock made has no header and is only a record, or no
outline yet; what leads to no release has neither body nor outline."""

plan_parts = Table(
    "plan_parts",
    metadata,
    Column("plan", String(71), ForeignKey("plans.digest"), nullable=False),
    Column("wave", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("plan", "wave", "number"),
)

host_records = Table(
    "host_records",
    metadata,
    Column("fleet", String(63), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("public_key", String(64), nullable=False),
    Column("day", String(10), nullable=False, server_default=""),
    Column("taken", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("fleet", "gateway"),
)
"""Up to which line a host's own record is in the audit record, that line's digest, and the host's key.

`taken` is how many bytes were taken on the last `day`, of which there is a bound.
"""

gateway_states = Table(
    "gateway_states",
    metadata,
    Column("fleet", String(63), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("state", Text),
    Column("takes", String(71)),
    Column("silent", Text),
    Column("described", String(71)),
    Column("elsewhere", Text),
    Column("steered_by", BigInteger),
    Column("on_known_good", Moment),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("fleet", "gateway"),
)
"""What a gateway said when it was last asked, or why it was silent.

Four are read out of `state`, so that whoever asks about thousands of gateways reads none of them. `takes` is
the release that takes new sessions there: empty where nobody knows which, NULL where nothing alive does.
`described` is the digest of how its agent's file describes it: empty where an older agent does not tell, NULL
in rows of an older penstock. `elsewhere` names, as JSON, credentials that a vault has; NULL where an older
agent does not tell. `steered_by` is the number of the change that wrote its steering table last; NULL where
no change of the fleet did. `on_known_good` is when it was last asked and reported its known-good: later
silence, or another release, keeps it.
"""

gateway_results = Table(
    "gateway_results",
    metadata,
    Column("change", String(63), ForeignKey("changes.name"), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("wave", Integer, nullable=False, default=0),
    Column("state", String(63), nullable=False),
    Column("sentence", Text, nullable=False),
    Column("slot", String(63)),
    Column("started", Float),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("change", "gateway"),
    Index("ix_gateway_results_state", "change", "state", "gateway"),
)

watch_states = Table(
    "watch_states",
    metadata,
    Column("change", String(63), nullable=False),
    Column("wave", Integer, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("change", "wave", "digest"),
)
"""What a watch remembers between two slices; too large for the engine where gateways are many."""

quarantine = Table(
    "quarantine",
    metadata,
    Column("fleet", String(63), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("reason", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("since", Moment, nullable=False),
    Column("until", Moment),
    Column("handed_over", Boolean, nullable=False, server_default=false()),
    PrimaryKeyConstraint("fleet", "gateway"),
)
"""Gateways that are left out. `handed_over` marks one that an operator returned."""

returns = Table(
    "returns",
    metadata,
    Column("fleet", String(63), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("came_back", Boolean, nullable=False),
    Column("relapses", Integer, nullable=False),
    Column("last", Moment, nullable=False),
    Column("change", String(63)),
    Column("paged", Moment),
    PrimaryKeyConstraint("fleet", "gateway"),
)
"""How often reconcile has brought gateways back in the last hours; it outlives their quarantine. `change` is
the last change that tried a gateway, `paged` when operators were last paged of one that was steered by hand.
"""

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("rollout", String(63), nullable=False),
    Column("wave", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("action", String(63), nullable=False),
    Column("verdict", String(63), nullable=False),
    Column("decision", Text, nullable=False),
    UniqueConstraint("rollout", "wave", "at"),
)

samples = Table(
    "samples",
    metadata,
    Column("change", String(63), nullable=False),
    Column("wave", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("change", "wave", "at"),
    Index("ix_samples_at", "change", "at"),
)
"""What gates had measured at moments of a window, as JSON that is deflated."""

evidence = Table(
    "evidence",
    metadata,
    Column("digest", String(71), nullable=False),
    Column("kind", String(63), nullable=False),
    Column("subject", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("digest", "kind", "subject"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("rollout", String(63), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("rollout", "gateway", "digest"),
)

complaints = Table(
    "complaints",
    metadata,
    Column("fleet", String(63), nullable=False),
    Column("user", String(64), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("at", Moment, nullable=False),
    Column("arrived", Moment, nullable=False),
    PrimaryKeyConstraint("fleet", "user", "gateway", "at"),
    Index("ix_complaints_arrived", "fleet", "arrived"),
)

tickets = Table(
    "tickets",
    metadata,
    Column("fleet", String(63), nullable=False),
    Column("id", String(64), nullable=False),
    Column("gateway", String(63)),
    Column("opened", Moment, nullable=False),
    Column("closed", Moment),
    Column("told_at", Moment, nullable=False),
    Column("arrived", Moment, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("fleet", "id"),
    Index("ix_tickets_opened", "fleet", "opened"),
)
"""Tickets of network operations centres, each as it was last told; `body` is all of it as JSON."""

handovers = Table(
    "handovers",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("fleet", String(63), nullable=False),
    Column("key", Text, unique=True),
    Column("change", String(63), ForeignKey("changes.name")),
    Column("giver", Text, nullable=False),
    Column("taker", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("began", Moment, nullable=False),
    Column("ended", Moment),
    Column("end", String(63)),
    Index("ix_handovers_fleet", "fleet", "id"),
    Index("ix_handovers_change", "change"),
)
"""Who handed a fleet over to whom, with its change of then; `end` says whether it was accepted."""

approvals = Table(
    "approvals",
    metadata,
    Column("plan", String(71), nullable=False),
    Column("person", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("groups", Text, nullable=False, server_default="[]"),
    PrimaryKeyConstraint("plan", "person"),
)
"""The newest yes of each person to each plan; the audit record has those before it."""

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
    Column("grants", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("last_used", Moment),
    Column("revoked_at", Moment),
    Column("revoked_by", Text),
)
"""What machines show instead of a person; only the hash of the secret part is kept."""

enrolments = Table(
    "enrolments",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("fleet", String(63), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("used_at", Moment),
)
"""One-time tokens of hosts that have no certificate yet; only the hash of the secret part is kept."""

gateway_certificates = Table(
    "gateway_certificates",
    metadata,
    Column("serial", String(63), primary_key=True),
    Column("fleet", String(63), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("issued_at", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("renews", String(63)),
    Index("ix_gateway_certificates_gateway", "fleet", "gateway"),
)
"""What was issued to gateways; `renews` is the certificate with which it was asked for."""

gateway_revocations = Table(
    "gateway_revocations",
    metadata,
    Column("fleet", String(63), nullable=False),
    Column("gateway", String(63), nullable=False),
    Column("at", Moment, nullable=False),
    Column("person", Text, nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("fleet", "gateway"),
)
"""Whose certificates were revoked: of these gateways, only those in `gateway_certificates` are good."""

page_sessions = Table(
    "page_sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("link", Boolean, nullable=False),
    Column("person", Text, nullable=False),
    Column("uid", BigInteger),
    Column("vouched", Text),
    Column("begun", Moment, nullable=False),
    Column("expires", Moment, nullable=False, index=True),
)
"""Who is logged in at the page, by the hash of a secret: a one-time link until it is opened, then a session.

`uid` is the user at the local socket who made the link, `vouched` what the identity provider said of whoever
logged in there; which roles that gives is looked up at each request.
"""

requests = Table(
    "requests",
    metadata,
    Column("person", String(63), nullable=False),
    Column("key", String(255), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("at", Moment, nullable=False, index=True),
    Column("status", Integer),
    Column("answer", Text),
    PrimaryKeyConstraint("person", "key"),
)
"""Requests by the key that their callers gave, each with what was answered once it was."""

stories = Table(
    "stories",
    metadata,
    Column("change", String(63), ForeignKey("changes.name"), primary_key=True),
    Column("order", Text, nullable=False),
    Column("told", Text, nullable=False),
    Column("at", Moment, nullable=False, index=True),
)
"""What each change has to tell, as it was when it was last written."""

events = Table(
    "events",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("fleet", String(63), nullable=False),
    Column("change", String(63), ForeignKey("changes.name"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("sentence", Text, nullable=False),
    UniqueConstraint("change", "number"),
    Index("ix_events_fleet", "fleet", "id"),
)

causes = Table(
    "causes",
    metadata,
    Column("change", String(63), ForeignKey("changes.name"), primary_key=True),
    Column("text", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("at", Moment, nullable=False),
)
"""What people found to be the cause of a change's end; the audit record has what they said before."""

follow_ups = Table(
    "follow_ups",
    metadata,
    Column("change", String(63), ForeignKey("changes.name"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("fleet", String(63), nullable=False),
    Column("key", Text, unique=True),
    Column("text", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("due", Date, nullable=False),
    Column("person", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("done_at", Moment),
    Column("done_by", Text),
    PrimaryKeyConstraint("change", "number"),
)
Index(
    "ix_follow_ups_open",
    follow_ups.c.fleet,
    follow_ups.c.due,
    sqlite_where=follow_ups.c.done_at.is_(None),
    postgresql_where=follow_ups.c.done_at.is_(None),
)

chat_links = Table(
    "chat_links",
    metadata,
    Column("workspace", String(255), nullable=False),
    Column("account", String(255), nullable=False),
    Column("name", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("uid", BigInteger),
    Column("vouched", Text),
    Column("since", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    PrimaryKeyConstraint("workspace", "account"),
)
"""Which chat account is which person, and by what they were recognised at the page; see `page_sessions`."""

chat_link_offers = Table(
    "chat_link_offers",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("workspace", String(255), nullable=False),
    Column("account", String(255), nullable=False),
    Column("name", Text, nullable=False),
    Column("expires", Moment, nullable=False, index=True),
)
"""One-time addresses by which somebody who is logged in makes a chat account theirs; only a hash is kept."""

chat_codes = Table(
    "chat_codes",
    metadata,
    Column("person", String(63), nullable=False),
    Column("fleet", String(63), nullable=False),
    Column("verb", String(63), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("state", String(71), nullable=False),
    Column("change", String(63)),
    Column("reason", Text, nullable=False),
    Column("workspace", String(255), nullable=False),
    Column("channel", String(255), nullable=False),
    Column("expires", Moment, nullable=False, index=True),
    Column("wrong", Integer, nullable=False, default=0),
    Column("used_by", String(255)),
    PrimaryKeyConstraint("person", "fleet"),
)
"""The newest code of each person and fleet: what it confirms, and by which message it was used up."""

chat_cards = Table(
    "chat_cards",
    metadata,
    Column("workspace", String(255), nullable=False),
    Column("channel", String(255), nullable=False),
    Column("change", String(63), nullable=False),
    Column("fleet", String(63), nullable=False),
    Column("message", String(255), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("over", Boolean, nullable=False, default=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("workspace", "channel", "change"),
    Index("ix_chat_cards_over", "workspace", "over"),
)
"""Where the card of each change is, and what it shows; `over` once it shows the change's end."""

chat_silent_rooms = Table(
    "chat_silent_rooms",
    metadata,
    Column("workspace", String(255), nullable=False),
    Column("channel", String(255), nullable=False),
    Column("fleet", String(63), nullable=False),
    Column("why", Text, nullable=False),
    PrimaryKeyConstraint("workspace", "channel", "fleet"),
)
"""Rooms of fleets in which the process of the chat receives nothing, as it reported last."""

floors = Table(
    "floors",
    metadata,
    Column("product", String(63), nullable=False),
    Column("channel", String(63), nullable=False),
    Column("group", String(63), nullable=False),
    Column("rollback_index", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("product", "channel", "group"),
)

revisions = Table(
    "revisions",
    metadata,
    Column("fleet", String(63), nullable=False),
    Column("kind", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("commit", String(64)),
    Column("author", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("fleet", "kind", "number"),
)
"""Files that were applied to fleets, each text deflated, with the commit it is from and who applied it."""

pin_releases = Table(
    "pin_releases",
    metadata,
    Column("fleet", String(63), nullable=False),
    Column("change", String(63), nullable=False),
    Column("person", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("fleet", "change"),
)
"""Changes that were taken back and pin their fleet no more: people have said so."""

freezes = Table(
    "freezes",
    metadata,
    Column("fleet", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("spans", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("fleet", "name"),
)
"""When people have said that no wave may start; what was removed is in the audit record."""

turns = Table(
    "turns",
    metadata,
    Column("fleet", String(63), primary_key=True),
    Column("change", String(63), ForeignKey("changes.name"), nullable=False),
    Column("at", Moment, nullable=False),
)
"""Which fleets change now, where only so many may at the same time."""

drills = Table(
    "drills",
    metadata,
    Column("name", String(63), nullable=False),
    Column("place", String(63), nullable=False),
    Column("began", Moment, nullable=False),
    Column("outcome", String(63), nullable=False),
    Column("seconds", Float),
    Column("budget", Float, nullable=False),
    Column("report", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("recorded", Moment, nullable=False),
    PrimaryKeyConstraint("name", "place", "began"),
    Index("ix_drills_began", "began"),
    Index("ix_drills_name_began", "name", "began"),
)
"""What was seen whenever somebody rehearsed a failure."""

notices = Table(
    "notices",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("fleet", String(63), nullable=False),
    Column("change", String(63)),
    Column("subject", String(200), nullable=False),
    Column("state", String(63), nullable=False),
    Column("level", String(63), nullable=False),
    Column("body", Text, nullable=False),
    Column("at", Moment, nullable=False, index=True),
    Column("seq", BigInteger, nullable=False),
    Column("waits", Boolean, nullable=False),
    Column("settled", Moment),
    Column("acknowledged", Moment),
    Column("acknowledged_by", Text),
    Column("escalations", Integer, nullable=False, default=0),
    Column("escalated", Moment),
)
"""What people are told, once for each occurrence. `subject` is what it is about, `seq` the audit record's
head then: what people do later stands behind it. What `waits` is so until it is settled."""
Index(
    "ix_notices_waiting",
    notices.c.subject,
    sqlite_where=notices.c.waits & notices.c.settled.is_(None),
    postgresql_where=notices.c.waits & notices.c.settled.is_(None),
)

notice_deliveries = Table(
    "notice_deliveries",
    metadata,
    Column("notice", String(200), ForeignKey("notices.key"), nullable=False),
    Column("sink", String(63), nullable=False),
    Column("fleet", String(63), nullable=False),
    Column("level", String(63), nullable=False),
    Column("occasion", String(63), nullable=False),
    Column("at", Moment, nullable=False),
    Column("due", Moment),
    Column("claim", String(63)),
    Column("tries", Integer, nullable=False, default=0),
    Column("stands_for", Integer, nullable=False, default=1),
    Column("delivered", Moment),
    Column("given_up", Moment),
    Column("folded_into", String(200)),
    Column("error", Text, nullable=False, default=""),
    PrimaryKeyConstraint("notice", "sink"),
)
"""Each notice on its way to each sink. `due` is when something is to be done, NULL when nothing is left;
whoever claims a row moves it on by as long as its claim holds."""
Index(
    "ix_notice_deliveries_due",
    notice_deliveries.c.sink,
    notice_deliveries.c.due,
    sqlite_where=notice_deliveries.c.due.is_not(None),
    postgresql_where=notice_deliveries.c.due.is_not(None),
)
Index(
    "ix_notice_deliveries_given_up",
    notice_deliveries.c.sink,
    sqlite_where=notice_deliveries.c.given_up.is_not(None),
    postgresql_where=notice_deliveries.c.given_up.is_not(None),
)

sink_tests = Table(
    "sink_tests",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("sink", String(63), nullable=False),
    Column("body", Text, nullable=False),
    Column("asked", Moment, nullable=False),
    Column("claimed", Moment),
    Column("answer", Text),
    Column("failed", String(63), nullable=False, default=""),
)
"""Tests of sinks that the API asks for and a worker carries out, which alone has the sinks' credentials."""

sink_faults = Table(
    "sink_faults",
    metadata,
    Column("sink", String(63), primary_key=True),
    Column("fault", Text, nullable=False),
    Column("at", Moment, nullable=False),
)
"""What a worker found wrong with the files of each sink, empty where nothing is, and when it looked."""

notice_looks = Table(
    "notice_looks",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("cursor", Text, nullable=False),
    Column("holder", String(63), nullable=False),
    Column("until", Moment, nullable=False),
)
"""How far the ledger was looked through for what people are to be told, and who does so until when."""

logins = Table(
    "logins",
    metadata,
    Column("identity", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("by_provider", Boolean, nullable=False),
    Column("last", Moment, nullable=False),
    Index("ix_logins_name", "name"),
)
"""Under which names each identity acted, when it last did, and whether the provider gave the name."""

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("fleet", String(63)),
    Index("ix_audit_fleet", "fleet"),
    Index("ix_audit_fleet_action", "fleet", "action"),
)

audit_keys = Table(
    "audit_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("seq", BigInteger, ForeignKey("audit.seq"), nullable=False),
)
