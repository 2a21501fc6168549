"""What leaves a gateway in a snapshot: evidence, no secret, no name and no client's address."""

import string
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.pseudonyms import LEFT_OUT, Pseudonyms
from policies.redaction import REMOVED, with_short_lines, without_secrets, without_tokens

CONFIG = """\
# a comment about secrets
tcp-port = 4431
auth = "plain[passwd=/etc/penstock/credentials/users]"
server-key = /etc/penstock/credentials/key
radius-secret = hunter2
cookie-timeout = 300
pin = "1234 5678"
cert-user-oid = 0.9.2342.19200300.100.1.1
connect-script = /usr/bin/tell --api-token hunter3 https://ana:hunter4@ldap.example/x
# radius password = hunter5
motd = $6$salt$abcdefgh
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIB
-----END EC PRIVATE KEY-----
"""
LOGS = sorted((Path(__file__).parents[1] / "drivers" / "logs").glob("*.log"))

KEYED, UNKEYED = Pseudonyms(b"k" * 32, addresses=True), Pseudonyms(b"s" * 16, addresses=False)

secrets = st.text(
    string.ascii_letters + string.digits + "-_.~+/=!@#%^&*$|:?", min_size=8, max_size=60
).filter(lambda secret: secret[0].isalnum() and not set(secret) <= set("/.-_"))
"""What is not in the words around it; a value that begins like a path in a config is one."""

around = st.sampled_from(("", " ", "worker: ", "2026-11-22 15:06:28 main[ana]: ", '{"a": "b"} ', "x=1 "))

SPOKEN = (
    "--api-token {}",
    "--api-token={}",
    "vault login -token={}",
    "--admin-password '{}'",
    "Authorization: Bearer {}",
    "authorization: Basic {}",
    "Proxy-Authorization: Negotiate {}",
    "X-Auth-Token: {}",
    "X-Api-Key: {}",
    "x-corp-authenticated: {}",
    "X-Hub-Signature-256: {}",
    "X-Vault-Token:{}",
    "Cookie: webvpn={}; webvpncontext={}",
    "Set-Cookie: a=b; session_id={}; Secure",
    "https://ana:{}@repo.example/x",
    "postgresql+psycopg://{}@db/x",
    "GET /v1/x?user=ana&access_token={}&y=1 HTTP/1.1",
    "password={}",
    "password = '{}'",
    'radius_secret="{}"',
    'said {{"password": "{}", "user": "ana"}}',
    "passphrase: two words {}",
    "export API_KEY={}",
    "ssl.private_key={}",
    "bearer {}",
    "<password>{}</password></auth>",
    "<auth><secondary_password>{}</secondary_password></auth>",
    "<Password kind='1'>{}",
    "<x:session-token><![CDATA[{}]]></x:session-token>",
    "<session-token/><password value='{}'/>",
    "<login secondary_password='{}'/>",
    "POST body: 'username=ana&answer={}",
)


def test_secrets_are_removed_and_what_only_leads_to_them_stays() -> None:
    said = without_secrets(CONFIG)
    for kept in ("tcp-port = 4431", "passwd=/etc/penstock/credentials/users", "credentials/key", "300"):
        assert kept in said
    for secret in ("hunter", "1234 5678", "$6$salt", "MHcCAQEEIB"):
        assert secret not in said
    assert f"radius-secret = {REMOVED}" in said


@given(st.text("abcdefghij0123456789", min_size=8, max_size=20))
def test_no_literal_secret_survives(secret: str) -> None:
    said = without_secrets(f"shared-secret = x{secret}x\ntcp-port = 1\n")
    assert f"x{secret}x" not in said
    assert "tcp-port = 1" in said


@pytest.mark.parametrize("spoken", SPOKEN)
@given(before=around, secret=secrets, after=st.sampled_from(("", " ", "\nnext line", ", done")))
def test_no_secret_survives_wherever_a_program_says_it(
    spoken: str, before: str, secret: str, after: str
) -> None:
    text = before + spoken.format(secret, secret) + after
    assert secret not in without_tokens(text), without_tokens(text)
    assert secret not in without_secrets(f"connect-script = {text}\n")


@given(st.binary(min_size=20, max_size=100), st.integers(0, 3))
def test_no_private_key_survives_and_neither_does_half_of_one(content: bytes, cut: int) -> None:
    lines = ["-----BEGIN PRIVATE KEY-----", content.hex(), content.hex()[::-1], "-----END PRIVATE KEY-----"]
    for part in (lines[cut:], lines[: 4 - cut]):
        if any(line.startswith("-----") for line in part):
            said = without_tokens("\n".join(part))
            assert content.hex() not in said
            assert content.hex()[::-1] not in said


def test_the_end_of_a_password_with_which_a_log_begins_is_removed() -> None:
    assert without_tokens("unter2</password></auth>'\nmore\n") == f"{REMOVED}</password></auth>'\nmore\n"


def test_a_secret_on_a_line_of_its_own_is_removed_from_its_element() -> None:
    assert without_tokens("<password>\nhunter2\n</password>") == f"<password>{REMOVED}</password>"


def test_an_element_without_content_takes_nothing_behind_it_along() -> None:
    said = without_tokens("<session-id/><auth><username>ana</username><password>hunter2</password></auth>")
    assert said == f"<session-id/><auth><username>ana</username><password>{REMOVED}</password></auth>"


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_a_daemons_own_log_still_says_what_happened(log: Path) -> None:
    lines = log.read_text().splitlines()
    changed = [line for line in lines if without_tokens(line) != line]
    assert len(changed) <= len(lines) / 100, changed[:20]


