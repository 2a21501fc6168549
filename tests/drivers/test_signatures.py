"""Three ways to sign one statement, each verified by its genuine library and by what that leaves out."""

import base64
import hashlib
import json
import socket
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pysequoia
import pytest
from asn1crypto import cms as asn1_cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier
from sigstore.verify.policy import AllOf, Identity, OIDCIssuerV2

from activities.drivers.signature.cms import CmsVerifier
from activities.drivers.signature.openpgp import OpenPgpVerifier
from activities.drivers.signature.sigstore import (
    ISSUER_V2,
    SOURCE_REPOSITORY,
    SigstoreVerifier,
    claimed_times,
    identity_of,
    issuer_of,
    parse_bundle,
    public_root,
    source_repository_of,
)
from activities.refusals import (
    PolicyInvalid,
)
from deploy.lab.signer import LabSigner
from orchestrator.publishing.signing import sign_cms, sign_openpgp
from policies.model.errors import BadInput
from policies.model.refusals import (
    SignatureInvalid,
    SignerNotAllowed,
    TrustError,
    WeakAlgorithm,
)
from policies.model.trust import LAPSED, Envelope, SignatureKind, Signer, VerifiedSignature
from policies.model.value import digest_of
from tests.fakes.authority import EnterpriseCa

STATEMENT = b'{"a":"statement"}'
WHO, ISSUER = "bot@lab.example", "https://idp.lab.example"
WORKFLOW = "https://ci.example/acme/workflows/.github/workflows/sign.yml@refs/tags/v1"
CALLER = "https://ci.example/acme/vpn"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> LabSigner:
    return LabSigner(tmp_path_factory.mktemp("signer"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("verification opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def sigstore(bundle: bytes, *signers: LabSigner) -> VerifiedSignature:
    roots = {str(n): signer.trusted_root_path.read_bytes() for n, signer in enumerate(signers)}
    envelope = Envelope(kind=SignatureKind.SIGSTORE, content=bundle)
    return SigstoreVerifier(roots).verify(STATEMENT, envelope, datetime.now(UTC))


@pytest.mark.usefixtures("no_network")
def test_the_genuine_library_accepts_the_private_signers_bundles_offline(signer: LabSigner) -> None:
    bundle = Bundle.from_json(signer.sign(STATEMENT, WHO, ISSUER))
    verifier = Verifier(trusted_root=TrustedRoot.from_file(str(signer.trusted_root_path)))
    policy = AllOf([OIDCIssuerV2(ISSUER), Identity(identity=WHO)])
    assert verifier.verify_dsse(bundle, policy)[1] == STATEMENT


OLD_COSIGN = {"base64Signature": "MEUCIQ==", "cert": "LS0tLS1CRUdJTg==", "rekorBundle": {"Payload": {}}}
WITHOUT_LOG = {
    "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
    "verificationMaterial": {"certificate": {"rawBytes": ""}, "timestampVerificationData": {}},
    "dsseEnvelope": {},
}
MANAGED_KEY = {
    "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
    "verificationMaterial": {"publicKey": {"hint": "TLMsSDfG3ajPsWge+z"}, "tlogEntries": [{"logIndex": "1"}]},
    "messageSignature": {},
}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (OLD_COSIGN, "has the form of cosign 1 and 2.*sign again with cosign 3"),
        (WITHOUT_LOG, "no entry of a transparency log, as GitHub makes them for private repositories"),
        (
            MANAGED_KEY,
            "signed with a key, as by `cosign sign-blob --key`, and only bundles with a certificate are read",
        ),
        ({"mediaType": "application/x\ny"}, "bundle of type application/x y lacks a part"),
        ({}, "has no mediaType"),
        ([], "is not a JSON object"),
        ("{", "is malformed: the document is not JSON"),
        ('{"a": 1}\n{"b": 2}\n', "the file has several Sigstore bundles, one a line; write the one line"),
    ],
    ids=["old cosign", "without a log", "a key", "another type", "no type", "a list", "no JSON", "two lines"],
)
def test_a_bundle_of_another_form_is_refused_with_its_form_and_what_to_do(document: object, why: str) -> None:
    """Case 45: the library's own text for programmers was shown; R11, a fresh reader's F15: lines of JSON."""
    raw = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(SignatureInvalid, match=why) as refused:
        parse_bundle(raw.encode())
    assert str(refused.value).isprintable()
    assert "pydantic" not in str(refused.value)


@pytest.mark.usefixtures("no_network")
def test_a_bundle_tells_who_signed_what_and_when(signer: LabSigner) -> None:
    found = sigstore(signer.sign(STATEMENT, WHO, ISSUER), signer)
    assert (found.identity, found.issuer, found.payload_digest) == (WHO, ISSUER, digest_of(STATEMENT))
    assert found.signed_at is not None
    assert abs(found.signed_at - datetime.now(UTC)) < timedelta(minutes=2)
    assert found.evidence["time_source"] == "tsa"


def test_a_workflow_signs_under_its_address(signer: LabSigner) -> None:
    workflow = "https://ci.example/build.yml@refs/tags/v1"
    assert sigstore(signer.sign(STATEMENT, workflow, ISSUER), signer).identity == workflow


def test_a_bundle_names_the_repository_that_called_a_reusable_workflow(signer: LabSigner) -> None:
    found = sigstore(signer.sign(STATEMENT, WORKFLOW, ISSUER, source_repository=CALLER), signer)
    assert (found.identity, found.source_repository) == (WORKFLOW, CALLER)
    assert found.label == f"{WORKFLOW} ({ISSUER}, called by {CALLER})"
    assert sigstore(signer.sign(STATEMENT, WORKFLOW, ISSUER), signer).source_repository == ""


def test_a_bundle_that_another_repository_had_signed_claims_no_signer(signer: LabSigner) -> None:
    verifier = SigstoreVerifier({"lab": signer.trusted_root_path.read_bytes()})
    bundle = signer.sign(STATEMENT, WORKFLOW, ISSUER, source_repository=CALLER)
    envelope = Envelope(kind=SignatureKind.SIGSTORE, content=bundle)
    plain = Signer(sigstore="lab", issuer=ISSUER, identity=WORKFLOW)
    assert not verifier.claims(envelope, plain)
    assert verifier.claims(envelope, plain.model_copy(update={"source_repository": CALLER}))


def test_any_instance_of_the_policy_may_vouch(signer: LabSigner, tmp_path: Path) -> None:
    other = LabSigner(tmp_path)
    assert sigstore(signer.sign(STATEMENT, WHO, ISSUER), other, signer).root == "1"
    assert sigstore(signer.sign(STATEMENT, WHO, ISSUER), signer, other).root == "0"


@pytest.mark.parametrize("window", ["past", "open"])
def test_what_was_signed_before_a_window_closed_stays_good(tmp_path: Path, window: str) -> None:
    signer = LabSigner(tmp_path)
    bundle = signer.sign(STATEMENT, WHO, ISSUER)
    root = signer.trusted_root()
    ends = datetime.now(UTC) + timedelta(hours=1) if window == "past" else None
    if ends:
        root["certificateAuthorities"][0]["validFor"]["end"] = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    else:
        del root["tlogs"][0]["publicKey"]["validFor"]
    signer.trusted_root_path.write_text(json.dumps(root))
    assert sigstore(bundle, signer).identity == WHO


def test_without_an_instance_nothing_is_verified(signer: LabSigner) -> None:
    with pytest.raises(SignatureInvalid):
        sigstore(signer.sign(STATEMENT, WHO, ISSUER))


def test_a_trusted_root_that_is_none_is_the_policys_fault() -> None:
    with pytest.raises(PolicyInvalid):
        SigstoreVerifier({"corp": b"{}"})


def test_the_public_roots_are_read_without_asking_anybody() -> None:
    for staging in (False, True):
        SigstoreVerifier({"public": public_root(staging=staging)})


@pytest.mark.usefixtures("no_network")
def test_a_blobs_bundle_is_verified_for_exactly_its_signer(signer: LabSigner) -> None:
    verifier = SigstoreVerifier({"lab": signer.trusted_root_path.read_bytes()})
    sha256 = hashlib.sha256(b"blob").hexdigest()
    bundle = signer.sign_blob(b"blob", WHO, ISSUER)
    verifier.verify_blob(sha256, bundle, identity=WHO, issuer=ISSUER)
    for digest, who, issuer in (
        (sha256, "other@lab.example", ISSUER),
        (sha256, WHO, "https://other.example"),
        (hashlib.sha256(b"other").hexdigest(), WHO, ISSUER),
        ("zz", WHO, ISSUER),
    ):
        with pytest.raises(TrustError):
            verifier.verify_blob(digest, bundle, identity=who, issuer=issuer)


def test_a_blobs_bundle_by_a_reusable_workflow_is_good_for_the_repository_that_is_named(
    signer: LabSigner,
) -> None:
    verifier = SigstoreVerifier({"lab": signer.trusted_root_path.read_bytes()})
    sha256, own = hashlib.sha256(b"blob").hexdigest(), "https://ci.example/acme/workflows"
    for repository, named, is_good in (
        (CALLER, None, False),
        (CALLER, CALLER, True),
        (CALLER, own, False),
        (own, None, True),
        ("", None, True),
        ("", own, False),
    ):
        bundle = signer.sign_blob(b"blob", WORKFLOW, ISSUER, source_repository=repository)
        who = {"identity": WORKFLOW, "issuer": ISSUER}
        if is_good:
            verifier.verify_blob(sha256, bundle, **who, source_repository=named)
            continue
        with pytest.raises(SignatureInvalid, match=f"called by {repository}" if repository else "no repo"):
            verifier.verify_blob(sha256, bundle, **who, source_repository=named)


def test_a_statements_bundle_is_good_for_its_subjects_only(signer: LabSigner) -> None:
    verifier = SigstoreVerifier({"lab": signer.trusted_root_path.read_bytes()})
    sha256 = hashlib.sha256(b"blob").hexdigest()
    statement = json.dumps({"subject": [{"name": "x", "digest": {"sha256": sha256}}]}).encode()
    bundle = signer.sign(statement, WHO, ISSUER)
    verifier.verify_blob(sha256, bundle, identity=WHO, issuer=ISSUER)
    with pytest.raises(SignatureInvalid):
        verifier.verify_blob("0" * 64, bundle, identity=WHO, issuer=ISSUER)
    with pytest.raises(TrustError):
        verifier.verify_blob(sha256, signer.sign(b"[]", WHO, ISSUER), identity=WHO, issuer=ISSUER)


def certificate(*extensions: x509.ExtensionType) -> x509.Certificate:
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(hours=1))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


