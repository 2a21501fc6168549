"""Requests that change something carry a key, and are carried out once however often they arrive."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from orchestrator.api.limits import Kind
from orchestrator.api.who import Recognised, Serving, limits_of
from policies.model.request import Answer
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


class Keyed:
    """A request that changes something: who asks whom, under which key."""

    def __init__(self, request: Request, caller: Recognised, service: Serving, key: Key) -> None:
        self._request = request
        self.caller = caller
        self.service = service
        self.key = key

    @property
    def id(self) -> str:
        """How engine and ledger know it again."""
        return self.caller.request(self.key)

    async def answer(
        self, work: Callable[[], Awaitable[Value]], status: int = 200, kind: Kind = Kind.CHANGE
    ) -> Response:
        """Return the answer of the work, or of the equal request that came first."""
        request = self._request
        limits_of(request).take(self.caller.person, kind)
        content = request.method.encode() + b" " + request.url.path.encode() + b"\n" + await request.body()

        async def answer() -> Answer:
            return Answer(status=status, body=(await work()).model_dump_json())

        found = await self.service.once(self.caller, self.key, content, answer, safe=kind is Kind.SAFE)
        return Response(found.body, found.status, media_type="application/json")


Once = Annotated[Keyed, Depends()]
