"""The watch over gateways whose waves have passed, from then on until the release is promoted or goes back.

The next wave may wait for hours for its window or an operator. What runs the release already is watched
beside it, as the bake watches it after the promotion.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.facts import FactActivities, LeftOutQuery
from activities.ledger import GatewayResults, LedgerActivities
from activities.plans import GatewaysQuery, PlanActivities
from policies.harm_asked import HarmAsked
from policies.model.change import GatewayResult
from policies.model.fleet import Automation
from policies.model.plan_part import PlanHeader
from policies.model.report import WatchReport
from policies.model.value import Name, Packed, Value
from policies.model.verdict import Basis, Decision
from policies.notices.entries import WATCHED
from policies.planning.cohorts import LEFT_OUT, SET_ASIDE
from workflows import control
from workflows.children import left_behind
from workflows.failed_alone import Failed, FailedAlone
from workflows.failures import sentence_of
from workflows.identities import return_of
from workflows.restore import Restore, RestoreOrder, answers_by_hand
from workflows.watch import BAKE, WatchOrder, watch_of
from workflows.watched import Watched, keep_watching

FAILED_ALONE = "it failed by itself after its wave had passed"


class PassedChange(NamedTuple):
    """The change of which waves have passed."""

    name: Name
    plan: PlanHeader
    epoch: int
    source: str | None


class PassedSoFar(Value):
    """What is remembered of waves that have passed, for a history that is cut."""

    failed: Packed[Failed] = Failed()
    blind: bool = False
    """Whether operators were notified that nothing is seen of these waves."""
    decided: tuple[Basis, ...] = ()
    """What operators decide about, or have decided, each as their votes are bound to it."""


class PassedWaves:
    """What is seen of the gateways of a change that run its release while others do not yet."""

    def __init__(self, fleet: Name, change: Name, known: PassedSoFar | None) -> None:
        """Watch nothing yet; `known` is what an earlier run of the change remembered."""
        self._notices = control.Notices()
        self._watched: Watched | None = None
        self._work: tuple[asyncio.Task[None], ...] = ()
        self._news = False
        self._alone: FailedAlone | None = None
        self._asked = HarmAsked(known.decided if known is not None else ())
        self._by_hand = dict[Name, str]()
        """Why gateways are left to the operators who steered them on their hosts."""
        if known is not None:
            self._alone = FailedAlone(fleet, change, known.failed, self._notices)
            self._watched = Watched(fleet, change, self._notices, self._is_due)
            self._watched.is_blindness_told = known.blind

    @property
    def are_noticed(self) -> bool:
        """Whether operators have been notified of all that is remembered: a history is cut only then."""
        return self._notices.are_written

    def dump(self) -> PassedSoFar:
        """Return everything remembered, for a history that is cut."""
        return PassedSoFar(
            failed=self._alone.dump() if self._alone is not None else Failed(),
            blind=self._watched is not None and self._watched.is_blindness_told,
            decided=self._asked.bases,
        )

    def begin(self, change: PassedChange, passed: int, carry: str, child: str) -> None:
        """Watch the waves up to that one from now on."""
        self.end()
        fleet = change.plan.fleet
        asked = WatchOrder(
            change=change.name,
            plan=change.plan.digest,
            wave=BAKE,
            passed=passed,
            listener=workflow.info().workflow_id,
            run=workflow.info().run_id,
            passes_by_time=True,
            complete=True,
            carry=carry,
        )
        watched = self._watched = self._watched or Watched(fleet, change.name, self._notices, self._is_due)
        alone = self._alone = self._alone or FailedAlone(fleet, change.name, Failed(), self._notices)
        watched.expect()
        self._work = (
            asyncio.create_task(
                keep_watching(lambda: asked, watch_of(child), watched, lambda: not self._work)
            ),
            asyncio.create_task(self._notice_blindness(watched)),
            asyncio.create_task(alone.keep_trying(partial(self._restore, change), lambda: not self._work)),
        )

    def end(self) -> None:
        """Watch no more: the release is promoted, or goes back."""
        work, self._work = self._work, ()
        if self._watched is not None:
            self._watched.end()
        for task in work:
            task.cancel()

    async def close(self) -> None:
        """Take back what operators were notified of: nothing is watched here any more."""
        self.end()
        if self._alone is not None:
            await self._alone.close("its change has ended; reconcile brings it back")
        if self._watched is not None and self._watched.is_blindness_told:
            await self._watched.tell_blindness(
                WATCHED, "its waves are not watched beside the next one any more"
            )

    def hear(self, report: WatchReport) -> bool:
        """Take over a decision of the watch, of an earlier run's, too; return whether it is news."""
        news = self._watched is not None and self._watched.hear(report)
        self._news |= news
        if news:
            self._asked.see(report.decision, (report.run, report.beginning))
        return news

    def harm(self, automation: Automation) -> Decision | None:
        """Return the harm for which the change goes back by itself."""
        return self._watched.harm(automation) if self._watched is not None else None

    def harm_to_decide(self) -> Decision | None:
        """Return harm that operators have to decide about, once for each gate until its harm is over."""
        found = self._watched.found_harm if self._watched is not None else None
        if found is None or not self._asked.is_news(found):
            return None
        self._asked.add(found)
        return found

    def take_in(self, decided: Decision | None) -> None:
        """Ask anew about harm once a further wave has passed, but for what operators passed it against."""
        self._asked = HarmAsked()
        if decided is not None:
            self._asked.add(decided)

    async def _notice_blindness(self, watched: Watched) -> None:
        while self._work:
            self._news = False
            await watched.notice_blindness()
            await workflow.wait_condition(lambda: self._news)

    def _is_due(self) -> None:
        self._news = True

    # --- gateways that fail alone -------------------------------------------------------

    def newly_failed(self) -> dict[str, str]:
        """Return the gateways that have failed by themselves since this was asked last, each with why."""
        found = self._alone.hear(self._watched.failed) if self._watched and self._alone else ()
        return {name: self._why(name) for name in found}

    async def leave_to_operators(self, change: PassedChange, names: tuple[Name, ...]) -> dict[Name, str]:
        """Take gateways out of the change that operators steered off its release on their hosts.

        Their hosts decide: what the ledger knows of them may be older than what the change did there.

        Returns:
            Why each of them that answers is left to operators, empty where it is not; none where the ledger
            does not answer.
        """
        plan = change.plan
        try:
            asked = GatewaysQuery(plan=plan.digest, gateways=names)
            keys = await control.ask(PlanActivities.find_parts, asked)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return {}  # reconcile reports them again
        by_path = {key.path: key for key in keys.values()}
        parts = [await control.read_part(plan.digest, key) for key in by_path.values()]
        members = [one for part in parts for one in part.members if one.gateway.name in names]
        off = plan.release.digest if plan.release is not None else None
        answers = await answers_by_hand(plan.fleet, members, off)
        found = {name: why for name, why in answers.items() if why}
        self._by_hand |= found
        if found:
            await self._restore(change, tuple(sorted(found)))
        return answers

    def _why(self, name: Name) -> str:
        """Return why the gateway is left out: the sign on itself, where the watch still reports it."""
        if name in self._by_hand:
            return self._by_hand[name]
        decision = self._watched.decision if self._watched is not None else None
        own = decision.own.get(name) if decision is not None else None
        return f"{FAILED_ALONE}: {own}" if own else FAILED_ALONE

    async def _restore(self, change: PassedChange, names: tuple[Name, ...]) -> Mapping[Name, str]:
        """Begin to bring gateways back, each by itself; return why of which that has not begun.

        A restore that has begun tries until its gateway is back. Operators decide about those in quarantine.
        """
        plan = change.plan
        try:
            asked = GatewaysQuery(plan=plan.digest, gateways=names)
            parts = await control.ask(PlanActivities.find_parts, asked)
            out = LeftOutQuery(fleet=plan.fleet, gateways=names)
            left_out = await control.ask(FactActivities.find_left_out, out)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return dict.fromkeys(names, sentence_of(error))
        for name, part in sorted(parts.items()):
            if name in left_out:
                continue
            restore = RestoreOrder(
                change=change.name,
                plan=plan.digest,
                fleet=plan.fleet,
                reason=self._why(name),
                keys=(part,),
                only=name,
                epoch=change.epoch + 1,  # what its batch may still send late is refused
                failed=plan.release.digest if plan.release is not None else None,
                source=change.source,
                limits=plan.limits,
            )
            await left_behind(Restore.run, restore, return_of(name, change.name))
        rows = tuple(
            GatewayResult(
                gateway=name,
                wave=part.wave,
                state=LEFT_OUT if name in self._by_hand else SET_ASIDE,
                sentence=self._why(name),
                started=workflow.now().timestamp(),
                at=workflow.now(),
            )
            for name, part in sorted(parts.items())
        )
        results = GatewayResults(change=change.name, results=rows)
        written = await control.note(LedgerActivities.record_gateways, results, "progress")
        missing = {name: why for name, why in left_out.items() if name in parts}
        return missing if written else dict.fromkeys(parts, "") | missing
