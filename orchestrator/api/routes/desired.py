"""Desired state: files that people keep elsewhere, compared with what is so, and applied."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response

from orchestrator.api.disconnects import while_connected
from orchestrator.api.limits import AtOnce
from orchestrator.api.once import Once
from orchestrator.api.routes.commands import Release, Why
from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.who import Asking, Recognised, Serving
from orchestrator.service.desired import (
    AppliedDescription,
    AppliedUpgrade,
    Comparison,
    DescriptionApplied,
    Unpinned,
    UpgradeApplied,
)
from orchestrator.service.foreign_files import Malformed
from policies.model.desired import Compared
from policies.model.value import Value

router = APIRouter(tags=["desired state"])


class PinReleased(Value):
    """Why a fleet may get a release again that it went back from."""

    reason: Why
    release: Release | None = None


def _body(model: type[Value]) -> dict[str, Any]:
    """Return how the document says what is asked: it is read here, once it is clear who asks."""
    schema = model.model_json_schema(ref_template=f"#/components/schemas/{model.__name__}.{{model}}")
    inner = schema.pop("$defs", {})
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _inlined(schema, model.__name__, inner)}},
        }
    }


def _inlined(schema: Any, owner: str, inner: dict[str, Any]) -> Any:
    """Return the schema with what it refers to in its place; none of these models holds itself."""
    if isinstance(schema, dict):
        if isinstance(found := schema.get("$ref"), str):
            return _inlined(inner[found.removeprefix(f"#/components/schemas/{owner}.")], owner, inner)
        return {key: _inlined(value, owner, inner) for key, value in schema.items()}
    return [_inlined(one, owner, inner) for one in schema] if isinstance(schema, list) else schema


async def _read(request: Request, model: type[Value]) -> Any:
    body = await request.body()
    try:
        return await asyncio.to_thread(model.model_validate_json, body)
    except ValidationError as invalid:
        raise RequestValidationError(
            [{**error, "loc": ("body", *error["loc"])} for error in invalid.errors(include_url=False)]
        ) from invalid


async def _one_of_few(request: Request, caller: Recognised) -> AsyncIterator[None]:
    """Go on for one whose files are read: they are the only long requests there are."""
    under_way: AtOnce = request.app.state.descriptions
    under_way.refuse_another(caller.person)
    with under_way.one(caller.person):
        yield


OneOfFew = Annotated[None, Depends(_one_of_few)]


async def _described(
    request: Request, fleet: Fleet, caller: Asking, service: Serving, few: OneOfFew
) -> DescriptionApplied:
    """Return what is applied, read once it is clear that the caller may."""
    del few
    await service.desired.require_administrator(caller, fleet)
    found: DescriptionApplied = await _read(request, DescriptionApplied)
    return found


@router.post("/fleets/{fleet}/desired/diff", openapi_extra=_body(Compared))
async def compare(
    request: Request, fleet: Fleet, caller: Asking, service: Serving, few: OneOfFew
) -> Comparison:
    """Say what applying a description or an upgrade would do, and what drifts; nothing is changed."""
    del few
    body = await request.body()
    try:
        return await while_connected(request, service.desired.compare(caller, fleet, body))
    except Malformed as malformed:
        fault = malformed.fault
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])}]) from malformed


@router.post(
    "/fleets/{fleet}/description",
    response_model=AppliedDescription,
    openapi_extra=_body(DescriptionApplied),
)
async def describe(
    fleet: Fleet, asked: Annotated[DescriptionApplied, Depends(_described)], once: Once
) -> Response:
    """Have the fleet described by this text, in place of the one that was compared."""

    async def work() -> AppliedDescription:
        return await once.service.desired.describe(once.caller, fleet, asked)

    return await once.answer(work)


@router.post("/fleets/{fleet}/upgrade", response_model=AppliedUpgrade)
async def apply_upgrade(fleet: Fleet, asked: UpgradeApplied, once: Once) -> Response:
    """Bring the fleet to the release that a file asks for, unless it is there or went back from it."""

    async def work() -> AppliedUpgrade:
        return await once.service.apply_upgrade(once.caller, fleet, asked, key=once.key)

    return await once.answer(work)


@router.post("/fleets/{fleet}/unpin", response_model=Unpinned)
async def unpin(fleet: Fleet, asked: PinReleased, once: Once) -> Response:
    """Let a fleet get a release again that it went back from; only people do that."""

    async def work() -> Unpinned:
        return await once.service.desired.unpin(once.caller, fleet, asked.reason, asked.release)

    return await once.answer(work)
