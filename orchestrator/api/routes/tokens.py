"""Tokens: what machines show, made and revoked by administrators."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import Field

from orchestrator.api.limits import Kind
from orchestrator.api.routes.commands import Why
from orchestrator.api.who import Asking, Serving, limits_of
from policies.model.people import FleetOrEvery, PersonName, Role, TokenRow, joined
from policies.model.value import Value

router = APIRouter(tags=["tokens"])

TokenName = Annotated[
    str, Path(max_length=63, pattern=r"^[a-z0-9](?:[a-z0-9._@-]*[a-z0-9])?$", description="a token's name")
]


class Grant(Value):
    """Roles on one fleet, or on `*`: all of them."""

    fleet: FleetOrEvery
    roles: Annotated[tuple[Role, ...], Field(min_length=1, max_length=len(Role), fail_fast=True)]


class TokenAsked(Value):
    """A machine's token: its name in the audit record, what it may do where, and for how long."""

    name: PersonName
    grants: Annotated[tuple[Grant, ...], Field(min_length=1, max_length=100, fail_fast=True)]
    days: Annotated[int, Field(ge=1, le=365)] = 90


class MadeToken(Value):
    """A token, with its secret part for the only time."""

    token: str
    known: TokenRow


class TokenList(Value):
    """Tokens, without their secrets."""

    tokens: tuple[TokenRow, ...]


class Revocation(Value):
    """Why a token is worthless from now on."""

    reason: Why


class Revoked(Value):
    """Whether a token was good until now."""

    name: str
    new: bool


@router.get("/tokens")
async def tokens(caller: Asking, service: Serving) -> TokenList:
    """List the tokens of fleets that whoever asks administers."""
    return TokenList(tokens=await service.tokens.all(caller))


@router.post("/tokens", status_code=201)
async def make(asked: TokenAsked, request: Request, caller: Asking, service: Serving) -> MadeToken:
    """Make a token. Its answer is kept nowhere: a repeat under another name makes another one."""
    limits_of(request).take(caller.person, Kind.CHANGE)
    grants = joined({one.fleet: frozenset(one.roles)} for one in asked.grants)
    secret, row = await service.tokens.make(caller, asked.name, grants, timedelta(days=asked.days))
    return MadeToken(token=secret, known=row)


@router.post("/tokens/{name}/revoke")
async def revoke(
    name: TokenName, asked: Revocation, request: Request, caller: Asking, service: Serving
) -> Revoked:
    """Make a token worthless."""
    limits_of(request).take(caller.person, Kind.CHANGE)
    return Revoked(name=name, new=await service.tokens.revoke(caller, name, asked.reason))
