"""Fetch over HTTP from a source that may be hostile: one total deadline, a size cap, no surprises.

Bodies are taken raw, without an encoding; redirects only lead to origins of the allow-list, and
credentials only to the origin they are for.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx

from activities.drivers.source.wire import Deadline, DeadlineStream, DeadlineTransport
from activities.refusals import DownloadFailed, SizeExceeded, TransportRefused
from activities.threads import to_its_end
from policies.model.errors import BadInput
from policies.model.origin import keeps_secrets, origin_of

T = TypeVar("T")

MOST_REDIRECTS = 3
Authorization = str | Callable[[Deadline], str]
"""The value of the header, or a function that returns it within the deadline of the request."""

OK, PARTIAL = 200, 206
GONE = (404, 410)
AGAIN = (408, 425, 429, 500, 502, 503, 504)
MOVED = (301, 302, 303, 307, 308)
DENIED = (401, 403)

BROKEN = (
    httpx.TransportError,
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ConnectionNotAvailable,
    OSError,
)
"""What a connection that breaks, stalls or talks nonsense looks like."""


class NotThere(DownloadFailed):
    """The source answers that it does not have the thing; a repository being filled may have it later."""

    @property
    def code(self) -> str:
        """Callers see one kind of failed download."""
        return DownloadFailed.__name__


class Challenged(TransportRefused):
    """The source asks for credentials; `challenge` says of which kind."""

    def __init__(self, sentence: str, response: httpx.Response) -> None:
        super().__init__(sentence, reason="denied")
        self.challenge: str = response.headers.get("www-authenticate", "")

    @property
    def code(self) -> str:
        """Callers see one kind of refused transport."""
        return TransportRefused.__name__


class Transport:
    """Requests to the origins a trust policy allows."""

    def __init__(
        self, origins: Iterable[str], *, deadline_seconds: float, authorities: str | None = None
    ) -> None:
        """Allow these origins; `authorities` are PEM certificates to trust instead of the system's."""
        self._origins = frozenset(_allowed(origin) for origin in origins)
        self._seconds = deadline_seconds
        self._deadline: Deadline | None = None
        self._authorizations: dict[str, Authorization] = {}
        self._authorities = authorities
        self._tls: ssl.SSLContext | None = None
        self.accesses: list[str] = []
        """One line for each request: status, bytes, seconds and address without query."""

    def deadline(self) -> Deadline:
        """Return the deadline of all requests together, which starts with the first one."""
        if self._deadline is None:
            self._deadline = Deadline(self._seconds)
        return self._deadline

    async def beside(self, step: Callable[..., T], *arguments: object, **named: object) -> T:
        """Do a blocking step of this transport in a thread that ends with whoever waits for it."""
        deadline = self.deadline()
        return await to_its_end(partial(step, *arguments, **named), give_up=deadline.give_up)

    def authorize(self, url: str, authorization: Authorization) -> None:
        """Send this authorization to the URL's origin from now on, and to no other.

        A function is called once, in the thread of the first request to that origin.
        """
        if not keeps_secrets(url):
            raise TransportRefused(
                f"everybody on the way to {shown(url)} would read the credential for it; use https",
                reason="plain",
            )
        self._authorizations[origin_of(url)] = authorization

    def get(self, url: str, *, most: int, deadline: Deadline, accept: str = "*/*") -> bytes:
        """Return a small document.

        Raises:
            DownloadFailed: it is not there, or did not arrive in time.
            SizeExceeded: it has more than `most` bytes.
            TransportRefused: the source answers in a way that is not accepted.
        """
        return self.read(url, most=most, deadline=deadline, accept=accept)[0]

    def read(
        self, url: str, *, most: int, deadline: Deadline, accept: str = "*/*"
    ) -> tuple[bytes, httpx.Headers]:
        """Return a small document and the headers it came with; raises what `get` raises."""
        with self.open(url, deadline=deadline, headers={"accept": accept}) as answer:
            answer.require_plain(most)
            content = bytearray(most + 1)
            filled = 0
            while filled <= most and (taken := answer.read_into(memoryview(content)[filled:])):
                filled += taken
            if filled > most:
                raise SizeExceeded(f"{shown(url)} sends more than {most} bytes")
            return bytes(content[:filled]), answer.headers

    @contextlib.contextmanager
    def open(
        self, url: str, *, deadline: Deadline, headers: dict[str, str] | None = None
    ) -> Iterator["StreamedBody"]:
        """Give the answer to a request, its body unread; the connection ends with the block.

        Raises:
            DownloadFailed: not there, or not in time.
            TransportRefused: not allowed to be asked, or answered by a status that is final.
        """
        sent = {"accept-encoding": "identity", "user-agent": "penstock"} | (headers or {})
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            try:
                answer = StreamedBody(self._follow(stack, url, sent, deadline), deadline)
                try:
                    yield answer
                finally:
                    seconds = time.monotonic() - started
                    self.accesses.append(f"{answer.status} {answer.taken} {seconds:.3f} {shown(url)}")
            except BROKEN as error:
                deadline.left()
                if _distrusted(error):
                    raise TransportRefused(
                        f"{shown(url)} shows a certificate by no trusted authority", reason="certificate"
                    ) from error
                sentence = f"{shown(url)} broke off: {type(error).__name__} {error}".rstrip()
                raise DownloadFailed(sentence, reason="connection") from error

    def _follow(
        self, stack: contextlib.ExitStack, url: str, headers: dict[str, str], deadline: Deadline
    ) -> httpx.Response:
        for _ in range(MOST_REDIRECTS + 1):
            self.require_allowed(url)
            authorization = self._authorization_for(url, deadline)
            sent = headers | ({"authorization": authorization} if authorization else {})
            client = stack.enter_context(self._client(deadline))
            response = stack.enter_context(client.stream("GET", url, headers=sent))
            if response.status_code not in MOVED:
                _require_answer(response, url)
                return response
            target = _joined(url, response.headers.get("location", ""))
            if url.startswith("https:") and not target.startswith("https:"):
                raise TransportRefused(
                    f"{shown(url)} redirects from https to {shown(target)}", reason="redirect"
                )
            url = target
        raise TransportRefused(
            f"{shown(url)} is reached only by more than {MOST_REDIRECTS} redirects", reason="redirect"
        )

    def _authorization_for(self, url: str, deadline: Deadline) -> str | None:
        origin = origin_of(url)
        found = self._authorizations.get(origin)
        if callable(found):
            found = self._authorizations[origin] = found(deadline)
        return found

    def require_allowed(self, url: str) -> None:
        """Refuse an address on no allowed origin.

        Raises:
            TransportRefused: the trust policy does not name its origin.
        """
        if origin_of(url) not in self._origins:
            raise TransportRefused(
                f"{shown(url)} is not on a source the trust policy allows; add its origin to sources.allow",
                reason="origin",
            )

    def _client(self, deadline: Deadline) -> httpx.Client:
        if self._tls is None:
            self._tls = ssl.create_default_context(cadata=self._authorities)
        return httpx.Client(
            transport=DeadlineTransport(deadline, self._tls),
            timeout=None,  # noqa: S113 - every wait has the deadline
            follow_redirects=False,
            trust_env=False,
        )


