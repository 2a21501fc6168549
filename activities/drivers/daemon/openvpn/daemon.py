"""OpenVPN: its config template, its command line, and what its management socket says.

It has no drain (decision 0041): new sessions are steered elsewhere, live ones stay. A client that is told
to restart comes back by itself after a second or two, with a full handshake, to whatever instance its
packets are sent to by then; one that sends from the same port needs its old UDP flow forgotten for that.
Certificates are read at its start only, lists of revoked ones at each login.
"""

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from activities.drivers.daemon.control import Asked, refusal_of
from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.login import ProbeLogin, no_login, target_of
from activities.drivers.daemon.openvpn.config_test import FILE, PROGRAM, check_config
from activities.drivers.daemon.openvpn.credentials import have_read, require_fit, revoked_in
from activities.drivers.daemon.openvpn.flows import held_in
from activities.drivers.daemon.openvpn.inspection import MADE, inspect
from activities.drivers.daemon.openvpn.log import LoginLog
from activities.drivers.daemon.openvpn.management import SOCKET, ask
from activities.drivers.daemon.openvpn.own_config import pools_of, read_own_config, transport_of
from activities.drivers.daemon.openvpn.prefix import END, NAMED, SHOWN_NAME, STAMP
from activities.drivers.daemon.openvpn.probe import probe
from activities.drivers.daemon.openvpn.pushed import pushed_in
from activities.drivers.daemon.openvpn.sessions import ClientRow, clients_in
from activities.drivers.daemon.openvpn.user_files import addresses_in, networks_in
from activities.drivers.daemon.plain import PlainDaemon
from activities.drivers.daemon.port import (
    CONFIG,
    Dialled,
    Environment,
    LoginReader,
    OwnConfig,
    OwnEnvironment,
    OwnWords,
    Secret,
    Session,
    Wandering,
)
from activities.drivers.daemon.revoked import Given
from activities.drivers.daemon.template import FOLDER, filled, require_given, secret_of, write_credentials
from activities.drivers.daemon.unread import Unread
from activities.drivers.flows import Flow, flows_to_port, forget, forget_flows
from policies.attribution import Held
from policies.model.client_profiles import NO_PROFILES, Profiles
from policies.model.errors import BadInput, Unavailable
from policies.model.fleet import Gateway, Slot
from policies.model.instance import Probe
from policies.model.release_tests import Measurement, Names
from policies.model.settings import Setting
from policies.pushed import Pushed

NOBODY = Exempt()
PEER_ID = "peer_id"
AT_ONCE = 50
"""Clients that are told to restart in one go, which takes the daemon some milliseconds."""
V6 = 6
OF_UNITS = frozenset(
    """
    daemon status status-version suppress-timestamps machine-readable-output cd writepid log log-append syslog
    verb mute script-security nice user group
    """.split()  # noqa: SIM905 - words, not a table
)
"""What units of distributions have on the command line; whatever else is there would be lost."""
USUAL_CLIENTS = 1024
"""What OpenVPN takes for `max-clients` where it is left out, also for a larger pool."""
RESTART_SENT = timedelta(milliseconds=300)
"""Until a client that was told to restart has heard it; it waits a second before it comes back."""
_JOURNAL = r"(?:\S+ \S+ [^\s\[]+\[\d+\]: )"
"""What `journalctl` writes before each line of one that was adopted."""
_NAMES = re.compile(
    rf"^{_JOURNAL}?+{STAMP}?+{NAMED}|\b{SHOWN_NAME}"
    rf"|(?<=\d )(?!{END} )\[(?P<peer>[^\n]+)\] Peer Connection"
    r"|for username '(?P<typed>[^\n]+)'",
    re.MULTILINE,
)


