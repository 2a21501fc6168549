"""The proof of a certificate: users' own handshake with it, in memory, before any user sees it."""

import ssl
from pathlib import Path

from cryptography import x509

from activities.drivers.certificate.port import Pair
from policies.model.errors import BadInput, Refused

_ROUNDS = 10
"""Of bytes to and fro; a handshake takes three."""


def require_proved(pair: Pair, folder: Path, names: tuple[str, ...], authority: Path) -> None:
    """Return if clients that trust this authority take the certificate for each of the names, now.

    So its chain is whole, its time has come and has not passed, and its key is its own.

    Args:
        pair: What would be served.
        folder: Holds it as `chain.pem` and `key.pem`; OpenSSL reads keys from files alone.
        names: For whom it has to be.
        authority: Whom clients trust, in PEM.

    Raises:
        Refused: Clients would not take it; the sentence is theirs.
        BadInput: The authority cannot be read.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(folder / "chain.pem", folder / "key.pem", password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Refused("the key that came is another certificate's") from error
        raise Refused("what came is no certificate and key in PEM, without a passphrase") from error
    if "PRIVATE KEY" in pair.chain:
        raise Refused("a key lies in one file with the certificate, which everybody sees")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.hostname_checks_common_name = False
    try:
        client.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"{authority} cannot be read as certificates in PEM: {error}") from error
    for name in names:
        _shake_hands(server, client, name)


def names_all(certificate: x509.Certificate, names: tuple[str, ...]) -> bool:
    """Say whether a certificate is for all of these, each written out or by a `*` in its first place."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    said = {str(one.value) for one in found}
    return all(name in said or f"*.{name.partition('.')[2]}" in said for name in names)


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    any_below = name.replace("*", "any", 1)
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=any_below),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(_ROUNDS):
        try:
            waiting = [side for side in sides if _waits(side)]
        except ssl.SSLCertVerificationError as error:
            raise Refused(f"clients would not take it for {name}: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise Refused(f"clients would not take it for {name}: {error.reason or error}") from error
        if not waiting:
            return
    raise Refused(f"clients would not end a handshake with it for {name}")


def _waits(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return True
    return False
