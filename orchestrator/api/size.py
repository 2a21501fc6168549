"""How much a request may say: what is longer is refused while it comes, and kept nowhere."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 128 * 1024


class Short:
    """Lets requests through up to so many bytes, whatever they said about their length before."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting what comes."""
        heard = 0

        async def measured() -> Message:
            nonlocal heard
            message = await receive()
            heard += len(message.get("body", b""))
            if heard > MOST_BYTES:
                status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                raise HTTPException(status.value, f"a request has at most {MOST_BYTES} bytes")
            return message

        await self._app(scope, measured, send)
