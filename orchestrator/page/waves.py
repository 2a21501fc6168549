"""Waves of a change, folded to what matters: those before, the one that is under way, those that follow."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHOWN = 6
"""So many waves are shown one by one; of more, those far from the present one are taken together."""


@dataclass(frozen=True, slots=True)
class WaveRow:
    """A wave, or several that are taken together: how many gateways, and how many in which state."""

    name: str
    gateways: int
    counts: Mapping[str, int]


def waves(change: Mapping[str, Any]) -> tuple[WaveRow, ...]:
    """Return the waves of a change's status in their order; what is done to all at once has none."""
    numbers = sorted(number for number in map(int, change["planned"]) if number)
    if len(numbers) <= SHOWN:
        return tuple(_row(change, [number]) for number in numbers)
    now = max(change["wave"], numbers[0])
    before = [number for number in numbers if number < now - 1]
    near = [number for number in numbers if now - 1 <= number <= now + 1]
    after = [number for number in numbers if number > now + 1]
    groups = [before, *([number] for number in near), after]
    return tuple(_row(change, group) for group in groups if group)


def _row(change: Mapping[str, Any], numbers: Sequence[int]) -> WaveRow:
    counts: Counter[str] = Counter()
    for number in numbers:
        counts.update(_of(change["by_wave"], number, {}))
    name = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return WaveRow(name, sum(_of(change["planned"], number, 0) for number in numbers), counts)


def _of(by_number: Mapping[Any, Any], number: int, otherwise: Any) -> Any:
    """Return what belongs to a wave, whose number JSON has written as text."""
    return by_number.get(str(number), by_number.get(number, otherwise))
