"""Certificates by the PKI of a Vault or an OpenBao: it signs a request for a key that was made here.

https://developer.hashicorp.com/vault/api-docs/secret/pki#sign-certificate
"""

import json
import ssl

from cryptography import x509

from activities.drivers.certificate.pending import Pending, general_name
from activities.drivers.certificate.port import Pair
from activities.drivers.certificate.settings import VaultSettings
from activities.drivers.credentials import Credentials
from activities.drivers.exchange import Answered, NotAnswered, exchange
from policies.model.errors import BadInput, Refused, Unavailable

PATIENCE_SECONDS = 20.0
"""How long it may take for one certificate."""

MOST_BYTES = 256 * 1024
"""How long its answer may be: a certificate and those above it take some KB."""

AGAIN = frozenset({408, 412, 425, 429, 500, 502, 503, 504})
"""Statuses of one that is sealed, on stand-by, busy or out of order: it may give a certificate later."""

_SHAPELESS = (ValueError, KeyError, TypeError, RecursionError)


class Vault:
    """One role of one PKI."""

    def __init__(self, settings: VaultSettings, credentials: Credentials) -> None:
        """Take where to ask, and who reads the token when it is used."""
        self._settings = settings
        self._credentials = credentials

    def obtain(self, pending: Pending) -> Pair:
        """Return the next certificate; a repeat asks for another one of the same key."""
        addresses = [one for one in pending.names if isinstance(general_name(one), x509.IPAddress)]
        names = [name for name in pending.names if name not in addresses]
        asked = {
            "csr": pending.request().decode(),
            "common_name": names[0] if names else "",
            "alt_names": ",".join(names),
            "ip_sans": ",".join(addresses),
            "format": "pem",
        }
        given = self._signed(asked)
        return Pair(_chain(given, self._settings.address), pending.key())

    def _signed(self, asked: dict[str, str]) -> dict[str, object]:
        settings = self._settings
        token = self._credentials.resolve(settings.token).get_secret_value()
        headers = {"x-vault-token": token}
        if settings.namespace is not None:
            headers["x-vault-namespace"] = settings.namespace
        try:
            trusted = ssl.create_default_context(cafile=settings.authority)
        except (OSError, ssl.SSLError) as error:
            raise BadInput(f"{settings.authority} cannot be read as certificates in PEM: {error}") from error
        try:
            answer = exchange(
                f"{settings.address}/v1/{settings.path}",
                tls=trusted,
                seconds=PATIENCE_SECONDS,
                most=MOST_BYTES,
                method="POST",
                content=json.dumps(asked).encode(),
                headers=headers | {"Content-Type": "application/json"},
            )
        except NotAnswered as error:
            raise Unavailable(f"{settings.address} does not answer: {error}") from error
        if answer.status in AGAIN:
            raise Unavailable(f"{settings.address} answers {answer.status}: {_errors(answer)}")
        if not answer.is_success:
            raise Refused(f"{settings.address} does not sign by {settings.path}: {_errors(answer)}")
        try:
            found = json.loads(answer.body)["data"]
        except _SHAPELESS as error:
            raise Unavailable(f"{settings.address} answers with something else than a certificate") from error
        return found if isinstance(found, dict) else {}


def _chain(given: dict[str, object], address: str) -> str:
    """Return the certificate and those above it, in one text."""
    leaf, above = given.get("certificate"), given.get("ca_chain") or [given.get("issuing_ca")]
    if not isinstance(leaf, str) or not isinstance(above, list):
        raise Unavailable(f"{address} answers without a certificate")
    return "".join(f"{one.strip()}\n" for one in (leaf, *above) if isinstance(one, str) and one.strip())


def _errors(answer: Answered) -> str:
    try:
        said = json.loads(answer.body)["errors"]
        return "; ".join(str(one) for one in said)[:300] or "it does not say why"
    except _SHAPELESS:
        return "it does not say why"
