"""Who asks, on the network: people of a real identity provider, with TLS, at a terminal and with a token."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from orchestrator.api import peer
from orchestrator.processes.api import serving
from orchestrator.processes.listening import port_at
from orchestrator.service.provider_keys import KEYS_AGAIN_SECONDS
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.people import Role
from tests.fakes.identity_provider import IdentityProvider
from tests.service.command_line import CommandLine, Ended

PEOPLE = """\
apiVersion: penstock/v1
oidc:
  issuer: {issuer}
  audience: penstock
  client: penstock
  {names}
people:
  - {{name: ana, subjects: [{ana}], roles: {{edge: [operator]}}}}
groups:
  - {{name: auditors, roles: {{"*": [auditor]}}}}
"""


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityProvider]:
    if shutil.which("glewlwyd") is None:
        pytest.fail("glewlwyd is not installed: ./run test installs it")
    with IdentityProvider(tmp_path_factory.mktemp("idp") / "provider") as found:
        found.add("ana")
        found.add("berta", "auditors", "singers")
        found.add("carl", "singers")
        found.add("root", "auditors")
        found.add_client("wiki")
        yield found


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


@dataclass(frozen=True)
class Certified:
    """A certificate for 127.0.0.1, which is its own authority."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found.load_cert_chain(self.certificate, self.key)
        return found


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    folder, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "penstock")])
    place = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(place, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    found = Certified(folder / "certificate.pem", folder / "key.pem")
    found.certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    no_password = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    found.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, no_password))
    return found


@pytest.fixture
async def url(
    service: Service, certified: Certified, provider: IdentityProvider, tmp_path: Path
) -> AsyncIterator[str]:
    """Where the API answers on the network, with TLS."""
    write_people(tmp_path, provider)
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    place = f"https://127.0.0.1:{at.getsockname()[1]}"
    async with serving(service, at, tls=certified.context()):
        yield place


@pytest.fixture
async def network(url: str, certified: Certified) -> AsyncIterator[httpx.AsyncClient]:
    trust = ssl.create_default_context(cafile=certified.certificate)
    async with httpx.AsyncClient(base_url=f"{url}/v1", verify=trust) as client:
        yield client


def write_people(folder: Path, provider: IdentityProvider, names: str = "") -> None:
    ana = claims_of(provider.logged_in("ana"))["sub"]
    text = PEOPLE.format(issuer=provider.issuer, names=names, ana=ana)
    (folder / "people.yaml").write_text(text)