def names(*found: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(found)


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        (names(x509.DNSName("bot.example")),),
        (names(x509.RFC822Name("a@b.example"), x509.RFC822Name("c@d.example")),),
        (names(x509.RFC822Name("a@b.example"), x509.DNSName("bot.example")),),
    ],
    ids=range(4),
)
def test_a_certificate_names_exactly_one_identity(extensions: tuple[x509.ExtensionType, ...]) -> None:
    with pytest.raises(SignatureInvalid):
        identity_of(certificate(*extensions))


NO_TEXT = [
    b"",
    b"plain",
    b"\x0c\x00",
    b"\x0c\x05abc",
    b"\x0c\x81\x03abc",
    b"\x13\x03abc",
    b"\x0c\x03abcd",
    b"\x0c\x03a c",
    "\x0c\x03aß".encode(),
]


@pytest.mark.parametrize("raw", [None, *NO_TEXT])
def test_an_issuer_is_a_text_in_der_and_nothing_else(raw: bytes | None) -> None:
    extensions = () if raw is None else (x509.UnrecognizedExtension(ISSUER_V2, raw),)
    with pytest.raises(SignatureInvalid):
        issuer_of(certificate(*extensions))


@pytest.mark.parametrize("raw", NO_TEXT)
def test_a_source_repository_that_cannot_be_read_is_not_taken_for_an_absent_one(raw: bytes) -> None:
    with pytest.raises(SignatureInvalid, match="source repository is malformed"):
        source_repository_of(certificate(x509.UnrecognizedExtension(SOURCE_REPOSITORY, raw)))


