"""Certificates by ACME (RFC 8555), through certbot's own client library.

The account's key is made here once. An order is written down before it is proved, so that whoever comes
after a killed process goes on with it: authorities give few orders a week for the same names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from acme import challenges, client, errors, messages
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWKEC
from josepy.util import ComparableECKey

from activities.drivers.certificate.pending import Pending, new_key
from activities.drivers.certificate.port import Pair
from activities.drivers.certificate.settings import AcmeSettings
from activities.drivers.certificate.shown import Shown
from activities.drivers.credentials import Credentials
from activities.drivers.private_files import make_private, read_private
from policies.model.errors import BadInput, PenstockError, Refused, Unavailable

ANSWER_SECONDS = 30
"""How long one answer of the authority may take."""
WITHIN = timedelta(minutes=5)
"""How long an order may take, from the answer to its challenges to its certificate."""
ORDER = "order"
GONE = (404, 410)
_BUSY = frozenset({"rateLimited", "serverInternal", "badNonce"})


class Acme:
    """One account at one authority."""

    def __init__(self, settings: AcmeSettings, account: Path, shown: Shown, credentials: Credentials) -> None:
        """Take the parts.

        Args:
            settings: Where to ask.
            account: Where the key of the account is kept.
            shown: How it is shown whose the names are.
            credentials: Who reads the key of an external account when it is used.
        """
        self._settings = settings
        self._credentials = credentials
        self._account = account
        self._shown = shown

    def obtain(self, pending: Pending) -> Pair:
        """Return the next certificate; an order that was begun is gone on with."""
        with _said_plainly(self._settings.directory):
            authority = self._registered()
            order = self._ordered(authority, pending)
            if order.body.status == messages.STATUS_PENDING:
                self._prove(authority, order)
            done = authority.finalize_order(order, datetime.now() + WITHIN)  # noqa: DTZ005 - as the library counts
            return Pair(done.fullchain_pem, pending.key())

    def _registered(self) -> client.ClientV2:
        """Return a client with this host's account, which the authority makes where it has none."""
        if not self._account.exists():
            make_private(self._account, new_key())
        found = load_pem_private_key(read_private(self._account, "the key of the ACME account"), None)
        key = JWKEC(key=ComparableECKey(found))  # type: ignore[arg-type]
        network = client.ClientNetwork(
            key,
            alg=ES256,
            user_agent="penstock",
            timeout=ANSWER_SECONDS,
        )
        network.session.trust_env = False
        if self._settings.authority is not None:
            network.verify_ssl = str(self._settings.authority)  # type: ignore[assignment]
        directory = client.ClientV2.get_directory(self._settings.directory, network)
        authority = client.ClientV2(directory, network)
        asked = messages.NewRegistration.from_data(
            email=self._settings.contact,
            terms_of_service_agreed=True,
            external_account_binding=self._bound(key, directory),
        )
        try:
            authority.new_account(asked)
        except errors.ConflictError as known:
            network.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())
        return authority

    def _bound(self, key: JWKEC, directory: messages.Directory) -> dict[str, Any] | None:
        """Return the proof that the account is the customer's, where the authority wants one."""
        given = self._settings.external_account
        if given is None:
            return None
        shared = self._credentials.resolve(given.key).get_secret_value()
        found: dict[str, Any] = messages.ExternalAccountBinding.from_data(
            key.public_key(), given.name, shared, directory
        )
        return found

    def _ordered(self, authority: client.ClientV2, pending: Pending) -> messages.OrderResource:
        """Return the order that was begun, where it still leads to a certificate, else a new one."""
        request = pending.request()
        begun = pending.read(ORDER)
        if begun is not None and (known := self._known(authority, begun, request)) is not None:
            return known
        order = authority.new_order(request)
        pending.keep(ORDER, order.uri)
        return order

    @staticmethod
    def _known(authority: client.ClientV2, uri: str, request: bytes) -> messages.OrderResource | None:
        try:
            body = messages.Order.from_json(_asked(authority, uri))
        except (messages.Error, errors.ClientError) as error:
            if _is_forgotten(error):
                return None
            raise
        if body.status == messages.STATUS_INVALID:
            return None
        proofs = [
            messages.AuthorizationResource(
                body=messages.Authorization.from_json(_asked(authority, one)), uri=one
            )
            for one in body.authorizations
        ]
        return messages.OrderResource(body=body, uri=uri, authorizations=proofs, csr_pem=request)

    def _prove(self, authority: client.ClientV2, order: messages.OrderResource) -> None:
        """Have the authority see that the names are this host's."""
        asked = [
            (proof.body.identifier.value, self._challenge(proof))
            for proof in order.authorizations
            if proof.body.status == messages.STATUS_PENDING
        ]
        key = authority.net.key
        with self._shown.showing([(name, one.chall, key) for name, one in asked]):
            for _, one in asked:
                authority.answer_challenge(one, one.chall.response(key))
            authority.poll_authorizations(order, datetime.now() + WITHIN)  # noqa: DTZ005 - as above

    def _challenge(self, proof: messages.AuthorizationResource) -> messages.ChallengeBody:
        wanted: type[challenges.Challenge] = self._shown.kind
        for one in proof.body.challenges:
            if isinstance(one.chall, wanted):
                return one
        raise Refused(
            f"{self._settings.directory} does not prove {proof.body.identifier.value} by {wanted.typ}; "
            "say the other way in server_certificate"
        )


def _asked(authority: client.ClientV2, uri: str) -> Any:
    """Return what lies at an address of the account's own, in JSON."""
    return authority.net.post(uri, None, new_nonce_url=authority.directory["newNonce"]).json()


def _is_forgotten(error: messages.Error | errors.ClientError) -> bool:
    """Say whether an authority means that it knows nothing of what it was asked for any more."""
    if isinstance(error, messages.Error):
        return error.code not in _BUSY
    return getattr(next(iter(error.args), None), "status_code", None) in GONE


@contextmanager
def _said_plainly(directory: str) -> Iterator[None]:
    """Turn what the library raises into what a person can act on."""
    try:
        yield
    except PenstockError:
        raise
    except messages.Error as error:
        kind = Unavailable if error.code in _BUSY else Refused
        raise kind(f"{directory} gives no certificate: {error.detail or error.code or error}") from error
    except errors.ValidationError as error:
        raise Refused(f"{directory} could not see whose the names are: {_why(error)}") from error
    except errors.TimeoutError as error:
        raise Unavailable(f"{directory} has not decided within {WITHIN}; what was begun is kept") from error
    except requests.exceptions.SSLError as error:
        raise BadInput(
            f"{directory} shows a certificate by no trusted authority; name it in acme.authority"
        ) from error
    except (requests.RequestException, errors.Error, JoseError, ValueError, OSError) as error:
        raise Unavailable(f"{directory} does not answer as ACME says: {error}") from error


def _why(failed: errors.ValidationError) -> str:
    said = [
        f"{proof.body.identifier.value}: {one.error.detail}"
        for proof in failed.failed_authzrs
        for one in proof.body.challenges
        if one.error is not None
    ]
    return "; ".join(said) or "it does not say why"
