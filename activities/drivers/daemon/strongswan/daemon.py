"""strongSwan: its config template, its command line, and what charon says over vici.

Its ports are fixed (500 and 4500), so each instance has a network of its own (`Slot.address`). It has no
drain: new sessions are steered elsewhere, live ones stay. A peer that is told to go comes back by itself if
its own `close_action` says so, at once and from the same ports: its flows are forgotten between its goodbye
and its next login, which then begins at whatever instance the steering names. Config and credentials are read
at an instance's start only.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from ipaddress import (
    IPv4Network,
    IPv6Network,
    ip_address,
    summarize_address_range,
)
from pathlib import Path

import vici

from activities.drivers.daemon.control import Asked as AskedAt
from activities.drivers.daemon.control import refusal_of
from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.login import ProbeLogin, no_login, target_of
from activities.drivers.daemon.plain import PlainDaemon
from activities.drivers.daemon.port import (
    CONFIG,
    Answer,
    Dialled,
    Environment,
    LoginReader,
    Secret,
    Session,
    Users,
    Wandering,
)
from activities.drivers.daemon.strongswan.config_test import check_config
from activities.drivers.daemon.strongswan.control import (
    SOCKET,
    ask,
    connections,
    holder,
    security_associations,
    termination,
    time_to_list,
)
from activities.drivers.daemon.strongswan.log import LoginLog
from activities.drivers.daemon.strongswan.probe import probe
from activities.drivers.daemon.strongswan.pushed import pushed_in
from activities.drivers.daemon.strongswan.secrets import filled_whole
from activities.drivers.daemon.strongswan.sessions import (
    ESP_SPI,
    IKE_SPI,
    LOST,
    Peer,
    logging_in,
    name_of,
    peers_in,
)
from activities.drivers.daemon.strongswan.settings import options_of
from activities.drivers.daemon.strongswan.template import FILE, PRIVATE
from activities.drivers.daemon.template import FOLDER, require_given, secret_of, write_credentials
from activities.drivers.daemon.unread import Unread, Unreadable, unread_part
from activities.drivers.flows import Flow, flows_of, forget
from policies.model.client_profiles import NO_PROFILES, Profiles
from policies.model.errors import BadInput, Unavailable
from policies.model.fleet import IKE_PORT, UNMADE_TESTS, Gateway
from policies.model.instance import Probe
from policies.model.release_tests import Asked, Measurement, Names
from policies.model.settings import Setting
from policies.pushed import Pushed

NOBODY = Exempt()
PROGRAM = "/usr/lib/ipsec/charon"
WRAPPED_PORT = 4500
"""Where all packets come once a peer knows that an address is translated, as the steering does (RFC 7296)."""
AT_ONCE = 4
"""Peers that are told to go at the same time."""
_FOLDERS = ("x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", PRIVATE)
_FOLDERS_OF_KEYS = ("rsa", "ecdsa", "bliss", "pkcs8", "pkcs12")
"""Folders that swanctl looks into; it complains of each that is missing."""
_KEY_FILE = re.compile(r"secrets\.private[^.]*\.file")
_POOL = re.compile(r"pools\.[^.]+\.addrs")
_NAMES = re.compile(
    r"peer configs matching .*\.\.\.\S+?\[([^\]]+)\]|EAP identity '([^']+)'|to peer '([^']+)'|"
    r"by '([^']+)' went|of '([^']+)' with|public key found for '([^']+)'"
)
SESSIONS_TRIED = 2


class StrongSwan(PlainDaemon):
    """All this project knows about strongSwan 5.9.

    What an instance was given is loaded when it starts; users are known by certificates, which are looked at
    when they log in.
    """

    product = "strongswan"
    wandering = (Wandering(name=ESP_SPI, number="@th,64,32"), Wandering(name=IKE_SPI, number="@th,96,64"))
    """Where wrapped packets carry an SPI (RFC 3948): right behind UDP, or behind four zeroes."""
    probe_needs = ("certificate", "key")
    config_file = FILE
    own_files = ("/etc/strongswan.conf",)

    def __init__(self, login: ProbeLogin | None = None, exempt: Exempt = NOBODY) -> None:
        """Take the login the probe uses, without which it fails at auth, and who is exempt from deadlines."""
        self._login = login
        self._exempt = exempt
        self._probing = asyncio.Lock()
        self._unread = Unread("strongSwan")

    def dialled(self, gateway: Gateway) -> tuple[Dialled, ...]:
        """Return IKE's two ports; a login begins at the first, and all the rest comes to the second."""
        return Dialled("udp", gateway.port), Dialled("udp", WRAPPED_PORT)

    def render(
        self,
        environment: Environment,
        template: Path,
        credentials: Mapping[str, Secret],
        into: Path,
        settings: Sequence[Setting] = (),
    ) -> None:
        """Write strongswan.conf and the credentials it names, readable by root only."""
        if settings:
            raise BadInput(
                f"settings: {settings[0].key} is none that a fleet of strongSwan may have of its own"
            )
        config, wanted = filled_whole(environment, template, secret_of(credentials, template))
        require_given(wanted, credentials, template)
        write_credentials(wanted, credentials, into / FOLDER)
        for folder in (*_FOLDERS, *_FOLDERS_OF_KEYS):
            (into / folder).mkdir(mode=0o700)
        for option, value in options_of(config):
            if _KEY_FILE.fullmatch(option):
                (into / PRIVATE / Path(value).name).symlink_to(value)
        (into / FILE).touch(mode=0o600)
        (into / FILE).write_text(config)

    def pools(self, environment: Environment) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return the slot's pool where the instance's own config gives addresses of it; none where not."""
        try:
            said = list(options_of((environment.config / FILE).read_text()))
            given = [value.partition("-") for option, value in said if _POOL.fullmatch(option)]
            found = [
                summarize_address_range(ip_address(first.strip()), ip_address(last.strip() or first.strip()))
                for first, _, last in given
            ]
        except (OSError, ValueError, TypeError):
            return ()
        pool = environment.slot.pool4
        ours = [part for parts in found for part in parts if part.version == pool.version]
        return (pool,) if ours and all(part.subnet_of(pool) for part in ours) else tuple(ours)

    def pushed_in(self, text: str) -> Sequence[Pushed]:
        """Return the addresses and networks that users are sent by a configuration or a template."""
        return pushed_in(text)

    async def check(self, environment: Environment) -> None:
        """Start the release's own program where nobody is; its words are the reason when it refuses."""
        await check_config(environment, self.command())

    async def main_process(self, environment: Environment) -> int | None:
        """Return who made the control socket, numbered as seen from here."""
        return await ask(environment.run, holder)

    def command(self) -> list[str]:
        """Return how charon runs: in the foreground, its log on standard error, its config in our folder."""
        return ["/bin/sh", "-c", f"STRONGSWAN_CONF={CONFIG}/{FILE} exec {PROGRAM}"]

    async def ready(self, environment: Environment) -> bool:
        """Return whether charon has loaded a connection, by which it takes logins."""
        return bool(await ask(environment.run, connections))

    async def sessions(self, environment: Environment) -> tuple[Session, ...] | None:
        """Return the connected peers, None when charon does not say."""
        users = await self.users(environment)
        return None if users is None else users.sessions

    async def silence(self, environment: Environment) -> str:
        """Return why charon's control socket gives no answer, or what in the answer is not read."""
        return self.unread(environment) or await refusal_of(AskedAt(environment.run, SOCKET))

    def unread(self, environment: Environment) -> str:
        """Return what its last answer about its peers has that is not read."""
        return self._unread.of(environment.slot.name)

    async def users(self, environment: Environment) -> Users | None:
        """Return who is connected without the probe, and who asks to be; unknown is never nobody."""
        with self._unread.reading(environment.slot.name):
            return await ask(environment.run, self._users, time_to_list(environment.gateway))
        return None

    async def end(self, environment: Environment, sessions: tuple[Session, ...]) -> int:
        """Tell each peer to go, and have the kernel forget its flows to this instance.

        That of its login's beginning before it is told, all others right after that: the login that it makes
        then is sent where new ones go. Its answer is not waited for, nor is it told twice: who does not hear
        notices by itself that nobody answers any more. charon sends it a little later, which may begin a flow
        anew: the steering forgets that one with its next look.
        """
        if environment.slot.address is None:
            raise BadInput(f"slot {environment.slot.name} of {environment.gateway.name} has no address")
        flows = (await flows_of([environment.slot.address]))[environment.slot.address].sent
        turns = asyncio.Semaphore(AT_ONCE)

        async def end_one(session: Session) -> bool:
            async with turns:
                return await self._end_one(environment, session, flows)

        told = await asyncio.gather(*map(end_one, sessions))
        if sessions and not any(told):
            raise Unavailable(
                f"strongSwan in slot {environment.slot.name} of {environment.gateway.name} does not answer; "
                "nobody is known to have been told to go"
            )
        return sum(told)

    async def _end_one(self, environment: Environment, session: Session, flows: Sequence[Flow]) -> bool:
        source, port = session.source or (None, 0)
        own = [flow for flow in flows if flow.source == source]
        rest = [flow for flow in own if flow.port == WRAPPED_PORT and flow.source_port == port]
        forget(flow for flow in own if flow.port == IKE_PORT)
        return bool(await ask(environment.run, termination(session.id, partial(forget, rest))))

    def names_in(self, log: str) -> frozenset[str]:
        """Return every user's name that the log shows."""
        return frozenset(name_of(next(filter(None, found.groups()))) for found in _NAMES.finditer(log))

    def logins(self, ignored: frozenset[str], *, sees_processes: bool) -> LoginReader:
        """Return a reader of charon's log, which tells of every login's end by itself."""
        del sees_processes
        return LoginLog(ignored)

    async def answer(self, environment: Environment, within: timedelta) -> Answer:
        """Return whether charon takes logins: it shows a stranger no certificate."""
        return Answer(answers=bool(await ask(environment.run, connections, within)))

    def target(self, environment: Environment) -> str:
        """Return what the probe's login names, else the instance's own address of the pool."""
        return target_of(environment, self._login)

    async def probe(self, environment: Environment) -> Probe:
        """Log in as the probe's own user and ping the instance's address of the pool."""
        if self._login is None:
            return Probe(passed=False, stage="auth", reason=no_login(environment))
        async with self._probing:
            return await probe(environment, self._login)

    async def inspect(
        self, environment: Environment, names: Names | None = None, profiles: Profiles = NO_PROFILES
    ) -> tuple[Measurement, ...]:
        """Hold two sessions of the probe's user; the other tests are not made of strongSwan, and say so."""
        del names, profiles
        held = [await self.probe(environment) for _ in range(SESSIONS_TRIED)]
        let_in = sum(one.stage == "ping" for one in held)
        lost = max(one.pings_lost / one.pings_sent if one.pings_sent else 1.0 for one in held)
        unmade = [
            Measurement(test=test, said="this test is not made of strongSwan; write it under tests.skip")
            for test in UNMADE_TESTS[self.product]
        ]
        return (
            Measurement(test=Asked.LOGIN, measured=let_in, said=held[-1].reason),
            Measurement(test=Asked.PINGS_LOST, measured=lost, said=held[-1].reason),
            *unmade,
        )

    def _users(self, session: vici.Session) -> Users:
        """Return who is there, all in the question's own thread: of a large gateway it takes a second."""
        said = tuple(security_associations(session))
        try:
            peers, asking = peers_in(said), logging_in(said)
        except (KeyError, ValueError) as error:  # a KeyError of vici itself is no answer
            raise Unreadable(unread_part(error)) from None
        users = (peer for peer in peers if self._login is None or peer.name != self._login.user)
        return Users(tuple(map(self._session, users)), asking)

    def _session(self, peer: Peer) -> Session:
        return Session(
            id=peer.id,
            remote_address=str(peer.address),
            vpn_address=peer.vpn_address,
            since=peer.since,
            transport="udp",
            source=(peer.address, peer.port),
            numbers=peer.numbers,
            worked=peer.has_tunnel,
            exempt=self._exempt.spares(peer.name, "", LOST),
        )