async def who(network: httpx.AsyncClient, token: str) -> tuple[int, dict[str, Any]]:
    answer = await network.get("/whoami", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code, answer.json()


async def test_a_person_is_who_the_provider_vouches_for(
    network: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    status, found = await who(network, provider.logged_in("ana"))
    assert (status, found["person"], found["machine"]) == (200, "ana", False)
    assert found["roles"] == {"edge": ["operator"]}


async def test_a_subject_that_nobody_lists_is_nobody(
    network: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    status, problem = await who(network, provider.logged_in("carl"))
    assert status == 403
    assert "nobody who is known here" in problem["detail"]


async def test_groups_give_roles_to_people_whom_the_provider_names(
    network: httpx.AsyncClient, provider: IdentityProvider, tmp_path: Path
) -> None:
    berta = provider.logged_in("berta")
    assert (await who(network, berta))[0] == 403
    write_people(tmp_path, provider, "name_claim: username")
    _, found = await who(network, berta)
    assert (found["person"], found["roles"]) == ("berta", {"*": ["auditor"]})
    assert (await who(network, provider.logged_in("carl")))[0] == 403


async def test_one_person_whom_the_provider_renames_is_no_second_person(
    network: httpx.AsyncClient, provider: IdentityProvider, ledger: Ledger, tmp_path: Path
) -> None:
    write_people(tmp_path, provider, "name_claim: username")
    berta = provider.logged_in("berta")
    ledger.know_login(f"{provider.issuer} {claims_of(berta)['sub']}", "bertha")
    status, problem = await who(network, berta)
    assert status == 403
    assert "is bertha: an administrator adds the subject to people.yaml" in problem["detail"]


async def test_a_token_without_groups_is_refused_with_the_claim_that_it_does_not_have(
    network: httpx.AsyncClient, provider: IdentityProvider, tmp_path: Path
) -> None:
    write_people(tmp_path, provider, "name_claim: username")
    status, problem = await who(network, provider.logged_in("berta", scope="openid"))
    assert status == 403
    assert "the token has no claim groups: have the provider add it" in problem["detail"]


async def test_a_name_that_somebody_had_first_is_nobody_elses(
    network: httpx.AsyncClient, provider: IdentityProvider, ledger: Ledger, tmp_path: Path
) -> None:
    write_people(tmp_path, provider, "name_claim: username")
    ledger.know_login(f"{provider.issuer} another", "berta")
    assert (await who(network, provider.logged_in("berta")))[0] == 403


async def test_the_provider_names_nobody_who_is_somebody_else_here(
    network: httpx.AsyncClient, provider: IdentityProvider, tmp_path: Path
) -> None:
    write_people(tmp_path, provider, "name_claim: username")
    status, problem = await who(network, provider.logged_in("root"))
    assert status == 403
    assert "somebody else here" in problem["detail"]


async def test_a_login_to_another_program_is_none_here(
    network: httpx.AsyncClient, provider: IdentityProvider, ledger: Ledger, service: Service
) -> None:
    status, problem = await who(network, provider.logged_in("ana", "wiki"))
    assert status == 403
    assert "is none of" in problem["detail"]
    assert await service.write_refusals() == 1
    assert [entry.action for entry in ledger.audit_entries()][-1] == "token refused"


def forged(provider: IdentityProvider, **changes: Any) -> str:
    """Return a token that says the same of ana, signed by somebody else."""
    claims = claims_of(provider.logged_in("ana")) | changes
    key = rsa.generate_private_key(65537, 2048)
    return jwt.encode(claims, key, "RS256", headers={"kid": "first"})


def unsigned(provider: IdentityProvider) -> str:
    return jwt.encode(claims_of(provider.logged_in("ana")), "", "none")


def with_the_public_key_as_a_secret(provider: IdentityProvider) -> str:
    """Return the classic: an HMAC whose secret is the provider's public key."""
    public = httpx.get(f"{provider.issuer}/jwks").text
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"first"}').rstrip(b"=").decode()
    body = provider.logged_in("ana").split(".")[1]

    mac = hmac.digest(public.encode(), f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def altered(provider: IdentityProvider) -> str:
    head, body, signature = provider.logged_in("carl").split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["sub"] = claims_of(provider.logged_in("ana"))["sub"]
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{head}.{changed}.{signature}"


def nonsense(provider: IdentityProvider) -> str:
    del provider
    return "a.b.c"


def endless(provider: IdentityProvider) -> str:
    del provider
    return "x" * 5000


@pytest.mark.parametrize(
    "make",
    [forged, unsigned, with_the_public_key_as_a_secret, altered, nonsense, endless],
)
async def test_what_the_provider_did_not_sign_vouches_for_nobody(
    make: Callable[[IdentityProvider], str], network: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    status, problem = await who(network, make(provider))
    assert status == 403, problem
    assert "is none of" in problem["detail"]


async def test_a_login_is_over_when_its_time_is(
    network: httpx.AsyncClient, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.token_life(1)
    try:
        token = provider.logged_in("ana")
    finally:
        provider.token_life(600)
    assert (await who(network, token))[0] == 200
    monkeypatch.setattr("orchestrator.service.identity.LEEWAY_SECONDS", 0.0)
    await asyncio.sleep(2.1)
    status, problem = await who(network, token)
    assert (status, problem["detail"]) == (403, "this login is over; log in again")


async def test_the_provider_may_change_its_keys(
    network: httpx.AsyncClient, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.service.provider_keys.KEYS_AGAIN_SECONDS", 0.0)
    assert KEYS_AGAIN_SECONDS > 0
    before = provider.logged_in("ana")
    assert (await who(network, before))[0] == 200
    provider.rotate_keys()
    assert (await who(network, provider.logged_in("ana")))[0] == 200
    assert (await who(network, before))[0] == 403


async def test_a_provider_that_is_away_makes_nobody_known_and_nobody_a_stranger(
    network: httpx.AsyncClient, provider: IdentityProvider, tmp_path: Path
) -> None:
    token = provider.logged_in("ana")
    assert (await network.get("/login")).status_code == 200
    people = (tmp_path / "people.yaml").read_text()
    away = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", people)
    (tmp_path / "people.yaml").write_text(away)
    status, problem = await who(network, token)
    assert (status, problem["code"]) == (503, "NotOrdered")
    assert (await network.get("/login")).status_code == 503


async def test_whoever_is_taken_out_of_the_file_is_nobody_at_once(
    network: httpx.AsyncClient, provider: IdentityProvider, tmp_path: Path
) -> None:
    token = provider.logged_in("ana")
    assert (await who(network, token))[0] == 200
    people = (tmp_path / "people.yaml").read_text()
    (tmp_path / "people.yaml").write_text(re.sub(r"people:\n.*\n", "people: []\n", people))
    assert (await who(network, token))[0] == 403


async def test_a_file_that_others_may_write_lets_nobody_in(
    network: httpx.AsyncClient, provider: IdentityProvider, tmp_path: Path
) -> None:
    token = provider.logged_in("ana")
    (tmp_path / "people.yaml").chmod(0o666)
    status, problem = await who(network, token)
    assert status >= 400
    assert "chmod go-w" in problem["detail"]
    (tmp_path / "people.yaml").chmod(0o644)
    assert (await who(network, token))[0] == 200


async def test_on_the_network_nobody_is_anybody_without_saying_who(network: httpx.AsyncClient) -> None:
    answer = await network.get("/whoami")
    assert answer.status_code == 401
    assert [offer["verb"] for offer in answer.json()["next"]] == ["login"]


@pytest.mark.sweep
async def test_a_stranger_who_never_shakes_hands_is_let_go(
    url: str, network: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    del monkeypatch
    host, port = url.removeprefix("https://").split(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
    assert (await network.get("/login")).status_code == 200
    began = time.monotonic()
    async with asyncio.timeout(peer.PATIENCE_SECONDS * 3):
        for reader, writer in silent:
            await reader.read()
            writer.close()
    assert time.monotonic() - began < peer.PATIENCE_SECONDS * 2


@pytest.fixture
def terminal(url: str, certified: Certified, tmp_path: Path) -> CommandLine:
    """Somebody at a terminal far from the orchestrator's host."""
    return CommandLine(
        {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.fspath(Path.cwd()),
            "PENSTOCK_URL": url,
            "PENSTOCK_AUTHORITIES": os.fspath(certified.certificate),
            "XDG_CONFIG_HOME": os.fspath(tmp_path / "configuration"),
        }
    )


async def logged_in_at(terminal: CommandLine, provider: IdentityProvider, person: str) -> Ended:
    """Log in at the terminal, and say yes in a browser."""
    confirmed: list[str] = []

    async def browser(line: str) -> None:
        if found := re.search(r"Open (\S+) and compare the code: (\S+)", line):
            await asyncio.to_thread(provider.confirm, person, found[1])
            confirmed.append(found[2])

    logged_in = await terminal.watched(browser, "login")
    assert logged_in.code == 0, logged_in.err
    assert confirmed
    return logged_in


async def test_a_login_at_a_terminal_has_the_groups_and_the_name_that_the_provider_gives_by_scope(
    terminal: CommandLine, network: httpx.AsyncClient, provider: IdentityProvider, tmp_path: Path
) -> None:
    write_people(tmp_path, provider, "name_claim: email")
    requested = (await network.get("/login")).json()["scopes"]
    assert requested == ["openid", "groups", "email", "offline_access"]
    logged_in = await logged_in_at(terminal, provider, "berta")
    assert "You are berta@corp.example at" in logged_in.out
    found = json.loads((await terminal("whoami", "-o", "json")).out)["data"]
    assert found["roles"] == {"*": ["auditor"]}


async def test_a_person_logs_in_at_a_terminal_and_says_yes_in_a_browser(
    terminal: CommandLine, provider: IdentityProvider, tmp_path: Path
) -> None:
    refused = await terminal("whoami")
    assert refused.code == 4
    assert "Next: penstock login" in refused.err
    logged_in = await logged_in_at(terminal, provider, "ana")
    assert "You are ana at https://127.0.0.1" in logged_in.out
    kept = tmp_path / "configuration/penstock/logins.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads((await terminal("whoami", "-o", "json")).out)["data"]["person"] == "ana"
    assert "is forgotten" in (await terminal("logout")).out
    assert (await terminal("whoami")).code == 4


async def test_no_token_travels_without_tls(terminal: CommandLine) -> None:
    refused = await terminal("whoami", PENSTOCK_URL="http://gateway.example:80", PENSTOCK_TOKEN="pst_x")
    assert refused.code == 2
    assert "without TLS" in refused.err


async def test_a_machine_shows_its_token_on_the_network(terminal: CommandLine, ledger: Ledger) -> None:
    secret, _ = ledger.make_token("robot", {"edge": frozenset({Role.VIEWER})}, timedelta(days=1), "root")
    found = await terminal("whoami", PENSTOCK_TOKEN=secret)
    assert "robot (a machine)" in found.out
