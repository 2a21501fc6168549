"""A machine that cannot have a lab is told so, all of it, before anything is changed."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.lab import namespaces, preflight
from deploy.lab.topology import Topology
from policies.model.errors import BadInput, Conflict
from tests.lab.network import network

PREFIX = "pstp-"
ROOT = Path(__file__).parents[2]


def test_every_obstacle_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preflight, "TUN", tmp_path / "tun")
    monkeypatch.setattr(preflight, "_SBIN", "/nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput) as refused:
        preflight.examine()
    lines = str(refused.value).splitlines()
    assert any("tun is missing: `modprobe tun`" in line for line in lines)
    (programs,) = [line for line in lines if line.startswith("programs are missing")]
    packages = "haproxy iproute2 iputils-ping nftables ocserv openconnect prometheus util-linux"
    assert f"`apt-get install --no-install-recommends {packages}`" in programs
    assert refused.value.exit_code == 2
    assert not preflight.is_able()


@pytest.mark.lab
def test_someone_who_is_not_root_is_told_to_be(tmp_path: Path) -> None:
    with network(PREFIX):  # so that we know that only the user stands in the way
        script = "from deploy.lab import preflight; preflight.examine()"
        command = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", script]
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    if "Permission denied" in done.stderr:
        pytest.skip(f"another user may not even read {sys.executable}")
    assert "the lab needs root to make network namespaces: run it as root" in done.stderr


@pytest.mark.lab
def test_a_lab_begins_by_clearing_away_what_the_last_one_left_and_says_so() -> None:
    with network("pstq-"):
        left = Topology(gateways=1, sites=1, prefix=PREFIX)
        left.build()
        with ExitStack() as held:
            claim, told = preflight.begin(left)
            held.push(claim)
            assert told.startswith("cleared away what an earlier lab left: 4 namespaces (pstp-gw-1 …)")
            assert namespaces.existing(PREFIX) == []
        with ExitStack() as held:
            claim, told = preflight.begin(left)
            held.push(claim)
            assert told == ""


@pytest.mark.lab
def test_what_a_running_lab_has_is_never_cleared_away() -> None:
    with network(PREFIX) as running:
        with pytest.raises(Conflict, match="another lab is running on this machine"):
            preflight.begin(Topology(prefix=PREFIX))
        assert len(running.leftovers()) == 4