class OpenVpn(PlainDaemon):
    """All this project knows about OpenVPN 2.4 to 2.7.

    SIGHUP and SIGUSR1 end every session. Users are known by certificates; `crl-verify` is read at each login.
    """

    product = "openvpn"
    wandering = (Wandering(name=PEER_ID, of_a_session="@th,64,5 9", number="@th,72,24"),)
    """P_DATA_V2 and its peer-id: five bits and three bytes of what follows the UDP header."""
    probe_needs = ("certificate", "key")
    probe_instead = ("password",)
    config_file = FILE
    own_files = ("/etc/openvpn/server/server.conf", "/etc/openvpn/server.conf")
    own_words = OwnWords(
        address="local",
        control="management /run/openvpn-server/management.sock unix",
        drops_root=True,
        beside_config=OF_UNITS,
    )

    def __init__(self, login: ProbeLogin | None = None, exempt: Exempt = NOBODY) -> None:
        """Take the login the probe uses, without which it fails at auth, and who is exempt from deadlines."""
        self._login = login
        self._exempt = exempt
        self._probing = asyncio.Lock()
        self._unread = Unread("OpenVPN")

    def dialled(self, gateway: Gateway) -> tuple[Dialled, ...]:
        """Return the port, by UDP and TCP: which of them serves is the template's to say."""
        return (Dialled("udp", gateway.port), Dialled("tcp", gateway.port))

    def render(
        self,
        environment: Environment,
        template: Path,
        credentials: Mapping[str, Secret],
        into: Path,
        settings: Sequence[Setting] = (),
    ) -> None:
        """Write openvpn.conf and the credentials it names; lists of revoked ones may be read by all."""
        if settings:
            raise BadInput(f"settings: {settings[0].key} is none that a fleet of OpenVPN may have of its own")
        config, wanted = filled(environment, template, secret_of(credentials, template))
        require_given(wanted, credentials, template)
        write_credentials(wanted, credentials, into / FOLDER)
        _write_config(into, f"{config}max-clients {_most_clients(environment.slot)}\n")

    def renew(
        self, environment: Environment, credentials: Mapping[str, Secret], into: Path, *, older: bool
    ) -> None:
        """Write the instance's own openvpn.conf again, and its lists of revoked certificates as they are now.

        Refused where another one of its credentials has changed, which it would not read.
        """
        config, there = (environment.config / FILE).read_text(), environment.config / FOLDER
        names = sorted(path.name for path in there.iterdir())
        require_given(names, credentials, environment.config / FILE)
        write_credentials(names, credentials, into / FOLDER)
        revoked = revoked_in(config)
        others = [
            name
            for name in names
            if name not in revoked and (into / FOLDER / name).read_bytes() != (there / name).read_bytes()
        ]
        if others:
            self._only_a_new_instance(environment, f"credentials ({', '.join(others)})")
        given = {
            name: Given(
                f"credential {name} ({credentials[name]})", into / FOLDER / name, (there / name).read_text()
            )
            for name in names
        }
        require_fit(config, given, datetime.now(UTC), older=older)
        _write_config(into, config)

    async def reload(self, environment: Environment) -> None:
        """Have OpenVPN read its lists of revoked certificates at the next login; no word is said to it."""
        have_read(environment.config, revoked_in((environment.config / FILE).read_text()))

    def pools(self, environment: Environment) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return the pools of the instance's openvpn.conf; none where it cannot be read."""
        try:
            return pools_of((environment.config / FILE).read_text())
        except (OSError, BadInput):
            return ()

    def pushed_in(self, text: str) -> Sequence[Pushed]:
        """Return the addresses and networks that users are sent by a configuration or a template."""
        return pushed_in(text)

    async def check(self, environment: Environment) -> None:
        """Start the release's own program where nobody is; its last words are the reason when it refuses."""
        await check_config(environment)

    async def main_process(self, environment: Environment) -> int | None:
        """Return what the daemon says its process is, numbered as in its own namespace."""
        said = await ask(_asked(environment), "pid")
        found = re.fullmatch(r"SUCCESS: pid=(\d+)", said[0][0]) if said and said[0] else None
        return int(found[1]) if found else None

    def command(self) -> list[str]:
        """Return how OpenVPN runs: in the foreground, its log on standard output."""
        return [PROGRAM, "--config", f"{CONFIG}/{FILE}"]

    async def ready(self, environment: Environment) -> bool:
        """Return whether the daemon says that it serves."""
        said = await ask(_asked(environment), "state")
        return bool(said and any(line.split(",")[1:2] == ["CONNECTED"] for line in said[0]))

    async def sessions(self, environment: Environment) -> tuple[Session, ...] | None:
        """Return the connected clients, None when the daemon does not say."""
        rows = await self._rows(environment)
        if rows is None:
            return None
        transport = self._transport(environment)
        return tuple(self._session(row, transport) for row in rows)

    async def silence(self, environment: Environment) -> str:
        """Return why its management interface gives no answer, or what in the answer is not read."""
        return self.unread(environment) or await refusal_of(_asked(environment))

    def unread(self, environment: Environment) -> str:
        """Return what its last answer about its sessions has that is not read."""
        return self._unread.of(environment.slot.name)

    async def end(self, environment: Environment, sessions: tuple[Session, ...]) -> int:
        """Tell each client to restart, and have the kernel forget its flow to this instance.

        Some at a time: a flow stays until its client has heard it, and is gone when it comes back.
        """
        udp = [one.source for one in sessions if one.source is not None and one.transport == "udp"]
        flows = await flows_to_port(environment.slot.port) if udp else ()
        ended, forgetting = list[Session](), list[asyncio.Task[None]]()
        for first in range(0, len(sessions), AT_ONCE):
            some = sessions[first : first + AT_ONCE]
            said = await ask(_asked(environment), *(f"client-kill {session.id}" for session in some))
            if said is None:
                break
            told = [
                session
                for session, words in zip(some, said, strict=True)
                if words and words[0].startswith("SUCCESS")
            ]
            ended += told
            forgetting.append(asyncio.create_task(self._forget(environment, told, flows)))
        await asyncio.gather(*forgetting)
        if sessions and not forgetting:
            raise Unavailable(
                f"OpenVPN in slot {environment.slot.name} of {environment.gateway.name} does not answer; "
                "nobody is known to have been told to go"
            )
        return len(ended)

    async def _forget(self, environment: Environment, told: Sequence[Session], flows: Sequence[Flow]) -> None:
        await asyncio.sleep(RESTART_SENT.total_seconds())
        sources = {session.source for session in told if session.transport == "udp"}
        forget(flow for flow in flows if (flow.source, flow.source_port) in sources)
        for source in sources:
            if source is not None and source[0].version == V6:  # which are not listed
                await forget_flows(environment.slot.port, *source)

    def names_in(self, log: str) -> frozenset[str]:
        """Return every user's name that the log shows."""
        return frozenset(
            found[what]
            for found in _NAMES.finditer(log)
            for what in ("user", "name", "peer", "typed")
            if found[what]
        )

    def read_own(self, text: str) -> OwnConfig:
        """Return what somebody's own configuration says."""
        return read_own_config(text)

    def addresses_in(self, text: str) -> Sequence[str]:
        """Return what a file for one user says of addresses, each with its line and what to do."""
        return addresses_in(text)

    def networks_in(self, text: str) -> Sequence[IPv4Network | IPv6Network]:
        """Return the addresses that a file for one user gives, as far as it can be read."""
        return networks_in(text)

    async def check_own(self, environment: OwnEnvironment) -> None:
        """Refuse: certificate, key and options are read at its start only."""
        self._only_a_new_instance(environment, "files")

    async def reload_own(self, environment: OwnEnvironment) -> None:
        """Refuse: told to reload, it would end every session."""
        self._only_a_new_instance(environment, "files")

    def held_in(self, slot: str, lines: Iterable[str]) -> Iterator[Held]:
        """Yield whose packets came from where, as the slot's log tells."""
        return held_in(slot, lines)

    def logins(self, ignored: frozenset[str], *, sees_processes: bool) -> LoginReader:
        """Return a reader of OpenVPN's log, which tells of every client's end by itself."""
        del sees_processes
        return LoginLog(ignored)

    def target(self, environment: Environment) -> str:
        """Return what the probe's login names, else the gateway's own end of the tunnel."""
        return target_of(environment, self._login)

    async def probe(self, environment: Environment) -> Probe:
        """Log in as the probe's own user and ping the gateway's end of the tunnel."""
        if self._login is None:
            return Probe(passed=False, stage="auth", reason=no_login(environment))
        async with self._probing:
            return await probe(environment, self._login, self._transport(environment))

    async def inspect(
        self, environment: Environment, names: Names | None = None, profiles: Profiles = NO_PROFILES
    ) -> tuple[Measurement, ...]:
        """Make the functional tests; without a probe's login none of them is made, and each says so.

        A fleet of OpenVPN has no names that are asked for.
        """
        del names
        if self._login is None:
            return tuple(Measurement(test=test, said=no_login(environment)) for test in MADE)
        async with self._probing:
            return await inspect(
                environment,
                self._login,
                self._transport(environment),
                partial(self.main_process, environment),
                profiles,
            )

    async def _rows(self, environment: Environment) -> tuple[ClientRow, ...] | None:
        """Return whom the daemon has let in, without the probe; unknown is never nobody."""
        with self._unread.reading(environment.slot.name):
            if (said := await ask(_asked(environment), "status 3")) is not None:
                rows = clients_in(said[0])
                return tuple(row for row in rows if self._login is None or row.name != self._login.user)
        return None

    def _session(self, row: ClientRow, transport: str) -> Session:
        return Session(
            id=row.id,
            remote_address=str(row.address),
            vpn_address=row.vpn_address,
            since=row.since,
            transport=transport,
            source=(row.address, row.port),
            numbers=() if row.number is None else ((PEER_ID, row.number),),
            exempt=self._exempt.spares(row.name, ""),
        )

    def _transport(self, environment: Environment) -> str:
        """Return how clients come to the instance, by its own config; UDP unless it says otherwise."""
        path = environment.config / FILE
        if isinstance(environment, OwnEnvironment):
            path = environment.seen(environment.file)
        try:
            return transport_of(path.read_text(errors="replace"))
        except (OSError, BadInput):
            return "udp"


def _most_clients(slot: Slot) -> int:
    """Return how many clients there may be: all that have an address, and as many that only knock."""
    return max(USUAL_CLIENTS, 2 * slot.pool4.num_addresses)


def _write_config(into: Path, config: str) -> None:
    """Write it for root alone, in a folder through which others may have to go to a list."""
    (into / FILE).touch(mode=0o600)
    (into / FILE).write_text(config)
    have_read(into, revoked_in(config))


def _asked(environment: Environment) -> Asked:
    """Return where the instance is asked; one that somebody else started where its configuration says."""
    if not isinstance(environment, OwnEnvironment):
        return Asked(environment.run, SOCKET)
    control = environment.control or ""
    host, _, port = control.partition(":")
    if host == "127.0.0.1":
        return Asked(environment.run, "", int(port))
    there = environment.seen(control)
    return Asked(there.parent, there.name)
