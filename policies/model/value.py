"""What all values share: frozen, closed to unknown fields, named by digests."""

import hashlib
import json
import re
import zlib
from base64 import b85decode, b85encode
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    WrapSerializer,
)

T = TypeVar("T")

DIGEST = r"^sha256:[0-9a-f]{64}$"
"""How a digest is written."""

Digest = Annotated[str, Field(pattern=DIGEST)]
"""`sha256:` and 64 lower-case hex digits; the only identity the code compares."""

NAME = r"^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$"
"""How a name is written."""

Name = Annotated[str, Field(pattern=NAME, max_length=63)]
"""A name that is safe in files, workflow ids and labels."""

_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ms|s|m|h|d)")
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _read_duration(value: Any) -> Any:
    """Read `15s`, `10m`, `1h`; leave everything else to pydantic, but a number without a unit."""
    if isinstance(value, int | float):
        raise ValueError(f"{value} has no unit; write {value}s, {value}m or {value}h")  # noqa: TRY004 - a field's
    written = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if written is None:
        return value
    try:
        return timedelta(**{_UNITS[written[2]]: float(written[1])})
    except OverflowError as error:
        raise ValueError(f"{value} is longer than anything can take") from error


Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    WithJsonSchema({"type": "string", "examples": ["500ms", "15s", "10m", "8h", "7d", "PT8H"]}),
]
"""A length of time, written `500ms`, `15s`, `10m`, `8h` or `7d` in files."""


def sentence(said: str, most: int = 500) -> str:
    """Return what somebody else said as one line of at most so many printable characters."""
    if said.isprintable() and "  " not in said and said == said.strip() and len(said) <= most:
        return said  # a space is the only one that can be printed; of large fleets these are millions
    printable = " ".join("".join(one if one.isprintable() else " " for one in said).split())
    return printable if len(printable) <= most else f"{printable[: most - 1]}…"


Sentence = Annotated[str, AfterValidator(sentence)]
"""What somebody else said, made a printable line of bounded length."""

Token = Annotated[str, Field(max_length=128)]
"""What somebody else calls a boot or a process; it is compared and never read."""

Count = Annotated[int, Field(ge=0, le=10_000_000)]
"""How many sessions, addresses or pings a gateway counts: none has more, and arithmetic holds up to there."""

Moment = Annotated[
    AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC))
]
"""When something was, by somebody else's clock; it can be compared with every other time."""

Elapsed = Annotated[timedelta, Field(ge=timedelta(0), le=timedelta(days=36_500))]
"""How long something has lasted, by somebody else's clock; it can be compared and added up."""


def _packed(value: Any, dump: SerializerFunctionWrapHandler) -> str:
    text = json.dumps(dump(value), separators=(",", ":"))
    return b85encode(zlib.compress(text.encode(), 9)).decode()


def _unpacked(value: Any) -> Any:
    return json.loads(zlib.decompress(b85decode(value))) if isinstance(value, str) else value


Packed = Annotated[T, BeforeValidator(_unpacked), WrapSerializer(_packed, when_used="json")]
"""What grows with a fleet and has to be in one message: names and reasons that resemble each other.

The engine warns of a message of 256 KiB and refuses one of 2 MiB. Of ten thousand gateways, each with a
reason of its own, this is a tenth.
"""


@cache
def _fields_of(kind: type[BaseModel]) -> set[str]:
    return set(kind.model_fields)


class Value(BaseModel):
    """A value of the vocabulary: immutable, equal by content, refusing fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_post_init(self, _: Any, /) -> None:
        """Let all values of a kind share the set of given fields, which is half the size of a small one.

        Nothing asks which fields were given and which have their default.
        """
        object.__setattr__(self, "__pydantic_fields_set__", _fields_of(type(self)))

    @classmethod
    def of_valid(cls, **fields: Any) -> Self:
        """Return a value of all its fields, each taken from a value that was validated with it.

        It is `model_construct` without what looks for aliases and defaults, five times as fast: a plan of
        10,000 gateways has 20,000 such values.
        """
        made = cls.__new__(cls)
        object.__setattr__(made, "__dict__", fields)
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        made.model_post_init(None)
        return made

    def __copy__(self) -> Self:
        """Return a copy without what was computed from the fields: `model_copy` may replace those."""
        copied = super().__copy__()
        for computed in [name for name in copied.__dict__ if name not in type(self).model_fields]:
            del copied.__dict__[computed]
        return copied


class Message(Value):
    """A value that travels between an orchestrator and agents of other versions: unknown fields are ignored.

    A field that is added later has a default, so that those who do not know it yet are understood.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


def twice(values: Iterable[T]) -> T | None:
    """Return the first value that comes more than once, None when none does."""
    return next((value for value, times in Counter(values).items() if times > 1), None)


def digest_of(content: bytes) -> str:
    """Return the digest of these bytes in the one form that is compared."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