def test_the_longest_address_of_a_source_repository_is_read_whole() -> None:
    longest = "https://ci.example/" + "group/" * 50 + "project"
    raw = b"\x0c\x82" + len(longest).to_bytes(2, "big") + longest.encode()
    assert source_repository_of(certificate(x509.UnrecognizedExtension(SOURCE_REPOSITORY, raw))) == longest
    assert source_repository_of(certificate()) == ""


def test_a_log_that_promises_a_time_is_enough_without_a_stamp(signer: LabSigner) -> None:
    bundle = json.loads(signer.sign(STATEMENT, WHO, ISSUER))
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    entry |= {"integratedTime": "1700000000", "inclusionPromise": {"signedEntryTimestamp": "AAAA"}}
    assert len(claimed_times(parse_bundle(json.dumps(bundle).encode()))) == 2
    with pytest.raises(SignatureInvalid):  # the promise is not the log's
        sigstore(json.dumps(bundle).encode(), signer)


def test_a_blob_bundle_proves_nothing_about_a_statement(signer: LabSigner) -> None:
    with pytest.raises(SignatureInvalid):
        sigstore(signer.sign_blob(b"blob", WHO, ISSUER), signer)


# --- OpenPGP ------------------------------------------------------------------------------


def openpgp(
    content: bytes, *certificates: pysequoia.Cert, later: timedelta = timedelta(0)
) -> VerifiedSignature:
    pinned = {str(n): (bytes(c), c.fingerprint.upper()) for n, c in enumerate(certificates)}
    envelope = Envelope(kind=SignatureKind.OPENPGP, content=content)
    return OpenPgpVerifier(pinned).verify(STATEMENT, envelope, datetime.now(UTC) + later)


def detached(key: pysequoia.Tsk, payload: bytes = STATEMENT, *, armor: bool = True) -> bytes:
    return pysequoia.sign(key.signer(), payload, mode=pysequoia.SignatureMode.DETACHED, armor=armor)


@pytest.fixture(scope="module")
def lead() -> pysequoia.Tsk:
    return pysequoia.Tsk.generate("lead <lead@corp.example>")


