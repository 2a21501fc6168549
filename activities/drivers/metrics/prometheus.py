"""Prometheus as the source of raw samples, asked so that every question ends in time.

prometheus-api-client has no safe defaults: no timeout, three retries with backoff, proxies
from the environment, and it drops the envelope that says whether an answer is whole. So the
session is ours: no retries (the judge asks again at the next tick), no environment, the
body read against a deadline and what was asked for, the envelope parsed once and checked
before the client sees it.
"""

import asyncio
import json
import math
import ssl
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from requests import RequestException, Response
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

from activities.drivers.metrics.access import Access
from activities.drivers.metrics.promql import offenders_query, over_time, raw_query
from activities.observation import BadQuery, MetricsUnavailable
from policies.judge.counts import Series
from policies.judge.tick import Offence
from policies.judge.whole import is_number

CONNECT_SECONDS = 1.0
READ_SECONDS = 3.0
TOTAL_SECONDS = 5.0
WORKERS = 4
MOST_BYTES = 32 * 1024 * 1024
"""Bytes of the longest answer, whatever was asked."""
MOST_VALUES = 1_500_000
"""JSON values of the largest answer. No other thread of the process runs while json parses them: 0.15 s.

10,000 gateways with two slots and 12 samples each take 1.1 million.
"""
MOST_REFUSING = 64 * 1024
"""Bytes of an answer that refuses a question."""
SERIES_OF_ONE = 512
"""Series that one selector may have of one instance: slots, outcomes, kinds of clients, buckets, users."""
FEWEST_SERIES = 1_000
"""Series of each question for raw samples: a gate may ask a few gateways for a series of each user."""
MOST_INSTANCES = 20_000
"""Instances that a question about all fleets may name."""
LABELS = 24
"""Labels of a series of raw samples."""
SCRAPED_SECONDS = 1.0
"""The shortest time between two scrapes."""
CLOCKS_APART = 5.0
"""Seconds that two clocks may be apart; a server shows its own to the second."""
EVALUATED_WITHIN = 2.0
"""Seconds before the moment in question at which a filter may be evaluated; a subquery's step is one."""

_CHUNK = 64 * 1024
_CLOCK = "vector(time())[1s:10ms]"
"""The server's own time, in the shape of raw samples."""
_PRESENT = {"latency_offset": "0s"}
"""Has VictoriaMetrics evaluate at the present, and not 30 seconds ago; other servers ignore it."""
_WRONG_QUESTION = "bad_data"
"""What Prometheus, Thanos and Mimir call a query that nobody can answer; all else may pass by itself.

Errors called `execution` are of a store that is away or of a limit; VictoriaMetrics has no names for errors.
"""


_SHAPELESS = (KeyError, TypeError, ValueError, OverflowError, RecursionError)
"""What reading an answer of an unknown shape raises: also numbers without end, and lists in lists."""


class _WrongQuestion(Exception):
    """The server answers that the query itself is wrong, and why."""


@dataclass(frozen=True)
class Asked:
    """How large the answer to one question may be: a larger one is refused before it is parsed."""

    series: int
    samples: int
    """Of each series."""
    labels: int
    """Of each series."""

    @property
    def most_bytes(self) -> int:
        """Return the bytes: 40 for a sample, 128 for a label."""
        return min(MOST_BYTES, 64 * 1024 + self.series * (40 * self.samples + 128 * (self.labels + 2)))

    @property
    def most_values(self) -> int:
        """Return the commas and opening brackets, of which JSON has one for each value at least.

        A sample takes 3, a label 1, a series 5 more, and the envelope fewer than 256.
        """
        return min(MOST_VALUES, 256 + self.series * (3 * self.samples + self.labels + 8))


def _samples(lookback: timedelta, step: float = SCRAPED_SECONDS) -> int:
    return int(lookback.total_seconds() / step) + 4


_ONE_CLOCK = Asked(series=1, samples=110, labels=1)
_OFFENDERS = Asked(series=MOST_INSTANCES, samples=2, labels=1)


