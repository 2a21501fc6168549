"""Addresses of names, within a deadline: a name server that does not answer keeps one thread and no caller.

`getaddrinfo` has no deadline: with three silent name servers it takes half a minute.
"""

import contextlib
import socket
import threading
from concurrent.futures import Future
from typing import Any

MOST_LOOKUPS = 16
"""Names that are looked up at a time; each has one thread, whoever asks for it meanwhile."""

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
