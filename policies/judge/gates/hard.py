"""Gates of kind `hard`: bad signs that need no statistics; they have to last, and to spare the control."""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field

from policies.judge.counts import Series
from policies.judge.gates.kind import Selector, Setup
from policies.judge.gates.signs import Signed
from policies.judge.look import Look
from policies.judge.tick import Finding, Offence, Sign, Tick
from policies.model.value import Duration, Value
from policies.model.verdict import GateVerdict


class Fires(Value):
    """When a raw value is a bad sign; `gone` is a series missing from scrapes that reached its target.

    `value` is the bound, or how large a change must be.
    """

    when: Literal["above", "below", "equals", "changes", "gone"]
    """A value above, below or equal to `value`, a change by more, or a series gone."""
    value: float = 0.0
    """The bound, or how large a change must be."""


class Hard(Signed):
    """A sign that needs no statistics, held for a while by the canary and not by a third of control.

    Once waves have passed and no gateway is left unchanged, operators decide about a sign that begins on a
    third of the gateways together, and on three at least. Each outage that all of them share looks like that.
    """

    bad: ClassVar = GateVerdict.HARD

    kind: Literal["hard"]
    """Of a raw value."""
    per: Selector | None = None
    """By what the value is divided, such as the limit of open files."""
    fires: Fires
    """When it is a bad sign."""
    held: Duration = timedelta(0)
    """How long the sign has to last."""
    confirm: bool = Field(
        default=False, description="believe it only if a probe from the orchestrator fails, too"
    )

    @property
    def promised(self) -> tuple[str, ...]:
        """The value, and its units."""
        return (self.value, self.per) if self.per else (self.value,)

    @property
    def missable(self) -> str:
        """The series itself, where its absence is the sign."""
        return self.value if self.fires.when == "gone" else ""

    @property
    def changing(self) -> str:
        """The series itself, where its change is the sign."""
        return self.value if self.fires.when == "changes" else ""

    def lookback(self, scrape: timedelta) -> timedelta:
        """Return how far back to read: what must last is seen whole, with two lost scrapes."""
        return self.held + 3 * scrape

    def offence(self, lookback: timedelta) -> Offence:
        """Return the filter for gateways that may show the sign."""
        return Offence(self.value, self.fires.when, lookback, self.fires.value, self.per)

    def blind(self, look: Look) -> str:
        """Return why this gate cannot be read now.

        A series cannot go that was never there, nor be missed where its target is not reached.
        """
        if self.fires.when != "gone":
            return super().blind(look)
        if unread := look.unread((*self.promised, look.presence)):
            return unread
        if unsound := look.unsound_canary(self.selectors):
            return unsound
        for instance in look.cohorts.canary:
            if look.memory.last_reached.get(instance, 0.0) < look.oldest:
                return f"{instance} is not reached"
            if instance not in look.memory.last_shown[self.id]:
                return f"{self.value.partition('{')[0]} was never seen on {instance}"
        return ""

    def find(self, look: Look) -> Finding:
        """Return the instances on which the sign fires, and since when, but not from before their start."""
        if self.fires.when != "gone":
            return super().find(look)
        if look.unread((self.value,)):
            return Finding(signs={})  # not read is not gone
        shown, starts = look.memory.last_shown[self.id], look.cohorts.since
        lost = {i: gone_since(shown.get(i), times) for i, times in look.scrapes.items()}
        signs = {
            i: Sign(since=max(at, starts.get(i, at)), until=look.scrapes[i][-1])
            for i, at in lost.items()
            if at is not None
        }
        return self.finding(signs, look)

    def seen(self, look: Look) -> Iterable[tuple[str, float]]:
        """Return each instance that may show the sign, and when that was last looked for on it."""
        if self.fires.when != "gone":
            return super().seen(look)
        return ((instance, times[-1]) for instance, times in look.scrapes.items())

    def series(self, look: Look) -> list[Series]:
        """Return the series; of what may change, each after the value that the tick before left."""
        known = look.memory.last_values.get(self.id, {})
        return [_after(known.get(one.key), one) for one in super().series(look)]

    def units(self, look: Look) -> dict[str, float] | None:
        """Return by what each instance's value is divided, None when by nothing; unknown is no sign."""
        return {one.instance: one.samples[-1][1] for one in look.ours(self.per)} if self.per else None

    def firing_since(self, samples: Sequence[tuple[float, float]], divisor: float = 1.0) -> float | None:
        """Return since when the newest samples fire; a change fires where the last one was."""
        if self.fires.when != "changes":
            return super().firing_since(samples, divisor)
        changes = [at for (_, was), (at, now) in pairwise(samples) if abs(now - was) > self.fires.value]
        return changes[-1] if changes else None

    def fires_at(self, value: float) -> bool:
        """Whether one value is a bad sign."""
        bound = self.fires.value
        return {"above": value > bound, "below": value < bound}.get(self.fires.when, value == bound)

    def lasting(self, setup: Setup, signs: dict[str, Sign]) -> dict[str, Sign]:
        """Keep the signs that have lasted long enough, and of changes those since the window began."""
        if self.fires.when == "changes":
            return {i: sign for i, sign in signs.items() if sign.since > setup.started}
        held = self.held.total_seconds()
        return {i: sign for i, sign in signs.items() if sign.until - sign.since >= held}

    def began(self, setup: Setup, sign: Sign) -> float:
        """Return when a sign was first seen; what is gone was last there a scrape before that."""
        last = setup.scrape.total_seconds() if self.fires.when == "gone" else 0.0
        return min(sign.until, sign.since + last)

    def beginning(self, shown: Collection[str], lasting: Collection[str]) -> list[str]:
        """Return the instances on which the sign does not last yet; a change does not have to."""
        return [] if self.fires.when == "changes" else super().beginning(shown, lasting)

    def believed(self, mine: list[str], tick: Tick) -> list[str]:
        """Return those that are not absent, and that a probe does not reach where it must confirm."""
        there = [i for i in mine if i not in tick.absent]
        return [i for i in there if i in tick.unreachable] if self.confirm else there

    def gentle(self) -> "Hard":
        """Return the gate as it is: what needs no statistics rolls back in the bake as well."""
        return self


def gone_since(last_shown: float | None, reached: Sequence[float]) -> float | None:
    """Return since when a series has been missing from scrapes that reached its target.

    None when the newest scrape has it, or when it was never there: that is not known, not gone.
    """
    gone = last_shown is not None and reached and reached[-1] > last_shown
    return last_shown if gone else None


def _after(known: tuple[float, float] | None, one: Series) -> Series:
    """Return the series with the sample known from before in front of it, unless it reaches back that far."""
    older = known is not None and one.samples and known[0] < one.samples[0][0]
    return Series(one.labels, (known, *one.samples)) if known is not None and older else one
