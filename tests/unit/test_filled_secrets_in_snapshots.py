"""A secret that the gateway fills in for `$secret_NAME` leaves it in no snapshot and in no error."""

import string
from pathlib import Path

import pytest

from activities.drivers.daemon.filled_secrets import secrets_in, without_filled_secrets
from activities.drivers.daemon.ocserv.own_config import read_own_config as read_ocserv
from activities.drivers.daemon.openvpn.own_config import read_own_config as read_openvpn
from policies.redaction import REMOVED, without_secrets, without_values

SECRET = "Kd8sJs83jdks93KD"
LINES = (
    # OpenVPN: arguments of a plugin, as Duo's instructions have them, and variables that scripts read
    "plugin /opt/duo/duo_openvpn.so 'DI1234567890ABCDEFGH $secret_duo api-1.example'",
    "plugin /usr/lib/openvpn/radius.so 192.0.2.5 $secret_radius",
    "plugin duo_openvpn.so DI1234567890ABCDEFGH $secret_duo",
    "setenv LDAP_BIND_PASSWORD $secret_ldap",
    "setenv-safe RADIUS_KEY $secret_radius",
    "setenv BINDPW $secret_ldap",
    "--setenv DUO_SKEY $secret_duo",
    "setenv opt setenv LDAP_PASS $secret_ldap",
    'push "setenv-safe RADIUS_KEY $secret_radius"',
    "auth-user-pass-verify '/etc/openvpn/ask $secret_api' via-file",
    "client-connect '/etc/openvpn/greet $secret_api'",
    'setenv opt client-connect "/etc/openvpn/greet $secret_api"',
    "connect-script = /usr/libexec/greet $secret_api",
)


def filled(line: str, secret: str = SECRET) -> str:
    names = string.Template(line).get_identifiers()
    return string.Template(line).substitute(dict.fromkeys(names, secret))


@pytest.mark.parametrize("line", LINES)
def test_a_secret_that_was_filled_into_a_line_is_removed_whatever_option_has_it(line: str) -> None:
    assert SECRET not in without_secrets(f"port 4431\n{filled(line)}\n")


@pytest.mark.parametrize(
    "line",
    [
        "setenv VPN_PIN 48217036",
        "key-pin = 48217036",
        'push "setenv-safe VPN_PIN 48217036"',
    ],
)
def test_a_secret_of_digits_alone_is_removed(line: str) -> None:
    assert "48217036" not in without_secrets(line)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("plugin /opt/duo/duo_openvpn.so 'DI12 x'", "plugin /opt/duo/duo_openvpn.so"),
        ("client-connect '/etc/openvpn/greet x'", "client-connect '/etc/openvpn/greet"),
        ("connect-script = /usr/libexec/greet", "connect-script = /usr/libexec/greet"),
        ("setenv LANG C.UTF-8", "setenv LANG C.UTF-8"),
        ("setenv PASSWORD_FILE /etc/penstock/x", "setenv PASSWORD_FILE /etc/penstock/x"),
        ('push "route 10.99.0.0 255.255.255.0"', 'push "route 10.99.0.0 255.255.255.0"'),
    ],
)
def test_programs_and_harmless_variables_stay_in_a_snapshot(line: str, kept: str) -> None:
    assert without_secrets(line).startswith(kept)


def credentials(config: Path, **files: str) -> Path:
    (config / "credentials").mkdir()
    for name, content in files.items():
        (config / "credentials" / name).write_text(f"{content}\n")
    return config


def test_no_value_and_no_line_of_a_credential_survives_in_any_text(tmp_path: Path) -> None:
    values = secrets_in(credentials(tmp_path, duo=SECRET, login="ana-of-vpn\nhunter2-of-ana\n", pin="4821"))
    text = f"unknown word '{SECRET}x', hunter2-of-ana, pin=4821, port 48217, ana-of-vpn"
    said = without_values(text, values)
    assert said == f"unknown word '{REMOVED}x', {REMOVED}, pin={REMOVED}, port 48217, {REMOVED}"


def test_certificates_and_lists_of_revoked_ones_are_no_secrets(tmp_path: Path) -> None:
    block = "-----BEGIN {0}-----\nMIIBszCCAVmgAwIBAgIUVpn\n-----END {0}-----"
    public = [block.format(kind) for kind in ("CERTIFICATE", "X509 CRL")]
    key = block.format("PRIVATE KEY").replace("MIIB", "MIGH")
    values = secrets_in(credentials(tmp_path, certificate="\n".join(public), key=key))
    assert without_values(public[0], values) == public[0]
    assert "MIGHszCCAVmg" not in without_values(f"read {key}", values)


def test_a_secret_that_contains_another_one_is_removed_whole(tmp_path: Path) -> None:
    values = secrets_in(credentials(tmp_path, short="hunter2", long="hunter2-and-more"))
    assert without_values("key hunter2-and-more", values) == f"key {REMOVED}"


def test_an_error_that_quotes_a_filled_line_leaves_a_gateway_without_its_secret(tmp_path: Path) -> None:
    config = credentials(tmp_path, duo=SECRET)
    assert without_filled_secrets(f"Options error: {SECRET}: no such plugin", config) == (
        f"Options error: {REMOVED}: no such plugin"
    )
    assert without_filled_secrets("Options error", tmp_path / "nowhere") == "Options error"


OPENVPN = "dev tun\nserver 10.8.0.0 255.255.255.0\n"
OCSERV = "tcp-port = 443\ndevice = vpns\nipv4-network = 10.9.0.0/24\n"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"plugin /opt/duo/duo_openvpn.so 'DI12 {SECRET} a'", "/opt/duo/duo_openvpn.so is a program"),
        (f"auth-user-pass-verify '/x/ask {SECRET}' via-file", "/x/ask is a program"),
        (f"setenv ASK '/x/ask {SECRET}'", "/x/ask is a file"),
    ],
)
def test_an_adoption_names_a_program_of_openvpn_without_its_arguments(line: str, shown: str) -> None:
    (lost,) = read_openvpn(f"{OPENVPN}{line}\n").left_behind
    assert lost.reason.startswith(shown)
    assert SECRET not in lost.reason


@pytest.mark.parametrize(
    "line", [f"ldap-password = {SECRET}/x", f"connect-script = /usr/libexec/greet {SECRET}"]
)
def test_an_adoption_quotes_no_secret_of_ocservs_own_configuration(line: str) -> None:
    lost = read_ocserv(f"{OCSERV}{line}\n").left_behind
    assert lost
    assert SECRET not in str(lost)
