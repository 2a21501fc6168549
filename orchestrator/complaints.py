"""The door for complaints: one signed message by HTTP, recorded once.

`POST /complaints` carries what `policies.judge.complaints` describes as its body, the seconds since
the epoch in `X-Penstock-At` and the signature in `X-Penstock-Signature`. One request in a connection,
with h11 for what HTTP says. Whoever holds the key can have rollouts held by this door; whoever does
not learns only that it is there.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import h11

from orchestrator.settings import Settings
from orchestrator.store.complaints import ComplaintList
from policies.judge.complaints import MOST_BYTES, read_complaint
from policies.model.errors import BadInput, NotAllowed, PenstockError
from policies.model.fleet import Fleet

PATH = b"/complaints"
PATIENCE = timedelta(seconds=10)
"""Time for a whole request, however steadily its bytes drip, and for recording it."""
MOST_CONNECTIONS = 32
MOST_HEAD = 8 * 1024
FAREWELL = timedelta(seconds=1)
"""What is still being sent is read for so long, or a reset would overtake our answer (RFC 9112, 9.6)."""
LEAST_KEY = 32
_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where the door is, and the key its senders share with it."""

    host: str
    port: int
    key: bytes


class _Declined(Exception):
    """No complaint could be taken from this connection."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


_TOO_LARGE = _Declined(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a complaint has at most {MOST_BYTES} bytes")


class _Message(NamedTuple):
    at: str
    signature: str
    body: bytes


class ComplaintDoor:
    """Takes complaints from whoever connects, a few at a time, and gives every one an answer in JSON."""

    def __init__(self, key: bytes, complaints: ComplaintList, patience: timedelta = PATIENCE) -> None:
        self._key = key
        self._complaints = complaints
        self._patience = patience.total_seconds()
        self._meetings: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # threads are shared with the judge: a slow ledger gets one of them

    @asynccontextmanager
    async def open(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen for the length of the body; give the port, which the system chooses for 0.

        Raises:
            BadInput: Nobody can listen there.
        """
        try:
            server = await asyncio.start_server(self._greet, host, port, limit=MOST_HEAD)
        except (OSError, UnicodeError) as error:
            raise BadInput(
                f"no complaints can be taken at {host}:{port} ({error}); correct PENSTOCK_COMPLAINTS_ADDRESS"
            ) from error
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for meeting in self._meetings:
                meeting.cancel()
            await asyncio.gather(*self._meetings, return_exceptions=True)

    def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._meetings) >= MOST_CONNECTIONS:
            http, busy = h11.Connection(h11.SERVER), HTTPStatus.SERVICE_UNAVAILABLE
            writer.write(_answer(http, busy, "too many are talking; send it again later"))
            writer.close()
            return
        meeting = asyncio.create_task(self._meet(reader, writer))
        self._meetings.add(meeting)
        meeting.add_done_callback(self._meetings.discard)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD)
        try:
            with suppress(OSError):  # the sender has gone; so has the need for an answer
                writer.write(_answer(http, *await self._outcome(http, reader)))
                writer.write_eof()
                async with asyncio.timeout(FAREWELL.total_seconds()):
                    while await reader.read(MOST_HEAD):
                        pass
        finally:
            writer.transport.abort()

    async def _outcome(
        self, http: h11.Connection, reader: asyncio.StreamReader
    ) -> tuple[HTTPStatus, str | None]:
        """Return what became of the message, and what was wrong with it."""
        try:
            async with asyncio.timeout(self._patience):
                await self._take(await _receive(http, reader))
        except _Declined as declined:
            return declined.status, str(declined)
        except NotAllowed as error:
            return HTTPStatus.FORBIDDEN, str(error)
        except BadInput as error:
            return HTTPStatus.BAD_REQUEST, str(error)
        except TimeoutError:
            return HTTPStatus.REQUEST_TIMEOUT, "that took too long and may be lost; send it again"
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - what went wrong in here is no sender's business
            _log.warning("a complaint was not recorded: %s", _sayable(error))
            return HTTPStatus.SERVICE_UNAVAILABLE, "it could not be recorded; send it again later"
        return HTTPStatus.ACCEPTED, None

    async def _take(self, message: _Message) -> None:
        complaint = read_complaint(self._key, message.body, message.at, message.signature, time.time())
        async with self._turn:
            await asyncio.to_thread(self._complaints.add, complaint)


