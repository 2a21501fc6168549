"""The watch over gateways whose waves have passed, from then on until the release is promoted or goes back.

The next wave may wait for hours for its window or an operator. What runs the release already is watched
beside it, as the bake watches it after the promotion.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.ledger import GatewayResults, LedgerActivities
from activities.plans import GatewaysQuery, PlanActivities
from policies.model.change import ChangeOrder, GatewayResult
from policies.model.fleet import Automation
from policies.model.plan_part import PlanHeader
from policies.model.report import WatchReport
from policies.model.value import Name
from policies.model.verdict import Decision
from policies.notices.entries import WATCHED
from policies.planning.cohorts import SET_ASIDE
from workflows import control
from workflows.children import left_behind
from workflows.failures import sentence_of
from workflows.restore import Restore, RestoreOrder
from workflows.watch import BAKE, WatchOrder, watch_of
from workflows.watched import Watched, keep_watching

FAILED_ALONE = "it failed by itself after its wave had passed"


class PassedWaves:
    """What is seen of the gateways of a change that run its release while others do not yet."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._watched: Watched | None = None
        self._work: tuple[asyncio.Task[None], ...] = ()
        self._news = False
        self._returned = set[str]()

    def begin(self, change: Name, plan: PlanHeader, passed: int, carry: str, child: str) -> None:
        """Watch the waves up to that one from now on."""
        self.end()
        asked = WatchOrder(
            change=change,
            plan=plan.digest,
            wave=BAKE,
            passed=passed,
            listener=workflow.info().workflow_id,
            passes_by_time=True,
            complete=True,
            carry=carry,
        )
        watched = self._watched = self._watched or Watched(plan.fleet, change)
        watched.expect()
        self._work = (
            asyncio.create_task(keep_watching(asked, watch_of(child), watched, lambda: not self._work)),
            asyncio.create_task(self._notice_blindness(watched)),
        )

    def end(self) -> None:
        """Watch no more: the release is promoted, or goes back."""
        work, self._work = self._work, ()
        for task in work:
            task.cancel()

    async def close(self) -> None:
        """Take back what operators were notified of: nothing is watched here any more."""
        self.end()
        if self._watched is not None and self._watched.is_blindness_told:
            await self._watched.tell_blindness(
                WATCHED, "its waves are not watched beside the next one any more"
            )

    def hear(self, report: WatchReport) -> bool:
        """Take over a decision of the watch; return whether it is news."""
        news = self._watched is not None and bool(self._work) and self._watched.hear(report)
        self._news |= news
        return news

    def harm(self, automation: Automation) -> Decision | None:
        """Return the harm for which the change goes back by itself."""
        return self._watched.harm(automation) if self._watched is not None else None

    async def _notice_blindness(self, watched: Watched) -> None:
        while self._work:
            await watched.notice_blindness()
            self._news, wakes = False, watched.wakes_at
            left = None if wakes is None else wakes - workflow.now()
            with suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._news, timeout=left)

    # --- gateways that fail alone -------------------------------------------------------

    def newly_failed(self) -> dict[str, str]:
        """Return the gateways that have failed by themselves since this was asked last, each with why."""
        watched = self._watched if self._work else None
        names = [name for name in watched.failed if name not in self._returned] if watched else []
        self._returned |= {*names}
        return dict.fromkeys(sorted(names), FAILED_ALONE)

    async def restore(
        self, order: ChangeOrder, change: Name, plan: PlanHeader, epoch: int, failed: Mapping[str, str]
    ) -> None:
        """Bring these gateways back, each by itself; one that is not found now is left to reconcile."""
        try:
            asked = GatewaysQuery(plan=plan.digest, gateways=tuple(failed))
            parts = await control.ask(PlanActivities.find_parts, asked)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("%s not returned alone: %s", ", ".join(failed), sentence_of(error))
            return
        for name, part in sorted(parts.items()):
            restore = RestoreOrder(
                change=change,
                plan=plan.digest,
                fleet=plan.fleet,
                reason=failed[name],
                keys=(part,),
                only=name,
                epoch=epoch + 1,  # what its batch may still send late is refused
                failed=plan.release.digest if plan.release is not None else None,
                source=order.source,
                limits=plan.limits,
            )
            await left_behind(Restore.run, restore, f"restore/{name}/{change}")
        rows = tuple(
            GatewayResult(
                gateway=name,
                wave=part.wave,
                state=SET_ASIDE,
                sentence=failed[name],
                started=workflow.now().timestamp(),
                at=workflow.now(),
            )
            for name, part in sorted(parts.items())
        )
        await control.note(
            LedgerActivities.record_gateways, GatewayResults(change=change, results=rows), "progress"
        )
