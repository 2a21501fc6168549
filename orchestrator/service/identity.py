"""The identity provider: whom its ID tokens vouch for (OpenID Connect Core 1.0, section 3.1.3.7).

People log in at the page by its authorization code flow (section 3.1) with a proof key (RFC 7636):
penstock is a public client there, and keeps no secret.

Keys and endpoints are read by the provider's own discovery document, and again when a token names a key that
is not held, so that a provider may change its keys at any time (section 10.1.1). `provider_keys` holds them.
"""

import hmac
import json
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt

from activities.drivers.exchange import Answered, NotAnswered, exchange
from activities.drivers.rights import read_own
from orchestrator.service.login_attempts import LEEWAY_SECONDS, LoginAttempt
from orchestrator.service.provider_keys import ProviderKeys, Published, Reading
from policies.login_scopes import scopes_of
from policies.model.errors import BadInput, NotAllowed, Refused, Unavailable
from policies.model.people import Oidc
from policies.model.value import Value

ANSWER_SECONDS = 3.0
"""How long the provider may take for each of its documents, and for a code: whoever logs in waits for it."""

MOST_BYTES = 256 * 1024
"""How long an answer of the provider may be."""

MOST_KEYS = 100
"""Keys that a provider may publish."""

_SHAPELESS = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError)
"""What reading a document of another shape raises, in the library of keys too."""

FORM = "application/x-www-form-urlencoded"

NEEDED = ("iss", "aud", "exp", "iat")

OF_LOGINS = frozenset({"jwt", "id"})
"""Types of an ID token, in its header or in Keycloak's claim `typ`."""

NEVER_IN_LOGINS = ("events", "scope", "scp", "cid", "appid", "azpacr", "appidacr", "apptype")
"""Claims of other tokens: of logout tokens `events`; of access tokens `scope` (RFC 9068, section 2.2.3),
`scp` (Entra, Okta, ADFS), `cid` (Okta), `appid`, `azpacr`, `appidacr` (Entra) and `apptype` (ADFS)."""

ENDPOINT = re.compile(r"(?:https://|http://127\.0\.0\.1[:/])[^\s#]+")
"""Without TLS only on this host itself, as the issuer."""

ERROR = re.compile(r"[a-z_]{1,40}")
"""A code of an error (RFC 6749, sections 4.1.2.1 and 5.2); what else the provider says is shown to nobody."""


NOT_BELIEVED: Mapping[type[Exception], str] = {
    jwt.PyJWKClientError: "the provider has published no key by the name that the token gives",
    jwt.InvalidSignatureError: "its signature is not the provider's",
    jwt.InvalidAlgorithmError: "it is signed by an algorithm that oidc.algorithms does not list",
    jwt.InvalidAudienceError: "it is meant for another audience than oidc.audience",
    jwt.InvalidIssuerError: "it names another issuer",
    jwt.ImmatureSignatureError: "its time has not come; compare the clocks of this host and of the provider",
    jwt.MissingRequiredClaimError: f"one of the claims {', '.join(NEEDED)} is missing",
}
"""Why a token is not believed. The library's own texts repeat what an unauthenticated client wrote."""

UNREADABLE = "it is no token as the provider signs them"


class Vouched(Value):
    """Whom the provider vouches for."""

    issuer: str
    """Which provider it was: another one's subjects are other people."""
    subject: str
    name: str | None = None
    """What the provider calls this person, where people.yaml wants to know."""
    groups: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Why the token lacks claims that people.yaml reads, and what to do: one sentence for each."""


class Login(Value):
    """Where a person logs in, for a command line that asks (RFC 8628)."""

    issuer: str
    client: str
    scopes: tuple[str, ...]
    """The scopes to request."""
    authorities: str | None = None
    """Certificates of the provider's own authority in PEM, where it is none that everybody knows."""