class PrometheusSource:
    """Raw samples from one Prometheus (or anything that answers its query API)."""

    def __init__(self, url: str, access: Access | None = None) -> None:
        """Take the address of one server; `access` has what it asks for, where it asks for anything."""
        self._named = _named(url)
        session = (access or Access((url,))).session()
        self._undated = False
        """Whether the last answer did not say when it was given, as behind a proxy that leaves that out."""
        self._question = threading.local()
        """What the thread asks for: the session shows an answer to its hook alone."""
        session.hooks["response"].append(self._read_whole)
        self._client = PrometheusConnect(
            url=url.rstrip("/"),
            retry=Retry(0),
            session=session,
            method="POST",
            timeout=(CONNECT_SECONDS, READ_SECONDS),  # type: ignore[arg-type,unused-ignore]
        )
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="prometheus")

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        """Return the raw samples; see MetricsSource."""
        series = max(FEWEST_SERIES, SERIES_OF_ONE * len(instances))
        asked = Asked(series, _samples(lookback), LABELS)
        found = await self._within(raw_query(selector, instances, lookback), at, asked)
        if self._undated:
            _require_same_time(await self.clock(), f"Prometheus at {self._named}")
        return found

    async def offenders(self, offence: Offence, at: datetime) -> frozenset[str]:
        """Return who may offend; see OffenderSource."""
        found = await self._within(offenders_query(offence), at, _OFFENDERS)
        evaluated = [moment for one in found if not one.instance for _, moment in one.samples]
        if not any(abs(at.timestamp() - moment) <= EVALUATED_WITHIN for moment in evaluated):
            raise MetricsUnavailable(
                f"Prometheus at {self._named} does not evaluate queries at the present, which hides "
                "exceptions; have NTP set both clocks, and set -search.latencyOffset=0s where it is "
                "VictoriaMetrics"
            )
        return frozenset(one.instance for one in found if one.instance)

    async def summed(
        self,
        expression: str,
        at: datetime,
        lookback: timedelta,
        step: timedelta,
        most: int = MOST_INSTANCES,
    ) -> tuple[Series, ...]:
        """Return what an expression over many series was, step by step, up to `at`.

        Args:
            expression: What is summed.
            at: The last step.
            lookback: How long before that the first one is.
            step: Between two.
            most: How many series it may have.

        Raises:
            MetricsUnavailable: Nobody answers, or not as Prometheus does.
        """
        asked = Asked(most, _samples(lookback, step.total_seconds()), labels=2)
        return _finite(await self._within(over_time(expression, lookback, step), at, asked), self._named)

    async def clock(self) -> float:
        """Return what the server's clock shows, in seconds of the epoch.

        Raises:
            MetricsUnavailable: Nobody answers, or not as Prometheus does.
        """
        found = await self._within(_CLOCK, None, _ONE_CLOCK)
        if not found or not found[0].samples:
            raise MetricsUnavailable(
                f"Prometheus at {self._named} does not report its time; "
                "set -search.latencyOffset=0s where it is VictoriaMetrics"
            )
        return found[0].samples[-1][1]

    async def _within(self, query: str, at: datetime | None, asked: Asked) -> tuple[Series, ...]:
        moment = None if at is None else at.timestamp()
        asking = asyncio.get_running_loop().run_in_executor(self._threads, self._ask, query, moment, asked)
        try:
            return await asyncio.wait_for(asking, TOTAL_SECONDS)
        except TimeoutError:
            raise MetricsUnavailable(
                f"Prometheus at {self._named} did not answer within {TOTAL_SECONDS:g} s"
            ) from None

    def close(self) -> None:
        """Let go of connections and threads; questions under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _read_whole(self, response: Response, *_: object, **__: object) -> Response:
        self._undated = _shown_time(response) is None
        return _read_whole(response, self._question.asked)

    def _ask(self, query: str, at: float | None, asked: Asked) -> tuple[Series, ...]:
        self._question.asked = asked
        try:
            moment = {} if at is None else {"time": at}
            answer = self._client.custom_query(query, params={**_PRESENT, **moment})
        except _WrongQuestion as error:
            raise BadQuery(f"Prometheus refuses {query}: {error}; correct the gate policy") from error
        except PrometheusApiClientException as error:
            raise MetricsUnavailable(f"Prometheus at {self._named} answers {str(error)[:200]}") from error
        except (RequestException, HTTPError, OSError) as error:
            raise MetricsUnavailable(f"Prometheus at {self._named} cannot be read: {_why(error)}") from error
        except _SHAPELESS as error:
            raise MetricsUnavailable(f"Prometheus at {self._named} answers in an unknown shape") from error
        return _series(answer, asked, self._named)


def _named(url: str) -> str:
    """Return the address as sentences name it: whoever reads them gets no login for it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def _read_whole(response: Response, asked: Asked) -> Response:
    """Read the body against a deadline and what was asked for, then refuse what is not a whole answer.

    The client's timeout holds for each read only: a server that drips keeps it for ever.
    """
    sound = response.status_code == 200  # noqa: PLR2004 - HTTP's word for well
    body = _body(response, asked.most_bytes if sound else MOST_REFUSING, asked.most_values)
    response._content = body  # noqa: SLF001 - where requests itself keeps what it has read
    response._content_consumed = True  # noqa: SLF001 - or it would read again
    if sound:
        envelope = _checked_envelope(response)
        response.json = lambda **_: envelope  # type: ignore[method-assign]  # the client would parse it again
    elif response.is_redirect:
        raise MetricsUnavailable(
            f"{_named(response.url)} redirects to {_named(response.headers['Location'])}; "
            "set prometheus_url to the address that answers"
        )
    else:
        _require_sound_question(response)
    return response


