"""Hearing: which changes told something, or ended, since the last look; the clocks of who writes may differ.

What was told is read in the order of its time, a page at a time, and a look goes on exactly behind the last
one that it took, however many there are of one moment. What lies shortly before that is read again each time,
since its writer's clock or commit may have been late; what this process has taken already it knows.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from orchestrator.store.ledger import Ledger
from orchestrator.store.notice_facts import Heard

OVERLAP = timedelta(seconds=60)
"""What was told so long before the last look is read again: its writer's clock or commit may be late."""
MOST_CHANGES = 500
"""Changes that one look takes; the next one goes on there."""
PAGE = 1_000
"""Rows that one question asks for."""


class Fresh(NamedTuple):
    """What a look has to look at, and how far it came by that."""

    changes: tuple[str, ...]
    """Each once, in the order in which they told something."""
    since: datetime
    heard: frozenset[Heard]


class Hearing:
    """What one process has taken already; it may block."""

    def __init__(self, ledger: Ledger) -> None:
        """Take the ledger."""
        self._ledger = ledger
        self._taken: frozenset[Heard] = frozenset()

    def fresh(self, since: datetime, now: datetime) -> Fresh:
        """Return what was told since then and was not taken, so many changes at most.

        Raises:
            Unavailable: The ledger does not answer.
        """
        changes, heard = dict[str, None](), list[Heard]()
        after = Heard("", since - OVERLAP)
        while page := self._ledger.changes_heard_after(after, PAGE):
            for one in page:
                if one not in self._taken and one.change not in changes:
                    if len(changes) == MOST_CHANGES:
                        return _fresh(changes, since, now, heard)
                    changes[one.change] = None
                heard.append(one)
            if len(page) < PAGE:
                break
            after = page[-1]
        return _fresh(changes, since, now, heard)

    def took(self, fresh: Fresh) -> None:
        """Know that what a look found is kept; until then a repeat finds all of it again."""
        self._taken = fresh.heard


def _fresh(changes: dict[str, None], since: datetime, now: datetime, heard: list[Heard]) -> Fresh:
    """Return it; nobody whose clock is ahead has a look step over what others tell meanwhile."""
    ends = max(since, min(heard[-1].at, now)) if heard else since
    return Fresh(tuple(changes), ends, frozenset(one for one in heard if one.at >= ends - OVERLAP))
