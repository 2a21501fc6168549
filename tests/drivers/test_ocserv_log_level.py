"""Every login is in the log of an instance, whatever level its template has: a real ocserv, two logins."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from activities.drivers.daemon.ocserv.config import lines_of
from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.ocserv.log import LoginLog
from activities.drivers.daemon.ocserv.log_level import with_log_level
from activities.drivers.runtime.host.chroot import Chroot
from tests.drivers.gateway_lab import gateway
from tests.fakes.authority import EnterpriseCa

MISSING = [one for one in ("ocserv", "ocpasswd", "openconnect", "unshare") if shutil.which(one) is None]
HOST = "vpn.example"
NOT_ALONE = "[vhost:{}]\n{}log-level = 0\n"
LOGINS = r"""
ip link set lo up
ocserv -f -d 3 -c "$1/ocserv.conf" > "$1/log" 2>&1 & daemon=$!
until grep -q "initialized" "$1/log"; do kill -0 $daemon || exit 1; sleep 0.1; done
for password in wrong right; do
  echo $password | timeout 6 openconnect --passwd-on-stdin --non-inter -u anna --script /bin/true \
    --cafile "$1/authority/roots.pem" --resolve=vpn.example:127.0.0.1 vpn.example:4443
done
kill $daemon; wait $daemon
"""


def levels(config: str) -> dict[str, str]:
    """Return the level that counts in each section."""
    return {line.section: line.value for line in lines_of(config) if line.key == "log-level"}


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("keepalive = 300\n", {"": "3"}),
        ("log-level = 2\n", {"": "3"}),
        ("log-level = 0\nlog-level = high\n", {"": "3"}),
        ("log-level = 3\n  1\n", {"": "3"}),
        ("log-level = 5\n", {"": "5"}),
        ("log-level = 2\nlog-level = 4\n", {"": "4"}),
        ("log-level = 99999999999\n", {"": "9"}),
        ("[vhost:a]\n  dpd = 9\n[vhost:b]\nlog-level = 6\n", {"": "3", "vhost:a": "3", "vhost:b": "6"}),
        ("[vhost:a]\nlog-level = 1\n[]\nlog-level = 1\n", {"": "3", "vhost:a": "3"}),
        ("", {"": "3"}),
    ],
)
def test_every_section_has_a_level_at_which_logins_are_read(text: str, counts: dict[str, str]) -> None:
    config = with_log_level(text)
    assert levels(config) == counts
    assert with_log_level(config) == config
    kept = [line[1:] for line in lines_of(text) if line.key != "log-level"]
    assert [line[1:] for line in lines_of(config) if line.key != "log-level"] == kept


def test_an_instance_logs_its_logins_whatever_its_template_says(tmp_path: Path) -> None:
    """A template that hid them from 1.1.6 in vain hides them from 1.3.0, which does not heed `-d 3`."""
    (tmp_path / "conf").mkdir()
    own = gateway()
    chroot = Chroot(own, own.slots[0], tmp_path / "root", tmp_path / "conf", tmp_path / "run")
    template = tmp_path / "ocserv.conf.template"
    template.write_text("tcp-port = $port\nlog-level = 2\n[vhost:vpn.example]\nlog-level = 1\n")
    Ocserv().render(chroot, template, {}, chroot.config)
    assert levels((chroot.config / "ocserv.conf").read_text()) == {"": "3", "vhost:vpn.example": "3"}


@pytest.mark.sweep
@pytest.mark.skipif(bool(MISSING) or os.geteuid() != 0, reason=f"needs root and {' and '.join(MISSING)}")
@pytest.mark.parametrize("virtual", [False, True], ids=["one host", "a virtual host"])
def test_a_bad_and_a_good_login_are_read_in_a_real_daemons_log(tmp_path: Path, *, virtual: bool) -> None:
    authority = EnterpriseCa(tmp_path / "authority")
    served = ExtendedKeyUsageOID.SERVER_AUTH
    key, certificate = authority.leaf(HOST, usage=served, names=(x509.DNSName(HOST),))
    subprocess.run(["ocpasswd", "-c", tmp_path / "users", "anna"], input=b"right\nright\n", check=True)
    of_a_host = (
        f'auth = "plain[passwd={tmp_path}/users]"\nserver-cert = {certificate}\nserver-key = {key}\n'
        "ipv4-network = 10.66.{}.0\nipv4-netmask = 255.255.255.0\n"
    )
    text = (
        f"{of_a_host.format(0)}tcp-port = 4443\nrun-as-user = root\nrun-as-group = root\ndevice = vpnz\n"
        f"socket-file = {tmp_path}/s\nuse-occtl = false\nisolate-workers = false\nlog-level = 2\n"
    )
    text += NOT_ALONE.format(HOST, of_a_host.format(1)) if virtual else ""
    (tmp_path / "ocserv.conf").write_text(with_log_level(text))
    alone = ["unshare", "-n", "bash", "-c", LOGINS, "logins", str(tmp_path)]
    done = subprocess.run(alone, capture_output=True, text=True, timeout=60, check=False)
    log = LoginLog(alive=lambda _: False)
    lines = (tmp_path / "log").read_text(errors="replace").splitlines()
    read = [one for line in lines for one in log.read(line, 0.0)]
    read += [one for at in (1000.0, 2000.0) for one in log.give_up(at)]
    assert [one.outcome.value for one in read][:1] == ["auth_fail"], done.stderr
    assert len(read) == 2
    assert read[1].key.endswith("anna")
