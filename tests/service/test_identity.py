"""Whom callers are taken for: by what the provider signs, by user numbers, and by addresses."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm
from pydantic import ValidationError

from activities.files import parse
from orchestrator.cli.client import Problem, _require_usable
from orchestrator.processes.api import _certified
from orchestrator.service import people as people_module
from orchestrator.service.identity import IdentityProvider
from orchestrator.service.people import LoggedIn, PeopleFile
from orchestrator.settings import Settings
from policies.model.errors import BadInput, NotAllowed
from policies.model.people import Member, Oidc, People

KEY: RSAPrivateKey = generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """Answer on loopback with the discovery document and the keys of a provider."""

    class Provider(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            own = f"http://127.0.0.1:{server.server_port}"
            key = json.loads(RSAAlgorithm.to_jwk(KEY.public_key())) | {"kid": "k1", "alg": "RS256"}
            document = {"issuer": own, "jwks_uri": f"{own}/jwks"}
            said = json.dumps(document if "well-known" in self.path else {"keys": [key]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its port has it
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def signed(issuer: str, typ: str | None = "JWT", /, **claims: Any) -> str:
    now = int(time.time())
    said = {"iss": issuer, "aud": "penstock", "sub": "ana", "iat": now, "exp": now + 300} | claims
    return jwt.encode(said, KEY, "RS256", headers={"kid": "k1", "typ": typ})


def with_keys(issuer: str) -> IdentityProvider:
    """Return the provider once its keys are held."""
    provider = IdentityProvider(Oidc(issuer=issuer, audience="penstock", client="penstock"), None)
    reading = provider.reading()
    assert reading is not None
    reading.block()
    return provider


def recognised(people: PeopleFile, shown: str) -> LoggedIn:
    """Return who shows this token, after the reading of keys that it needs."""
    if (reading := people.reading_for(shown)) is not None:
        reading.block()
    return people.of_login(shown)


LOGOUT: dict[str, dict[str, str]] = {"http://schemas.openid.net/event/backchannel-logout": {}}


@pytest.mark.parametrize(
    ("typ", "claims"),
    [
        ("at+jwt", {"scope": "openid", "client_id": "penstock"}),
        ("application/at+jwt", {}),
        ("logout+jwt", {"events": LOGOUT}),
        ("JWT", {"events": LOGOUT}),
        ("JWT", {"client_id": "wiki"}),
    ],
)
def test_what_the_provider_signs_and_is_no_login_for_penstock_logs_nobody_in(
    issuer: str, typ: str, claims: dict[str, Any]
) -> None:
    """L3: access tokens and back-channel logout tokens were taken as logins of their subject."""
    provider = with_keys(issuer)
    with pytest.raises(NotAllowed, match=r"no login but another token|was given to wiki"):
        provider.vouched(signed(issuer, typ, **claims))


ACCESS: dict[str, dict[str, Any]] = {
    "Keycloak": {"typ": "Bearer", "azp": "penstock", "aud": ["penstock", "account"], "sid": "1"},
    "Keycloak's refresh token": {"typ": "Refresh", "azp": "penstock"},
    "a scope": {"azp": "penstock", "scope": "openid profile"},
    "Entra": {"azp": "penstock", "azpacr": "0", "scp": "user_impersonation", "ver": "2.0", "oid": "1"},
    "Entra 1.0": {"appid": "penstock", "appidacr": "0", "roles": ["x"], "ver": "1.0"},
    "Okta": {"cid": "penstock", "scp": ["openid"], "ver": 1, "uid": "00u1"},
    "Okta without scopes": {"cid": "penstock"},
    "ADFS": {"apptype": "Public", "appid": "penstock", "scp": "openid", "ver": "1.0"},
}


@pytest.mark.parametrize("shape", ACCESS)
def test_an_access_token_of_the_provider_for_penstock_is_no_login(issuer: str, shape: str) -> None:
    """Its header has `typ: JWT`, and its audience and party are penstock's: only its claims differ."""
    with pytest.raises(NotAllowed, match="no login but another token"):
        with_keys(issuer).vouched(signed(issuer, **ACCESS[shape]))


@pytest.mark.parametrize(
    "claims",
    [
        {"typ": "ID", "azp": "penstock", "sid": "1", "acr": "1", "at_hash": "x", "auth_time": 1},
        {"ver": "2.0", "oid": "1", "tid": "2", "preferred_username": "ana", "rh": "x", "uti": "y"},
        {"ver": 1, "amr": ["pwd"], "idp": "00o1", "jti": "ID.1", "at_hash": "x"},
    ],
    ids=["Keycloak", "Entra", "Okta"],
)
def test_an_id_token_in_the_shape_of_a_provider_is_a_login(issuer: str, claims: dict[str, Any]) -> None:
    assert with_keys(issuer).vouched(signed(issuer, **claims)).subject == "ana"


