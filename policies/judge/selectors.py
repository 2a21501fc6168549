"""Selectors that others contain: what a wider question has answered is not asked once more."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{(.*)\}")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([\w|-]*)"')
"""Of values only names and choices of names are understood: they mean the same in every dialect."""


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric, and what its labels have to be: name, operator and the values to choose from."""

    metric: str
    matchers: frozenset[tuple[str, str, tuple[str, ...]]]

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Return whether a series of this metric is one of the selector's."""
        return all(
            (labels.get(name, "") in values) is not operator.startswith("!")
            for name, operator, values in self.matchers
        )


def read_selector(text: str) -> Selector | None:
    """Return the selector without its cohort, or None when it says more than is understood here."""
    found = _SELECTOR.fullmatch(text)
    if found is None:
        return None
    parts = [part for part in found[2].split(",") if part != "$cohort"]
    matchers = [_MATCHER.fullmatch(part) for part in parts]
    return (
        Selector(
            metric=found[1],
            matchers=frozenset((m[1], m[2], _choices(m[2], m[3])) for m in matchers if m is not None),
        )
        if all(matchers)
        else None
    )


def _choices(operator: str, value: str) -> tuple[str, ...]:
    return tuple(sorted(value.split("|"))) if "~" in operator else (value,)


def contained(lookbacks: Mapping[str, timedelta]) -> dict[str, str]:
    """Return, for each selector that another one contains, the widest that does and reads as far back."""
    known = {text: found for text in lookbacks if (found := read_selector(text)) is not None}
    answer = {}
    for text, narrow in known.items():
        wider = [
            other
            for other, wide in known.items()
            if wide.metric == narrow.metric
            and wide.matchers < narrow.matchers
            and lookbacks[other] >= lookbacks[text]
        ]
        if wider:
            answer[text] = min(wider, key=lambda other: (len(known[other].matchers), other))
    return answer
