"""The identity provider: whom its ID tokens vouch for (OpenID Connect Core 1.0, section 3.1.3.7).

Keys are looked up by the provider's own discovery document and read again when a token names one that is
not known yet, so that a provider may change its keys at any time (section 10.1.1).
"""

import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx
import jwt

from policies.model.errors import BadInput, NotAllowed, Unavailable
from policies.model.people import Oidc
from policies.model.value import Value

ANSWER_SECONDS = 3.0
"""How long the provider may take to answer: whoever logs in waits for it."""

KNOWN_SECONDS = 3600.0
"""How long a discovery document is believed to be still so."""

FAILED_SECONDS = 10.0
"""How long a provider that did not answer is not asked again: a crowd of logins waits for it once."""

KEYS_AGAIN_SECONDS = 10.0
"""How often a token that names an unknown key may have the keys read again."""

LEEWAY_SECONDS = 30.0
"""How far the provider's clock may be from ours."""

NEEDED = ("iss", "aud", "exp", "iat")


class Vouched(Value):
    """Whom the provider vouches for."""

    subject: str
    name: str | None = None
    """What the provider calls this person, where people.yaml wants to know."""
    groups: tuple[str, ...] = ()


class Login(Value):
    """Where a person logs in, for a command line that asks (RFC 8628)."""

    issuer: str
    client: str
    authorities: str | None = None
    """Certificates of the provider's own authority in PEM, where it is none that everybody knows."""


class Keys(Protocol):
    """The provider's keys."""

    def get_signing_key_from_jwt(self, token: str) -> jwt.PyJWK:
        """Return the key that the token names."""
        ...


class IdentityProvider:
    """One provider, asked for its keys and believed for what they sign."""

    def __init__(self, settings: Oidc, authorities: Path | None) -> None:
        self.settings = settings
        self._authorities = authorities
        self._keys: Keys | None = None
        self._looked_at = 0.0
        self._failed: tuple[float, str] | None = None

    def login(self) -> Login:
        """Return what a person needs to know to log in."""
        pem = self._authorities.read_text() if self._authorities is not None else None
        return Login(issuer=self.settings.issuer, client=self.settings.client, authorities=pem)

    def vouched(self, token: str) -> Vouched:
        """Return whom an ID token vouches for.

        Raises:
            NotAllowed: It is not of this provider, not for penstock, over, or not to be believed.
            Unavailable: The provider's keys cannot be read now.
        """
        wanted = self.settings
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                self._key_of(token),
                algorithms=[*wanted.algorithms],
                audience=wanted.audience,
                issuer=wanted.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": [*NEEDED, wanted.subject_claim]},
            )
        except jwt.ExpiredSignatureError as error:
            raise NotAllowed("this login is over; log in again") from error
        except jwt.PyJWKClientConnectionError as error:
            raise Unavailable(f"the keys of {wanted.issuer} cannot be read now: {error}") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise NotAllowed(f"this login is none of {wanted.issuer} for penstock: {error}") from error
        _require_party(claims, wanted)
        return _vouched(claims, wanted)

    def _key_of(self, token: str) -> jwt.PyJWK:
        if self._failed is not None and time.monotonic() - self._failed[0] < FAILED_SECONDS:
            raise Unavailable(self._failed[1])
        if self._keys is None or time.monotonic() - self._looked_at > KNOWN_SECONDS:
            try:
                self._keys, self._looked_at = self._found_keys(), time.monotonic()
            except Unavailable as error:
                self._failed = (time.monotonic(), str(error))
                raise
        return self._keys.get_signing_key_from_jwt(token)

    def _found_keys(self) -> Keys:
        """Return the keys that the discovery document names (OpenID Connect Discovery 1.0, section 4)."""
        issuer = self.settings.issuer
        context = self._context()
        place = issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            answer = httpx.get(place, verify=context, timeout=ANSWER_SECONDS).raise_for_status()
            found = answer.json()
            stated, keys = found["issuer"], found["jwks_uri"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"{place} does not say where the provider's keys are: {error}") from error
        if stated != issuer:
            raise NotAllowed(f"{place} speaks for {stated}; people.yaml believes {issuer}")
        return jwt.PyJWKClient(
            keys, ssl_context=context, timeout=ANSWER_SECONDS, cooldown_duration=KEYS_AGAIN_SECONDS
        )

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._authorities)
        except (OSError, ssl.SSLError) as error:
            raise BadInput(f"{self._authorities} holds no certificates that can be read: {error}") from error


def _require_party(claims: Mapping[str, Any], wanted: Oidc) -> None:
    """Refuse a token that somebody else asked for, and that is for penstock among others."""
    audiences, party = claims["aud"], claims.get("azp")
    several = isinstance(audiences, list) and len(audiences) > 1
    if (several or party is not None) and party != wanted.client:
        raise NotAllowed(f"this login was given to {party or 'nobody that it names'}, not to {wanted.client}")


def _vouched(claims: Mapping[str, Any], wanted: Oidc) -> Vouched:
    subject, name = claims[wanted.subject_claim], claims.get(wanted.name_claim or "")
    groups = claims.get(wanted.groups_claim, [])
    listed = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
    if not isinstance(subject, str) or not subject:
        raise NotAllowed(f"{wanted.subject_claim} of this login is no text that could be a person")
    return Vouched(
        subject=subject,
        name=name.lower() if isinstance(name, str) else None,
        groups=tuple(one for one in listed if isinstance(one, str)),
    )
