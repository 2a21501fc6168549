"""Prometheus as it fails: killed, frozen, restarted, and servers that are no Prometheus at all."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import pytest

from activities.drivers.metrics.prometheus import (
    LABELS,
    MOST_VALUES,
    SERIES_OF_ONE,
    Asked,
    PrometheusSource,
)
from activities.drivers.metrics.promql import matcher, raw_query
from activities.observation import BadQuery, MetricsUnavailable
from policies.judge.counts import Series
from policies.judge.tick import Offence
from policies.judge.whole import whole
from policies.model.gates import GatePolicy
from tests.fakes.metrics import DIGEST, exporting
from tests.fakes.prometheus import PROGRAM, prometheus_over
from tests.patience import until

IN_TIME = 5.5
SLOW = 1.0
"""Seconds from which on an answer would hold the loop up; a busy machine does so for moments, too."""
TENTH = timedelta(seconds=10)
needs_prometheus = pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed here")


@asynccontextmanager
async def source_of(url: str) -> AsyncIterator[PrometheusSource]:
    source = PrometheusSource(url)
    try:
        yield source
    finally:
        source.close()


async def ask(source: PrometheusSource, selector: str = "up{$cohort}", who: str = "a") -> tuple[Series, ...]:
    """Ask within the promised time, while the event loop stays free."""
    began, lags = time.monotonic(), [0.0]

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            lags.append(time.monotonic() - before - 0.01)

    ticking = asyncio.create_task(tick())
    try:
        return await source.raw(selector, [who], datetime.now(UTC), TENTH)
    finally:
        ticking.cancel()
        took = time.monotonic() - began
        assert took <= IN_TIME
        lags.sort()
        if took > SLOW:
            # The machine runs other tests, too; what holds the loop up holds it for most of the time.
            assert lags[len(lags) // 2] <= took / 4
            assert lags[-1] <= took / 2


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve whatever `answer` writes."""

    class Hostile(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.path += "?" + self.rfile.read(int(self.headers["Content-Length"])).decode()
            answer(self)

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    running.daemon_threads = True
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()


def page(body: bytes, status: int = 200) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def envelope(result: Any, kind: str = "matrix", **more: Any) -> bytes:
    data = {"resultType": kind, "result": result}
    return json.dumps({"status": "success", "data": data, **more}).encode()


def matrix(*values: str) -> list[dict[str, Any]]:
    samples = [[1000.0 + n, value] for n, value in enumerate(values)]
    return [{"metric": {"__name__": "up", "instance": "a"}, "values": samples}]


def dripping(headers: bool) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        body = envelope(matrix("1"))
        try:
            if headers:
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 60:
                    request.wfile.write(bytes([byte]))
                    time.sleep(0.2)
                return
            request.send_response(200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            for byte in body:
                request.wfile.write(bytes([byte]))
                time.sleep(0.2)
        except OSError:
            return

    return answer


def silent(request: BaseHTTPRequestHandler) -> None:
    time.sleep(8)


@pytest.mark.parametrize(
    "answer",
    [
        page(b"<html>Please log in</html>"),
        page(b"", 503),
        page(b"gone", 404),
        page(b"[1, 2]"),
        page(b'{"status": "success"}'),
        page(envelope([1000.0, "1"], "scalar")),
        page(envelope([1000.0, "1"], "string")),
        page(envelope([{"metric": {}, "value": [1000.0, "1"]}], "vector")),
        page(envelope([{"metric": {}}])),
        page(envelope(matrix("1"), warnings=["partial response: store 3 timed out"])),
        page(envelope(matrix("1"), isPartial=True)),
        page(envelope(matrix("1", "many"))),
        page(b'{"status": "error", "data": {"resultType": "matrix", "result": []}}'),
        page(envelope(matrix("1"))[:-20]),
        page(b" " * (33 * 1024 * 1024)),
        dripping(headers=False),
        dripping(headers=True),
        silent,
    ],
    ids=[
        "html",
        "503",
        "404",
        "list",
        "no-data",
        "scalar",
        "string",
        "vector",
        "no-values",
        "warnings",
        "isPartial",
        "word",
        "status-error",
        "cut-off",
        "huge",
        "dripping-body",
        "dripping-head",
        "silent",
    ],
)
async def test_bar_9_what_is_not_a_whole_answer_is_no_answer_and_ends_in_time(
    answer: Callable[[BaseHTTPRequestHandler], None],
) -> None:
    with server(answer) as url:
        async with source_of(url) as source:
            with pytest.raises(MetricsUnavailable):
                await ask(source)


async def test_the_part_that_a_victoriametrics_cluster_answers_is_refused_by_name() -> None:
    """Case 01: a storage node is away, and 200 comes with `isPartial` and no warning."""
    with server(page(envelope(matrix("1"), isPartial=True, stats={"seriesFetched": "4"}))) as url:
        async with source_of(url) as source:
            with pytest.raises(MetricsUnavailable, match=rf"{url} answers with a part of its series"):
                await ask(source)


@pytest.mark.parametrize("more", [{"isPartial": False}, {"warnings": None}, {"infos": ["not a counter"]}])
async def test_an_answer_that_is_called_whole_is_read(more: dict[str, Any]) -> None:
    with server(page(envelope(matrix("1"), **more))) as url:
        async with source_of(url) as source:
            assert await ask(source)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e300", None])
async def test_what_is_no_number_reaches_the_judge_who_names_it(value: str | None) -> None:
    """Case 05: what the driver leaves out is absent, and an absent counter of bad events counts none."""
    of_another = {"metric": {"__name__": "up", "instance": "b"}, "values": [[1000.0, "1"]]}
    spoiled = matrix("1", "2")
    spoiled[0]["values"][1][1] = value
    with server(page(envelope([*spoiled, of_another]))) as url:
        async with source_of(url) as source:
            found = whole({"up": await ask(source)}, "up")
    assert found.unsound == {"up": {"a": "up of a is not a finite number"}}
    assert [one.instance for one in found.series["up"]] == ["b"]


async def test_a_bucket_without_a_bound_is_no_number_either() -> None:
    nonsense = {"metric": {"__name__": "up", "instance": "a", "le": "x"}, "values": [[1000.0, "1"]]}
    with server(page(envelope([nonsense]))) as url:
        async with source_of(url) as source:
            assert whole({"up": await ask(source)}, "up").series == {"up": ()}


async def test_a_sum_that_is_no_number_is_no_answer() -> None:
    with server(page(envelope(matrix("NaN")))) as url:
        async with source_of(url) as source:
            with pytest.raises(MetricsUnavailable, match="not a finite number"):
                await source.summed("sum(up)", datetime.now(UTC), TENTH, TENTH)


@pytest.mark.parametrize(
    ("off", "said"), [(312, "31[12] s ahead of"), (-312, "31[23] s behind"), (1, ""), (-2, "")]
)
async def test_a_server_whose_clock_is_off_is_unavailable_by_name(off: int, said: str) -> None:
    """R8: its samples are of another time than they show."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        body = envelope(matrix("1"))
        request.send_response_only(200)
        request.send_header("Date", formatdate(time.time() + off, usegmt=True))
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    with server(answer) as url:
        async with source_of(url) as source:
            if not said:
                assert await ask(source)
                return
            with pytest.raises(MetricsUnavailable, match=f"{url} has a clock that is {said} the one here"):
                await ask(source)


@pytest.mark.parametrize(("off", "said"), [(312, "31[0-3] s ahead of"), (-312, "31[0-3] s behind"), (0, "")])
async def test_a_server_behind_a_proxy_without_dates_is_asked_for_its_time(off: int, said: str) -> None:
    """R8: a worker whose clock is behind would read old samples as fresh."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked = unquote_plus(request.path)
        body = envelope(matrix(str(time.time() + off) if "time()" in asked else "1"))
        request.send_response_only(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    with server(answer) as url:
        async with source_of(url) as source:
            if not said:
                assert await ask(source)
                return
            with pytest.raises(MetricsUnavailable, match=f"{url} has a clock that is {said} the one here"):
                await ask(source)


async def test_a_whole_answer_is_read() -> None:
    with server(page(envelope(matrix("1", "2")))) as url:
        async with source_of(url) as source:
            (found,) = await ask(source)
    assert found.samples == ((1000.0, 1.0), (1001.0, 2.0))


NO_END = b"1" + b"0" * 400


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 50_000,
        b'{"status":"success","data":{"resultType":"matrix","result":'
        + b"[" * 30_000
        + b"]" * 30_000
        + b"}}",
        envelope(matrix("1")).replace(b"1000.0", NO_END),
    ],
    ids=["deep", "deep inside", "a time without end"],
)
async def test_an_answer_of_any_shape_is_unavailable_in_our_words(body: bytes) -> None:
    """R8, a fresh reader's F14: exceptions of the libraries ended the watch."""
    with server(page(body)) as url:
        async with source_of(url) as source:
            with pytest.raises(MetricsUnavailable, match=f"{url}.* answers"):
                await ask(source)


@pytest.mark.parametrize(
    "answer",
    [page(b"no", status=401), page(b"not json"), page(envelope([{}]))],
    ids=["refused", "not-prometheus", "shapeless"],
)
async def test_no_sentence_shows_the_login_of_prometheus(
    answer: Callable[[BaseHTTPRequestHandler], None],
) -> None:
    with server(answer) as url:
        async with source_of(url.replace("//", "//reader:a-secret-word@")) as source:
            with pytest.raises(MetricsUnavailable) as refused:
                await ask(source)
    assert "secret" not in str(refused.value)
    assert url in str(refused.value)


def error(kind: str, text: str) -> bytes:
    return json.dumps({"status": "error", "errorType": kind, "error": text}).encode()


async def test_a_query_prometheus_cannot_parse_is_the_policys_fault() -> None:
    wrong = error("bad_data", 'invalid parameter "query": 1:4: parse error: unexpected "{"')
    for status in (400, 422):
        with server(page(wrong, status)) as url:
            async with source_of(url) as source:
                with pytest.raises(BadQuery, match=r"parse error: unexpected.*; correct the gate policy"):
                    await ask(source)


@pytest.mark.parametrize(
    "answer",
    [
        page(error("execution", "expanding series: rpc error: No StoreAPIs matched for this query"), 422),
        page(error("execution", "the query hit the max number of series limit"), 422),
        page(error("422", "error when searching: cannot fetch data from vmstorage"), 422),
        page(b"<html>The plain HTTP request was sent to HTTPS port</html>", 400),
        page(b"[" * 50_000, 400),
        page(b'"bad_data"', 400),
    ],
    ids=["a store is away", "a limit", "VictoriaMetrics", "a proxy", "deep", "a text"],
)
async def test_a_server_that_cannot_answer_now_is_unavailable_and_no_fault_of_the_policy(
    answer: Callable[[BaseHTTPRequestHandler], None],
) -> None:
    """R8, a fresh reader's F7: every 400 and 422 was a wrong question."""
    with server(answer) as url:
        async with source_of(url) as source:
            with pytest.raises(MetricsUnavailable, match=url):
                await ask(source)


async def test_one_question_is_one_request() -> None:
    asked: list[str] = []

    def refuse(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        page(b"busy", 503)(request)

    with server(refuse) as url:
        async with source_of(url) as source:
            with pytest.raises(MetricsUnavailable):
                await ask(source)
    assert len(asked) == 1


CRASHED = Offence(selector="vpngw_crashes_total{$cohort}", when="shown", lookback=TENTH)


def victoriametrics(offset: float | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer as its `queryRangeHandler`: with a step under a minute only points before now - offset are left.

    Args:
        offset: Seconds, whatever the request has; None: as the request has it, 30 without.
    """

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked, now = parse_qs(urlsplit(request.path).query), time.time()
        wanted = float(asked.get("latency_offset", ["30s"])[0].rstrip("s"))
        at, query = float(asked.get("time", [str(now)])[0]), asked["query"][0]
        until = now - (wanted if offset is None else offset)
        found: list[tuple[dict[str, str], float, str]] = []
        if "vector(time())" in query:
            found.append(({}, at - 0.999, str(at - 0.999)))
        if "crashes" in query:
            found.append(({"instance": "gw-9:9500"}, at - 0.999, "1"))
        series = [
            {"metric": name, "values": [[moment, value]]} for name, moment, value in found if moment <= until
        ]
        page(envelope(series, isPartial=False))(request)

    return answer


async def test_an_exception_beyond_the_sample_is_found_in_victoriametrics_with_its_usual_offset() -> None:
    with server(victoriametrics()) as url:
        async with source_of(url) as source:
            assert await source.offenders(CRASHED, datetime.now(UTC)) == {"gw-9:9500"}
            assert abs(await source.clock() - time.time()) < IN_TIME


async def test_a_server_that_evaluates_in_the_past_whatever_it_is_asked_is_unavailable_by_name() -> None:
    """Its answer is a success without series, as that of a fleet without crashes."""
    with server(victoriametrics(offset=30)) as url:
        async with source_of(url) as source:
            with pytest.raises(MetricsUnavailable, match=f"{url} does not evaluate queries at the present"):
                await source.offenders(CRASHED, datetime.now(UTC))
            with pytest.raises(MetricsUnavailable, match=r"report its time; set -search\.latencyOffset=0s"):
                await source.clock()


@pytest.mark.parametrize("late", [30.0, -30.0])
async def test_a_filter_that_was_evaluated_at_another_moment_than_asked_for_is_no_answer(late: float) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        evaluated = time.time() - late
        page(envelope([{"metric": {}, "values": [[evaluated, str(evaluated)]]}]))(request)

    with server(answer) as url:
        async with source_of(url) as source:
            with pytest.raises(MetricsUnavailable, match="does not evaluate queries at the present"):
                await source.offenders(CRASHED, datetime.now(UTC))


async def test_no_exception_is_reported_once_the_server_proves_that_it_evaluated_the_filter() -> None:
    started = Offence(selector="started{$cohort}", when="changes", lookback=TENTH)
    with server(victoriametrics()) as url:
        async with source_of(url) as source:
            assert await source.offenders(started, datetime.now(UTC)) == frozenset()


LONGEST_LINE = 8 * 1024
"""Bytes of a request line that nginx takes unless it is set otherwise."""
MANY = [
    f"vpn-{number:03}.fra1.example.com:9500" for number in range(GatePolicy.model_fields["sample"].default)
]


async def test_a_proxy_with_the_usual_limit_passes_the_query_for_a_whole_sample() -> None:
    asked: list[str] = []

    def proxy(request: BaseHTTPRequestHandler) -> None:
        asked.extend(parse_qs(urlsplit(request.path).query)["query"])
        is_long = len(request.requestline) > LONGEST_LINE
        page(b"414" if is_long else envelope(matrix("1")), 414 if is_long else 200)(request)

    with server(proxy) as url:
        async with source_of(url) as source:
            assert await source.raw("up{$cohort}", MANY, datetime.now(UTC), TENTH)
    assert asked == [raw_query("up{$cohort}", MANY, TENTH)]


@pytest.mark.parametrize("status", [403, 405, 501])
async def test_a_proxy_that_refuses_post_gets_the_query_by_get(status: int) -> None:
    def proxy(request: BaseHTTPRequestHandler) -> None:
        is_post = request.command == "POST"
        page(b"GET only" if is_post else envelope(matrix("1")), status if is_post else 200)(request)

    with server(proxy) as url:
        async with source_of(url) as source:
            assert await ask(source)


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_a_redirect_is_named_with_the_setting_and_no_fault_of_the_policy(status: int) -> None:
    """A redirected POST becomes a GET without its query, which Prometheus calls a wrong query."""

    def moved(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Location", "https://me:word@prometheus.example/api/v1/query?secret=1")
        request.send_header("Content-Length", "0")
        request.end_headers()

    with server(moved) as url:
        async with source_of(url) as source:
            with pytest.raises(MetricsUnavailable, match="set prometheus_url to the address") as refused:
                await ask(source)
    assert "redirects to https://prometheus.example/api/v1/query;" in str(refused.value)


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with server(page(envelope(matrix("1")))) as url:
        async with source_of(url) as source:
            assert await ask(source)


@pytest.mark.sweep
async def test_many_questions_to_a_silent_server_all_end_in_time() -> None:
    with server(silent) as url:
        async with source_of(url) as source:
            answers = await asyncio.gather(*(ask(source) for _ in range(12)), return_exceptions=True)
    assert all(isinstance(answer, MetricsUnavailable) for answer in answers), answers


def test_an_instance_name_is_never_read_as_a_query() -> None:
    assert matcher(["10.0.0.1:9500"]) == 'instance=~"10\\\\.0\\\\.0\\\\.1:9500"'
    hostile = matcher(['x"} or vector(1) #', "new\nline", "a|b"])
    assert hostile.count('"') - hostile.count('\\"') == 2
    assert "\n" not in hostile
    assert "a\\\\|b" in hostile
    assert raw_query("up{$cohort}", ["a"], timedelta(seconds=1.5)) == 'up{instance=~"a"}[1500ms]'


@pytest.mark.sweep
@needs_prometheus
async def test_bar_9_a_real_prometheus_killed_frozen_and_restarted() -> None:
    with exporting(DIGEST) as gateways, prometheus_over(list(gateways)) as prometheus:
        (name,) = gateways
        hostile = 'x"} or vector(1) or up{instance="'
        await prometheus.start()
        async with source_of(prometheus.url) as source:
            found: tuple[Series, ...] = ()

            async def is_scraped() -> bool:
                nonlocal found
                found = await ask(source, "vpngw_build_info{$cohort}", name)
                return bool(found)

            await until(is_scraped)
            before = found[0]
            assert before.labels["digest"] == DIGEST
            assert await ask(source, "up{$cohort}", hostile) == ()
            assert await ask(source, "no_such_series{$cohort}", name) == ()
            with pytest.raises(BadQuery):
                await ask(source, "up{{$cohort}", name)
            prometheus.freeze()
            with pytest.raises(MetricsUnavailable):
                await ask(source, "up{$cohort}", name)
            prometheus.thaw()
            prometheus.kill()
            with pytest.raises(MetricsUnavailable):
                await ask(source, "up{$cohort}", name)
            await prometheus.start()
            await until(is_scraped)
            assert found[0].samples[-1][0] >= before.samples[-1][0]


# --- servers that answer more than was asked -------------------------------------------------


def filled(unit: bytes, size: int) -> bytes:
    """Return an answer of about this size that is full of such results."""
    return b'{"status":"success","data":{"resultType":"matrix","result":[%s]}}' % b",".join(
        [unit] * (size // len(unit))
    )


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what grows by the length of each text that json parses for the driver."""
    lengths: list[int] = []
    loads = json.loads

    def noted(text: bytes, **more: Any) -> Any:
        lengths.append(len(text))
        return loads(text, **more)

    monkeypatch.setattr(json, "loads", noted)
    return lengths


COSTLY = {
    "objects": b"{}",
    "lists": b"[]",
    "numbers": b"1",
    "series": b'{"metric":{"a":"b"},"values":[[1,"1"]]}',
    "nested": b"[" * 400 + b"]" * 400,
}


@pytest.mark.parametrize("kind", COSTLY)
async def test_an_answer_with_more_values_than_were_asked_for_is_never_parsed(
    kind: str, parsed: list[int]
) -> None:
    with server(page(filled(COSTLY[kind], 8 * 1024 * 1024))) as url:
        async with source_of(url) as source:
            with pytest.raises(MetricsUnavailable, match="more than was asked for"):
                await ask(source)
            with pytest.raises(MetricsUnavailable, match="more than was asked for"):
                await source.summed("sum(up)", datetime.now(UTC), TENTH, TENTH, 1)
    assert parsed == []


async def test_a_refusal_is_read_up_to_its_own_bound(parsed: list[int]) -> None:
    refused = b'{"errorType": "bad_data", "error": "%s"}' % (b"a" * 100_000)
    with server(page(refused, 400)) as url:
        async with source_of(url) as source:
            with pytest.raises(MetricsUnavailable, match="more than was asked for"):
                await ask(source)
    assert parsed == []


async def test_a_whole_answer_is_parsed_once(parsed: list[int]) -> None:
    body = envelope(matrix("1", "2"))
    with server(page(body)) as url:
        async with source_of(url) as source:
            (found,) = await ask(source)
    assert found.samples == ((1000.0, 1.0), (1001.0, 2.0))
    assert parsed == [len(body)]


async def test_more_series_or_samples_than_were_asked_for_are_no_answer() -> None:
    at = datetime.now(UTC)
    for result in ([*matrix("1"), *matrix("1")], matrix("1", "1", "1", "1", "1", "1")):
        with server(page(envelope(result))) as url:
            async with source_of(url) as source:
                with pytest.raises(MetricsUnavailable, match="1 series of"):
                    await source.summed("sum(up)", at, TENTH, TENTH, 1)


async def test_a_gateway_may_have_a_series_of_each_of_its_users() -> None:
    """Of 40 gateways with 40 buckets or users each, no gate could read what its policy asks for."""
    at = datetime.now(UTC)
    for gateways, users in ((4, 400), (40, 40)):
        result = [
            {"metric": {"instance": f"gw-{number}", "user": str(user)}, "values": [[at.timestamp() - 1, "1"]]}
            for number in range(gateways)
            for user in range(users)
        ]
        with server(page(envelope(result))) as url:
            async with source_of(url) as source:
                names = [f"gw-{number}" for number in range(gateways)]
                found = await source.raw("sessions{$cohort}", names, at, timedelta(seconds=45))
        assert len(found) == gateways * users


def test_the_largest_fleet_fits_into_the_largest_answer() -> None:
    """10,000 gateways with two slots, labels as our exporter has them, and a minute of samples each 5 s."""
    asked = Asked(series=SERIES_OF_ONE * 10_000, samples=64, labels=LABELS)
    labels = {"__name__": "vpngw_first_attempts_total", "instance": "gw-10000.edge.example:9500", "slot": "a"}
    labels |= {"job": "vpngw", "fleet": "edge", "group": "south", "digest": DIGEST, "outcome": "success"}
    labels |= {"version": "1.3.0", "client": "openconnect", "family": "ipv6"}
    one = {"metric": labels, "values": [[1764580000.123 + n * 5, "123456"] for n in range(12)]}
    text = json.dumps(one, separators=(",", ":")).encode()
    values = text.count(b",") + text.count(b"[") + text.count(b"{")
    assert 20_000 * len(text) <= asked.most_bytes
    assert 20_000 * values <= asked.most_values


def test_the_bounds_of_a_question_grow_with_what_it_asks_for() -> None:
    few = Asked(series=1, samples=44, labels=2)
    assert few.most_bytes < 100_000
    assert few.most_values < 500
    fleet = Asked(series=100, samples=44, labels=2)
    assert few.most_bytes < fleet.most_bytes < 1024 * 1024
    assert Asked(series=10**6, samples=100, labels=LABELS).most_values == MOST_VALUES