def _sayable(error: Exception) -> str:
    """Return what the log may hold: our own sentences; those of others quote what was to be written."""
    return str(error) if isinstance(error, PenstockError) else type(error).__name__


async def _receive(http: h11.Connection, reader: asyncio.StreamReader) -> _Message:
    """Return the one message of a connection."""
    headers: dict[str, str] = {}
    body = b""
    while True:
        try:
            event = http.next_event()
        except h11.RemoteProtocolError as error:
            raise _Declined(HTTPStatus(error.error_status_hint), "that is not HTTP as agreed") from error
        match event:
            case h11.NEED_DATA:
                http.receive_data(await reader.read(MOST_HEAD))
            case h11.Request():
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                _refuse_another(event, headers)
            case h11.Data():
                body += event.data
                if len(body) > MOST_BYTES:
                    raise _TOO_LARGE
            case h11.EndOfMessage():
                return _Message(
                    headers.get("x-penstock-at", ""), headers.get("x-penstock-signature", ""), body
                )
            case _:
                raise _Declined(HTTPStatus.BAD_REQUEST, "the request ended too soon")


def _refuse_another(request: h11.Request, headers: Mapping[str, str]) -> None:
    """Take nothing but the agreed request, and no longer one."""
    if request.target != PATH:
        raise _Declined(HTTPStatus.NOT_FOUND, f"there is nothing here but {PATH.decode()}")
    if request.method != b"POST":
        raise _Declined(HTTPStatus.METHOD_NOT_ALLOWED, "a complaint is sent by POST")
    if int(headers.get("content-length", "0")) > MOST_BYTES:
        raise _TOO_LARGE


def _answer(http: h11.Connection, status: HTTPStatus, wrong: str | None) -> bytes:
    """Return the answer in HTTP's words; none to who has asked nothing."""
    if http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return b""
    said = json.dumps({"recorded": True} if wrong is None else {"error": wrong}).encode() + b"\n"
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(said))),
        ("Connection", "close"),
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "POST"))
    begun = h11.Response(status_code=status, headers=headers, reason=status.phrase)
    events = (begun, h11.Data(data=said), h11.EndOfMessage())
    return b"".join(http.send(event) or b"" for event in events)


@asynccontextmanager
async def taking_complaints(settings: Settings, fleet: Fleet) -> AsyncIterator[None]:
    """Keep the door open for the length of the body, if the settings name one.

    Raises:
        BadInput: The settings name half of one, no address, or no key.
    """
    place = read_place(settings)
    if place is None:
        yield
        return
    complaints = ComplaintList.open(settings.ledger_url, fleet)
    try:
        async with ComplaintDoor(place.key, complaints).open(place.host, place.port):
            yield
    finally:
        complaints.close()


def read_place(settings: Settings) -> Place | None:
    """Return where complaints are taken and with which key; None where they are not.

    Raises:
        BadInput: The settings name half of that, no address, or no key.
    """
    address, key = settings.complaints_address, settings.complaints_key
    if address is None and key is None:
        return None
    if address is None or key is None:
        raise BadInput(
            "PENSTOCK_COMPLAINTS_ADDRESS and PENSTOCK_COMPLAINTS_KEY go together; set both, or neither"
        )
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16):  # noqa: PLR2004 - digits of a port
        raise BadInput(f"PENSTOCK_COMPLAINTS_ADDRESS is {address!r}; write host:port, such as 127.0.0.1:9600")
    return Place(host.removeprefix("[").removesuffix("]"), int(port), _read_key(key))


def _read_key(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise BadInput(f"the key {path} cannot be read: {error.strerror}; correct its path") from error
    if len(key) < LEAST_KEY or b"\n" in key:
        raise BadInput(f"the key {path} must be one line of at least {LEAST_KEY} characters")
    return key
