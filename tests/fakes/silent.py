"""A server that accepts connections and answers nothing: a Vault, or a repository, that hangs."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE


@contextmanager
def silent_server() -> Iterator[str]:
    """Give its address, such as `http://127.0.0.1:8200`."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def silent_vault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Have this process resolve `vault:` references at a Vault that answers nothing; give a reference."""
    token = folder / "vault-token"
    token.write_text("token")
    token.chmod(0o600)
    with silent_server() as address:
        monkeypatch.setenv("VAULT_ADDR", address)
        monkeypatch.setenv("VAULT_TOKEN_FILE", str(token))
        yield "vault:secret/data/penstock#token"


@contextmanager
def unreachable_server() -> Iterator[str]:
    """Give an address where no packet is answered, as behind a firewall that drops them."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, ExitStack() as waiting:
        for _ in range(3):  # the kernel drops further connections once one waits to be accepted
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def silent_name_servers(*, numeric: bool = True) -> Iterator[set[str]]:
    """Have no name server answer this process; give the names that were looked up.

    Without `numeric` addresses are names, too.
    """
    over, found, names = threading.Event(), socket.getaddrinfo, set[str]()

    def lookup(host: str, port: int, *, type: int, flags: int = 0) -> Any:  # noqa: A002 - its own name
        if flags & socket.AI_NUMERICHOST:
            if numeric:
                return found(host, port, type=type, flags=flags)
            raise socket.gaierror(socket.EAI_NONAME, "it is no address")
        names.add(host)
        over.wait(PATIENCE)
        raise socket.gaierror(socket.EAI_AGAIN, "no name server has answered")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", lookup)
        try:
            yield names
        finally:
            over.set()
            deadline = time.monotonic() + PATIENCE
            while lookups() and time.monotonic() < deadline:
                time.sleep(0.01)


def lookups() -> int:
    """Return how many threads of this process wait for name servers."""
    return sum(one.name == "names" for one in threading.enumerate())
