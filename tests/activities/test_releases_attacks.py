"""The 42 attacks on a release's way to a gateway: each ends in exactly its verdict and leaves nothing.

The numbers are those of the attack list in the trust documentation; keys are fresh in every run.
"""

import base64
import gzip
import json
import subprocess
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pysequoia
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from activities.drivers.signature.sigstore import parse_bundle, spki_sha256
from deploy.lab.signer import LabSigner
from orchestrator.publishing.registry import Registry
from policies.approvals import approved, require_approved, required
from tests.fakes import archives
from tests.fakes.authority import EnterpriseCa
from tests.fakes.hostile import Peer, Request
from tests.fakes.registry import FakeRegistry
from tests.fakes.stage import Stage
from tests.fakes.trees import SMALL_TEMPLATE

Step = Callable[[Stage], Awaitable[object]]
STATEMENT_URL, BLOBS_URL = "/statements/sha256/", "/blobs/sha256/"


@dataclass(frozen=True)
class Attack:
    """What is tried, how, and the verdict it must end in."""

    number: str
    name: str
    prepare: Callable[[Stage], Step | None]
    verdict: str
    admitted_before: bool = False
    """Whether the release was rightly admitted before the attack begins."""


ATTACKS: list[Attack] = []


def attack(
    number: str, name: str, verdict: str, *, admitted_before: bool = False
) -> Callable[[Callable[[Stage], Step | None]], Callable[[Stage], Step | None]]:
    """Add the function to the list of attacks."""

    def add(prepare: Callable[[Stage], Step | None]) -> Callable[[Stage], Step | None]:
        ATTACKS.append(Attack(number, name, prepare, verdict, admitted_before))
        return prepare

    return add


def flip(content: bytes, place: int) -> bytes:
    """Return the bytes with one bit changed."""
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


# --- bytes and signatures ----------------------------------------------------------------


@attack("1", "one bit of the tree's archive", "DigestMismatch")
def _(stage: Stage) -> None:
    blob = stage.tree_blob()
    blob.write_bytes(flip(blob.read_bytes(), 600))


@attack("2", "one bit of the signed payload inside the bundle", "SignatureInvalid")
def _(stage: Stage) -> None:
    altered = base64.b64encode(flip(stage.built.statement, 40)).decode()
    stage.change_bundle(lambda bundle: bundle["dsseEnvelope"].update(payload=altered))


@attack("2b", "one bit of the payload under an OpenPGP signature", "SignatureInvalid")
def _(stage: Stage) -> None:
    key = pysequoia.Tsk.generate("lead")
    trust_openpgp(stage, key.extract_certificate())
    stage.add_signature("openpgp", openpgp_sign(key, flip(stage.built.statement, 40)))


@attack("2c", "one bit of the payload under a CMS signature", "SignatureInvalid")
def _(stage: Stage) -> None:
    authority = trust_authority(stage)
    stage.add_signature("cms", authority.sign(flip(stage.built.statement, 40), "lead@corp.example"))


@attack("3", "the signature of another manifest", "SignatureInvalid")
def _(stage: Stage) -> None:
    other = json.loads(stage.bundles(stage.built.statement + b" ")[0])
    stage.change_bundle(lambda b: b["dsseEnvelope"].update(signatures=other["dsseEnvelope"]["signatures"]))


@attack("4", "the log entry of another signature", "SignatureInvalid")
def _(stage: Stage) -> None:
    other = json.loads(stage.bundles()[1])["verificationMaterial"]["tlogEntries"]
    stage.change_bundle(lambda bundle: bundle["verificationMaterial"].update(tlogEntries=other))


@attack("5", "a certificate that had expired when the signature was stamped", "SignatureInvalid")
def _(stage: Stage) -> None:
    late = datetime.now(UTC) + timedelta(hours=1)
    bundle = stage.signer.sign(stage.built.statement, *stage.lab.builder, stamped_at=late)
    stage.sign_again(bundle, stage.bundles()[1])


@attack("6", "no trusted time", "SignatureInvalid")
def _(stage: Stage) -> None:
    stage.change_bundle(lambda bundle: bundle["verificationMaterial"].pop("timestampVerificationData"))


@attack("7", "another identity of the right issuer", "SignerNotAllowed")
def _(stage: Stage) -> None:
    stage.sign_again(stage.signer.sign(stage.built.statement, "mallory@lab.example", stage.lab.issuer))


