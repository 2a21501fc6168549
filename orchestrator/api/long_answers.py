"""Long answers: what grows with a fleet or its history is made into bytes in few threads, and sent in parts.

FastAPI makes each answer into bytes in the event loop, for each request anew. A survey of 10,000 gateways
takes 0.25 s and 13 MB, and no hold goes on meanwhile. Here the same value is made into bytes once for all
requests. Each connection holds one part at a time, and a person has few such answers under way.
"""

import asyncio
import json
import weakref
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

import anyio
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.api.disconnects import while_connected
from orchestrator.api.limits import AtOnce
from orchestrator.api.who import let_go
from orchestrator.service.background import ANSWERS
from policies.model.people import Caller
from policies.model.value import Value

V = TypeVar("V", bound=Value)

Ways = dict[object, "asyncio.Task[bytes]"]
"""The bytes of one value, by the function that makes them."""

MOST_ANSWERS = 4
"""Long answers of one person that are found, made or sent at a time."""

ANSWER_AFTER_SECONDS = 2.0
"""When a refused request may be tried again."""

PART_BYTES = 64 * 1024
"""How much of an answer a connection holds, besides what the kernel does."""

TAKEN_SECONDS = 30.0
"""How long a caller may take for one part; a slower caller's connection is closed."""

GONE_SECONDS = 5.0
"""How long the server takes at most to see that a closed connection has ended."""

MOST_AT_ONCE = 50
"""Values of one field that are dumped together."""

JSON = "application/json"


def as_json(value: Value) -> bytes:
    """Return the value as JSON.

    Many values in one field are dumped one by one. pydantic lets no other thread run during a dump.
    """
    long = {name: many for name in type(value).model_fields if _is_long(many := getattr(value, name))}
    parts = [value.model_dump_json(exclude=set(long))[1:-1].encode()] if len(long) < _fields(value) else []
    for name, many in long.items():
        if isinstance(many, Mapping):
            items = [b"%s:%s" % (_dumped(key), _dumped(one)) for key, one in many.items()]
            parts.append(b"%s:{%s}" % (_dumped(name), b",".join(items)))
        else:
            parts.append(b"%s:[%s]" % (_dumped(name), b",".join(map(_dumped, many))))
    return b"{%s}" % b",".join(parts)


def _fields(value: Value) -> int:
    return len(type(value).model_fields)


def _is_long(many: object) -> bool:
    """Return whether it is many values, each of which is dumped in the same way wherever it stands."""
    items = many.values() if isinstance(many, dict) else many if isinstance(many, tuple) else ()
    return len(items) > MOST_AT_ONCE and all(isinstance(one, Value) for one in items)


def _dumped(one: Value | str) -> bytes:
    return (json.dumps(one) if isinstance(one, str) else one.model_dump_json()).encode()


class LongAnswers:
    """The long answers of one application."""

    def __init__(self) -> None:
        """Begin with none."""
        said = f"has {MOST_ANSWERS} long answers under way; ask again when one of them has arrived"
        self.at_once = AtOnce(MOST_ANSWERS, said, ANSWER_AFTER_SECONDS)
        self._made = dict[int, tuple[weakref.ref[Value], Ways]]()

    async def made(self, value: V, make: Callable[[V], bytes]) -> bytes:
        """Return the value as bytes: the same object for all who ask for the same value made in the same way.

        They are kept for as long as anything else refers to the value.

        Raises:
            TooMany: Everybody together has too many long requests under way.
        """
        number = id(value)
        if number not in self._made:
            self._made[number] = weakref.ref(value, lambda _: self._made.pop(number, None)), {}
        ways = self._made[number][1]
        if make not in ways:
            ways[make] = asyncio.create_task(ANSWERS.run(partial(make, value)))
            ways[make].add_done_callback(partial(_forget_failure, ways, make))
        return await asyncio.shield(ways[make])


def _forget_failure(ways: Ways, make: object, done: "asyncio.Task[bytes]") -> None:
    """Let the next request try again what failed."""
    if done.cancelled() or done.exception() is not None:
        ways.pop(make, None)


class Taken(Response):
    """An answer that is sent in parts for as long as the caller takes them."""

    def __init__(self, content: bytes, at_once: AtOnce, person: str, **named: Any) -> None:
        """Answer with this content; it counts as one of the person's until it is sent."""
        super().__init__(content, **named)
        self._at_once, self._person = at_once, person

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        whole = memoryview(self.body)
        with self._at_once.one(self._person):
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            for begin in range(0, max(1, len(whole)), PART_BYTES):
                rest = begin + PART_BYTES < len(whole)
                part = bytes(whole[begin : begin + PART_BYTES])
                with anyio.move_on_after(TAKEN_SECONDS) as taking:
                    await send({"type": "http.response.body", "body": part, "more_body": rest})
                if taking.cancelled_caught:
                    let_go(Request(scope))
                    await _until_gone(receive)
                    return


async def _until_gone(receive: Receive) -> None:
    """Return once the server knows that the connection has ended; before, half an answer is an error."""
    with anyio.move_on_after(GONE_SECONDS):
        while (await receive())["type"] != "http.disconnect":
            pass


async def answered(
    request: Request,
    caller: Caller,
    work: Callable[[], Coroutine[Any, Any, V]],
    make: Callable[[V], bytes] = as_json,
    *,
    media_type: str = JSON,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a long answer; the work ends with the caller's connection.

    Args:
        request: What is answered.
        caller: Who asks.
        work: Finds the value.
        make: Makes it into bytes, in a thread; a function of a module, which requests share.
        media_type: What the bytes are.
        headers: What the answer has besides.

    Raises:
        TooMany: The caller has too many long answers under way.
    """
    answers = answers_of(request)

    async def made() -> bytes:
        return await answers.made(await work(), make)

    answers.at_once.refuse_another(caller.person)
    with answers.at_once.one(caller.person):
        content = await while_connected(request, made())
    return Taken(content, answers.at_once, caller.person, media_type=media_type, headers=headers)


def answers_of(request: Request) -> LongAnswers:
    """Return the long answers of this application."""
    found: LongAnswers = request.app.state.answers
    return found
