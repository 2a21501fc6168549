"""Opened: asks again and again whether a wave may start, and tells its change whenever the answer is another.

It is a workflow of its own so that a wait of a week, or a wave that is held for days, leaves no more in the
change's history than its answers; its own is cut.
"""

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.windows import WindowActivities, WindowQuery
from policies.model.value import Digest, Name, Value
from policies.model.windows import WindowAnswer
from workflows import control, steps
from workflows.children import tell
from workflows.compensation import heed_cancellation
from workflows.failures import sentence_of

UNANSWERED = timedelta(seconds=10)
"""Until it is asked again after nobody could answer."""


class OpenedOrder(Value):
    """Whose next wave it is, and what was answered last."""

    change: Name
    plan: Digest
    wave: int
    parent: str
    overridden_at: datetime | None = None
    under_way: bool = False
    told: WindowAnswer | None = None


@workflow.defn(name="Opened")
class Opened:
    """From before a wave until it is over; ended by the change."""

    @workflow.init
    def __init__(self, order: OpenedOrder) -> None:
        self._under_way = order.under_way
        self._told = order.told
        self._asked_again = False

    @workflow.signal(name="begins")
    def begins(self) -> None:
        """Hear that the wave begins: from now on nothing has to fit any more."""
        self._under_way = self._asked_again = True

    @workflow.run
    async def run(self, order: OpenedOrder) -> None:
        """Ask until the change ends this."""
        while True:
            heed_cancellation()
            self._asked_again = False
            answer = await self._ask(order)
            if _is_news(answer, self._told):
                self._told = answer
                await tell(order.parent, "window", order.change, order.wave, answer)
            if steps.history_is_long():
                workflow.continue_as_new(
                    order.model_copy(update={"under_way": self._under_way, "told": self._told})
                )
            try:
                await workflow.wait_condition(lambda: self._asked_again, timeout=answer.again)
            except TimeoutError:
                continue

    async def _ask(self, order: OpenedOrder) -> WindowAnswer:
        query = WindowQuery(
            change=order.change,
            plan=order.plan,
            wave=order.wave,
            under_way=self._under_way,
            overridden_at=order.overridden_at,
        )
        try:
            return await control.ask(WindowActivities.ask_window, query)
        except ActivityError as error:
            if isinstance(error.cause, asyncio.CancelledError):
                raise
            heed_cancellation()
            sentence = f"nobody can say whether a wave may start: {sentence_of(error)}"
            return WindowAnswer(fits=False, is_open=True, is_known=False, sentence=sentence, again=UNANSWERED)


def _is_news(answer: WindowAnswer, told: WindowAnswer | None) -> bool:
    """Whether anything but the time that is left is another than what was told."""
    if told is None:
        return True
    same = ("fits", "is_open", "is_known", "until", "freeze")
    if any(getattr(answer, name) != getattr(told, name) for name in same):
        return True
    return answer.until is None and answer.sentence != told.sentence
