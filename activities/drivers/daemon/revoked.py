"""Lists of revoked certificates: whether one that lies on a host can take the place of the one in use."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from policies.model.errors import BadInput

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
REVOKED = "X509 CRL"

Numbered = list[tuple[int, x509.CertificateRevocationList]]
"""Lists, each with the line that it begins at."""


@dataclass(frozen=True)
class Given:
    """A credential as the host has it now, in a file of ours, and as the instance has it.

    `where` names it to people.
    """

    where: str
    path: Path
    before: str = ""

    @property
    def content(self) -> str:
        """What is in it now."""
        return self.path.read_bytes().decode(errors="replace")

    def refuse(self, why: str, line: int | None = None) -> NoReturn:
        """Raise BadInput that names the credential, the line of it, and why."""
        raise BadInput(f"{self.where}{f' line {line}' if line else ''}: {why}")


def require_current(given: Given, at: datetime, *, older: bool) -> Numbered:
    """Return the lists in a file, all of which are good now.

    Raises:
        BadInput: There is none, one cannot be read, is not good yet or any more, or is older than the one in
            use of the same authority, unless `older` says that this is meant.
    """
    lists = _lists(given)
    began = {one.issuer: one.last_update_utc for one in lists_in_use(given)}
    for line, one in lists:
        begin, end, was = one.last_update_utc, one.next_update_utc, began.get(one.issuer)
        if begin > at:
            given.refuse(
                f"the list is good from {moment(begin)} only; wait until then, or set this host's clock", line
            )
        if end is not None and end < at:
            given.refuse(
                f"the list was good until {moment(end)} only; have its authority issue the next one", line
            )
        if was is not None and begin < was and not older:
            given.refuse(
                f"the list is of {moment(begin)}, and the one in use of {moment(was)}: who "
                "was revoked since would be let in; put the newer one there, or say --even-if-older",
                line,
            )
    return lists


def lists_in_use(given: Given) -> Iterator[x509.CertificateRevocationList]:
    """Yield the lists that the instance has; those that cannot be read are left out."""
    for _, pem in blocks_in(given.before, REVOKED):
        with suppress(ValueError):
            yield x509.load_pem_x509_crl(pem)


def is_signed(revoked: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    """Return whether the list is signed with that authority's key."""
    key: Any = authority.public_key()
    try:
        return revoked.is_signature_valid(key)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def blocks_in(content: str, label: str) -> Iterator[tuple[int, bytes]]:
    """Yield the PEM blocks of that label with the lines they begin at."""
    for block in _PEM.finditer(content):
        if block[1] == label:
            yield content.count("\n", 0, block.start()) + 1, block[0].encode()


def moment(at: datetime) -> str:
    """Return the time as refusals say it."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _lists(given: Given) -> Numbered:
    found = []
    for line, pem in blocks_in(given.content, REVOKED):
        try:
            found.append((line, x509.load_pem_x509_crl(pem)))
        except ValueError:
            given.refuse("the list of revoked certificates cannot be read; fetch it again", line)
    if not found:
        given.refuse("it holds no list of revoked certificates in PEM; put one there")
    return found