@pytest.mark.parametrize("armor", [True, False])
def test_a_pinned_certificate_is_recognised_by_its_fingerprint(lead: pysequoia.Tsk, armor: bool) -> None:
    other = pysequoia.Tsk.generate("other").extract_certificate()
    certificate = lead.extract_certificate()
    found = openpgp(detached(lead, armor=armor), other, certificate)
    assert (found.identity, found.root) == (certificate.fingerprint.upper(), "1")


def test_a_command_lines_signature_is_the_same(lead: pysequoia.Tsk, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(lead))
    assert openpgp(sign_openpgp(STATEMENT, tmp_path / "key"), lead.extract_certificate()).identity
    (tmp_path / "none").write_text("no key")
    with pytest.raises(BadInput):
        sign_openpgp(STATEMENT, tmp_path / "none")


def test_openpgp_signatures_that_prove_nothing_are_refused(lead: pysequoia.Tsk) -> None:
    certificate, good = lead.extract_certificate(), detached(lead, armor=False)
    inline = pysequoia.sign(lead.signer(), STATEMENT, mode=pysequoia.SignatureMode.INLINE)
    for content, pinned in (
        (good, ()),
        (good, (pysequoia.Tsk.generate("other").extract_certificate(),)),
        (detached(lead, b"other"), (certificate,)),
        (good + good, (certificate,)),
        (b"", (certificate,)),
        (b"x" * 20_000, (certificate,)),
        (inline, (certificate,)),
    ):
        with pytest.raises(SignatureInvalid):
            openpgp(content, *pinned)


@pytest.mark.parametrize("armor", [True, False])
def test_a_secret_key_is_no_certificate_to_pin(lead: pysequoia.Tsk, armor: bool) -> None:
    """A fresh reader's F16: a trust policy is read by many."""
    fingerprint = lead.extract_certificate().fingerprint.upper()
    secret = str(lead).encode() if armor else bytes(lead)
    with pytest.raises(PolicyInvalid, match="has the secret key with it"):
        OpenPgpVerifier({"lead": (secret, fingerprint)})


@pytest.mark.parametrize("tag", range(64))
def test_a_packet_of_any_kind_beside_the_signature_is_refused(lead: pysequoia.Tsk, tag: int) -> None:
    """Kinds that no standard has given out are refused too: RFC 9580, section 5."""
    packet = bytes([0xC0 | tag, 1, 0])
    for content in (detached(lead, armor=False) + packet, packet):
        with pytest.raises(SignatureInvalid):
            openpgp(content, lead.extract_certificate())


def test_an_expired_certificate_signs_no_more() -> None:
    short = pysequoia.Tsk.generate("short", validity_seconds=3600)
    signature, certificate = detached(short), short.extract_certificate()
    assert openpgp(signature, certificate).identity
    with pytest.raises(SignatureInvalid) as refused:
        openpgp(signature, certificate, later=timedelta(days=1))
    assert refused.value.reason == LAPSED


SHORT_LIVED = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEaVW5ABYJKwYBBAHaRw8BAQdAhW6X7KC0shwUAh79xWQ+0J2SvJIp+3OupWYH
wre2gUa0C1N1YiA8c3ViQHg+iJAEExYIADgWIQTyJ1BvhXOxiUPOw10y0y6gx6eO
fwUCaVW5AAIbAQULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRAy0y6gx6eOf7l7
AQDppsiJwMEMkufFUMHpV8z38EmPZ5stTdpNqF+p+hzvVAD/fu/agbLdLfyEAYcT
9Tnvp6dRji3oD4NFqr0tfIR30Au4MwRpVbkAFgkrBgEEAdpHDwEBB0A0Ysvqjza2
1OtvzY6JpXPBYcyCINv6WvRwpUZis72ZoIj1BBgWCAAmFiEE8idQb4VzsYlDzsNd
MtMuoMenjn8FAmlVuQACGwIFCQAnjQAAgQkQMtMuoMenjn92IAQZFggAHRYhBPwJ
1hPezFYZ1hwMIlpQWrG8qud/BQJpVbkAAAoJEFpQWrG8qud/Zs4A/081O60JZ4XC
loOMlCtQP4wLoHqb8WmuCK8P7UchLI5PAP44Wq6/xONmK0OUf9GgnF9i0iKk8NuC
DGE9pckRonJhBNPKAQC9KpgRXcmrPildFKPcnkoorytqGr8DRxPkeSVIS5ubfQEA
sQ4PIXlCQ+2r6livCIQRSYGoolH86GEMOZTuMe8GeQM=
=ivgA
-----END PGP PUBLIC KEY BLOCK-----
"""
"""A certificate by gpg without an end, whose signing subkey was good for 30 days from 2026-01-01."""
BY_SHORT_LIVED = base64.b64decode(
    "iHUEABYIAB0WIQT8CdYT3sxWGdYcDCJaUFqxvKrnfwUCaVr/AAAKCRBaUFqxvKrnf2ZbAP9rcT+gV9zl"
    "sw0NXrD20+i9UKEEhbU7HOGkALBlt8E5qwD8DbEowr4Gtrhkz0xJl72XGLQzlitEmgWeiqZrEcANFws="
)
"""The subkey's signature over `hello\\n`, of 2026-01-05."""


