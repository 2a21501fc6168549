"""A host's own record of what it refused and what was done on it by hand, collected into the ledger's."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from itertools import accumulate, islice
from typing import Annotated, Protocol, Self

from pydantic import Field, model_validator
from temporalio import activity

from activities.failures import as_application_errors
from activities.liveness import in_a_thread
from policies.model.value import Message, Name, Token, Value, digest_of

FIRST = digest_of(b"")
"""What the first line of a record names as the digest of the one before it."""

LONGEST_LINE = 4 * 1024
"""Bytes of a line of a host's record."""

LONGEST_PAGE = 64 * 1024
"""Bytes of all the lines of a page; they travel as text in JSON, which doubles them at most."""

MOST_LINES = 256
"""Lines of a page: the shortest that a host writes have 300 bytes."""

MOST_A_DAY = 2 * 1024 * 1024
"""Bytes of one host's lines that are collected in a day: nearly twice what a host writes whose every order is
refused for another reason. What is beyond stays on the host, and is collected on the next days.
"""

Line = Annotated[str, Field(pattern=r"^[ -~]*$", max_length=LONGEST_LINE)]
"""A line of a host's record, in ASCII."""


LineNumber = Annotated[int, Field(ge=0, lt=2**31)]
"""Which line of a host's record: the first is 1, and 0 is before it."""


class HostRecordPage(Message):
    """Lines of a host's record, the oldest first, and the key that signed them, in base64.

    `after` is the number of the line before the first of them, `recorded` how many lines the record has.
    """

    public_key: Token
    after: LineNumber
    recorded: LineNumber
    lines: tuple[Line, ...] = Field(max_length=MOST_LINES)

    @model_validator(mode="after")
    def _is_no_longer_than_a_page(self) -> Self:
        if sum(map(len, self.lines)) > LONGEST_PAGE:
            raise ValueError(f"the lines of a page have {LONGEST_PAGE} bytes at most")
        return self


def page_of(lines: Iterable[str]) -> tuple[str, ...]:
    """Return as many of these lines as a page holds, from the first on; no more are asked for."""
    held: list[str] = []
    room = LONGEST_PAGE
    for line in islice(lines, MOST_LINES):
        room -= len(line)
        if room < 0:
            break
        held.append(line)
    return tuple(held)


class CollectedPage(Value):
    """Lines that a gateway's host gave, and how many were in the ledger before it was asked."""

    fleet: Name
    gateway: Name
    asked: LineNumber
    page: HostRecordPage


class Collected(Value):
    """How much of a host's record is in the ledger, and by which key the next line must be signed."""

    number: int = Field(default=0, ge=0)
    digest: str = FIRST
    public_key: str = ""
    day: str = ""
    """The day, in UTC, on which something was last taken into the ledger."""
    taken: int = Field(default=0, ge=0)
    """Bytes that were taken on that day: lines, and what is wrong with them."""

    def room(self, day: str) -> int:
        """Return how many bytes may still be taken on that day."""
        return MOST_A_DAY - (self.taken if self.day == day else 0)

    def taking(self, day: str, size: int) -> Self:
        """Return the same once so many bytes more were taken on that day."""
        return self.model_copy(update={"day": day, "taken": MOST_A_DAY - self.room(day) + size})


def today() -> str:
    """Return the day by which it is counted how much of a host's record is taken."""
    return datetime.now(UTC).date().isoformat()


class FirstFault(Protocol):
    """Says what is wrong with lines of a host's record, None when they are whole."""

    def __call__(
        self, lines: Iterable[str], public_key: str, before: str | None = ..., number: int = ...
    ) -> str | None:
        """Compare the lines with the key, with each other and with the line that they follow."""
        ...


class HostRecord(Protocol):
    """The record on the host itself."""

    def page(self, after: int) -> HostRecordPage:
        """Return the lines after the one of that number that a page holds."""
        ...


