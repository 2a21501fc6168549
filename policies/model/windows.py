"""Patch windows and freezes as people declare them, and the answer to whether waves may start."""

import re
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from pydantic import (
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    NaiveDatetime,
    field_validator,
    model_validator,
)

from policies.model.errors import BadInput
from policies.model.value import Duration, Name, Value
from policies.model.zones import Place

SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=7)
"""How long a window may be open."""

FIRST_DAY = date(2024, 1, 1)
"""The day, a Monday, from which `INTERVAL=2` counts weeks, months and days."""

MOST_WINDOWS, MOST_FREEZES = 20, 50
"""What a fleet's file may declare."""

MOST_SPANS = 1_000
"""Times that one calendar may freeze."""

_OFFSET = re.compile(r"(?<=[0-9])(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})$")
_FREQUENCIES = {"DAILY", "WEEKLY", "MONTHLY", "YEARLY"}
_PARTS = {"FREQ", "INTERVAL", "BYDAY", "BYMONTHDAY", "BYMONTH", "BYSETPOS", "BYWEEKNO", "WKST", "UNTIL"}


def _without_offset(said: object) -> object:
    if isinstance(said, str) and _OFFSET.search(said):
        shown = _OFFSET.sub("", said)
        raise ValueError(
            f"{said} has an offset; write what clocks there show, like {shown}, and the zone as tz"
        )
    return said


Local = Annotated[NaiveDatetime, BeforeValidator(_without_offset)]
"""What a clock on the wall shows."""


class OnWindowClose(StrEnum):
    """What becomes of a wave that is under way when its window closes."""

    FINISH_WAVE = "finish_wave"
    """It is finished; the next one waits."""
    HOLD = "hold"
    """Gateways that are being switched are finished; nobody else is moved until it opens again."""
    ROLLBACK = "rollback"
    """Every touched gateway goes back to its known-good."""


class PatchWindow(Value):
    """When waves may start, again and again."""

    name: Name
    """How sentences call it."""
    tz: Place
    """`site` for each gateway's own zone, or one zone for all."""
    rrule: str = Field(
        max_length=200, description="on which days, as RFC 5545 has it: FREQ=WEEKLY;BYDAY=TU,WE,TH"
    )
    start: time
    """At what time of these days it opens, as clocks there show it: "02:00"."""
    duration: Duration
    """How long it is open: hours that pass, also where clocks are changed meanwhile."""

    @field_validator("rrule")
    @classmethod
    def _rule_is_understood(cls, rule: str) -> str:
        if rule.upper().startswith("RRULE:"):
            raise ValueError(f"{rule} begins with RRULE:; leave RRULE: out")
        parts = [part.partition("=") for part in rule.upper().split(";")]
        keys = [key for key, _, _ in parts]
        said = {key: value for key, _, value in parts}
        if any(not equals for _, equals, _ in parts) or len(said) < len(keys):
            raise ValueError(f"{rule} is no rule; write it like FREQ=WEEKLY;BYDAY=TU")
        if said.get("FREQ") not in _FREQUENCIES:
            raise ValueError(f"{rule} has no FREQ of {', '.join(sorted(_FREQUENCIES))}; write one of them")
        if strange := sorted(set(keys) - _PARTS):
            raise ValueError(
                f"{strange[0]} is not understood here; days are named by {', '.join(sorted(_PARTS))}"
            )
        if not re.fullmatch(r"[1-9][0-9]{0,2}", said.get("INTERVAL", "1")):
            raise ValueError(f"INTERVAL={said['INTERVAL']} never comes to an end; write one from 1 to 999")
        _parsed(rule.upper())
        return rule.upper()

    @field_validator("start")
    @classmethod
    def _start_is_local(cls, start: time) -> time:
        if start.tzinfo is not None or start.microsecond:
            raise ValueError(f"{start} is no local time; write it like 02:00, and the zone as tz")
        return start

    @field_validator("duration")
    @classmethod
    def _duration_is_sound(cls, duration: timedelta) -> timedelta:
        if not SHORTEST <= duration <= LONGEST:
            raise ValueError(f"{duration} is no window; write one from 1m to 7d")
        return duration


def _parsed(rule: str) -> None:
    """Return when the rule can be read, and names a day within eight years.

    Raises:
        ValueError: It cannot, or names none.
    """
    from dateutil.rrule import rrule, rrulestr  # noqa: PLC0415 - workflows load this module, and read no rule

    begin = datetime.combine(FIRST_DAY, time())
    try:
        bounded = rrulestr(rule, dtstart=begin)
        if not isinstance(bounded, rrule):
            raise ValueError("it is several rules")  # noqa: TRY004, TRY301 - said as any other mistake in it
        # Days that no calendar has would be looked for until the year 9999.
        found = bounded.replace(until=begin + timedelta(days=9 * 366)).after(begin, inc=True)
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise ValueError(f"{rule} is no rule: {error}; write it like FREQ=WEEKLY;BYDAY=TU") from error
    if found is None or found > begin + timedelta(days=8 * 366):
        raise ValueError(f"{rule} names no day; write it like FREQ=WEEKLY;BYDAY=TU")


