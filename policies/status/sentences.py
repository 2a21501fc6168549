"""The five sentences of a change: what happens, to how many users, why, what is next, what can be done."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from policies.model.change import (
    PENSTOCK_WATCH,
    RELOADS,
    ChangeKind,
    ChangeOrder,
    Outcome,
    Phase,
    label_without_release,
)
from policies.model.fleet import Automation
from policies.model.length import length
from policies.model.offer import Offer, Verb
from policies.model.plan import ReleaseRef
from policies.model.plan_part import PlanHeader
from policies.model.report import EVERYBODY, ByTime, GatewayProgress
from policies.model.status import ChangeStatus
from policies.model.verdict import Action, Decision
from policies.model.way_back import Confirmation
from policies.planning.cohorts import LEFT_OUT
from policies.planning.naming import counted
from policies.runbooks import runbook_of, runbook_of_waiting
from policies.status.awaited import (
    Awaited,
    asked_for,
    automation_of,
    awaited,
    goes_on_against_its_verdict,
    proposes_to_go_back,
)
from policies.status.told import BACK, Told, listed
from policies.status.waiting import waiting
from policies.votes import ballot_of

PHASE_SENTENCES = {
    Phase.STARTING: "checking the release and the way back; nothing has changed yet",
    Phase.WAITING: "waiting for its window",
    Phase.SWITCHING: "starting the new release beside the old one",
    Phase.OBSERVING: "watching the new release against the others",
    Phase.HELD: "held; new sessions stay where they are",
    Phase.PROMOTING: "keeping the new release",
    Phase.ROLLING_BACK: "sending new sessions back to known-good",
}

OUTCOME_SENTENCES = {
    Outcome.PROMOTED: "promoted: every gateway takes its sessions on {release}",
    Outcome.ROLLED_BACK: "rolled back: every touched gateway takes its sessions on its known-good",
    Outcome.ROLLBACK_INCOMPLETE: "ROLLBACK INCOMPLETE",
    Outcome.REFUSED: "refused: nothing was changed",
    Outcome.ABORTED: "aborted: no session had moved",
    Outcome.HELD: "held: needs a person",
}


WAITING, ON_TRIAL = "waiting", "on trial"
"""States of gateways that nobody has touched, and that take their users as before."""

NOT_BACK = "not back"
"""The state of a gateway without which a rollback has ended."""

ON_NAMED = "on the named release"
"""The state of a gateway that a rollback took to the release which its operator named."""

UNTOUCHED = (WAITING, LEFT_OUT)
"""States of gateways on which a change has not begun."""


def share_line(share: int) -> str:
    """Return how many of the new sessions go to the new release, of this share in percent."""
    return f"{share} % of new sessions go to the new release"


def named_release(order: ChangeOrder, header: PlanHeader | None) -> ReleaseRef | None:
    """Return the release that the operator of this rollback named, None where it goes to known-good."""
    if order.kind is not ChangeKind.GO_BACK or header is None or header.strategy is not None:
        return None
    return header.release


def destination(order: ChangeOrder, header: PlanHeader | None) -> str:
    """Return where a rollback of or by this change takes new sessions, as people call it."""
    named = named_release(order, header)
    return named.version if named is not None else "known-good"


class Sentences:
    """Spells one moment of a change."""

    def __init__(
        self, order: ChangeOrder, header: PlanHeader | None, told: Told, at: datetime | None = None
    ) -> None:
        """Know what was told, and at which moment somebody looks; none where the words are kept."""
        self._order = order
        self._header = header
        self._told = told
        self._at = at
        self._awaited = awaited(told, header)

    def status(self) -> ChangeStatus:
        """Return the five sentences and the facts under them."""
        order, told = self._order, self._told
        release = self._header.release if self._header else None
        by_wave = self._by_wave()
        counts: Counter[str] = Counter()
        for of_wave in by_wave.values():
            counts.update(of_wave)
        return ChangeStatus(
            rollout=told.name,
            fleet=order.fleet,
            kind=order.kind,
            release=release.digest if release else "",
            version=release.version if release else label_without_release(order.kind),
            phase=self._phase,
            what=self._what(),
            users=self._users(counts),
            why=self._why(),
            next=self._next(),
            can_do=self._can_do(),
            wave=told.wave,
            waves=len(self._header.waves) if self._header else 0,
            gateways=self._gateways(),
            counts=dict(counts),
            planned={wave.number: wave.gateways for wave in self._header.waves} if self._header else {},
            by_wave=by_wave,
            executable=release.executable if release else "",
            aside=told.aside,
            more_aside=told.more_aside,
            decision=told.decision,
            events=told.events,
            earlier_events=told.earlier_events,
            outcome=told.outcome,
            waits_for=tuple(sorted(told.not_back)),
            not_back=told.count_not_back,
            incomplete=self._incomplete(),
            more_incomplete=told.result.more_incomplete if told.result is not None else 0,
            confirm=order.confirm.change if told.waits_until is not None and order.confirm else None,
            ballot=ballot_of(told.decision) if told.decision is not None and told.result is None else None,
            needs_you=self._needs_you(),
            runbook=self._runbook(),
            alone=order.bakes_on,
            banner=order.override.sentence if order.override is not None else None,
            window=told.window if self._waits_for_window else None,
        )

    def _incomplete(self) -> tuple[str, ...]:
        """Return what keeps each gateway, or part, for which the rollback waits or which its end lacks."""
        if self._told.result is not None:
            return tuple(f"{name}: {why}" for name, why in sorted(self._told.result.incomplete.items()))
        if not self._told.waits_for_gateways:
            return ()
        kept = self._told.not_back | self._told.failed
        return tuple(f"{name}: {why}" for name, why in sorted(kept.items()))

    def _gateways(self) -> tuple[GatewayProgress, ...]:
        """Return the gateways as reported; those without which a rollback has ended are not back."""
        told = self._told
        missing = told.result.incomplete if told.result is not None else {}
        known = {name: told.gateways.get(name) for name in missing}
        not_back = {
            name: GatewayProgress(gateway=name, wave=one.wave if one is not None else 0, state=NOT_BACK)
            for name, one in known.items()
        }
        return tuple((told.gateways | not_back).values())

    def _by_wave(self) -> dict[int, dict[str, int]]:
        """Return how many gateways of each wave are in which state; once all are back, none is on trial."""
        told = self._told
        if told.outcome is not Outcome.ROLLED_BACK:
            return told.counts
        return {wave: _all_back(counts) for wave, counts in told.counts.items()}

    def _what(self) -> str:
        told, header = self._told, self._header
        if told.result is not None and self._order.kind is not ChangeKind.UPGRADE:
            incomplete = told.outcome is Outcome.ROLLBACK_INCOMPLETE
            return f"{'ROLLBACK INCOMPLETE: ' * incomplete}{told.result.reason}"
        if told.outcome is not None:
            release = header.release if header else None
            label = f"{release.product} {release.version}" if release else "known-good"
            if told.outcome is Outcome.PROMOTED and (without := self._without()):
                return f"promoted to {label} without {', and without '.join(without)}"
            return OUTCOME_SENTENCES[told.outcome].format(release=label)
        wave = f"wave {told.wave} of {len(header.waves)}" if told.wave and header else ""
        match self._awaited:
            case Awaited.SECOND_PERSON:
                return f"a rollback to {destination(self._order, self._header)} waits for a second person"
            case Awaited.WINDOW | Awaited.HARM | Awaited.RESUME if told.window is not None:
                passed = f"{wave} is over, " if wave else ""
                return f"{passed}{waiting(told.window, self._at)}"
            case (
                Awaited.GATEWAYS
                | Awaited.HARM
                | Awaited.RESUME
                | Awaited.WINDOW
                | Awaited.TESTS
                | Awaited.SWITCH
                | Awaited.DECISION
                | Awaited.STOP
                | Awaited.CAPACITY
                | None
            ):
                return self._what_it_does(f"{wave}, " if wave else "")

    def _without(self) -> tuple[str, ...]:
        """Return which gateways a promotion did not reach: those left out under way, and by the plan."""
        left_out = len(self._told.aside) + self._told.more_aside
        alone = self._header.left_alone_count if self._header else 0
        found = []
        if left_out:
            found.append(f"{counted(left_out, 'gateway')}, which {_was(left_out)} left out")
        if self._header is not None and alone:
            named = [
                f"{one.gateway} on {one.serves or 'a release that is not known'} ({one.reason})"
                for one in self._header.left_alone
            ]
            more = f" and {alone - len(named)} more" if alone > len(named) else ""
            left = f"{counted(alone, 'gateway')}, which the plan left alone"
            found.append(f"{left}: {', '.join(named)}{more}")
        return tuple(found)

    def _what_it_does(self, where: str) -> str:
        if self._awaited is Awaited.STOP and self._observed_harm:
            return f"{where}HARM FOUND, and the upgrade goes on: this fleet only observes"
        if self._reloads:
            return f"{where}giving what runs {self._what_is_given}"
        named = named_release(self._order, self._header)
        if self._phase is Phase.ROLLING_BACK and named is not None:
            return f"{where}sending new sessions to {named.version}"
        return f"{where}{PHASE_SENTENCES[self._phase]}"

    @property
    def _reloads(self) -> bool:
        return self._order.kind in RELOADS

    @property
    def _what_is_given(self) -> str:
        if self._order.takes_back is not None:
            return f"what it had before {self._order.takes_back}"
        configures = self._order.kind is ChangeKind.CONFIGURE
        return "the settings of the fleet's file" if configures else "the present credentials of its host"

    def _users(self, counts: Mapping[str, int]) -> str:
        if self._reloads:
            given = label_without_release(self._order.kind)
            return f"nobody who is logged in; whoever logs in meets the present {given}"
        if self._order.kind is ChangeKind.ADOPT:
            return "nobody; what serves goes on serving"
        if self._told.result is not None and self._told.result.outcome is Outcome.REFUSED:
            return "nobody; nothing was changed"
        if self._order.kind is not ChangeKind.UPGRADE:
            changing = self._header.changing if self._header else 0
            return f"new sessions of {changing} gateways; live ones stay until they end"
        touched = _touched(counts)
        of = self._header.gateways if self._header else 0
        share = f", where {share_line(self._told.share)}" if self._shares_sessions(counts) else ""
        return f"{touched} of {of} gateways{share}; live sessions are never moved"

    def _shares_sessions(self, counts: Mapping[str, int]) -> bool:
        """Return whether gateways on trial send only a part of their new sessions to the new release."""
        return self._told.result is None and bool(counts.get(ON_TRIAL)) and self._told.share < EVERYBODY

    def _why(self) -> str:  # noqa: PLR0911 - a sentence a case
        told = self._told
        if told.result is not None:
            return told.result.reason
        match self._awaited:
            case Awaited.GATEWAYS:
                return listed(told.not_back | told.failed, told.more_not_back)
            case Awaited.SECOND_PERSON if self._order.confirm is not None:
                return self._order.confirm.reason
            case Awaited.HARM | Awaited.RESUME if told.holds:
                return self._held_by()
            case Awaited.WINDOW if told.window is not None:
                return told.window.lasting
            case Awaited.CAPACITY:
                return _waits_to_switch(told)
            case Awaited.TESTS:
                return f"release tests cannot be made: {listed(told.untested)}"
            case Awaited.SWITCH:
                return f"hosts refuse to switch: {listed(told.refused)}"
            case (
                Awaited.SECOND_PERSON
                | Awaited.HARM
                | Awaited.RESUME
                | Awaited.WINDOW
                | Awaited.DECISION
                | Awaited.STOP
                | None
            ):
                return told.decision.reason if told.decision else (told.shown_harm or self._order.reason)

    def _held_by(self) -> str:
        """Return whose holds keep the change, that of harm first."""
        others = dict(self._told.holds)
        harm = others.pop(PENSTOCK_WATCH, None)
        found = ([f"{PENSTOCK_WATCH}: {harm}"] if harm is not None else []) + (
            [listed(others)] if others else []
        )
        return f"held by {'; '.join(found)}"

    def _next(self) -> str:  # noqa: PLR0911 - a sentence a case
        told, confirm = self._told, self._order.confirm
        if self._reloads:
            return (
                "nothing" if told.result else "the next wave when every instance of this one lets people in"
            )
        if told.result is not None:
            changed = told.result.outcome not in {Outcome.REFUSED, Outcome.ABORTED}
            return f"nothing; {self._how_old_instances_end()}" if changed else "nothing"
        match self._awaited:
            case Awaited.SECOND_PERSON if told.waits_until is not None and confirm is not None:
                return _at_deadline(confirm, told.waits_until)
            case Awaited.WINDOW if told.window is not None:
                until = told.window.until
                when = f"at {until:%Y-%m-%d %H:%M} UTC" if until else "when that is over"
                return f"the next wave starts by itself {when}"
            case Awaited.CAPACITY if told.silent:
                return (
                    "a gateway that answers again is switched; one that stays silent for 2 minutes fails by "
                    "itself, unless it is in quarantine: then the change goes on without it"
                )
            case Awaited.CAPACITY:
                return (
                    "gateways that wait start by themselves when there is capacity, looked for every 30 "
                    "seconds to 5 minutes: bring gateways or their nodes back, add some, or wait for fewer "
                    "users"
                )
            case Awaited.SWITCH:
                return (
                    "the switch is tried again by itself; a gateway whose host refuses it for 2 minutes "
                    "fails by itself, unless it is in quarantine: then the change goes on without it"
                )
            case Awaited.TESTS if told.phase in {Phase.STARTING, Phase.SWITCHING}:
                return (
                    "the tests are tried again by themselves, every 3 seconds to 5 minutes: mend what they "
                    "name; a gateway that stays untested is set aside without a user"
                )
            case (
                Awaited.GATEWAYS
                | Awaited.SECOND_PERSON
                | Awaited.HARM
                | Awaited.RESUME
                | Awaited.WINDOW
                | Awaited.TESTS
                | Awaited.DECISION
                | Awaited.STOP
                | None
            ):
                return self._next_step()

    def _next_step(self) -> str:
        """Return what follows by itself: by time where that decides, and otherwise by proof or a person."""
        step, stop = self._told.by_time, self._awaited is Awaited.STOP
        if step is not None and (stop or self._phase is Phase.OBSERVING):
            return self._next_by_time(step)
        if step is not None and self._observes and self._awaited is Awaited.RESUME:
            return f"nothing while it is held; after resume {self._next_by_time(step)}"
        return self._next_in_its_phase() + "; hold or rollback stops it" * stop

    def _next_by_time(self, step: ByTime) -> str:
        """Return the step that time decides, when, and what keeps it."""
        told, header = self._told, self._header
        if step.share is not None:
            takes = f"{step.share} % of new sessions go to the new release"
        elif step.at is None:
            takes = "the wave goes on"
        elif header is not None and told.wave < len(header.waves):
            takes = f"the upgrade goes on to wave {told.wave + 1}"
        else:
            takes = "the release is promoted"
        if not self._observes:
            on_proof = "the last share is promoted on proof"
            return f"{takes} {self._when(step)}, unless the verdict speaks against it; {on_proof}"
        stops = "hold or rollback stops it"
        return f"{takes} {self._when(step)}, whatever the verdict is: this fleet only observes; {stops}"

    def _when(self, step: ByTime) -> str:
        if step.at is None:
            minimum = length(self._header.window_minimum) if self._header is not None else "a window"
            return f"{minimum} after its last gateway has switched"
        if self._at is not None and step.at <= self._at:
            return "with the next reading of metrics"
        return f"at {step.at:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def _observes(self) -> bool:
        return automation_of(self._header) is Automation.OBSERVE

    @property
    def _observed_harm(self) -> str:
        """The harm against which the change goes on, empty without any."""
        told = self._told
        if told.decision is not None and told.decision.action is Action.ROLL_BACK:
            return told.decision.reason
        return told.shown_harm

    def _how_old_instances_end(self) -> str:
        """Return when the instances that users left are stopped, at the latest."""
        stop = "old instances stop when their last session has ended"
        if self._header is None:
            return stop
        deadline = length(self._header.limits.drain_deadline)
        return f"{stop}, or at the deadline of their drain, {deadline} after the switch"

    def _next_in_its_phase(self) -> str:  # noqa: PLR0911 - a sentence a case
        match self._phase:
            case Phase.SWITCHING | Phase.HELD if proposes_to_go_back(self._told, self._header):
                return "nothing: harm was found, and this fleet asks a person before it goes back"
            case Phase.STARTING | Phase.SWITCHING:
                return "the window begins when the new instances have been probed"
            case Phase.OBSERVING if self._header is not None:
                minimum, cap = self._header.window_minimum, self._header.window_cap
                return f"promotion on proof after {minimum}, a person is asked at {cap}"
            case Phase.HELD if PENSTOCK_WATCH in self._told.holds:
                return "nothing, until an operator decides about harm; a daemon that fails still rolls back"
            case Phase.HELD:
                harm = "proven harm" if acts(self._header) else "a daemon that fails"
                return f"nothing, until the cause is gone or a person decides; {harm} still rolls back"
            case Phase.ROLLING_BACK:
                return "every gateway is tried until it is back"
            case _:
                return "the next wave, or the end"

    @property
    def _phase(self) -> Phase:
        """Where it is: held from the moment in which somebody says so, whatever its wave told last."""
        match self._awaited:
            case Awaited.WINDOW:
                return Phase.WAITING
            case Awaited.HARM | Awaited.RESUME if self._told.holds:
                return Phase.HELD
            case (
                Awaited.GATEWAYS
                | Awaited.SECOND_PERSON
                | Awaited.HARM
                | Awaited.RESUME
                | Awaited.TESTS
                | Awaited.SWITCH
                | Awaited.DECISION
                | Awaited.STOP
                | Awaited.CAPACITY
                | None
            ):
                return self._told.phase

    @property
    def _waits_for_window(self) -> bool:
        """Whether it does, be it held besides."""
        return self._awaited in {Awaited.WINDOW, Awaited.HARM, Awaited.RESUME}

    def _can_do(self) -> tuple[Offer, ...]:  # noqa: PLR0911 - a state a case
        told, back = self._told, self._back()
        if self._reloads:
            return (self._offer(Verb.HISTORY if told.result else Verb.ABORT),)
        if told.result is not None and self._order.kind is ChangeKind.ADOPT:  # it moved nobody
            adopted = told.result.outcome is Outcome.PROMOTED
            return (self._offer(Verb.PLAN if adopted else Verb.EXAMINE),)
        if told.result is not None:
            return self._offer(Verb.ROLL_BACK), *self._again()
        match self._awaited:
            case Awaited.SECOND_PERSON:
                return self._answers()
            case Awaited.GATEWAYS:
                return (self._without_waiting(),)
            case Awaited.HARM | Awaited.RESUME if told.holds:
                lift = Offer(verb=Verb.RESUME, fleet=self._order.fleet, hold_of=told.first_hold)
                return lift, *back
            case Awaited.HARM | Awaited.DECISION | Awaited.TESTS if told.phase is Phase.HELD:
                voted = f"{' and '.join(sorted(told.votes))} did; others have to, too" if told.votes else ""
                note = voted or "two people, neither of them who asked"
                return *self._without_silent(), self._offer(Verb.PROMOTE, note=note), *back
            case None if told.goes_back:
                return (self._offer(Verb.WATCH),)
            case (
                Awaited.HARM
                | Awaited.RESUME
                | Awaited.WINDOW
                | Awaited.TESTS
                | Awaited.SWITCH
                | Awaited.DECISION
                | Awaited.STOP
                | Awaited.CAPACITY
                | None
            ):
                return *self._without_silent(), self._offer(Verb.HOLD), *back

    def _back(self) -> tuple[Offer, ...]:
        """Return how the change under way is taken back; one that has moved nothing is ended instead."""
        if self._order.kind is not ChangeKind.UPGRADE or self._told.may_have_moved:
            return (self._offer(Verb.ROLL_BACK),)
        more = "also takes back the last promotion, on every gateway"
        return self._offer(Verb.ABORT), self._offer(Verb.ROLL_BACK, note=more)

    def _answers(self) -> tuple[Offer, ...]:
        """Return how a rollback is answered that waits for a second operator, and what never waits."""
        answers = self._offer(Verb.APPROVE, note="not who asked"), self._offer(Verb.REJECT)
        if self._order.confirm is None or self._order.confirm.known_good is None:
            return answers
        return *answers, self._offer(Verb.ROLL_BACK, note="to known-good, at once")

    def _again(self) -> tuple[Offer, ...]:
        """Return how a rollback by name is asked for again that was given up."""
        named, result = named_release(self._order, self._header), self._told.result
        if named is None or result is None or result.outcome is not Outcome.REFUSED:
            return ()
        # by digest: other releases may have this version, and only the ledger knows them
        return (Offer(verb=Verb.ROLL_BACK, fleet=self._order.fleet, release=named.digest[:19]),)

    def _without_silent(self) -> tuple[Offer, ...]:
        """Return how the change goes on without a gateway that does not answer or refuses, if any does."""
        decided = self._told.decision.silent if self._told.decision is not None else ()
        silent = sorted({*decided, *self._told.silent, *self._told.refused})
        return tuple(self._offer(Verb.QUARANTINE, gateway=name) for name in silent[:1])

    def _without_waiting(self) -> Offer:
        """Return what ends the wait for gateways: a word on one, or force where a part does not go on."""
        if self._told.not_back:
            return self._offer(Verb.QUARANTINE, gateway=min(self._told.not_back))
        return Offer(verb=Verb.ROLL_BACK, fleet=self._order.fleet, force=True, note="ends this one")

    def _offer(self, verb: Verb, *, gateway: str | None = None, note: str = "") -> Offer:
        return Offer(verb=verb, fleet=self._order.fleet, gateway=gateway, note=note)

    def _runbook(self) -> str | None:  # noqa: PLR0911 - a page a case
        """Return the page for the change as it stands, None where nothing is to be done."""
        told, decision = self._told, self._told.decision
        match self._awaited:
            case Awaited.GATEWAYS:
                return runbook_of("rollback_incomplete")
            case Awaited.SECOND_PERSON:
                return runbook_of("rollback_waits")
            case Awaited.SWITCH:
                return runbook_of("not_switched")
            case Awaited.HARM:
                return runbook_of("harm")
            case Awaited.RESUME | Awaited.TESTS | Awaited.DECISION | Awaited.STOP if decision is not None:
                return runbook_of_waiting(decision.verdict, _decided_by(decision))
            case Awaited.RESUME | Awaited.TESTS | Awaited.DECISION | Awaited.STOP | Awaited.CAPACITY:
                return runbook_of("held")
            case Awaited.WINDOW:
                return runbook_of("held" if told.shown_harm else "waiting_for_window")
            case None if told.outcome is not None:
                return runbook_of(told.outcome)
            case None:
                return runbook_of("rolled_back") if told.goes_back else None

    def _needs_you(self) -> str | None:
        """Return what waits for a person, after what speaks against a change that goes on by time."""
        told, said = self._told, self._waits_for_a_person()
        goes_on = self._awaited not in {None, Awaited.GATEWAYS, Awaited.SECOND_PERSON}
        if not goes_on or not goes_on_against_its_verdict(told):
            return said
        against = told.decision.reason if told.decision is not None else ""
        if harm := self._observed_harm:
            against = f"HARM FOUND: {harm}"
        return f"{against}; {said or self._next()}"

    def _waits_for_a_person(self) -> str | None:
        told = self._told
        asked = asked_for(told, self._header) if told.by_time is None else None
        match self._awaited:
            case Awaited.GATEWAYS:
                not_back = told.count_not_back
                count = "1 gateway is" if not_back == 1 else f"{not_back} gateways are"
                gateways = f"{count} not back: {listed(told.not_back, told.more_not_back)}"
                parts = f"{len(told.failed)} parts of up to 50 gateways do not go back: {listed(told.failed)}"
                said = ([gateways] if told.not_back else []) + ([parts] if told.failed else [])
                return "; ".join(said)
            case Awaited.SECOND_PERSON:
                asks = f"{self._order.requested_by} asks to approve or reject a rollback"
                return f"{asks}: {self._why()}. Reason: {self._order.reason}"
            case Awaited.HARM if PENSTOCK_WATCH in told.holds:
                return "; ".join((self._held_by(), *((asked.reason,) if asked is not None else ())))
            case Awaited.HARM | Awaited.RESUME | Awaited.TESTS | Awaited.DECISION:
                return asked.reason if asked is not None else self._why()
            case Awaited.SWITCH:
                return self._why()
            case Awaited.WINDOW | Awaited.STOP | Awaited.CAPACITY | None:
                return None


def _decided_by(decision: Decision) -> str | None:
    """Return the first gate whose verdict is that of the decision."""
    return next((one.gate for one in decision.readings if one.verdict is decision.verdict), None)


def _all_back(counts: Mapping[str, int]) -> dict[str, int]:
    """Return a wave's counts when every gateway that was touched is back."""
    untouched = {state: counts[state] for state in UNTOUCHED if state in counts}
    touched = _touched(counts)
    return untouched | ({BACK: touched} if touched else {})


def _touched(counts: Mapping[str, int]) -> int:
    """Return on how many gateways the change has begun."""
    return sum(count for state, count in counts.items() if state not in UNTOUCHED)


def _at_deadline(confirm: Confirmation, at: datetime) -> str:
    """Return what becomes of a rollback that no second operator answers."""
    unless = f"at {at:%Y-%m-%d %H:%M:%S} UTC, unless somebody answers"
    if confirm.by_itself is None:
        return f"the rollback is given up {unless}; {confirm.nothing_is_changed}"
    return f"back to known-good {unless}: {confirm.then}"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _waits_to_switch(told: Told) -> str:
    """Return why gateways are not switched yet: they do not answer, or there is no room for their users."""
    silent = f"{', '.join(told.silent)} {'does' if len(told.silent) == 1 else 'do'} not answer"
    short = f"gateways wait for capacity: {'; '.join(told.short)}"
    return "; ".join((silent,) * bool(told.silent) + (short,) * bool(told.short))


def acts(header: PlanHeader | None) -> bool:
    """Whether proven harm goes back by itself; so does what has no plan."""
    return automation_of(header) is Automation.ACT
