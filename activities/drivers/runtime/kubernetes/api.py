"""Calls to the API server, each bounded in time, paced, and never sent twice without it being known why.

The only module that speaks to it. Answers are read as plain JSON: the package's own models find fault with
answers after the server has acted. Every write is safe to repeat, because it names the version that it
changes; what became of one without an answer is read back by whoever asked.
"""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

from activities.drivers.runtime.kubernetes.access import Access
from activities.drivers.runtime.kubernetes.answers import Absent, GoneBy, Stale, Unread
from activities.drivers.runtime.kubernetes.pace import Pace
from activities.drivers.runtime.kubernetes.rights import REVIEW, Lacking, Right, lacking
from activities.threads import to_its_end
from policies.model.errors import NotAllowed, Refused, Unavailable
from policies.model.value import sentence

CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0
"""More than the 15 s that the server keeps a call in its queue before it says that there are too many."""
WHOLE_SECONDS = 30.0
"""From the first byte that is sent to the last that comes."""
PATIENCE_SECONDS = 30.0
"""How long a refusal may be one of a server that has just started, or is asked too much."""
MOST_BYTES = 64 << 20
"""Of one answer; a page of pods is 3 MB."""
PAGE = 500
LONGEST_REST = 10.0
"""Seconds that the server can make us wait at a time."""
LISTS_BEGUN = 3
"""How often a list is begun again that the server cannot go on with."""

JSON, MERGE, APPLY = "application/json", "application/merge-patch+json", "application/apply-patch+yaml"


@dataclass(frozen=True)
class Call:
    """One call: what right it takes, where it goes and with what."""

    right: Right
    path: str
    method: str = "GET"
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    kind: str = JSON
    about: str = ""
    """The object, for sentences."""
    can_wait: bool = False
    """Whether it only clears away, so that others go first."""

    def __str__(self) -> str:
        return f"{self.right} {self.about}".rstrip()


@dataclass(frozen=True)
class Answer:
    """What came back: the status before anything else, for some answers are text."""

    status: int
    content: Any = None
    said: str = ""
    rest: float = 0.0


