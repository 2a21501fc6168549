"""What a relay reports of a HAProxy that does not start."""

import os
import socket
from pathlib import Path

import pytest

from orchestrator.relay.front import Front, Proof
from policies.model.errors import Unavailable


async def test_a_haproxy_that_does_not_start_is_reported_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """newcomer 1: the packages' relay reported an empty log where setpriv was not permitted to start it."""
    program = tmp_path / "haproxy"
    program.write_text("#!/bin/sh\necho 'activate capabilities: Operation not permitted' >&2\nexit 127\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with socket.socket() as port:
        front = Front(port, tmp_path, Proof(lambda: b"", b""), connections=10)
        with pytest.raises(Unavailable, match="Operation not permitted"):
            await front.begin()