def _body(response: Response, most: int, most_values: int) -> bytes:
    """Return the body, unless it is too slow, too long or has more values than most.

    What JSON costs to parse follows from its values, and each has a comma or an opening bracket before it.
    """
    deadline, body, values = monotonic() + READ_SECONDS, bytearray(), 0
    while chunk := response.raw.read1(_CHUNK, decode_content=True):
        body += chunk
        values += chunk.count(b",") + chunk.count(b"[") + chunk.count(b"{")
        if monotonic() > deadline or len(body) > most or values > most_values:
            response.close()
            raise MetricsUnavailable(
                f"{_named(response.url)} answers too slowly, or with more than was asked for"
            )
    return bytes(body)


def _require_sound_question(response: Response) -> None:
    """Raise _WrongQuestion where the refusal names the query as its cause."""
    try:
        refused = json.loads(response.content)
    except _SHAPELESS:
        return
    if isinstance(refused, dict) and refused.get("errorType") == _WRONG_QUESTION:
        raise _WrongQuestion(str(refused.get("error", ""))[:200])


def _checked_envelope(response: Response) -> Any:
    try:
        envelope = json.loads(response.content)
        kind = envelope["data"]["resultType"]
        sound = envelope["status"] == "success"
    except _SHAPELESS as error:
        raise MetricsUnavailable(
            f"{_named(response.url)} answers something that is not Prometheus"
        ) from error
    if not sound or kind != "matrix":
        raise MetricsUnavailable(f"Prometheus answers {kind!r} where raw samples were asked for")
    where = f"Prometheus at {_named(response.url).removesuffix('/api/v1/query')}"
    if envelope.get("warnings"):
        raise MetricsUnavailable(f"{where} warns of its answer: {envelope['warnings'][0]}")
    if envelope.get("isPartial"):  # VictoriaMetrics, where a storage node is away
        raise MetricsUnavailable(f"{where} answers with a part of its series (isPartial)")
    _require_same_clock(response, where)
    return envelope


def _require_same_clock(response: Response, where: str) -> None:
    """Refuse the answer of a server whose clock is off: its samples are of another time than they show."""
    shown = _shown_time(response)
    if shown is not None:
        _require_same_time(shown, where)


def _shown_time(response: Response) -> float | None:
    """Return when the answer was given, in seconds of the epoch; None where a proxy left that out."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).timestamp() + int(
            response.headers.get("Age", "0")
        )
    except (KeyError, TypeError, ValueError):
        return None


def _require_same_time(shown: float, where: str) -> None:
    apart = shown - time()
    if not -CLOCKS_APART - READ_SECONDS <= apart <= CLOCKS_APART:
        ahead = "ahead of" if apart > 0 else "behind"
        raise MetricsUnavailable(
            f"{where} has a clock that is {abs(apart):.0f} s {ahead} the one here; have NTP set both"
        )


def _series(answer: Any, asked: Asked, url: str) -> tuple[Series, ...]:
    """Turn the matrix into series; what is no number is NaN, for the judge to name.

    Raises:
        MetricsUnavailable: It is of another shape, or has more series or samples than were asked for.
    """
    try:
        if len(answer) > asked.series or any(len(one["values"]) > asked.samples for one in answer):
            raise MetricsUnavailable(
                f"Prometheus at {url} answers with more than was asked for, {asked.series} series of "
                f"{asked.samples} samples; name fewer series in the gate, and scrape once a second at most"
            )
        return tuple(
            Series(
                labels=dict(one["metric"]),
                samples=tuple((float(at), _number(value)) for at, value in one["values"]),
            )
            for one in answer
        )
    except _SHAPELESS as error:
        raise MetricsUnavailable(f"Prometheus at {url} answers in an unknown shape") from error


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)  # so VictoriaMetrics writes where a series ended


def _finite(found: tuple[Series, ...], url: str) -> tuple[Series, ...]:
    """Return the sums of an expression if each is a number; MetricsUnavailable otherwise."""
    if not all(map(is_number, found)):
        raise MetricsUnavailable(f"Prometheus at {url} answers with a sum that is not a finite number")
    return found


def _why(error: Exception) -> str:
    """Return in one line why a request failed: what TLS refused, else the kind of the error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        reason = getattr(cause, "reason", None)
        nested = [one for one in (*cause.args, reason) if isinstance(one, BaseException)]
        cause = next(iter(nested), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{cause.verify_message}; name who vouches for it in prometheus_authority"
    if isinstance(cause, ssl.SSLError):
        return f"TLS fails: {cause.reason}"
    return type(error).__name__