class Api:
    """The API server of one cluster, as one fleet's driver sees it."""

    def __init__(
        self,
        access: Access,
        namespace: str,
        names: Mapping[Right, Sequence[str]],
        *,
        pace: Pace | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Speak for the driver in this namespace.

        `names` are the objects that rights may be given for alone, `patience` seconds of refusals.
        """
        self.namespace = namespace
        self._access = access
        self._names = names
        self._pace = pace or Pace()
        self.patience = patience

    async def call(self, call: Call) -> Any:
        """Return the JSON that comes back.

        Raises:
            Absent: 404. Stale: 409. GoneBy: 410. Unread: it was done, and the answer is no JSON.
            Refused: 422, with what the cluster's policy says, or another answer that no repeat changes.
            NotAllowed: it is refused for longer than a server's start takes; the right is named.
            Unavailable: no answer, an error of the server's own, or too many calls for too long.
        """
        busy_until, refused_until = time.monotonic() + self.patience, 0.0
        again = 0.1
        while True:
            async with self._pace.turn(can_wait=call.can_wait):
                answer = await to_its_end(self._send, call)
            now = time.monotonic()
            if answer.status in (401, 403):  # counted from the first: a call may wait for long to be sent
                refused_until = refused_until or now + self.patience
                await self._be_patient(call, answer, min(again, refused_until - now))
            elif answer.status == 429 and busy_until - now > answer.rest:  # noqa: PLR2004 - as HTTP counts
                self._pace.rest(answer.rest)
            else:
                return _read(call, answer)
            again = min(again * 2, 2.0)

    async def pages(self, call: Call) -> AsyncIterator[Any]:
        """Yield each object of a list, page after page; what was yielded comes again where it begins again.

        Raises:
            As `call` does.
        """
        token = ""
        while True:
            more = {"continue": token} if token else {}
            asked = {**call.query, **more, "limit": str(PAGE)}
            page = await self.call(replace(call, query=asked))
            items = page.get("items")
            if not isinstance(items, list):
                raise Unavailable(f"{call} brought no list from the API server; it is asked again")
            for one in items:
                yield one
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def listed(self, call: Call, read: Callable[[Any], Any] = lambda one: one) -> list[Any]:
        """Return a whole list, each object as it was read; begin again where the server cannot go on.

        No more than a page is kept as the server wrote it: a pod is 10 kB there.

        Raises:
            As `call` does.
        """
        for _ in range(LISTS_BEGUN):
            try:
                return [read(one) async for one in self.pages(call)]
            except GoneBy:
                continue
        raise Unavailable(f"{call} did not come to its end: what it began with was gone each time")

    async def lacking(self) -> tuple[Lacking, ...]:
        """Return which rights the cluster does not give us, by its own word; as `call` raises."""
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": self.namespace},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        review = await self.call(Call(REVIEW, path, "POST", body=body))
        return lacking(review, self._names)

    async def _be_patient(self, call: Call, answer: Answer, pause: float) -> None:
        """Wait a moment: a server that starts refuses everybody. NotAllowed where it has gone on too long."""
        if answer.status == 401:  # noqa: PLR2004 - as the server counts
            self._access.forget()
        if pause > 0:
            await asyncio.sleep(pause)
            return
        if answer.status == 401:  # noqa: PLR2004 - as above
            raise NotAllowed(f"the API server does not know us: {self._access.place} is good no more")
        said = f"the cluster does not let us {call}: {answer.said}"
        if call.right == REVIEW:
            raise NotAllowed(said)
        missing = [one for one in await self.lacking() if one.right == call.right]
        where = "its role leaves that out" if missing else "its role has that, and something else refuses"
        raise NotAllowed(f"{said}; {where}: penstock cluster check tells what is missing")

    def _send(self, call: Call) -> Answer:
        """Send it once, from any thread, and wait for the whole answer. Unavailable where none comes."""
        client = self._access.client()
        query = f"?{urlencode(call.query)}" if call.query else ""
        headers = {"Accept": JSON, "Accept-Encoding": "gzip"}
        if call.body is not None:
            headers["Content-Type"] = call.kind
        try:
            request = client.param_serialize(
                call.method,
                call.path + query,
                header_params=headers,
                body=call.body,
                auth_settings=["BearerToken"],
            )
            begun = time.monotonic()
            raw = client.call_api(*request, _request_timeout=(CONNECT_SECONDS, READ_SECONDS))
            return _whole(call, raw.response, begun + WHOLE_SECONDS)
        except (HTTPError, ApiException, OSError, ValueError) as error:
            where = urlsplit(client.configuration.host).netloc
            raise Unavailable(f"the API server {where} did not answer {call}: {_why(error)}") from error


def _whole(call: Call, response: Any, until: float) -> Answer:
    """Return an answer with all of its body; what comes too slowly, or is too much, is none."""
    body = bytearray()
    try:
        for piece in response.stream(1 << 16, decode_content=True):
            body += piece
            _require_bounded(call, len(body), until)
    except BaseException:
        response.close()
        raise
    response.release_conn()
    return _parsed(response.status, response.headers, bytes(body))


def _require_bounded(call: Call, size: int, until: float) -> None:
    if size > MOST_BYTES:
        raise Unavailable(f"the API server's answer to {call} is longer than {MOST_BYTES} bytes")
    if time.monotonic() > until:
        raise Unavailable(f"the API server's answer to {call} took longer than {WHOLE_SECONDS:g} s")


def _parsed(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    content: Any = None
    try:
        content = _loaded(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        content = None
    said = str(content.get("message") or "") if content is not None else body[:500].decode(errors="replace")
    return Answer(status, content, sentence(said), _rest(headers.get("Retry-After")))


def _loaded(body: bytes) -> Any:
    """Return the JSON; to look for cycles in it while it is being made is two thirds of the time."""
    looked = gc.isenabled()
    gc.disable()
    try:
        return json.loads(body)
    finally:
        if looked:
            gc.enable()


def _rest(said: str | None) -> float:
    """Return for how many seconds the server wants no call: 1 where it does not say."""
    return min(float(said), LONGEST_REST) if said is not None and said.isascii() and said.isdigit() else 1.0


def _read(call: Call, answer: Answer) -> Any:
    """Return the content of an answer, or raise what its status means."""
    status, said = answer.status, answer.said
    if 200 <= status < 300:  # noqa: PLR2004 - what HTTP calls success
        if answer.content is None:
            raise Unread(f"the API server answered {call} with something that is no JSON")
        return answer.content
    about = f"{call}: {said or status}"
    match status:
        case 404:
            raise Absent(about)
        case 409:
            raise Stale(f"somebody else changed it meanwhile, {about}")
        case 410:
            raise GoneBy(about)
        case 422:
            raise Refused(f"the cluster's policy refuses {about}")
        case 429:
            raise Unavailable(f"the API server has too many calls for now, {about}")
        case _ if status >= 500:  # noqa: PLR2004 - what HTTP calls the server's own fault
            raise Unavailable(f"the API server failed ({status}), {about}")
    raise Refused(f"the API server refuses ({status}) {about}")


def _why(error: Exception) -> str:
    match error:
        case NewConnectionError():
            return "nothing listens there"
        case ConnectTimeoutError():
            return f"no connection within {CONNECT_SECONDS:g} s"
        case ReadTimeoutError():
            return f"silence for {READ_SECONDS:g} s"
        case _:
            return sentence(str(error), 200) or type(error).__name__
