"""ocserv: its config template, its command lines, and what occtl says.

Ids of `show users` are worker pids; a disconnected
openconnect ends for good. A session whose connection broke leaves `show users` at once and stays
among the `valid` sessions until its user said goodbye or `cookie-timeout` is over; its cookie is good
at this instance only. A login that was refused before its cookie is `valid` as well, and not open; one that
was refused after it (its group's file, its tunnel) is open like a session whose connection broke: `Tunnels`
tells them apart. `show sessions` has commas too many before 1.5.0.
"""

import asyncio
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.filled_secrets import without_filled_secrets
from activities.drivers.daemon.login import ProbeLogin, no_login, target_of
from activities.drivers.daemon.ocserv import own_files, served
from activities.drivers.daemon.ocserv.burden import burden
from activities.drivers.daemon.ocserv.config_test import reasons_in
from activities.drivers.daemon.ocserv.credentials import names_listed, require_fit
from activities.drivers.daemon.ocserv.fronted import behind_what_steers
from activities.drivers.daemon.ocserv.inspection import MADE, inspect
from activities.drivers.daemon.ocserv.log import LoginLog, nobody_knows, process_age, process_runs
from activities.drivers.daemon.ocserv.log_level import LEAST, with_log_level
from activities.drivers.daemon.ocserv.own_config import pools_of, read_own_config
from activities.drivers.daemon.ocserv.printed import LOST, readings
from activities.drivers.daemon.ocserv.probe import probe, shadow
from activities.drivers.daemon.ocserv.pushed import pushed_in
from activities.drivers.daemon.ocserv.session import hold_session
from activities.drivers.daemon.ocserv.settings import beyond_a_reload, require_settings, with_settings
from activities.drivers.daemon.ocserv.tunnels import Tunnels
from activities.drivers.daemon.ocserv.user_files import addresses_in, networks_in
from activities.drivers.daemon.port import (
    CONFIG,
    Answer,
    Burden,
    Dialled,
    Environment,
    LoginReader,
    OwnConfig,
    OwnEnvironment,
    OwnWords,
    Secret,
    Session,
    Users,
)
from activities.drivers.daemon.revoked import Given
from activities.drivers.daemon.template import (
    FOLDER,
    filled,
    require_given,
    secret_in,
    secret_of,
    write_credentials,
)
from activities.drivers.daemon.unread import Unread, Unreadable
from activities.drivers.handshake import certificate_shown
from activities.drivers.programs import run
from policies.model.client_profiles import NO_PROFILES, Profiles
from policies.model.errors import BadInput, PenstockError, Refused, Unavailable
from policies.model.fleet import Gateway
from policies.model.instance import Probe
from policies.model.mirror import ShadowLogin
from policies.model.path import MOST, TriedTunnel
from policies.model.release_tests import Load, Measurement, Names
from policies.model.settings import Setting
from policies.pushed import Pushed

NOT_YET = ("pre-auth", "authenticating", "auth failed")
"""States of `show users` in which a connection is not yet, or never, a session."""
NOBODY = Exempt()
ANSWER = timedelta(seconds=2)
TEST = timedelta(seconds=10)
AHEAD = timedelta(seconds=2)
IN_UTC = {"TZ": "UTC0"}
"""1.1.6 prints no time but the local one, which is that of the host where a daemon was adopted."""
_NAMES = re.compile(r"(?:main|worker)\[([^\]]+)\]:|(?:user|for|username) ['\"]([^'\"]+)['\"]")
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")


