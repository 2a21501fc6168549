"""HTTP/1.1 requests whose head is checked before it is parsed, and whose body has a length.

h11 parses everything that one read of a socket returns before any other task runs. With h11 0.16, clients
without a login could make that long:

- a body in chunks of one byte is an event for each byte: 1.1 s of a processor for 720 KB
- a header line of spaces before a byte that no header may have: 1.2 s for 16 KB, and 300 s for 256 KB
- tiny header lines: 0.2 s for 256 KB, since a head that arrives whole has no limit
"""

import logging
import re
from http import HTTPStatus
from typing import Any, NamedTuple

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from activities.drivers import header_lines  # noqa: F401 - the pattern that it sets

MOST_HEAD = 64 * 1024
"""Bytes of a request before its body. A proxy that hands on tokens and tickets sends more than 16 KiB."""

MOST_LINES = 100
"""Header lines of a request. Browsers send about 20."""

UNREAD_SECONDS = 1.0
"""How long what follows a refused request is received and dropped, so that its client reads the answer."""

_FAILURES = logging.getLogger("uvicorn.error.failures")
"""What servers log: their own failures, and no line for each request of a stranger."""
_FAILURES.setLevel(logging.ERROR)

_END = re.compile(rb"\n\r?\n")
"""The end of a head, as h11 finds it."""

_NEVER_IN_HEADS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
"""Bytes that no head may have. A line without them matches h11's pattern at the first try."""


class Refusal(NamedTuple):
    """Why a request is not parsed further."""

    status: HTTPStatus
    text: str


_TOO_LONG = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"a request has at most {MOST_HEAD} bytes and {MOST_LINES} header lines before its body; send fewer",
)
_MALFORMED = Refusal(HTTPStatus.BAD_REQUEST, "the request is no valid HTTP/1.1")
_NO_LENGTH = Refusal(
    HTTPStatus.LENGTH_REQUIRED,
    "Transfer-Encoding is not accepted here; send the whole body with Content-Length",
)


class BoundedConnection(h11.Connection):
    """The parser of one server connection: it refuses a head before h11 reads it, and a body in chunks."""

    refusal = _MALFORMED
    """Why the request is refused that made `next_event` raise."""

    _searched = 0
    """Bytes of the next head in which its end was searched."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event.

        Raises:
            h11.RemoteProtocolError: The request is refused; `refusal` has the reason.
        """
        if self.their_state is h11.IDLE:
            self._check_head()
        event = super().next_event()
        if isinstance(event, h11.Request) and any(name == b"transfer-encoding" for name, _ in event.headers):
            raise self._refused(_NO_LENGTH)
        return event

    def _check_head(self) -> None:
        received, _ = self.trailing_data
        end = _END.search(received, self._searched)
        if end is None:
            self._searched = max(0, len(received) - 2)
            if len(received) > MOST_HEAD:
                raise self._refused(_TOO_LONG)
            return
        self._searched = 0
        head = received[: end.end()]
        if len(head) > MOST_HEAD or head.count(b"\n") > MOST_LINES + 2:  # the request line, and the empty one
            raise self._refused(_TOO_LONG)
        if _NEVER_IN_HEADS.search(head):
            raise self._refused(_MALFORMED)

    def _refused(self, refusal: Refusal) -> h11.RemoteProtocolError:
        self.refusal = refusal
        return h11.RemoteProtocolError(refusal.text, error_status_hint=refusal.status.value)


class BoundedRequests(H11Protocol):
    """One connection of a server. A refused request is answered once, and ends the connection."""

    conn: BoundedConnection

    _refused = False

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        """Take what uvicorn's own protocol takes."""
        super().__init__(config, server_state, app_state)
        self.logger = _FAILURES
        self.conn = BoundedConnection(h11.SERVER, MOST_HEAD)

    def data_received(self, data: bytes) -> None:
        """Parse what was received, unless a request was refused or the connection is being closed."""
        if not (self._refused or self.transport.is_closing()):
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer why the request is refused, and end the connection soon; uvicorn calls this.

        A connection that is closed before all of its data is read is reset, and its client loses the answer.
        """
        del msg
        self._refused = True
        status, text = self.conn.refusal
        body = f"{text}\n".encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.flow.resume_reading()
        self.loop.call_later(UNREAD_SECONDS, self.transport.abort)
