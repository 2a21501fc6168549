"""How much a request may say: what is longer is refused while it comes, and kept nowhere."""

import json
import re
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from policies.trust.strict_json import STRING

MOST_BYTES = 128 * 1024

MOST_DESCRIBING = 20 * 1024 * 1024
"""Bytes of a request with the description of a fleet: 10,000 gateways take 4 MiB, a file may have 16."""

MOST_KEYS = 2_000
"""Keys of all objects in one request: an unknown key is an error of its own, and takes 20 µs to report."""

MOST_KEYS_OF_ONE = 64
"""Keys that one object may have."""

MOST_ITEMS = 12_000
"""Items of all lists in one request: a list of gateways has 10,000 at most."""

_DESCRIBING = re.compile(r"^/v1/fleets/[^/]+/(?:description|desired/diff)$")
"""Where descriptions come; their routes read nothing before they know who asks."""


def is_describing(scope: Scope) -> bool:
    """Return whether it may have the description of a fleet, which is read when its caller is known."""
    return _DESCRIBING.match(scope.get("path", "")) is not None


class Short:
    """Lets requests through up to so many bytes, whatever they said about their length before."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting what comes."""
        heard, said = 0, list[bytes]()
        describes = is_describing(scope)
        most = MOST_DESCRIBING if describes else MOST_BYTES

        async def measured() -> Message:
            nonlocal heard
            message = await receive()
            heard += len(message.get("body", b""))
            if heard > most:
                status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                raise HTTPException(status.value, f"a request has at most {most} bytes")
            if not describes and message["type"] == "http.request":
                said.append(message.get("body", b""))
                if not message.get("more_body", False):
                    _require_few(b"".join(said))
            return message

        await self._app(scope, measured, send)


def _require_few(body: bytes) -> None:
    """Return for what is no JSON, or JSON of a few keys and items; a model names each that is wrong.

    Raises:
        HTTPException: It has more keys or items than any request of ours.
    """
    if body.count(b",") > MOST_ITEMS and STRING.sub(b"", body).count(b",") > MOST_ITEMS:
        raise _too_many(f"a request has at most {MOST_ITEMS} items in its lists; send fewer")
    if body.count(b":") <= MOST_KEYS_OF_ONE:
        return
    heard = 0

    def count(pairs: list[tuple[str, object]]) -> None:
        nonlocal heard
        heard += len(pairs)
        if len(pairs) > MOST_KEYS_OF_ONE or heard > MOST_KEYS:
            raise _too_many(f"an object has at most {MOST_KEYS_OF_ONE} keys; send fewer")

    try:
        json.loads(body, object_pairs_hook=count)
    except RecursionError as deep:
        raise _too_many("the request is nested too deeply; send fewer levels") from deep
    except ValueError:
        return  # no JSON, or not whole; its route says so


def _too_many(why: str) -> HTTPException:
    return HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY.value, why)
