"""A host's own record of what it refused and what was done on it by hand, collected into the ledger's."""

from collections.abc import Collection, Iterable
from itertools import accumulate
from typing import Annotated, Protocol, Self

from pydantic import Field, model_validator
from temporalio import activity

from activities.failures import as_application_errors
from activities.liveness import answering, in_a_thread
from policies.model.value import Message, Name, Token, Value, digest_of

FIRST = digest_of(b"")
"""What the first line of a record names as the digest of the one before it."""

LONGEST_LINE = 4 * 1024
"""Bytes of a line of a host's record."""

LONGEST_PAGE = 64 * 1024
"""Bytes of all the lines of a page; they travel as text in JSON, which doubles them at most."""

MOST_LINES = 256
"""Lines of a page: the shortest that a host writes have 300 bytes."""

Line = Annotated[str, Field(pattern=r"^[ -~]*$", max_length=LONGEST_LINE)]
"""A line of a host's record, in ASCII."""


class HostRecordPage(Message):
    """Lines of a host's record, the oldest first, and the key that signed them, in base64."""

    public_key: Token
    lines: tuple[Line, ...] = Field(max_length=MOST_LINES)

    @model_validator(mode="after")
    def _is_no_longer_than_a_page(self) -> Self:
        if sum(map(len, self.lines)) > LONGEST_PAGE:
            raise ValueError(f"the lines of a page have {LONGEST_PAGE} bytes at most")
        return self


def page_of(lines: Iterable[str]) -> tuple[str, ...]:
    """Return as many of these lines as a page holds, from the first on."""
    sizes = accumulate(map(len, lines := tuple(lines)))
    return tuple(line for line, size in zip(lines, sizes, strict=True) if size <= LONGEST_PAGE)[:MOST_LINES]


class CollectedPage(Value):
    """Lines that a gateway's host gave, after those that are in the ledger already."""

    fleet: Name
    gateway: Name
    page: HostRecordPage


class Collected(Value):
    """How much of a host's record is in the ledger, and by which key the next line must be signed."""

    number: int = Field(default=0, ge=0)
    digest: str = FIRST
    public_key: str = ""


class FirstFault(Protocol):
    """Says what is wrong with lines of a host's record, None when they are whole."""

    def __call__(
        self, lines: Iterable[str], public_key: str, before: str = ..., number: int = ...
    ) -> str | None:
        """Compare the lines with the key, with each other and with the line that they follow."""
        ...


class HostRecord(Protocol):
    """The record on the host itself."""

    @property
    def public_key(self) -> str:
        """The key that the lines verify against, 32 bytes in base64."""
        ...

    def after(self, number: int) -> tuple[str, ...]:
        """Return the lines after the one of that number that a page holds, the oldest first."""
        ...


class HostRecordBook(Protocol):
    """The part of the ledger that keeps what hosts have recorded."""

    def collected(self, fleet: str, gateways: Collection[str]) -> dict[str, Collected]:
        """Return how much of each host's record is here; those of which nothing is are left out."""
        ...

    def keep_host_lines(self, fleet: str, gateway: str, lines: tuple[str, ...], now: Collected) -> None:
        """Write lines of a host into the audit record, each once, and how much there is now."""
        ...

    def note_host_fault(self, fleet: str, gateway: str, fault: str) -> None:
        """Write into the audit record, once, that a host's own record is not whole."""
        ...


class HostRecordActivities:
    """Reading the record, on the host."""

    def __init__(self, record: HostRecord) -> None:
        self._record = record

    @activity.defn(name="read_host_record")
    async def read_host_record(self, after: int) -> HostRecordPage:
        """Return the next lines after the one of that number; nothing is changed."""
        async with answering():
            lines = self._record.after(after)
            return HostRecordPage(public_key=self._record.public_key, lines=lines)


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
        key = before.public_key or given.page.public_key
        lines = given.page.lines
        fault = self._first_fault(lines, key, before.digest, before.number)
        if fault is not None:
            self._book.note_host_fault(given.fleet, given.gateway, fault)
        elif lines:
            digest = digest_of(lines[-1].encode() + b"\n")
            now = Collected(number=before.number + len(lines), digest=digest, public_key=key)
            self._book.keep_host_lines(given.fleet, given.gateway, lines, now)
