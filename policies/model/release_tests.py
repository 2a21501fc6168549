"""Release tests: what is asked of an instance that runs and is not yet exposed, and what was found.

A measurement is what the host saw; a finding is what a limit makes of it (`policies.exposure`).
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from policies.model.value import Duration, Message, Name, Sentence, Value

MOST_MEASUREMENTS = 32

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
"""A part of what the old instance does, which is 1."""


class Asked(StrEnum):
    """The questions, in the order in which they are asked."""

    FILES = "files"
    """Files mapped by the instance that its release did not sign."""
    CONFIG = "config"
    """Configurations that the daemon's own test refuses."""
    GARBAGE = "garbage"
    """Restarts and lost answers of the daemon after requests that are none."""
    PLAIN_HTTP = "plain-http"
    """Answers to a request without TLS on the port of the tunnels."""
    NULL_CIPHER = "null-cipher"
    """Handshakes completed by a client that offers nothing but ciphers without encryption."""
    WRONG_PASSWORD = "wrong-password"  # noqa: S105 - the name of a question
    """Sessions given to the probe's user with a wrong password."""
    LOGIN = "login"
    """Sessions given to the probe's user, over TLS with UDP beside it and over TLS alone."""
    PINGS_LOST = "pings-lost"
    """Part of the pings through those tunnels that were lost."""
    FULL_SIZE_LOST = "full-size-lost"
    """Part of the pings as large as the tunnel takes, there and back, that were lost."""
    CLEARTEXT = "cleartext"
    """Packets between client and daemon that carried what went through the tunnel as it is."""
    ROUTES = "routes"
    """Routes that were pushed and are not in the configuration, and the other way round."""
    LOAD_SESSIONS = "load-sessions"
    """Sessions of the load that the new instance did not give or did not hold."""
    THROUGHPUT = "throughput"
    """Megabits per second through all sessions of the load, as a part of the old instance's."""
    CPU = "cpu"
    """Processor time per megabit, as a multiple of the old instance's."""
    HANDSHAKES = "handshakes"
    """Full handshakes per second, as a part of the old instance's."""
    RESUMED = "resumed-handshakes"
    """Resumed handshakes per second, as a part of the old instance's."""


UNDER_LOAD = (Asked.LOAD_SESSIONS, Asked.THROUGHPUT, Asked.CPU, Asked.HANDSHAKES, Asked.RESUMED)
"""What only a load can tell."""


class Load(Message):
    """How much load, as a host is asked for it: bounded, whoever asks."""

    sessions: int = Field(ge=1, le=50)
    seconds: int = Field(ge=1, le=10, description="how long each round lasts")


class LoadTest(Value):
    """A load on one gateway, which changes before all others: on the new instance and on the old one.

    Its users feel it, so nobody else's gateway is ever loaded.
    """

    gateway: Name
    """Where the load is; its canary."""
    sessions: int = Field(default=10, ge=1, le=50, description="tunnels at once")
    within: Duration = Field(
        default=timedelta(seconds=3),
        ge=timedelta(seconds=1),
        le=timedelta(seconds=10),
        description="how long each of six rounds lasts, three on each instance in turn",
    )
    throughput: Share = Field(default=0.7, description="of the old instance's, at least")
    cpu: float = Field(
        default=1.5,
        ge=1,
        le=10,
        allow_inf_nan=False,
        description="times the old instance's per Mbit, at most",
    )
    handshakes: Share = Field(default=0.7, description="per second, of the old instance's, at least")
    resumed: Share = Field(default=0.4, description="the same of resumed ones, which vary more")

    @property
    def load(self) -> Load:
        """What the host is asked for."""
        return Load(sessions=self.sessions, seconds=round(self.within.total_seconds()))


class ReleaseTests(Value):
    """What each new instance has to pass before it gets a user; `tests` of fleet.yaml.

    A failed test sets the gateway aside, and of a canary the release with it. One that could not be
    made is neither: the gateway waits, says what to do, and is tried again.
    """

    skip: tuple[Asked, ...] = Field(default=(), description="tests that are not made, by name")
    pings_lost: float = Field(
        default=0.0, ge=0, lt=1, allow_inf_nan=False, description="part of a test's pings that may be lost"
    )
    patience: Duration = timedelta(hours=1)
    """How long a gateway waits for a test that cannot be made, before it is set aside untested."""
    load: LoadTest | None = Field(default=None, description="a load on one gateway; without it there is none")

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        """Refuse to wait for tests of which none is made: no finding is never a pass."""
        if {*self.skip} >= {*Asked} - {*UNDER_LOAD}:
            raise ValueError("tests.skip leaves no test without load: skip fewer, or leave `tests` out")
        if self.load is not None and {*self.skip} >= {*UNDER_LOAD}:
            raise ValueError("tests.skip leaves no test under load: skip fewer, or leave `tests.load` out")
        return self


class Measurement(Message):
    """What one test measured on a host; `measured` is None when it could not be made, and `said` why.

    `control` is what the old instance did in the same minute, where a test compares.
    """

    test: Name
    measured: float | None = Field(default=None, ge=0, le=1e9, allow_inf_nan=False)
    control: float | None = Field(default=None, ge=0, le=1e9, allow_inf_nan=False)
    said: Sentence


class Outcome(StrEnum):
    """What a test says of the instance."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Finding(Value):
    """One test: what was asked, what was measured, within which limit, and what follows."""

    test: str
    outcome: Outcome
    measured: float | None
    control: float | None = None
    limit: str
    said: str
