"""The story of a rollout: reports become the five sentences that every surface shows in the same words."""

from datetime import datetime

from policies.words.rollout import (
    Command,
    CommandKind,
    Event,
    GatewayProgress,
    Outcome,
    Phase,
    RollbackReport,
    RolloutOrder,
    RolloutResult,
    RolloutStatus,
    WaveReport,
)
from policies.words.verdict import Decision

KEPT_EVENTS = 500
"""Events kept in memory; the ledger has the decisions for good."""

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


class Story:
    """Everything a rollout has to tell; fed with reports, asked for its status."""

    def __init__(self, order: RolloutOrder, at: datetime) -> None:
        self._order = order
        self._phase = Phase.STARTING
        self._wave = 0
        self._gateways: dict[str, GatewayProgress] = {}
        self._decision: Decision | None = None
        self._held_by: str | None = None
        self._moved = False
        self._missing: tuple[str, ...] = ()
        self._wave_heard: WaveReport | None = None
        self._rollback_heard: RollbackReport | None = None
        self._result: RolloutResult | None = None
        self._events: list[Event] = []
        self.note(f"{order.requested_by} asked for {self._release}: {order.reason}", at)

    def note(self, sentence: str, at: datetime) -> None:
        """Add a line to the story."""
        self._events.append(Event(at=at, sentence=sentence))
        del self._events[:-KEPT_EVENTS]

    def enter(self, phase: Phase, at: datetime) -> None:
        """Begin a phase; saying it again adds no line."""
        if phase is not self._phase:
            self._phase = phase
            self.note(_PHASE_SENTENCES[phase], at)

    def take(self, report: WaveReport) -> Decision | None:
        """Take over a wave's report; what it repeats is told once. Return its decision if that is news."""
        if not report.follows(self._wave_heard):
            return None
        self._wave_heard = report
        if report.wave != self._wave:
            self._wave, self._decision = report.wave, None
            names = ", ".join(progress.gateway for progress in report.gateways)
            self.note(f"wave {report.wave} of {len(self._order.plan.waves)}: {names}", report.at)
        for progress in report.gateways:
            before = self._gateways.get(progress.gateway)
            if (before is None or before.state != progress.state) and progress.state != "waiting":
                self.note(f"{progress.gateway} {progress.state}", report.at)
            self._gateways[progress.gateway] = progress
            self._moved = self._moved or progress.state in {"on trial", "kept"}
        if self._phase is not Phase.ROLLING_BACK:
            self.enter(report.phase, report.at)
        self._held_by = report.held_by
        return self._take_decision(report)

    def _take_decision(self, report: WaveReport) -> Decision | None:
        before, decision = self._decision, report.decision
        if decision is None:
            return None
        is_news = before is None or (before.action, before.verdict) != (decision.action, decision.verdict)
        if is_news:
            action = decision.action.replace("_", " ")
            self.note(f"verdict {decision.verdict.replace('_', ' ')}, {action}: {decision.reason}", report.at)
        self._decision = decision
        return decision if is_news else None

    def take_rollback(self, report: RollbackReport) -> None:
        """Take over what a rollback says of itself."""
        if not report.follows(self._rollback_heard):
            return
        self._rollback_heard = report
        if self._phase is not Phase.ROLLING_BACK:
            self._phase = Phase.ROLLING_BACK
            self.note(f"rolling back: {report.reason}", report.at)
        for name in report.back:
            progress = self._gateways.get(name, GatewayProgress(gateway=name, wave=self._wave, state=""))
            if progress.state != "back on known-good":
                self.note(f"{name} back on known-good", report.at)
                self._gateways[name] = progress.model_copy(
                    update={"state": "back on known-good", "release": self._known_good_of(name)}
                )
        for missing in report.missing:
            if missing not in self._missing:
                self.note(f"ROLLBACK INCOMPLETE: {missing}", report.at)
        self._missing = report.missing

    def hear(self, command: Command, at: datetime) -> str:
        """Take over an accepted command; return the sentence that answers it."""
        self.note(f"{command.person}: {command.kind.replace('_', ' ')} ({command.reason})", at)
        match command.kind:
            case CommandKind.HOLD:
                self._held_by = f"held by {command.person}: {command.reason}"
                return "Held. Nobody is moved until resume; harm is still looked for and rolled back."
            case CommandKind.RESUME:
                self._held_by = None
                return "Resumed. The next verdict decides."
            case CommandKind.PROMOTE:
                return "Noted. Without proof a promotion needs two people; with it the wave passes by itself."
            case CommandKind.EXTEND:
                return "The window goes on, at most to its cap."
            case CommandKind.ABORT:
                return "Aborting. No session has moved; what was started is stopped again."
            case CommandKind.ROLL_BACK:
                return "Rolling back. New sessions go to known-good; live ones stay until they end."

    def refusal_of(self, command: Command) -> str | None:
        """Return why the command makes no sense now, and what does; None when it does."""
        if self._result is not None:
            return (
                f"{self._order.rollout} has ended ({self._result.outcome.replace('_', ' ')}); "
                f"to go back now: penstock rollback {self._order.plan.fleet.name} --reason TEXT"
            )
        if command.kind is CommandKind.ABORT and self.sessions_moved:
            fleet = self._order.plan.fleet.name
            return f"sessions have moved already; use: penstock rollback {fleet} --reason TEXT"
        if command.kind is CommandKind.ROLL_BACK or self._phase is not Phase.ROLLING_BACK:
            return None
        return f"{self._order.rollout} is rolling back; nothing else can be ordered until it has"

    def end(self, result: RolloutResult, at: datetime) -> None:
        """Close the story with its outcome."""
        self._result = result
        self._phase = Phase.ENDED
        self.note(f"{result.outcome.replace('_', ' ')}: {result.reason}", at)

    @property
    def sessions_moved(self) -> bool:
        """Whether new sessions went to the new release anywhere, for however short a time."""
        return self._moved

    @property
    def rolls_back(self) -> bool:
        """Whether the way back is under way already."""
        return self._phase is Phase.ROLLING_BACK

    def status(self) -> RolloutStatus:
        """Return the five sentences and the facts under them."""
        plan = self._order.plan
        return RolloutStatus(
            rollout=self._order.rollout,
            fleet=plan.fleet.name,
            release=plan.release.digest,
            version=plan.release.version,
            phase=self._phase,
            what=self._what(),
            users=self._users(),
            why=self._why(),
            next=self._next(),
            can_do=self._can_do(),
            wave=self._wave,
            waves=len(plan.waves),
            gateways=tuple(self._gateways.values()),
            decision=self._decision,
            events=tuple(self._events),
            outcome=self._outcome,
            incomplete=self._missing,
        )

    @property
    def _outcome(self) -> Outcome | None:
        if self._result is not None:
            return self._result.outcome
        return Outcome.ROLLBACK_INCOMPLETE if self._missing else None

    @property
    def _release(self) -> str:
        release = self._order.plan.release
        return f"{release.product} {release.version}"

    def _known_good_of(self, name: str) -> str:
        return self._order.plan.known_good[name].version

    def _what(self) -> str:
        if self._outcome is not None:
            return _OUTCOME_SENTENCES[self._outcome].format(release=self._release)
        where = f"wave {self._wave} of {len(self._order.plan.waves)}, " if self._wave else ""
        return f"{where}{_PHASE_SENTENCES[self._phase]}"

    def _users(self) -> str:
        touched = [name for name, p in self._gateways.items() if p.state != "waiting"]
        known = [self._order.plan.sessions.get(name) for name in touched]
        if any(count is None for count in known):
            return f"{len(touched)} gateways; how many users they had is not known"
        users = sum(count for count in known if count is not None)
        of = len(self._order.plan.fleet.gateways)
        return f"{len(touched)} of {of} gateways, {users} users were on them; live sessions are never moved"

    def _why(self) -> str:
        if self._result is not None:
            return self._result.reason
        if self._missing:
            return "; ".join(self._missing)
        if self._held_by:
            return self._held_by
        return self._decision.reason if self._decision else self._order.reason

    def _next(self) -> str:
        if self._result is not None:
            return "nothing; old instances stop when their last session has ended"
        match self._phase:
            case Phase.STARTING | Phase.SWITCHING:
                return "the window begins when the new instances have been probed"
            case Phase.OBSERVING:
                window = self._order.plan.window
                return f"promotion on proof after {window.minimum}, a person is asked at {window.cap}"
            case Phase.HELD:
                return "nothing, until the cause is gone or a person decides; proven harm still rolls back"
            case Phase.ROLLING_BACK:
                return "every gateway is tried until it is back"
            case _:
                return "the next wave, or the end"

    def _can_do(self) -> str:
        fleet = self._order.plan.fleet.name
        if self._result is not None or self._phase is Phase.ROLLING_BACK:
            return f"penstock rollback {fleet} --reason TEXT" if self._result else f"penstock watch {fleet}"
        held = self._held_by is not None or self._phase is Phase.HELD
        first = f"penstock {'resume' if held else 'hold'} {fleet} --reason TEXT"
        return f"{first} | penstock rollback {fleet} --reason TEXT"
