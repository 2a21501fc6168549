"""Which credentials ocserv may be given; each refusal names the credential and the line."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from activities.drivers.daemon.ocserv.credentials import require_fit
from activities.drivers.daemon.revoked import Given
from policies.model.errors import BadInput
from tests.drivers.own_authority import AT, DAY, PEM, Authority

PLACE = "/etc/penstock/credentials"
CONFIG = f"""
auth = "plain[passwd={PLACE}/users]"
enable-auth = "certificate"
server-cert = {PLACE}/certificate
server-key = {PLACE}/key
ca-cert = {PLACE}/ca
crl = {PLACE}/crl
# crl = {PLACE}/of-a-comment
banner = "ca-cert"
"""
USERS = "probe:*:$5$salt$" + "x" * 43 + "\n"


def written(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> str:
    form = serialization.PrivateFormat.PKCS8
    sealed = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(PEM, form, sealed).decode()


OURS, THEIRS, KEY = Authority("ours"), Authority("theirs"), ec.generate_private_key(ec.SECP256R1())
GOOD = {
    "users": USERS,
    "certificate": OURS.certify(KEY),
    "key": written(KEY),
    "ca": OURS.pem,
    "crl": OURS.revoking(),
}
AN_OLD_LINE = f"{USERS}ben:*:$1$salt${'x' * 22}\nana:staff:!$6$rounds=9000$salt${'x' * 86}\n"


def require(tmp_path: Path, changed: dict[str, str], *, older: bool = False) -> None:
    """Look at the good credentials with some of them changed, where the good ones are in use."""
    given = {}
    for what, before in GOOD.items():
        (tmp_path / what).write_text(changed.get(what, before))
        given[what] = Given(f"credential {what}", tmp_path / what, before)
    require_fit(CONFIG, given, AT, "probe", older=older)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"users": AN_OLD_LINE},
        {"certificate": OURS.certify(KEY, end=AT + 99 * DAY) + OURS.pem},
        {"ca": f"a note\n{OURS.pem}{THEIRS.pem}", "crl": OURS.revoking() + THEIRS.revoking()},
        {"ca": Authority("gone", AT - DAY).pem + OURS.pem},
    ],
)
def test_what_is_whole_and_fits_is_taken(tmp_path: Path, changed: dict[str, str]) -> None:
    require(tmp_path, changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"users": "\n"}, "credential users: it names no user"),
        ({"users": f"{USERS}ben:*\n"}, "credential users line 2: it is not NAME:GROUPS:HASH"),
        ({"users": f"{USERS}ben:*:$6$salt$xx\n"}, "credential users line 2: it is not NAME"),
        ({"certificate": "none"}, "credential certificate: it holds no certificate in PEM"),
        (
            {"certificate": GOOD["certificate"].replace("MI", "!!", 1)},
            "credential certificate line 1: the certificate cannot be read",
        ),
        (
            {"certificate": OURS.certify(KEY, end=AT - DAY)},
            "credential certificate line 1: the certificate has expired at 2026-05-31 00:00 UTC; renew it",
        ),
        (
            {"certificate": f"a note\n{OURS.certify(KEY, begin=AT + DAY, end=AT + 99 * DAY)}"},
            "credential certificate line 2: the certificate is good from 2026-06-02 00:00 UTC only",
        ),
        ({"key": written(KEY, b"x")}, "credential key: the key needs a passphrase"),
        (
            {"key": written(ec.generate_private_key(ec.SECP256R1()))},
            "credential key: it is not the key of credential certificate; put the two in place together",
        ),
        ({"ca": Authority("gone", AT - DAY).pem}, "credential ca line 1: the certificate has expired"),
        ({"crl": ""}, "credential crl: it holds no list of revoked certificates"),
        (
            {"crl": GOOD["crl"].replace("MI", "!!", 1)},
            "credential crl line 1: the list of revoked certificates cannot be read",
        ),
        (
            {"crl": OURS.revoking(end=AT - timedelta(hours=1))},
            "credential crl line 1: the list was good until",
        ),
        (
            {"crl": THEIRS.revoking()},
            "credential crl line 1: none of the authorities has signed the list of CN=theirs",
        ),
        (
            {"crl": Authority("ours").revoking()},
            "credential crl line 1: none of the authorities has signed the list of CN=ours",
        ),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_what_cannot_be_used_is_refused_with_its_line_whatever_is_said(
    tmp_path: Path, changed: dict[str, str], said: str, older: bool
) -> None:
    with pytest.raises(BadInput) as refused:
        require(tmp_path, changed, older=older)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"certificate": OURS.certify(KEY, end=AT + DAY)},
            "ends at 2026-06-02 00:00 UTC, before the one in use",
        ),
        (
            {"certificate": OURS.certify(KEY, names=("other.example.org",))},
            "does not name vpn.example.org, as the one in use does",
        ),
        ({"crl": OURS.revoking(begin=AT - 2 * DAY)}, "who was revoked since would be let in"),
    ],
)
def test_what_is_older_or_names_less_takes_somebody_who_means_it(
    tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    with pytest.raises(BadInput, match=f"{said}.*say --even-if-older"):
        require(tmp_path, changed)
    require(tmp_path, changed, older=True)
