"""Which lists of revoked certificates an OpenVPN that runs may be given."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.runtime.host.chroot import Chroot
from policies.model.errors import BadInput
from tests.drivers.gateway_lab import gateway
from tests.drivers.own_authority import Authority

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
OURS, THEIRS, BETWEEN = (Authority(words, at=NOW) for words in ("ours", "theirs", "between"))
GOOD = OURS.revoking() + BETWEEN.revoking()
CONFIG = "ca /etc/penstock/credentials/authority\ncrl-verify /etc/penstock/credentials/revoked\n"


def renewed(folder: Path, revoked: str, *, older: bool = False) -> str:
    """Return the list of an instance that had the good one, and for which this one lies on its host."""
    config, into = folder / "conf", folder / "next"
    given = {"authority": lambda: OURS.pem + THEIRS.pem, "revoked": lambda: revoked}
    for path in (config / "credentials", into):
        path.mkdir(parents=True)
    (config / "openvpn.conf").write_text(CONFIG)
    for name, content in (("authority", OURS.pem + THEIRS.pem), ("revoked", GOOD)):
        (config / "credentials" / name).write_text(f"{content}\n")
    on = gateway()
    OpenVpn().renew(Chroot(on, on.slots[0], folder, config, folder), given, into, older=older)
    return (into / "credentials/revoked").read_text()


@pytest.mark.parametrize(
    "revoked", [GOOD, GOOD + THEIRS.revoking(), GOOD + Authority("another", at=NOW).revoking()]
)
def test_a_list_of_each_authority_that_had_one_is_taken(tmp_path: Path, revoked: str) -> None:
    assert renewed(tmp_path, revoked) == f"{revoked}\n"


@pytest.mark.parametrize(
    ("revoked", "said"),
    [
        (OURS.revoking(end=NOW - HOUR), "line 1: the list was good until"),
        (OURS.revoking(begin=NOW + HOUR), "line 1: the list is good from"),
        (GOOD + Authority("theirs", at=NOW).revoking(), "CN=theirs has not signed its list"),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_a_list_that_would_lock_its_users_out_is_refused_whatever_is_said(
    tmp_path: Path, revoked: str, said: str, *, older: bool
) -> None:
    with pytest.raises(BadInput, match=f"^credential revoked .*{said}"):
        renewed(tmp_path, revoked, older=older)


@pytest.mark.parametrize(
    ("revoked", "said"),
    [
        (BETWEEN.revoking(), "the list of CN=ours is missing, without which its users are locked out"),
        (
            OURS.revoking(begin=NOW - timedelta(days=3)) + BETWEEN.revoking(),
            "who was revoked since would be let in",
        ),
    ],
)
def test_a_list_that_is_older_or_of_fewer_takes_somebody_who_means_it(
    tmp_path: Path, revoked: str, said: str
) -> None:
    with pytest.raises(BadInput, match=f"{said}.*say --even-if-older"):
        renewed(tmp_path / "refused", revoked)
    assert renewed(tmp_path / "meant", revoked, older=True) == f"{revoked}\n"