@pytest.mark.parametrize("typ", ["JWT", "jwt", None])
def test_a_login_of_the_provider_is_one_whether_its_header_names_a_type_or_not(
    issuer: str, typ: str | None
) -> None:
    """L3, the other side: providers leave the type out."""
    provider = with_keys(issuer)
    assert provider.vouched(signed(issuer, typ, client_id="penstock")).subject == "ana"


def people_of(folder: Path, issuer: str, rest: str, **settings: str) -> PeopleFile:
    path, oidc = folder / "people.yaml", {"issuer": issuer, "audience": "penstock", "client": "penstock"}
    path.write_text(f"apiVersion: penstock/v1\noidc: {json.dumps(oidc | settings)}\n{rest}")
    path.chmod(0o600)
    return PeopleFile(path)


GROUPS = "groups: [{name: vpn-operators, roles: {edge: [operator]}}]\n"


@pytest.mark.parametrize(
    ("claims", "settings", "named"),
    [
        ({}, {}, "has no claim groups: have the provider add it to ID tokens, or list its scope"),
        ({"groups": ["sales"]}, {"name_claim": "email"}, "has no claim email: have the provider add it"),
        ({"groups": ["vpn-operators"]}, {"name_claim": "email"}, "has no claim email: have the provider"),
        ({"groups": ["vpn-operators"]}, {}, "its groups have roles, and oidc.name_claim is not set"),
        ({}, {"subject_claim": "oid"}, "has no claim oid: have the provider add it"),
        ({"_claim_names": {"groups": "src1"}}, {}, "has no claim groups: .* more than 200 groups"),
    ],
)
def test_a_refusal_names_the_configured_claim_that_the_token_does_not_have(
    issuer: str, tmp_path: Path, claims: dict[str, Any], settings: dict[str, str], named: str
) -> None:
    """The refusal named people.yaml alone, and the fault was at the provider."""
    people = people_of(tmp_path, issuer, GROUPS, **settings)
    with pytest.raises(NotAllowed, match=named) as refused:
        recognised(people, signed(issuer, **claims))
    assert "vpn-operators" not in str(refused.value)


@pytest.mark.parametrize(("rest", "claims"), [("", {}), (GROUPS, {"groups": []})])
def test_a_refusal_names_no_claim_that_people_yaml_does_not_read_or_that_the_token_has(
    issuer: str, tmp_path: Path, rest: str, claims: dict[str, Any]
) -> None:
    with pytest.raises(NotAllowed, match="nobody who is known here") as refused:
        recognised(people_of(tmp_path, issuer, rest), signed(issuer, **claims))
    assert "has no claim" not in str(refused.value)


def test_digits_alone_are_no_user_of_the_host_since_they_may_be_a_name_or_a_number() -> None:
    """L1: whoever had the user number 104523 was the person with the staff number 104523."""
    for written in ("104523", "uid:", "uid:x", "UID:5"):
        with pytest.raises(ValidationError):
            Member(name="emil", system_users=(written,))
    text = 'apiVersion: penstock/v1\npeople: [{name: emil, system_users: ["104523"]}]\n'
    with pytest.raises(BadInput, match="write a login name of this host, or uid: and a user number"):
        parse(text, "people.yaml", People)


def test_a_user_number_is_one_person_and_a_login_name_that_looks_like_it_is_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L1: a name and a number are told apart by how they are written."""
    path = tmp_path / "people.yaml"
    path.write_text('apiVersion: penstock/v1\npeople: [{name: emil, system_users: ["uid:104523"]}]\n')
    path.chmod(0o600)
    assert PeopleFile(path).at_the_socket(104523).person == "emil"
    monkeypatch.setattr(people_module, "system_name", lambda _: "104523")
    with pytest.raises(NotAllowed):
        PeopleFile(path).at_the_socket(700)


def test_a_host_whose_name_begins_like_an_address_of_this_host_gets_no_token_in_the_clear() -> None:
    """L6: `127.evil.example` was taken for an address of this host."""
    for url in ("http://127.evil.example", "http://127.0.0.1.example", "http://localhost.example"):
        with pytest.raises(Problem, match="without TLS"):
            _require_usable(url, "token")
    for url in ("http://127.0.0.1:8787", "http://127.1.2.3", "http://[::1]:8787"):
        _require_usable(url, "token")
    with pytest.raises(BadInput, match="can be reached by others"):
        _certified(Settings(), "127.evil.example:8787")
    assert _certified(Settings(), "127.0.0.1:8787") is None
    assert _certified(Settings(), "[::1]:8787") is None
