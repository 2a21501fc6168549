"""Addresses of names, within a deadline: a name server that does not answer keeps one thread and no caller.

`getaddrinfo` has no deadline: with three silent name servers it takes half a minute.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

MOST_LOOKUPS = 16
"""Names that are looked up at a time; each has one thread, whoever asks for it meanwhile."""

SLOW_PATH = 1.0
"""Seconds that one address of many has at least: a SYN that was lost is sent again after one."""

Connection = TypeVar("Connection")
Found = tuple[Any, ...]
"""One address, as `getaddrinfo` returns it."""

_turn = threading.Lock()
_under_way = dict[tuple[str, int], "Future[list[Found]]"]()


def addresses_of(host: str, port: int, seconds: float) -> list[Found]:
    """Return the addresses of a host for TCP.

    Args:
        host: Its name, or an address.
        port: That is connected to.
        seconds: How long name servers may take.

    Raises:
        TimeoutError: No name server answers in time.
        OSError: It has no address, or too many other names are looked up.
    """
    with contextlib.suppress(socket.gaierror):
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    name = host, port
    with _turn:
        looking = _under_way.get(name)
        if looking is None:
            if len(_under_way) >= MOST_LOOKUPS:
                raise OSError(f"{MOST_LOOKUPS} names are looked up, and no name server answers")
            looking = _under_way[name] = Future()
            threading.Thread(target=_look_up, args=(name, looking), name="names", daemon=True).start()
    try:
        return looking.result(timeout=seconds)
    except TimeoutError:
        raise TimeoutError(f"no name server answers for {host}") from None


def connected(
    host: str, port: int, left: Callable[[], float], connect: Callable[[Found, float], Connection]
) -> Connection:
    """Return the connection to the first address of a host that answers.

    Each has an equal part of the time that is left, and as much as a slow path needs: of many addresses only
    the first ones are tried where packets are dropped.

    Args:
        host: Its name, or an address.
        port: That is connected to.
        left: Tells how many seconds are left; it raises what its caller expects where none are.
        connect: Connects to one address within so many seconds; an OSError leads to the next address.

    Raises:
        TimeoutError: No name server answers in time.
        OSError: It has no address, or none of them answers; then it is that of the last.
    """
    found = addresses_of(host, port, left())
    failure = OSError("it has no address")
    for number, address in enumerate(found):
        try:
            seconds = left()
            return connect(address, max(min(SLOW_PATH, seconds), seconds / (len(found) - number)))
        except OSError as error:
            failure = error
    raise failure


def _look_up(name: tuple[str, int], looking: "Future[list[Found]]") -> None:
    found, failure = list[Found](), None
    try:
        found = list(socket.getaddrinfo(*name, type=socket.SOCK_STREAM))
    except Exception as error:  # noqa: BLE001 - raised again where it is waited for
        failure = error
    with _turn:
        del _under_way[name]
    if failure is not None:
        looking.set_exception(failure)
    else:
        looking.set_result(found)
