"""The address that the probe's client dials at an ocserv is the one that users have."""

from dataclasses import replace
from pathlib import Path

import pytest

from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.ocserv.login import options, shadow_options
from activities.drivers.private_files import write_private
from activities.drivers.runtime.host.chroot import Chroot
from policies.model.errors import BadInput
from policies.model.mirror import ShadowLogin
from tests.drivers.gateway_lab import gateway


@pytest.fixture
def chroot(tmp_path: Path) -> Chroot:
    return Chroot(gateway(), gateway().slots[1], tmp_path, tmp_path, tmp_path)


@pytest.fixture
def login(tmp_path: Path) -> ProbeLogin:
    return ProbeLogin(user="probe", password=None, authority=tmp_path / "ca.pem")


def test_every_client_of_ours_dials_the_secret_address_where_there_is_one(
    chroot: Chroot, login: ProbeLogin, tmp_path: Path
) -> None:
    """Case 18: probe, release tests, load and mirror have one way to say where they go."""
    write_private(tmp_path / "camouflage", b"let-me-in\n")
    hidden = replace(login, camouflage=tmp_path / "camouflage")
    plain = options(chroot, login)[-1]
    assert options(chroot, hidden)[-1] == f"{plain}/?let-me-in"
    assert shadow_options(chroot, hidden, ShadowLogin(after=0))[-1] == f"{plain}/?let-me-in"


@pytest.mark.parametrize(("content", "mode"), [(b"let-me-in", 0o644), (b"let me in", 0o600), (b"", 0o600)])
def test_a_secret_that_others_read_or_that_is_no_address_is_refused_and_not_quoted(
    chroot: Chroot, login: ProbeLogin, tmp_path: Path, content: bytes, mode: int
) -> None:
    """Case 18: it is a secret file as every other one."""
    write_private(tmp_path / "camouflage", content)
    (tmp_path / "camouflage").chmod(mode)
    with pytest.raises(BadInput, match="camouflage") as refused:
        options(chroot, replace(login, camouflage=tmp_path / "camouflage"))
    assert "me-in" not in str(refused.value)