@pytest.mark.parametrize(
    ("at", "good"), [(datetime(2026, 1, 6, tzinfo=UTC), True), (datetime.now(UTC), False)]
)
def test_a_signing_subkey_that_has_expired_signs_no_more(at: datetime, good: bool) -> None:
    """Case 48: a signature's date is the signer's claim, so an expired subkey could sign for the past."""
    fingerprint = pysequoia.Cert.from_bytes(SHORT_LIVED.encode()).fingerprint.upper()
    verifier = OpenPgpVerifier({"short": (SHORT_LIVED.encode(), fingerprint)})
    envelope = Envelope(kind=SignatureKind.OPENPGP, content=BY_SHORT_LIVED)
    if good:
        assert verifier.verify(b"hello\n", envelope, at).identity == fingerprint
        return
    with pytest.raises(
        SignatureInvalid, match=r"signing key .* of the OpenPGP certificate short has expired"
    ) as refused:
        verifier.verify(b"hello\n", envelope, at)
    assert refused.value.reason == LAPSED


def by_gpg(folder: Path, *options: str) -> tuple[str, bytes, bytes]:
    """Return fingerprint and certificate of a key that gpg has made on 2024-01-01, and its signature."""
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback"]
    gpg += ["--passphrase", "", "--faked-system-time", "20240101T000000!"]

    def run(*arguments: str) -> bytes:
        return subprocess.run([*gpg, *arguments], input=STATEMENT, check=True, capture_output=True).stdout

    try:
        run("--quick-generate-key", "lead@corp.example", "ed25519", "sign", *options)
        listed = run("--with-colons", "--list-keys").decode().splitlines()
        fingerprint = next(line.split(":")[9] for line in listed if line.startswith("fpr:"))
        return fingerprint, run("--export"), run("--detach-sign")
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


MADE = datetime(2024, 1, 1, tzinfo=UTC)


def test_a_key_of_gpg_that_has_ended_is_judged_by_the_time_that_is_asked_about(tmp_path: Path) -> None:
    """The library has a clock of its own: known-good must not depend on it."""
    fingerprint, certificate, signature = by_gpg(tmp_path, "1y")
    verifier = OpenPgpVerifier({"lead": (certificate, fingerprint)})
    envelope = Envelope(kind=SignatureKind.OPENPGP, content=signature)
    assert verifier.verify(STATEMENT, envelope, MADE + timedelta(days=300)).identity == fingerprint
    with pytest.raises(SignatureInvalid) as refused:
        verifier.verify(STATEMENT, envelope, MADE + timedelta(days=400))
    assert refused.value.reason == LAPSED
    (pinned,) = verifier.pinned()
    assert (pinned.root, pinned.ends) == ("lead", MADE + timedelta(days=365))


def test_a_key_of_gpg_ends_after_two_years_unless_it_is_made_to_last(tmp_path: Path) -> None:
    """docs/releases.md names an end for this."""
    for folder, options, ends in (("plain", (), True), ("lasting", ("never",), False)):
        (tmp_path / folder).mkdir()
        fingerprint, certificate, _ = by_gpg(tmp_path / folder, *options)
        pinned = OpenPgpVerifier({"lead": (certificate, fingerprint)}).pinned()
        assert [(one.ends or MADE) - MADE < timedelta(days=3 * 365) for one in pinned] == [True] * ends
        assert all(one.ends for one in pinned)


@pytest.mark.parametrize(("signs", "ends"), [(True, True), (False, False)])
def test_a_certificate_is_good_as_long_as_one_of_its_keys_signs(signs: bool, ends: bool) -> None:
    """The subkey that signs ends; of a certificate whose primary key signs, a subkey's end says nothing."""
    certificate = (
        SHORT_LIVED.encode() if signs else bytes(pysequoia.Tsk.generate("lead").extract_certificate())
    )
    fingerprint = pysequoia.Cert.from_bytes(certificate).fingerprint.upper()
    found = OpenPgpVerifier({"short": (certificate, fingerprint)}).pinned()
    assert bool(found) is ends
    assert [one.ends for one in found] == [datetime(2026, 1, 31, tzinfo=UTC)] * ends


