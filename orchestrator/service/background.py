"""Background pools: long work of one kind of caller in few threads of its own, which ends with its caller.

No hold or rollback waits for a thread here, and the work of callers of one role delays no other role.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from policies.model.errors import TooMany

T = TypeVar("T")

MOST_OF_ONE = 4
"""Tasks of one person in one pool, those that wait included."""

MOST = 64
"""Tasks of everybody in one pool, those that wait included."""

AFTER_SECONDS = 2.0
"""When a task that found no place may be tried again."""


class Pool:
    """A few threads, and a bounded number of tasks that wait for one."""

    def __init__(self, name: str, threads: int, most: int = MOST) -> None:
        """Name the threads, for those who look at the process; set how many there are, and how many tasks."""
        self._most = most
        self._name = name
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._tasks = Counter[str]()

    async def run(
        self, work: Callable[[], T], person: str = "", *, abandon: Callable[[], object] = lambda: None
    ) -> T:
        """Return what the work returns, once it had its turn.

        When the caller is cancelled, work that waits is dropped, and `abandon` ends work that has begun.

        Raises:
            TooMany: The person, or everybody together, has as many tasks here as there may be.
        """
        if (person and self._tasks[person] >= MOST_OF_ONE) or self._tasks.total() >= self._most:
            whose = person if person and self._tasks[person] >= MOST_OF_ONE else "everybody together"
            count = self._tasks[person] if whose == person else self._most
            raise TooMany(f"{whose} has {count} long requests under way; ask again", AFTER_SECONDS)
        self._tasks[person] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except asyncio.CancelledError:
            abandon()
            raise
        finally:
            self._tasks[person] -= 1
            if not self._tasks[person]:
                del self._tasks[person]


LOOKS = Pool("looks", 2)
"""What everybody may ask who may look at a fleet."""
PLANS = Pool("plans", 2)
"""What those ask who plan and start changes."""
DESCRIPTIONS = Pool("descriptions", 1)
"""What administrators apply."""
RECORD = Pool("record", 1)
"""The audit record, which is verified for minutes."""
