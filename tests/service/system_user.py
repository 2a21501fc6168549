"""Asking at the local socket as another user of this host; only root can try that."""

import asyncio
import http.client
import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE


class _AtSocket(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("penstock", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket, where the kernel notes who this is."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class SystemUser:
    """A user of this host, by number; each request is made by a process of theirs."""

    path: Path
    uid: int

    async def __call__(
        self, method: str, route: str, body: object = None, key: str | None = None
    ) -> tuple[int, Any]:
        """Return the status and the body of what is answered."""
        return await asyncio.to_thread(self.ask, method, route, body, key or secrets.token_hex(8))

    def ask(self, method: str, route: str, body: object, key: str) -> tuple[int, Any]:
        """Return the same, waiting for it."""
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(heard)
            try:
                os.setresuid(self.uid, self.uid, self.uid)
                said = self._request(method, route, body, key)
            except BaseException as error:  # noqa: BLE001 - the child has nobody else to tell
                said = json.dumps([0, repr(error)]).encode()
            with os.fdopen(told, "wb") as out:
                out.write(said)
            os._exit(0)
        os.close(told)
        with os.fdopen(heard, "rb") as answer:
            status, found = json.loads(answer.read())
        os.waitpid(child, 0)
        return int(status), found

    def _request(self, method: str, route: str, body: object, key: str) -> bytes:
        connection = _AtSocket(os.fspath(self.path))
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        sent = None if body is None else json.dumps(body)
        connection.request(method, f"/v1{route}", body=sent, headers=headers)
        answer = connection.getresponse()
        return json.dumps([answer.status, json.loads(answer.read())]).encode()
