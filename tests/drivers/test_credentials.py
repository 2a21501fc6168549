"""Credentials come from where their reference says, and show up nowhere else."""

import json
from pathlib import Path

import pytest

from activities.drivers.credentials import Credentials
from policies.model.errors import BadInput, PenstockError, Unavailable
from tests.fakes.hostile import HostileServer, Peer, Request

SECRET = "correct-horse-battery-staple"


def vault(request: Request, peer: Peer) -> None:
    """Answer as Vault's KV version 2 does."""
    if request.headers.get("authorization") != "Bearer vault-token":
        peer.head("403 Forbidden", Content_Length=0)
    elif request.path == "/v1/secret/data/penstock":
        body = json.dumps({"data": {"data": {"token": SECRET}, "metadata": {"version": 1}}})
        peer.head(Content_Length=len(body))
        peer.send(body)
    else:
        peer.head("404 Not Found", Content_Length=0)


def test_a_file_and_a_variable_are_read_at_the_moment_of_use(tmp_path: Path) -> None:
    credentials = Credentials({"TOKEN": SECRET})
    (tmp_path / "token").write_text(f"{SECRET}\n")
    (tmp_path / "token").chmod(0o600)
    for reference in (f"file:{tmp_path / 'token'}", "env:TOKEN"):
        found = credentials.resolve(reference)
        assert found.get_secret_value() == SECRET
        assert SECRET not in f"{found} {found!r}"


def test_a_list_of_revoked_certificates_may_be_read_by_all(
    tmp_path: Path,
) -> None:
    (tmp_path / "list").write_text("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    (tmp_path / "list").chmod(0o644)
    reference = Credentials({}).secret(f"file:{tmp_path / 'list'}")
    assert reference().startswith("-----BEGIN X509 CRL-----")
    assert str(reference) == f"file:{tmp_path / 'list'}"


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "content",
    [
        CERTIFICATE,
        f"Certificate:\n    Data:\n        Version: 3 (0x2)\n{CERTIFICATE}",
        f"Bag Attributes\n    friendlyName: x\n{CERTIFICATE}",
        f"# our authority\n{CERTIFICATE}",
        f"\ufeff{CERTIFICATE}",
        CERTIFICATE.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        CERTIFICATE.replace("CERTIFICATE", "DH PARAMETERS"),
        "ana,10.80.0.10\nbert,10.80.0.11,fd00::11\n",
    ],
)
def test_what_is_for_everybody_may_be_read_by_all(content: str, tmp_path: Path) -> None:
    """R11, a fresh reader's F10."""
    (tmp_path / "given").write_text(content)
    (tmp_path / "given").chmod(0o644)
    assert Credentials({}).secret(f"file:{tmp_path / 'given'}")() == content.strip()


@pytest.mark.parametrize(
    "content",
    [
        SECRET,
        f"{CERTIFICATE}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        f"{CERTIFICATE}-----BEGIN OpenVPN Static key V1-----\naaaa\n-----END OpenVPN Static key V1-----\n",
        f"{CERTIFICATE}ana:*:$5$abc$def\n",
        "ana:*:$5$abc$def\n",
        f"ana,10.80.0.10\n{SECRET}\n",
        "ana,secret\n",
    ],
)
def test_what_opens_something_may_be_read_by_its_owner_alone(content: str, tmp_path: Path) -> None:
    """R11, a fresh reader's F10."""
    (tmp_path / "given").write_text(content)
    (tmp_path / "given").chmod(0o644)
    with pytest.raises(BadInput):
        Credentials({}).secret(f"file:{tmp_path / 'given'}")()


def test_a_credential_that_is_no_text_is_refused_with_what_to_write(tmp_path: Path) -> None:
    """R11, a fresh reader's F10."""
    (tmp_path / "given").write_bytes(b"\x30\x82\xff\xfe")
    (tmp_path / "given").chmod(0o600)
    with pytest.raises(BadInput, match="is no text; write it in PEM"):
        Credentials({}).secret(f"file:{tmp_path / 'given'}")()


def test_vault_is_asked_over_its_own_api(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("vault-token")
    (tmp_path / "token").chmod(0o600)
    with HostileServer(vault) as server:
        credentials = Credentials({"VAULT_ADDR": server.url, "VAULT_TOKEN_FILE": str(tmp_path / "token")})
        assert credentials.resolve("vault:secret/data/penstock#token").get_secret_value() == SECRET
        with pytest.raises(BadInput):
            credentials.resolve("vault:secret/data/penstock#other")
        with pytest.raises(Unavailable):
            credentials.resolve("vault:secret/data/other#token")
        (tmp_path / "token").write_text("another-token")
        with pytest.raises(Unavailable) as refused:
            credentials.resolve("vault:secret/data/penstock#token")
    assert "another-token" not in str(refused.value)


@pytest.mark.parametrize(
    "reference",
    [
        "correct-horse",
        "file:/nowhere/at/all",
        "file:/dev/null",
        "env:NOT_SET",
        "env:EMPTY",
        "vault:secret/data/penstock#token",
    ],
)
def test_a_reference_that_leads_to_nothing_says_so_without_quoting_it(reference: str) -> None:
    with pytest.raises(PenstockError) as refused:
        Credentials({"EMPTY": ""}).resolve(reference)
    assert "correct-horse" not in str(refused.value)


def test_a_large_or_binary_file_is_no_credential(tmp_path: Path) -> None:
    for content in (b"x" * (16 * 2**20 + 1), b"\xff\xfe\xfd"):
        (tmp_path / "token").write_bytes(content)
        with pytest.raises(BadInput):
            Credentials({}).resolve(f"file:{tmp_path / 'token'}")
