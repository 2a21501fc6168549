"""Decide whether waves may start: inside any window, in each gateway's zone, and outside of freezes."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulestr

from policies.model.fleet import Fleet
from policies.model.length import length
from policies.model.windows import FIRST_DAY, LONGEST, Frozen, Opening, PatchWindow, WindowAnswer
from policies.model.zones import SITE, zone
from policies.planning.local_time import instant

SOON, FAR = timedelta(days=35), timedelta(days=400)
"""How far ahead an opening is looked for: first nearby, where there nearly always is one."""

A_DAY = timedelta(days=1)

AGAIN = timedelta(seconds=30)
"""Between two questions: a freeze that is added is heard within this time."""

MOST_OPENINGS = 50
"""That are listed."""

ALWAYS = "no windows are declared, so it is always open"


def zones_of(fleet: Fleet, gateways: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the zones of these gateways, or of all; each once.

    A fleet where nothing says `site` need not say where its gateways are: then it is UTC, which only
    decides how times are shown.
    """
    named = fleet.gateways if gateways is None else [fleet.gateway(name) for name in gateways]
    return tuple(sorted({gateway.tz or fleet.tz or "UTC" for gateway in named})) or ("UTC",)


def shown_in(fleet: Fleet, zones: Sequence[str]) -> str:
    """Return the zone in which times are shown beside UTC: of the first site, else of the first window."""
    if fleet.tz is None and all(gateway.tz is None for gateway in fleet.gateways):
        return next((window.tz for window in fleet.windows if window.tz != SITE), "UTC")
    return zones[0]


def openings_of(window: PatchWindow, where: ZoneInfo, since: datetime, until: datetime) -> list[Opening]:
    """Return when the window opens in that zone and is not over at `since`, up to `until`, in order.

    Days are named by local clocks; from the opening on exactly the declared time passes.
    """
    days = _days(
        window.rrule,
        window.start,
        datetime.combine((since - window.duration - A_DAY).date(), time()),
        datetime.combine((until + 2 * A_DAY).date(), time()),
    )
    found = (Opening(opens=(at := instant(day, where)), closes=at + window.duration) for day in days)
    return sorted(
        (one for one in found if one.closes > since and one.opens < until), key=lambda one: one.opens
    )


@lru_cache(maxsize=256)
def _days(rule: str, start: time, since: datetime, until: datetime) -> tuple[datetime, ...]:
    return tuple(rrulestr(rule, dtstart=datetime.combine(FIRST_DAY, start)).between(since, until, inc=True))


def free(
    fleet: Fleet, frozen: Sequence[Frozen], zones: Collection[str], since: datetime, until: datetime
) -> list[Opening]:
    """Return when waves of gateways in these zones may start: in all of them at once, in order."""
    found = [Opening(opens=since - LONGEST, closes=until + LONGEST)]
    for name in zones:
        here = zone(name)
        opened = _opened(fleet, here, since, until)
        found = _both(found, opened) if fleet.windows else found
        for span in frozen:
            found = _without(found, _span(span, here))
    return [one for one in found if one.closes > since]


def _opened(fleet: Fleet, here: ZoneInfo, since: datetime, until: datetime) -> list[Opening]:
    every = [
        _later(one, fleet)
        for window in fleet.windows
        for one in openings_of(window, here if window.tz == SITE else zone(window.tz), since, until)
    ]
    return _joined(every)


def _later(opening: Opening, fleet: Fleet) -> Opening:
    """Return the opening later by this fleet's share of the jitter, the same whoever asks how often."""
    if not fleet.jitter:
        return opening
    seed = hashlib.sha256(f"{fleet.name} {opening.opens.isoformat()}".encode()).digest()
    share = int.from_bytes(seed[:4]) / 2**32
    later = timedelta(seconds=int(fleet.jitter.total_seconds() * share))
    return Opening(opens=opening.opens + later, closes=opening.closes)


def _span(span: Frozen, here: ZoneInfo) -> Opening:
    where = here if span.tz == SITE else zone(span.tz)
    return Opening(opens=instant(span.begins, where), closes=instant(span.ends, where))


def _joined(openings: Iterable[Opening]) -> list[Opening]:
    found: list[Opening] = []
    for one in sorted(openings, key=lambda one: one.opens):
        if found and one.opens <= found[-1].closes:
            found[-1] = Opening(opens=found[-1].opens, closes=max(found[-1].closes, one.closes))
        else:
            found.append(one)
    return found


