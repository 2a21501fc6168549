"""A private Sigstore instance for the lab and the tests: CA, log and time stamps in one object.

Makes real bundles offline: Fulcio certificates with an embedded SCT (RFC 6962), a Rekor v2
entry (hashedrekord 0.0.2) with inclusion proof and C2SP checkpoint, and an RFC 3161 time
stamp. It believes whoever asks, which is why it is never part of the wheel.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import rfc8785
from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PAYLOAD_TYPE = "application/vnd.in-toto+json"
LOG_ORIGIN = "log.lab.penstock"
ISSUER_RAW = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
SOURCE_REPOSITORY = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.12")
SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
CERTIFICATE_LIFE = timedelta(minutes=10)

Key = ec.EllipticCurvePrivateKey


class LabSigner:
    """Signs statements as anybody; keys live in `folder` and are made there when missing.

    `now` is the instance's clock, so that tests can sign in the past.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.folder = folder
        self.now = now
        folder.mkdir(parents=True, exist_ok=True)
        self.root_key, self.root = self._authority("root", None)
        self.ca_key, self.ca = self._authority("intermediate", (self.root_key, self.root))
        self.tsa_key, self.tsa = self._authority("tsa", (self.root_key, self.root))
        self.log_key = self._key("log")
        self.ct_key = self._key("ct")
        self.leaves: list[bytes] = []
        self.trusted_root_path = folder / "trusted_root.json"
        self.trusted_root_path.write_text(json.dumps(self.trusted_root(), indent=1))

    def trusted_root(self) -> dict[str, Any]:
        """Return what verifiers need: authorities, logs and their windows (trusted_root.json)."""
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [_log_entry("https://log.lab.penstock", self.log_key)],
            "certificateAuthorities": [_authority_entry("ca", [self.ca, self.root])],
            "ctlogs": [_log_entry("https://ct.lab.penstock", self.ct_key)],
            "timestampAuthorities": [_authority_entry("tsa", [self.tsa, self.root])],
        }

    def sign(
        self,
        statement: bytes,
        identity: str,
        issuer: str,
        *,
        payload_type: str = PAYLOAD_TYPE,
        stamped_at: datetime | None = None,
        source_repository: str = "",
    ) -> bytes:
        """Return a Sigstore bundle over these bytes, by that identity of that issuer, stamped now or then.

        The source repository is the one whose run signs, as continuous integration has it in certificates.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certificate(key, identity, issuer, source_repository)
        pae = _pae(payload_type, statement)
        signature = key.sign(pae, ec.ECDSA(hashes.SHA256()))
        envelope = {
            "payload": _b64(statement),
            "payloadType": payload_type,
            "signatures": [{"sig": _b64(signature)}],
        }
        return self.bundle(certificate, signature, pae, {"dsseEnvelope": envelope}, stamped_at)

    def sign_blob(self, blob: bytes, identity: str, issuer: str, *, source_repository: str = "") -> bytes:
        """Return a Sigstore bundle over a blob itself, as `cosign sign-blob` makes them."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certificate(key, identity, issuer, source_repository)
        signature = key.sign(blob, ec.ECDSA(hashes.SHA256()))
        digest = {"algorithm": "SHA2_256", "digest": _b64(hashlib.sha256(blob).digest())}
        content = {"messageSignature": {"messageDigest": digest, "signature": _b64(signature)}}
        return self.bundle(certificate, signature, blob, content)

    def bundle(
        self,
        certificate: x509.Certificate,
        signature: bytes,
        signed: bytes,
        content: dict[str, Any],
        stamped_at: datetime | None = None,
    ) -> bytes:
        """Return a bundle of these parts, logged now and stamped now or then."""
        material = {
            "certificate": {"rawBytes": _b64(_der(certificate))},
            "tlogEntries": [self.log(certificate, signature, signed)],
            "timestampVerificationData": {
                "rfc3161Timestamps": [{"signedTimestamp": _b64(self.timestamp(signature, stamped_at))}]
            },
        }
        bundle = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": material,
        }
        return json.dumps(bundle | content).encode()

    def certificate(
        self, key: Key, identity: str, issuer: str, source_repository: str = ""
    ) -> x509.Certificate:
        """Return a short-lived certificate for the identity, with its SCT."""
        now = self.now().replace(microsecond=0)
        name = x509.RFC822Name(identity) if "@" in identity and "://" not in identity else None
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + CERTIFICATE_LIFE)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([name or x509.UniformResourceIdentifier(identity)]), critical=True
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.UnrecognizedExtension(ISSUER_RAW, issuer.encode()), critical=False)
            .add_extension(
                x509.UnrecognizedExtension(ISSUER_V2, core.UTF8String(issuer).dump()), critical=False
            )
        )
        if source_repository:
            text = core.UTF8String(source_repository).dump()
            builder = builder.add_extension(
                x509.UnrecognizedExtension(SOURCE_REPOSITORY, text), critical=False
            )
        precertificate = builder.sign(self.ca_key, hashes.SHA256())
        sct = self._sct(precertificate.tbs_certificate_bytes)
        return builder.add_extension(x509.UnrecognizedExtension(SCT_LIST, sct), critical=False).sign(
            self.ca_key, hashes.SHA256()
        )

    def log(self, certificate: x509.Certificate, signature: bytes, signed: bytes) -> dict[str, Any]:
        """Append an entry about this signature; return it with its proof of inclusion."""
        body = rfc8785.dumps(
            {
                "apiVersion": "0.0.2",
                "kind": "hashedrekord",
                "spec": {
                    "hashedRekordV002": {
                        "data": {"algorithm": "SHA2_256", "digest": _b64(hashlib.sha256(signed).digest())},
                        "signature": {
                            "content": _b64(signature),
                            "verifier": {
                                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                                "x509Certificate": {"rawBytes": _b64(_der(certificate))},
                            },
                        },
                    }
                },
            }
        )
        self.leaves.append(hashlib.sha256(b"\x00" + body).digest())
        index, size = len(self.leaves) - 1, len(self.leaves)
        root = _tree_hash(self.leaves)
        return {
            "logIndex": str(index),
            "logId": {"keyId": _b64(_key_id(self.log_key))},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
            "inclusionProof": {
                "logIndex": str(index),
                "rootHash": _b64(root),
                "treeSize": str(size),
                "hashes": [_b64(node) for node in _path(index, self.leaves)],
                "checkpoint": {"envelope": self._checkpoint(size, root)},
            },
            "canonicalizedBody": _b64(body),
        }

    def timestamp(self, message: bytes, at: datetime | None = None) -> bytes:
        """Return an RFC 3161 response over the message, stamped now or at the given time."""
        info = tsp.TSTInfo(
            {
                "version": "v1",
                "policy": "1.3.6.1.4.1.57264.2",
                "message_imprint": {
                    "hash_algorithm": {"algorithm": "sha256"},
                    "hashed_message": hashlib.sha256(message).digest(),
                },
                "serial_number": x509.random_serial_number(),
                "gen_time": (at or self.now()).replace(microsecond=0),
            }
        )
        return _timestamp_response(info, self.tsa_key, self.tsa)

    def _checkpoint(self, size: int, root: bytes) -> str:
        note = f"{LOG_ORIGIN}\n{size}\n{_b64(root)}\n"
        signature = self.log_key.sign(note.encode(), ec.ECDSA(hashes.SHA256()))
        return f"{note}\n— {LOG_ORIGIN} {_b64(_key_id(self.log_key)[:4] + signature)}\n"

    def _sct(self, tbs: bytes) -> bytes:
        """Return the SCT list extension's value for this precertificate (RFC 6962 section 3.2)."""
        milliseconds = int(self.now().timestamp()) * 1000
        issuer = _key_id(self.ca_key)
        entry = issuer + len(tbs).to_bytes(3, "big") + tbs
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1) + entry + struct.pack("!H", 0)
        signature = self.ct_key.sign(signed, ec.ECDSA(hashes.SHA256()))
        sct = struct.pack("!B32sQH", 0, _key_id(self.ct_key), milliseconds, 0)
        sct += struct.pack("!BBH", 4, 3, len(signature)) + signature
        listed = struct.pack("!H", len(sct)) + sct
        return bytes(core.OctetString(struct.pack("!H", len(listed)) + listed).dump())

    def _key(self, name: str) -> Key:
        path = self.folder / f"{name}.key.pem"
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            path.touch(mode=0o600)
            path.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        return loaded

    def _authority(
        self, name: str, issuer: tuple[Key, x509.Certificate] | None
    ) -> tuple[Key, x509.Certificate]:
        """Return key and certificate of one of the instance's own authorities."""
        key, path = self._key(name), self.folder / f"{name}.pem"
        if not path.exists():
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"penstock lab {name}")])
            now = datetime.now(UTC)
            builder = (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(issuer[1].subject if issuer else subject)
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - timedelta(days=3650))
                .not_valid_after(now + timedelta(days=3650))
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(
                        (issuer[0] if issuer else key).public_key()
                    ),
                    critical=False,
                )
            )
            if name == "tsa":
                builder = builder.add_extension(_usage(digital_signature=True), critical=True).add_extension(
                    x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True
                )
            else:
                builder = builder.add_extension(
                    x509.BasicConstraints(ca=True, path_length=None), critical=True
                )
                builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            certificate = builder.sign(issuer[0] if issuer else key, hashes.SHA256())
            path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return key, x509.load_pem_x509_certificate(path.read_bytes())


