"""What is seen of gateways that run a release after their wave, in the bake or while the next wave waits."""

from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError

from activities.ledger import EventEntry
from policies.model.fleet import Automation
from policies.model.report import WatchReport
from policies.model.value import Name
from policies.model.verdict import Decision
from policies.notices.entries import UNWATCHED, WATCHED
from policies.status.awaited import finds_harm, gives_no_verdict, rolls_back_by_itself
from workflows import steps
from workflows.alarm import Alarm
from workflows.children import guarded
from workflows.control import Notices
from workflows.failures import sentence_of
from workflows.watch import Watch, WatchOrder


class Watched:
    """The last report of a watch: harm, gateways that failed alone, and whether it reports at all."""

    def __init__(self, fleet: Name, change: Name, notices: Notices, due: Callable[[], None]) -> None:
        """Expect no report yet; `due` is called when `notice_blindness` has something to do."""
        self._fleet = fleet
        self._change = change
        self._notices = notices
        self._begun = 0
        """Watches that were begun by this run."""
        self._heard: WatchReport | None = None
        self.last_harm: Decision | None = None
        """The harm that was found last, which may not be seen any more."""
        self._silence = Alarm(due)
        """Rings when the watch counts as silent, unless it reports before."""
        self._blindness: Alarm | None = None
        """Rings when nothing has been seen for too long; None while something is."""
        self._due = due
        self.is_blindness_told = False

    def expect(self) -> None:
        """Expect the first report of a watch from now on."""
        self._heard = None
        self._silence.set(2 * steps.UNREAD_FOR)

    def beginning(self) -> tuple[int, ...]:
        """Return the number of a watch that begins: what those before report later is old news."""
        self._begun += 1
        return (self._begun,)

    def hear(self, report: WatchReport) -> bool:
        """Take over a report; return whether it is news, which one that was overtaken is not.

        What a watch that an earlier run began has found counts until a watch of this run reports.
        """
        if report.run != workflow.info().run_id:
            report = report.model_copy(update={"beginning": ()})
        if not report.follows(self._heard):
            return False
        self._heard = report
        self.last_harm = self.found_harm or self.last_harm
        self._silence.set(report.fresh_for)
        return True

    @property
    def decision(self) -> Decision | None:
        """The last decision, None before the first."""
        return self._heard.decision if self._heard is not None else None

    @property
    def found_harm(self) -> Decision | None:
        """The harm that the last decision shows, rolled back by penstock or left to operators."""
        found = self.decision
        return found if found is not None and finds_harm(found) else None

    def harm(self, automation: Automation) -> Decision | None:
        """Return the harm for which gateways go back by themselves: of hard signs, whatever is automatic."""
        found = self.found_harm
        return found if found is not None and rolls_back_by_itself(found, automation) else None

    @property
    def failed(self) -> tuple[str, ...]:
        """The gateways that have failed by themselves."""
        found = self.decision
        return found.failed if found is not None else ()

    # --- silence and missing metrics --------------------------------------------------

    @property
    def blindness(self) -> str | None:
        """Why nothing is judged now, by metrics or for want of the watch itself; None while something is.

        Conflicting evidence is no verdict either: harm would not be found.
        """
        heard = self._heard
        if heard is not None and gives_no_verdict(heard.decision):
            return heard.decision.reason
        if not self._silence.rings:
            return None
        since = f"since {heard.at:%Y-%m-%d %H:%M:%S} UTC" if heard is not None else "yet"
        return f"the watch has not reported {since}"

    async def notice_blindness(self) -> None:
        """Notify operators when nothing has been seen for too long, and when something is seen again."""
        why = self.blindness
        if why is None:
            if self.is_blindness_told and self._heard is None:
                return  # a watch that has just begun has not read anything yet
            self._see()
            if self.is_blindness_told:
                await self.tell_blindness(WATCHED, "the gateways are judged again")
            return
        if self._blindness is None:
            self._blindness = Alarm(self._due)
            self._blindness.set(steps.UNREAD_FOR)
        if not self.is_blindness_told and self._blindness.rings:
            await self.tell_blindness(UNWATCHED, why)

    def _see(self) -> None:
        if self._blindness is not None:
            self._blindness.set(None)
        self._blindness = None

    def end(self) -> None:
        """Wait for no report any more; what is not seen by now stays so."""
        self._silence.stop()
        self._see()

    async def tell_blindness(self, action: str, sentence: str) -> None:
        """Write down that the gateways are watched no more, or again, from which notices are sent."""
        entry = EventEntry(
            action=action,
            fleet=self._fleet,
            subject=f"{self._fleet}/{self._change}",
            sentence=sentence,
            key=f"{workflow.info().run_id} {action} {workflow.now().isoformat()}",
        )
        self.is_blindness_told = action == UNWATCHED  # also where whoever waits here is cancelled
        await self._notices.tell(entry)


async def keep_watching(
    asked: Callable[[], WatchOrder], child: str, watched: Watched, is_over: Callable[[], bool]
) -> None:
    """Watch what is asked then until this is cancelled, or until nothing is to be watched any more.

    A watch that is lost is begun again, with the harm that it found, and one of the same name that is still
    ending is waited for.
    """
    while not is_over():
        update = {"decision": watched.found_harm, "beginning": watched.beginning()}
        order = asked().model_copy(update=update)
        try:
            await (await guarded(Watch.run, order, child))
        except (ChildWorkflowError, WorkflowAlreadyStartedError) as error:
            if is_over():
                return
            workflow.logger.warning("the watch %s ended: %s", child, sentence_of(error))
        else:
            return
        await workflow.sleep(steps.HELD_PACE)