@attack("8", "the right identity of another issuer", "SignerNotAllowed")
def _(stage: Stage) -> None:
    identity, _ = stage.lab.builder
    stage.sign_again(stage.signer.sign(stage.built.statement, identity, "https://idp.mallory.example"))


@attack("9", "another Sigstore instance", "SignatureInvalid")
def _(stage: Stage) -> None:
    other = LabSigner(stage.folder / "mallory")
    people = (stage.lab.builder, stage.lab.manager)
    stage.sign_again(*[other.sign(stage.built.statement, *person) for person in people])


@attack("10", "a revoked identity", "SignerRevoked")
def _(stage: Stage) -> None:
    stage.change_policy(lambda policy: policy.update(revoked={"identities": [stage.lab.builder[0]]}))


@attack("10b", "a revoked key of a certificate", "SignerRevoked")
def _(stage: Stage) -> None:
    _revoke_builder(stage, "spki_sha256")


@attack("10c", "a revoked certificate", "SignerRevoked")
def _(stage: Stage) -> None:
    _revoke_builder(stage, "cert_serials")


def _revoke_builder(stage: Stage, field: str) -> None:
    bundles = stage.bundles()
    certificate = parse_bundle(bundles[0]).signing_certificate
    value = spki_sha256(certificate) if field == "spki_sha256" else f"{certificate.serial_number:x}"
    stage.sign_again(*bundles)
    stage.change_policy(lambda policy: policy.update(revoked={field: [value]}))


@attack("10d", "a revoked OpenPGP fingerprint", "SignerRevoked")
def _(stage: Stage) -> None:
    key = pysequoia.Tsk.generate("lead")
    certificate = key.extract_certificate()
    trust_openpgp(stage, certificate)
    stage.change_policy(lambda p: p.update(revoked={"openpgp": [certificate.fingerprint.upper()]}))
    stage.add_signature("openpgp", openpgp_sign(key, stage.built.statement))


@attack("10d of a subkey", "a revoked OpenPGP signing subkey, as gpg prints it", "SignerRevoked")
def _(stage: Stage) -> None:
    key = pysequoia.Tsk.generate("lead")
    trust_openpgp(stage, key.extract_certificate())
    content = openpgp_sign(key, stage.built.statement)
    subkey = pysequoia.Sig.from_bytes(content).issuer_fingerprint
    stage.change_policy(lambda p: p.update(revoked={"openpgp": [subkey]}))
    stage.add_signature("openpgp", content)


@attack("10e", "an OpenPGP certificate that revokes itself", "SignerRevoked")
def _(stage: Stage) -> None:
    key = pysequoia.Tsk.generate("lead")
    certificate = key.extract_certificate()
    revocation = certificate.revoke(key.certifier())
    trust_openpgp(stage, pysequoia.Cert.from_bytes(bytes(certificate) + bytes(revocation)))
    stage.add_signature("openpgp", openpgp_sign(key, stage.built.statement))


@attack("10f", "a manifest the channel withdrew", "SignerRevoked")
def _(stage: Stage) -> None:
    stage.publish_index(serial=2, revoked=[stage.digest[7:]])


@attack("11", "a signature after the CA's window had closed", "SignatureInvalid")
def _(stage: Stage) -> None:
    stage.change_trusted_root(lambda root: close(root["certificateAuthorities"][0]["validFor"]))


@attack("11b", "a signature after the log's window had closed", "SignatureInvalid")
def _(stage: Stage) -> None:
    stage.change_trusted_root(lambda root: close(root["tlogs"][0]["publicKey"]["validFor"]))


@attack("11c", "a signature after the certificate log's window had closed", "SignatureInvalid")
def _(stage: Stage) -> None:
    stage.change_trusted_root(lambda root: close(root["ctlogs"][0]["publicKey"]["validFor"]))


@attack("12", "an OpenPGP signature over SHA-1", "WeakAlgorithm")
def _(stage: Stage) -> None:
    home = stage.folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = [
        "gpg",
        "--homedir",
        str(home),
        "--batch",
        "--quiet",
        "--pinentry-mode",
        "loopback",
        "--passphrase",
        "",
    ]
    try:
        subprocess.run([*gpg, "--quick-gen-key", "lead@corp.example", "rsa2048", "sign"], check=True)
        exported = subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout
        options = ["--digest-algo", "SHA1", "--detach-sign"]
        signature = subprocess.run(
            [*gpg, *options], input=stage.built.statement, check=True, capture_output=True
        ).stdout
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    trust_openpgp(stage, pysequoia.Cert.from_bytes(exported))
    stage.add_signature("openpgp", signature)