GOOD_FOR_A_SECOND = base64.b64decode(
    "iHsEABYIACMWIQRX7hFCqCU4WOlbkcOUrwlwikHyNgUCawuwywWDAAAAAQAKCRCUrwlwikHyNrv9AQDS"
    "C9lPbw/mLjG0zahfJMn05UUlLq63okAYdAkCXs84LgD/SYwkWo8BB+IFdTHPL5N0Rh8/JQmvsP7RM9fh"
    "y0Fn5Ag="
)
"""A signature by `gpg --default-sig-expire seconds=1`."""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (GOOD_FOR_A_SECOND, "the OpenPGP signature expired at 2026-.* UTC; sign again"),
        (
            b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n",
            "is around its text; sign with `gpg --detach",
        ),
    ],
)
def test_a_signature_of_another_form_is_refused_with_what_to_do(content: bytes, why: str) -> None:
    """R11, a fresh reader's F15: an expired one was "by no pinned certificate"."""
    fingerprint = pysequoia.Cert.from_bytes(SHORT_LIVED.encode()).fingerprint.upper()
    verifier = OpenPgpVerifier({"short": (SHORT_LIVED.encode(), fingerprint)})
    with pytest.raises(SignatureInvalid, match=why):
        verifier.verify(b"hello\n", Envelope(kind=SignatureKind.OPENPGP, content=content), datetime.now(UTC))


def test_a_signature_names_the_subkey_that_made_it(lead: pysequoia.Tsk) -> None:
    """S4: `gpg --verify` prints the subkey's fingerprint, by which people revoke it."""
    certificate, content = lead.extract_certificate(), detached(lead)
    found = openpgp(content, certificate)
    by = pysequoia.Sig.from_bytes(content).issuer_fingerprint
    assert by is not None
    assert found.signing_key == by.upper() != found.identity
    known = OpenPgpVerifier({"lead": (bytes(certificate), certificate.fingerprint.upper())}).keys()
    assert {found.signing_key, found.identity} < known


def test_a_revoked_certificate_hides_no_other(lead: pysequoia.Tsk) -> None:
    other = pysequoia.Tsk.generate("other")
    certificate = other.extract_certificate()
    revoked = pysequoia.Cert.from_bytes(bytes(certificate) + bytes(certificate.revoke(other.certifier())))
    assert openpgp(detached(lead), revoked, lead.extract_certificate()).root == "1"


def test_a_policy_pins_one_certificate_by_its_whole_fingerprint(lead: pysequoia.Tsk) -> None:
    certificate = lead.extract_certificate()
    other = pysequoia.Tsk.generate("other").extract_certificate()
    for content, fingerprint in (
        (bytes(certificate), "A" * 40),
        (bytes(certificate) + bytes(other), certificate.fingerprint.upper()),
        (b"none", certificate.fingerprint.upper()),
    ):
        with pytest.raises(PolicyInvalid):
            OpenPgpVerifier({"lead": (content, fingerprint)})


# --- enterprise CA ------------------------------------------------------------------------

LEAD = "lead@corp.example"


def cms(
    content: bytes,
    *authorities: EnterpriseCa,
    token: bytes | None = None,
    stamps: bytes | None = None,
    later: timedelta = timedelta(0),
) -> VerifiedSignature:
    roots = {str(n): (authority.roots.read_bytes(), stamps) for n, authority in enumerate(authorities)}
    envelope = Envelope(kind=SignatureKind.CMS, content=content, token=token)
    return CmsVerifier(roots).verify(STATEMENT, envelope, datetime.now(UTC) + later)


@pytest.fixture(scope="module")
def corp(tmp_path_factory: pytest.TempPathFactory) -> EnterpriseCa:
    return EnterpriseCa(tmp_path_factory.mktemp("corp"))


def signature_of(content: bytes) -> bytes:
    return bytes(asn1_cms.ContentInfo.load(content)["content"]["signer_infos"][0]["signature"].native)


@pytest.mark.parametrize("kind", ["elliptic curve", "RSA"])
def test_a_code_signing_certificate_of_the_authority_signs(corp: EnterpriseCa, kind: str) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "RSA" else None
    found = cms(corp.sign(STATEMENT, LEAD, key=key), corp)
    assert (found.identity, found.root, found.payload_digest) == (LEAD, "0", digest_of(STATEMENT))


def test_a_certificate_made_out_to_nobody_or_for_everything_signs_nothing(
    corp: EnterpriseCa, tmp_path: Path
) -> None:
    for signature in (corp.sign(STATEMENT, LEAD, names=()), corp.sign(STATEMENT, LEAD, usage=None)):
        with pytest.raises(SignerNotAllowed):
            cms(signature, corp)


