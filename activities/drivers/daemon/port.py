"""The port of a daemon: all that hosts, pods and steering need to know of a product."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from signal import Signals
from typing import NamedTuple, Protocol, runtime_checkable

from pydantic import Field

from policies.attempts import Attempt
from policies.attribution import Held
from policies.model.adoption import OwnLine
from policies.model.client_profiles import NO_PROFILES, Profiles
from policies.model.fleet import Gateway, Slot
from policies.model.instance import Probe
from policies.model.mirror import ShadowLogin
from policies.model.path import TriedTunnel
from policies.model.release_tests import Load, Measurement, Names
from policies.model.settings import Setting
from policies.model.value import Message
from policies.pushed import Pushed

CONFIG = Path("/etc/penstock")
"""Where an instance finds its config, whatever runs it."""
RUN = Path("/run/penstock")
"""Where an instance puts its sockets and pid files."""

Secret = Callable[[], str]
"""Reads a credential when it is used; BadInput when it leads nowhere, Unavailable when nobody answers.

As text it says where the credential comes from.
"""


class Dialled(NamedTuple):
    """Where users' first packets come: a port of the gateway's addresses, by tcp or udp."""

    transport: str
    port: int


class Session(Message):
    """One user's tunnel; the user's name stays on the gateway.

    A session that is not `connected` has lost its connection: the daemon still takes its user without a
    login. It has no address in the tunnel. One that never `worked` is the rest of a login that failed:
    no address is pinned for it, and no drain waits for it.
    """

    id: str
    remote_address: str
    vpn_address: str
    since: datetime
    transport: str
    source: tuple[IPv4Address | IPv6Address, int] | None = None
    """Address and port from which its packets come, where a flow has to be forgotten when it ends."""
    numbers: tuple[tuple[str, int], ...] = ()
    """What its packets carry wherever they come from: the name of a `Wandering`, and the number."""
    exempt: bool = Field(default=False, description="only a person may end it")
    connected: bool = True
    worked: bool = Field(default=True, description="False if its login failed, or its tunnel at once")


@dataclass(frozen=True)
class Users:
    """Who is at an instance at one moment."""

    sessions: tuple[Session, ...]
    logging_in: frozenset[IPv4Address | IPv6Address] = frozenset()
    """From where it is being asked to let somebody in."""


class UserFile(NamedTuple):
    """A file, or a folder of files, that a configuration names for some of its users, and in which line."""

    number: int
    key: str
    path: str


@dataclass(frozen=True)
class OwnConfig:
    """What the configuration of a daemon that nobody prepared says of all that must not be shared."""

    port: int
    device: str
    pool4: IPv4Network
    pool6: IPv6Network | None
    control: str | None
    """The socket by which it is asked, None where it is the one that its program has by itself."""
    answers: bool
    """Whether it may be asked for its sessions at all."""
    left_behind: tuple[OwnLine, ...]
    user: str = ""
    """As whom it runs once it has begun, where its main process is not root's."""
    user_files: tuple[UserFile, ...] = ()
    """What it names for some of its users, whose files come with the first release."""
    more_pools: tuple[IPv4Network | IPv6Network, ...] = ()
    """Pools of some of its users that stand in the configuration itself."""


@dataclass(frozen=True)
class OwnWords:
    """What a product's own configuration calls that for which an adoption asks."""

    address: str = "listen-host"
    """What makes it listen on one address alone."""
    control: str = "use-occtl = true"
    """The line by which its sessions can be counted."""
    drops_root: bool = False
    """Whether its main process runs as the user whom its configuration names."""
    beside_config: frozenset[str] | None = None
    """Options that its command line may have beside its configuration; None where it counts by itself."""


@dataclass(frozen=True)
class Burden:
    """What an instance did under a load; `cpu_seconds` is None where nobody could say."""

    sessions: int
    """Those that were there at the beginning and at the end."""
    megabits: float
    """Through all tunnels, both ways."""
    seconds: float
    """For how long."""
    cpu_seconds: float | None
    handshakes: float
    """Full ones per second."""
    resumed: float
    """Resumed ones per second."""


@dataclass(frozen=True)
class Wandering:
    """How a packet of a live session is told from a login by what is in it, in nftables' words.

    A daemon of this kind finds a client whose address has changed by the session's number. The kernel takes
    its next packet for a new connection, which has to be sent to the instance that has the session.
    """

    name: str
    """What the number is, as the daemon's protocol calls it."""
    number: str
    """Where in the packet the number is."""
    of_a_session: str = ""
    """What matches a packet that has one, where others have something else there."""


@dataclass(frozen=True)
class Answer:
    """What an instance's own port says to somebody who does not log in."""

    answers: bool
    certificate: bytes | None = None
    """What it shows, in DER; None where the product shows none to strangers."""


