"""Looking around: what no change tells: gateways on another release, certificates that end, lost parts."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from orchestrator.noticing.looking import Looking
from orchestrator.store.addressed import Addressed
from orchestrator.store.ledger import Ledger
from policies.agent_certificates import LATE
from policies.model.notice_rules import NoticeRules
from policies.notices.changes import Fact
from policies.notices.occurrences import Subject
from policies.notices.states import NoticeState

INSTALLATION = "installation"
"""What stands in place of a fleet for what concerns penstock itself."""
ASTRAY_FOR = timedelta(minutes=5)
"""How long gateways run something else before somebody is woken: reconcile brings them back in less."""
NAMED = 10


class Wrong(NamedTuple):
    """What is not as it must be, and is no fact of the ledger."""

    parts: Mapping[NoticeState, str]
    """Of penstock itself, each with what people are told."""
    wedged: Mapping[tuple[str, str], str]
    """Changes that may not go on by themselves, by fleet and change, each with why."""
    unbegun: Mapping[str, str | None] = MappingProxyType({})
    """Fleets of which the engine has answered, each with why no worker begins its order; None without one."""


_OF_FLEETS = frozenset({NoticeState.ASTRAY, NoticeState.CERTIFICATES_LATE, NoticeState.ROOM_SILENT})
_UNBEGUN = frozenset({NoticeState.UNBEGUN})
_OF_PARTS = frozenset({NoticeState.AUDIT_BROKEN, NoticeState.PART_AWAY})


class LookingAround:
    """One worker's looks at what no change tells; it may block."""

    def __init__(self, ledger: Ledger, looking: Looking) -> None:
        """Take the ledger, and what makes notices of facts."""
        self._ledger = ledger
        self._looking = looking
        self._astray: dict[str, datetime] = {}
        self._told: set[str] = set()

    def look(self, rules: NoticeRules, wrong: Wrong, now: datetime | None = None) -> tuple[str, ...]:
        """Keep what is not as it must be as notices, and settle what is again; return the keys.

        Args:
            rules: Who gets what.
            wrong: What is not as it must be, and is no fact of the ledger.
            now: When this is.
        """
        now = now or datetime.now(UTC)
        facts = self._of_fleets(now)
        waiting = self._ledger.waiting_notices()
        for fleet, said in wrong.unbegun.items():
            if said is not None:
                facts.setdefault(fleet, []).append(Fact(NoticeState.UNBEGUN, f"{fleet}: {said}"))
        lasting = {one.subject for one in waiting if one.notice.state in _OF_FLEETS | _UNBEGUN}
        stuck = {(one.notice.fleet, one.subject) for one in waiting if one.notice.state == NoticeState.WEDGED}
        found = list[Addressed]()
        for fleet in sorted({*facts, *lasting}):
            of_fleet = facts.get(fleet, [])
            # Of a fleet that the engine is silent about, nothing is known: an order may still wait there.
            scope = _OF_FLEETS | (_UNBEGUN if fleet in wrong.unbegun else frozenset())
            found += self._looking.addressed(rules, Subject(fleet, fleet), of_fleet, scope, now)
        parts = [Fact(state, f"penstock: {said}") for state, said in wrong.parts.items()]
        is_away = NoticeState.PART_AWAY in wrong.parts  # nobody has asked then which changes are stuck
        for fleet, change in () if is_away else sorted(stuck | wrong.wedged.keys()):
            why = wrong.wedged.get((fleet, change))
            said = f"{fleet}: {change} may not go on by itself: {why}"
            of_change = [Fact(NoticeState.WEDGED, said)] if why is not None else []
            about = Subject(change, fleet, change)
            found += self._looking.addressed(rules, about, of_change, {NoticeState.WEDGED}, now)
        about = Subject(INSTALLATION, INSTALLATION)
        found += self._looking.addressed(rules, about, parts, _OF_PARTS, now)
        return self._ledger.add_notices(found)

    def _of_fleets(self, now: datetime) -> dict[str, list[Fact]]:
        found: dict[str, list[Fact]] = {}
        astray = self._ledger.gateways_astray()
        self._astray = {fleet: self._astray.get(fleet, now) for fleet in astray}
        for fleet, names in astray.items():
            if now - self._astray[fleet] >= ASTRAY_FOR:
                said = f"{fleet}: {len(names)} gateways run a release that is not their known-good"
                found.setdefault(fleet, []).append(Fact(NoticeState.ASTRAY, f"{said}: {_named(names)}"))
        late = Counter(
            fleet
            for (fleet, _), (begin, end) in self._ledger.certificate_lives().items()
            if end - now < (end - begin) * LATE
        )
        for fleet, count in late.items():
            said = f"{fleet}: the certificates of {count} gateways should have been renewed long ago"
            found.setdefault(fleet, []).append(Fact(NoticeState.CERTIFICATES_LATE, said))
        rooms = self._ledger.silent_rooms()
        for fleet in {one.fleet for one in rooms}:
            whys = "; ".join(one.why for one in rooms if one.fleet == fleet)
            said = f"{fleet}: no order by chat is received: {whys}"
            found.setdefault(fleet, []).append(Fact(NoticeState.ROOM_SILENT, said))
        return found


def _named(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