def openssl(
    folder: Path, root: Sequence[str], *extensions: str, options: Sequence[str] = ()
) -> tuple[bytes, bytes]:
    """Return a root certificate and a signature, as the openssl commands of handbooks make them."""

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    (folder / "statement").write_bytes(STATEMENT)
    (folder / "extensions").write_text("\n".join(extensions) + "\n")
    new = ("-newkey", "rsa:2048", "-nodes")
    run("req", "-x509", *new, "-days", "9", "-subj", "/CN=Root", "-keyout", "r.key", "-out", "r.pem", *root)
    run("req", *new, "-subj", "/CN=lead", "-keyout", "a.key", "-out", "a.csr")
    by = ("-CA", "r.pem", "-CAkey", "r.key", "-days", "8", "-extfile", "extensions", "-out", "a.pem")
    run("x509", "-req", "-in", "a.csr", *by)
    sign = ("-signer", "a.pem", "-inkey", "a.key", "-outform", "DER", "-out", "s.der")
    run("cms", "-sign", "-binary", "-in", "statement", *sign, *options)
    return (folder / "r.pem").read_bytes(), (folder / "s.der").read_bytes()


MAIL, SIGNS = f"subjectAltName=email:{LEAD}", "extendedKeyUsage=codeSigning"
AS_A_ROOT = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")


@pytest.mark.parametrize(
    ("root", "extensions", "named"),
    [
        (
            (),
            (MAIL, SIGNS),
            "of the authority: extension keyUsage: Certificate is missing required extension",
        ),
        (AS_A_ROOT, (SIGNS,), "extension subjectAltName: Certificate is missing required extension"),
        (AS_A_ROOT, (MAIL,), "its extendedKeyUsage is missing, and must be codeSigning alone"),
        (AS_A_ROOT, (MAIL, f"{SIGNS},clientAuth"), "its extendedKeyUsage is codeSigning, clientAuth, and"),
    ],
)
def test_what_a_certificate_of_an_enterprise_lacks_is_named(
    tmp_path: Path, root: Sequence[str], extensions: Sequence[str], named: str
) -> None:
    """newcomer 9, case 50: a root by plain `openssl req -x509` was "no authority of the policy"."""
    authority, signature = openssl(tmp_path, root, *extensions)
    envelope = Envelope(kind=SignatureKind.CMS, content=signature)
    with pytest.raises((SignatureInvalid, SignerNotAllowed), match=named):
        CmsVerifier({"corp": (authority, None)}).verify(STATEMENT, envelope, datetime.now(UTC))


def test_a_signature_with_the_salt_that_openssl_chooses_is_accepted(tmp_path: Path) -> None:
    """R11, a fresh reader's F15: RSA-PSS by `openssl cms` did not verify."""
    salted = ("-keyopt", "rsa_padding_mode:pss")
    authority, signature = openssl(tmp_path, AS_A_ROOT, MAIL, SIGNS, options=salted)
    envelope = Envelope(kind=SignatureKind.CMS, content=signature)
    found = CmsVerifier({"corp": (authority, None)}).verify(STATEMENT, envelope, datetime.now(UTC))
    assert found.identity == LEAD


@pytest.mark.parametrize(
    "begins", [b"-----BEGIN CMS-----\nMIIH", b"MIME-Version: 1.0\nContent-Type: text/plain"]
)
def test_a_cms_signature_that_is_text_is_refused_with_what_to_do(begins: bytes) -> None:
    """R11, a fresh reader's F15: the library counted trailing bytes."""
    with pytest.raises(SignatureInvalid, match="is PEM or S/MIME; sign with `openssl cms -outform DER`"):
        CmsVerifier({}).verify(STATEMENT, Envelope(kind=SignatureKind.CMS, content=begins), datetime.now(UTC))


def test_certificates_with_what_the_documents_ask_for_are_accepted(tmp_path: Path) -> None:
    authority, signature = openssl(tmp_path, AS_A_ROOT, MAIL, SIGNS)
    envelope = Envelope(kind=SignatureKind.CMS, content=signature)
    found = CmsVerifier({"corp": (authority, None)}).verify(STATEMENT, envelope, datetime.now(UTC))
    assert found.identity == LEAD


def test_an_authority_ends_with_its_last_root(corp: EnterpriseCa, tmp_path: Path, signer: LabSigner) -> None:
    other, stamps = EnterpriseCa(tmp_path), (signer.folder / "root.pem").read_bytes()
    both = corp.roots.read_bytes() + other.roots.read_bytes()
    roots, tsa = CmsVerifier({"corp": (both, stamps)}).pinned()
    assert roots.ends == max(corp.root.not_valid_after_utc, other.root.not_valid_after_utc)
    assert [one.shown for one in (roots, tsa)] == [
        "the roots of the authority corp",
        "the tsa of the authority corp",
    ]
    assert [one.vouches for one in (roots, tsa)] == [True, False]


def test_a_small_rsa_key_is_weak(corp: EnterpriseCa) -> None:
    key = rsa.generate_private_key(65537, 1024)
    with pytest.raises(WeakAlgorithm):
        cms(corp.sign(STATEMENT, LEAD, key=key), corp)


