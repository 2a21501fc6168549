"""A change is shown as held exactly while somebody holds it, or its wave stands still by its own decision."""

from collections import deque
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from policies.model.change import PENSTOCK, ChangeKind, ChangeOrder, Phase
from policies.model.command import Command, CommandKind
from policies.model.report import WaveReport
from policies.model.verdict import Action, Decision, GateVerdict
from policies.status.awaited import STANDING_STILL, stands_still
from policies.status.story import Story
from tests.unit.test_story import CONFIRM, story_of

AT = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
ORDER = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE")
PEOPLE = ("ana", "ben", PENSTOCK)


class Upgrade:
    """A change and its wave, which hears of commands late and whose reports are late again."""

    def __init__(self) -> None:
        self.story = Story(ORDER, AT)
        self.story.know("edge-1", None)
        self._number = self._wave = self._said = 0
        self._is_under_way = False
        self._unheard = deque[Command]()
        self._unread = deque[WaveReport]()
        self._begin()

    def _begin(self) -> None:
        self._wave += 1
        self._is_under_way, self._switching = True, True
        self._decision: Decision | None = None
        self._holds = dict(self.story.holds)
        self._report()

    def _report(self, phase: Phase | None = None) -> None:
        self._number += 1
        standing = self._decision is not None and self._decision.action in STANDING_STILL
        now = Phase.SWITCHING if self._switching else Phase.OBSERVING
        if self._holds or (standing and not self._switching):
            now = Phase.HELD
        self._unread.append(
            WaveReport(
                at=AT,
                number=self._number,
                change="edge-1",
                wave=self._wave,
                phase=phase or now,
                decision=self._decision,
                switching=self._switching,
            )
        )

    def says(self, kind: CommandKind, person: str) -> None:
        self._said += 1
        command = Command(id=f"c-{self._said}", kind=kind, person=person, reason="calls")
        if self.story.refusal_of(command) is None:
            self.story.hear(command, AT)
            if self._is_under_way:
                self._unheard.append(command)
        self._look()

    def _look(self) -> None:
        """Between two waves, be held as the change is that sees a hold then."""
        if not self._is_under_way and self.story.holds:
            self.story.hold(AT)

    def goes_on(self, step: str) -> None:
        match step:
            case "hears" if self._unheard:
                command = self._unheard.popleft()
                if command.kind is CommandKind.HOLD:
                    self._holds[command.person] = command.reason
                else:
                    self._holds.pop(command.person, None)
                self._report()
            case "reads" if self._unread:
                self.story.take(self._unread.popleft())
            case "has switched" if self._is_under_way:
                self._switching = False
                self._report()
            case "passes" if self._is_under_way and not self._holds and not self._switching:
                self._report(Phase.PROMOTING)
                while self._unread:
                    self.story.take(self._unread.popleft())
                self._is_under_way = False
                self._unheard.clear()
                self._look()
            case "is cut" if not self._is_under_way:
                self.story = Story(ORDER, AT, self.story.dump())
                self.story.know("edge-1", None)
            case "begins" if not self._is_under_way and not self.story.holds:
                self._begin()

    def decides(self, action: Action) -> None:
        if self._is_under_way:
            self._decision = Decision(action=action, verdict=GateVerdict.NOT_ENOUGH_DATA, reason="3 of 40")
            self._report()


said = st.tuples(st.sampled_from([CommandKind.HOLD, CommandKind.RESUME]), st.sampled_from(PEOPLE))
went = st.sampled_from(["hears", "reads", "has switched", "passes", "is cut", "begins"])
decided = st.sampled_from([Action.CONTINUE, Action.PROMOTE, Action.HOLD_FOR_HUMAN])


@given(st.lists(st.one_of(said, went, decided), max_size=40))
def test_a_change_is_shown_as_held_exactly_while_somebody_holds_it_or_its_wave_stands_still(
    steps: list[Action | str | tuple[CommandKind, str]],
) -> None:
    change = Upgrade()
    for step in steps:
        match step:
            case Action():
                change.decides(step)
            case str():
                change.goes_on(step)
            case (kind, person):
                change.says(kind, person)
        told, status = change.story.dump(), change.story.status()
        stands = stands_still(told.decision, None, told.by_time) and not told.switching
        if told.holds:
            assert status.phase is Phase.HELD
            assert status.needs_you is not None
        elif not stands:
            assert status.phase is not Phase.HELD


def test_what_its_wave_said_before_it_heard_that_it_may_go_on_holds_no_change() -> None:
    change = Upgrade()
    change.goes_on("has switched")
    change.says(CommandKind.HOLD, "ana")
    for _ in range(3):
        change.goes_on("hears")
    change.says(CommandKind.RESUME, "ana")
    assert change.story.status().phase is not Phase.HELD
    for _ in range(3):
        change.goes_on("reads")
    assert change.story.status().phase is Phase.OBSERVING


def test_a_change_that_has_its_proof_needs_no_operator_once_the_last_hold_is_lifted() -> None:
    """A HELD line asked for an operator for two seconds, until the wave passed by itself."""
    change = Upgrade()
    change.goes_on("has switched")
    change.says(CommandKind.HOLD, "ana")
    change.goes_on("hears")
    change.decides(Action.PROMOTE)
    while change._unread:
        change.goes_on("reads")
    assert change.story.status().needs_you is not None
    change.says(CommandKind.RESUME, "ana")
    for step in ("hears", "reads"):
        status = change.story.status()
        assert (status.phase, status.needs_you) == (Phase.OBSERVING, None)
        change.goes_on(step)
    assert change.story.status().needs_you is None


def test_a_hold_while_gateways_are_switched_is_seen_at_once() -> None:
    change = Upgrade()
    change.goes_on("reads")
    change.says(CommandKind.HOLD, "ana")
    assert change.story.status().phase is Phase.HELD
    assert change.story.status().what.endswith("held; new sessions stay where they are")


def test_a_hold_between_two_waves_is_lifted_also_where_the_history_was_cut_meanwhile() -> None:
    change = Upgrade()
    for step in ("has switched", "reads", "passes"):
        change.goes_on(step)
    change.says(CommandKind.HOLD, "ana")
    change.goes_on("is cut")
    change.says(CommandKind.RESUME, "ana")
    assert change.story.status().phase is not Phase.HELD


def test_a_rollback_that_was_answered_is_not_shown_as_held_until_it_begins() -> None:
    story = story_of(ChangeKind.GO_BACK, CONFIRM)
    story.wait(CONFIRM, AT)
    assert story.status().phase is Phase.HELD
    story.answered()
    assert story.status().phase is Phase.STARTING
