"""The report of one change: everything that the ledger has to tell of it, in one value of bounded size."""

import json
from datetime import datetime

from pydantic import Field

from policies.model.audit import AuditEntry, AuditHead
from policies.model.change import HistoryRow
from policies.model.follow_up import Cause, FollowUp
from policies.model.handover import Handover
from policies.model.release_tests import OF_MIRROR, UNDER_LOAD
from policies.model.sample import Sample
from policies.model.signal import Signals
from policies.model.snapshot import SnapshotRow
from policies.model.status import Event
from policies.model.value import Digest, Value
from policies.model.verdict import Action, GateReading, GateVerdict, VerdictRow
from policies.reporting.split import TimeSplit

MOST_NAMED = 20
"""Gateways, and snapshots, that are named; of more it is said how many there are."""


class DecisionLine(Value):
    """One decision of a wave, without its readings."""

    at: datetime
    wave: int
    action: Action
    verdict: GateVerdict
    reason: str
    failed: tuple[str, ...] = Field(default=(), description="a few that failed by themselves")
    own: dict[str, str] = Field(default={}, description="why each of these failed")

    @classmethod
    def of(cls, row: VerdictRow) -> "DecisionLine":
        """Return the decision of this verdict in a line."""
        decision = row.decision
        return cls(
            at=row.at,
            wave=row.wave,
            action=decision.action,
            verdict=decision.verdict,
            reason=decision.reason,
            failed=decision.failed[:MOST_NAMED],
            own={name: decision.own[name] for name in decision.failed[:MOST_NAMED] if name in decision.own},
        )


class AuditLine(Value):
    """An entry of the audit record: what somebody did or said about the change, or what drained after it."""

    at: str
    person: str
    what: str
    sentence: str

    @classmethod
    def of(cls, entry: AuditEntry) -> "AuditLine":
        """Return the entry in a line, which names what of the change it is about."""
        body = json.loads(entry.body)
        sentence = body.get("sentence") or body.get("reason") or ""
        said = f"{entry.subject.rpartition('/')[0]} {sentence}".strip()
        return cls(at=entry.at, person=entry.person, what=entry.action, sentence=said)


class TestLine(Value):
    """What the release tests of one instance found, before its first user."""

    __test__ = False  # for pytest, which takes the name for a test's

    at: str
    gateway: str
    sentence: str

    @classmethod
    def of(cls, entry: AuditEntry) -> "TestLine":
        """Return the entry in a line: how it went, and what was measured where a test compares."""
        body = json.loads(entry.body)
        compared = [
            f"{one['test']}: {one['said']}"
            for one in body["findings"]
            if one["test"] in {*OF_MIRROR, *UNDER_LOAD} and one["said"] not in body["exposure"]["sentence"]
        ]
        return cls(
            at=entry.at,
            gateway=entry.subject.rpartition("/")[2],
            sentence="; ".join([f"{body['exposure']['outcome']}: {body['exposure']['sentence']}", *compared]),
        )


class Users(Value):
    """Whom the change touched, as far as that was counted.

    `planned` are the sessions counted on the gateways that change when the plan was made, None where they
    could not be counted; `losses` is what the record has of sessions that were ended or lost, `bad` how many
    events were bad of how many on the changed gateways when the gate decided that decided.
    """

    gateways: int
    planned: int | None = None
    losses: tuple[AuditLine, ...] = ()
    failed: bool = Field(
        default=False, description="whether a daemon failed by itself, and nobody knows who was on it"
    )
    until: datetime | None = Field(
        default=None, description="when the last old session will have ended, while that is still to come"
    )
    gate: str | None = None
    bad: int | None = None
    total: int | None = None


class Totals(Value):
    """How much there is of what is shown in part."""

    events: int = 0
    decisions: int = 0
    aside: int = 0
    incomplete: int = 0
    snapshots: int = 0


class ChangeReport(Value):
    """A change as it is told after its end, or on the way there."""

    made_at: datetime
    final: bool = Field(
        default=True, description="whether the change has ended and nobody's old session may still end"
    )
    record: HistoryRow
    label: str
    """What it leads to, with the product's name."""
    what: str
    touched: str
    why: str
    """These three are the sentences of the change's status."""
    banner: str | None = Field(
        default=None, description="who overrode patch windows for it, who approved that, and why"
    )
    users: Users
    counts: dict[str, int] = Field(default={}, description="how many gateways ended in which state")
    aside: dict[str, str] = Field(default={}, description="a few that were left out, each with why")
    incomplete: dict[str, str] = Field(default={}, description="a few that are not back, each with why")
    split: TimeSplit | None = Field(default=None, description="None where nothing had to go back")
    timeline: tuple[Event, ...] = ()
    signals: Signals | None = Field(
        default=Signals(), description="what people said meanwhile; None where that is not known"
    )
    handovers: tuple[Handover, ...] = Field(default=(), description="who handed the fleet over meanwhile")
    decisions: tuple[DecisionLine, ...] = ()
    decided: int | None = Field(default=None, description="which of the waves `readings` are of")
    readings: tuple[GateReading, ...] = Field(default=(), description="of the last decision")
    samples: tuple[Sample, ...] = Field(default=(), description="what each gate measured over time")
    margins: dict[str, float] = {}
    sampled: str = Field(default="", description="where the samples are from")
    signers: tuple[str, ...] = ()
    source: str = ""
    changelog: str = ""
    trust_policy: Digest | None = None
    approvals: tuple[AuditLine, ...] = ()
    tests: tuple[TestLine, ...] = Field(default=(), description="the newest release tests")
    snapshots: tuple[SnapshotRow, ...] = ()
    audit: AuditHead
    """Up to which entry of the audit record it was written."""
    cause: Cause | None = None
    follow_ups: tuple[FollowUp, ...] = ()
    of: Totals = Totals()