class Ocserv:
    """All this project knows about ocserv 1.1.6 to 1.5.0."""

    product = "ocserv"
    wandering = ()
    mid_session = "@th,64,8 23"
    """A DTLS record of application data (RFC 6347, 4.1); whoever begins sends a handshake."""
    probe_needs = ("password",)
    probe_instead = ()
    config_file = "ocserv.conf"
    own_files = ("/etc/ocserv/ocserv.conf", "/etc/ocserv.conf")
    own_words = OwnWords()

    def __init__(self, login: ProbeLogin | None = None, exempt: Exempt = NOBODY) -> None:
        """Take the login the probe uses, without which it fails at auth, and who is exempt from deadlines."""
        self._login = login
        self._exempt = exempt
        self._probing = asyncio.Lock()
        self._tunnels = Tunnels()
        self._unread = Unread("ocserv")

    def dialled(self, gateway: Gateway) -> tuple[Dialled, ...]:
        """Return the port, by TCP; UDP goes to each instance's own."""
        return (Dialled("tcp", gateway.port),)

    def render(
        self,
        environment: Environment,
        template: Path,
        credentials: Mapping[str, Secret],
        into: Path,
        settings: Sequence[Setting] = (),
    ) -> None:
        """Write ocserv.conf and the credentials it names, readable by root only.

        Settings were looked at when the host got them: nothing here may keep a known-good from starting.
        """
        self._tunnels.begin(environment.slot.name)
        config, wanted = filled(environment, template, secret_of(credentials, template))
        require_given(wanted, credentials, template)
        write_credentials(wanted, credentials, into / FOLDER)
        _write_config(into, _completed(config, environment, settings))

    def reconfigure(
        self, environment: Environment, template: Path, settings: Sequence[Setting], into: Path
    ) -> None:
        """Write ocserv.conf with these settings, and the credentials that the instance has already.

        What else differs, such as a port in the agent's file, is no reload's to change.
        """
        require_settings(settings)
        before = (environment.config / "ocserv.conf").read_text()
        config, _ = filled(environment, template, secret_in(environment.config / FOLDER))
        after = _completed(config, environment, settings)
        if beyond := beyond_a_reload(before, after):
            raise Refused(
                f"{', '.join(beyond)} of slot {environment.slot.name} of {environment.gateway.name} would "
                "change, which only a new instance takes: bring it with an upgrade"
            )
        shutil.copytree(environment.config / FOLDER, into / FOLDER)
        _write_config(into, after)

    def pools(self, environment: Environment) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return the pools of the instance's ocserv.conf; none where it cannot be read."""
        try:
            return pools_of((environment.config / "ocserv.conf").read_text())
        except (OSError, BadInput):
            return ()

    def pushed_in(self, text: str) -> Sequence[Pushed]:
        """Return the addresses and networks that users are sent by a configuration or a template."""
        return pushed_in(text)

    def renew(
        self, environment: Environment, credentials: Mapping[str, Secret], into: Path, *, older: bool
    ) -> None:
        """Write the instance's own ocserv.conf again, and the credentials that it has, as they are now.

        A list of revoked certificates that cannot be read ends ocserv when it is told to reload, and a key
        of another certificate ends every login: both are refused here.
        """
        config, there = (environment.config / "ocserv.conf").read_text(), environment.config / FOLDER
        names = sorted(path.name for path in there.iterdir())
        missing = [name for name in names if name not in credentials]
        if missing:
            raise BadInput(
                f"slot {environment.slot.name} of {environment.gateway.name} uses credential {missing[0]}, "
                "which the agent's file does not name any more; name it under credentials"
            )
        write_credentials(names, credentials, into / FOLDER)
        given = {}
        for name in names:
            where, before = f"credential {name} ({credentials[name]})", (there / name).read_text()
            given[name] = Given(where, into / FOLDER / name, before)
        changed = [name for name in names if (into / FOLDER / name).read_text() != given[name].before]
        if inside := [name for name in changed if f"{CONFIG}/{FOLDER}/{name}" not in config]:
            raise Refused(
                f"credential {inside[0]} stands in the configuration of slot {environment.slot.name} of "
                f"{environment.gateway.name} itself, and has changed: bring it with an upgrade"
            )
        require_fit(config, given, datetime.now(UTC), self._login.user if self._login else None, older=older)
        _write_config(into, config)

    async def reload(self, environment: Environment) -> None:
        """Have ocserv read its certificate, key, authorities and revoked certificates again.

        The list of users is read at each login anyway. A file of the second in which it was last read is
        not read again, and a certificate without its key ends every login: so all files get a time to come.
        """
        to_come = time.time() + AHEAD.total_seconds()
        for path in (environment.config / FOLDER).iterdir():
            os.utime(path, (to_come, to_come))
        config = (environment.config / "ocserv.conf").read_text()
        result = await run(self._occtl(environment, "reload"), within=ANSWER)
        if result.status:
            raise Unavailable(
                f"ocserv in slot {environment.slot.name} of {environment.gateway.name} does not take the "
                f"order to reload: {without_filled_secrets(result.last_words, environment.config)}"
            )
        await served.until_served(environment, config)

    async def check(self, environment: Environment) -> None:
        """Run `ocserv -t` of the release's own root; its errors are the reason when it refuses."""
        result = await run(
            environment.inside("/usr/sbin/ocserv", "-t", "-c", f"{CONFIG}/ocserv.conf"), within=TEST
        )
        if result.status:
            why = without_filled_secrets(reasons_in(result), environment.config)
            raise Refused(
                f"ocserv's own test refuses the config of slot {environment.slot.name} on "
                f"{environment.gateway.name}: {why or 'it prints no reason'}"
            )

    async def check_own(self, environment: OwnEnvironment) -> None:
        """Look at the daemon's own configuration and files, as its own `ocserv -t` does, too."""
        await own_files.require_fit(environment)

    async def reload_own(self, environment: OwnEnvironment) -> None:
        """Have the daemon read its own files again by SIGHUP, and still answer after that."""
        await own_files.reload(environment)
        if await self.main_process(environment) is None:
            raise Unavailable(
                f"the daemon that was adopted on {environment.gateway.name} was told to reload and does not "
                "answer any more; look at its log"
            )

    def read_own(self, text: str) -> OwnConfig:
        """Return what somebody's own ocserv.conf says."""
        return read_own_config(text)

    def addresses_in(self, text: str) -> Sequence[str]:
        """Return what a file for users or groups says of addresses, each with its line and what to do."""
        return addresses_in(text)

    def networks_in(self, text: str) -> Sequence[IPv4Network | IPv6Network]:
        """Return of which networks a file for users or groups gives addresses, as far as it can be read."""
        return networks_in(text)

    async def main_process(self, environment: Environment) -> int | None:
        """Return what occtl calls "Server PID": the process, numbered as in its own namespace."""
        status = await self._ask(environment, "show", "status")
        found = status.get("Server PID") if isinstance(status, dict) else None
        return found if isinstance(found, int) else None

    def command(self) -> list[str]:
        """Return how ocserv runs: in the foreground, logging enough for `log.py` to standard error."""
        return ["/usr/sbin/ocserv", "-f", "-d", str(LEAST), "-c", f"{CONFIG}/ocserv.conf"]

    async def ready(self, environment: Environment) -> bool:
        """Return whether occtl gets an answer; ocserv listens before it answers."""
        return await self._ask(environment, "show", "status") is not None

    async def count(self, environment: Environment) -> int | None:
        """Return how many users are logged in, None when occtl does not answer.

        The "Active sessions" of `show status` also counts connections that never logged in.
        """
        sessions = await self.sessions(environment)
        return None if sessions is None else sum(session.connected for session in sessions)

    async def sessions(self, environment: Environment) -> tuple[Session, ...] | None:
        """Return the connected sessions and those that were, None when occtl does not answer.

        Asked in this order: a session that breaks or comes back between the two is in one answer or both.
        """
        with self._unread.reading(environment.slot.name):
            valid = await self._listed(environment, "show", "sessions", "valid")
            users = await self._listed(environment, "show", "users")
            return None if valid is None or users is None else self._read(environment, valid, users)
        return None

    def _read(self, environment: Environment, valid: list[Any], users: list[Any]) -> tuple[Session, ...]:
        present = [user for user in users if user["State"] not in NOT_YET]
        known = {user["Session"] for user in present}
        opened = [session for session in valid if session["session_is_open"]]
        past = self._tunnels.take(environment.slot.name, opened, present)
        broken = [
            session
            for session in opened
            if session["Session"] not in known and not self._is_of_a_probe(session)
        ]
        found = [(user, self._connected(user)) for user in present]
        found += [(session, self._resumable(session)) for session in broken]
        listed = [one.model_copy(update={"worked": said["Session"] in past.worked}) for said, one in found]
        seen = {one.remote_address for one in listed if not one.worked}
        gone = [_failed(address, at) for address, at in past.failed.items() if address not in seen]
        return (*listed, *gone)

    async def silence(self, environment: Environment) -> str:
        """Return what occtl prints where it gets no answer, or what in the answer is not read."""
        if unread := self.unread(environment):
            return unread
        try:
            result = await run(self._occtl(environment, "show", "status"), within=ANSWER)
        except PenstockError as error:
            return str(error)
        return result.last_words if result.status else "ocserv answers again"

    def unread(self, environment: Environment) -> str:
        """Return what the last answer about its sessions has that is not read."""
        return self._unread.of(environment.slot.name)

    async def sessions_of_removed(self, environment: Environment) -> tuple[Session, ...]:
        """Return sessions of whom the list of users does not name; none where it is not the only way in.

        A name that occtl does not print whole counts as listed where it may be a listed one.
        """
        where = f"slot {environment.slot.name} of {environment.gateway.name}"
        try:
            names = names_listed(*_own_config(environment))
        except OSError as error:
            raise Unavailable(f"the list of users of {where} cannot be read: {error}") from error
        if names is None:
            return ()
        users = await self._ask(environment, "show", "users")
        if not isinstance(users, list):
            raise Unavailable(f"occtl lists no users of {where}")
        gone = [user for user in users if user["State"] not in NOT_YET and user["Username"] not in names]
        return tuple(map(self._connected, gone))

    async def users(self, environment: Environment) -> Users | None:
        """Return who has a session: an instance has its own port of the host, and nobody asks who logs in."""
        found = await self.sessions(environment)
        return None if found is None else Users(found)

    async def end(self, environment: Environment, sessions: tuple[Session, ...]) -> int:
        """Disconnect each session by its id; one that has ended meanwhile does not count."""
        ended = 0
        for session in sessions:
            result = await run(self._occtl(environment, "disconnect", "id", session.id), within=ANSWER)
            ended += result.status == 0
        return ended

    def logins(self, ignored: frozenset[str], *, sees_processes: bool) -> LoginReader:
        """Return a reader of ocserv's log; its workers are processes, which are not seen on a node."""
        if sees_processes:
            return LoginLog(ignored, process_runs, process_age)
        return LoginLog(ignored, nobody_knows, nobody_knows)

    async def answer(self, environment: Environment, within: timedelta) -> Answer:
        """Return whether its own port completes a TLS handshake, and the certificate that it shows."""
        with suppress(OSError, TimeoutError):
            shown = await certificate_shown(environment.gateway.addresses[0], environment.slot.port, within)
            return Answer(answers=shown is not None, certificate=shown)
        return Answer(answers=False)

    def target(self, environment: Environment) -> str:
        """Return what the probe's login names, else the gateway's own end of the tunnel."""
        return target_of(environment, self._login)

    async def try_tunnel(self, environment: Environment, names: Sequence[str]) -> TriedTunnel:
        """Hold a session of the probe's user over TLS alone."""
        slot = environment.slot.name
        if self._login is None:
            return TriedTunnel(slot=slot, words=no_login(environment))
        session = await hold_session(environment, self._login, "--no-dtls", names=names)
        silent = [
            server
            for server in session.dns
            if any(session.answers.get((server, name)) is None for name in names)
        ]
        return TriedTunnel(
            slot=slot,
            let_in=session.let_in,
            mtu=session.mtu,
            small=session.pings.get("small", (0, 0)),
            full=session.pings.get("full", (0, 0)),
            dns=tuple(session.dns)[:MOST],
            dns_silent=tuple(silent)[:MOST],
            words=session.words,
        )

    def names_in(self, log: str) -> frozenset[str]:
        """Return every user's name that the log shows: of workers, logins and people who mistyped."""
        return frozenset(name for found in _NAMES.finditer(log) if (name := found[1] or found[2] or ""))

    async def probe(self, environment: Environment) -> Probe:
        """Log in as the probe's own user and ping the gateway's end of the tunnel."""
        if self._login is None:
            return Probe(passed=False, stage="auth", reason=no_login(environment))
        async with self._probing:
            return await probe(environment, self._login)

    async def inspect(
        self, environment: Environment, names: Names | None = None, profiles: Profiles = NO_PROFILES
    ) -> tuple[Measurement, ...]:
        """Make the functional tests; without a probe's login none of them is made, and each says so.

        Client profiles are none of ocserv's, whose clients negotiate what they need.
        """
        del profiles
        if self._login is None:
            return tuple(Measurement(test=test, said=no_login(environment)) for test in MADE)
        async with self._probing:
            return await inspect(environment, self._login, partial(self.main_process, environment), names)

    async def load(self, environment: Environment, load: Load, cpu: Callable[[], float | None]) -> Burden:
        """Hold so many sessions of the probe's user at once and fill them."""
        if self._login is None:
            raise BadInput(no_login(environment))
        async with self._probing:
            return await burden(environment, self._login, load, cpu)

    async def shadow(self, environment: Environment, how: ShadowLogin) -> Probe:
        """Log in as one of many that are logged in at once; what else is probed meanwhile waits for none."""
        if self._login is None:
            raise BadInput(no_login(environment))
        return await shadow(environment, self._login, how)

    def _is_of_a_probe(self, session: Mapping[str, Any]) -> bool:
        """Whether a probe that was killed in its tunnel has left it: nobody comes back to it."""
        return self._login is not None and session.get("Username") == self._login.user

    def _spares(self, session: Mapping[str, Any]) -> bool:
        users, groups = (readings(session.get(key, "")) for key in ("Username", "Groupname"))
        return any(self._exempt.spares(user, group, LOST) for user in users for group in groups)

    def _connected(self, user: Mapping[str, Any]) -> Session:
        return Session(
            id=str(user["ID"]),
            remote_address=user["Remote IP"],
            vpn_address=user.get("IPv4") or user.get("IPv6") or "",
            since=_since(user),
            transport="dtls" if user.get("DTLS cipher") else "tls",
            exempt=self._spares(user),
        )

    def _resumable(self, session: Mapping[str, Any]) -> Session:
        return Session(
            id=session["Session"],
            remote_address=session["Remote IP"],
            vpn_address="",
            since=_minute(session["Created"]),
            transport="",
            exempt=self._spares(session),
            connected=False,
        )

    def _occtl(self, environment: Environment, *command: str) -> list[str]:
        socket = ["-s", environment.control] if environment.control else []
        return environment.beside("/usr/bin/occtl", *socket, "-j", *command)

    async def _ask(self, environment: Environment, *command: str) -> Any:
        """Return occtl's answer, None for no answer or one that is not JSON; unknown is never zero."""
        with suppress(ValueError):
            return await self._answered(environment, *command)
        return None

    async def _listed(self, environment: Environment, *command: str) -> list[Any] | None:
        """Return occtl's list, None for no answer; ValueError for anything else."""
        said = await self._answered(environment, *command)
        if said is not None and not isinstance(said, list):
            raise Unreadable(f"`{' '.join(command)}` is no list")
        return said

    async def _answered(self, environment: Environment, *command: str) -> Any:
        """Return occtl's answer, None for no answer; ValueError for one that is not JSON."""
        try:
            result = await run(
                self._occtl(environment, *command), within=ANSWER, environment={**os.environ, **IN_UTC}
            )
        except PenstockError:
            return None
        answered = result.status == 0 and result.out.strip()
        return json.loads(_TRAILING_COMMA.sub(r"\1", result.out)) if answered else None


