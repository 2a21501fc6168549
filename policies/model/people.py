"""People: who is known, by what each is recognised, and which roles they have on which fleets."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from itertools import chain
from typing import Annotated, Literal, overload

from pydantic import ConfigDict, Field, model_validator

from policies.model.operation import BREAK_GLASS
from policies.model.value import Value, twice

EVERY_FLEET = "*"
"""In place of a fleet's name: all of them, those of later too."""


class Role(StrEnum):
    """What somebody is on a fleet; `policies.access` says what each may do."""

    VIEWER = "viewer"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"
    CI = "ci"
    CHAT = "chat"
    """A process that passes notices on and asks in the name of people, by a token of its own."""


class Via(StrEnum):
    """By which door somebody came."""

    CLI = "cli"
    API = "api"
    WEB = "web"
    CHAT = "chat"
    SYSTEM = "system"
    HOST = "host"
    """What a gateway's host has recorded by itself."""


PersonName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9._@-]*[a-z0-9])?$", max_length=63)]
"""One spelling for each person; a person whose name was changed is the same one by their identities."""

FleetOrEvery = Annotated[str, Field(pattern=r"^(?:\*|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)$", max_length=63)]
Grants = dict[FleetOrEvery, frozenset[Role]]
"""Roles by fleet; those under `*` hold on every fleet."""

SystemUser = Annotated[str, Field(pattern=r"^(?:[a-z_][a-z0-9_-]*\$?|uid:[0-9]+)$", max_length=32)]
"""A user of the orchestrator's host: a login name, or `uid:` and a user number.

Digits alone are neither: hosts exist whose login names are staff numbers.
"""

Subject = Annotated[str, Field(min_length=1, max_length=255)]

Scope = Annotated[str, Field(pattern=r"^[!#-\[\]-~]+$", max_length=255)]
"""A scope of the identity provider (RFC 6749, section 3.3)."""

RESERVED = frozenset({"penstock", "penstock.watch", BREAK_GLASS})
"""Who acts when nobody does, or somebody on a host; no person has one of these names."""

ROOT = "root"


class Caller(Value):
    """Who asks, recognised by the service itself; what the caller says of itself counts for nothing."""

    person: PersonName
    grants: Grants
    via: Via
    machine: bool = False
    """Whether it is a program with a token: it never counts as a person."""
    address: str = ""
    """Where it called from, for the audit record."""
    known_by: tuple[str, ...] = ()
    """What recognises the person, now and under any other name: see `People.identities_of`."""
    groups: tuple[str, ...] = ()
    """Groups of the identity provider by which the person has roles."""

    def roles(self, fleet: str) -> frozenset[Role]:
        """Return the caller's roles on the fleet; empty when the fleet is none of its business."""
        return roles_of(self.grants, fleet)

    @overload
    def request(self, key: str) -> str: ...
    @overload
    def request(self, key: None) -> None: ...
    def request(self, key: str | None) -> str | None:
        """Return how engine and ledger know this caller's request of that key again; None without a key."""
        return None if key is None else f"{self.person}/{key}"


class TokenRow(Value):
    """A token as people see it; the secret part is shown once, when it is made."""

    id: str
    name: PersonName
    grants: Grants
    made_by: str
    made_at: datetime
    expires: datetime
    last_used: datetime | None = None
    revoked_at: datetime | None = None


class Member(Value):
    """One person, by everything that recognises them."""

    name: PersonName
    """How records and rules call this person; one spelling."""
    system_users: tuple[SystemUser, ...] = ()
    """Users of the orchestrator's host that are this person at the local socket."""
    subjects: tuple[Subject, ...] = ()
    """What the identity provider calls this person."""
    roles: Grants = {}
    """What this person is, by fleet: `viewer`, `auditor`, `operator`, `approver`, `admin`, `ci`, `chat`."""


def identity_of_subject(issuer: str, subject: str) -> str:
    """Return the identity of a provider's subject; another provider's subjects are other people."""
    return f"{issuer} {subject}"


