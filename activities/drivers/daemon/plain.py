"""What a driver need not say itself: of a daemon that reads all at its start only, and is never adopted."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import NoReturn, Protocol

from activities.drivers.daemon.port import (
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
    Wandering,
)
from policies.attempts import Attempt
from policies.model.errors import BadInput, Refused, Unavailable
from policies.model.fleet import Gateway
from policies.model.instance import Probe
from policies.model.path import TriedTunnel
from policies.model.release_tests import Load
from policies.model.settings import Setting
from policies.pushed import Pushed


class SilentLog:
    """A log that tells of no login."""

    version = ""

    def read(self, line: str, at: float, *, timed: bool = True) -> Iterator[Attempt]:
        """Yield nothing."""
        del line, at, timed
        return iter(())

    def give_up(self, at: float) -> Iterator[Attempt]:
        """Yield nothing."""
        del at
        return iter(())


class PlainDaemon(Protocol):
    """The part of a daemon's port that follows from the rest, or says no, until a driver overrides it."""

    product: str
    config_file: str
    probe_instead: tuple[str, ...] = ()
    own_files: tuple[str, ...] = ()
    own_words: OwnWords = OwnWords()
    wandering: tuple[Wandering, ...] = ()
    mid_session: str = ""

    @abstractmethod
    async def ready(self, environment: Environment) -> bool:
        """Return whether the instance takes logins now."""

    @abstractmethod
    async def sessions(self, environment: Environment) -> tuple[Session, ...] | None:
        """Return the sessions of the running instance, None when it does not say."""

    @abstractmethod
    async def probe(self, environment: Environment) -> Probe:
        """Log in and ping through the instance's own port."""

    def dialled(self, gateway: Gateway) -> tuple[Dialled, ...]:
        """Return the gateway's port, by TCP."""
        return (Dialled("tcp", gateway.port),)

    async def silence(self, environment: Environment) -> str:
        """Return that the control socket gives no answer: a driver that knows the cause overrides this."""
        del environment
        return "its control socket gives no answer"

    def pushed_in(self, text: str) -> Sequence[Pushed]:
        """Return nothing: what its users are sent is not read."""
        del text
        return ()

    def unread(self, environment: Environment) -> str:
        """Return nothing: a driver that tells an answer in another form from silence overrides this."""
        del environment
        return ""

    async def users(self, environment: Environment) -> Users | None:
        """Return who has a session: logins are asked for where instances have networks of their own."""
        found = await self.sessions(environment)
        return None if found is None else Users(found)

    def pools(self, environment: Environment) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return none: it gives users no addresses, or does not say which."""
        del environment
        return ()

    async def count(self, environment: Environment) -> int | None:
        """Return how many sessions there are, None when the daemon does not say."""
        found = await self.sessions(environment)
        return None if found is None else len(found)

    async def answer(self, environment: Environment, within: timedelta) -> Answer:
        """Return whether the daemon itself says in time that it serves: its port shows strangers nothing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds()):
                return Answer(answers=await self.ready(environment))
        return Answer(answers=False)

    def logins(self, ignored: frozenset[str], *, sees_processes: bool) -> LoginReader:
        """Return a reader of a log that tells of no login."""
        del ignored, sees_processes
        return SilentLog()

    async def try_tunnel(self, environment: Environment, names: Sequence[str]) -> TriedTunnel:
        """Hold a session of the probe's user; neither full packets nor names are tested."""
        del names
        found = await self.probe(environment)
        pings = (found.pings_sent, found.pings_sent - found.pings_lost)
        let_in = found.stage in ("tunnel", "ping")
        slot = environment.slot.name
        return TriedTunnel(slot=slot, let_in=let_in, small=pings, dns=None, words=found.reason)

    def reconfigure(
        self, environment: Environment, template: Path, settings: Sequence[Setting], into: Path
    ) -> None:
        """Refuse: options are read at its start only."""
        del template, settings, into
        self._only_a_new_instance(environment, "settings")

    def renew(
        self, environment: Environment, credentials: Mapping[str, Secret], into: Path, *, older: bool
    ) -> None:
        """Refuse: certificate and key are read at its start only."""
        del credentials, into, older
        self._only_a_new_instance(environment, "credentials")

    async def reload(self, environment: Environment) -> None:
        """Refuse: told to reload, it would end every session."""
        self._only_a_new_instance(environment, "files")

    async def check_own(self, environment: OwnEnvironment) -> None:
        """Refuse: nobody's own daemon is taken over."""
        self._is_not_adopted(environment)

    async def reload_own(self, environment: OwnEnvironment) -> None:
        """Refuse: nobody's own daemon is taken over."""
        self._is_not_adopted(environment)

    def read_own(self, text: str) -> OwnConfig:
        """Refuse: nobody's own daemon is taken over."""
        del text
        raise BadInput(
            f"{self.product} that serves already cannot be adopted; stop and disable it, and bring the "
            "gateway up by `penstock fleet install FLEET --to VERSION`"
        )

    def addresses_in(self, text: str) -> Sequence[str]:
        """Return nothing: it has no files for some of its users."""
        del text
        return ()

    def networks_in(self, text: str) -> Sequence[IPv4Network | IPv6Network]:
        """Return nothing: it has no files for some of its users."""
        del text
        return ()

    async def sessions_of_removed(self, environment: Environment) -> tuple[Session, ...]:
        """Return none: there is no list of users that could change while it runs."""
        del environment
        return ()

    async def load(self, environment: Environment, load: Load, cpu: Callable[[], float | None]) -> Burden:
        """Refuse: no load is made of it."""
        del load, cpu
        raise Unavailable(
            f"no load is made of {self.product} on {environment.gateway.name}; leave tests.load out"
        )

    def _only_a_new_instance(self, environment: Environment, what: str) -> NoReturn:
        raise Refused(
            f"{self.product} in slot {environment.slot.name} of {environment.gateway.name} takes new {what} "
            "only when it is started anew: bring them with an upgrade"
        )

    def _is_not_adopted(self, environment: Environment) -> NoReturn:
        raise Refused(f"{self.product} that serves {environment.gateway.name} by itself cannot be adopted")