def _failed(address: str, at: datetime) -> Session:
    """Return what is left of a login that failed and whose client has said goodbye: where it came from."""
    return Session(
        id="",
        remote_address=address,
        vpn_address="",
        since=at,
        transport="",
        connected=False,
        worked=False,
    )


def _completed(config: str, environment: Environment, settings: Sequence[Setting]) -> str:
    """Return a filled template with all that is not the template's to say."""
    return with_log_level(with_settings(behind_what_steers(config, environment), settings))


def _write_config(into: Path, config: str) -> None:
    """Write it for root alone: secrets may stand in it."""
    (into / "ocserv.conf").touch(mode=0o600)
    (into / "ocserv.conf").write_text(config)


def _since(user: Mapping[str, Any]) -> datetime:
    """Return when the session began: to the second where occtl tells the epoch, else to the minute."""
    raw = user.get("raw_connected_at")
    if raw is not None:
        return datetime.fromtimestamp(int(raw), UTC)
    return _minute(user["Connected at"])


def _minute(said: str) -> datetime:
    """Return a moment as occtl prints it: in local time, which is UTC to it."""
    return datetime.strptime(said, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def _own_config(environment: Environment) -> tuple[str, Callable[[str], Path]]:
    """Return an instance's configuration, and where we find files by the paths that it names."""

    def ours(path: str) -> Path:
        """A template names no list but a credential."""
        return environment.config / Path(path).relative_to(CONFIG)

    file, seen = f"{CONFIG}/ocserv.conf", ours
    if isinstance(environment, OwnEnvironment):
        file, seen = environment.file, environment.seen
    return seen(file).read_text(errors="replace"), seen
