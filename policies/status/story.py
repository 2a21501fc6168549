"""The story of a change: reports and commands become what every surface shows in the same words."""

from collections.abc import Collection, Mapping
from datetime import datetime
from heapq import nsmallest
from itertools import chain, islice

from policies.claims import looked_into
from policies.model.change import (
    MOVES_NOBODY,
    RELOADS,
    STAYS,
    ChangeKind,
    ChangeOrder,
    ChangeResult,
    Outcome,
    Phase,
    label_without_release,
)
from policies.model.command import Command, CommandKind
from policies.model.fleet import Automation
from policies.model.offer import Refusal
from policies.model.plan_part import PartKey, PlanHeader
from policies.model.report import ByTime, GatewayProgress, RestoreReport, WaveReport
from policies.model.status import ChangeStatus, Event
from policies.model.value import Packed, Value
from policies.model.verdict import Action, Basis, Decision
from policies.model.way_back import Confirmation
from policies.model.windows import WindowAnswer
from policies.planning.naming import named
from policies.status.awaited import asks_about_harm, automation_of, stands_still
from policies.status.landmarks import gateway_line, turn_line
from policies.status.refusals import refusal_of
from policies.status.sentences import (
    ON_NAMED,
    ON_TRIAL,
    PHASE_SENTENCES,
    WAITING,
    Sentences,
    acts,
    destination,
    named_release,
    share_line,
)
from policies.status.told import BACK, NAMED, SHOWN, Told, listed, subject_of
from policies.status.waiting import waiting
from policies.votes import basis_of, needed_for, still_counting

KEPT_COMMANDS = 20
"""Ids of commands that are told: by these it is known that a screen shows what was ordered."""

KEPT_EVENTS = 200
"""Events kept in memory; the ledger's audit record has commands and decisions for good."""


class Left(Value):
    """Which gateways of each part are not back, and which were given up, each with why."""

    missing: Packed[dict[str, dict[str, str]]] = {}
    given_up: Packed[dict[str, dict[str, str]]] = {}
    tried: tuple[str, ...] = ()
    """Parts of which each gateway has been tried."""


