"""OpenVPN: its config template, its command line, and what its management socket says.

Facts in `research/gateways.md` section 6. It has no drain: new sessions are steered elsewhere, live ones
stay. A client that is told to restart comes back by itself after a second or two, with a full handshake, to
whatever instance its packets are sent to by then; one that sends from the same port needs its old UDP flow
forgotten for that. Certificates are read at its start only.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import NoReturn

from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.login import ProbeLogin, target_of
from activities.drivers.daemon.openvpn.config_test import FILE, PROGRAM, check_config
from activities.drivers.daemon.openvpn.log import LoginLog
from activities.drivers.daemon.openvpn.management import ask
from activities.drivers.daemon.openvpn.probe import probe
from activities.drivers.daemon.openvpn.sessions import ClientRow, clients_in
from activities.drivers.daemon.openvpn.template import options_of
from activities.drivers.daemon.port import (
    CONFIG,
    Answer,
    Burden,
    Dialled,
    Environment,
    LoginReader,
    OwnConfig,
    OwnEnvironment,
    Secret,
    Session,
)
from activities.drivers.daemon.template import FOLDER, filled, require_given, write_credentials
from activities.drivers.flows import forget_flows
from policies.model.errors import BadInput, Refused, Unavailable
from policies.model.fleet import Gateway
from policies.model.instance import Probe
from policies.model.path import TriedTunnel
from policies.model.release_tests import Asked, Load, Measurement, Names
from policies.model.settings import Setting

NOBODY = Exempt()
RESTART_SENT = timedelta(milliseconds=300)
"""Until a client that was told to restart has heard it; it waits a second before it comes back."""
_NAMES = re.compile(r"CN=([^,/\s]+)|\[([^\]\s]+)\] Peer Connection|(?:^| )([^/\s]+)/[0-9a-fA-F.:\[\]]+:\d+ ")
_UNMADE = (
    Asked.PLAIN_HTTP,
    Asked.NULL_CIPHER,
    Asked.WRONG_PASSWORD,
    Asked.FULL_SIZE_LOST,
    Asked.CLEARTEXT,
    Asked.ROUTES,
)
SESSIONS_TRIED = 2


class OpenVpn:
    """All this project knows about OpenVPN 2.4 to 2.6."""

    product = "openvpn"
    own_files = ("/etc/openvpn/server/server.conf", "/etc/openvpn/server.conf")

    def __init__(self, login: ProbeLogin | None = None, exempt: Exempt = NOBODY) -> None:
        """Take the login the probe uses, without which it fails at auth, and who is exempt from deadlines."""
        self._login = login
        self._exempt = exempt
        self._probing = asyncio.Lock()

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
        """Write openvpn.conf and the credentials it names, readable by root only."""
        if settings:
            raise BadInput(f"settings: {settings[0].key} is none that a fleet of OpenVPN may have of its own")
        config, wanted = filled(environment, template)
        require_given(wanted, credentials, template)
        write_credentials(wanted, credentials, into / FOLDER)
        (into / FILE).write_text(config)

    def reconfigure(
        self, environment: Environment, template: Path, settings: Sequence[Setting], into: Path
    ) -> None:
        """Refuse: OpenVPN reads its options only when it starts."""
        del template, settings, into
        _only_a_new_instance(environment, "settings")

    def pools(self, environment: Environment) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return the pools of the instance's openvpn.conf; none where it cannot be read."""
        try:
            said = dict(options_of((environment.config / FILE).read_text()))
            pools = [said["server"].split()] if "server" in said else []
            found = [ip_network("/".join(pool[:2])) for pool in pools]
            return (*found, *([ip_network(said["server-ipv6"])] if "server-ipv6" in said else []))
        except (OSError, ValueError):
            return ()

    def renew(
        self, environment: Environment, credentials: Mapping[str, Secret], into: Path, *, older: bool
    ) -> None:
        """Refuse: OpenVPN reads certificate and key only when it starts."""
        del credentials, into, older
        _only_a_new_instance(environment, "credentials")

    async def reload(self, environment: Environment) -> None:
        """Refuse: told to reload, OpenVPN ends every session."""
        _only_a_new_instance(environment, "files")

    async def check(self, environment: Environment) -> None:
        """Start the release's own program where nobody is; its last words are the reason when it refuses."""
        await check_config(environment)

    async def check_own(self, environment: OwnEnvironment) -> None:
        """Refuse: nobody's own OpenVPN is taken over."""
        _is_not_adopted(environment)

    async def reload_own(self, environment: OwnEnvironment) -> None:
        """Refuse: nobody's own OpenVPN is taken over."""
        _is_not_adopted(environment)

    def read_own(self, text: str) -> OwnConfig:
        """Refuse: nobody's own OpenVPN is taken over."""
        del text
        raise BadInput("an OpenVPN that serves already cannot be adopted; upgrade to a first release instead")

    async def main_process(self, environment: Environment) -> int | None:
        """Return what the daemon says its process is, numbered as in its own namespace."""
        said = await ask(environment.run, "pid")
        found = re.fullmatch(r"SUCCESS: pid=(\d+)", said[0][0]) if said and said[0] else None
        return int(found[1]) if found else None

    def command(self) -> list[str]:
        """Return how OpenVPN runs: in the foreground, its log on standard output."""
        return [PROGRAM, "--config", f"{CONFIG}/{FILE}"]

    async def ready(self, environment: Environment) -> bool:
        """Return whether the daemon says that it serves."""
        said = await ask(environment.run, "state")
        return bool(said and any(line.split(",")[1:2] == ["CONNECTED"] for line in said[0]))

    async def count(self, environment: Environment) -> int | None:
        """Return how many clients are connected, None when the daemon does not say."""
        rows = await self._rows(environment)
        return None if rows is None else len(rows)

    async def sessions(self, environment: Environment) -> tuple[Session, ...] | None:
        """Return the connected clients, None when the daemon does not say."""
        rows = await self._rows(environment)
        return None if rows is None else tuple(map(self._session, rows))

    async def logging_in(self, environment: Environment) -> frozenset[IPv4Address | IPv6Address]:
        """Return none: an instance has its own port of the host."""
        del environment
        return frozenset()

    async def end(self, environment: Environment, sessions: tuple[Session, ...]) -> int:
        """Tell each client to restart, and have the kernel forget its flow to this instance."""
        said = await ask(environment.run, *(f"client-kill {session.id}" for session in sessions))
        if said is None:
            raise Unavailable(
                f"OpenVPN in slot {environment.slot.name} of {environment.gateway.name} does not answer; "
                "nobody is known to have been told to go"
            )
        ended = [
            session
            for session, words in zip(sessions, said, strict=True)
            if words and words[0].startswith("SUCCESS")
        ]
        await asyncio.sleep(RESTART_SENT.total_seconds())
        for session in ended:
            if session.source is not None:
                await forget_flows(environment.slot.port, *session.source)
        return len(ended)

    async def sessions_of_removed(self, environment: Environment) -> tuple[Session, ...]:
        """Return none: users are known by certificates, and `crl-verify` is read at each login."""
        del environment
        return ()

    def names_in(self, log: str) -> frozenset[str]:
        """Return every user's name that the log shows."""
        return frozenset(
            name for found in _NAMES.finditer(log) if (name := found[1] or found[2] or found[3] or "")
        )

    def logins(self, ignored: frozenset[str], *, sees_processes: bool) -> LoginReader:
        """Return a reader of OpenVPN's log, which tells of every client's end by itself."""
        del sees_processes
        return LoginLog(ignored)

    async def answer(self, environment: Environment, within: timedelta) -> Answer:
        """Return whether the daemon says that it serves: its port shows strangers nothing."""
        said = await ask(environment.run, "state", within=within)
        return Answer(answers=bool(said and "CONNECTED" in "".join(said[0])))

    def target(self, environment: Environment) -> str:
        """Return what the probe's login names, else the gateway's own end of the tunnel."""
        return target_of(environment, self._login)

    async def try_tunnel(self, environment: Environment, names: Sequence[str]) -> TriedTunnel:
        """Hold a session of the probe's user; names are not asked for."""
        del names
        slot = environment.slot.name
        found = await self.probe(environment)
        pings = (found.pings_sent, found.pings_sent - found.pings_lost)
        let_in = found.stage in ("tunnel", "ping")
        return TriedTunnel(slot=slot, let_in=let_in, small=pings, words=found.reason)

    async def probe(self, environment: Environment) -> Probe:
        """Log in as the probe's own user and ping the gateway's end of the tunnel."""
        if self._login is None:
            return Probe(passed=False, stage="auth", reason=_no_login(environment))
        async with self._probing:
            return await probe(environment, self._login, self._transport(environment))

    async def inspect(self, environment: Environment, names: Names | None = None) -> tuple[Measurement, ...]:
        """Hold two sessions of the probe's user; the other tests are not made of OpenVPN yet, and say so."""
        del names
        held = [await self.probe(environment) for _ in range(SESSIONS_TRIED)]
        let_in = sum(one.stage == "ping" for one in held)
        lost = max(one.pings_lost / one.pings_sent if one.pings_sent else 1.0 for one in held)
        unmade = [Measurement(test=test, said="this test is not made of OpenVPN") for test in _UNMADE]
        return (
            Measurement(test=Asked.LOGIN, measured=let_in, said=held[-1].reason),
            Measurement(test=Asked.PINGS_LOST, measured=lost, said=held[-1].reason),
            *unmade,
        )

    async def load(self, environment: Environment, load: Load, cpu: Callable[[], float | None]) -> Burden:
        """Refuse: no load is made of OpenVPN yet."""
        del load, cpu
        raise Unavailable(f"no load is made of OpenVPN on {environment.gateway.name}; leave tests.load out")

    async def _rows(self, environment: Environment) -> tuple[ClientRow, ...] | None:
        """Return whom the daemon has let in, without the probe; unknown is never nobody."""
        said = await ask(environment.run, "status 3")
        if said is None:
            return None
        try:
            return tuple(
                row for row in clients_in(said[0]) if self._login is None or row.name != self._login.user
            )
        except (ValueError, KeyError):
            return None

    def _session(self, row: ClientRow) -> Session:
        return Session(
            id=row.id,
            remote_address=str(row.address),
            vpn_address=row.vpn_address,
            since=row.since,
            transport="udp",
            source=(row.address, row.port),
            exempt=self._exempt.spares(row.name, ""),
        )

    def _transport(self, environment: Environment) -> str:
        """Return how clients come to the instance, by its own config; UDP unless it says otherwise."""
        try:
            said = dict(options_of((environment.config / FILE).read_text()))
        except OSError:
            return "udp"
        return "tcp" if said.get("proto", "udp").startswith("tcp") else "udp"


def _no_login(environment: Environment) -> str:
    return f"{environment.gateway.name} was given no probe login; add one to its credentials"


def _only_a_new_instance(environment: Environment, what: str) -> NoReturn:
    raise Refused(
        f"OpenVPN in slot {environment.slot.name} of {environment.gateway.name} takes new {what} only when "
        "it is started anew: bring them with an upgrade"
    )


def _is_not_adopted(environment: Environment) -> NoReturn:
    raise Refused(f"an OpenVPN that serves {environment.gateway.name} by itself cannot be adopted")
