"""Prometheus as the source of raw samples, asked so that every question ends in time.

prometheus-api-client has no safe defaults: no timeout, three retries with backoff, proxies
from the environment, and it drops the envelope that says whether an answer is whole. So the
session is ours: no retries (the judge asks again at the next tick), no environment, the
body read against a deadline and a size, the envelope checked before the client sees it.
"""

import asyncio
import json
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from requests import RequestException, Response, Session
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

from activities.drivers.metrics.promql import offenders_query, over_time, raw_query
from activities.observation import BadQuery, MetricsUnavailable
from policies.judge.counts import Series
from policies.judge.tick import Offence

CONNECT_SECONDS = 1.0
READ_SECONDS = 3.0
TOTAL_SECONDS = 5.0
WORKERS = 4
MOST_BYTES = 32 * 1024 * 1024
LARGEST_VALUE = 2.0**53
"""Up to here a float counts one by one (IEEE 754-2019, 3.6); no counter or gauge of a gateway is larger."""

_CHUNK = 64 * 1024
_log = logging.getLogger(__name__)
_BAD_QUERY = ("HTTP Status Code 400", "HTTP Status Code 422")


class PrometheusSource:
    """Raw samples from one Prometheus (or anything that answers its query API)."""

    def __init__(self, url: str, *, headers: dict[str, str] | None = None) -> None:
        self._named = _named(url)
        session = Session()
        session.trust_env = False
        session.hooks["response"].append(_read_whole)
        self._client = PrometheusConnect(
            url=url.rstrip("/"),
            headers=headers,
            retry=Retry(0),
            session=session,
            timeout=(CONNECT_SECONDS, READ_SECONDS),  # type: ignore[arg-type,unused-ignore]
        )
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="prometheus")

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        """Return the raw samples; see MetricsSource."""
        return await self._within(raw_query(selector, instances, lookback), at)

    async def offenders(self, offence: Offence, at: datetime) -> frozenset[str]:
        """Return who may offend; see OffenderSource."""
        found = await self._within(offenders_query(offence), at)
        return frozenset(one.instance for one in found)

    async def summed(
        self, expression: str, at: datetime, lookback: timedelta, step: timedelta
    ) -> tuple[Series, ...]:
        """Return what an expression over many series was, step by step, up to `at`.

        Raises:
            MetricsUnavailable: Nobody answers, or not as Prometheus does.
        """
        return await self._within(over_time(expression, lookback, step), at)

    async def _within(self, query: str, at: datetime) -> tuple[Series, ...]:
        asked = asyncio.get_running_loop().run_in_executor(self._threads, self._ask, query, at.timestamp())
        try:
            return await asyncio.wait_for(asked, TOTAL_SECONDS)
        except TimeoutError:
            raise MetricsUnavailable(
                f"Prometheus at {self._named} did not answer within {TOTAL_SECONDS:g} s"
            ) from None

    def close(self) -> None:
        """Let go of connections and threads; questions under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _ask(self, query: str, at: float) -> tuple[Series, ...]:
        try:
            answer = self._client.custom_query(query, params={"time": at})
        except PrometheusApiClientException as error:
            if str(error).startswith(_BAD_QUERY):
                raise BadQuery(f"Prometheus refuses {query}: {error}; correct the gate policy") from error
            raise MetricsUnavailable(f"Prometheus at {self._named} answers {str(error)[:200]}") from error
        except (RequestException, HTTPError) as error:
            raise MetricsUnavailable(
                f"Prometheus at {self._named} cannot be read: {type(error).__name__}"
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise MetricsUnavailable(f"Prometheus at {self._named} answers in an unknown shape") from error
        return _series(answer, self._named)


def _named(url: str) -> str:
    """Return the address as sentences name it: whoever reads them gets no login for it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def _read_whole(response: Response, *_: object, **__: object) -> Response:
    """Read the body against a deadline and a size, then refuse what is not a whole answer.

    The client's timeout holds for each read only: a server that drips keeps it for ever.
    """
    deadline, body = monotonic() + READ_SECONDS, bytearray()
    while chunk := response.raw.read1(_CHUNK, decode_content=True):
        body += chunk
        if monotonic() > deadline or len(body) > MOST_BYTES:
            response.close()
            raise MetricsUnavailable(f"the answer of {_named(response.url)} takes too long or too much")
    response._content = bytes(body)  # noqa: SLF001 - where requests itself keeps what it has read
    response._content_consumed = True  # noqa: SLF001 - or it would read again
    if response.status_code == 200:  # noqa: PLR2004 - HTTP's word for well
        _check_envelope(response)
    return response


def _check_envelope(response: Response) -> None:
    try:
        envelope = json.loads(response.content)
        kind = envelope["data"]["resultType"]
        sound = envelope["status"] == "success"
    except (KeyError, TypeError, ValueError) as error:
        raise MetricsUnavailable(
            f"{_named(response.url)} answers something that is not Prometheus"
        ) from error
    if not sound or kind != "matrix":
        raise MetricsUnavailable(f"Prometheus answers {kind!r} where raw samples were asked for")
    if envelope.get("warnings"):
        raise MetricsUnavailable(f"Prometheus warns that its answer is partial: {envelope['warnings'][0]}")


def _series(answer: Any, url: str) -> tuple[Series, ...]:
    """Turn the matrix into series, without those of instances that show what no counter or gauge can be.

    One instance's nonsense is that it has no values, and takes nobody else's away.
    """
    try:
        found = tuple(
            Series(
                labels=dict(one["metric"]),
                samples=tuple((float(at), float(value)) for at, value in one["values"]),
            )
            for one in answer
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MetricsUnavailable(f"Prometheus at {url} answers in an unknown shape") from error
    senseless = {one.instance: one for one in found if not _makes_sense(one)}
    for instance, one in senseless.items():
        name = one.labels.get("__name__", "a series")
        if not instance:
            raise MetricsUnavailable(f"{name} of no instance is not a finite number")
        _log.warning("%s of %s makes no sense; nothing of %s is read", name, instance, instance)
    return tuple(one for one in found if one.instance not in senseless)


def _makes_sense(one: Series) -> bool:
    try:
        bound = float(one.labels.get("le", "+Inf"))
    except ValueError:
        return False
    return not math.isnan(bound) and all(abs(value) <= LARGEST_VALUE for _, value in one.samples)
