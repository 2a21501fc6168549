"""A server that accepts connections and answers nothing: a Vault, or a repository, that hangs."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest


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