class Frozen(Value):
    """A time in which no wave starts, as clocks show it."""

    begins: Local
    ends: Local
    tz: Place
    """Whose clocks: `site` for each gateway's own zone, or one zone for all."""
    what: str = Field(default="", max_length=200)
    """What a calendar calls it."""

    @model_validator(mode="after")
    def _ends_later(self) -> Self:
        if self.ends <= self.begins:
            raise ValueError(
                f"a freeze from {self.begins} to {self.ends} has no length; write the later time last"
            )
        return self


class CalendarFile(NamedTuple):
    """A calendar that freezes what its events name."""

    path: str
    """Where it is, from the folder of the fleet's file."""


class Freeze(Value):
    """When no wave may start, as the fleet's file says: a time, or a calendar beside that file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: Name
    """How sentences call it."""
    begins: Local | None = Field(
        default=None, alias="from", description="from when on, as clocks there show it: 2026-11-26T00:00"
    )
    ends: Local | None = Field(default=None, alias="to", description="until when")
    ics: Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._/-]*\.ics$")] | None = (
        Field(
            default=None,
            description="instead of from and to: a calendar, beside the fleet's file or in a folder there",
        )
    )
    tz: Place
    """`site` for each gateway's own zone, or one zone for all; events with a zone of their own keep that."""

    @model_validator(mode="after")
    def _is_a_time_or_a_calendar(self) -> Self:
        has_time = self.begins is not None and self.ends is not None
        if has_time == (self.ics is not None) or (self.begins is None) != (self.ends is None):
            raise ValueError(f"freeze {self.name} needs from and to, or ics; write one of both")
        if self.ics is not None and ".." in self.ics.split("/"):
            raise ValueError(f"{self.ics} leaves the folder of the fleet's file; put the calendar there")
        self.source  # noqa: B018 - it says what is wrong
        return self

    @property
    def source(self) -> Frozen | CalendarFile:
        """Where its times are; every reader has a case for each kind, or mypy names the place.

        Raises:
            BadInput: It is of no kind that is understood here, so nobody knows what is frozen.
        """
        match (self.begins, self.ends, self.ics):
            case (datetime() as begins, datetime() as ends, None):
                return Frozen(begins=begins, ends=ends, tz=self.tz, what=self.name)
            case (None, None, str() as path):
                return CalendarFile(path)
            case _:
                raise BadInput(
                    f"the freeze {self.name} has neither a time nor a calendar that is understood here; "
                    "write from and to, or ics"
                )


class KeptFreeze(Value):
    """A freeze that a person added, as the ledger keeps it."""

    fleet: Name
    name: Name
    spans: tuple[Frozen, ...] = Field(min_length=1, max_length=MOST_SPANS)
    reason: str
    person: str
    at: AwareDatetime
    """When it was added."""


class Opening(Value):
    """A time in which waves may start."""

    opens: AwareDatetime
    closes: AwareDatetime


class WindowAnswer(Value):
    """Whether waves may start at a moment, and the sentence that every surface shows."""

    fits: bool
    """Whether a wave that starts now is over before the closing."""
    is_open: bool
    """Whether it is open at all."""
    sentence: str
    until: AwareDatetime | None = None
    """When it closes, or, where nothing may start, when something may; None where nobody knows."""
    opens: str | None = Field(default=None, exclude_if=lambda opens: opens is None)
    """`until` as people there read it, where nothing may start."""
    freeze: str | None = None
    """The freeze that keeps it closed."""
    is_known: bool = Field(default=True, exclude_if=lambda known: known)
    """Whether anybody could say it; where nobody can, nothing starts and nothing under way is changed."""
    again: timedelta = timedelta(seconds=30)
    """After which time it is worth asking again."""

    @property
    def lasting(self) -> str:
        """The sentence without how long that is from now: what a record says stays so."""
        return self.sentence.rpartition(", in ")[0] or self.sentence


class WindowOverride(Value):
    """Who starts outside of every window, why, and who approved the plan."""

    person: str
    reason: str = Field(min_length=1)
    ticket: str = Field(min_length=1, max_length=64)
    at: AwareDatetime
    approved_by: tuple[str, ...] = Field(default=(), exclude_if=lambda people: not people)

    @property
    def sentence(self) -> str:
        """What every surface shows as long as the change goes on, and its report for ever."""
        people = f" (approved by {', '.join(self.approved_by)})" if self.approved_by else ""
        return f"PATCH WINDOWS OVERRIDDEN by {self.person}{people}, {self.ticket}: {self.reason}"