class LoginReader(Protocol):
    """A daemon's log, understood."""

    version: str

    def read(self, line: str, at: float, *, timed: bool = True) -> Iterator[Attempt]:
        """Take in one line and yield the attempts that are certain now."""
        ...

    def give_up(self, at: float) -> Iterator[Attempt]:
        """Yield the attempts that time made certain, once every line so far was read."""
        ...


class Environment(Protocol):
    """Where one instance lives and how programs are run there: a chroot of a host, a container, a pod."""

    @property
    def gateway(self) -> Gateway:
        """The gateway whose users it serves."""
        ...

    @property
    def slot(self) -> Slot:
        """The instance's own ports, device and address pools."""
        ...

    @property
    def config(self) -> Path:
        """The folder on the host that the instance sees as CONFIG."""
        ...

    @property
    def run(self) -> Path:
        """The folder on the host that the instance sees as RUN."""
        ...

    @property
    def control(self) -> str | None:
        """The socket by which the instance is asked, as programs there name it; None for its own default."""
        ...

    @property
    def own_networks(self) -> bool:
        """Whether clients may have network namespaces of their own there."""
        ...

    def inside(self, *command: str) -> list[str]:
        """Return the command line that runs this command among the release's own files."""
        ...

    def beside(self, *command: str) -> list[str]:
        """Return the command line that runs this command next to the running instance, cheaply."""
        ...


@runtime_checkable
class OwnEnvironment(Environment, Protocol):
    """Where a daemon lives that somebody else started, with a configuration and files of its own."""

    @property
    def file(self) -> str:
        """Its configuration, as it was named to it."""
        ...

    @property
    def program(self) -> str:
        """What it was started from, as programs there name it, also when another one was installed since."""
        ...

    def seen(self, path: str) -> Path:
        """Return where we find a file that the daemon knows by this path."""
        ...

    def tell(self, wish: Signals) -> None:
        """Send its main process the signal; Unavailable when it has ended."""
        ...


