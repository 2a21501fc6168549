"""The story of a way back outside of a rollout, in the same five sentences."""

from collections.abc import Mapping
from datetime import datetime

from policies.words.plan import ReleaseRef
from policies.words.rollout import Event, GatewayProgress, Outcome, Phase, RollbackReport, RolloutStatus
from policies.words.way_back import Answer, AnswerKind, Confirmation

_ANSWERS = {
    AnswerKind.APPROVE: "approved",
    AnswerKind.REJECT: "rejected",
    AnswerKind.KNOWN_GOOD: "asked for known-good instead, which never waits",
}


class WayBackStory:
    """Everything a way back has to tell; fed with answers and reports, asked for its status."""

    def __init__(self, name: str, fleet: str, reason: str, at: datetime) -> None:
        self._name, self._fleet, self._reason = name, fleet, reason
        self._targets: dict[str, ReleaseRef] = {}
        self._waits: tuple[Confirmation, datetime] | None = None
        self._back: tuple[str, ...] = ()
        self._missing: tuple[str, ...] = ()
        self._heard: RollbackReport | None = None
        self._outcome: Outcome | None = None
        self._events = [Event(at=at, sentence=f"rollback asked for: {reason}")]

    def note(self, sentence: str, at: datetime) -> None:
        """Add a line to the story."""
        self._events.append(Event(at=at, sentence=sentence))

    def wait(self, targets: Mapping[str, ReleaseRef], confirmation: Confirmation, at: datetime) -> None:
        """Begin to wait for a second person."""
        self._targets, self._waits = dict(targets), (confirmation, at + confirmation.within)
        self.note(f"waiting for a second person: {confirmation.reason}", at)

    def hear(self, answer: Answer, at: datetime) -> None:
        """Take over what a person answered."""
        self.note(f"{answer.person} {_ANSWERS[answer.kind]}: {answer.reason}", at)

    def begin(self, targets: Mapping[str, ReleaseRef], at: datetime) -> None:
        """Begin to go back."""
        self._targets, self._waits = dict(targets), None
        self.note(f"sending new sessions of {len(targets)} gateways back", at)

    def take(self, report: RollbackReport) -> None:
        """Take over what the rollback says of itself."""
        if not report.follows(self._heard):
            return
        self._heard = report
        for name in report.back:
            if name not in self._back:
                self.note(f"{name} back on {self._targets[name].version}", report.at)
        for missing in report.missing:
            if missing not in self._missing:
                self.note(f"ROLLBACK INCOMPLETE: {missing}", report.at)
        self._back, self._missing = report.back, report.missing

    def end(self, outcome: Outcome, sentence: str, at: datetime) -> None:
        """Close the story."""
        self._outcome, self._waits = outcome, None
        self._reason = sentence
        self.note(sentence, at)

    def status(self) -> RolloutStatus:
        """Return the five sentences and the facts under them."""
        release = next(iter(self._targets.values()), None)
        incomplete = Outcome.ROLLBACK_INCOMPLETE if self._missing else None
        return RolloutStatus(
            rollout=self._name,
            fleet=self._fleet,
            release=release.digest if release else "",
            version=", ".join(sorted({to.version for to in self._targets.values()})) or "known-good",
            phase=self._phase,
            what=self._what(),
            users=f"new sessions of {len(self._targets)} gateways; live ones stay until they end",
            why="; ".join(self._missing) or (self._waits[0].reason if self._waits else self._reason),
            next=self._next(),
            can_do=self._can_do(),
            gateways=tuple(self._progress(name) for name in sorted(self._targets)),
            events=tuple(self._events),
            outcome=self._outcome or incomplete,
            incomplete=self._missing,
            confirm=self._waits[0].change if self._waits else None,
        )

    @property
    def _phase(self) -> Phase:
        if self._outcome is not None:
            return Phase.ENDED
        return Phase.HELD if self._waits else Phase.ROLLING_BACK

    def _progress(self, name: str) -> GatewayProgress:
        version = self._targets[name].version
        state = "back" if name in self._back else "waiting" if self._waits else "going back"
        return GatewayProgress(gateway=name, wave=0, state=state, release=version)

    def _what(self) -> str:
        if self._outcome is not None:
            return self._reason
        if self._missing:
            return "ROLLBACK INCOMPLETE"
        return "a rollback waits for a second person" if self._waits else "sending new sessions back"

    def _next(self) -> str:
        if self._outcome is not None:
            return "nothing; what was left behind stops when its last session has ended"
        if self._waits is None:
            return "every gateway is tried until it is back"
        confirmation, until = self._waits
        by_itself = "back to known-good" if confirmation.known_good else "nothing, the rollback is given up"
        return f"{by_itself} at {until:%Y-%m-%d %H:%M:%S} UTC, unless somebody answers"

    def _can_do(self) -> str:
        if self._waits is None:
            return f"penstock watch {self._fleet}"
        return (
            f"penstock approve {self._fleet} --reason TEXT (not who asked) | penstock reject {self._fleet} "
            f"--reason TEXT | penstock rollback {self._fleet} --reason TEXT (to known-good, at once)"
        )
