"""Requests that change something carry a key, and are carried out once however often they arrive."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Header, Request, Response

from orchestrator.api.limits import Kind
from orchestrator.api.who import Asking, Serving, limits_of
from orchestrator.store.requests import Answer
from policies.model.value import Value

Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[!-~]+$",
        description="the same key with the same request is the same request, carried out once",
    ),
]


async def once(  # a request and its surroundings
    request: Request,
    service: Serving,
    caller: Asking,
    key: str,
    work: Callable[[], Awaitable[Value]],
    status: int = 200,
    kind: Kind = Kind.CHANGE,
) -> Response:
    """Return the answer of the work, or of the equal request that came first."""
    limits_of(request).take(caller.person, kind)
    content = request.method.encode() + b" " + request.url.path.encode() + b"\n" + await request.body()

    async def answer() -> Answer:
        return Answer(status=status, body=(await work()).model_dump_json())

    found = await service.once(caller, key, content, answer)
    return Response(found.body, found.status, media_type="application/json")
