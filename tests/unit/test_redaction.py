"""What leaves a gateway in a snapshot: evidence, no secret and no name."""

from hypothesis import given
from hypothesis import strategies as st

from policies.redaction import REMOVED, without_names, without_secrets

CONFIG = """\
# a comment about secrets
tcp-port = 4431
auth = "plain[passwd=/etc/penstock/credentials/users]"
server-key = /etc/penstock/credentials/key
radius-secret = hunter2
cookie-timeout = 300
pin = "1234 5678"
cert-user-oid = 0.9.2342.19200300.100.1.1
motd = $6$salt$abcdefgh
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIB
-----END EC PRIVATE KEY-----
"""


def test_secrets_are_removed_and_what_only_leads_to_them_stays() -> None:
    said = without_secrets(CONFIG)
    for kept in ("tcp-port = 4431", "passwd=/etc/penstock/credentials/users", "credentials/key", "300"):
        assert kept in said
    for secret in ("hunter2", "1234 5678", "$6$salt", "MHcCAQEEIB"):
        assert secret not in said
    assert f"radius-secret = {REMOVED}" in said


@given(st.text("abcdefghij0123456789", min_size=8, max_size=20))
def test_no_literal_secret_survives(secret: str) -> None:
    said = without_secrets(f"shared-secret = x{secret}x\ntcp-port = 1\n")
    assert f"x{secret}x" not in said
    assert "tcp-port = 1" in said


def test_the_same_name_is_the_same_word_within_one_text_and_another_in_the_next() -> None:
    log = "worker[ana]: hello\nmain[ana]: bye ana\nworker[anabel]: hello\n"
    said = without_names(log, {"ana", "anabel"}, "salt")
    words = {word for word in said.replace("[", " ").replace("]", " ").split() if word.startswith("user-")}
    assert len(words) == 2
    assert "ana" not in said
    assert without_names(log, {"ana"}, "other salt") != without_names(log, {"ana"}, "salt")