class IdentityProvider:
    """One provider, asked for its keys and believed for what they sign."""

    def __init__(self, settings: Oidc, authorities: Path | None) -> None:
        self.settings = settings
        self._authorities = authorities
        self.keys = ProviderKeys(settings.issuer, self._published)

    def login(self) -> Login:
        """Return what a command line needs for a login that it renews.

        Raises:
            Unavailable: What it has published is not held; `ready` comes before.
        """
        settings, authorities = self.settings, self._pem()
        scopes = scopes_of(settings, self.keys.held().scopes, renewed=True)
        return Login(issuer=settings.issuer, client=settings.client, scopes=scopes, authorities=authorities)

    def authorization(self, attempt: LoginAttempt, back: str) -> str:
        """Return where a browser is sent to log in, which comes back to that address of ours.

        Raises:
            Refused: The provider logs nobody in by browser.
            Unavailable: Its endpoints are not held; `ready` comes before.
        """
        found = self.keys.held()
        place = found.authorization
        if not place:
            raise Refused(f"{self.settings.issuer} logs nobody in by browser")
        asked = {
            "response_type": "code",
            "client_id": self.settings.client,
            "redirect_uri": back,
            "scope": " ".join(scopes_of(self.settings, found.scopes, renewed=False)),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        return f"{place}{'&' if '?' in place else '?'}{urlencode(asked)}"

    def redeemed(self, code: str, attempt: LoginAttempt, back: str) -> Vouched:
        """Return whom the provider vouches for to whoever shows this code and began this attempt.

        The caller has a thread for it: the provider is asked, and may take its time.

        Raises:
            NotAllowed: The code is none, was redeemed before, or is of another attempt.
            Unavailable: The provider does not answer now.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back,
            "client_id": self.settings.client,
            "code_verifier": attempt.verifier,
        }
        place = self.keys.held().token
        try:
            answer = _asked(place, self._context(), urlencode(form).encode())
            said = _json(answer)
        except (NotAnswered, ValueError) as error:
            raise Unavailable(f"{self.settings.issuer} does not answer as it must: {error}") from error
        if answer.is_server_error:
            raise Unavailable(f"{self.settings.issuer} answers {answer.status} now; log in again later")
        token = said.get("id_token") if isinstance(said, dict) and answer.is_success else None
        if not isinstance(token, str):
            why = error_code(said.get("error") if isinstance(said, dict) else None)
            raise NotAllowed(f"{self.settings.issuer} did not take this login ({why}); log in again")
        if (reading := self.reading(token)) is not None:
            reading.block()
        return self.vouched(token, attempt.nonce)

    def reading(self, token: str | None = None) -> Reading | None:
        """Have keys and endpoints read where this token needs it; None where those that are held are enough.

        Args:
            token: The ID token that is verified next; None where only the endpoints are needed.
        """
        try:
            return self.keys.reading(_key_named_by(token) if token is not None else None)
        except jwt.PyJWTError:  # it is no token, and no key verifies it
            return None

    async def ready(self) -> None:
        """Wait until endpoints and scopes are held, for a bounded time and in no thread."""
        if (reading := self.reading()) is not None:
            await reading.wait()

    def vouched(self, token: str, nonce: str | None = None) -> Vouched:
        """Return whom an ID token vouches for, by the keys that are held; `reading` comes before it.

        Args:
            token: As the provider has signed it.
            nonce: With which it was asked for; None where another program did.

        Raises:
            NotAllowed: It is not of this provider, not for penstock, over, or not to be believed.
            Unavailable: The key that it names is not held, and the provider does not answer.
        """
        wanted = self.settings
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                self.keys.key(_key_named_by(token)),
                algorithms=[*wanted.algorithms],
                audience=wanted.audience,
                issuer=wanted.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": [*NEEDED]},
            )
        except jwt.ExpiredSignatureError as error:
            raise NotAllowed("this login is over; log in again") from error
        except (jwt.PyJWTError, ValueError) as error:
            why = NOT_BELIEVED.get(type(error), UNREADABLE)
            raise NotAllowed(f"this login is none of {wanted.issuer} for penstock: {why}") from error
        _require_login(token, claims, wanted)
        _require_party(claims, wanted)
        said = claims.get("nonce")
        if nonce is not None and not (isinstance(said, str) and hmac.compare_digest(said, nonce)):
            raise NotAllowed("this login was begun by somebody else; log in again")
        return _vouched(claims, wanted)

    def _published(self) -> Published:
        """Return keys and endpoints by the discovery document (OpenID Connect Discovery 1.0, section 4)."""
        issuer, tls = self.settings.issuer, self._context()
        place = issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            found = _document(place, tls)
            stated, keys = found["issuer"], found["jwks_uri"]
        except (NotAnswered, *_SHAPELESS) as error:
            raise Unavailable(f"{place} does not say where the provider's keys are: {error}") from error
        if stated != issuer:
            raise Unavailable(f"{place} speaks for {str(stated)[:200]}; people.yaml believes {issuer}")
        if not isinstance(keys, str) or not ENDPOINT.fullmatch(keys):
            raise Unavailable(f"{place} names no place of the provider's keys that can be reached by TLS")
        try:
            signing = _signing_keys(_document(keys, tls))
        except (NotAnswered, jwt.PyJWTError, *_SHAPELESS) as error:
            raise Unavailable(f"the keys of {issuer} cannot be read now: {error}") from error
        return Published(
            signing,
            _endpoint(found, "authorization_endpoint"),
            _endpoint(found, "token_endpoint"),
            _texts(found.get("scopes_supported")),
        )

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cadata=self._pem())
        except (OSError, ValueError) as error:
            raise BadInput(f"{self._authorities} holds no certificates that can be read: {error}") from error

    def _pem(self) -> str | None:
        """Return the provider's own authorities: who writes them decides who is logged in."""
        if self._authorities is None:
            return None
        try:
            return read_own(self._authorities).decode()
        except (OSError, ValueError) as error:
            raise BadInput(f"{self._authorities} holds no certificates that can be read: {error}") from error


def error_code(written: object) -> str:
    """Return the code by which the provider names what is wrong; a word for what is no such code."""
    return written if isinstance(written, str) and ERROR.fullmatch(written) else "it does not say why"


def _document(place: str, tls: ssl.SSLContext) -> Any:
    """Return one JSON document of the provider.

    Raises:
        NotAnswered: It is not there, or not in time.
        ValueError: It is no JSON.
    """
    answer = _asked(place, tls)
    if not answer.is_success:
        raise NotAnswered(f"it answers {answer.status}")
    return _json(answer)


def _asked(place: str, tls: ssl.SSLContext, form: bytes | None = None) -> Answered:
    method, headers = "GET", {"Accept": "application/json"}
    if form is not None:
        method, headers = "POST", headers | {"Content-Type": FORM}
    return exchange(
        place,
        tls=tls,
        seconds=ANSWER_SECONDS,
        most=MOST_BYTES,
        method=method,
        content=form,
        headers=headers,
        proxied=True,
    )


def _json(answer: Answered) -> Any:
    try:
        return json.loads(answer.body)
    except RecursionError as deep:
        raise ValueError("its JSON is nested too deeply") from deep


def _signing_keys(found: Any) -> tuple[jwt.PyJWK, ...]:
    """Return the keys of a JWK set that verify signatures and have a name (RFC 7517).

    Raises:
        ValueError: There are none, or too many.
        PyJWTError: None can be used.
    """
    if len(found["keys"]) > MOST_KEYS:
        raise ValueError(f"there are more than {MOST_KEYS}")
    keys = tuple(
        one for one in jwt.PyJWKSet.from_dict(found) if one.key_id and one.public_key_use in {"sig", None}
    )
    if not keys:
        raise ValueError("none of them is for signatures and has an identifier (kid)")
    return keys


def _key_named_by(token: str) -> str | None:
    """Return the identifier of the key that the token names, None where it names none."""
    named = jwt.get_unverified_header(token).get("kid")
    return named if isinstance(named, str) else None


def _endpoint(found: Mapping[str, Any], name: str) -> str:
    place = found.get(name)
    return place if isinstance(place, str) and ENDPOINT.fullmatch(place) else ""


def _require_login(token: str, claims: Mapping[str, Any], wanted: Oidc) -> None:
    """Refuse tokens that the same keys sign and that are no ID tokens: access, refresh and logout tokens.

    Their header names another type (RFC 9068, section 2.1; OpenID Connect Back-Channel Logout 1.0, section
    2.4), or their claims do, as those of Keycloak (`typ`). Other access tokens have claims that ID tokens
    lack: what they permit, or the client under the provider's own name.
    """
    kinds = (jwt.get_unverified_header(token).get("typ"), claims.get("typ"))
    for kind in (str(one or "JWT").lower().removeprefix("application/") for one in kinds):
        if kind not in OF_LOGINS:
            raise NotAllowed(f"this is no login but another token of {wanted.issuer} ({kind}); log in again")
    if foreign := [claim for claim in NEVER_IN_LOGINS if claim in claims]:
        raise NotAllowed(
            f"this is no login but another token of {wanted.issuer} (it has {foreign[0]}); log in again, and "
            "show the ID token"
        )
    client = claims.get("client_id", wanted.client)
    if client != wanted.client:
        raise NotAllowed(f"this login was given to {client}, not to {wanted.client}; log in again")


def _require_party(claims: Mapping[str, Any], wanted: Oidc) -> None:
    """Refuse a token that somebody else asked for, and that is for penstock among others."""
    audiences, party = claims["aud"], claims.get("azp")
    several = isinstance(audiences, list) and len(audiences) > 1
    if (several or party is not None) and party != wanted.client:
        raise NotAllowed(f"this login was given to {party or 'nobody that it names'}, not to {wanted.client}")


def _vouched(claims: Mapping[str, Any], wanted: Oidc) -> Vouched:
    if wanted.subject_claim not in claims:
        raise NotAllowed(_missing(wanted.subject_claim, claims))
    subject, name = claims[wanted.subject_claim], claims.get(wanted.name_claim or "")
    groups, read = claims.get(wanted.groups_claim), (wanted.groups_claim, wanted.name_claim)
    if not isinstance(subject, str) or not subject:
        raise NotAllowed(f"{wanted.subject_claim} of this login is no text that could be a person")
    return Vouched(
        issuer=wanted.issuer,
        subject=subject,
        name=name.lower() if isinstance(name, str) else None,
        groups=(groups,) if isinstance(groups, str) else _texts(groups),
        missing=tuple(_missing(claim, claims) for claim in read if claim and claim not in claims),
    )


def _missing(claim: str, claims: Mapping[str, Any]) -> str:
    """Return why the token lacks this claim, and what to do.

    A claim that `_claim_names` lists is elsewhere (OpenID Connect Core 1.0, section 5.6.2). Entra does so
    with the groups of a person who is in more than 200.
    """
    elsewhere = claims.get("_claim_names")
    if isinstance(elsewhere, dict) and claim in elsewhere:
        return (
            f"the token has no claim {claim}: the provider keeps it elsewhere (_claim_names), as Entra does "
            "for more than 200 groups; have the provider add only groups that are assigned to the client"
        )
    return (
        f"the token has no claim {claim}: have the provider add it to ID tokens, or list its scope in "
        "oidc.scopes; some providers leave out a claim that is empty"
    )


def _texts(listed: object) -> tuple[str, ...]:
    return tuple(one for one in listed if isinstance(one, str)) if isinstance(listed, list) else ()