def test_the_same_name_is_the_same_word_and_another_under_another_key() -> None:
    log = "worker[ana]: hello\nmain[ana]: bye ana\nworker[anabel]: hello\n"
    said = KEYED.without_names(log, {"ana", "anabel"})
    words = {word for word in said.replace("[", " ").replace("]", " ").split() if word.startswith("user-")}
    assert len(words) == 2
    assert "ana" not in said
    assert KEYED.without_names(log, {"ana"}) != UNKEYED.without_names(log, {"ana"})


def is_somebodys(address: IPv4Address | IPv6Address) -> bool:
    meant = (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
    return not (meant.is_loopback or meant.is_unspecified)


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(is_somebodys)
joints = st.sampled_from(
    ("", " ", "[", "]:443", ":443", "/32", ": hello", ".", ",", "x", "%eth0 ", "peer=", "\n")
)


@given(address=addresses, before=joints, after=joints, spelling=st.sampled_from(("plain", "long", "mapped")))
def test_no_clients_address_survives_however_it_is_written(
    address: IPv4Address | IPv6Address, before: str, after: str, spelling: str
) -> None:
    written = str(address)
    if spelling == "long":
        written = address.exploded.upper()
    elif spelling == "mapped" and isinstance(address, IPv4Address):
        written = f"::ffff:{address}"
    for words in (KEYED, UNKEYED):
        said = words.without_addresses(f"{before}{written}{after}")
        assert str(address) not in said
        assert written not in said


@given(address=addresses)
def test_the_same_client_is_the_same_word_in_every_snapshot_of_a_fleet(
    address: IPv4Address | IPv6Address,
) -> None:
    again = Pseudonyms(b"k" * 32, addresses=True)
    said = KEYED.without_addresses(f"from {address} to you")
    assert said == again.without_addresses(f"from {address.exploded} to you")
    assert said.startswith("from client-")
    assert said != Pseudonyms(b"o" * 32, addresses=True).without_addresses(f"from {address} to you")
    assert UNKEYED.without_addresses(f"from {address} to you") == f"from {LEFT_OUT} to you"


@pytest.mark.parametrize(
    "letter",
    ["a", "1", ":", "1.", "a:", "token", "a1-", "--", "://", "bearer ", "<", "<password ", "<a>", "</"],
)
def test_a_line_of_any_length_takes_no_time(letter: str) -> None:
    line, began = letter * (65536 // len(letter)), time.process_time()
    KEYED.without_addresses(without_secrets(f"motd = {line}") + without_tokens(line))
    assert time.process_time() - began < 5


def test_a_client_seen_by_ipv6_and_by_ipv4_is_one() -> None:
    first, second = (KEYED.without_addresses(said) for said in ("192.0.2.7", "::ffff:192.0.2.7"))
    assert first == second


@pytest.mark.parametrize(
    "kept",
    [
        "at 10:11:12 the worker said",
        "2026-11-22T15:06:28.123 UTC",
        "version 1.3.0 of 2026-11-22",
        "listening on 127.0.0.1:443 and [::1]:443 and 0.0.0.0",
        "sec-mod: a::b",
        "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "ip daddr 192.0.2.11 tcp dport 443",
    ],
)
def test_what_is_no_clients_address_stays(kept: str) -> None:
    said = UNKEYED.without_addresses(kept, {ip_address("192.0.2.11"), ip_address("a::b")})
    assert said == kept


INLINE = (
    "tls-crypt",
    "tls-auth",
    "tls-crypt-v2",
    "secret",
    "auth-user-pass",
    "key",
    "pkcs12",
    "anything-new",
)


@pytest.mark.parametrize("option", INLINE)
@pytest.mark.parametrize("form", ["<{0}>\n{1}\n</{0}>", "  <{0}> # ours\n{1}\n  </{0}>\n", "<{0}>\n{1}\n"])
def test_a_file_within_openvpns_config_leaves_nothing_but_its_name(option: str, form: str) -> None:
    config = "verb 4\n" + form.format(option, "ana\n0123456789abcdef hunter2") + "\n"
    told = without_secrets(config)
    assert "hunter2" not in told
    assert "ana" not in told
    assert f"<{option}>" in told
    assert "verb 4" in told


@pytest.mark.parametrize("option", ["ca", "cert", "extra-certs", "dh"])
def test_certificates_within_openvpns_config_stay(option: str) -> None:
    config = f"<{option}>\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n</{option}>\n"
    assert without_secrets(config) == config


@pytest.mark.parametrize(
    "kind",
    [
        "OpenVPN Static key V1",
        "OpenVPN tls-crypt-v2 server key",
        "OpenVPN tls-crypt-v2 client key",
        "PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "private key",
        "PGP PRIVATE KEY BLOCK",
    ],
)
@pytest.mark.parametrize("redact", [without_secrets, without_tokens])
def test_a_block_that_is_a_key_is_removed_whatever_it_is_called(
    kind: str, redact: Callable[[str], str]
) -> None:
    block = f"-----BEGIN {kind}-----\nhunter2\n-----END {kind}-----"
    for text in (f"a\n{block}\nz", f"a\n{block[:-30]}", f"{block[20:]}\nz"):
        assert "hunter2" not in redact(text), text


def test_a_line_that_no_daemon_writes_is_cut_and_all_others_stay() -> None:
    """L7: names were looked for in a line of 64 KiB, which takes seconds of the agent's loop."""
    log = f"one\n{'user ' * 10_000}\nlast"
    first, long, last = with_short_lines(log).splitlines()
    assert (first, last) == ("one", "last")
    assert len(long) < 4_200
    assert long.endswith("[the rest of this line was cut]")
    assert with_short_lines("one\ntwo\n") == "one\ntwo\n"
