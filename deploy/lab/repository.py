"""A plain HTTP server for the lab's folder of releases, with ranges, entity tags and the kernel's sendfile.

Run as `python -m deploy.lab.repository --root FOLDER --address 127.0.0.1 --port 8099`.
"""

import argparse
import contextlib
import os
import re
import socket
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

RANGE = re.compile(r"^bytes=(\d+)-(\d*)$")


class RepositoryServer(ThreadingHTTPServer):
    """Serves one folder read-only, with ranges and strong entity tags."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], root: Path) -> None:
        self.root = root.resolve()
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, RepositoryHandler)

    @property
    def url(self) -> str:
        """The base URL under which the repository is found."""
        host, port = self.server_address[:2]
        return (
            f"http://[{host!s}]:{port}"
            if self.address_family == socket.AF_INET6
            else f"http://{host!s}:{port}"
        )


class RepositoryHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD with files, sent by the kernel."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Send a file, or the part of it that was asked for."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            self._answer()

    do_HEAD = do_GET  # noqa: N815

    def _answer(self) -> None:
        path = self._path()
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
            start, end = self._range(status.st_size, tag)
            self.send_response(HTTPStatus.PARTIAL_CONTENT if start is not None else HTTPStatus.OK)
            first, last = start or 0, end if end is not None else status.st_size - 1
            if start is not None:
                self.send_header("Content-Range", f"bytes {first}-{last}/{status.st_size}")
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("ETag", tag)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Last-Modified", formatdate(status.st_mtime, usegmt=True))
            self.end_headers()
            if self.command == "GET":
                self.wfile.flush()
                self.connection.sendfile(file, first, last - first + 1)

    def _path(self) -> Path | None:
        root = cast("RepositoryServer", self.server).root
        path = (root / self.path.partition("?")[0].lstrip("/")).resolve()
        return path if path.is_file() and path.is_relative_to(root) else None

    def _range(self, size: int, tag: str) -> tuple[int | None, int | None]:
        asked = RANGE.match(self.headers.get("Range", ""))
        if asked is None or self.headers.get("If-Range", tag) != tag:
            return None, None
        first, last = int(asked[1]), int(asked[2] or size - 1)
        return (first, min(last, size - 1)) if first <= last and first < size else (None, None)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server uses
        """Stay silent: the lab tells its own story."""


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    with RepositoryServer((arguments.address, arguments.port), arguments.root) as server:
        print(f"serving {arguments.root} at {server.url}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
