"""Sign by a key of a PKCS#11 token: a smart card, an HSM, or SoftHSM. The key never leaves it.

Keys are named by an address as other programs take it (RFC 7512):
`pkcs11:token=releases;object=build?module-path=/usr/lib/softhsm/libsofthsm2.so`.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from orchestrator.publishing.signing import Passphrase, cms_by
from policies.model.errors import BadInput, Unavailable

_NAMES = {"token": "token_label", "serial": "token_serial"}
_PLACE = {"object", "id", "type", "manufacturer", "model", *_NAMES}


@dataclass(frozen=True)
class Address:
    """Where a key is: the module that speaks to its token, which token, and which key on it."""

    module: Path
    token: dict[str, Any]
    key: dict[str, Any]
    shown: str

    @classmethod
    def parse(cls, uri: str) -> "Address":
        """Return what an address says.

        Raises:
            BadInput: it is none, lacks something, or holds the PIN itself.
        """
        scheme, _, rest = uri.partition(":")
        path, _, query = rest.partition("?")
        said = _pairs(path, ";") | _pairs(query, "&")
        if "pin-value" in said:
            raise BadInput(
                "a PIN in an address is read by every process; leave it out, and say --passphrase-from"
            )
        unknown = sorted(set(said) - _PLACE - {"module-path"})
        module = said.get("module-path", b"").decode()
        if scheme != "pkcs11" or unknown or not module or not ({"object", "id"} & set(said)):
            odd = f"; it has {', '.join(unknown)}, which nobody reads" if unknown else ""
            raise BadInput(
                "a key of a token is named as pkcs11:token=NAME;object=NAME?module-path=/PATH/TO/MODULE.so"
                + odd
            )
        token: dict[str, Any] = {_NAMES[name]: said[name].decode() for name in ("token",) if name in said}
        token |= {_NAMES[name]: said[name] for name in ("serial",) if name in said}
        key: dict[str, Any] = {"label": said["object"].decode()} if "object" in said else {}
        key |= {"id": said["id"]} if "id" in said else {}
        return cls(Path(module), token, key, f"pkcs11:{path}")


def sign_pkcs11(statement: bytes, uri: str, certificates: Path, passphrase: Passphrase) -> bytes:
    """Return a detached CMS signature by a token's key; `certificates` holds the key's own first.

    Raises:
        BadInput: no such module, token or key is there, the PIN is wrong, or the certificate is another's.
        Unavailable: the token did not sign.
    """
    from cryptography import x509  # noqa: PLC0415 - loaded where signing happens

    address = Address.parse(uri)
    try:
        leaf = x509.load_pem_x509_certificates(certificates.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise BadInput(f"{certificates} holds no certificate in PEM: {error}") from error
    with _opened(address, passphrase) as key:
        return cms_by(
            statement, _of_token(key, leaf.public_key(), address.shown), address.shown, certificates
        )


@contextmanager
def _opened(address: Address, passphrase: Passphrase) -> Iterator[Any]:
    """Give the token's key while its session lasts; say in people's words what is wrong with any of it."""
    try:
        import pkcs11  # noqa: PLC0415 - only who has a token needs the package
        from pkcs11 import exceptions as problems  # noqa: PLC0415
    except ImportError:
        raise BadInput("keys of tokens need one package more: pip install 'penstock[pkcs11]'") from None
    if not address.module.is_file():
        raise BadInput(f"there is no module {address.module}; the token's vendor says where it is")
    try:
        module = pkcs11.lib(str(address.module))
    except (problems.PKCS11Error, RuntimeError) as error:
        raise BadInput(f"{address.module} is no module of PKCS#11: {error}") from error
    try:
        token = module.get_token(**address.token)
        with token.open(user_pin=passphrase(address.shown)) as session:
            yield session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, **address.key)
    except (problems.PinIncorrect, problems.PinLenRange, problems.PinInvalid):
        raise BadInput(f"the PIN does not open {address.shown}; some tokens lock after three") from None
    except problems.PinLocked:
        raise BadInput(
            f"{address.shown} is locked after too many PINs; its security officer unlocks it"
        ) from None
    except (problems.NoSuchToken, problems.NoSuchKey) as error:
        what = "token" if isinstance(error, problems.NoSuchToken) else "private key"
        raise BadInput(f"{address.module} has no such {what}: {address.shown}") from None
    except (problems.MultipleTokensReturned, problems.MultipleObjectsReturned):
        raise BadInput(f"{address.shown} fits several; add serial= or id=") from None
    except problems.PKCS11Error as error:
        raise Unavailable(f"{address.shown} did not sign: {type(error).__name__} {error}".strip()) from error


class _TokenKey:
    """A private key as the CMS builder takes it, whose every signature is tried with its certificate."""

    def __init__(self, key: Any, public: Any, shown: str) -> None:
        self._key, self._public, self._shown = key, public, shown

    def public_key(self) -> Any:
        """Return the certificate's public key."""
        return self._public

    def _tried(self, signature: bytes, *signed: Any) -> bytes:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        try:
            self._public.verify(signature, *signed)
        except InvalidSignature:
            raise BadInput(f"{self._shown} is not the key of the first certificate") from None
        return signature


class _EllipticKey(_TokenKey):
    def sign(self, data: bytes, algorithm: Any) -> bytes:
        """Return an ECDSA signature in DER; tokens give its two numbers one after the other."""
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature  # noqa: PLC0415
        from pkcs11 import Mechanism  # noqa: PLC0415

        hashed = hashlib.new(algorithm.algorithm.name, data).digest()
        raw = bytes(self._key.sign(hashed, mechanism=Mechanism.ECDSA))
        r, s = (int.from_bytes(half, "big") for half in (raw[: len(raw) // 2], raw[len(raw) // 2 :]))
        return self._tried(encode_dss_signature(r, s), data, algorithm)


class _RsaKey(_TokenKey):
    def sign(self, data: bytes, padding: Any, algorithm: Any) -> bytes:
        """Return a PKCS#1 v1.5 signature."""
        from pkcs11 import Mechanism  # noqa: PLC0415

        mechanism = getattr(Mechanism, f"{algorithm.name.upper()}_RSA_PKCS")
        return self._tried(bytes(self._key.sign(data, mechanism=mechanism)), data, padding, algorithm)


def _of_token(key: Any, public: Any, shown: str) -> _TokenKey:
    """Return the key in the form of the certificate's kind; the builder looks at the kind by `isinstance`."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415

    ec.EllipticCurvePrivateKey.register(_EllipticKey)
    rsa.RSAPrivateKey.register(_RsaKey)
    kind = {"EC": _EllipticKey, "RSA": _RsaKey}.get(key.key_type.name)
    wanted = {ec.EllipticCurvePublicKey: _EllipticKey, rsa.RSAPublicKey: _RsaKey}
    if kind is None or not any(isinstance(public, one) and kind is form for one, form in wanted.items()):
        raise BadInput(f"{shown} is not the key of the first certificate, or neither elliptic curve nor RSA")
    return kind(key, public, shown)


def _pairs(text: str, between: str) -> dict[str, bytes]:
    return {
        name: unquote_to_bytes(value)
        for name, _, value in (part.partition("=") for part in text.split(between) if part)
    }