def test_another_authority_of_the_same_name_does_not_vouch(corp: EnterpriseCa, tmp_path: Path) -> None:
    rogue = EnterpriseCa(tmp_path)
    with pytest.raises(SignatureInvalid) as refused:
        cms(rogue.sign(STATEMENT, LEAD), corp)
    assert refused.value.reason == "root"
    assert cms(rogue.sign(STATEMENT, LEAD), corp, rogue).root == "1"


def test_an_expired_certificate_counts_only_with_a_stamp_from_its_time(
    corp: EnterpriseCa, signer: LabSigner
) -> None:
    content = corp.sign(STATEMENT, LEAD, ends=timedelta(minutes=10))
    stamps = (signer.folder / "root.pem").read_bytes()
    now, later = datetime.now(UTC), timedelta(days=2)
    with pytest.raises(SignatureInvalid) as refused:
        cms(content, corp, later=later)
    assert refused.value.reason == LAPSED
    in_time = signer.timestamp(signature_of(content), now + timedelta(minutes=1))
    assert cms(content, corp, token=in_time, stamps=stamps, later=later).signed_at is not None
    too_late = signer.timestamp(signature_of(content), now + timedelta(days=1))
    with pytest.raises(SignatureInvalid):
        cms(content, corp, token=too_late, stamps=stamps, later=later)


def test_a_stamp_over_something_else_or_by_nobody_is_refused(corp: EnterpriseCa, signer: LabSigner) -> None:
    content, stamps = corp.sign(STATEMENT, LEAD), (signer.folder / "root.pem").read_bytes()
    for token, roots in (
        (signer.timestamp(b"other"), stamps),
        (signer.timestamp(signature_of(content)), None),
        (b"none", stamps),
    ):
        with pytest.raises(SignatureInvalid) as refused:
            cms(content, corp, token=token, stamps=roots)
        assert refused.value.reason == "no_time"


def altered(content: bytes, change: str) -> bytes:  # noqa: C901 - a list of changes
    """Return the signature with one thing in its structure changed."""
    info = asn1_cms.ContentInfo.load(content)
    signed = info["content"]
    signer = signed["signer_infos"][0]
    match change:
        case "two signers":
            signed["signer_infos"] = [signer, signer]
        case "attached":
            signed["encap_content_info"] = {"content_type": "data", "content": STATEMENT}
        case "no certificate":
            signed["certificates"] = []
        case "certificate twice":
            signed["certificates"] = [*signed["certificates"], signed["certificates"][0]]
        case "md5":
            signer["digest_algorithm"] = {"algorithm": "md5"}
        case "sha384 over sha256":
            signer["signature_algorithm"] = {"algorithm": "sha384_ecdsa"}
        case "dsa":
            signer["signature_algorithm"] = {"algorithm": "sha256_dsa"}
        case "named by key":
            signer["sid"] = asn1_cms.SignerIdentifier("subject_key_identifier", b"key")
        case "no digest":
            kept = [a for a in signer["signed_attrs"] if a["type"].native != "message_digest"]
            signer["signed_attrs"] = kept
        case "another type":
            return bytes(asn1_cms.ContentInfo({"content_type": "data", "content": STATEMENT}).dump())
        case _:
            return content + b"\0"
    return bytes(asn1_cms.ContentInfo({"content_type": "signed_data", "content": signed}).dump(force=True))


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ("two signers", SignatureInvalid),
        ("attached", SignatureInvalid),
        ("no certificate", SignatureInvalid),
        ("certificate twice", SignatureInvalid),
        ("md5", WeakAlgorithm),
        ("sha384 over sha256", WeakAlgorithm),
        ("dsa", WeakAlgorithm),
        ("named by key", SignatureInvalid),
        ("no digest", SignatureInvalid),
        ("another type", SignatureInvalid),
        ("trailing byte", SignatureInvalid),
    ],
)
def test_a_cms_structure_with_more_than_one_meaning_is_refused(
    corp: EnterpriseCa, change: str, refusal: type[TrustError]
) -> None:
    with pytest.raises(refusal):
        cms(altered(corp.sign(STATEMENT, LEAD), change), corp)


def test_a_cms_signature_that_is_too_long_is_not_even_parsed(corp: EnterpriseCa) -> None:
    with pytest.raises(SignatureInvalid):
        cms(b"\x30" * 70_000, corp)


def test_without_an_authority_nothing_is_verified(corp: EnterpriseCa) -> None:
    with pytest.raises(SignatureInvalid):
        cms(corp.sign(STATEMENT, LEAD))


def test_roots_that_are_no_certificates_are_the_policys_fault() -> None:
    with pytest.raises(PolicyInvalid):
        CmsVerifier({"corp": (b"none", None)})


def test_signing_needs_a_key_and_its_certificate(corp: EnterpriseCa, tmp_path: Path) -> None:
    key, certificate = corp.leaf(LEAD)
    for wrong in ((certificate, key), (tmp_path / "none", certificate)):
        with pytest.raises(BadInput):
            sign_cms(STATEMENT, *wrong)