@attack("12b", "a subject named by MD5 alone", "WeakAlgorithm")
def _(stage: Stage) -> None:
    stage.publish_changed(
        lambda s: s["subject"][0].update(digest={"md5": "d41d8cd98f00b204e9800998ecf8427e"})
    )


@attack("13", "a TLS client certificate of the enterprise CA", "SignerNotAllowed")
def _(stage: Stage) -> None:
    authority = trust_authority(stage)
    signature = authority.sign(
        stage.built.statement, "lead@corp.example", usage=ExtendedKeyUsageOID.CLIENT_AUTH
    )
    stage.add_signature("cms", signature)


@attack("14", "one signer twice where two people are required", "ThresholdNotMet")
def _(stage: Stage) -> None:
    stage.sign_again(*[stage.signer.sign(stage.built.statement, *stage.lab.builder) for _ in range(2)])


@attack("15", "two signers over different payloads", "ThresholdNotMet")
def _(stage: Stage) -> None:
    stage.sign_again(stage.bundles()[0], stage.bundles(stage.built.statement + b" ")[1])


# --- what is signed ----------------------------------------------------------------------


@attack("16", "a good release of another product", "ScopeMismatch")
def _(stage: Stage) -> None:
    stage.publish_predicate(product="openvpn-gw")


@attack("16b", "a good release of another channel", "ScopeMismatch")
def _(stage: Stage) -> None:
    stage.publish_predicate(channel="canary")


@attack("17", "a replay of an older signed release", "DowngradeRefused", admitted_before=True)
def _(stage: Stage) -> Step:
    async def later(stage: Stage) -> None:
        await stage.admit()
        stage.releases.promote(stage.digest)
        stage.publish_predicate(rollback_index=4, version="1.2.9")
        await stage.admit_and_unpack()

    return later


@attack("17b", "a release below the security floor", "DowngradeRefused")
def _(stage: Stage) -> None:
    stage.publish_index(serial=2, security_floor=6)


@attack("18", "a frozen channel: its index has expired", "Expired")
def _(stage: Stage) -> None:
    stage.publish_index(serial=2, issued_at=datetime.now(UTC) - timedelta(days=8))


@attack("18b", "a manifest that has expired", "Expired")
def _(stage: Stage) -> None:
    issued = datetime.now(UTC).replace(microsecond=0) - timedelta(days=100)
    expires = issued + timedelta(days=90)
    stage.signer.now = lambda: issued
    stage.publish_predicate(issued_at=issued.isoformat(), expires_at=expires.isoformat())


@attack("19", "an index with a serial lower than one seen before", "ReplayDetected", admitted_before=True)
def _(stage: Stage) -> Step:
    async def later(stage: Stage) -> None:
        stage.publish_index(serial=9)
        await stage.admit()
        stage.publish_index(serial=8)
        await stage.admit_and_unpack()

    return later


@attack("20", "manifest A with binary B, both signed", "DigestMismatch")
def _(stage: Stage) -> None:
    tree = stage.folder / "tree"
    (tree / "usr/sbin/ocserv").write_bytes(b"another good daemon")
    other = stage.lab.publish(tree, stage.template, version="1.3.1", rollback_index=6)
    statement = json.loads((stage.root / "statements" / other.replace(":", "/")).read_bytes())
    other_blob = stage.root / "blobs/sha256" / statement["predicate"]["artifacts"][0]["sha256"]
    stage.tree_blob().write_bytes(other_blob.read_bytes())


@attack("21", "a good statement about something else", "SubjectMismatch")
def _(stage: Stage) -> None:
    stage.publish_changed(lambda s: s["subject"][0].update(digest={"sha256": "0" * 64}))


@attack("21b", "good bundles over another release's statement", "SubjectMismatch")
def _(stage: Stage) -> None:
    stage.sign_again(*stage.bundles(stage.built.statement + b" "))


@attack("22", "another payload type", "WrongStatementType")
def _(stage: Stage) -> None:
    other = {"payload_type": "application/x-other"}
    stage.sign_again(stage.signer.sign(stage.built.statement, *stage.lab.builder, **other))  # type: ignore[arg-type]