class StreamedBody:
    """An answer whose body is read piece by piece into the reader's own memory.

    Through a plain socket a body of known length is read past the HTTP parser, which would
    copy every byte three times.
    """

    def __init__(self, response: httpx.Response, deadline: Deadline) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.url = shown(str(response.url))
        self.taken = 0
        self._deadline = deadline
        self._pieces = response.iter_raw()
        self._rest = memoryview(b"")
        self._socket: socket.socket | None = None
        length = response.headers.get("content-length", "")
        stream = response.extensions.get("network_stream")
        if length.isascii() and length.isdigit() and "transfer-encoding" not in response.headers:
            self._left = int(length)
            self._socket = stream.plain_socket if isinstance(stream, DeadlineStream) else None

    def require_plain(self, most: int) -> None:
        """Refuse an encoded body and one that announces more than `most` bytes.

        Raises:
            TransportRefused: the body is compressed.
            SizeExceeded: it is announced to be too long.
        """
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise TransportRefused(f"{self.url} sends an encoded body", reason="encoding")
        announced = self.headers.get("content-length")
        if announced is not None and int(announced) > most:
            raise SizeExceeded(f"{self.url} announces {announced} bytes; at most {most} are taken")

    def read_into(self, memory: memoryview) -> int:
        """Fill some of the memory with the next bytes of the body; return how many, 0 at its end."""
        count = self._from_parser(memory) if self._socket is None else self._from_socket(self._socket, memory)
        self.taken += count
        return count

    def _from_socket(self, plain: socket.socket, memory: memoryview) -> int:
        wanted = min(self._left, len(memory))
        if not wanted:
            return 0
        plain.settimeout(self._deadline.left())
        count = plain.recv_into(memory[:wanted])
        if not count:
            raise DownloadFailed(f"{self.url} broke off with {self._left} bytes to go", reason="connection")
        self._left -= count
        return count

    def _from_parser(self, memory: memoryview) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(self._rest), len(memory))
        memory[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _allowed(origin: str) -> str:
    """Return the origin; a malformed one must not become the origin of everything malformed."""
    found = origin_of(origin)
    if not found:
        raise BadInput(f"{shown(origin)} is no origin of a source; write scheme, host and port")
    return found


def _joined(url: str, location: str) -> str:
    """Return where a redirect leads, written in the one way that every reader of addresses agrees on."""
    try:
        target = urljoin(url, location)
        plain = httpx.URL(target)
    except (ValueError, httpx.InvalidURL) as error:
        raise TransportRefused(f"{shown(url)} redirects to what is no address", reason="redirect") from error
    if not origin_of(target) or origin_of(str(plain)) != origin_of(target):
        raise TransportRefused(f"{shown(url)} redirects to what is no address", reason="redirect")
    return target


def shown(url: str) -> str:
    """Return a URL without query, fragment and credentials, as it may be logged."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{url.partition('://')[0][:20]}://… (no address)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _distrusted(error: BaseException | None) -> bool:
    """Return whether an untrusted certificate is behind the error, however it was wrapped."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def _require_answer(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in GONE:
        raise NotThere(f"{shown(url)} is not there", reason="absent")
    if status in AGAIN:
        raise DownloadFailed(f"{shown(url)} answers {status}", reason="status")
    if status in DENIED:
        raise Challenged(f"{shown(url)} answers {status}: other credentials are needed", response)
    if status not in (OK, PARTIAL):
        raise TransportRefused(f"{shown(url)} answers {status}", reason="status")
