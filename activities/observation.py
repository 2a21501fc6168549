"""Observation: one slice of watching a wave, folded through the judge tick by tick."""

import asyncio
import logging
import zlib
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol, TypeVar

from temporalio import activity

from activities.failures import as_application_errors
from policies.judge.counts import Series
from policies.judge.needs import Needs, offending, unreached, what_to_read
from policies.judge.otherwise import explained
from policies.judge.reading import COMPLAINTS, TICKETS, OpenTicket, Reading, with_old_instances
from policies.judge.selectors import contained, read_selector
from policies.judge.tick import Offence, Tick
from policies.judge.window import WindowState, fold_reading, next_window, silent_since
from policies.model.errors import BadInput, Unavailable
from policies.model.gates import GatePolicy
from policies.model.sample import is_due
from policies.model.value import Name, Value, sentence
from policies.model.verdict import Action, Cohorts, Decision, GateReading, GateVerdict, Window

T = TypeVar("T")

_log = logging.getLogger(__name__)

HEARTBEAT = timedelta(seconds=1)

CLOCK_BEHIND = timedelta(seconds=5)
"""How far a worker's clock may be behind the engine's: further behind, old samples look fresh to it."""


class ObservationOrder(Value):
    """Watch these cohorts for at most one slice, going on from `state`.

    `state` is the judge's own as the slice before returned it, empty for the first; that one begins
    with `carry`, what the window of the wave before left: evidence goes on over the waves of a rollout.
    `passed` is the last wave that has passed, where those are watched beside the next one.
    """

    rollout: Name
    wave: int
    passed: int = 0
    gates: GatePolicy
    cohorts: Cohorts
    window: Window
    slice: timedelta = timedelta(seconds=60)
    state: str = ""
    carry: str = ""


class ObservationSlice(Value):
    """What one slice found: the judge's state, its decision, and the two clocks.

    `carry` is for the next wave's first slice, or for the bake.
    """

    state: str
    carry: str = ""
    decision: Decision
    observed: timedelta
    wall: timedelta
    ticks: int
    over: bool = False
    """Whether nothing is to be watched any more: the change was not promoted, or nothing of that stands."""


class MetricsUnavailable(Unavailable):
    """The metrics could not be read in time, or not wholly; the judge holds rather than guesses."""


class BadQuery(BadInput):
    """The metrics source does not understand a query of the gate policy; correct gates.yaml."""


class MetricsSource(Protocol):
    """Where raw samples come from."""

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        """Return the samples of the series a selector names, of these instances, up to `at`.

        `$cohort` in the selector stands for the instances. Ends within seconds, always.

        Raises:
            MetricsUnavailable: no answer, or one that is not whole.
            BadQuery: the selector itself is wrong.
        """
        ...


class OffenderSource(Protocol):
    """Who of all gateways may show a bad sign, found by the metrics' own filters."""

    async def offenders(self, offence: Offence, at: datetime) -> frozenset[str]:
        """Return the instances that may offend, of whatever fleet; raises as MetricsSource does."""
        ...


class Replica(MetricsSource, OffenderSource, Protocol):
    """One of several servers that have the same series."""


class Probes(Protocol):
    """Whether a gateway answers from here, by a way that does not lead through the metrics."""

    async def reaches(self, instance: str) -> bool | None:
        """Return whether the instance takes users, None where its users' port is silent."""
        ...

    async def is_dead(self, instance: str, silent_since: datetime) -> bool | None:
        """Return whether the daemon of a silent users' port is dead: the agent has answered since then.

        False where the host is absent, and None where a daemon that is well may be silent.
        """
        ...


class _Ports(NamedTuple):
    """The users' ports of instances whose metrics do not answer."""

    unreachable: frozenset[str] = frozenset()
    """Those whose daemon surely takes no users."""
    absent: frozenset[str] = frozenset()
    """Those whose agent does not answer either."""
    silent: frozenset[str] = frozenset()
    """Those whose port does not answer, whichever of both is why."""


