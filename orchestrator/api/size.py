"""How much a request may say: what is longer is refused while it comes, and kept nowhere."""

import re
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 128 * 1024

MOST_DESCRIBING = 20 * 1024 * 1024
"""Bytes of a request with the description of a fleet: 10,000 gateways take 4 MiB, a file may have 16."""

LENGTHS = frozenset({b"content-length", b"transfer-encoding"})
"""A request with both ends elsewhere for a proxy than here, and what follows is another's (RFC 9112, 6.1)."""

_DESCRIBING = re.compile(r"^/v1/fleets/[^/]+/(?:description|desired/diff)$")
"""Where descriptions come; their routes read nothing before they know who asks."""


class Short:
    """Lets requests through up to so many bytes, whatever they said about their length before."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting what comes."""
        if {name for name, _ in scope.get("headers", ())} >= LENGTHS:
            refused = PlainTextResponse(
                "a request says its length once\n", HTTPStatus.BAD_REQUEST, headers={"Connection": "close"}
            )
            await refused(scope, receive, send)
            return
        heard = 0
        most = MOST_DESCRIBING if _DESCRIBING.match(scope.get("path", "")) else MOST_BYTES

        async def measured() -> Message:
            nonlocal heard
            message = await receive()
            heard += len(message.get("body", b""))
            if heard > most:
                status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                raise HTTPException(status.value, f"a request has at most {most} bytes")
            return message

        await self._app(scope, measured, send)
