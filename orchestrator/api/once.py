"""Requests that change something carry a key, and are carried out once however often they arrive."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from orchestrator.api.limits import Kind
from orchestrator.api.texts import KEY, LONGEST_KEY
from orchestrator.api.who import Changing, Recognised, Serving, limits_of, service_of
from orchestrator.service.service import Service
from policies.model.people import Caller
from policies.model.request import Answer
from policies.model.value import Value

Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=LONGEST_KEY,
        pattern=KEY,
        description="the same key with the same request is the same request, carried out once",
    ),
]


class Keyed:
    """A request that changes something: who asks whom, under which key."""

    def __init__(self, request: Request, caller: Caller, service: Service, key: str) -> None:
        self._request = request
        self.caller = caller
        self.service = service
        self.key = key

    @property
    def id(self) -> str:
        """How engine and ledger know it again."""
        return self.caller.request(self.key)

    async def answer(
        self,
        work: Callable[[], Awaitable[Value]],
        status: int = 200,
        kind: Kind = Kind.CHANGE,
        content: bytes | None = None,
    ) -> Response:
        """Return the answer of the work, or of the equal request that came first.

        Requests are equal by their `content`, which is the body unless the route says otherwise.
        """
        body = await self._request.body() if content is None else content
        found = await once(self._request, self.caller, self.key, body, work, status=status, kind=kind)
        return Response(found.body, found.status, media_type="application/json")


async def once(
    request: Request,
    caller: Caller,
    key: str,
    said: bytes,
    work: Callable[[], Awaitable[Value]],
    *,
    status: int = 200,
    kind: Kind = Kind.CHANGE,
) -> Answer:
    """Return the answer of the work, or of the equal request of the caller that came first.

    Args:
        request: What asks for it.
        caller: Who asks.
        key: The caller's own, by which a repeat is known.
        said: What was asked; another content under the same key is refused.
        work: What is done.
        status: What it is answered with.
        kind: Of which bucket it takes.
    """
    limits_of(request).take(caller.person, kind)
    content = request.method.encode() + b" " + request.url.path.encode() + b"\n" + said

    async def answer() -> Answer:
        return Answer(status=status, body=(await work()).model_dump_json())

    return await service_of(request).once(caller, key, content, answer, safe=kind is Kind.SAFE)


async def _keyed(request: Request, caller: Changing, service: Serving, key: Key) -> Keyed:
    return Keyed(request, caller, service, key)


async def _ordered(request: Request, caller: Recognised, service: Serving, key: Key) -> Keyed:
    return Keyed(request, caller, service, key)


Once = Annotated[Keyed, Depends(_keyed)]

Ordered = Annotated[Keyed, Depends(_ordered)]
"""What may go in the safe direction: no request that made no sense keeps its caller from it.

A body of such a route has no list and no map, so that its validation takes no time worth counting.
"""
