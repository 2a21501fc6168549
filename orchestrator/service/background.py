"""Background pools: long work of one kind of caller in few threads of its own, which ends with its caller.

No hold or rollback waits for a thread here, and the work of callers of one role delays no other role. Threads
take work of each person in turn, so a person with much work delays another one by a single task. The few
threads bound what all of it takes of the processor, which the event loop and the safe direction need, too.
"""

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from policies.model.errors import TooMany

T = TypeVar("T")

MOST_OF_ONE = 4
"""Tasks of one person in one pool, those that wait included."""

MOST = 64
"""Tasks of everybody in one pool, those that wait included."""

AFTER_SECONDS = 2.0
"""When a task that found no place may be tried again."""


@dataclass(eq=False)
class _Task:
    """Work that is done once for all callers who wait for it."""

    work: Callable[[], Any]
    key: Hashable
    people: set[str] = field(default_factory=set)
    answers: list["Future[Any]"] = field(default_factory=list)
    begun: bool = False


class Pool:
    """A few threads, and a bounded number of tasks that wait for one."""

    def __init__(self, name: str, threads: int, most: int = MOST, most_of_one: int = MOST_OF_ONE) -> None:
        """Name the threads, for those who look at the process.

        Args:
            name: What the threads are called.
            threads: How many there are.
            most: Tasks of everybody, those that wait included.
            most_of_one: Tasks of one person, those that wait included.
        """
        self._most, self._most_of_one = most, most_of_one
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._turn = threading.Lock()
        self._tasks = Counter[str]()
        self._queues = OrderedDict[str, deque[_Task]]()
        """What waits, by person; the person whose turn is next is the first."""
        self._shared = dict[Hashable, _Task]()
        """What waits and has a key."""

    async def run(
        self,
        work: Callable[[], T],
        person: str = "",
        *,
        key: Hashable = None,
        abandon: Callable[[], object] = lambda: None,
    ) -> T:
        """Return what the work returns, once it had its turn.

        Callers that name the same key before the work begins share it. So each answer was found after its
        caller asked, and a question that is repeated without end is one task at a time.

        When the caller is cancelled, work that waits for no other caller is dropped, and `abandon` ends work
        that has begun.

        Raises:
            TooMany: The person, or everybody together, has as many tasks here as there may be.
        """
        task, answer = self._put(work, person, key)
        waiting = asyncio.wrap_future(answer)
        try:
            return await waiting
        except asyncio.CancelledError:
            answer.cancel()
            self._drop(task)
            abandon()
            raise

    def _put(self, work: Callable[[], T], person: str, key: Hashable) -> tuple[_Task, "Future[T]"]:
        """Add the work to what waits, or the caller to those who wait for it already."""
        answer = Future[T]()
        with self._turn:
            known = self._shared.get(key) if key is not None else None
            task = known or _Task(work, key)
            if is_new := person not in task.people:
                self._refuse_another(person)
                if key is not None:
                    self._shared[key] = task
                task.people.add(person)
                self._tasks[person] += 1
                self._queues.setdefault(person, deque()).append(task)
            task.answers.append(answer)
        if is_new:
            self._threads.submit(self._work)
        return task, answer

    def _refuse_another(self, person: str) -> None:
        if person and self._tasks[person] >= self._most_of_one:
            count, whose = self._most_of_one, person
        elif self._tasks.total() >= self._most:
            count, whose = self._most, "everybody together"
        else:
            return
        after = f"ask again in {AFTER_SECONDS:.0f} s"
        raise TooMany(f"{whose} has {count} long requests under way; {after}", AFTER_SECONDS)

    def _work(self) -> None:
        """Do one task of the person whose turn it is, if any still waits."""
        with self._turn:
            task = self._next()
            if task is None:
                return
            task.begun = True
            self._shared.pop(task.key, None)
            answers = [one for one in task.answers if one.set_running_or_notify_cancel()]
        result, failure = None, None
        try:
            result = task.work()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            failure = error
        with self._turn:
            self._count_out(task)
        for answer in answers:
            if failure is not None:
                answer.set_exception(failure)
            else:
                answer.set_result(result)

    def _next(self) -> _Task | None:
        while self._queues:
            person, theirs = self._queues.popitem(last=False)
            task = theirs.popleft()
            if theirs:
                self._queues[person] = theirs
            if not task.begun:
                return task
        return None

    def _drop(self, task: _Task) -> None:
        """Take the task out of what waits, once no caller waits for it."""
        with self._turn:
            if task.begun or not all(one.cancelled() for one in task.answers):
                return
            task.begun = True
            self._shared.pop(task.key, None)
            for person in task.people:
                theirs = self._queues.get(person, deque())
                with suppress(ValueError):
                    theirs.remove(task)
                if not theirs:
                    self._queues.pop(person, None)
            self._count_out(task)

    def _count_out(self, task: _Task) -> None:
        self._tasks.subtract(dict.fromkeys(task.people, 1))
        self._tasks = +self._tasks


FLEETS = Pool("fleets", 2, most=512, most_of_one=16)
"""How fleets stand and what a rollback does: everybody may ask it who may look, and does all the time."""
PREVIEWS = Pool("previews", 2)
"""What a rollback does, for those who may order one."""
EVIDENCE = Pool("evidence", 2, most=512, most_of_one=16)
"""What gates measured and decided, for pages: of a change under way everybody has it read once a second."""
LOOKS = Pool("looks", 2)
"""What else everybody may ask who may look at a fleet."""
ANSWERS = Pool("answers", 2)
"""Long answers and pages, which are made from what is known: none of them waits for what LOOKS finds."""
PLANS = Pool("plans", 2)
"""What those ask who plan and start changes."""
DESCRIPTIONS = Pool("descriptions", 1)
"""What administrators apply."""
VERIFICATIONS = Pool("verifications", 4, most_of_one=2)
"""Releases that are verified; a repository that answers nothing holds each until `sources.deadline_s`."""
RECORD = Pool("record", 1)
"""The audit record, which is verified for minutes."""
