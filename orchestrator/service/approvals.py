"""Approvals of plans: how many people a change needs, who approved it, and whether that is enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from activities.drivers.trust_files import compose_releases
from orchestrator.service.one_person import KnownNames, first_of
from orchestrator.service.people import PeopleFile
from orchestrator.store.ledger import Ledger
from policies.access import Action
from policies.approvals import (
    approved,
    is_one_of,
    overriding,
    require_approved,
    required,
    required_without_release,
)
from policies.model.approval import APPROVAL_AWAITED, Approval, Approved, Required
from policies.model.errors import NotAllowed
from policies.model.offer import Offer, Verb
from policies.model.people import Caller, Via
from policies.model.plan import Plan
from policies.model.plan_part import PlanHeader
from policies.model.refusals import ApprovalRequired
from policies.model.value import digest_of
from policies.planning.outline import PlanOutline
from policies.trust.admission import identities_in

AnyPlan = PlanOutline | PlanHeader
"""The outline of an upgrade's plan, or the header of one of credentials or settings, which has no release."""


@dataclass(frozen=True)
class ApprovalService:
    """Counts people; who may approve at all is asked before, by `Service`."""

    ledger: Ledger
    people: PeopleFile
    store: Path
    trust: Path

    def required(self, plan: AnyPlan) -> Required:
        """Return how many people must approve the plan, and what in it asks for them.

        Raises:
            DigestMismatch: The release is not in this installation's store.
        """
        releases = compose_releases(self.store, self.trust)
        if isinstance(plan, PlanHeader):
            return required_without_release(plan.settings, releases.approval_rules, plan.approvals)
        changes = releases.changes(plan.release.digest, plan.known_good)
        releases.keep_policy()
        last = self.ledger.last_trust_policy(plan.fleet)
        is_other = last is not None and last != plan.trust_policy
        replaced = [releases.approval_rules_of(last)] if last is not None and is_other else []
        signed = releases.asks_approval_for(plan.release.digest)
        return required(changes, releases.approval_rules, plan.approvals, replaced, signed=signed)

    def require_as_signed(self, plan: Plan) -> None:
        """Return if the release may follow whatever its gateways go back to, and be drained for so long.

        Raises:
            DoesNotFit: Its signers did not mean it so.
            DigestMismatch: The release is not in this installation's store.
        """
        releases, digest = compose_releases(self.store, self.trust), plan.release.digest
        releases.require_follows(digest, plan.known_good.values())
        releases.require_drains(digest, plan.fleet.limits.drain_deadline)

    def state(self, plan: AnyPlan, requester: str) -> Approved:
        """Return how far the plan has come, if that person starts it."""
        given = self.ledger.approvals(plan.digest)
        return approved(
            self.required(plan),
            self._names.of_different_people(self._names.who_may_still(given, Action.ANSWER, plan.fleet)),
            requesters=self._requesters(requester, given),
            signers=self._signers(plan),
            now=datetime.now(UTC),
        )

    def seen_by(self, plan: AnyPlan, person: str) -> Approved:
        """Return how far the plan has come as that person sees it.

        As if they started it, unless they have approved it: then somebody else starts it.
        """
        given = self.ledger.approvals(plan.digest)
        theirs = self._names.of({person}, first_of(given))
        return self.state(plan, "" if any(one.person in theirs for one in given) else person)

    def require(self, plan: AnyPlan, requester: str, *, more: int = 0) -> tuple[str, ...]:
        """Return who approved the plan, once enough have; `more` than it needs to override a window.

        Raises:
            ApprovalRequired: Too few have who neither start it nor signed the release.
        """
        asks = Offer(verb=Verb.APPROVE, fleet=plan.fleet, plan=plan.digest)
        found = self.state(plan, requester)
        found = overriding(found) if more else found
        try:
            require_approved(found, asks)
        except ApprovalRequired as refused:
            self._await(plan, found, requester, str(refused))
            raise
        return found.people

    def approve(self, plan: AnyPlan, caller: Caller, reason: str) -> Approval:
        """Write down that the caller approves the plan.

        Raises:
            NotAllowed: The caller signed the release.
        """
        person = caller.person
        if plan.release is not None and is_one_of(person, self._signers(plan)):
            raise NotAllowed(f"{person} signed {plan.release.version}; somebody else has to approve it")
        lasts = self.required(plan).lasts
        given = self.ledger.approve_plan(plan.digest, plan.fleet, person, reason, lasts, caller.groups)
        found = self.state(plan, "")
        if found.lacking:
            self._await(plan, found, person, f"{found.lacking} more must approve the plan")
        return given

    def _await(self, plan: AnyPlan, found: Approved, person: str, sentence: str) -> None:
        """Write down, once for each step that it has come, that the plan waits; people are told of it."""
        change = (
            self.ledger.newest_number(plan.fleet) + 1
        )  # a plan may be started again, and needs them again
        key = f"awaited/{plan.digest}/{change}/{found.required.count}/{','.join(found.people)}"
        body = {"sentence": sentence, "lacking": found.lacking}
        self.ledger.audit(
            person,
            Via.SYSTEM,
            APPROVAL_AWAITED,
            plan.digest,
            body,
            digest_of(key.encode()),
            fleet=plan.fleet,
        )

    def _signers(self, plan: AnyPlan) -> frozenset[str]:
        """Return by which names all who ever signed the release may be known here; a reload has none."""
        row = self.ledger.release_row(plan.release.digest) if plan.release is not None else None
        labels = row.ever_signed if row is not None else ()
        identities = frozenset[str]().union(*(identities_in(label) for label in labels))
        return self._names.of_signers(identities)

    def _requesters(self, requester: str, given: Sequence[Approval]) -> frozenset[str]:
        """Return by which names who asks may have approved: a machine may ask for whoever made its token."""
        makers = self.ledger.makers_of(requester)
        return self._names.of({requester}, first_of(given)) | self._names.of(makers)

    @property
    def _names(self) -> KnownNames:
        return KnownNames(self.ledger, self.people)