@attack("22b", "another predicate type", "WrongStatementType")
def _(stage: Stage) -> None:
    stage.publish_changed(lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"))


def _signed_text(change: Callable[[str], str]) -> Callable[[Stage], None]:
    def prepare(stage: Stage) -> None:
        stage.publish_statement(change(stage.built.statement.decode()).encode())

    return prepare


MALFORMED: dict[str, Callable[[str], str]] = {
    "a key twice": lambda text: text.replace('"serial":5', '"serial":5,"serial":6'),
    "a key twice at the top": lambda text: text[:-1] + ',"_type":"https://in-toto.io/Statement/v1"}',
    "NaN": lambda text: text.replace('"serial":5', '"serial":NaN'),
    "a fraction": lambda text: text.replace('"serial":5', '"serial":5.5'),
    "an unknown field": lambda text: text.replace('"serial":5', '"serial":5,"colour":"red"'),
    "a text for a number": lambda text: text.replace('"serial":5', '"serial":"5"'),
    "33 levels": lambda text: text.replace('"serial":5', '"serial":' + "[" * 33 + "]" * 33),
    "more than 64 kB": lambda text: text.replace('"notes":""', f'"notes":"{"x" * 66_000}"'),
    "a life of 200 days": lambda text: text.replace(
        json.loads(text)["predicate"]["expires_at"],
        (datetime.now(UTC) + timedelta(days=200)).replace(microsecond=0).isoformat(),
    ),
    "a lone surrogate": lambda text: text.replace('"notes":""', '"notes":"\\ud800"'),
    "no object": lambda text: f"[{text}]",
    "no JSON": lambda text: text[:-1],
    "a sha512 name on a sha256 value": lambda text: text.replace('"digest":{"sha256"', '"digest":{"sha512"'),
    "a digest in upper case": lambda text: text.replace(
        json.loads(text)["subject"][0]["digest"]["sha256"],
        json.loads(text)["subject"][0]["digest"]["sha256"].upper(),
    ),
    "a digest of 63 digits": lambda text: text.replace(
        json.loads(text)["subject"][0]["digest"]["sha256"],
        json.loads(text)["subject"][0]["digest"]["sha256"][:-1],
    ),
    "a path that climbs out": lambda text: text.replace("usr/sbin/ocserv", "../sbin/ocserv"),
    "an absolute path": lambda text: text.replace("usr/sbin/ocserv", "/usr/sbin/ocserv"),
    "a link that leads out": lambda text: text.replace(
        '"target":"libexample.so.1"', '"target":"../../../etc"'
    ),
    "a set-id bit": lambda text: text.replace('"mode":493', '"mode":2541'),
}
for _number, (_name, _change) in enumerate(MALFORMED.items()):
    _which = "24" if "digest" in _name or "sha512" in _name else "23"
    attack(f"{_which}-{_number}", _name, "ManifestInvalid")(_signed_text(_change))


# --- the way ----------------------------------------------------------------------------


def _override_tree(stage: Stage, script: Callable[[Request, Peer, bytes], None]) -> None:
    content = stage.tree_blob().read_bytes()
    path = BLOBS_URL + stage.tree_blob().name
    stage.overrides[path] = lambda request, peer: script(request, peer, content)


@attack("25", "a download that always breaks off", "DownloadFailed")
def _(stage: Stage) -> None:
    def script(request: Request, peer: Peer, content: bytes) -> None:
        peer.head(Content_Length=len(content))
        peer.send(content[:100])

    _override_tree(stage, script)


@attack("26", "a download cut short without saying how long it is", "DigestMismatch")
def _(stage: Stage) -> None:
    def script(request: Request, peer: Peer, content: bytes) -> None:
        peer.head(Connection="close")
        peer.send(content[:-1])

    _override_tree(stage, script)


@attack("27", "a download that never ends", "SizeExceeded")
def _(stage: Stage) -> None:
    def script(request: Request, peer: Peer, content: bytes) -> None:
        peer.head(Connection="close")
        while not peer.server.ended.is_set():
            peer.send(content)

    _override_tree(stage, script)


@attack("27b", "a manifest that never ends", "SizeExceeded")
def _(stage: Stage) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.head(Connection="close")
        while not peer.server.ended.is_set():
            peer.send(b" " * 65536)

    stage.overrides[STATEMENT_URL] = script


@attack("28", "a compressed body that is a bomb", "TransportRefused")
def _(stage: Stage) -> None:
    def script(request: Request, peer: Peer, content: bytes) -> None:
        packed = gzip.compress(bytes(64 << 20))
        peer.head(Content_Length=len(packed), Content_Encoding="gzip")
        peer.send(packed)

    _override_tree(stage, script)


@attack("29", "an archive that is a bomb", "ArchiveRefused")
def _(stage: Stage) -> None:
    stage.publish_archive(archives.bomb("usr/sbin/ocserv"), "tar.gz")


HOSTILE_ENTRIES: dict[str, Callable[[tarfile.TarFile], None]] = {
    "a path that climbs out": archives.with_entry("../../etc/cron.d/evil"),
    "an absolute path": archives.with_entry("/etc/cron.d/evil"),
    "a symbolic link": archives.with_entry("usr/lib/evil", tarfile.SYMTYPE, linkname="/etc"),
    "a hard link": archives.with_entry("usr/lib/evil", tarfile.LNKTYPE, linkname="usr/sbin/ocserv"),
    "a device": archives.with_entry("dev/sda", tarfile.BLKTYPE, devmajor=8),
    "a pipe": archives.with_entry("run/pipe", tarfile.FIFOTYPE),
    "a folder": archives.with_entry("usr/evil", tarfile.DIRTYPE),
    "a set-id file": archives.with_entry("usr/sbin/evil", mode=0o6755),
    "a file twice": archives.with_entry("usr/sbin/ocserv"),
    "a twin in capitals": archives.with_entry("usr/sbin/OCSERV"),
    "a name with a line break": archives.with_entry("usr/sbin/evil\nname"),
    "a sparse file": archives.with_entry("usr/sbin/evil", tarfile.GNUTYPE_SPARSE),
    "a long header": archives.with_entry("usr/sbin/evil", tarfile.XHDTYPE),
}


def _hostile_archive(change: Callable[[tarfile.TarFile], None]) -> Callable[[Stage], None]:
    return lambda stage: stage.publish_archive(archives.archive_of(stage.folder / "tree", change))


for _number, (_name, _entry) in enumerate(HOSTILE_ENTRIES.items()):
    attack(f"30-{_number}", f"an archive with {_name}", "ArchiveRefused")(_hostile_archive(_entry))


@attack("30b", "an archive that lacks a file", "ArchiveRefused")
def _(stage: Stage) -> None:
    tree = stage.folder / "tree"
    (tree / "usr/lib/libexample.so.1").unlink()
    stage.publish_archive(archives.archive_of(tree))


@attack("30c", "an archive with another file under a listed name", "ArchiveRefused")
def _(stage: Stage) -> None:
    tree = stage.folder / "tree"
    daemon = tree / "usr/sbin/ocserv"
    daemon.write_bytes(b"x" * daemon.stat().st_size)
    stage.publish_archive(archives.archive_of(tree))


@attack("30d", "an archive that goes on after its end", "ArchiveRefused")
def _(stage: Stage) -> None:
    stage.publish_archive(archives.archive_of(stage.folder / "tree") + b"evil")


@attack("30e", "an archive that is none", "ArchiveRefused")
def _(stage: Stage) -> None:
    stage.publish_archive(b"evil" * 300)


@attack("30f", "a gzip archive that is cut off", "ArchiveRefused")
def _(stage: Stage) -> None:
    stage.publish_archive(gzip.compress(archives.archive_of(stage.folder / "tree"))[:-20], "tar.gz")


@attack("30g", "a gzip archive that is none", "ArchiveRefused")
def _(stage: Stage) -> None:
    stage.publish_archive(archives.archive_of(stage.folder / "tree"), "tar.gz")


@attack("31", "a blob replaced between verification and installation", "DigestMismatch", admitted_before=True)
def _(stage: Stage) -> Step:
    async def later(stage: Stage) -> None:
        admitted = await stage.admit()
        for path in stage.stored():
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(flip(content, len(content) // 2))
        await stage.releases.unpack(admitted, stage.folder / "gateway")

    return later


REDIRECTS = {
    "another host": "http://127.0.0.2:9/blob",
    "a file": "file:///etc/passwd",
    "a name with a password": "http://user:secret@127.0.0.1:9/blob",
}
for _number, (_name, _target) in enumerate(REDIRECTS.items()):

    def _redirect(stage: Stage, target: str = _target) -> None:
        _override_tree(stage, lambda r, p, c: p.head("302 Found", Location=target, Content_Length=0))

    attack(f"32-{_number}", f"a redirect to {_name}", "TransportRefused")(_redirect)


@attack("33", "headers, a byte at a time", "DownloadFailed")
def _(stage: Stage) -> None:
    stage.change_policy(lambda policy: policy["sources"].update(deadline_s=1.0))
    _override_tree(stage, lambda r, p, c: p.trickle(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000, 0.1))


@attack("33b", "a body, a byte at a time", "DownloadFailed")
def _(stage: Stage) -> None:
    def script(request: Request, peer: Peer, content: bytes) -> None:
        peer.head(Content_Length=len(content))
        peer.trickle(content, 0.1)

    stage.change_policy(lambda policy: policy["sources"].update(deadline_s=1.0))
    _override_tree(stage, script)


@attack("34", "content that changes while a download is resumed", "Admitted")
def _(stage: Stage) -> None:
    asked: list[int] = []

    def script(request: Request, peer: Peer, content: bytes) -> None:
        asked.append(request.start)
        if len(asked) == 1:
            peer.head(Content_Length=len(content), ETag='"evil"')
            peer.send(bytes(1000))
        else:
            peer.head(Content_Length=len(content), ETag='"good"')
            peer.send(content)

    _override_tree(stage, script)


@attack("35", "a tag that moved after the approval", "Admitted")
def _(stage: Stage) -> Step:
    approved = stage.digest
    stage.publish_predicate(version="1.4.0", rollback_index=6)
    stage.digest = approved

    async def by_digest(stage: Stage) -> None:
        admitted = await stage.admit()
        assert admitted.reference.digest == approved
        assert admitted.reference.version == "1.3.0"

    return by_digest


@attack("36", "a registry that lies about a manifest's digest", "DigestMismatch")
def _(stage: Stage) -> Step:
    async def from_registry(stage: Stage) -> None:
        with FakeRegistry() as registry:
            _push(stage, registry)
            registry.lies[f"statement-{stage.digest[7:]}"] = "sha256:" + "0" * 64
            await stage.releases.admit(stage.digest, f"oci+{registry.url}/vpn")

    return from_registry


@attack("37", "a token service on another host", "TransportRefused")
def _(stage: Stage) -> Step:
    async def from_registry(stage: Stage) -> None:
        with FakeRegistry(realm="http://127.0.0.2:9/token") as registry:
            _push(stage, registry)
            await stage.releases.admit(stage.digest, f"oci+{registry.url}/vpn")

    return from_registry


def _push(stage: Stage, registry: FakeRegistry) -> None:
    realm, registry.realm = registry.realm, None
    pushed = Registry(registry.url, "vpn")
    pushed.push_release(stage.root, stage.digest)
    pushed.push_index(stage.root, "ocserv-gw", "stable")
    registry.realm = realm
    stage.change_policy(lambda policy: policy["sources"].update(allow=[registry.url]))


# --- the worker -------------------------------------------------------------------------


@attack("38", "a trust policy altered after it was agreed on", "PolicyChanged")
def _(stage: Stage) -> None:
    stage.policy_digest = stage.releases.policy_digest
    stage.change_policy(lambda policy: policy["rules"][0]["require"].pop())


@attack("39", "a worker's clock set back", "Expired", admitted_before=True)
def _(stage: Stage) -> Step:
    async def later(stage: Stage) -> None:
        await stage.admit()
        now = datetime.now(UTC)
        old = now - timedelta(days=6)
        stage.publish_index(serial=2, issued_at=now)
        await stage.admit()
        stage.publish_index(serial=3, issued_at=old, days=1)
        stage.time = old + timedelta(hours=1)
        await stage.admit_and_unpack()

    return later


@attack("40", "bundles that raise foreign errors inside the library", "SignatureInvalid")
def _(stage: Stage) -> None:
    stage.change_bundle(lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="!"))


@attack("40b", "a bundle that is no JSON", "SignatureInvalid")
def _(stage: Stage) -> None:
    stage.sign_again(b"\xff\xfe{}")


@attack("40c", "a certificate that is none", "SignatureInvalid")
def _(stage: Stage) -> None:
    stage.change_bundle(lambda b: b["verificationMaterial"]["certificate"].update(rawBytes="AAAA"))


@attack("41", "a configuration with an option outside the whitelist", "ApprovalRequired")
def _(stage: Stage) -> Step:
    return _config_change(f"{SMALL_TEMPLATE}tls-priorities = LEGACY\n")


@attack("41b", "a configuration that carries a private key", "ApprovalRequired")
def _(stage: Stage) -> Step:
    return _config_change(f"{SMALL_TEMPLATE}banner = -----BEGIN PRIVATE KEY-----\n")


def _config_change(template: str) -> Step:
    async def plan(stage: Stage) -> None:
        stage.change_policy(lambda policy: policy.pop("approvals"))
        known_good = (await stage.admit()).reference.digest
        (stage.folder / "new.conf").write_text(template)
        digest = stage.lab.publish(
            stage.folder / "tree", stage.folder / "new.conf", version="1.4.0", rollback_index=6
        )
        admitted = await stage.releases.admit(digest, stage.server.url)
        changes = stage.releases.changes(digest, [known_good])
        wanted = required(changes, stage.releases.approval_rules, by_fleet=0)
        require_approved(approved(wanted, [], requesters={"alice"}, signers=[], now=datetime.now(UTC)))
        await stage.releases.unpack(admitted, stage.folder / "gateway")

    return plan


@attack("42", "a worker that dies while it downloads, and one that dies while it verifies", "Admitted")
def _(stage: Stage) -> Step:
    async def twice(stage: Stage) -> None:
        partial = stage.folder / "store/partial" / stage.tree_blob().name
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(stage.tree_blob().read_bytes()[:1000])
        await stage.admit_and_unpack()
        stage.releases = stage.compose()
        await stage.admit_and_unpack()

    return twice


# --- what holds for all of them -----------------------------------------------------------


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


@pytest.mark.parametrize("attack", ATTACKS, ids=[f"{a.number} {a.name}" for a in ATTACKS])
async def test_an_attack_ends_in_its_verdict_and_leaves_nothing(stage: Stage, attack: Attack) -> None:
    step = attack.prepare(stage)
    assert await stage.outcome(step) == attack.verdict
    if attack.verdict == "Admitted":
        assert set(stage.verdicts()) == {"Admitted"}
        return
    # Approvals are counted by the service, whose own audit record has their refusals (tests/service).
    written = [] if attack.verdict == "ApprovalRequired" else [attack.verdict]
    assert [code for code in stage.verdicts() if code != "Admitted"] == written
    assert not stage.installed()
    if not (attack.admitted_before or "Admitted" in stage.verdicts()):
        assert not stage.stored()
    assert not list((stage.folder / "store/partial").glob("*")) or attack.verdict == "DownloadFailed"


def test_the_list_of_attacks_is_complete() -> None:
    numbers = {"".join(c for c in attack.number.partition("-")[0] if c.isdigit()) for attack in ATTACKS}
    assert numbers == {str(number) for number in range(1, 43)}


def close(window: dict[str, Any]) -> None:
    """End a validity window long ago."""
    window["end"] = "2024-01-01T00:00:00Z"


def add_signer(policy: dict[str, Any], signer: dict[str, str]) -> None:
    """Let the lead sign for the release managers, and say of everybody who they are."""
    groups = policy["rules"][0]["groups"]
    groups["release_manager"].append(signer | {"person": "lead"})
    for signers in groups.values():
        for one in signers:
            one.setdefault("person", one.get("identity", ""))


def trust_openpgp(stage: Stage, certificate: pysequoia.Cert) -> None:
    """Let the release manager sign by this OpenPGP certificate as well."""
    (stage.folder / "lab/lead.asc").write_bytes(bytes(certificate))
    pinned = {"lead": {"cert": "lead.asc", "fingerprint": certificate.fingerprint.upper()}}

    def change(policy: dict[str, Any]) -> None:
        policy["openpgp"] = pinned
        add_signer(policy, {"openpgp": "lead"})

    stage.change_policy(change)
    stage.sign_again(stage.bundles()[0])


def openpgp_sign(key: pysequoia.Tsk, statement: bytes) -> bytes:
    """Return a detached signature."""
    return pysequoia.sign(key.signer(), statement, mode=pysequoia.SignatureMode.DETACHED)


def trust_authority(stage: Stage) -> EnterpriseCa:
    """Let the release manager sign by a certificate of an enterprise CA as well."""
    authority = EnterpriseCa(stage.folder / "lab/corp")

    def change(policy: dict[str, Any]) -> None:
        policy["cms"] = {"corp": {"roots": "corp/roots.pem"}}
        add_signer(policy, {"cms": "corp", "identity": "lead@corp.example"})

    stage.change_policy(change)
    stage.sign_again(stage.bundles()[0])
    return authority