class HostRecordBook(Protocol):
    """The part of the ledger that keeps what hosts have recorded."""

    def collected(self, fleet: str, gateways: Collection[str]) -> dict[str, Collected]:
        """Return how much of each host's record is here; those of which nothing is are left out."""
        ...

    def keep_host_lines(
        self, fleet: str, gateway: str, lines: Sequence[str], before: Collected, now: Collected
    ) -> None:
        """Write lines of a host into the audit record, each once, and how much there is now.

        Nothing is written when there is something else now than there was before.
        """
        ...

    def note_host_fault(
        self, fleet: str, gateway: str, fault: str, before: Collected, now: Collected
    ) -> Collected:
        """Write into the audit record, once, that a host's own record is not whole; return how much is here.

        Nothing is written when it was, or when there is something else now than there was before.
        """
        ...


class HostRecordActivities:
    """Reading the record, on the host."""

    def __init__(self, record: HostRecord) -> None:
        self._record = record

    @activity.defn(name="read_host_record")
    async def read_host_record(self, after: int) -> HostRecordPage:
        """Return the next lines after the one of that number; nothing is changed."""
        return await in_a_thread(self._record.page, after)


class CollectingActivities:
    """Taking hosts' records into the ledger."""

    def __init__(self, book: HostRecordBook, first_fault: FirstFault) -> None:
        """Take where lines are kept, and what says what is wrong with them."""
        self._book = book
        self._first_fault = first_fault

    @activity.defn(name="collect_host_record")
    async def collect_host_record(self, given: CollectedPage) -> None:
        """Ensure that these lines are in the audit record, once they were verified; a fault is, otherwise.

        The key that signed a host's first line is the one that has to sign all others.
        """
        with as_application_errors():
            await in_a_thread(self._collect, given)

    def _collect(self, given: CollectedPage) -> None:
        before = self._book.collected(given.fleet, [given.gateway]).get(given.gateway, Collected())
        day = today()
        if before.room(day) <= 0:
            return
        key = before.public_key or given.page.public_key
        page, begin = given.page, before.number
        digest: str | None = before.digest
        if page.after > begin:
            if page.after <= given.asked:
                return  # the host was set up anew meanwhile: the next look asks for its first line
            before = self._note(given, f"lines {begin + 1} to {page.after} are gone", before)
            begin, digest = page.after, None
        lines = page.lines[begin - page.after :]
        fault = _contradiction(given, before) or self._first_fault(lines, key, digest, begin)
        if fault is not None:
            self._note(given, fault, before)
            return
        held, now = _fitting(lines, before.room(day)), before
        if held:
            update = {"number": begin + len(held), "digest": _digest(held[-1]), "public_key": key}
            now = before.taking(day, sum(map(len, held))).model_copy(update=update)
            self._book.keep_host_lines(given.fleet, given.gateway, held, before, now)
        if len(held) < len(lines):
            why = f"{MOST_A_DAY} bytes of it were collected on {day}; later days take the rest"
            self._book.note_host_fault(given.fleet, given.gateway, why, now, now.taking(day, now.room(day)))

    def _note(self, given: CollectedPage, fault: str, before: Collected) -> Collected:
        """Write down what is wrong with a page; it takes the room of one: each may have another fault."""
        now = before.taking(today(), LONGEST_PAGE)
        return self._book.note_host_fault(given.fleet, given.gateway, fault, before, now)


def _fitting(lines: Sequence[str], room: int) -> Sequence[str]:
    """Return the first of these lines, as many as so many bytes hold."""
    sizes = accumulate(map(len, lines))
    return lines[: sum(size <= room for size in sizes)]


def _contradiction(given: CollectedPage, before: Collected) -> str | None:
    """Return what of a page is not as it was collected before, None when nothing is.

    Others may have collected the same lines, and more, since the host was asked.
    """
    page = given.page
    if page.recorded < given.asked:
        return f"it has {page.recorded} lines, and {given.asked} were collected"
    known = page.lines[: max(before.number - page.after, 0)]
    if known and page.after + len(known) == before.number and _digest(known[-1]) != before.digest:
        return f"line {before.number} is not the one that was collected"
    return None


def _digest(line: str) -> str:
    return digest_of(line.encode() + b"\n")
