"""Which refusals a host writes down at once, and which it only counts: no stranger fills its record."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

HOUR = 3600.0
"""Seconds in which the same refusal is written down once, and then with its number."""

MOST_IN_AN_HOUR = 30
"""Refusals of one kind in an hour that differ from each other; further ones are counted together."""

OTHERS = "others of this kind, each with another sentence"


@dataclass
class _Told:
    """When something was written down last, in seconds of uptime, and how often it came since."""

    at: float
    more: int = 0


class Repeats:
    """What was refused in the last hour and how often; forgotten with its process."""

    def __init__(self, uptime: Callable[[], float]) -> None:
        """Take what says how many seconds the machine has been up."""
        self._uptime = uptime
        self._told: dict[tuple[str, str], _Told] = {}

    def is_one(self, action: str, sentence: str) -> bool:
        """Whether a refusal is only counted: it was written down in this hour, or too many others were."""
        told = self._told.get((action, sentence))
        if told is None and sum(kind == action for kind, _ in self._told) < MOST_IN_AN_HOUR:
            self._told[action, sentence] = _Told(self._uptime())
            return False
        told = told or self._told.setdefault((action, OTHERS), _Told(self._uptime()))
        told.more += 1
        return True

    def counted(self) -> Iterator[tuple[str, str]]:
        """Yield what was only counted and whose hour is over, to be written down with its number."""
        now = self._uptime()
        for (action, sentence), told in list(self._told.items()):
            if now - told.at < HOUR:
                continue
            del self._told[action, sentence]
            if told.more:
                if sentence != OTHERS:
                    self._told[action, sentence] = _Told(now)
                yield action, f"{told.more} more in an hour: {sentence}"
