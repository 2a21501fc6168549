"""Whose flows a gateway's users have and had: read from logs that are there, asking and changing nothing."""

import gzip
from collections.abc import Collection, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from itertools import chain
from pathlib import Path

from activities.drivers.daemon.port import Attributes
from activities.drivers.runtime.host.slot_folders import SlotFolders
from activities.drivers.steering.nginx_log import carried_in
from policies.attribution import Attributed, attributed
from policies.model.adoption import ADOPTED
from policies.model.errors import BadInput


def attributed_flows(
    folders: SlotFolders, logs: Sequence[Path], proxies: Collection[IPv4Address | IPv6Address]
) -> list[Attributed]:
    """Return every session that the slots' logs tell of, and from where its user really came.

    Args:
        folders: The slots, with their logs.
        logs: Those of the proxies, what was rotated away from them beside them.
        proxies: The addresses from which the proxies carry users.

    Raises:
        BadInput: The daemon's log does not tell whose a session is, or a proxy's log cannot be read.
    """
    daemon = folders.daemon
    if not isinstance(daemon, Attributes):
        raise BadInput(f"the log of {daemon.product} is not read for whose flows are whose")
    held = [
        one
        for folder in folders
        if folder.slot.name != ADOPTED  # its log is its own
        for one in daemon.held_in(folder.slot.name, lines_of_log(folder.log))
    ]
    carried = carried_in(chain.from_iterable(map(_lines_of_proxy, logs)))
    return attributed(held, carried, proxies)


def _lines_of_proxy(log: Path) -> Iterator[str]:
    if not log.exists():
        raise BadInput(f"{log} is not there: without it nobody who came through the proxy is known")
    return lines_of_log(log)


def lines_of_log(log: Path) -> Iterator[str]:
    """Yield a log's lines, the oldest first, from what was rotated away (`.1`, `.2.gz`) on."""
    rotated = [
        (int(number), path)
        for path in log.parent.glob(f"{log.name}.*")
        if (number := path.name.removeprefix(f"{log.name}.").removesuffix(".gz")).isdigit()
    ]
    for _, path in sorted(rotated, reverse=True):
        yield from _read(path)
    if log.exists():
        yield from _read(log)


def _read(path: Path) -> Iterator[str]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", errors="replace", newline="\n") as file:
        for line in file:
            yield str(line).rstrip("\n")
