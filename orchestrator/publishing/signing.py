"""Sign statements: by Sigstore identity, OpenPGP key or enterprise certificate, over the same bytes.

Keys are read from files, used and forgotten; they are never stored, logged or sent anywhere.
"""

from pathlib import Path

from policies.model.errors import BadInput, Unavailable


def sign_openpgp(statement: bytes, key: Path) -> bytes:
    """Return a detached OpenPGP signature by the secret key in this file.

    Raises:
        BadInput: the file is not an unprotected OpenPGP secret key.
    """
    from pysequoia import SignatureMode, Tsk, sign  # noqa: PLC0415 - loaded where signing happens

    try:
        return sign(Tsk.from_file(str(key)).signer(), statement, mode=SignatureMode.DETACHED)
    except Exception as error:
        raise BadInput(f"{key} is not an OpenPGP secret key that can sign: {_first_line(error)}") from error


def sign_cms(statement: bytes, key: Path, certificates: Path) -> bytes:
    """Return a detached CMS signature; `certificates` holds the signer's own first, then its chain.

    Raises:
        BadInput: the files are not an unprotected key and its certificates.
    """
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import pkcs7  # noqa: PLC0415

    try:
        secret = serialization.load_pem_private_key(key.read_bytes(), password=None)
        leaf, *chain = x509.load_pem_x509_certificates(certificates.read_bytes())
        if not isinstance(secret, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise BadInput(f"{key} is neither an elliptic curve nor an RSA key")
        builder = pkcs7.PKCS7SignatureBuilder().set_data(statement).add_signer(leaf, secret, hashes.SHA256())
        for certificate in chain:
            builder = builder.add_certificate(certificate)
        detached = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary]
        return builder.sign(serialization.Encoding.DER, [*detached, pkcs7.PKCS7Options.NoCapabilities])
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{key} and {certificates} are not a key and its certificates: {error}") from error


def sign_sigstore(statement: bytes, trust_config: Path, token: Path) -> bytes:
    """Return a Sigstore bundle by the identity in an OIDC token, from the instance of a client trust config.

    Raises:
        BadInput: the files are not what they must be.
        Unavailable: the instance does not answer.
    """
    from sigstore.dsse import Statement  # noqa: PLC0415
    from sigstore.models import ClientTrustConfig  # noqa: PLC0415
    from sigstore.oidc import IdentityToken  # noqa: PLC0415
    from sigstore.sign import SigningContext  # noqa: PLC0415

    try:
        context = SigningContext.from_trust_config(ClientTrustConfig.from_json(trust_config.read_text()))
        identity = IdentityToken(token.read_text().strip())
    except Exception as error:
        raise BadInput(f"{trust_config} and {token} do not allow to sign: {type(error).__name__}") from error
    try:
        with context.signer(identity) as signer:
            return signer.sign_dsse(Statement(statement)).to_json().encode()
    except Exception as error:
        raise Unavailable(f"the Sigstore instance did not sign: {type(error).__name__}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
