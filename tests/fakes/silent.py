"""A server that accepts connections and answers nothing: a Vault, or a repository, that hangs."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
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
