"""ocserv's credentials: what each file is to it, and whether a host's present ones can take their place.

Told to reload, ocserv 1.1.6 and 1.3.0 take a key that is not the certificate's and an empty list of
authorities without a word, and end on a list of revoked certificates that they cannot read: so
everything is looked at before any of it is put in place.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509

from activities.drivers.daemon.ocserv.config import lines_of
from activities.drivers.daemon.ocserv.printed import printed_forms
from activities.drivers.daemon.port import CONFIG
from activities.drivers.daemon.revoked import Given, blocks_in, is_signed, moment, require_current
from activities.drivers.daemon.template import FOLDER
from policies.lines import lines_in
from policies.model.errors import BadInput

_OURS = re.compile(rf"{re.escape(str(CONFIG))}/{FOLDER}/([\w.-]+)")
_PASSWORDS = re.compile(r"passwd=([^,\]]+)")
_LIST_ALONE = re.compile(r"plain\[(?:passwd=)?([^,=\]]+)\]")
_KIND = re.compile(r"^!?\$([156])(?:\$|$)")
LENGTHS = {"1": 22, "5": 43, "6": 86}
"""Characters of a whole hash by its kind, MD5, SHA-256 and SHA-512, after its salt."""

CERTIFICATE = "CERTIFICATE"
FIELDS = 3
"""Of a line in a list of users: name, groups and hash."""


@dataclass
class Roles:
    """Which credentials a config uses as what, by name."""

    users: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    """Certificate and key; ocserv takes them together in their order."""
    authorities: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)


def roles_in(config: str) -> Roles:
    """Return what the config uses its credentials as; whatever else it names is not looked at."""
    roles, certificates, keys = Roles(), list[str](), list[str]()
    places = {
        "server-cert": certificates,
        "server-key": keys,
        "ca-cert": roles.authorities,
        "crl": roles.revoked,
    }
    for _, _, key, value, _ in lines_of(config):
        if key in ("auth", "enable-auth"):
            roles.users += [name for path in _PASSWORDS.findall(value) for name in _OURS.findall(path)]
        elif key in places:
            places[key] += _OURS.findall(value)
    roles.pairs += zip(certificates, keys, strict=False)
    return roles


def names_listed(config: str, seen: Callable[[str], Path]) -> set[str] | None:
    """Return all users that an instance's lists name, as occtl may print them; None where others get in, too.

    Args:
        config: The instance's own.
        seen: Where we find a file that the instance knows by a path.

    Raises:
        OSError: One of the lists cannot be read.
    """
    lines = lines_of(config)
    ways = [line.value for line in lines if line.key in ("auth", "enable-auth")]
    lists = [found[1] for way in ways if (found := _LIST_ALONE.fullmatch(way)) is not None]
    if not lists or len(lists) < len(ways):
        return None
    said = [seen(one).read_bytes().decode(errors="surrogateescape") for one in lists]
    return {
        form
        for one in said
        for name in _users(one)
        for form in printed_forms(name.encode(errors="surrogateescape"))
    }


def require_fit(
    config: str, given: Mapping[str, Given], at: datetime, probe: str | None, *, older: bool
) -> None:
    """Return if every credential that the config names can take the place of the one that is there.

    Args:
        config: The instance's own.
        given: The credentials by name.
        at: Now.
        probe: As whom this host probes its instances.
        older: Whether something may also be older than what it replaces, or name less.

    Raises:
        BadInput: One cannot; the sentence names it, the line and what to do.
    """
    roles = roles_in(config)
    for name in roles.users:
        _require_users(given[name], probe)
    for certificate, key in roles.pairs:
        _require_pair(given[certificate], given[key], at, older=older)
    authorities = [one for name in roles.authorities for one in _require_authorities(given[name], at)]
    for name in roles.revoked:
        _require_revoked(given[name], authorities, at, older=older)


def leaves_in(content: str) -> tuple[x509.Certificate, ...]:
    """Return the certificates in a file; those that cannot be read are left out."""
    found = []
    for _, pem in blocks_in(content, CERTIFICATE):
        with suppress(ValueError):
            found.append(x509.load_pem_x509_certificate(pem))
    return tuple(found)


def _require_users(given: Given, probe: str | None) -> None:
    names = _users(given.content)
    for number, line in enumerate(lines_in(given.content), start=1):
        if not _is_meant(line):
            continue
        fields = line.split(":")
        if len(fields) < FIELDS or not fields[0].strip() or not _is_whole(fields[2].strip()):
            given.refuse("it is not NAME:GROUPS:HASH, as ocpasswd writes it; was it cut off?", number)
    if not names:
        given.refuse("it names no user, so that nobody could log in; write it again with ocpasswd")
    if probe is not None and probe not in names and probe in _users(given.before):
        given.refuse(f"it does not name {probe} any more, as whom this host probes; add that user")


def _users(content: str) -> set[str]:
    return {line.split(":")[0] for line in lines_in(content) if _is_meant(line)}


def _is_whole(hashed: str) -> bool:
    """Whether it may be a hash; of the usual kinds of crypt(5) the length is known."""
    kind = _KIND.match(hashed)
    length = LENGTHS.get(kind[1]) if kind else None
    return bool(hashed) and (length is None or len(hashed.rpartition("$")[2]) == length)


def _is_meant(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _require_pair(certificate: Given, key: Given, at: datetime, *, older: bool) -> None:
    chain = _certificates(certificate)
    for line, one in chain:
        _require_valid(certificate, one, at, line)
    leaf = chain[0][1]
    _require_key(certificate, key)
    before = leaves_in(certificate.before)
    if before and not older:
        _require_no_less(certificate, leaf, before[0])


def _require_key(certificate: Given, key: Given) -> None:
    """Ask OpenSSL, which also reads the keys that GnuTLS writes with a zero too many."""

    def passphrase() -> str:
        raise BadInput("asked for")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate.path, key.path, passphrase)
    except BadInput:
        key.refuse("the key needs a passphrase, which nobody types on a gateway; store it without")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            key.refuse(f"it is not the key of {certificate.where}; put the two in place together")
        key.refuse("it holds no key that can be read; write it in PEM")


def _require_no_less(given: Given, leaf: x509.Certificate, before: x509.Certificate) -> None:
    end, was = leaf.not_valid_after_utc, before.not_valid_after_utc
    if end < was:
        given.refuse(
            f"its certificate ends at {moment(end)}, before the one in use ({moment(was)}); put the "
            "newer one there, or say --even-if-older"
        )
    if lost := sorted(_names(before) - _names(leaf)):
        given.refuse(
            f"its certificate does not name {', '.join(lost)}, as the one in use does; order one that "
            "does, or say --even-if-older"
        )


def _names(certificate: x509.Certificate) -> set[str]:
    """Return for whom a certificate is: names and addresses, as text."""
    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return set()
    return {str(name.value) for name in said if isinstance(name, x509.DNSName | x509.IPAddress)}


def _require_authorities(given: Given, at: datetime) -> list[x509.Certificate]:
    found = _certificates(given)
    good = [one for _, one in found if one.not_valid_before_utc <= at <= one.not_valid_after_utc]
    if not good:
        _require_valid(given, found[0][1], at, found[0][0])
    return [one for _, one in found]


def _require_revoked(given: Given, authorities: list[x509.Certificate], at: datetime, *, older: bool) -> None:
    for line, one in require_current(given, at, older=older):
        issuers = [authority for authority in authorities if authority.subject == one.issuer]
        if not any(is_signed(one, issuer) for issuer in issuers):
            given.refuse(
                f"none of the authorities has signed the list of {one.issuer.rfc4514_string()}; put the one "
                "of an authority in use there",
                line,
            )


def _require_valid(given: Given, certificate: x509.Certificate, at: datetime, line: int) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if end < at:
        given.refuse(f"the certificate has expired at {moment(end)}; renew it", line)
    if begin > at:
        given.refuse(
            f"the certificate is good from {moment(begin)} only; wait until then, or set this host's clock",
            line,
        )


def _certificates(given: Given) -> list[tuple[int, x509.Certificate]]:
    """Return the certificates in a file and their lines; BadInput for none, or one that cannot be read."""
    found = []
    for line, pem in blocks_in(given.content, CERTIFICATE):
        try:
            found.append((line, x509.load_pem_x509_certificate(pem)))
        except ValueError:
            given.refuse("the certificate cannot be read; write it again", line)
    if not found:
        given.refuse("it holds no certificate in PEM; put one there")
    return found
