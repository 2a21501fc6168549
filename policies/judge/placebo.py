"""The placebo guard: if a control gateway judged against the others would be rolled back too, be careful.

Each control gateway plays the canary against the rest by the same rule. Once one of them has
crossed, the fleet itself is uneven, and a crossing of the canary counts only when it stands
out at least twice as much as the worst control does.
"""

from collections.abc import Mapping, Sequence
from statistics import median

from policies.judge.sle import Counts, Margin, SleState, sle_init, sle_step

FEWEST_CONTROLS = 4
MOST_CONTROLS = 8
"""Control gateways that are tried; more would only cost time and space."""
TIMES_WORST = 2.0


def placebo_step(
    states: Mapping[str, SleState],
    seen: Mapping[str, tuple[int, int]],
    control: tuple[str, ...],
    margin: Margin,
    *,
    horizon: int,
    memory: int,
) -> dict[str, SleState]:
    """Fold one scrape for each control gateway that plays the canary."""
    if len(control) < FEWEST_CONTROLS:
        return {}
    events = sum(seen.get(i, (0, 0))[0] for i in control)
    bad = sum(seen.get(i, (0, 0))[1] for i in control)
    after = {}
    for instance in sorted(control)[:MOST_CONTROLS]:
        mine, mine_bad = seen.get(instance, (0, 0))
        counts = Counts(mine, mine_bad, events - mine, bad - mine_bad)
        after[instance] = sle_step(states.get(instance) or sle_init(horizon), counts, margin, memory)
    return after


def stands_out(canary_excess: float, excesses: Sequence[float]) -> bool:
    """Whether the canary's excess is at least twice the worst control's, over the median gateway."""
    middle = median(excesses)
    return canary_excess - middle >= TIMES_WORST * (max(excesses) - middle)
