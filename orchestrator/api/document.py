"""The API's own document: made once and not in the event loop, and counted like other open routes.

FastAPI takes 2 s of a processor to make it, and 7 ms to write its 330 KB anew for each request.
"""

import asyncio
import json

from fastapi import APIRouter, FastAPI, Request, Response

from orchestrator.api.limits import Kind
from orchestrator.api.who import crowd_asking, limits_of

DOCUMENT = "/v1/openapi.json"


class Document:
    """The document of one application, as bytes."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._made: bytes | None = None
        self._under_way: asyncio.Future[bytes] | None = None

    async def content(self) -> bytes:
        """Return the document. The first request has a thread make it, and others wait for the same one."""
        if self._made is not None:
            return self._made
        if self._under_way is None:
            self._under_way = asyncio.ensure_future(self._made_beside())
        return await asyncio.shield(self._under_way)

    async def _made_beside(self) -> bytes:
        try:
            self._made = await asyncio.to_thread(self._make)
            return self._made
        finally:
            self._under_way = None

    def _make(self) -> bytes:
        described = self._app.openapi()
        self._app.openapi_schema = None  # FastAPI keeps it for a route that this application does not have
        return json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()


def described(app: FastAPI) -> APIRouter:
    """Return the route of this application's document, which needs no login."""
    router, document = APIRouter(include_in_schema=False), Document(app)

    @router.get(DOCUMENT)
    async def read(request: Request) -> Response:
        limits_of(request).take(crowd_asking(request), Kind.STRANGER)
        return Response(await document.content(), media_type="application/json")

    return router
