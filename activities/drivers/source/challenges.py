"""What a registry asks for before it answers: https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1.

A registry may offer several schemes, in one header or in several; HTTP joins those with commas.
The token service is the registry's: https://distribution.github.io/distribution/spec/auth/token/.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from activities.refusals import TransportRefused
from policies.model.refusals import ManifestInvalid
from policies.trust import strict_json

NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
ELEMENT = re.compile(rf'({NAME})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))|({NAME})')
"""A parameter with its quoted or plain value, or else the name of a scheme."""
ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Challenges:
    """The schemes that a registry offers, each with its parameters; all names are in small letters."""

    schemes: Mapping[str, Mapping[str, str]]

    @property
    def takes_password(self) -> bool:
        """Whether the registry itself takes a user and a password."""
        return "basic" in self.schemes

    @property
    def realm(self) -> str:
        """The address of the token service; empty if the registry names none."""
        return self.schemes.get("bearer", {}).get("realm", "")

    def token_address(self, **wanted: str) -> str:
        """Return where a token is to be had, for what is wanted or else for what the registry names.

        Raises:
            TransportRefused: the realm is no address.
        """
        named = self.schemes.get("bearer", {})
        query = {name: named[name] for name in ("service", "scope") if name in named} | wanted
        try:
            return str(httpx.URL(self.realm).copy_merge_params(query))
        except httpx.InvalidURL as error:
            raise TransportRefused("the registry's token service has no address", reason="denied") from error


def challenges_in(header: str) -> Challenges:
    """Return what the value of `WWW-Authenticate` offers; of a scheme offered twice the first counts."""
    schemes: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for name, quoted, plain, scheme in ELEMENT.findall(header):
        if scheme:
            fields = {}
            schemes.setdefault(scheme.lower(), fields)
        else:
            fields[name.lower()] = ESCAPED.sub(r"\1", quoted) or plain
    return Challenges(schemes)


def token_in(answer: bytes) -> str:
    """Return the token that a token service gives.

    Raises:
        TransportRefused: the answer holds none.
    """
    try:
        document = strict_json.loads(answer, fractions=True)
    except ManifestInvalid as error:
        raise TransportRefused(f"the registry's token service: {error}", reason="denied") from error
    found = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
    if not isinstance(found, str) or not found.isascii() or not found.isprintable():
        raise TransportRefused("the registry's token service gives no token", reason="denied")
    return found
