"""Files that an adopted daemon has for single users and groups: which no release may have as they are.

They are read where the daemon sees them, and nothing of them is changed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from activities.drivers.daemon.port import OwnConfig, UserFile
from activities.drivers.runtime.host.chroot import seen_by
from policies.model.adoption import MOST_LINES, OwnLine
from policies.model.errors import BadInput

MOST_NAMED = 3
"""Files that one reason names; of the others it has the number."""


def left_behind(
    pid: int, own: OwnConfig, read: Callable[[int, str], str], addresses_in: Callable[[str], Sequence[str]]
) -> tuple[OwnLine, ...]:
    """Return what stays behind, with what of the files for users and groups has to be changed for a release.

    Args:
        pid: The daemon's process.
        own: What its configuration says.
        read: Returns a file as the process sees it.
        addresses_in: Returns what such a file says of addresses.
    """
    wrong = {one.number: line for one in own.user_files if (line := _wrong(pid, one, read, addresses_in))}
    lines = [wrong.pop(line.number, line) for line in own.left_behind]
    return (*lines, *wrong.values())[:MOST_LINES]


def more_pools(
    pid: int,
    own: OwnConfig,
    read: Callable[[int, str], str],
    networks_in: Callable[[str], Sequence[IPv4Network | IPv6Network]],
) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return of which networks beside its pools the daemon gives users addresses, the widest first.

    A file that cannot be read is left out here: `left_behind` names it.
    """
    found = [*own.more_pools]
    for path in (path for one in own.user_files for path in _paths(pid, one.path)):
        with suppress(BadInput, OSError):
            found += networks_in(read(pid, path))
    four = [one for one in found if isinstance(one, IPv4Network) and not one.subnet_of(own.pool4)]
    six = [one for one in found if isinstance(one, IPv6Network)]
    six = [one for one in six if own.pool6 is None or not one.subnet_of(own.pool6)]
    more: list[IPv4Network | IPv6Network] = [*collapse_addresses(four), *collapse_addresses(six)]
    return tuple(sorted(more, key=lambda one: one.prefixlen - one.max_prefixlen))


def _wrong(
    pid: int, named: UserFile, read: Callable[[int, str], str], addresses_in: Callable[[str], Sequence[str]]
) -> OwnLine | None:
    found = list[str]()
    for path in _paths(pid, named.path):
        try:
            said: Sequence[str] = addresses_in(read(pid, path))
        except (BadInput, OSError) as error:
            said = (f"it cannot be read: {error.strerror if isinstance(error, OSError) else error}",)
        found += [f"{path}: {', '.join(said)}"] if said else []
    if not found:
        return None
    more = f"; and {len(found) - MOST_NAMED} files more" if len(found) > MOST_NAMED else ""
    reason = f"no release may have these files as they are: {'; '.join(found[:MOST_NAMED])}{more}"
    return OwnLine(number=named.number, key=named.key, reason=reason)


def _paths(pid: int, path: str) -> Iterator[str]:
    """Yield the path, or those of the files in its folder."""
    try:
        names = sorted(one.name for one in os.scandir(seen_by(pid, path)) if not one.is_dir())
    except OSError:
        yield path
        return
    yield from (f"{path.rstrip('/')}/{name}" for name in names)
