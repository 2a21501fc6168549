"""HTTP/2 over mutual TLS by hand: begins calls and leaves them unfinished, as no client of gRPC does."""

import socket
import ssl
import struct
import tempfile
from typing import TYPE_CHECKING

from tests.patience import PATIENCE

if TYPE_CHECKING:
    from tests.relay.installation import Shown  # which loads far more than a flood needs

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
ENDS_STREAM, IS_ANSWER, ENDS_HEADERS = 1, 1, 4
INITIAL_WINDOW = 4
"""The setting that says how much of a message may be sent before more is asked for."""

WINDOW = 65_535
"""What may be sent at first, as the protocol has it."""

MOST_OF_A_FRAME = 16_384


class Bare:
    """A connection whose holder says what is sent and when."""

    def __init__(self, address: str, shown: "Shown", takes: int = WINDOW) -> None:
        """Connect as whose certificate is `shown`; `takes` so many bytes of each answer."""
        host, _, port = address.rpartition(":")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with tempfile.NamedTemporaryFile() as file:
            file.write(shown.key + shown.certificate)
            file.flush()
            context.load_cert_chain(file.name)
        self._socket = context.wrap_socket(socket.create_connection((host, int(port)), timeout=PATIENCE))
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._socket.sendall(frame(SETTINGS, 0, 0, struct.pack("!HI", INITIAL_WINDOW, takes)))
        self._unread = b""
        self._first = self._window = WINDOW
        self._windows: dict[int, int] = {}
        self.ended: dict[int, bytes] = {}
        """The streams whose calls were answered to the end, with the last headers of each."""
        self.reset: set[int] = set()
        """The streams that were ended without an answer."""
        self._headers: dict[int, bytes] = {}
        self.closed = False
        self.listen(PATIENCE)  # a relay gives up those who leave its settings without an answer

    def call(self, stream: int, path: str) -> None:
        """Begin a call, without any of its message."""
        self._windows[stream] = self._first
        self._send(frame(HEADERS, ENDS_HEADERS, stream, headers(path)))

    def message(self, stream: int, body: bytes) -> None:
        """Send a whole message, which has to be short, and say that it was the last."""
        self._send(frame(DATA, ENDS_STREAM, stream, struct.pack("!BI", 0, len(body)) + body))

    def whole(self, stream: int, path: str, body: bytes) -> None:
        """Send a call with its whole message at once, as clients of gRPC do: it is answered as one."""
        begun = frame(HEADERS, ENDS_HEADERS, stream, headers(path))
        self._send(begun + frame(DATA, ENDS_STREAM, stream, struct.pack("!BI", 0, len(body)) + body))

    def send_as_much_as_may_be(self, stream: int, body: bytes) -> int:
        """Send what the other side takes now of these bytes of a call; return how many that were."""
        size = min(len(body), self._windows.get(stream, 0), self._window, MOST_OF_A_FRAME)
        if size <= 0 or stream in self.ended:
            return 0
        self._windows[stream] -= size
        self._window -= size
        self._send(frame(DATA, 0, stream, body[:size]))
        return size

    def ping(self) -> None:
        """Ask whether the other side is there."""
        self._send(frame(PING, 0, 0, b"12345678"))

    def listen(self, seconds: float) -> None:
        """Read what was sent, waiting so long for the first of it."""
        self._socket.settimeout(seconds)
        try:
            while data := self._socket.recv(65_536):
                self._unread += data
                self._socket.settimeout(0.001)
            self.closed = True
        except (TimeoutError, ssl.SSLWantReadError):
            pass
        except OSError:
            self.closed = True
        while len(self._unread) >= 9 + (size := int.from_bytes(self._unread[:3])) and not self.closed:
            kind, flags, stream = struct.unpack("!BBI", self._unread[3:9])
            body, self._unread = self._unread[9 : 9 + size], self._unread[9 + size :]
            self._heard(kind, flags, stream, body)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _heard(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == SETTINGS and not flags & IS_ANSWER:
            for name, value in struct.iter_unpack("!HI", body):
                if name == INITIAL_WINDOW:
                    self._windows = {one: left + value - self._first for one, left in self._windows.items()}
                    self._first = value
            self._send(frame(SETTINGS, IS_ANSWER, 0))
        elif kind == PING and not flags & IS_ANSWER:
            self._send(frame(PING, IS_ANSWER, 0, body))
        elif kind == WINDOW_UPDATE and stream:
            self._windows[stream] = self._windows.get(stream, 0) + int.from_bytes(body)
        elif kind == WINDOW_UPDATE:
            self._window += int.from_bytes(body)
        elif kind == GOAWAY:
            self.closed = True
        else:
            self._answered(kind, flags, stream, body)

    def _answered(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == RESET:
            self.reset.add(stream)
        elif kind == HEADERS:
            self._headers[stream] = body
        if kind in (HEADERS, DATA) and flags & ENDS_STREAM:
            self.ended[stream] = self._headers[stream]

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.sendall(data)
        except OSError:
            self.closed = True


def headers(path: str) -> bytes:
    """Return the headers that begin a call, as HPACK has them without any compression."""
    said = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "relay.penstock"}
    said |= {"te": "trailers", "content-type": "application/grpc"}
    return b"".join(b"\0" + text(name) + text(value) for name, value in said.items())


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """Return one frame (RFC 9113, 4.1)."""
    return len(body).to_bytes(3) + struct.pack("!BBI", kind, flags, stream) + body


def text(said: str) -> bytes:
    """Return a text of less than 127 bytes as headers have it."""
    return bytes([len(said)]) + said.encode()
