"""What a hostile identity provider can do to the process that asks it: bounded answers, in a bounded time."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import RSAAlgorithm

from orchestrator.service import identity, provider_keys
from orchestrator.service.identity import MOST_BYTES, MOST_KEYS, IdentityProvider
from orchestrator.service.login_attempts import LoginAttempt
from policies.model.errors import NotAllowed, Unavailable
from policies.model.people import Oidc
from tests.fakes.connect_proxy import connect_proxy
from tests.fakes.hostile_peer import HEAD, Behaviour, HostilePeer, endless, hostile, named_by, says
from tests.patience import PATIENCE

SOON = 0.3
KEY = generate_private_key(65537, 2048)


@pytest.fixture
def peer() -> Iterator[HostilePeer]:
    with hostile() as found:
        yield found


@pytest.fixture
def provider(peer: HostilePeer, monkeypatch: pytest.MonkeyPatch) -> IdentityProvider:
    """Return a provider that may be asked again at once after it failed."""
    monkeypatch.setattr(provider_keys, "FAILED_SECONDS", 0.0)
    monkeypatch.setattr(provider_keys, "KEYS_AGAIN_SECONDS", 0.0)
    return IdentityProvider(Oidc(issuer=peer.url, audience="penstock", client="penstock"), None)


def document(body: object) -> bytes:
    said = json.dumps(body).encode()
    return HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(said) + said


def well(peer: HostilePeer, keys: Behaviour | None = None, code: Behaviour | None = None) -> Behaviour:
    """Return the behaviour of a provider: its discovery document, its keys and its endpoint of codes."""
    jwk = json.loads(RSAAlgorithm.to_jwk(KEY.public_key())) | {"kid": "k1", "alg": "RS256"}
    named = {"issuer": peer.url, "jwks_uri": f"{peer.url}/jwks", "token_endpoint": f"{peer.url}/token"}

    def answer(one: socket.socket) -> None:
        path = peer.requests[-1].split()[1]
        if path == b"/jwks":
            (keys or says(document({"keys": [jwk]})))(one)
        elif path == b"/token" and code is not None:
            code(one)
        else:
            says(document(named))(one)

    return answer


def read(provider: IdentityProvider) -> str | None:
    """Have the documents read; return why the keys are not known, None where they are."""
    reading = provider.keys.again()
    assert reading is not None
    reading.ends.result(PATIENCE)
    return provider.keys.failure


ENDLESS = endless(HEAD + b"\r\n", b" " * 65_536)


@pytest.mark.parametrize("which", ["discovery", "keys"])
def test_a_document_without_end_is_refused_at_its_bound_and_the_next_one_is_read(
    which: str, provider: IdentityProvider, peer: HostilePeer
) -> None:
    peer.behaves = ENDLESS if which == "discovery" else well(peer, keys=ENDLESS)
    assert f"more than {MOST_BYTES} bytes" in str(read(provider))
    peer.behaves = well(peer)
    assert read(provider) is None
    assert [one.key_id for one in provider.keys.held().keys] == ["k1"]


@pytest.mark.parametrize("which", ["discovery", "keys"])
def test_a_document_that_drips_ends_at_its_deadline_and_the_next_one_is_read(
    which: str, provider: IdentityProvider, peer: HostilePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drips = peer.drips(HEAD + b"\r\n")
    with monkeypatch.context() as patched:
        patched.setattr(identity, "ANSWER_SECONDS", SOON if which == "discovery" else 10 * SOON)
        peer.behaves = drips if which == "discovery" else well(peer, keys=drips)
        assert "did not answer within" in str(read(provider))
    peer.behaves = well(peer)
    assert read(provider) is None


def test_a_provider_outside_is_reached_through_the_proxy_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Companies reach it through a proxy: `HTTPS_PROXY` was read no more, and no login was possible."""
    tls, authority = named_by(tmp_path / "ca", "login.corp.example")
    authority.chmod(0o600)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with hostile(tls=tls) as outside, connect_proxy(outside.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        outside.url = "https://login.corp.example"
        outside.behaves = well(outside, code=says(document({"id_token": "a.b.c"})))
        found = Oidc(issuer=outside.url, audience="penstock", client="penstock")
        provider = IdentityProvider(found, authority)
        assert read(provider) is None
        with pytest.raises(NotAllowed):
            provider.redeemed("code", LoginAttempt.begun("browser", "/"), "https://penstock/login/callback")
        paths = [one.split()[1] for one in outside.requests]
        targets = {one.split(b"\r\n")[0] for one in proxy.requests}
    assert paths[:3] == [b"/.well-known/openid-configuration", b"/jwks", b"/token"]
    assert targets == {b"CONNECT login.corp.example:443 HTTP/1.1"}


@pytest.mark.parametrize("drips", [True, False], ids=["drips", "endless"])
def test_an_answer_to_a_code_is_bounded_too(
    drips: bool, provider: IdentityProvider, peer: HostilePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.behaves = well(peer, code=peer.drips(HEAD + b"\r\n") if drips else ENDLESS)
    assert read(provider) is None
    monkeypatch.setattr(identity, "ANSWER_SECONDS", SOON if drips else identity.ANSWER_SECONDS)
    with pytest.raises(Unavailable, match="within 0.3 s" if drips else f"more than {MOST_BYTES}"):
        provider.redeemed("code", LoginAttempt.begun("browser", "/"), "https://penstock/login/callback")


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"keys": [{"kid": "a", "kty": "RSA"}] * (MOST_KEYS + 1)}, f"more than {MOST_KEYS}"),
        ({"keys": [{"kid": "a", "kty": "RSA", "n": ["b"], "e": 7}]}, "cannot be read"),
        ({"keys": []}, "did not contain any keys"),
        ({"keys": 7}, "cannot be read"),
        ({}, "cannot be read"),
        ([], "cannot be read"),
        ("a", "cannot be read"),
    ],
)
def test_keys_of_another_shape_are_no_keys(
    keys: object, why: str, provider: IdentityProvider, peer: HostilePeer
) -> None:
    peer.behaves = well(peer, keys=says(document(keys)))
    assert why in str(read(provider))


def test_json_that_is_nested_deeply_is_refused(provider: IdentityProvider, peer: HostilePeer) -> None:
    deep = b"[" * 200_000
    peer.behaves = says(HEAD + b"Content-Length: %d\r\n\r\n" % len(deep) + deep)
    assert "nested too deeply" in str(read(provider))


def test_a_redirect_of_the_provider_is_not_followed(provider: IdentityProvider, peer: HostilePeer) -> None:
    peer.behaves = says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    assert "answers 302" in str(read(provider))


def test_a_token_of_a_held_key_is_verified_as_before(provider: IdentityProvider, peer: HostilePeer) -> None:
    peer.behaves = well(peer)
    assert read(provider) is None
    token = jwt.encode({"iss": "another"}, KEY, "RS256", headers={"kid": "k1"})
    with pytest.raises(NotAllowed):
        provider.vouched(token)
