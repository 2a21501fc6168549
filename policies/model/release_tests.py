"""Release tests: what is asked of an instance that runs and is not yet exposed, and what was found.

A measurement is what the host saw; a finding is what a limit makes of it (`policies.exposure`).
"""

from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from policies.model.client_profiles import ClientProfiles
from policies.model.mirror import MirrorTest
from policies.model.value import Duration, Message, Name, Sentence, Value

RELEASE_TESTED = "release tested"
"""The entry of the audit record that has what the tests of one instance found."""

MOST_MEASUREMENTS = 32

MOST_NAMES = 16
"""Names of one kind, and addresses of one name: all are asked for within one session."""

LOAD_ROUNDS = 6
"""Rounds of a load: three on each instance, in turn, so that what else the host does meets both."""

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
"""A part of what the old instance does, which is 1."""


DnsName = Annotated[str, Field(pattern=r"^(?:[a-z0-9_-]{1,63}\.)+[a-z0-9-]{1,63}$", max_length=253)]
"""A whole name as DNS has it, in small letters and without a dot at its end; others as `xn--`."""

NameAddresses = Annotated[tuple[IPv4Address | IPv6Address, ...], Field(max_length=MOST_NAMES)]


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
    """Sessions given to the probe's user with a wrong password, or a certificate that nobody has signed."""
    LOGIN = "login"
    """Sessions given to the probe's user: of ocserv with UDP beside TLS and over TLS alone, else twice."""
    PINGS_LOST = "pings-lost"
    """Part of the pings through those tunnels that were lost."""
    FULL_SIZE_LOST = "full-size-lost"
    """Part of the pings as large as the tunnel takes, there and back, that were lost."""
    CLEARTEXT = "cleartext"
    """Packets between client and daemon that carried what went through the tunnel as it is."""
    ROUTES = "routes"
    """Routes that were pushed and are not in the configuration, and the other way round."""
    NAMES_INSIDE = "names-inside"
    """Names that clients do not ask inside the tunnel, or that its DNS servers do not answer as wanted."""
    NAMES_OUTSIDE = "names-outside"
    """Names that clients send into the tunnel, and that were to stay outside."""
    PROFILES = "profiles"
    """Client profiles whose login is refused, or whose tunnel carries nothing."""
    MIRROR_REFUSED = "mirror-refused"
    """Part of the shadow logins of a mirror that the new instance alone refused."""
    MIRROR_SECONDS = "mirror-seconds"
    """Seconds within which half of them had their tunnels, as a multiple of the old instance's."""
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


class Method(StrEnum):
    """How tests are made, one method after the other."""

    TRIED = "tried"
    """One session after the other."""
    MIRRORED = "mirrored"
    """As users log in, beside the instance that serves."""
    LOADED = "loaded"
    """As many sessions at once as the file says."""


OF_MIRROR = (Asked.MIRROR_REFUSED, Asked.MIRROR_SECONDS)
"""What only a mirror can tell."""

UNDER_LOAD = (Asked.LOAD_SESSIONS, Asked.THROUGHPUT, Asked.CPU, Asked.HANDSHAKES, Asked.RESUMED)
"""What only a load can tell."""


OF_NAMES = (Asked.NAMES_INSIDE, Asked.NAMES_OUTSIDE)
"""What is asked for only where the file has names."""


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


class Names(Message):
    """Names that clients resolve, as a host is asked for them: bounded, whoever asks."""

    inside: dict[DnsName, NameAddresses] = Field(
        default={},
        max_length=MOST_NAMES,
        description="answered through the tunnel by every DNS server that is pushed and answers, with these "
        "addresses and no other; with any where the list is empty",
    )
    outside: tuple[DnsName, ...] = Field(
        default=(),
        max_length=MOST_NAMES,
        description="never sent into the tunnel: `split-dns` is pushed and does not cover them",
    )


class NameTests(Names):
    """What a client of the new instance resolves inside of its tunnel, and what stays outside (split DNS).

    Its settings are taken as clients that obey them take them: with `tunnel-all-dns`, or DNS servers and no
    `split-dns`, every name goes into the tunnel; without DNS servers none does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="after")
    def _says_one_thing_of_each(self) -> Self:
        if not self.inside and not self.outside:
            raise ValueError("it has no name; write some below inside or outside, or leave `tests.names` out")
        if both := sorted({*self.inside} & {*self.outside}):
            raise ValueError(f"{both[0]} cannot be both inside and outside; take it out of one of them")
        return self


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
    names: NameTests | None = Field(
        default=None,
        exclude_if=lambda names: names is None,  # plans made before there were any keep their digests
        description="names inside and outside of the tunnel; without them none is asked for",
    )
    profiles: ClientProfiles = Field(
        default={},
        exclude_if=lambda profiles: not profiles,
        description="how users' clients of OpenVPN are set up that have to go on working, by name",
    )
    mirror: MirrorTest | None = Field(
        default=None,
        exclude_if=lambda mirror: mirror is None,  # plans made before there were any keep their digests
        description="users' last logins as shadow logins, on each gateway; without it there are none",
    )
    load: LoadTest | None = Field(default=None, description="a load on one gateway; without it there is none")

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        """Refuse to wait for tests of which none is made: no finding is never a pass."""
        if not self.asked(Method.TRIED):
            raise ValueError(
                "tests.skip leaves no test without load or mirror: skip fewer, or leave `tests` out"
            )
        if self.mirror is not None and not self.asked(Method.MIRRORED):
            raise ValueError("tests.skip leaves no test of a mirror: skip fewer, or leave `tests.mirror` out")
        if self.load is not None and not self.asked(Method.LOADED):
            raise ValueError("tests.skip leaves no test under load: skip fewer, or leave `tests.load` out")
        return self

    def asked(self, method: Method) -> tuple[Asked, ...]:
        """Return the tests that are made by this method, in their order."""
        left_out = {*self.skip} | ({*OF_NAMES} - {*self._named})
        left_out |= set() if self.profiles else {Asked.PROFILES}
        return tuple(test for test in Asked if _method_of(test) is method and test not in left_out)

    @property
    def _named(self) -> tuple[Asked, ...]:
        """The tests of names for which the file has any."""
        if self.names is None:
            return ()
        kinds = zip(OF_NAMES, (self.names.inside, self.names.outside), strict=True)
        return tuple(test for test, names in kinds if names)


def _method_of(test: Asked) -> Method:
    if test in OF_MIRROR:
        return Method.MIRRORED
    return Method.LOADED if test in UNDER_LOAD else Method.TRIED


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
