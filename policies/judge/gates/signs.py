"""What gates that look for bad signs have in common: a sign has to last, and to spare the control."""

from collections.abc import Collection, Sequence
from typing import ClassVar

from policies.judge.counts import Series, of_this_start
from policies.judge.gates.kind import GateState, Kind, Selector, Setup
from policies.judge.look import Look
from policies.judge.tick import Finding, Sign, Tick
from policies.model.verdict import Cohorts, GateReading, GateVerdict

EVERYBODYS = 1 / 3
"""Part of the control gateways from which on a sign is the fleet's and not the release's."""


class Signed(Kind):
    """A bad sign on single instances; `bad` is the verdict when it is believed."""

    bad: ClassVar[GateVerdict]
    value: Selector
    """The series in which the sign is seen."""

    @property
    def promised(self) -> tuple[str, ...]:
        """The series the sign is seen in."""
        return (self.value,)

    def find(self, look: Look) -> Finding:
        """Return the instances on which the sign fires, and since when."""
        units = self.units(look)
        found = {}
        for one in of_this_start(self.series(look), look.cohorts):
            unit = 1.0 if units is None else units.get(one.instance, 0.0)
            since = self.firing_since(one.samples, unit) if unit else None
            if since is not None and one.samples[-1][0] >= look.oldest:
                found[one.instance] = Sign(since=since, until=one.samples[-1][0])
        return Finding(signs=found)

    def series(self, look: Look) -> list[Series]:
        """Return the series in which the sign is looked for."""
        return look.ours(self.value)

    def units(self, look: Look) -> dict[str, float] | None:
        """Return by what each instance's value is divided, None when by nothing; unknown is no sign."""
        del look
        return None

    def firing_since(self, samples: Sequence[tuple[float, float]], divisor: float = 1.0) -> float | None:
        """Return since when the newest samples fire without a break; None when the newest does not."""
        since = None
        for at, value in reversed(samples):
            if not self.fires_at(value / divisor):
                break
            since = at
        return since

    def fires_at(self, value: float) -> bool:
        """Whether one value is a bad sign."""
        raise NotImplementedError

    def lasting(self, setup: Setup, signs: dict[str, Sign]) -> dict[str, Sign]:
        """Keep the signs that have lasted long enough."""
        del setup
        return signs

    def believed(self, mine: list[str], tick: Tick) -> list[str]:
        """Return those changed gateways of which the sign is believed."""
        del tick
        return mine

    def judge(self, setup: Setup, state: GateState, tick: Tick) -> tuple[GateState, GateReading]:
        """Return which changed gateways the sign is on, and whether it is on too much of the control, too."""
        signs, changed = self.lasting(setup, tick.signs.get(self.id, {})), setup.cohorts.changed
        mine = sorted(i for i in signs if i in changed)
        theirs = _of_others(signs, mine, setup.cohorts)
        numbers = {"canary": float(len(mine)), "control": float(len(theirs))}
        if not mine:
            return state, self.reading(GateVerdict.HEALTHY, "no sign", numbers)
        believed = self.believed(mine, tick)
        named = tuple(believed or mine)
        reason = f"on canary {named[0]} for {signs[named[0]].until - signs[named[0]].since:.0f} s"
        if is_everybodys(theirs, setup.cohorts.control):
            verdict, reason = GateVerdict.CONFLICTING, f"{reason}, and on {len(theirs)} control gateways"
        elif not believed:
            verdict, reason = GateVerdict.METRICS_UNAVAILABLE, f"{reason}, but no probe confirms it"
        else:
            verdict = self.bad
            reason += f", and on {len(believed) - 1} more" if len(believed) > 1 else ""
        reading = self.reading(verdict, reason, numbers)
        return state, reading.model_copy(update={"instances": named})


def _of_others(signs: Collection[str], mine: list[str], cohorts: Cohorts) -> list[str]:
    """Return the controls the sign is on; a host that fails shows it on both of its instances.

    One such host, or as many as may fail by themselves, says nothing of anybody else.
    """
    theirs = [instance for instance in signs if instance in cohorts.control]
    if len(mine) > max(1, cohorts.may_fail):
        return theirs
    return [instance for instance in theirs if cohorts.beside.get(instance) not in mine]


def is_everybodys(on: Collection[str], control: Collection[str]) -> bool:
    """Whether a third of the control gateways or more show the sign too."""
    return bool(control) and len(set(on) & set(control)) >= max(1.0, EVERYBODYS * len(control))
