"""A key of a PKCS#11 token signs without leaving it, and says what is wrong with token, key or PIN."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typer.testing import CliRunner

from activities.drivers.signature.cms import CmsVerifier
from orchestrator.cli import release
from orchestrator.publishing.folder import publish, read_signatures
from policies.model.errors import BadInput, PenstockError
from policies.model.value import digest_of
from tests.fakes.authority import EnterpriseCa

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
STATEMENT = b'{"a statement": "of a release"}'
PIN = "24681357"


class Token:
    """A real SoftHSM with a token, and the keys that were put on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.corp = folder, EnterpriseCa(folder / "corp")
        (folder / "tokens").mkdir()
        (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
        self.environment = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
        self.run("--init-token", "--free", "--label", "releases", "--so-pin", "12345678")
        self.certificates = {
            "elliptic": self.put("elliptic", ec.generate_private_key(ec.SECP256R1()), "a1"),
            "rsa": self.put("rsa", rsa.generate_private_key(65537, 2048), "a2"),
        }

    def run(self, *arguments: str) -> None:
        command = ["softhsm2-util", *arguments, "--pin", PIN]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def put(self, label: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, number: str) -> Path:
        """Put a key on the token, and none of it anywhere else; return the file of its certificate."""
        file, certificate = self.corp.leaf(f"{label}@corp.example", key=key)
        self.run("--import", str(file), "--token", "releases", "--label", label, "--id", number)
        file.unlink()
        return certificate

    def uri(self, key: str) -> str:
        return f"pkcs11:token=releases;{key}?module-path={MODULE}"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    if shutil.which("softhsm2-util") is None or not MODULE.exists():
        pytest.skip("SoftHSM is not installed: apt-get install softhsm2")
    made = Token(tmp_path_factory.mktemp("token"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", made.environment["SOFTHSM2_CONF"])
        yield made


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish(tmp_path / "repository", STATEMENT, [], {})
    return tmp_path / "repository"


def sign(repository: Path, uri: str, certificate: Path, pin: str = PIN) -> None:
    """Sign on the command line, or raise the refusal."""
    word = repository.parent / "pin"
    word.write_text(f"{pin}\n")
    words = ["sign", digest_of(STATEMENT), "--repository", str(repository), "--pkcs11-key", uri]
    reading = os.open(word, os.O_RDONLY)
    words += ["--cms-certificates", str(certificate), "--passphrase-from", f"fd:{reading}"]
    result = CliRunner().invoke(release.app, words)
    if isinstance(result.exception, PenstockError):
        assert pin not in str(result.exception)
        raise result.exception
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("key", "name"), [("elliptic", "object=elliptic"), ("rsa", "id=%a2"), ("rsa", "object=rsa;id=%A2")]
)
def test_a_tokens_key_signs_as_its_certificate_says(
    token: Token, repository: Path, key: str, name: str
) -> None:
    sign(repository, token.uri(name), token.certificates[key])
    (envelope,) = read_signatures(repository, digest_of(STATEMENT))
    verifier = CmsVerifier({"corp": (token.corp.roots.read_bytes(), None)})
    found = verifier.verify(STATEMENT, envelope, datetime.now(UTC))
    assert (found.identity, found.payload_digest) == (f"{key}@corp.example", digest_of(STATEMENT))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pkcs11:token=none;object=rsa", "no such token: pkcs11:token=none"),
        ("pkcs11:token=releases;object=none", "no such private key"),
        ("pkcs11:token=releases;object=elliptic", "not the key of the first certificate"),
        ("pkcs11:token=releases", "is named as pkcs11:token=NAME;object=NAME"),
        ("pkcs11:token=releases;object=rsa;colour=red", "it has colour, which nobody reads"),
        ("/etc/ssl/key.pem", "is named as pkcs11:"),
    ],
)
def test_an_address_that_leads_to_no_such_key_says_which_part_is_wrong(
    token: Token, repository: Path, uri: str, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        sign(repository, f"{uri}?module-path={MODULE}", token.certificates["rsa"])
    assert read_signatures(repository, digest_of(STATEMENT)) == ()


def test_a_key_beside_its_certificate_is_noticed_before_anything_is_published(
    token: Token, repository: Path
) -> None:
    _, other = token.corp.leaf("other@corp.example")
    with pytest.raises(BadInput, match="is not the key of the first certificate"):
        sign(repository, token.uri("object=elliptic"), other)
    assert read_signatures(repository, digest_of(STATEMENT)) == ()


def test_a_wrong_pin_and_a_module_that_is_none_are_named(token: Token, repository: Path) -> None:
    certificate = token.certificates["rsa"]
    with pytest.raises(BadInput, match=r"the PIN does not open pkcs11:token=releases;object=rsa"):
        sign(repository, token.uri("object=rsa"), certificate, "99999999")
    for module, said in (("/nowhere.so", "there is no module /nowhere.so"), (certificate, "is no module")):
        with pytest.raises(BadInput, match=said):
            sign(repository, f"pkcs11:token=releases;object=rsa?module-path={module}", certificate)
    with pytest.raises(BadInput, match="a PIN in an address is read by every process"):
        sign(repository, f"{token.uri('object=rsa')}&pin-value=99999999", certificate, "99999999")
