"""Bodies of many wrong values: refused before they are validated, or at the first that is wrong."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from orchestrator.api.app import _ROUTES
from orchestrator.api.limits import PER_MINUTE, Kind
from orchestrator.api.size import MOST_ITEMS
from orchestrator.api.who import caller_of, changing
from orchestrator.store.ledger import Ledger
from policies.model.people import Role
from tests.service.test_api import token

MANY = 5_000
MOST_ERRORS = 64
WRONG: tuple[object, ...] = (1, None, "A ", [], {})

WITH_A_BODY = {
    route.path: route
    for module in _ROUTES
    for route in module.router.routes
    if isinstance(route, APIRoute) and route.body_field is not None
}


def lists_and_maps(
    schema: dict[str, Any], known: dict[str, Any], place: tuple[str, ...] = ()
) -> Iterator[Any]:
    """Yield where a schema has a list or a map, and which of both it is."""
    if found := schema.get("$ref"):
        yield from lists_and_maps(known[found.rsplit("/", 1)[-1]], known, place)
    for other in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(other, ()):
            yield from lists_and_maps(one, known, place)
    if schema.get("type") == "array":
        yield place, "list"
        yield from lists_and_maps(schema.get("items", {}), known, (*place, "[]"))
    if isinstance(schema.get("additionalProperties"), dict):
        yield place, "map"
    for name, one in schema.get("properties", {}).items():
        yield from lists_and_maps(one, known, (*place, name))


def body_of(route: APIRoute) -> Any:
    assert route.body_field is not None
    return route.body_field.field_info.annotation


def places_of(route: APIRoute) -> list[tuple[tuple[str, ...], str]]:
    schema = TypeAdapter(body_of(route)).json_schema()
    return list(lists_and_maps(schema, schema.get("$defs", {})))


LISTS = [
    (path, place) for path, route in WITH_A_BODY.items() for place, kind in places_of(route) if kind == "list"
]


def filled(place: tuple[str, ...], value: object) -> object:
    """Return a body that has the value at this place, and nothing else."""
    for name in reversed(place):
        value = [value] if name == "[]" else {name: value}
    return value


@pytest.mark.parametrize(("path", "place"), LISTS, ids=[f"{path} {'.'.join(place)}" for path, place in LISTS])
def test_a_list_of_wrong_items_is_refused_at_the_first(path: str, place: tuple[str, ...]) -> None:
    """S1 again, a fresh reader's C1: 60,000 wrong items were 60,000 errors, on the event loop."""
    for wrong in WRONG:
        with pytest.raises(ValidationError) as refused:
            TypeAdapter(body_of(WITH_A_BODY[path])).validate_python(filled(place, [wrong] * MANY))
        assert refused.value.error_count() <= MOST_ERRORS


def asked(dependant: Dependant) -> Iterator[object]:
    for one in dependant.dependencies:
        yield one.call
        yield from asked(one)


def test_every_body_is_validated_after_a_bucket_of_its_caller_was_asked() -> None:
    """S1 again, a fresh reader's C1: a 429 cost as much as what it refused.

    Only what goes in the safe direction, and has neither a list nor a map, is validated before.
    """
    before = {
        path for path, route in WITH_A_BODY.items() if not {caller_of, changing} & {*asked(route.dependant)}
    }
    assert before == {"/fleets/{fleet}/commands", "/chat/messages"}
    assert [path for path in before if places_of(WITH_A_BODY[path])] == []
    assert len(LISTS) > 8


@pytest.mark.parametrize("asked", [{"gateways": [1] * 60_000}, [1] * 60_000, {"gateways": [[1] * 200] * 200}])
async def test_more_items_than_any_request_has_are_refused_as_too_many(
    asked: object, api: httpx.AsyncClient, ledger: Ledger
) -> None:
    """S1 again, a fresh reader's C1."""
    shown = token(ledger, Role.VIEWER) | {"Idempotency-Key": "n", "Content-Type": "application/json"}
    body = json.dumps(asked, separators=(",", ":"))
    answer = await api.post("/fleets/edge/adopt", content=body, headers=shown)
    assert answer.status_code == 422
    assert f"at most {MOST_ITEMS} items" in answer.json()["detail"]


@pytest.mark.usefixtures("no_refill")
async def test_a_caller_whose_requests_make_no_sense_is_refused_before_the_next_is_read(
    api: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1 again, a fresh reader's C1; holds and rollbacks are asked for as before."""
    monkeypatch.setitem(PER_MINUTE, Kind.INVALID, 3)
    shown = token(ledger, Role.OPERATOR)
    codes = [
        (await api.post("/fleets/edge/adopt", json={"gateways": [1]}, headers=shown)).status_code
        for _ in range(5)
    ]
    assert codes == [422, 422, 422, 429, 429]
    right = await api.post(
        "/fleets/edge/adopt", json={"reason": "x"}, headers=shown | {"Idempotency-Key": "a"}
    )
    assert right.status_code == 429
    asked = {"kind": "hold", "reason": "x"}
    held = await api.post("/fleets/edge/commands", json=asked, headers=shown | {"Idempotency-Key": "h"})
    assert held.status_code != 429


async def test_commas_in_a_text_are_no_items(api: httpx.AsyncClient) -> None:
    """S1 again, a fresh reader's C1."""
    calendar = {"name": "x", "calendar": 'a,"\\' * 15_000, "tz": "UTC", "reason": "x"}
    answer = await api.post(
        "/fleets/edge/windows/freezes/import", json=calendar, headers={"Idempotency-Key": "n"}
    )
    assert "items" not in answer.text


async def test_a_text_without_an_end_is_looked_through_once(api: httpx.AsyncClient) -> None:
    """S1 again, a fresh reader's C1."""
    headers = {"Idempotency-Key": "n", "Content-Type": "application/json"}
    body = "," * 13_000 + '"' + '\\"' * 40_000
    answer = await api.post("/fleets/edge/adopt", content=body, headers=headers, timeout=5)
    assert answer.status_code == 422
