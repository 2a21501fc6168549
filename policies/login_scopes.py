"""Scopes of a login: the page and the command line request them, so that tokens have the configured claims.

Many providers put a claim into a token only if the request has the scope of that claim. Section 5.4 of OpenID
Connect Core 1.0 names the scopes of the standard claims. For any other claim, such as `groups`, providers use
a scope of the same name.
"""

from collections.abc import Collection

from policies.model.people import Oidc

OPENID = "openid"
OFFLINE = "offline_access"
"""Requests a refresh token, with which the command line renews a login (section 11)."""

_CLAIMS = {
    OPENID: ("sub",),
    "profile": (
        *("name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile"),
        *("picture", "website", "gender", "birthdate", "zoneinfo", "locale", "updated_at"),
    ),
    "email": ("email", "email_verified"),
    "address": ("address",),
    "phone": ("phone_number", "phone_number_verified"),
}
_SCOPES = {claim: scope for scope, claims in _CLAIMS.items() for claim in claims}


def scopes_of(oidc: Oidc, listed: Collection[str], *, renewed: bool) -> tuple[str, ...]:
    """Return the scopes that a login requests.

    Args:
        oidc: The settings; `scopes` there replaces what is chosen here.
        listed: The scopes that the provider lists. Some providers refuse a request with any other scope.
        renewed: Whether the login is renewed with a refresh token. The page renews none.
    """
    claims = (oidc.subject_claim, oidc.groups_claim, oidc.name_claim)
    needed = (*(_SCOPES.get(claim, claim) for claim in claims if claim is not None), OFFLINE)
    chosen = oidc.scopes if oidc.scopes is not None else (one for one in needed if one in listed)
    return tuple(dict.fromkeys((OPENID, *(one for one in chosen if renewed or one != OFFLINE))))
