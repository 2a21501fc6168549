"""A mirror: what is taken from users' logins, and how much of it is played to an instance without users.

Of a login that a user made it is known when it began, over which kind of address it came, and which kind
of client made it. Nothing here has a field for a name, an address, a password or a cookie.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.model.value import Duration, Message, Sentence, Value

FEWEST = 5
"""Logins beside each other without which nothing is known of an instance."""

MINUTE = 60.0
"""Seconds."""

RECORDED = timedelta(hours=1)
"""How far back users' logins are looked at."""

MOST_A_MINUTE = 120
MOST_RECORDED = 50_000
"""Logins of an hour that are looked at; of more, the newest."""

Family = Literal[4, 6]
"""The kind of address: IPv4 or IPv6."""

Rate = Annotated[int, Field(ge=1, le=MOST_A_MINUTE)]
"""Logins a minute."""


class ClientKind(StrEnum):
    """Which client made a login, as far as its daemon's log tells; what it says of itself is not kept."""

    OPENCONNECT = "openconnect"
    ANYCONNECT = "anyconnect"
    OTHER = "other"


class RecordedLogin(Value):
    """A login that a user made on this gateway."""

    at: float = Field(allow_inf_nan=False, description="when it began, in seconds of the epoch")
    family: Family = 4
    client: ClientKind = ClientKind.OTHER


class ShadowLogin(Value):
    """A login of the probe's user, made as users make theirs."""

    after: float = Field(ge=0, allow_inf_nan=False, description="seconds from the beginning of the mirror")
    family: Family = 4
    client: ClientKind = ClientKind.OTHER
    udp: bool = Field(default=True, description="with a tunnel over UDP beside that over TLS")


class Mirror(Message):
    """How much of a mirror a host is asked for: bounded, whoever asks."""

    seconds: int = Field(ge=1, le=600, description="for how long shadow logins begin")
    at_least: Rate
    at_most: Rate


class MirrorTest(Value):
    """The logins of a gateway's last hour, as shadow logins to its new instance before any user comes to it.

    They are made as the probe's user, each at the same moment to the instance that serves: what ails both is
    not the release's fault. Of users only the moments of their logins, the kind of their addresses, clients
    and tunnels are taken.
    """

    within: Duration = Field(
        default=timedelta(minutes=2),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=10),
        description="how long shadow logins are made on each gateway",
    )
    at_least: Rate = Field(default=5, description="shadow logins a minute, also where users made fewer")
    at_most: Rate = Field(default=60, description="shadow logins in any minute; more are thinned out evenly")
    refused: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="part of them that only the new instance may refuse",
    )
    seconds: float = Field(
        default=2.0,
        ge=1,
        le=100,
        allow_inf_nan=False,
        description="times as long as at the old instance half of them may take, at most",
    )

    @model_validator(mode="after")
    def _shows_something(self) -> Self:
        if self.at_most < self.at_least:
            raise ValueError(f"at_most is {self.at_most}, and at_least is {self.at_least}; swap them")
        if (made := self.at_least * self.within.total_seconds() / MINUTE) < FEWEST:
            raise ValueError(
                f"{self.at_least} logins a minute within {self.within} are {made:g}, and fewer than {FEWEST} "
                "show nothing; write a larger at_least, or a longer within"
            )
        return self

    @property
    def mirror(self) -> Mirror:
        """What the host is asked for."""
        seconds = round(self.within.total_seconds())
        return Mirror(seconds=seconds, at_least=self.at_least, at_most=self.at_most)


class Tried(Value):
    """How one shadow login to one instance ended."""

    let_in: bool
    seconds: float | None = Field(default=None, description="from its beginning to its tunnel")
    said: Sentence = ""


class Beside(Value):
    """One shadow login, to both instances at the same moment; None where it could not be made."""

    new: Tried | None
    old: Tried | None
