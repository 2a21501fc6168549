"""The one credential that OpenVPN reads while it runs: its lists of revoked certificates.

It looks for `crl-verify` at each login with the rights that it has by then, and reads the file again when its
size or the second of its time is another. A list that has ended, or that it cannot read, locks everybody out:
so a new one is looked at before it is put in place.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from cryptography import x509

from activities.drivers.daemon.openvpn.config import options_in
from activities.drivers.daemon.port import CONFIG
from activities.drivers.daemon.revoked import Given, blocks_in, is_signed, lists_in_use, require_current
from activities.drivers.daemon.template import FOLDER

SEARCHABLE, READABLE = 0o711, 0o644
"""What a folder and a list have to be for whom the daemon becomes; every other file stays root's alone."""
AHEAD = 2
"""Seconds to come that a list is of, so that no earlier one was of the same second."""
_OURS = re.compile(rf"{re.escape(str(CONFIG))}/{FOLDER}/([\w.-]+)")


def revoked_in(config: str) -> frozenset[str]:
    """Return the names of the credentials that are lists of revoked certificates."""
    return frozenset(_named(config, "crl-verify"))


def have_read(folder: Path, names: frozenset[str]) -> None:
    """Have an instance whose config this folder is read these lists at the next login, whoever it runs as."""
    if not names:
        return
    for path in (folder, folder / FOLDER):
        path.chmod(SEARCHABLE)
    to_come = time.time() + AHEAD
    for name in names:
        (folder / FOLDER / name).chmod(READABLE)
        os.utime(folder / FOLDER / name, (to_come, to_come))


def require_fit(config: str, given: Mapping[str, Given], at: datetime, *, older: bool) -> None:
    """Return if every list that the config names can take the place of the one that is there.

    Args:
        config: The instance's own.
        given: The credentials by name.
        at: Now.
        older: Whether a list may also be older than the one in use, or lack an authority's.

    Raises:
        BadInput: One cannot; the sentence names it, the line and what to do.
    """
    authorities = [one for name in _named(config, "ca") for one in _certificates(given[name].content)]
    for name in revoked_in(config):
        _require_list(given[name], authorities, at, older=older)


def _require_list(given: Given, authorities: list[x509.Certificate], at: datetime, *, older: bool) -> None:
    """Clients bring authorities in between, which `ca` need not have: their lists are OpenSSL's to judge."""
    lists = require_current(given, at, older=older)
    for line, one in lists:
        issuers = [authority for authority in authorities if authority.subject == one.issuer]
        if issuers and not any(is_signed(one, issuer) for issuer in issuers):
            given.refuse(
                f"{one.issuer.rfc4514_string()} has not signed its list, which would lock everybody out; "
                "fetch it again",
                line,
            )
    lost = {one.issuer for one in lists_in_use(given)} - {one.issuer for _, one in lists}
    if lost and not older:
        names = ", ".join(sorted(issuer.rfc4514_string() for issuer in lost))
        given.refuse(
            f"the list of {names} is missing, without which its users are locked out; put it there, too, or "
            "say --even-if-older"
        )


def _named(config: str, option: str) -> Iterator[str]:
    said = (one.words for one in options_in(config) if one.name == option and not one.inline)
    return (name for words in said for word in words for name in _OURS.findall(word))


def _certificates(content: str) -> list[x509.Certificate]:
    """Return the authorities of a file that OpenVPN has taken at its start."""
    return [x509.load_pem_x509_certificate(pem) for _, pem in blocks_in(content, "CERTIFICATE")]
