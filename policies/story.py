"""The story of a change: reports become the five sentences that every surface shows in the same words."""

from collections.abc import Mapping
from datetime import datetime

from policies.model.change import ChangeKind, ChangeOrder, ChangeResult, Outcome, Phase
from policies.model.command import Command, CommandKind
from policies.model.fleet import AtDeadline, Automation
from policies.model.plan_part import PlanHeader
from policies.model.report import GatewayProgress, RestoreReport, WaveReport
from policies.model.status import ChangeStatus, Event
from policies.model.value import Value
from policies.model.verdict import Action, Decision
from policies.model.way_back import Confirmation
from policies.votes import Votes

KEPT_EVENTS = 200
"""Events kept in memory; the ledger's audit record has commands and decisions for good."""

NAMED = 10
"""Gateways that one sentence names; more are counted."""

_PHASE_SENTENCES = {
    Phase.STARTING: "checking the release and the way back; nothing has changed yet",
    Phase.SWITCHING: "starting the new release beside the old one",
    Phase.OBSERVING: "watching the new release against the others",
    Phase.HELD: "held; new sessions stay where they are",
    Phase.PROMOTING: "keeping the new release",
    Phase.DRAINING: "waiting for the last old sessions to end",
    Phase.ROLLING_BACK: "sending new sessions back to known-good",
}

_OUTCOME_SENTENCES = {
    Outcome.PROMOTED: "promoted: every gateway takes its sessions on {release}",
    Outcome.ROLLED_BACK: "rolled back: every touched gateway takes its sessions on its known-good",
    Outcome.ROLLBACK_INCOMPLETE: "ROLLBACK INCOMPLETE",
    Outcome.REFUSED: "refused: nothing was changed",
    Outcome.ABORTED: "aborted: no session had moved",
    Outcome.HELD: "held: needs a person",
}


class Told(Value):
    """All that a story remembers, in a form that survives a history that is cut."""

    name: str = ""
    phase: Phase = Phase.STARTING
    wave: int = 0
    gateways: dict[str, GatewayProgress] = {}
    counts: dict[int, dict[str, int]] = {}
    aside: dict[str, str] = {}
    decision: Decision | None = None
    holds: dict[str, str] = {}
    moved: bool = False
    switching: bool = False
    short: tuple[str, ...] = ()
    back: dict[str, int] = {}
    missing: dict[str, dict[str, str]] = {}
    given_up: dict[str, str] = {}
    waits_until: datetime | None = None
    events: tuple[Event, ...] = ()
    earlier_events: int = 0