def subject_of_identity(identity: str) -> str:
    """Return the subject of a provider's identity, empty for an identity of another kind."""
    return identity.partition(" ")[2]


class Group(Value):
    """A group of the identity provider, and what its members may do."""

    name: Subject
    """As the provider's tokens have it."""
    roles: Grants
    """What its members are, by fleet."""


class Oidc(Value):
    """The identity provider that is believed, and for whom its tokens must be meant."""

    issuer: Annotated[str, Field(pattern=r"^(?:https://|http://127\.0\.0\.1[:/])[^\s?#]+$", max_length=255)]
    """As its tokens name it; without TLS only on this host itself."""
    audience: Subject
    """For whom its tokens must be meant."""
    client: Subject
    """The client identifier that `penstock login` uses."""
    algorithms: tuple[Literal["RS256", "ES256", "EdDSA"], ...] = Field(
        default=("RS256", "ES256"), min_length=1
    )
    """By which its tokens may be signed."""
    subject_claim: Subject = "sub"
    """The claim that tells people apart."""
    groups_claim: Subject = "groups"
    """The claim with the groups."""
    name_claim: Subject | None = None
    """What names a person whom only groups give roles, such as `email`; without it only people.yaml names."""
    scopes: tuple[Scope, ...] | None = None
    """Scopes that a login requests besides `openid`; without it, what these claims need."""
    authorities: Annotated[str, Field(min_length=1)] | None = None
    """File beside people.yaml with the certificates of the provider's own authority, in PEM."""


class People(Value):
    """people.yaml: everybody who is known, and who says so."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Literal["penstock/v1"] = Field(alias="apiVersion")
    """The form of this file."""
    people: tuple[Member, ...] = ()
    """Everybody who is known by name."""
    groups: tuple[Group, ...] = ()
    """Roles by groups of the provider."""
    oidc: Oidc | None = None
    """The provider; without it people are known at the local socket only."""

    def identities_of(self, member: Member) -> tuple[str, ...]:
        """Return everything that recognises this person, in one text each."""
        issuer = self.oidc.issuer if self.oidc is not None else ""
        return (*member.system_users, *(identity_of_subject(issuer, one) for one in member.subjects))

    @model_validator(mode="after")
    def _nobody_is_two(self) -> "People":
        _refuse_twice("name", (one.name for one in self.people))
        _refuse_twice("system user", chain.from_iterable(one.system_users for one in self.people))
        _refuse_twice("subject", chain.from_iterable(one.subjects for one in self.people))
        _refuse_twice("group", (one.name for one in self.groups))
        if taken := sorted(RESERVED & {one.name for one in self.people}):
            raise ValueError(f"nobody can be called {taken[0]}: that is who acts when no person does")
        if self.oidc is not None and self.oidc.name_claim is not None:
            _refuse_two_names(self.people)
        if self.oidc is None and (self.groups or any(one.subjects for one in self.people)):
            raise ValueError("subjects and groups are given, and no oidc that could vouch for them")
        return self


def roles_of(grants: Mapping[str, frozenset[Role]], fleet: str) -> frozenset[Role]:
    """Return the roles that these grants give on the fleet."""
    return grants.get(EVERY_FLEET, frozenset()) | grants.get(fleet, frozenset())


def joined(grants: Iterable[Mapping[str, frozenset[Role]]]) -> Grants:
    """Return everything that is granted by any of these."""
    found: Grants = {}
    for one in grants:
        for fleet, roles in one.items():
            found[fleet] = found.get(fleet, frozenset()) | roles
    return found


def _refuse_two_names(people: Iterable[Member]) -> None:
    """Refuse people whom the provider would name otherwise than this file does: each would be two."""
    if lost := next((one.name for one in people if one.system_users and not one.subjects), None):
        raise ValueError(
            f"{lost} has system users and no subjects, and oidc.name_claim would name the same person "
            "otherwise: give the provider's subject, too"
        )


def _refuse_twice(what: str, values: Iterable[str]) -> None:
    if double := twice(values):
        raise ValueError(f"the {what} {double} belongs to two people; one of them is meant")