def _timestamp_response(info: tsp.TSTInfo, key: Key, certificate: x509.Certificate) -> bytes:
    leaf = asn1_x509.Certificate.load(_der(certificate))
    content = info.dump()
    essential = tsp.SigningCertificateV2(
        {
            "certs": [
                {
                    "hash_algorithm": {"algorithm": "sha256"},
                    "cert_hash": hashlib.sha256(_der(certificate)).digest(),
                }
            ]
        }
    )
    attributes = cms.CMSAttributes(
        [
            cms.CMSAttribute({"type": "content_type", "values": ["tst_info"]}),
            cms.CMSAttribute({"type": "message_digest", "values": [hashlib.sha256(content).digest()]}),
            cms.CMSAttribute({"type": "signing_certificate_v2", "values": [essential]}),
        ]
    )
    signer = cms.SignerInfo(
        {
            "version": "v1",
            "sid": cms.SignerIdentifier(
                "issuer_and_serial_number",
                cms.IssuerAndSerialNumber({"issuer": leaf.issuer, "serial_number": leaf.serial_number}),
            ),
            "digest_algorithm": algos.DigestAlgorithm({"algorithm": "sha256"}),
            "signed_attrs": attributes,
            "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "sha256_ecdsa"}),
            "signature": key.sign(attributes.dump(), ec.ECDSA(hashes.SHA256())),
        }
    )
    signed = cms.SignedData(
        {
            "version": "v3",
            "digest_algorithms": [algos.DigestAlgorithm({"algorithm": "sha256"})],
            "encap_content_info": {"content_type": "tst_info", "content": core.ParsableOctetString(content)},
            "certificates": [leaf],
            "signer_infos": [signer],
        }
    )
    token = cms.ContentInfo({"content_type": "signed_data", "content": signed})
    return bytes(tsp.TimeStampResp({"status": {"status": "granted"}, "time_stamp_token": token}).dump())