class Story:
    """Everything a change has to tell; fed with reports, asked for its status and what is refused."""

    def __init__(self, order: ChangeOrder, at: datetime, told: Told | None = None) -> None:
        self._order = order
        self._header: PlanHeader | None = None
        self._told = told or Told()
        self._wave_heard: WaveReport | None = None
        self._restores: dict[str, RestoreReport] = {}
        self._result: ChangeResult | None = None
        if told is None:
            self.note(f"{order.requested_by} asked for {_subject(order)}: {order.reason}", at)

    def know(self, name: str, header: PlanHeader | None) -> None:
        """Take over the change's own name and its plan."""
        self._header = header
        self._tell(name=name)

    def dump(self) -> Told:
        """Return all that is remembered."""
        return self._told

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
            self.note(_PHASE_SENTENCES[phase], at)

    def wait(self, confirmation: Confirmation, at: datetime) -> None:
        """Begin to wait for a second person."""
        self._tell(waits_until=at + confirmation.within, phase=Phase.HELD)
        self.note(f"waiting for a second person: {confirmation.reason}", at)

    def answered(self) -> None:
        """Wait no more."""
        self._tell(waits_until=None)

    def take(self, report: WaveReport) -> Decision | None:
        """Take over a wave's report; what it repeats is told once. Return its decision if that is news."""
        for name, why in sorted(report.aside.items()):
            if name not in self._told.aside:
                self.note(f"{name} left out and sent back: {why}", report.at)
        self._tell(aside=self._told.aside | report.aside)  # each report tells only who is new
        if not report.follows(self._wave_heard):
            return None
        self._wave_heard = report
        if report.wave != self._told.wave:
            self._tell(wave=report.wave, decision=None)
            self.note(f"wave {report.wave} of {self._waves}", report.at)
        for progress in report.gateways:
            self._take_progress(progress, report.at)
        moved = self._told.moved or any(report.counts.get(state) for state in ("on trial", "kept"))
        self._tell(
            counts=self._told.counts | {report.wave: report.counts},
            holds=report.holds,
            moved=moved,
            switching=report.switching,
        )
        self._take_short(report)
        if self._told.phase is not Phase.ROLLING_BACK:
            self.enter(report.phase, report.at)
        return self._take_decision(report)

    def _take_short(self, report: WaveReport) -> None:
        """Tell when gateways begin to wait for capacity, and when none does; figures between are status."""
        if report.short and not self._told.short:
            self.note(f"gateways wait for capacity: {'; '.join(report.short)}", report.at)
        elif self._told.short and not report.short:
            self.note("no gateway waits for capacity any more", report.at)
        self._tell(short=report.short)

    def _take_progress(self, progress: GatewayProgress, at: datetime) -> None:
        before = self._told.gateways.get(progress.gateway)
        if (before is None or before.state != progress.state) and progress.state != "waiting":
            self.note(f"{progress.gateway} {progress.state}", at)
        self._tell(gateways=self._told.gateways | {progress.gateway: progress})

    def _take_decision(self, report: WaveReport) -> Decision | None:
        before, decision = self._told.decision, report.decision
        if decision is None:
            return None
        is_news = before is None or (before.action, before.verdict) != (decision.action, decision.verdict)
        if is_news:
            action = decision.action.replace("_", " ")
            self.note(f"verdict {decision.verdict.replace('_', ' ')}, {action}: {decision.reason}", report.at)
        self._tell(decision=decision)
        return decision if is_news else None

    def begin_to_go_back(self, reason: str, at: datetime) -> None:
        """Turn round."""
        if self._told.phase is not Phase.ROLLING_BACK:
            self._tell(phase=Phase.ROLLING_BACK)
            self.note(f"rolling back: {reason}", at)

    def take_restore(self, report: RestoreReport) -> None:
        """Take over what a restore says of one of its parts."""
        part = f"{report.part.wave}/{report.part.number}"
        if not report.follows(self._restores.get(part)):
            return
        self._restores[part] = report
        self.begin_to_go_back(report.reason, report.at)
        if self._is_small:
            for name in report.names:
                self._take_progress(
                    GatewayProgress(gateway=name, wave=report.part.wave, state="back on known-good"),
                    report.at,
                )
        known = {name for missing in self._told.missing.values() for name in missing}
        for name, why in sorted(report.missing.items()):
            if self._told.missing.get(part, {}).get(name) != why and (name in known or len(known) < NAMED):
                self.note(f"ROLLBACK INCOMPLETE: {name}: {why}", report.at)
        self._tell(
            back=self._told.back | {part: report.back},
            missing=self._told.missing | {part: report.missing},
            given_up=self._told.given_up | report.given_up,
        )

    def hear(self, command: Command, at: datetime) -> str:  # noqa: PLR0911 - a sentence a case
        """Take over an accepted command; return the sentence that answers it."""
        self.note(f"{command.person}: {command.kind.replace('_', ' ')} ({command.reason})", at)
        match command.kind:
            case CommandKind.HOLD:
                self._tell(holds=self._told.holds | {command.person: command.reason})
                finishes = (
                    "Gateways that are being switched now are finished; nobody else is moved"
                    if self._told.switching
                    else "Nobody is moved"
                )
                return f"Held. {finishes} until resume; harm is still looked for and rolled back."
            case CommandKind.RESUME:
                lifted = command.hold_of or command.person
                left = {who: why for who, why in self._told.holds.items() if who != lifted}
                self._tell(holds=left)
                if left:
                    return f"The hold of {lifted} is lifted; still held by {_list(left)}."
                return "Resumed. The next verdict decides."
            case CommandKind.PROMOTE:
                return "Noted. Without proof a promotion needs two people; with it the wave passes by itself."
            case CommandKind.ABORT:
                return "Aborting. No session has moved; what was started is stopped again."
            case CommandKind.ROLL_BACK:
                return "Rolling back. New sessions go to known-good; live ones stay until they end."
            case CommandKind.QUARANTINE:
                return f"{command.gateway} is given up here and tried on; it is named until it returns."
            case CommandKind.APPROVE | CommandKind.REJECT:
                return f"{command.kind.capitalize()}: heard."

    def end(self, result: ChangeResult, at: datetime) -> None:
        """Close the story with its outcome."""
        self._result = result
        self._tell(phase=Phase.ENDED)
        self.note(f"{result.outcome.replace('_', ' ')}: {result.reason}", at)

    # --- what makes no sense now --------------------------------------------------------

    def refusal_of(self, command: Command) -> str | None:  # noqa: PLR0911 - a rule a case
        """Return why the command makes no sense now, and what does; None when it does."""
        fleet, name = self._order.fleet, self._told.name or self._order.fleet
        if self._result is not None:
            return (
                f"{name} has ended ({self._result.outcome.replace('_', ' ')}); "
                f"to go back now: penstock rollback {fleet} --reason TEXT"
            )
        match command.kind:
            case CommandKind.ROLL_BACK:
                return self._refusal_of_rollback()
            case CommandKind.APPROVE | CommandKind.REJECT:
                return self._refusal_of_answer(command)
            case CommandKind.QUARANTINE:
                return self._refusal_of_quarantine(command)
            case _ if self._told.waits_until is not None:
                return f"a rollback waits for a second person: approve | reject | penstock rollback {fleet}"
            case _ if self.goes_back:
                return f"{name} is rolling back; nothing else can be ordered until it has"
            case CommandKind.ABORT if self.sessions_moved:
                return f"sessions have moved already; use: penstock rollback {fleet} --reason TEXT"
            case CommandKind.PROMOTE:
                return self._refusal_of_vote(command)
            case CommandKind.RESUME:
                return self._refusal_of_resume(command)
            case _:
                return None

    def _refusal_of_rollback(self) -> str | None:
        """Only the return of single gateways does not take the others back, too; it is over soon."""
        alone, fleet = ", ".join(self._order.alone), self._order.fleet
        again = f"{alone} return alone, within a minute; then: penstock rollback {fleet} --reason TEXT"
        return again if alone else None

    def _refusal_of_answer(self, command: Command) -> str | None:
        confirmation = self._order.confirm
        if confirmation is None or self._told.waits_until is None:
            return f"nothing waits for an answer in {self._order.fleet} any more"
        if command.kind is CommandKind.REJECT:
            return None
        if command.person == self._order.requested_by:
            return f"{command.person} asked for this rollback; somebody else has to approve it"
        if command.approves != confirmation.change:
            return "the approval names another change than the one that waits; look at it and approve it anew"
        return None

    def _refusal_of_quarantine(self, command: Command) -> str | None:
        missing = self._missing
        if command.gateway in missing:
            return None
        return f"{command.gateway} is not waited for; " + (
            f"waited for: {_list(missing)}" if missing else "nobody is"
        )

    def _refusal_of_vote(self, command: Command) -> str | None:
        if self._told.holds:
            return f"held by {_list(self._told.holds)}; resume it first, then promote"
        if self._told.decision is None:
            return "there is no verdict on this wave yet that anybody could vote on"
        return Votes(self._order.requested_by).refusal_of(command.person)

    def _refusal_of_resume(self, command: Command) -> str | None:
        holds = self._told.holds
        if (command.hold_of or command.person) in holds or not holds:
            return None
        who = min(holds)
        return f"held by {_list(holds)}; to lift that hold by name: penstock resume --hold-of {who}"

    @property
    def holds(self) -> Mapping[str, str]:
        """Who holds the change, and why."""
        return self._told.holds

    @property
    def sessions_moved(self) -> bool:
        """Whether new sessions went to the new release anywhere, for however short a time."""
        return self._told.moved

    @property
    def goes_back(self) -> bool:
        """Whether the way back is under way already."""
        return self._told.phase is Phase.ROLLING_BACK

    # --- the five sentences ---------------------------------------------------------------

    def status(self) -> ChangeStatus:
        """Return the five sentences and the facts under them."""
        release = self._header.release if self._header else None
        counts: dict[str, int] = {}
        for of_wave in self._told.counts.values():
            for state, count in of_wave.items():
                counts[state] = counts.get(state, 0) + count
        return ChangeStatus(
            rollout=self._told.name,
            fleet=self._order.fleet,
            kind=self._order.kind,
            release=release.digest if release else "",
            version=release.version if release else "known-good",
            phase=self._told.phase,
            what=self._what(),
            users=self._users(counts),
            why=self._why(),
            next=self._next(),
            can_do=self._can_do(),
            wave=self._told.wave,
            waves=self._waves,
            gateways=tuple(self._told.gateways.values()),
            counts=counts,
            aside=self._told.aside,
            decision=self._told.decision,
            events=self._told.events,
            earlier_events=self._told.earlier_events,
            outcome=self._outcome,
            incomplete=tuple(f"{name}: {why}" for name, why in sorted(self._missing.items())),
            confirm=self._order.confirm.change if self._waits and self._order.confirm else None,
            needs_you=self._needs_you(),
        )

    @property
    def _waves(self) -> int:
        return len(self._header.waves) if self._header else 0

    @property
    def _is_small(self) -> bool:
        return self._header is not None and self._header.changing <= 50  # noqa: PLR2004 - as waves report

    @property
    def _waits(self) -> bool:
        return self._told.waits_until is not None

    @property
    def _waits_for_capacity(self) -> bool:
        return bool(self._told.short) and self._told.phase is Phase.SWITCHING

    @property
    def _missing(self) -> dict[str, str]:
        found = {name: why for missing in self._told.missing.values() for name, why in missing.items()}
        return {name: why for name, why in found.items() if name not in self._told.given_up}

    @property
    def _outcome(self) -> Outcome | None:
        if self._result is not None:
            return self._result.outcome
        return Outcome.ROLLBACK_INCOMPLETE if self._missing else None

    @property
    def _label(self) -> str:
        release = self._header.release if self._header else None
        return f"{release.product} {release.version}" if release else "known-good"

    def _what(self) -> str:
        if self._result is not None and self._order.kind is not ChangeKind.UPGRADE:
            return self._result.reason
        if self._outcome is not None:
            return _OUTCOME_SENTENCES[self._outcome].format(release=self._label)
        if self._waits:
            return "a rollback waits for a second person"
        where = f"wave {self._told.wave} of {self._waves}, " if self._told.wave else ""
        return f"{where}{_PHASE_SENTENCES[self._told.phase]}"

    def _users(self, counts: Mapping[str, int]) -> str:
        if self._order.kind is not ChangeKind.UPGRADE:
            changing = self._header.changing if self._header else 0
            return f"new sessions of {changing} gateways; live ones stay until they end"
        touched = sum(count for state, count in counts.items() if state != "waiting")
        of = self._header.gateways if self._header else 0
        return f"{touched} of {of} gateways; live sessions are never moved"

    def _why(self) -> str:
        if self._result is not None:
            return self._result.reason
        if self._missing:
            return _list(self._missing)
        if self._waits and self._order.confirm is not None:
            return self._order.confirm.reason
        if self._told.holds:
            return "held by " + _list(self._told.holds)
        if self._waits_for_capacity:
            return f"gateways wait for capacity: {'; '.join(self._told.short)}"
        return self._told.decision.reason if self._told.decision else self._order.reason

    def _next(self) -> str:  # noqa: PLR0911 - a sentence a case
        if self._result is not None:
            return "nothing; old instances stop when their last session has ended"
        if self._told.waits_until is not None and self._order.confirm is not None:
            nothing = self._order.confirm.at_deadline is AtDeadline.NOTHING
            by_itself = "nothing, the rollback is given up" if nothing else "back to known-good"
            return f"{by_itself} at {self._told.waits_until:%Y-%m-%d %H:%M:%S} UTC, unless somebody answers"
        match self._told.phase:
            case Phase.SWITCHING if self._waits_for_capacity:
                return (
                    "gateways that wait start by themselves when there is capacity, looked for every "
                    "30 seconds to 5 minutes: bring gateways back, add some, or wait for fewer users"
                )
            case Phase.STARTING | Phase.SWITCHING:
                return "the window begins when the new instances have been probed"
            case Phase.OBSERVING if self._header is not None:
                header = self._header
                return (
                    f"promotion on proof after {header.window_minimum}, "
                    f"a person is asked at {header.window_cap}"
                )
            case Phase.HELD if self._proposes_to_go_back:
                return "nothing: harm was found, and this fleet asks a person before it goes back"
            case Phase.HELD:
                return "nothing, until the cause is gone or a person decides; proven harm still rolls back"
            case Phase.ROLLING_BACK:
                return "every gateway is tried until it is back"
            case _:
                return "the next wave, or the end"

    @property
    def _proposes_to_go_back(self) -> bool:
        decision = self._told.decision
        asks = self._header is not None and self._header.limits.automation is Automation.ASK
        return asks and decision is not None and decision.action is Action.ROLL_BACK

    def _can_do(self) -> str:
        fleet = self._order.fleet
        if self._result is not None:
            return f"penstock rollback {fleet} --reason TEXT"
        if self._waits:
            return (
                f"penstock approve {fleet} --reason TEXT (not who asked) | penstock reject {fleet} "
                f"--reason TEXT | penstock rollback {fleet} --reason TEXT (to known-good, at once)"
            )
        if self._missing:
            return f"penstock gateway quarantine {fleet} {min(self._missing)} --reason TEXT"
        if self.goes_back:
            return f"penstock watch {fleet}"
        held = bool(self._told.holds) or self._told.phase is Phase.HELD
        first = f"penstock {'resume' if held else 'hold'} {fleet} --reason TEXT"
        return f"{first} | penstock rollback {fleet} --reason TEXT"

    def _needs_you(self) -> str | None:
        if self._result is not None:
            return None
        if self._missing:
            return f"{len(self._missing)} gateways are not back: {_list(self._missing)}"
        if self._waits or self._proposes_to_go_back:
            return self._why()
        decision = self._told.decision
        if decision is not None and decision.action is Action.HOLD_FOR_HUMAN and not self.goes_back:
            return decision.reason
        return "held by " + _list(self._told.holds) if self._told.holds else None

    def _tell(self, **news: object) -> None:
        self._told = self._told.model_copy(update=news)


def _subject(order: ChangeOrder) -> str:
    match order.kind:
        case ChangeKind.UPGRADE:
            return "an upgrade"
        case ChangeKind.GO_BACK:
            return "a rollback"
        case kind:
            return f"a change: {kind.value}"


def _list(reasons: Mapping[str, str]) -> str:
    first = [f"{name}: {why}" for name, why in sorted(reasons.items())][:NAMED]
    more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    return "; ".join(first) + more
