"""The port of a daemon: all that hosts, pods and steering need to know of a product."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from activities.drivers.runtime.host.chroot import Place
from policies.words.instance import Probe, Session

Secret = Callable[[], str]
"""Reads a credential when it is used; BadInput when it leads nowhere, Unavailable when nobody answers."""


class Daemon(Protocol):
    """What one product needs, says and can do; it keeps nothing between calls."""

    @property
    def product(self) -> str:
        """The product's name, as manifests spell it."""
        ...

    def render(self, place: Place, template: Path, credentials: Mapping[str, Secret], into: Path) -> None:
        """Write the instance's config, made of the release's template, to the folder `into`.

        Raises:
            BadInput: when the template or a credential it names is missing.
            Unavailable: when the store of a credential does not answer.
        """
        ...

    async def check(self, place: Place) -> None:
        """Have the release's own program test the config; Refused with its words when it says no."""
        ...

    def command(self) -> list[str]:
        """Return the command line, inside the root, that runs the instance in the foreground."""
        ...

    async def ready(self, place: Place) -> bool:
        """Return whether the instance takes logins now."""
        ...

    async def count(self, place: Place) -> int | None:
        """Return how many sessions live on the running instance, None when it does not say."""
        ...

    async def sessions(self, place: Place) -> tuple[Session, ...] | None:
        """Return the sessions of the running instance, None when it does not say."""
        ...

    async def end(self, place: Place, sessions: tuple[Session, ...]) -> int:
        """End these sessions; return how many were told to go."""
        ...

    def names_in(self, log: str) -> frozenset[str]:
        """Return every user's name that the instance's log shows."""
        ...

    async def probe(self, place: Place) -> Probe:
        """Log in and ping through the instance's own port."""
        ...