def _usage(**granted: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: granted.get(name, False) for name in names})


def _log_entry(url: str, key: Key) -> dict[str, Any]:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": _b64(_spki(key)),
            "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            "validFor": {"start": "2020-01-01T00:00:00Z"},
        },
        "logId": {"keyId": _b64(_key_id(key))},
    }


def _authority_entry(name: str, chain: list[x509.Certificate]) -> dict[str, Any]:
    return {
        "subject": {"organization": "penstock lab", "commonName": name},
        "uri": f"https://{name}.lab.penstock",
        "certChain": {"certificates": [{"rawBytes": _b64(_der(certificate))} for certificate in chain]},
        "validFor": {"start": "2020-01-01T00:00:00Z"},
    }


def _tree_hash(leaves: list[bytes]) -> bytes:
    """Return the Merkle tree hash of these leaf hashes (RFC 6962 section 2.1)."""
    if len(leaves) == 1:
        return leaves[0]
    split = _split(len(leaves))
    return hashlib.sha256(b"\x01" + _tree_hash(leaves[:split]) + _tree_hash(leaves[split:])).digest()


def _path(index: int, leaves: list[bytes]) -> list[bytes]:
    """Return the audit path of one leaf (RFC 6962 section 2.1.1)."""
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*_path(index, leaves[:split]), _tree_hash(leaves[split:])]
    return [*_path(index - split, leaves[split:]), _tree_hash(leaves[:split])]


def _split(size: int) -> int:
    """Return the largest power of two smaller than the size."""
    return 1 << (size - 1).bit_length() - 1


def _pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes a DSSE signature is over (https://github.com/secure-systems-lab/dsse)."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)


def _spki(key: Key) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _key_id(key: Key) -> bytes:
    return hashlib.sha256(_spki(key)).digest()


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
