"""Disconnects: long work for a caller ends when the caller's connection does."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import Request
from starlette.exceptions import HTTPException

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what the work returns; cancel it when the caller's connection ends.

    The request's body has to be read before. It is for questions: what changes something goes on without
    its caller.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, "the caller has gone")
        return working.result()
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
        await asyncio.wait({working, leaving})


async def _disconnected(request: Request) -> None:
    """Return once the connection has ended."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