def _both(some: Sequence[Opening], others: Sequence[Opening]) -> list[Opening]:
    return [
        Opening(opens=max(one.opens, other.opens), closes=min(one.closes, other.closes))
        for one in some
        for other in others
        if one.opens < other.closes and other.opens < one.closes
    ]


def _without(openings: Iterable[Opening], taken: Opening) -> list[Opening]:
    return [part for one in openings for part in _rest(one, taken)]


def _rest(one: Opening, taken: Opening) -> Iterator[Opening]:
    if taken.closes <= one.opens or one.closes <= taken.opens:
        yield one
        return
    if one.opens < taken.opens:
        yield Opening(opens=one.opens, closes=taken.opens)
    if taken.closes < one.closes:
        yield Opening(opens=taken.closes, closes=one.closes)


def standing(
    fleet: Fleet,
    frozen: Sequence[Frozen],
    at: datetime,
    *,
    zones: Collection[str] | None = None,
    needs: timedelta = timedelta(0),
) -> WindowAnswer:
    """Return whether a wave that takes so long may start at that moment, in the sentence that all show.

    Args:
        fleet: Its windows, and where its gateways are.
        frozen: Every freeze, those of people and of calendars too.
        at: The moment that is asked about.
        zones: Of the gateways that would start; of all when not given.
        needs: Switching, observing and the way back, without drains; nothing for whether it is open at all.
    """
    places = tuple(zones or zones_of(fleet))
    needed = needs + fleet.min_tail if fleet.windows or needs else timedelta(0)
    for far in (SOON, FAR):
        spans = free(fleet, frozen, places, at, at + far)
        now = next((one for one in spans if one.opens <= at), None)
        if now is not None and now.closes - at >= needed:
            return _open(fleet, now, at, shown_in(fleet, places))
        later = next((one for one in spans if one.opens > at and one.closes - one.opens >= needed), None)
        if later is not None and later.opens <= at + far:
            return _closed(_freeze_at(frozen, at, places), now, later, at, needed, shown_in(fleet, places))
    too_short = f"no opening within 400 days is {length(needed)} long"
    why = too_short if spans else "nothing opens within 400 days"
    freeze = _freeze_at(frozen, at, places)
    return WindowAnswer(
        fits=False, is_open=now is not None, sentence=f"closed{_by(freeze)}: {why}", freeze=freeze
    )


def _open(fleet: Fleet, now: Opening, at: datetime, place: str) -> WindowAnswer:
    if not fleet.windows and now.closes - at > SOON:
        return WindowAnswer(fits=True, is_open=True, sentence=f"open: {ALWAYS}", again=AGAIN)
    closing = f"closes {moment(now.closes, place)}, in {length(now.closes - at)}"
    return WindowAnswer(
        fits=True, is_open=True, sentence=f"open: {closing}", until=now.closes, again=_again(now.closes, at)
    )


def _closed(
    freeze: str | None,
    now: Opening | None,
    later: Opening,
    at: datetime,
    needed: timedelta,
    place: str,
) -> WindowAnswer:
    opens = moment(later.opens, place)
    next_one = f"next opening {opens}, in {length(later.opens - at)}"
    sentence = f"closed{_by(freeze)}: {next_one}"
    if now is not None:
        left, longer = length(now.closes - at), length(needed)
        sentence = f"open, but only for {left} more and {longer} are needed: {next_one}"
    return WindowAnswer(
        fits=False,
        is_open=now is not None,
        sentence=sentence,
        until=later.opens,
        opens=opens,
        freeze=freeze,
        again=_again(later.opens, at),
    )


def _again(until: datetime, at: datetime) -> timedelta:
    return max(timedelta(seconds=1), min(AGAIN, until - at))


def _by(freeze: str | None) -> str:
    return f" by the freeze {freeze}" if freeze else ""


def _freeze_at(frozen: Sequence[Frozen], at: datetime, places: Collection[str]) -> str | None:
    for name in places:
        for span in frozen:
            taken = _span(span, zone(name))
            if taken.opens <= at < taken.closes:
                return span.what or "without a name"
    return None


def moment(at: datetime, place: str) -> str:
    """Return a moment as people in that zone read it, with what it is in UTC."""
    local, utc = at.astimezone(zone(place)), at.astimezone(UTC)
    if place == "UTC":
        return f"{utc:%a %Y-%m-%d %H:%M} UTC"
    return f"{local:%a %Y-%m-%d %H:%M} {place} ({utc:%H:%M}Z)"
