"""A login requests the scopes of the claims that people.yaml reads, as far as the provider lists them."""

import pytest

from policies.login_scopes import scopes_of
from policies.model.people import Oidc

DEX = ("openid", "email", "groups", "profile", "offline_access")


def oidc(**settings: object) -> Oidc:
    known = {"issuer": "https://id.example", "audience": "penstock", "client": "penstock"}
    return Oidc.model_validate(known | settings)


@pytest.mark.parametrize(
    ("settings", "requested"),
    [
        ({}, ("openid", "groups")),
        ({"name_claim": "email"}, ("openid", "groups", "email")),
        ({"name_claim": "preferred_username"}, ("openid", "groups", "profile")),
        ({"name_claim": "name", "subject_claim": "email"}, ("openid", "email", "groups", "profile")),
        ({"groups_claim": "memberOf", "name_claim": "sub"}, ("openid",)),
        ({"scopes": ["groups", "directory"]}, ("openid", "groups", "directory")),
        ({"scopes": [], "name_claim": "email"}, ("openid",)),
    ],
)
def test_a_login_requests_each_configured_claim_once_by_its_scope(
    settings: dict[str, object], requested: tuple[str, ...]
) -> None:
    assert scopes_of(oidc(**settings), DEX, renewed=False) == requested


def test_a_login_requests_no_scope_that_the_provider_does_not_list() -> None:
    """Dex and Keycloak refuse a request with a scope that they do not have."""
    google = ("openid", "email", "profile")
    assert scopes_of(oidc(name_claim="email"), google, renewed=True) == ("openid", "email")
    assert scopes_of(oidc(name_claim="email"), (), renewed=True) == ("openid",)


def test_only_the_command_line_requests_a_refresh_token() -> None:
    assert scopes_of(oidc(), DEX, renewed=True) == ("openid", "groups", "offline_access")
    own = oidc(scopes=["offline_access", "groups"])
    assert scopes_of(own, DEX, renewed=True) == ("openid", "offline_access", "groups")
    assert scopes_of(own, DEX, renewed=False) == ("openid", "groups")
    assert scopes_of(oidc(scopes=["groups"]), DEX, renewed=True) == ("openid", "groups")
