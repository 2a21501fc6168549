"""The window of a change's next wave: waited for before it, and heard while it is under way."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from functools import partial

from temporalio import workflow
from temporalio.exceptions import FailureError
from temporalio.workflow import ChildWorkflowHandle

from policies.model.change import PENSTOCK, ChangeOrder
from policies.model.command import Command, CommandKind, CommandReceipt
from policies.model.plan_part import PlanHeader
from policies.model.windows import OnWindowClose, WindowAnswer
from policies.status.story import Story
from workflows.children import guarded, sent
from workflows.failures import stopped
from workflows.patch_window import Opened, OpenedOrder

Give = Callable[[Command], Awaitable[CommandReceipt]]


class WaveWindow:
    """What was answered last about the wave that starts next, or goes on."""

    def __init__(self, story: Story, give: Give) -> None:
        """Know where the story is, and how the change is given a command."""
        self._story = story
        self._give = give
        self._wave = 0
        self._asking: ChildWorkflowHandle[Opened, None] | None = None
        self._answer: WindowAnswer | None = None
        self._under_way = False
        self._writing = set[asyncio.Task[None]]()
        """What holds a wave, or lifts that, until it is written down."""
        self._heeded = set[str]()
        """What closed and was acted on, by freeze; whether the change is held says the story."""

    async def ask(self, order: ChangeOrder, name: str, plan: PlanHeader, wave: int, child: str) -> None:
        """Have it asked, from now until that wave is over, whether it may start."""
        if not order.asks_window or self._wave == wave:
            return
        self._wave, self._answer = wave, None
        asked = OpenedOrder(
            change=name,
            plan=plan.digest,
            wave=wave,
            parent=workflow.info().workflow_id,
            overridden_at=order.override.at if order.override is not None else None,
        )
        self._asking = await guarded(Opened.run, asked, child)

    async def wait(self, order: ChangeOrder, ends: Callable[[], bool]) -> None:
        """Return once the wave may start, or the change ends instead.

        Raises:
            ApplicationError: The opening for which the plan was approved is over, and nothing had begun.
        """
        if not order.asks_window:
            return
        left: timedelta | None = None
        if order.start_by is not None and self._wave == 1:
            left = max(timedelta(0), order.start_by - workflow.now())
        try:
            await workflow.wait_condition(lambda: self._may_start or ends(), timeout=left)
        except TimeoutError as error:
            raise stopped(
                f"its plan was approved for the opening that closed at {order.start_by:%Y-%m-%d %H:%M} UTC, "
                "and nothing had begun by then; plan again, and have that approved"
            ) from error

    async def begin(self, closing: OnWindowClose) -> None:
        """Hear that the wave begins; from now on only a closing counts.

        One of the moment in which it began is acted on now: it has been told, and is not told again.
        """
        self._under_way = True
        self._story.take_window(None, workflow.now())
        if self._asking is not None:
            await sent(partial(self._asking.signal, Opened.begins))
        if self._answer is not None and not self._answer.fits:
            self._do_beside(self.hear(self._wave, self._answer, closing))

    async def end(self) -> None:
        """Ask no more: the wave is over."""
        self._under_way = False
        asking, self._asking, self._wave = self._asking, None, 0
        self._heeded.clear()
        self._do_beside(self._let_go("the wave is over"))
        self._story.take_window(None, workflow.now())
        if asking is not None:
            asking.cancel()
            with suppress(asyncio.CancelledError, FailureError):
                await asking

    def _do_beside(self, work: Coroutine[None, None, None]) -> None:
        """Do work beside the wave, or what follows it, which may be its way back: the ledger may be away."""
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing about a wave is being written down: a cut would lose it."""
        return not self._writing

    async def hear(self, wave: int, answer: WindowAnswer, closing: OnWindowClose) -> None:
        """Take over an answer; a closing or a freeze in mid-wave is acted on, and never cuts a session."""
        if wave != self._wave or self._story.goes_back:
            return
        self._answer = answer
        if not self._under_way:
            self._story.take_window(None if answer.fits else answer, workflow.now())
            return
        if not answer.is_known:
            return  # neither is a hold lifted, nor does anything go back, because nobody can say
        if answer.is_open:
            self._heeded.clear()
            await self._let_go(answer.lasting)
        elif answer.freeze is None and closing is OnWindowClose.ROLLBACK:
            await self._give(_command(CommandKind.ROLL_BACK, answer.lasting))
        elif answer.freeze is not None or closing is OnWindowClose.HOLD:
            await self._hold(answer)
        elif self._holds:  # the freeze is over, and so is the window
            self._heeded.clear()
            await self._let_go(answer.lasting)
        else:
            self._heeded.clear()
            self._story.note(f"the window closed; wave {wave} is finished: {answer.lasting}", workflow.now())

    async def _hold(self, answer: WindowAnswer) -> None:
        """Hold, once for each that closes it: a person who lifted that is not overruled, but by another."""
        what = answer.freeze or "window"
        if what in self._heeded or self._holds:
            return
        self._heeded.add(what)
        taken = False
        try:
            taken = (await self._give(_command(CommandKind.HOLD, answer.lasting))).accepted
        finally:
            if not taken:  # then it is said again with the next answer
                self._heeded.discard(what)

    async def _let_go(self, reason: str) -> None:
        """Lift the hold of the window, where there is one: the story knows, also when a person lifted it."""
        if self._holds:
            await self._give(_command(CommandKind.RESUME, reason))

    @property
    def _holds(self) -> bool:
        return PENSTOCK in self._story.holds

    @property
    def may_start(self) -> bool:
        """Whether the wave may start, by what was answered last."""
        return self._may_start

    @property
    def _may_start(self) -> bool:
        return self._answer is not None and self._answer.fits


def _command(kind: CommandKind, reason: str) -> Command:
    return Command(id=f"window-{kind}-{workflow.uuid4()}", kind=kind, person=PENSTOCK, reason=reason)