class Story:
    """Everything a change has to tell; fed with reports, asked for its status and what is refused."""

    def __init__(
        self, order: ChangeOrder, at: datetime, told: Told | None = None, left: Left | None = None
    ) -> None:
        self._order = order
        self._header: PlanHeader | None = None
        self._told = told or Told()
        self._wave_heard: WaveReport | None = None
        self._restores: dict[str, RestoreReport] = {}
        self._going_back = 0
        """Parts that go back, each of which reports."""
        left = left or Left()
        self._missing = dict(left.missing)
        """The gateways of each part that are still tried, each with what keeps it; `Told` names a few."""
        self._named_missing = {*sorted(self._told.not_back)[:NAMED]}
        self._given_up = dict(left.given_up)
        self._tried = {*left.tried}
        self._before_hold: Phase | None = None
        """The phase in which people hold the change while no wave is under way, which knows its own."""
        self._last_hold = ""
        if told is None:
            self.note(f"{order.requested_by} asked for {_subject(order)}: {order.reason}", at)
            if order.override is not None:
                self.note(order.override.sentence, at)
            if order.ended:
                self.note(order.ended, at)

    def know(self, name: str, header: PlanHeader | None) -> None:
        """Take over the change's own name and its plan."""
        self._header = header
        self._tell(name=name)

    def dump(self) -> Told:
        """Return all that is remembered."""
        return self._told

    def left(self) -> Left:
        """Return which gateways are not back, or were given up, of which `Told` has the first."""
        missing = {part: names for part, names in self._missing.items() if names}
        return Left(missing=missing, given_up=self.given_up, tried=tuple(sorted(self._tried)))

    # --- what happens -----------------------------------------------------------------

    def note(self, sentence: str, at: datetime) -> None:
        """Add a line to the story."""
        events = (*self._told.events, Event(at=at, sentence=sentence))
        dropped = max(0, len(events) - KEPT_EVENTS)
        self._tell(events=events[dropped:], earlier_events=self._told.earlier_events + dropped)

    def enter(self, phase: Phase, at: datetime) -> None:
        """Begin a phase; saying it again adds no line."""
        if phase is not self._told.phase:
            self._tell(phase=phase)
            self.note(PHASE_SENTENCES[phase], at)

    def hold(self, at: datetime) -> None:
        """Be held while no wave is under way, until the last hold is lifted."""
        if self._before_hold is None:
            between = Phase.SWITCHING if self._told.wave else Phase.STARTING
            self._before_hold = between if self._told.phase is Phase.HELD else self._told.phase
        self.enter(Phase.HELD, at)

    def wait(self, confirmation: Confirmation, at: datetime) -> None:
        """Begin to wait for a second person."""
        self._tell(waits_until=at + confirmation.within, phase=Phase.HELD)
        self.note(f"waiting for a second person: {confirmation.reason}", at)

    def take_window(self, answer: WindowAnswer | None, at: datetime) -> None:
        """Wait for a window, or no more; what it waits for is told whenever it is something else."""
        before = self._told.window
        if answer is not None and (before is None or before.lasting != answer.lasting):
            self.note(waiting(answer), at)
        if answer != before:
            self._tell(window=answer)

    def answered(self) -> None:
        """Wait no more."""
        before = Phase.STARTING if self._told.phase is Phase.HELD else self._told.phase
        self._tell(waits_until=None, phase=before)

    def end_unchanged(self) -> None:
        """Begin to end without a change: a rollback that arrives meanwhile goes on after it."""
        self._tell(ends_unchanged=True)

    def take(self, report: WaveReport) -> None:
        """Take over a wave's report; what it repeats is told once."""
        for name, why in sorted(report.aside.items()):
            if name not in self._told.aside:
                self.note(f"{name} left out and sent back: {why}", report.at)
        for name, why in sorted(report.left_out.items()):
            if name not in self._told.aside:
                self.note(f"{name} is not started any more: {why}", report.at)
        self._name_aside(report.aside, report.left_out)
        if not report.follows(self._wave_heard):
            return
        self._wave_heard = report
        if report.wave != self._told.wave:
            self._tell(wave=report.wave, decision=None, votes={}, by_time=None)
            waves = len(self._header.waves) if self._header else 0
            self.note(f"wave {report.wave} of {waves}", report.at)
        for progress in report.gateways:
            self._take_progress(progress, report.at)
        tried = report.moves or any(report.counts.get(state) for state in ("on trial", "kept"))
        if report.counts.get(ON_TRIAL) and report.share != self._told.share:
            self.note(share_line(report.share), report.at)
            self._tell(share=report.share)
        self._tell(
            counts=self._told.counts | {report.wave: report.counts},
            moved=self._told.moved or tried,
            switching=report.switching,
            by_time=report.by_time,
        )
        self._take_short(report)
        self._take_untested(report)
        self._take_refused(report)
        self._take_rebooted(report)
        self._take_lapsed(report)
        self._take_paused(report)
        if self._told.phase is not Phase.ROLLING_BACK:
            self.enter(self._phase_of(report), report.at)
        self._take_decision(report)
        self._take_harm_that_passes(report)

    def _take_harm_that_passes(self, report: WaveReport) -> None:
        """Remember harm against which a wave passes by time; operators who voted know what they passed."""
        decision = report.decision
        if report.phase is not Phase.PROMOTING or decision is None or decision.action is not Action.ROLL_BACK:
            return
        voted = len(self._told.votes) >= needed_for(self._order.requesters)
        if automation_of(self._header) is Automation.OBSERVE and not voted:
            self.show_harm(f"wave {report.wave} passed by time against: {decision.reason}", report.at)

    def show_harm(self, reason: str, at: datetime) -> None:
        """Remember harm of waves that have passed, for which a fleet that only observes does nothing."""
        if reason != self._told.shown_harm:
            self._tell(shown_harm=reason)
            self.note(f"{reason}; this fleet only observes", at)

    def _phase_of(self, report: WaveReport) -> Phase:
        """Return its phase; what it said before it heard of a hold, or of its end, is not so any more."""
        match report.phase:
            case Phase.SWITCHING | Phase.OBSERVING | Phase.HELD if self._told.holds:
                return Phase.HELD
            case Phase.HELD:
                return self._phase_without_hold(report.decision, report.by_time, switching=report.switching)
            case _:
                return report.phase

    def _take_short(self, report: WaveReport) -> None:
        """Tell when gateways begin to wait for capacity, and when none does; figures between are status."""
        if report.short and not self._told.short:
            self.note(f"gateways wait for capacity: {'; '.join(report.short)}", report.at)
        elif self._told.short and not report.short:
            self.note("no gateway waits for capacity any more", report.at)
        for name in report.silent:
            if name not in self._told.silent:
                self.note(f"{name} does not answer, and is not switched before it does", report.at)
        self._tell(short=report.short, silent=report.silent)

    def _take_untested(self, report: WaveReport) -> None:
        """Tell of each gateway once that it waits for a test, with what keeps it."""
        for name, why in sorted(report.untested.items()):
            if self._told.untested.get(name) != why:
                self.note(f"{name} is not tested yet: {why}", report.at)
        self._tell(untested=report.untested)

    def _take_refused(self, report: WaveReport) -> None:
        """Note of each gateway once that its host refuses the switch, with why."""
        for name, why in sorted(report.refused.items()):
            if self._told.refused.get(name) != why:
                self.note(f"{name} is not switched yet: {why}", report.at)
        self._tell(refused=report.refused)

    def _take_rebooted(self, report: WaveReport) -> None:
        """Tell of each host once that it rebooted, so that nobody takes it for the release's doing."""
        for name in report.rebooted:
            if name not in self._told.rebooted:
                self.note(f"the host of {name} rebooted, which no release is blamed for", report.at)
        self._tell(rebooted=tuple(sorted({*self._told.rebooted, *report.rebooted})))

    def _take_lapsed(self, report: WaveReport) -> None:
        """Note each gateway once whose lease lapsed, so that no reader blames the release for it."""
        for name in report.lapsed:
            if name not in self._told.lapsed:
                sentence = f"the lease of {name} lapsed without a confirmation while its instance answered"
                self.note(f"{sentence}; no release is blamed for that, and its trial began again", report.at)
        self._tell(lapsed=tuple(sorted({*self._told.lapsed, *report.lapsed})))

    def _take_paused(self, report: WaveReport) -> None:
        """Note of each gateway when its trial is paused, with why and until when."""
        for name, why in sorted(report.paused.items()):
            if name not in self._told.paused:
                self.note(f"{name} is on known-good for now: {why}", report.at)
        self._tell(paused=tuple(sorted(report.paused)))

    def _take_progress(self, progress: GatewayProgress, at: datetime) -> None:
        before = self._told.gateways.get(progress.gateway)
        if (before is None or before.state != progress.state) and progress.state != WAITING:
            self.note(gateway_line(progress.gateway, progress.state), at)
        self._tell(gateways=self._told.gateways | {progress.gateway: progress})

    def _take_decision(self, report: WaveReport) -> None:
        before, decision = self._told.decision, report.decision
        if decision is None:
            self._tell(votes={})
            return
        basis = basis_of(decision)
        self._tell(votes=still_counting(self._told.votes, basis))
        if before is None or not basis_of(before).covers(basis):
            action = decision.action.replace("_", " ")
            self.note(f"verdict {decision.verdict.replace('_', ' ')}, {action}: {decision.reason}", report.at)
        self._tell(decision=decision)

    def set_aside(
        self, aside: Mapping[str, str], at: datetime, *, goes_back: bool = True, more: int = 0
    ) -> None:
        """Leave out gateways after their wave had passed.

        Args:
            aside: Each of them with why: it failed by itself, or an operator steered it on its host.
            at: Now.
            goes_back: Whether penstock sends them back; those that operators steered stay as they are.
            more: How many are left out besides these.
        """
        left_out = "left out and to be sent back" if goes_back else "left out"
        for name, why in sorted(aside.items()):
            if name not in self._told.aside:
                self.note(f"{name} {left_out}: {why}", at)
        if more:
            self.note(f"{more} more gateways {left_out}", at)
        self._tell(aside_later=self._told.aside_later + len(aside) + more)
        self._name_aside(aside, {})

    def take_claims(self, claimed: Mapping[str, int], answers: Mapping[str, str], at: datetime) -> None:
        """Remember claims of break-glass that were looked into, and note each gateway once that denies one.

        Args:
            claimed: The gateways, each with the epoch of the break-glass that a survey read of it.
            answers: Why each that answers is left to an operator, empty where its host denies that.
            at: Now.
        """
        before = self._told.claims
        claims = looked_into(before, claimed, answers, at)
        for name in sorted(claimed):
            known = before.get(name)
            if name in claims and claims[name].denied and not (known is not None and known.denied):
                self.note(
                    f"{name} reported break-glass to a survey, and its host did not confirm that when it was "
                    "asked: it stays in the upgrade, and is asked again before the promotion",
                    at,
                )
        self._tell(claims=claims)

    def _name_aside(self, failed: Mapping[str, str], left_out: Mapping[str, str]) -> None:
        """Name who was newly left out among the first: who failed before whom operators left out."""
        first = islice((dict(failed) | self._told.aside | dict(left_out)).items(), SHOWN)
        self._tell(aside=dict(first))

    def begin_wave(self, number: int, at: datetime) -> None:
        """Begin a wave of a change that judges nothing."""
        self._tell(wave=number, phase=Phase.SWITCHING)
        waves = self._header.waves if self._header else ()
        gateways = sum(wave.gateways for wave in waves if wave.number == number)
        self.note(f"wave {number} of {len(waves)}: {gateways} gateways", at)

    def begin_to_move(self, wave: int) -> None:
        """Begin a wave: until it has ended, sessions may have moved that no report names yet."""
        self._tell(in_wave=True, begun=wave)

    def leave_wave(self, passed: int) -> None:
        """Leave a wave that has begun and touches no gateway: an order arrived before its first step."""
        self._tell(in_wave=False, begun=passed)

    def end_wave(self, *, moved: bool) -> None:
        """Take over from a wave's result whether it may have moved sessions."""
        self._tell(in_wave=False, moved=self._told.moved or moved)

    def begin_to_promote(self, at: datetime) -> None:
        """Begin to write the promotion down: from here on nothing is left to hold."""
        self._tell(promoting=True)
        self.enter(Phase.PROMOTING, at)

    def begin_to_go_back(self, reason: str, at: datetime) -> None:
        """Turn round."""
        if self._told.phase is not Phase.ROLLING_BACK:
            self._tell(phase=Phase.ROLLING_BACK)
            self.note(turn_line(reason), at)

    def expect_back(self, parts: int) -> None:
        """Know how many parts report on their way back."""
        self._going_back = parts

    def take_restore(self, report: RestoreReport) -> None:
        """Take over what a restore says of one of its parts."""
        self._take_restore(report)
        tried = len(self._tried)
        missing = {part for part, names in self._missing.items() if names}
        self._tell(
            only_waits=bool(self._told.not_back) and 0 < self._going_back <= tried,
            first_try=bool(missing) and not missing & self._tried,
        )

    def _take_restore(self, report: RestoreReport) -> None:
        part = f"{report.part.wave}/{report.part.number}"
        if not report.follows(self._restores.get(part)):
            return
        self._restores[part] = report
        ends_first_try = report.tried and report.part.path not in self._tried
        self._tried -= {report.part.path}
        self._tried |= {report.part.path} if report.tried else set()
        self.begin_to_go_back(report.reason, report.at)
        if self._is_small:
            state = BACK if named_release(self._order, self._header) is None else ON_NAMED
            for name in report.names:
                self._take_progress(
                    GatewayProgress(gateway=name, wave=report.part.wave, state=state),
                    report.at,
                )
        if report.failed:
            if self._told.failed.get(f"part {part}") != report.failed:
                self.note(f"ROLLBACK INCOMPLETE: part {part}: {report.failed}", report.at)
            self._tell(failed=self._told.failed | {f"part {part}": report.failed})
            return
        before = self._missing.get(report.part.path, {})
        missing = {name: why for name, why in report.missing.items() if name not in report.given_up}
        self._named_missing -= before.keys() - missing.keys()
        for name, why in sorted(missing.items()):
            named = name in self._named_missing or len(self._named_missing) < NAMED
            if named and (ends_first_try or before.get(name) != why):
                self._named_missing.add(name)
                yet = "ROLLBACK INCOMPLETE" if report.tried else "not back yet"
                self.note(f"{yet}: {name}: {why}", report.at)
        self._missing[report.part.path] = missing
        self._given_up[report.part.path] = report.given_up
        first = nsmallest(SHOWN, chain.from_iterable(one.items() for one in self._missing.values()))
        self._tell(
            not_back=dict(first),
            more_not_back=sum(map(len, self._missing.values())) - len(first),
            failed={one: why for one, why in self._told.failed.items() if one != f"part {part}"},
        )

    @property
    def given_up(self) -> dict[str, dict[str, str]]:
        """Return, by part, whom a person, or a newer change, has had the way back go on without."""
        return {path: names for path, names in self._given_up.items() if names}

    def waited_for(self, command: Command) -> dict[PartKey, tuple[str, ...]]:
        """Return which gateways of a quarantine are not back yet, by the part that tries them."""
        asked, found = {*command.gateways}, {}
        for part, missing in sorted(self._missing.items()):
            wave, _, number = part.partition("/")
            if names := tuple(sorted(asked & missing.keys())):
                found[PartKey(wave=int(wave), number=int(number))] = names
        return found

    @property
    def back(self) -> frozenset[str]:
        """Return the gateways that restores have reported back, of those that report to this run."""
        return frozenset(chain.from_iterable(report.names for report in self._restores.values()))

    @property
    def not_back(self) -> tuple[str, ...]:
        """The gateways that are not back yet, and are tried until they are, by name."""
        return tuple(sorted(name for missing in self._missing.values() for name in missing))

    def still_moves(self, gateways: Collection[str]) -> frozenset[str]:
        """Return which of these gateways are not back yet, and are tried until they are."""
        return frozenset(self.not_back).intersection(gateways)

    def give_way(self, person: str, reason: str, at: datetime) -> str:
        """End without the gateways that are waited for; return the sentence that reports it."""
        ends = f"{self._told.name or self._order.fleet} ends without gateways that are not back"
        sentence = f"{ends}, and penstock tries them later: {self._waits_for}."
        self.note(f"{person}: {reason}. {sentence}", at)
        return sentence

    def hear(self, command: Command, at: datetime) -> str:  # noqa: PLR0911 - a sentence a case
        """Take over an accepted command; return the sentence that answers it."""
        self.note(f"{command.person}: {command.kind.replace('_', ' ')} ({command.reason})", at)
        self._tell(commands=(*self._told.commands, command.id)[-KEPT_COMMANDS:])
        match command.kind:
            case CommandKind.HOLD:
                self._hold(command, at)
                finishes = (
                    "Gateways that are being switched now are finished; nobody else is moved"
                    if self._told.switching
                    else "Nobody is moved"
                )
                harm = (
                    "harm is still looked for and rolled back"
                    if acts(self._header)
                    else "a daemon that fails still goes back"
                )
                return f"Held. {finishes} until resume; {harm}."
            case CommandKind.RESUME:
                return self._lift(command.hold_of or command.person, at)
            case CommandKind.PROMOTE:
                return self._vote(command.person)
            case CommandKind.ABORT | CommandKind.ROLL_BACK if self._order.kind in RELOADS:
                return self._stopping_sentence(command)
            case CommandKind.ABORT:
                if self._told.may_have_moved:
                    return "Aborting. What was started is stopped again; sessions that it moved go back."
                return "Aborting. No session has moved; what was started is stopped again."
            case CommandKind.ROLL_BACK:
                return self._rollback_sentence()
            case CommandKind.QUARANTINE:
                return self._given_up_sentence(command)
            case CommandKind.APPROVE | CommandKind.REJECT:
                return f"{command.kind.capitalize()}: heard."

    def _stopping_sentence(self, command: Command) -> str:
        """Return what becomes of the gateways that a reload has not asked when it is stopped."""
        stopping = f"Stopping. Gateways that were not asked keep the {self.label} they have"
        if self._order.takes_back is None or command.kind is CommandKind.ABORT:
            return f"{stopping}."
        if self._order.kind is ChangeKind.CONFIGURE:
            return f"{stopping} until penstock asks them again, after this rollback."
        return f"{stopping}: order that rollback again after this one."

    def _rollback_sentence(self) -> str:
        if self._order.bakes_on:
            alone = named(self._order.alone) or "gateways that strayed"
            return f"The return of {alone} ends, and the rollback takes them along."
        name = self._told.name or self._order.fleet
        if self._order.kind in STAYS:
            return f"{name} ends: {STAYS[self._order.kind]}."
        if self.only_ends:
            return f"{name} has moved no session and ends."
        if self._told.only_waits:
            return f"{name} rolls back already, and waits for {self._waits_for}."
        if self._told.goes_back:
            to = destination(self._order, self._header)
            goes = f"{name} rolls back already. New sessions go to {to}; live ones stay until they end."
            missing = listed(self._told.not_back | self._told.failed, self._told.more_not_back)
            return f"{goes} Not back yet: {missing}." if missing else goes
        goes = "Rolling back. New sessions go to known-good; live ones stay until they end."
        return f"{goes}{self._stays}"

    @property
    def _stays(self) -> str:
        """Return what to do about the release under a wave of which no trial is reported yet."""
        name = self._told.name or self._order.fleet
        if self._told.moved or not self._told.in_wave:
            return ""
        stays = f" {name} may have moved sessions, so the release before it stays"
        return f"{stays}. To take that back, too, repeat the rollback once {name} has ended."

    @property
    def _waits_for(self) -> str:
        return listed(self._told.not_back, self._told.more_not_back)

    def _given_up_sentence(self, command: Command) -> str:
        given_up = [name for names in self.waited_for(command).values() for name in names]
        they, each = ("it", "it") if len(given_up) == 1 else ("them", "each")
        others = sorted({*command.gateways} - {*given_up})
        out = f" {subject_of(others)} not waited for any more, and left out, too." if others else ""
        until = f"until somebody returns {they}; then penstock brings {each} back to its known-good"
        return f"{subject_of(given_up)} given up here, and named {until}.{out}"

    def _hold(self, command: Command, at: datetime) -> None:
        """Be held by somebody; whoever reads the receipt sees it, before the wave says so."""
        self._last_hold = command.id
        self._tell(holds=self._told.holds | {command.person: command.reason})
        if self._told.phase in {Phase.SWITCHING, Phase.OBSERVING}:
            self.enter(Phase.HELD, at)

    def _lift(self, lifted: str, at: datetime) -> str:
        """Lift that operator's hold, if there is one; return what still holds it, or what comes next."""
        if lifted not in self._told.holds:
            return "There is nothing to resume: no operator holds it. The next verdict decides."
        left = {who: why for who, why in self._told.holds.items() if who != lifted}
        self._tell(holds=left)
        if left:
            return f"The hold of {lifted} is lifted; still held by {listed(left)}."
        return self._resumed(at)

    def _resumed(self, at: datetime) -> str:
        """Go on as before the hold, without a wait for the wave to say so; return what decides next."""
        if self._before_hold is None:
            if self._told.phase is Phase.HELD:
                now = (
                    Phase.STARTING
                    if not self._told.wave
                    else self._phase_without_hold(
                        self._told.decision, self._told.by_time, switching=self._told.switching
                    )
                )
                self.enter(now, at)
            return f"Resumed. {self._decides_next(at)}"
        self._tell(phase=self._before_hold)
        self._before_hold = None
        when = "when its patch window opens" if self._told.window is not None else "by itself"
        return f"Resumed. The next wave starts {when}."

    def _decides_next(self, at: datetime) -> str:
        by_time = self._told.by_time is not None and automation_of(self._header) is Automation.OBSERVE
        return f"By time {self.status(at).next}." if by_time else "The next verdict decides."

    def _phase_without_hold(
        self, decision: Decision | None, by_time: ByTime | None, *, switching: bool
    ) -> Phase:
        """Return where a wave is that no operator holds."""
        if switching:
            asks = asks_about_harm(decision, automation_of(self._header))
            return Phase.HELD if asks else Phase.SWITCHING
        return Phase.HELD if stands_still(decision, self._header, by_time) else Phase.OBSERVING

    def _vote(self, person: str) -> str:
        """Count a vote to promote; return how many there are, and what follows."""
        decision = self._told.decision
        if decision is not None:
            self._tell(votes=self._told.votes | {person: basis_of(decision)})
        votes, needed = sorted(self._told.votes), needed_for(self._order.requesters)
        counted = f"{len(votes)} of {needed} votes, by {' and '.join(votes)}"
        if (lacking := needed - len(votes)) > 0:
            more = "one more person says so" if lacking == 1 else f"{lacking} more people say so"
            return (
                f"{counted}: nothing follows until {more}, about this verdict; with proof the wave passes "
                f"by itself.{self._against}"
            )
        once = f"wave {self._told.wave} goes on without proof once each of its gateways has switched"
        return f"{counted}: {once}, unless the metrics say something else when read now.{self._against}"

    @property
    def _against(self) -> str:
        decision = self._told.decision
        return f" Voted against: {decision.reason}." if decision is not None else ""

    def end(self, result: ChangeResult, at: datetime) -> None:
        """Close the story with its outcome."""
        self._tell(phase=Phase.ENDED, result=result)
        self.note(f"{result.outcome.replace('_', ' ')}: {result.reason}", at)

    # --- what is asked of it ------------------------------------------------------------

    def refusal_of(self, command: Command) -> Refusal | None:
        """Return why the command makes no sense now, and what does; None when it does."""
        waits = command.kind is CommandKind.QUARANTINE and bool(self.waited_for(command))
        return refusal_of(self._order, self._told, command, waits=waits)

    def status(self, at: datetime | None = None) -> ChangeStatus:
        """Return the five sentences and the facts under them, as of the moment at which somebody looks."""
        return Sentences(self._order, self._header, self._told, at).status()

    @property
    def label(self) -> str:
        """What a change without a release leads to, as people call it."""
        return label_without_release(self._order.kind)

    @property
    def name(self) -> str:
        """The change's own name, empty until it has one."""
        return self._told.name

    @property
    def holds(self) -> Mapping[str, str]:
        """Who holds the change, and why."""
        return self._told.holds

    @property
    def last_hold(self) -> str:
        """The id of the newest hold since the history was cut, lifted or not; empty without one."""
        return self._last_hold

    @property
    def sessions_moved(self) -> bool:
        """Whether new sessions went to the new release anywhere, or may have, as far as is reported."""
        return self._told.moved

    @property
    def may_have_moved(self) -> bool:
        """Whether sessions may have moved: a wave under way may have moved some that no report names yet."""
        return self._told.may_have_moved

    def seen_by(self, person: str) -> Basis | None:
        """Return what the person's vote was shown, None without one."""
        return self._told.votes.get(person)

    @property
    def begun(self) -> int:
        """The last wave of an upgrade that has begun: nothing of later ones is touched."""
        return self._told.begun

    @property
    def promotes(self) -> bool:
        """Whether an upgrade has begun to promote: from then on its known-good may have moved."""
        return self._told.promoting

    @property
    def only_ends(self) -> bool:
        """Whether a rollback finds nothing here that this change has moved, and goes on without it."""
        if self._order.kind is ChangeKind.UPGRADE:
            return not self._told.may_have_moved
        return self._told.ends_unchanged or self._order.kind in MOVES_NOBODY or self._order.bakes_on

    @property
    def is_incomplete(self) -> bool:
        """Whether the way back has found gateways that are not back."""
        return self._told.outcome is Outcome.ROLLBACK_INCOMPLETE

    @property
    def only_waits(self) -> bool:
        """Whether every gateway is back but those that are silent or refuse."""
        return self._told.only_waits

    @property
    def goes_back(self) -> bool:
        """Whether the way back is under way already."""
        return self._told.goes_back

    @property
    def _is_small(self) -> bool:
        return self._header is not None and self._header.changing <= 50  # noqa: PLR2004 - as waves report

    def _tell(self, **news: object) -> None:
        self._told = self._told.model_copy(update=news)


def _subject(order: ChangeOrder) -> str:  # noqa: PLR0911 - a sentence a case
    if order.takes_back is not None:
        return f"what was before {order.takes_back}"
    match order.kind:
        case ChangeKind.UPGRADE:
            return "an upgrade"
        case ChangeKind.GO_BACK:
            return "a rollback"
        case ChangeKind.RELOAD:
            return "a reload of credentials"
        case ChangeKind.CONFIGURE:
            return "a change of settings"
        case ChangeKind.INSTALL:
            return "a first install"
        case ChangeKind.ADOPT:
            return "an adoption"
