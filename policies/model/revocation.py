"""What is revoked, in one spelling each: however it is written, a revocation has its effect."""

import re
import unicodedata
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

HEX = re.compile(r"[0-9a-f]+")
FINGERPRINTS = (40, 64)
SHA256 = 64
LONGEST_SERIAL = 40
"""Digits of the 20 octets that RFC 5280 allows."""


def _digits(written: object) -> str:
    """Return hexadecimal digits without what tools put around and between them, in lower case."""
    if not isinstance(written, str):
        raise ValueError(f"{written!r} is not in quotes; put it in quotes, as hexadecimal digits")  # noqa: TRY004
    found = re.sub(r"[\s:]", "", written).casefold().removeprefix("0x")
    if not HEX.fullmatch(found):
        raise ValueError(f"{written!r} is not hexadecimal; write it as openssl or gpg prints it")
    return found


def plain_serial(written: object) -> str:
    """Return a certificate's serial number in the one spelling in which it is compared.

    Raises:
        ValueError: It is none.
    """
    found = _digits(written).lstrip("0")
    if not found or len(found) > LONGEST_SERIAL:
        raise ValueError(
            f"{written!r} is no serial number of a certificate; `openssl x509 -serial` prints it"
        )
    return found


def _sha256(written: object) -> str:
    found = _digits(written.removeprefix("sha256:") if isinstance(written, str) else written)
    if len(found) != SHA256:
        raise ValueError(f"{written!r} is no SHA-256: that has {SHA256} hexadecimal digits")
    return found


def _fingerprint(written: object) -> str:
    found = _digits(written).upper()
    if len(found) not in FINGERPRINTS:
        raise ValueError(
            f"{written!r} is no whole fingerprint: `gpg --fingerprint` prints its 40 digits or 64"
        )
    return found


def same_identity(written: str) -> str:
    """Return what two spellings of one mail address or URI have in common.

    Case never tells two people apart: a revocation or a seat is too important for that.
    """
    return unicodedata.normalize("NFKC", written).strip().casefold()


def _identity(written: object) -> str:
    if not isinstance(written, str):
        raise ValueError(f"{written!r} is not in quotes; put it in quotes")  # noqa: TRY004
    found = same_identity(written)
    if not found.isprintable() or " " in found or not ("@" in found[1:-1] or "://" in found[1:-1]):
        raise ValueError(f"{written!r} is neither a mail address nor a URI; write it as certificates have it")
    return found


RevokedSerial = Annotated[str, BeforeValidator(plain_serial)]
"""A certificate's serial number, as lower-case hexadecimal digits without leading zeros."""

RevokedSha256 = Annotated[str, BeforeValidator(_sha256), StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""64 lower-case hexadecimal digits."""

RevokedFingerprint = Annotated[str, BeforeValidator(_fingerprint), Field(max_length=64)]
"""An OpenPGP fingerprint, as upper-case hexadecimal digits."""

RevokedIdentity = Annotated[str, BeforeValidator(_identity)]
"""A mail address or URI; compared without regard to case."""
