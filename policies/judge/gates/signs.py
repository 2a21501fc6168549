"""What gates that look for bad signs have in common: a sign has to last, and to spare the control."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import ClassVar

from policies.judge.counts import Series, of_this_start
from policies.judge.gates.kind import GateState, Kind, Response, Selector, Setup
from policies.judge.look import Look
from policies.judge.tick import Finding, Sign, Tick
from policies.model.verdict import Cohorts, GateReading, GateVerdict

EVERYBODYS = 1 / 3
"""Part of the control gateways from which on a sign is the fleet's and not the release's."""
FEWEST_TOGETHER = 3
"""Gateways that a sign begins on together, at least, where no gateway is left unchanged."""
TOGETHER = "together"
"""The number of a reading that says on how many gateways the sign began together; operators decide then."""
SPARED_SCRAPES = 3
"""How long a sign on the control counts after it has ended there: gateways are not scraped at one moment."""


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
        return self.finding(found, look)

    def finding(self, signs: dict[str, Sign], look: Look) -> Finding:
        """Return the signs, and when the control was seen where a changed gateway shows one or just did."""
        just_now = look.memory.signed.get(self.id, 0.0) >= 2 * look.oldest - look.reading.at
        if not just_now and look.cohorts.changed.isdisjoint(signs):
            return Finding(signs=signs)
        cohorts = look.cohorts
        peers = {*(cohorts.control or (*cohorts.canary, *cohorts.changed_before))}
        times = (at for name, at in self.seen(look) if name in peers and at >= look.oldest)
        return Finding(signs=signs, seen=tuple(sorted(times)))

    def seen(self, look: Look) -> Iterable[tuple[str, float]]:
        """Return each instance that may show the sign, and when that was last looked for on it."""
        return ((one.instance, one.samples[-1][0]) for one in look.ours(self.value) if one.samples)

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

    def began(self, setup: Setup, sign: Sign) -> float:
        """Return when a sign was first seen."""
        del setup
        return sign.since

    def beginning(self, shown: Collection[str], lasting: Collection[str]) -> list[str]:
        """Return the instances on which the sign has begun, and has not lasted long enough yet."""
        return [instance for instance in shown if instance not in lasting]

    def believed(self, mine: list[str], tick: Tick) -> list[str]:
        """Return those changed gateways of which the sign is believed."""
        del tick
        return mine

    def judge(self, setup: Setup, state: GateState, tick: Tick) -> tuple[GateState, GateReading]:
        """Return which changed gateways the sign is on, and whether it is on too much of the control, too.

        After their wave, where no gateway is left unchanged, changed gateways are compared with each other.
        Where unchanged gateways are no control, such as adopted ones, each sign is the release's.
        """
        if setup.passed and not (setup.cohorts.control or setup.cohorts.unchanged):
            return self._judge_together(setup, state, tick)
        shown, control = tick.signs.get(self.id, {}), setup.cohorts.control
        signs = self.lasting(setup, shown)
        state = _remembered(setup, state, signs, tick.at)
        mine = sorted(state.noticed)
        theirs = _of_others(state.spared, mine, setup.cohorts)
        numbers = {"canary": float(len(mine)), "control": float(len(theirs))}
        if not mine:
            return state.model_copy(update={"unsure": ()}), self.reading(
                GateVerdict.HEALTHY, "no sign", numbers
            )
        fleets = is_everybodys(theirs, control)
        begun = {*theirs, *_of_others(self.beginning(shown, signs), mine, setup.cohorts)}
        seen = tick.seen.get(self.id, ())
        behind = {name: bisect_left(seen, self.began(setup, sign)) for name, sign in state.noticed.items()}
        unsure = [i for i in mine if not fleets and may_be_everybodys(begun, control, behind[i])]
        decided = [name for name in mine if name not in unsure]
        believed = self.believed(decided or mine, tick)
        named = tuple(believed or decided or mine)
        sign = signs.get(named[0], state.noticed[named[0]])
        reason = f"on canary {named[0]} for {sign.until - sign.since:.0f} s"
        if fleets:
            verdict, reason = GateVerdict.CONFLICTING, f"{reason}, and on {len(theirs)} control gateways"
        elif not decided:
            verdict = GateVerdict.METRICS_UNAVAILABLE
            reason += ", and it is not known yet whether the control gateways show it, too"
        elif not believed:
            verdict, reason = GateVerdict.METRICS_UNAVAILABLE, f"{reason}, but no probe confirms it"
        else:
            verdict = self.bad
            reason += f", and on {len(believed) - 1} more" if len(believed) > 1 else ""
        reading = self.reading(verdict, reason, numbers)
        state = state.model_copy(update={"unsure": tuple(unsure)})
        return state, reading.model_copy(update={"instances": named})

    def response(self, reading: GateReading) -> Response:
        """Return what this reading may cause: where a third of all show the sign, operators decide."""
        return Response.HOLD if reading.numbers.get(TOGETHER) else self.action

    def _judge_together(self, setup: Setup, state: GateState, tick: Tick) -> tuple[GateState, GateReading]:
        """Return which changed gateways the sign is on, and on which of them it began with a third of all.

        These are named and not failed by themselves, until the sign ends on each.
        """
        cohorts = setup.cohorts
        peers = (*cohorts.canary, *cohorts.changed_before)
        shown = tick.signs.get(self.id, {})
        signs = self.lasting(setup, shown)
        state = _remembered(setup, state, signs, tick.at)
        mine = sorted(state.noticed)
        begun = {*mine, *self.beginning(shown, signs)}
        seen = tick.seen.get(self.id, ())
        behind = {name: bisect_left(seen, self.began(setup, sign)) for name, sign in state.noticed.items()}
        together = mine if _began_together(mine, peers, 0) else [n for n in mine if n in state.together]
        others = [name for name in mine if name not in together]
        unsure = [name for name in others if _began_together(begun, peers, behind[name])]
        own = [name for name in others if name not in unsure]
        state = state.model_copy(update={"unsure": tuple(unsure), "together": tuple(together)})
        numbers = {"canary": float(len(mine)), "control": 0.0}
        if not mine:
            return state, self.reading(GateVerdict.HEALTHY, "no sign", numbers)
        believed = self.believed(own or together or mine, tick)
        named = tuple(believed or own or together or mine)
        sign = signs.get(named[0], state.noticed[named[0]])
        reason = f"on canary {named[0]} for {sign.until - sign.since:.0f} s"
        verdict = self.bad
        if not (own or together):
            verdict = GateVerdict.METRICS_UNAVAILABLE
            reason += ", and it is not known yet whether the other gateways show it, too"
        elif not believed:
            verdict, reason = GateVerdict.METRICS_UNAVAILABLE, f"{reason}, but no probe confirms it"
        elif own:
            reason += f", and on {len(believed) - 1} more" if len(believed) > 1 else ""
        else:
            numbers[TOGETHER] = float(len(together))
            reason += f", and on {len(together) - 1} more of {len(peers)} together, with none left unchanged"
        return state, self.reading(verdict, reason, numbers).model_copy(update={"instances": named})


def _began_together(on: Collection[str], peers: Collection[str], behind: int) -> bool:
    """Whether a third of all show the sign, if those of which nothing is seen since show it, too."""
    return len({*on} & {*peers}) + behind >= max(FEWEST_TOGETHER, EVERYBODYS * len(peers))


def _of_others(signs: Collection[str], mine: list[str], cohorts: Cohorts) -> list[str]:
    """Return the controls the sign is on; a host that fails shows it on both of its instances.

    One such host, or as many as may fail by themselves, says nothing of anybody else.
    """
    theirs = [instance for instance in signs if instance in cohorts.control]
    if len(mine) > max(1, cohorts.may_fail):
        return theirs
    return [instance for instance in theirs if cohorts.beside.get(instance) not in mine]


def _remembered(setup: Setup, state: GateState, signs: Mapping[str, Sign], at: float) -> GateState:
    """Return the state with who of the control shows the sign or did just now, and the first signs on others.

    What was noticed on an instance that has been started since then says nothing of the one that runs.
    """
    cohorts, most = setup.cohorts, SPARED_SCRAPES * setup.scrape.total_seconds()
    before = {name: seen for name, seen in state.spared.items() if at - seen <= most}
    now = {name: at for name in signs if name in cohorts.control}
    first = {name: sign for name, sign in signs.items() if name in cohorts.changed} | {
        name: sign
        for name, sign in state.noticed.items()
        if name in cohorts.changed
        and (name in signs or name in state.unsure)
        and sign.until >= cohorts.since.get(name, 0.0)
    }
    return state.model_copy(update={"spared": before | now, "noticed": first})


def is_everybodys(on: Collection[str], control: Collection[str]) -> bool:
    """Whether a third of the control gateways or more show the sign too."""
    return may_be_everybodys(on, control, 0)


def may_be_everybodys(on: Collection[str], control: Collection[str], behind: int) -> bool:
    """Whether that would be so if the control gateways of which nothing is seen yet showed it, too."""
    return bool(control) and len(set(on) & set(control)) + behind >= max(1.0, EVERYBODYS * len(control))