class Daemon(Protocol):
    """What one product needs, says and can do; between calls it keeps the past of sessions at most."""

    @property
    def product(self) -> str:
        """The product's name, as manifests spell it."""
        ...

    def dialled(self, gateway: Gateway) -> tuple[Dialled, ...]:
        """Return where users' first packets come; the first one is the port that the gateway is known by."""
        ...

    @property
    def wandering(self) -> tuple[Wandering, ...]:
        """How clients are found whose address changes; none where packets do not say whose they are."""
        ...

    @property
    def mid_session(self) -> str:
        """What matches, in nftables' words, a UDP packet that only a live session sends.

        A client that hears that such a packet was refused connects again at once. Empty where none does.
        """
        ...

    @property
    def probe_needs(self) -> tuple[str, ...]:
        """What the probe has to be given under `probe` of the agent's file, beside its user, to log in."""
        ...

    @property
    def probe_instead(self) -> tuple[str, ...]:
        """What it may be given in place of that, one of them; none where there is no other way in."""
        ...

    @property
    def config_file(self) -> str:
        """The name of an instance's configuration in its folder for that."""
        ...

    @property
    def own_files(self) -> tuple[str, ...]:
        """Where its configuration is when nobody says otherwise, the likeliest first."""
        ...

    @property
    def own_words(self) -> OwnWords:
        """What an adoption calls things by."""
        ...

    def read_own(self, text: str) -> OwnConfig:
        """Return what a configuration says that somebody wrote for it; BadInput names the line."""
        ...

    def addresses_in(self, text: str) -> Sequence[str]:
        """Return what a file for some users says of addresses, which no release may have, with its line."""
        ...

    def networks_in(self, text: str) -> Sequence[IPv4Network | IPv6Network]:
        """Return of which networks a file for some users gives them addresses, as far as it can be read."""
        ...

    async def main_process(self, environment: Environment) -> int | None:
        """Return the number of the process that answers there, as it says itself; None for no answer."""
        ...

    def render(
        self,
        environment: Environment,
        template: Path,
        credentials: Mapping[str, Secret],
        into: Path,
        settings: Sequence[Setting] = (),
    ) -> None:
        """Write the instance's config, made of the release's template and the gateway's settings, to `into`.

        Raises:
            BadInput: when the template or a credential it names is missing.
            Unavailable: when the store of a credential does not answer.
        """
        ...

    def reconfigure(
        self, environment: Environment, template: Path, settings: Sequence[Setting], into: Path
    ) -> None:
        """Write the running instance's config to the folder `into`, with these settings and its credentials.

        Raises:
            BadInput: when a setting is none that a fleet may have, or has a value that does not fit.
            Refused: when only a new instance would take what differs.
        """
        ...

    def pools(self, environment: Environment) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return the addresses that the instance gives to its users, by its own config; none if unknown."""
        ...

    def pushed_in(self, text: str) -> Sequence[Pushed]:
        """Return the addresses and networks that users are sent by a configuration or a template."""
        ...

    def renew(
        self, environment: Environment, credentials: Mapping[str, Secret], into: Path, *, older: bool
    ) -> None:
        """Write the running instance's config to the folder `into`, with the credentials of now.

        Raises:
            BadInput: when one of them cannot be used, does not fit another one, or is older than the one
                that the instance has, unless `older` says that this is meant.
            Unavailable: when the store of a credential does not answer.
        """
        ...

    async def reload(self, environment: Environment) -> None:
        """Have the running instance take what is in its config's folder now; sessions stay.

        Raises:
            Unavailable: when it does not do so in time, as new connections see it.
        """
        ...

    async def check(self, environment: Environment) -> None:
        """Let the release's own program test the config; Refused with its words when it says no."""
        ...

    async def check_own(self, environment: OwnEnvironment) -> None:
        """Look at what a daemon that somebody else started would read again; nothing of it is written.

        Raises:
            BadInput: when a file of its own cannot be used.
            Refused: when its own program refuses them, or they say other than what was adopted.
            Unavailable: when it has ended.
        """
        ...

    async def reload_own(self, environment: OwnEnvironment) -> None:
        """Have a daemon that somebody else started read its own files again; sessions stay.

        Raises:
            Unavailable: when it does not do so in time, as new connections see it.
        """
        ...

    def command(self) -> list[str]:
        """Return the command line, inside the root, that runs the instance in the foreground."""
        ...

    async def ready(self, environment: Environment) -> bool:
        """Return whether the instance takes logins now."""
        ...

    async def count(self, environment: Environment) -> int | None:
        """Return how many sessions live on the running instance, None when it does not say."""
        ...

    async def sessions(self, environment: Environment) -> tuple[Session, ...] | None:
        """Return the sessions of the running instance, None when it does not say."""
        ...

    async def silence(self, environment: Environment) -> str:
        """Return in one line why the running instance does not report its sessions."""
        ...

    def unread(self, environment: Environment) -> str:
        """Return what the instance answered last about its sessions in a form that is not read.

        Such an instance is alive. The text is empty if it gave no answer, or one that is read.
        """
        ...

    async def users(self, environment: Environment) -> Users | None:
        """Return who is there, of one look at the instance; None when it does not say.

        It is asked where instances have networks of their own; elsewhere nobody is known to log in.
        """
        ...

    async def end(self, environment: Environment, sessions: tuple[Session, ...]) -> int:
        """End these sessions; return how many were told to go."""
        ...

    async def sessions_of_removed(self, environment: Environment) -> tuple[Session, ...]:
        """Return the connected sessions of users whom the instance's own list does not name any more.

        There are none where users are known by something else than a list.

        Raises:
            Unavailable: The instance does not say who is there, or its list cannot be read.
        """
        ...

    def names_in(self, log: str) -> frozenset[str]:
        """Return every user's name that the instance's log shows."""
        ...

    def logins(self, ignored: frozenset[str], *, sees_processes: bool) -> LoginReader:
        """Return a reader of one instance's log, without logins from these sources."""
        ...

    async def answer(self, environment: Environment, within: timedelta) -> Answer:
        """Return whether the instance answers a stranger in time, cheaply enough to be asked all the time."""
        ...

    def target(self, environment: Environment) -> str:
        """Return what probes ping through the tunnel."""
        ...

    async def try_tunnel(self, environment: Environment, names: Sequence[str]) -> TriedTunnel:
        """Hold one session of the probe's user, ping, and ask the DNS servers that it is given for the names.

        Raises:
            BadInput: the probe's login cannot be read.
            Unavailable: the client could not be made ready here.
        """
        ...

    async def probe(self, environment: Environment) -> Probe:
        """Log in and ping through the instance's own port."""
        ...

    async def inspect(
        self, environment: Environment, names: Names | None = None, profiles: Profiles = NO_PROFILES
    ) -> tuple[Measurement, ...]:
        """Make the functional release tests through the instance's own port; who is in it stays in it.

        A test that cannot be made says why, which speaks neither for the instance nor against it.
        """
        ...

    async def load(self, environment: Environment, load: Load, cpu: Callable[[], float | None]) -> Burden:
        """Carry a load through the instance's own port; `cpu` says what it has used so far.

        Raises:
            BadInput: the probe's login cannot be read, or there is none.
            Unavailable: the clients could not be made ready here.
        """
        ...


@runtime_checkable
class Mirrors(Protocol):
    """A product whose users' logins can be mirrored: many sessions of the probe's user at the same time."""

    async def shadow(self, environment: Environment, how: ShadowLogin) -> Probe:
        """Log in as the probe's user, in this way, ping, and log out, whoever else is logging in.

        Raises:
            BadInput: the probe's login cannot be read, or there is none.
            Unavailable: the client could not be made ready here.
        """
        ...


@runtime_checkable
class Attributes(Protocol):
    """A product whose log tells which user's packets came from where, for as long as they did."""

    def held_in(self, slot: str, lines: Iterable[str]) -> Iterator[Held]:
        """Yield the sessions that the slot's log tells of, each for as long as it came from one place."""
        ...
