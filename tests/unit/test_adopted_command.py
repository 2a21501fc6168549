"""What counts on a daemon's command line beside its configuration."""

import pytest

from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.runtime.host.adoption import why_not_by_command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--config prod.conf --port 443 --dev tun7", "has --port on its command line"),
        ("--port 443 --config prod.conf", "has --port on its command line"),
        ("--config prod.conf --config more.conf", "has several --config on its command line"),
        ("--config prod.conf --max-clients 4", "has --max-clients on its command line"),
    ],
)
def test_options_that_count_beside_the_configuration_are_refused_by_name(words: str, said: str) -> None:
    """R11, a fresh reader's F12: adopted was what the file alone says."""
    beside = OpenVpn.own_words.beside_config
    assert beside is not None
    assert said in (why_not_by_command(["openvpn", *words.split()], beside) or "")


@pytest.mark.parametrize(
    "words",
    [
        "prod.conf",
        "--status /run/server.log --status-version 2 --suppress-timestamps --config server.conf",
        "--daemon ovpn --status /run/s 10 --cd /etc/openvpn --config s.conf --writepid /run/s.pid",
    ],
)
def test_what_units_of_distributions_have_there_is_taken(words: str) -> None:
    """R11, a fresh reader's F12."""
    beside = OpenVpn.own_words.beside_config
    assert beside is not None
    assert why_not_by_command(["openvpn", *words.split()], beside) is None