class ComplaintBook(Protocol):
    """Complaints that arrived by signed webhook."""

    async def distinct(self, instances: Sequence[str], since: datetime, until: datetime) -> dict[str, int]:
        """Return how many distinct users of each instance complained for the first time.

        Raises:
            Unavailable: the book cannot be read now.
        """
        ...


class TicketBook(Protocol):
    """Tickets that arrived by signed webhook."""

    async def open_about(self, instances: Sequence[str]) -> tuple[OpenTicket, ...]:
        """Return the open tickets about these instances and their fleets.

        Raises:
            Unavailable: the book cannot be read now.
        """
        ...


class Recorder(Protocol):
    """Where every tick goes, for `judge replay`; a repeat of a tick is the same tick."""

    async def record(self, order: ObservationOrder, tick: Tick) -> None:
        """Keep this tick of this order's rollout and wave."""
        ...


class Sampler(Protocol):
    """Where what gates measured goes, for people to look at; a repeat of a sample is the same sample."""

    def sample(self, order: ObservationOrder, at: float, readings: Sequence[GateReading]) -> None:
        """Have this kept of this order's rollout and wave, soon or never: nothing waits for it."""
        ...


class ObservationActivities:
    """Watching; safe to repeat after any crash, since counters are read by what was last folded."""

    def __init__(
        self,
        source: MetricsSource,
        *,
        offenders: OffenderSource | None = None,
        replicas: Sequence[Replica] = (),
        probes: Probes | None = None,
        complaints: ComplaintBook | None = None,
        tickets: TicketBook | None = None,
        recorder: Recorder | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self._replicas: list[tuple[MetricsSource, OffenderSource | None]] = [
            *((one, one) for one in replicas or ())
        ] or [(source, offenders)]
        self._probes = probes
        self._complaints = complaints
        self._tickets = tickets
        self._recorder = recorder
        self._sampler = sampler

    @activity.defn(name="observe_slice")
    async def observe_slice(self, order: ObservationOrder) -> ObservationSlice:
        """Watch until the slice ends, the decision is anything but to go on, or a hold is over.

        A gateway that fails or reboots by itself ends the slice too: somebody has to see to it.
        """
        resumed = activity.info().heartbeat_details
        state = _begun_with(resumed[0] if resumed else "", order)
        held, aside = state.held is not None, set(state.aside)
        ends = _now() + order.slice
        folded, late = 0, _behind_the_engine()

        def so_far() -> str:
            return packed(state)

        with as_application_errors():
            async with _beating(so_far):
                while True:
                    await self._until_due(order.gates, state)
                    before = state.wall
                    state, tick, decision = await self._tick(order, state, late)
                    activity.heartbeat(so_far())
                    folded += 1
                    if self._recorder is not None and tick is not None:
                        await self._recorder.record(order, tick)
                    if tick is not None and is_due(before, state.wall, order.gates.tick.total_seconds()):
                        self._sample(order, tick, decision)
                    news = decision.action is not Action.CONTINUE or held or set(state.aside) != aside
                    if news or _now() >= ends:
                        decision = await asyncio.to_thread(_explained, order, state, decision)
                        return ObservationSlice(
                            state=so_far(),
                            carry=packed(next_window(state)),
                            decision=decision,
                            observed=timedelta(seconds=state.observed),
                            wall=timedelta(seconds=state.wall),
                            ticks=folded,
                        )

    def _sample(self, order: ObservationOrder, tick: Tick, decision: Decision) -> None:
        if self._sampler is not None:
            self._sampler.sample(order, tick.at, decision.readings)

    async def _until_due(self, policy: GatePolicy, state: WindowState) -> None:
        """Sleep for a tick at most: the clock of another worker may have been ahead when it took the last."""
        tick = policy.tick.total_seconds()
        await asyncio.sleep(min(max(0.0, state.last + tick - _now().timestamp()), tick))

    async def _tick(
        self, order: ObservationOrder, state: WindowState, late: str
    ) -> tuple[WindowState, Tick | None, Decision]:
        """Read and fold one tick; what the judge cannot work on is no evidence, and a person hears of it.

        Nothing is read by a clock that is `late`.
        """
        if late:
            needs = what_to_read(order.gates, order.cohorts, state.memory, _now().timestamp())
            reading = Reading(at=_now().timestamp(), series={}, unread=dict.fromkeys(needs.lookbacks, late))
        else:
            reading = await self.read(order.gates, order.cohorts, state)
        try:
            state, tick, decision = await asyncio.to_thread(
                fold_reading, order.gates, order.window, order.cohorts, state, reading
            )
        except Exception as error:  # noqa: BLE001 - else it would be tried again for ever, and nobody told
            _log.exception("a tick of %s cannot be judged", order.rollout)
            return state, None, _unjudged(error)
        return state, tick, _held_by(reading.wrong, decision)

    async def read(self, policy: GatePolicy, cohorts: Cohorts, state: WindowState) -> Reading:
        """Read everything one tick needs, from one replica; what cannot be read is named with its reason.

        The replica that answered the last tick comes first. The first one that answers everything, and knows
        every gateway, has the tick; where none does, the one that answers more. Answers are never mixed: two
        replicas scrape at different moments.
        """
        found: list[tuple[tuple[bool, int], Reading]] = []
        for replica in tuple(self._replicas):
            found.append(await self._read_from(replica, policy, cohorts, state))
            if not any(found[-1][0]):
                self._replicas = [replica, *(one for one in self._replicas if one is not replica)]
                break
        return min(found, key=lambda one: one[0])[1]

    async def _read_from(
        self,
        replica: tuple[MetricsSource, OffenderSource | None],
        policy: GatePolicy,
        cohorts: Cohorts,
        state: WindowState,
    ) -> tuple[tuple[bool, int], Reading]:
        """Return whether a question is open, how many gateways the replica does not know, and the reading.

        When even who was reached cannot be read, nothing else is asked.
        """
        source = _Asked(*replica)
        at = _now()
        needs = what_to_read(policy, cohorts, state.memory, at.timestamp())
        series, unread = await _read_all(source, needs.presence, needs.instances, at)
        if unread:
            lost = dict.fromkeys(needs.lookbacks, *unread.values())
            reading = Reading(at=at.timestamp(), series={}, unread=lost | unread, wrong=source.wrong)
            return (True, len(needs.instances)), reading
        more, also_unread = await _read_all(source, needs.lookbacks, needs.instances, at, needs.asked)
        series |= more
        if needs.offences:
            signs, unfiltered = await _exceptions(source, needs, cohorts, at)
            series = {name: (*found, *signs.get(name, ())) for name, found in series.items()}
            also_unread |= unfiltered
        history, not_remembered = await _history(source, needs, at)
        also_unread |= not_remembered
        complaints, no_complaints = await self._complained(needs, state, at)
        tickets, no_tickets = await self._ticketed(needs)
        asked = unreached(cohorts, series[policy.presence]) if needs.confirm else ()
        since = silent_since(policy, state, at.timestamp())
        ports = await self._ports(asked, at, since)
        found = Reading(
            at=at.timestamp(),
            series=series,
            unread=also_unread | no_complaints | no_tickets,
            history=history,
            unreachable=ports.unreachable,
            absent=ports.absent,
            silent=ports.silent,
            complaints=complaints,
            tickets=tickets,
            wrong=source.wrong,
        )
        known = {one.instance for one in series[policy.presence]}
        lacking = len(set(needs.instances) - known)
        return (bool(also_unread), lacking), with_old_instances(found, cohorts)

    async def _ports(self, asked: Sequence[str], at: datetime, since: Mapping[str, float]) -> _Ports:
        """Return what the users' ports of these instances say.

        Args:
            asked: Instances whose metrics do not answer.
            at: When this tick began.
            since: Since when the ports of some of them have been silent at every tick.
        """
        if self._probes is None:
            return _Ports()
        answers = await asyncio.gather(*(self._probes.reaches(instance) for instance in asked))
        reached = dict(zip(asked, answers, strict=True))
        silent = [name for name, answer in reached.items() if answer is None]
        moments = (datetime.fromtimestamp(since.get(name, at.timestamp()), UTC) for name in silent)
        dead = await asyncio.gather(*map(self._probes.is_dead, silent, moments))
        is_dead = dict(zip(silent, dead, strict=True))
        refused = {name for name, answer in reached.items() if answer is False}
        return _Ports(
            unreachable=frozenset(refused | {name for name, one in is_dead.items() if one}),
            absent=frozenset(name for name, one in is_dead.items() if one is False),
            silent=frozenset(silent),
        )

    async def _complained(
        self, needs: Needs, state: WindowState, at: datetime
    ) -> tuple[dict[str, int], dict[str, str]]:
        """Read first complaints since anything was last counted, or why they cannot be read."""
        if self._complaints is None or not needs.complaints:
            return {}, {}
        since = datetime.fromtimestamp(state.memory.counted, UTC) if state.memory.counted else at
        try:
            return await self._complaints.distinct(needs.instances, since, at), {}
        except Unavailable as error:
            return {}, {COMPLAINTS: str(error)}

    async def _ticketed(self, needs: Needs) -> tuple[tuple[OpenTicket, ...], dict[str, str]]:
        """Read open tickets, or why they cannot be read; where no book is kept, that is no empty one."""
        if not needs.tickets:
            return (), {}
        if self._tickets is None:
            return (), {TICKETS: "no tickets are kept here"}
        try:
            return await self._tickets.open_about(needs.instances), {}
        except Unavailable as error:
            return (), {TICKETS: str(error)}


class _Asked:
    """A replica during one reading: a question that it calls wrong is unread, and the others are asked on."""

    def __init__(self, source: MetricsSource, offenders: OffenderSource | None) -> None:
        self._source = source
        self._offenders = offenders
        self.wrong = ""
        """Why the first wrong question is wrong; empty while there is none."""

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        """Return the raw samples; see MetricsSource."""
        return await self._sound(self._source.raw(selector, instances, at, lookback))

    async def offenders(self, offence: Offence, at: datetime) -> frozenset[str]:
        """Return who may offend; see OffenderSource."""
        if self._offenders is None:
            raise MetricsUnavailable("no source tells exceptions")
        return await self._sound(self._offenders.offenders(offence, at))

    async def _sound(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except BadQuery as error:
            self.wrong = self.wrong or str(error)
            raise MetricsUnavailable(str(error)) from error


async def _history(
    source: MetricsSource, needs: Needs, at: datetime
) -> tuple[dict[str, tuple[Series, ...]], dict[str, str]]:
    """Read what was before the window, from as long ago as is remembered, or why that cannot be read.

    Half an answer is none: control's events without its bad ones would look like a fleet without failures.
    """
    found: dict[str, tuple[Series, ...]] = {}
    for age in needs.ages if needs.history else ():
        found, unread = await _read_all(source, needs.history, needs.before, at - age)
        if unread:
            return {}, unread
        if any(found.values()):
            break
    return found, {}


async def _exceptions(
    source: _Asked, needs: Needs, cohorts: Cohorts, at: datetime
) -> tuple[dict[str, tuple[Series, ...]], dict[str, str]]:
    """Read the signs of those outside the sample that may show any, or why that cannot be read."""
    answers = await asyncio.gather(
        *(source.offenders(offence, at) for offence in needs.offences), return_exceptions=True
    )
    found, unread = set[str](), {}
    for offence, answer in zip(needs.offences, answers, strict=True):
        if isinstance(answer, MetricsUnavailable):
            unread[offence.selector] = str(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found |= answer
    asked = offending(found, cohorts)
    if not asked:
        return {}, unread
    signs, also_unread = await _read_all(source, needs.signs, asked, at)
    return signs, unread | also_unread


async def _read_all(
    source: MetricsSource,
    lookbacks: Mapping[str, timedelta],
    instances: Sequence[str],
    at: datetime,
    asked: Mapping[str, str] | None = None,
) -> tuple[dict[str, tuple[Series, ...]], dict[str, str]]:
    """Read all selectors side by side; return what was found, and why the rest was not."""
    asked = asked or {}
    # Whoever asks for a part of its selector has no answer for others.
    inside = contained({name: back for name, back in lookbacks.items() if name not in asked})
    names = [name for name in lookbacks if name not in inside]
    answers = await asyncio.gather(
        *(source.raw(asked.get(name, name), instances, at, lookbacks[name]) for name in names),
        return_exceptions=True,
    )
    series, unread = {}, {}
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, MetricsUnavailable):
            unread[name] = str(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            series[name] = answer
    for name, wider in inside.items():
        selector = read_selector(name)
        if wider in unread:
            unread[name] = unread[wider]
        elif selector is not None:
            series[name] = tuple(one for one in series[wider] if selector.allows(one.labels))
    return series, unread


def _explained(order: ObservationOrder, state: WindowState, decision: Decision) -> Decision:
    """Return the decision with what would have changed it; one that cannot be explained stands as it is."""
    try:
        return explained(order.gates, order.window, order.cohorts, state, decision)
    except Exception:  # noqa: BLE001 - the decision matters more than its explanation
        _log.exception("what would have changed a decision of %s cannot be told", order.rollout)
        return decision


def _held_by(wrong: str, decision: Decision) -> Decision:
    """Return the decision, held for a person where a question is wrong; harm that the others show stays."""
    if not wrong or decision.action is Action.ROLL_BACK:
        return decision
    held = {
        "action": Action.HOLD_FOR_HUMAN,
        "verdict": GateVerdict.METRICS_UNAVAILABLE,
        "reason": sentence(wrong),
    }
    return decision.model_copy(update=held)


def _unjudged(error: Exception) -> Decision:
    return Decision(
        action=Action.HOLD_FOR_HUMAN,
        verdict=GateVerdict.METRICS_UNAVAILABLE,
        reason=sentence(f"the judge cannot work on what it read ({type(error).__name__}: {error})"),
    )


_ANEW = Decision(
    action=Action.HOLD,
    verdict=GateVerdict.METRICS_UNAVAILABLE,
    reason="the evidence of this window is of another version of penstock, which this one cannot read; "
    "the window begins anew",
)
"""What is decided at first where a window has lost its evidence."""


def packed(state: WindowState) -> str:
    """Return the state as text that fits a payload: it names every series of every gateway."""
    return b64encode(zlib.compress(state.model_dump_json().encode())).decode()


def unpacked(text: str) -> WindowState:
    """Return the state that was packed; ValueError where another version of penstock packed it."""
    try:
        return WindowState.model_validate_json(zlib.decompress(b64decode(text)))
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _begun_with(resumed: str, order: ObservationOrder) -> WindowState:
    """Return the state to go on from: of a heartbeat, of the slice before, or of the wave before.

    Where that of the slice before cannot be read, evidence is lost: the window begins anew. The judge holds
    it until its cause has been absent for some scrapes, so that operators see it.
    """
    state = _read(resumed) or _read(order.state)
    if state is not None:
        return state
    begun = _read(order.carry) or WindowState()
    lost = order.state or (order.carry and _read(order.carry) is None)
    return begun.model_copy(update={"held": _ANEW}) if lost else begun


def _read(text: str) -> WindowState | None:
    """Return the state that was packed, None without one or where this version cannot read it."""
    try:
        return unpacked(text) if text else None
    except ValueError:
        _log.exception("the state of a window cannot be read")
        return None


def _behind_the_engine() -> str:
    """Return that the clock here is behind the engine's, empty where it is not."""
    behind = activity.info().started_time - _now()
    if behind <= CLOCK_BEHIND:
        return ""
    seconds = behind.total_seconds()
    return f"the clock of the worker is {seconds:.0f} s behind the engine's; have NTP set both"


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def _beating(details: Callable[[], str]) -> AsyncIterator[None]:
    """Heartbeat every second, whatever a query is waiting for."""

    async def beat() -> None:
        while True:
            activity.heartbeat(details())
            await asyncio.sleep(HEARTBEAT.total_seconds())

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
