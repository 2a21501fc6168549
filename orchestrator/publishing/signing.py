"""Sign statements: by Sigstore identity, OpenPGP key or enterprise certificate, over the same bytes.

Keys are read from files, used and forgotten, or stay with an agent; they are never stored, logged or sent
anywhere. A passphrase is asked for only by a key that has one.
"""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.model.errors import BadInput, Unavailable

Passphrase = Callable[[str], str]
"""Returns the passphrase of the key of that name."""
FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
AGENT_SECONDS = 300
"""How long an agent may wait for whoever types a passphrase or touches a card."""


@dataclass(frozen=True)
class Signer:
    """Signs statements in one of the ways that trust policies know: sigstore, openpgp or cms."""

    kind: str
    sign: Callable[[bytes], bytes]
    time_stamp: bytes | None = None


def no_passphrase(key: str) -> str:
    """Refuse a key that has a passphrase, where nobody can be asked for it.

    Raises:
        BadInput: always.
    """
    raise BadInput(f"{key} has a passphrase; say where it comes from, or sign by an agent")


def sign_openpgp(statement: bytes, key: Path, passphrase: Passphrase = no_passphrase) -> bytes:
    """Return a detached OpenPGP signature by the secret key in this file.

    Raises:
        BadInput: the file is no OpenPGP secret key that can sign, or the passphrase does not open it.
    """
    from pysequoia import SignatureMode, Tsk, sign  # noqa: PLC0415 - loaded where signing happens

    try:
        signer = _openpgp_signer(Tsk.from_file(str(key)), key, passphrase)
        return bytes(sign(signer, statement, mode=SignatureMode.DETACHED))
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{key} is not an OpenPGP secret key that can sign: {_first_line(error)}") from error


def _openpgp_signer(secret: Any, key: Path, passphrase: Passphrase) -> Any:
    try:
        return secret.signer()
    except Exception as error:
        if "is encrypted" not in _first_line(error):
            raise
    word = passphrase(str(key))
    try:
        return secret.signer(word)
    except Exception:  # noqa: BLE001 - a wrong one shows as whatever the garbage is read as
        raise BadInput(f"the passphrase does not open {key}") from None


def sign_gpg(statement: bytes, fingerprint: str) -> bytes:
    """Return a detached OpenPGP signature by a key of gpg's own, which never leaves its agent or card.

    The agent asks for the passphrase, by the pinentry of whoever runs it. `GNUPGHOME` is obeyed.

    Raises:
        BadInput: it is not a whole fingerprint, or gpg is not here.
        Unavailable: the agent did not sign, with its words.
    """
    wanted = fingerprint.replace(" ", "").upper().removeprefix("0X")
    if not FINGERPRINT.fullmatch(wanted):
        raise BadInput(
            f"{fingerprint[:80]!r} is no whole fingerprint, and shorter names fit several keys; "
            "`gpg --list-secret-keys --with-subkey-fingerprint` prints them"
        )
    command = ["gpg", "--batch", "--local-user", f"{wanted}!", "--detach-sign", "--output", "-"]
    try:
        done = subprocess.run(
            command,
            input=statement,
            env={"LC_ALL": "C", **os.environ, **_terminal()},
            capture_output=True,
            check=False,
            timeout=AGENT_SECONDS,
        )
    except FileNotFoundError as error:
        raise BadInput("gpg is not on this machine: `apt-get install gpg gpg-agent`") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"gpg's agent did not sign within {AGENT_SECONDS} s; nothing was signed") from error
    if done.returncode or not done.stdout:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason"])[-1]
        raise Unavailable(f"gpg did not sign with {wanted}: {said.removeprefix('gpg: ')[:200]}")
    return done.stdout


def _terminal() -> dict[str, str]:
    """Return on which terminal a pinentry may ask, where there is one."""
    return {"GPG_TTY": os.ttyname(0)} if os.isatty(0) else {}


def sign_cms(
    statement: bytes, key: Path, certificates: Path, passphrase: Passphrase = no_passphrase
) -> bytes:
    """Return a detached CMS signature; `certificates` holds the signer's own first, then its chain.

    Raises:
        BadInput: the files are not a key and its certificates, or the passphrase does not open the key.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415

    secret = _private_key(key, passphrase)
    if not isinstance(secret, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise BadInput(f"{key} is neither an elliptic curve nor an RSA key")
    return cms_by(statement, secret, str(key), certificates)


def _private_key(key: Path, passphrase: Passphrase) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        content = key.read_bytes()
        return load_pem_private_key(content, password=None)
    except TypeError:  # how the library says that it has a passphrase
        word = passphrase(str(key)).encode()
    except (OSError, ValueError) as error:
        raise BadInput(f"{key} is not a private key in PEM: {_first_line(error)}") from error
    try:
        return load_pem_private_key(content, password=word)
    except ValueError:
        raise BadInput(f"the passphrase does not open {key}") from None


def cms_by(statement: bytes, secret: Any, named: str, certificates: Path) -> bytes:
    """Return a detached CMS signature by a key that may be elsewhere, and is called `named`.

    Raises:
        BadInput: the first of the certificates is not the key's.
    """
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import pkcs7  # noqa: PLC0415

    try:
        leaf, *chain = x509.load_pem_x509_certificates(certificates.read_bytes())
        if leaf.public_key() != secret.public_key():
            raise BadInput(f"{named} is not the key of the first certificate in {certificates}")
        builder = pkcs7.PKCS7SignatureBuilder().set_data(statement).add_signer(leaf, secret, hashes.SHA256())
        for certificate in chain:
            builder = builder.add_certificate(certificate)
        detached = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary]
        return builder.sign(serialization.Encoding.DER, [*detached, pkcs7.PKCS7Options.NoCapabilities])
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{named} and {certificates} are not a key and its certificates: {error}") from error


def sign_sigstore(statement: bytes, trust_config: Path | None, token: Path) -> bytes:
    """Return a Sigstore bundle by the identity in an OIDC token.

    The instance is that of a client trust config; without one it is Sigstore's public instance, whose log
    shows identity and digest to everybody.

    Raises:
        BadInput: the files are not what they must be.
        Unavailable: the instance does not answer, or does not believe the token.
    """
    from sigstore.dsse import Statement  # noqa: PLC0415
    from sigstore.models import ClientTrustConfig  # noqa: PLC0415
    from sigstore.oidc import IdentityToken  # noqa: PLC0415
    from sigstore.sign import SigningContext  # noqa: PLC0415

    instance = f"the Sigstore instance of {trust_config}" if trust_config else "Sigstore's public instance"
    try:
        identity = IdentityToken(token.read_text().strip())
    except Exception as error:
        raise BadInput(f"{token} is no identity token to sign with: {_first_line(error)}") from error
    try:
        config = ClientTrustConfig.from_json(trust_config.read_text()) if trust_config else None
    except Exception as error:
        raise BadInput(f"{trust_config} is no client trust config: {type(error).__name__}") from error
    try:
        context = SigningContext.from_trust_config(config or ClientTrustConfig.production())
        with context.signer(identity) as signer:
            return signer.sign_dsse(Statement(statement)).to_json().encode()
    except Exception as error:
        raise Unavailable(
            f"{instance} did not sign, and nothing was published: {type(error).__name__}: "
            f"{_first_line(error)}; see whether it can be reached from here; where it cannot, sign by a key"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
