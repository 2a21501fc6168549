"""What a host hands to its probe's openvpn: what a client profile may say, and files that the host names."""

from pathlib import Path

import pytest

from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.openvpn.options import options
from activities.drivers.runtime.host.chroot import Chroot
from policies.model.errors import BadInput
from tests.drivers.gateway_lab import gateway

HERE = Chroot(gateway(), gateway().slots[0], Path("root"), Path("config"), Path("run"))
LOGIN = ProbeLogin(
    user="probe",
    password=None,
    authority=Path("/etc/penstock/ca.pem"),
    certificate=Path("/etc/penstock/probe.pem"),
    key=Path("/etc/penstock/probe.key"),
    files={"shared": Path("/etc/penstock/shared.key")},
)


def test_a_profile_becomes_options_and_its_file_the_one_that_the_host_names() -> None:
    told = options(HERE, LOGIN, "udp", ("data-ciphers AES-256-CBC", "tls-auth shared 1"))
    assert told[-5:] == ["--data-ciphers", "AES-256-CBC", "--tls-auth", "/etc/penstock/shared.key", "1"]
    assert told[:4] == ["--remote", "10.77.0.1", "4431", "udp"]


@pytest.mark.parametrize(
    "option",
    [
        *(
            "up /bin/sh",
            "plugin /tmp/x.so",
            "config /etc/shadow",
            "remote 192.0.2.1",
            "tls-auth /etc/shadow 1",
        ),
        *("tls-crypt lost", "cipher AES-256-CBC --up", "auth-user-pass /etc/shadow", "log /etc/passwd"),
        *("script-security 2", "management 127.0.0.1 1", "socks-proxy 192.0.2.1", "daemon", "cd /tmp"),
    ],
)
def test_an_order_has_no_program_run_no_other_file_read_and_nobody_else_dialled(option: str) -> None:
    with pytest.raises(BadInput):
        options(HERE, LOGIN, "udp", (option,))
