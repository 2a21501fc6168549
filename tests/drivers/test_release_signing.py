"""Keys sign with their passphrase, by an agent or a hosted service, or say what is wrong."""

import base64
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner

from activities.drivers.signature.cms import CmsVerifier
from activities.drivers.signature.openpgp import OpenPgpVerifier
from deploy.lab.signer import LabSigner
from orchestrator.cli import release
from orchestrator.publishing.folder import publish
from orchestrator.publishing.signing import sign_gpg, sign_openpgp
from policies.model.errors import BadInput, PenstockError, Unavailable
from policies.model.trust import Envelope, SignatureKind
from policies.model.value import digest_of
from tests.fakes.authority import EnterpriseCa
from tests.patience import PATIENCE

STATEMENT = b'{"a statement": "of a release"}'
WORD = "correct horse"
PRESET = Path("/usr/lib/gnupg/gpg-preset-passphrase")


class Gpg:
    """A real gpg with an agent of its own, and one key with a passphrase."""

    def __init__(self, home: Path) -> None:
        self.home = home
        settings = ("allow-preset-passphrase", "pinentry-program /bin/false", "s2k-count 65536")
        (home / "gpg-agent.conf").write_text("\n".join(settings) + "\n")
        words = ("--pinentry-mode", "loopback", "--passphrase", WORD)
        self.run(*words, "--quick-gen-key", "Lea <lea@corp.example>", "ed25519", "sign", "never")
        listed = self.run("--with-keygrip", "--with-colons", "--list-secret-keys").decode().splitlines()
        self.fingerprint, self.grip = (
            next(line.split(":")[9] for line in listed if line.startswith(kind)) for kind in ("fpr", "grp")
        )
        self.certificate = self.run("--export", self.fingerprint)
        self.key = home / "lead.key"
        self.key.write_bytes(self.run(*words, "--armor", "--export-secret-keys", self.fingerprint))
        self.forget()

    def run(self, *arguments: str) -> bytes:
        command = ["gpg", "--batch", "--homedir", str(self.home), *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def remember(self) -> None:
        """Have the agent know the passphrase, as its user does by typing it."""
        command = [str(PRESET), "--homedir", str(self.home), "--preset", self.grip]
        subprocess.run(command, input=WORD, text=True, check=True, capture_output=True)

    def forget(self) -> None:
        """End the agent; the next one starts by itself and knows nothing."""
        command = ["gpgconf", "--homedir", str(self.home), "--kill", "gpg-agent"]
        subprocess.run(command, check=True, capture_output=True)

    def verify(self, signature: bytes) -> None:
        verifier = OpenPgpVerifier({"lead": (self.certificate, self.fingerprint)})
        envelope = Envelope(kind=SignatureKind.OPENPGP, content=signature)
        found = verifier.verify(STATEMENT, envelope, datetime.now(UTC))
        assert (found.identity, found.payload_digest) == (self.fingerprint, digest_of(STATEMENT))


@pytest.fixture(scope="module")
def gpg() -> Iterator[Gpg]:
    if shutil.which("gpg") is None or not PRESET.exists():
        pytest.skip("gpg is not installed: apt-get install gpg gpg-agent")
    with tempfile.TemporaryDirectory(prefix="pgp-") as home:  # short: the agent's socket lies in it
        made = Gpg(Path(home))
        yield made
        made.forget()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish(tmp_path / "repository", STATEMENT, [], {})
    return tmp_path / "repository"


def command(repository: Path, *arguments: str) -> list[str]:
    return ["sign", digest_of(STATEMENT), "--repository", str(repository), *arguments]


def sign(repository: Path, *arguments: str) -> None:
    """Sign on the command line, or raise the refusal."""
    result = CliRunner().invoke(release.app, command(repository, *arguments))
    if isinstance(result.exception, PenstockError):
        assert WORD not in str(result.exception)
        raise result.exception
    assert result.exit_code == 0, result.output


def signature(repository: Path) -> bytes:
    """Return the one signature that lies beside the statement."""
    digest = digest_of(STATEMENT).replace(":", "/")
    (entry,) = json.loads((repository / "signatures" / f"{digest}.json").read_bytes())
    place = repository / "blobs" / str(entry["digest"]).replace(":", "/")
    return place.read_bytes()


@pytest.fixture
def cms(tmp_path: Path) -> tuple[EnterpriseCa, Path, Path]:
    """An authority, a key of its with a passphrase, and the key's certificate."""
    corp = EnterpriseCa(tmp_path / "corp")
    key, certificate = corp.leaf("build@corp.example")
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    protection = serialization.BestAvailableEncryption(WORD.encode())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    key.write_bytes(loaded.private_bytes(*form, protection))
    return corp, key, certificate


def verify_cms(corp: EnterpriseCa, content: bytes) -> None:
    verifier = CmsVerifier({"corp": (corp.roots.read_bytes(), None)})
    found = verifier.verify(STATEMENT, Envelope(kind=SignatureKind.CMS, content=content), datetime.now(UTC))
    assert (found.identity, found.payload_digest) == ("build@corp.example", digest_of(STATEMENT))


def word_file(folder: Path, word: str) -> Path:
    file = folder / "word"
    file.write_text(f"{word}\n")
    file.chmod(0o600)
    return file


def test_an_openpgp_key_signs_with_a_files_passphrase(gpg: Gpg, repository: Path, tmp_path: Path) -> None:
    word = word_file(tmp_path, WORD)
    sign(repository, "--openpgp-key", str(gpg.key), "--passphrase-from", f"file:{word}")
    gpg.verify(signature(repository))


def test_an_enterprise_key_signs_with_the_passphrase_of_a_descriptor(
    cms: tuple[EnterpriseCa, Path, Path], repository: Path, tmp_path: Path
) -> None:
    corp, key, certificate = cms
    reading = os.open(word_file(tmp_path, WORD), os.O_RDONLY)
    words = ["--cms-key", str(key), "--cms-certificates", str(certificate)]
    sign(repository, *words, "--passphrase-from", f"fd:{reading}")
    verify_cms(corp, signature(repository))


def test_a_unit_signs_with_the_passphrase_that_systemd_loaded(
    gpg: Gpg, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word_file(tmp_path, WORD)
    words = ["--openpgp-key", str(gpg.key), "--passphrase-from", "credential:word"]
    with pytest.raises(BadInput, match="LoadCredential=word:PATH"):
        sign(repository, *words)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    sign(repository, *words)
    gpg.verify(signature(repository))


def test_a_wrong_passphrase_is_said_and_never_repeated(
    gpg: Gpg, cms: tuple[EnterpriseCa, Path, Path], repository: Path, tmp_path: Path
) -> None:
    _, key, certificate = cms
    wrong = f"file:{word_file(tmp_path, 'battery staple')}"
    for words in (
        ["--openpgp-key", str(gpg.key)],
        ["--cms-key", str(key), "--cms-certificates", str(certificate)],
    ):
        with pytest.raises(BadInput, match="the passphrase does not open") as refused:
            sign(repository, *words, "--passphrase-from", wrong)
        assert "staple" not in str(refused.value)
    with pytest.raises(BadInput, match="never written down"):
        sign(repository, "--openpgp-key", str(gpg.key), "--passphrase-from", WORD)


def test_without_passphrase_or_anybody_to_ask_a_protected_key_is_named(gpg: Gpg) -> None:
    with pytest.raises(BadInput, match=r"lead\.key has a passphrase"):
        sign_openpgp(STATEMENT, gpg.key)


DETACHED = "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.argv[2], sys.argv[2:])"
"""Makes a terminal that of a new session, and becomes the command."""


def test_a_passphrase_is_asked_on_the_terminal_and_not_shown(gpg: Gpg, repository: Path) -> None:
    ours, theirs = pty.openpty()
    asking = [sys.executable, "-m", "orchestrator", "release"]
    asking += command(repository, "--openpgp-key", str(gpg.key))
    process = subprocess.Popen(
        [sys.executable, "-c", DETACHED, os.ttyname(theirs), *asking], start_new_session=True, stdin=theirs
    )
    shown = b""
    while b"Passphrase of" not in shown:
        shown += os.read(ours, 1000)
    time.sleep(0.2)  # what is typed before the prompt is thrown away
    os.write(ours, f"{WORD}\n".encode())
    assert process.wait(PATIENCE) == 0
    os.set_blocking(ours, False)
    assert WORD.encode() not in shown + os.read(ours, 1000)
    for descriptor in (ours, theirs):
        os.close(descriptor)
    gpg.verify(signature(repository))


def test_without_a_terminal_nobody_is_asked(gpg: Gpg, repository: Path) -> None:
    asking = [sys.executable, "-m", "orchestrator", "release"]
    asking += command(repository, "--openpgp-key", str(gpg.key))
    ended = subprocess.run(
        asking, start_new_session=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "there is no terminal to ask on; say --passphrase-from fd:N" in ended.stderr


def test_gpgs_agent_signs_with_a_key_that_stays_there(
    gpg: Gpg, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(gpg.home))
    with pytest.raises(Unavailable, match=f"gpg did not sign with {gpg.fingerprint}: signing failed"):
        sign(repository, "--gpg-key", gpg.fingerprint)
    gpg.remember()
    sign(repository, "--gpg-key", gpg.fingerprint.lower())
    gpg.forget()
    gpg.verify(signature(repository))


@pytest.mark.parametrize("name", ["lea@corp.example", "6B290E1B", "--export-secret-keys"])
def test_a_key_of_gpg_is_named_by_its_whole_fingerprint(name: str) -> None:
    with pytest.raises(BadInput, match="is no whole fingerprint"):
        sign_gpg(STATEMENT, name)


def test_a_sigstore_that_cannot_be_reached_is_named_and_nothing_is_signed(
    repository: Path, tmp_path: Path
) -> None:
    now = int(time.time())
    claims = {"iss": "https://idp.example", "sub": "bot", "aud": "sigstore", "iat": now, "exp": now + 600}
    parts = ({"alg": "none"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    (tmp_path / "token").write_text(".".join([*encoded, "c2ln"]))
    nobody = {"url": "http://127.0.0.1:9", "operator": "none", "validFor": {"start": "2020-01-01T00:00:00Z"}}
    versions = {"caUrls": 1, "oidcUrls": 1, "rekorTlogUrls": 2, "tsaUrls": 1}
    services = {name: [nobody | {"majorApiVersion": version}] for name, version in versions.items()}
    config = {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": LabSigner(tmp_path / "signer").trusted_root(),
        "signingConfig": {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaConfig": {"selector": "ANY"},
            **services,
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = ["--sigstore-config", str(tmp_path / "config.json"), "--identity-token", str(tmp_path / "token")]
    with pytest.raises(Unavailable, match=r"config\.json did not sign, and nothing was .*[Cc]onnection"):
        sign(repository, *words)
    (tmp_path / "token").write_text("not a token")
    with pytest.raises(BadInput, match="token is no identity token"):
        sign(repository, *words)


def test_a_good_signature_replaces_one_that_does_not_hold(
    gpg: Gpg, cms: tuple[EnterpriseCa, Path, Path], repository: Path, tmp_path: Path
) -> None:
    """newcomer 9: signing again left the bad signature beside the good one, which refused the release."""
    _, key, certificate = cms
    words = ["--passphrase-from", f"file:{word_file(tmp_path, WORD)}"]
    sign(repository, "--cms-key", str(key), "--cms-certificates", str(certificate), *words)
    sign(repository, "--openpgp-key", str(gpg.key), *words, "--replace")
    gpg.verify(signature(repository))
