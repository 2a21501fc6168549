"""What other sites and strangers can do to the page: nothing, by every route that it has."""

import asyncio
import dataclasses
import hashlib
import hmac
import logging
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import async_playwright
from sqlalchemy import Connection, Engine

from orchestrator.api.limits import PER_MINUTE, Kind, Limits, streams
from orchestrator.api.peer import PeerProtocol
from orchestrator.api.routes.reports import POLICY as REPORT
from orchestrator.page.live import Lookout
from orchestrator.page.routes import fleets
from orchestrator.page.session import FORM as FORM_WORD
from orchestrator.page.site import HEADERS, KEPT, pages
from orchestrator.processes import composition
from orchestrator.service import page_logins
from orchestrator.service.service import Service
from orchestrator.settings import Settings
from orchestrator.store import page_sessions
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from policies.model.people import Role
from tests.patience import PATIENCE
from tests.service.page import SHELL, Patient, link_of, log_in, own, page_of, word_of
from tests.service.test_api import token, under_way

FILLED = {
    "fleet": "edge",
    "gateway": "edge-1",
    "verb": "hold",
    "change": "edge-1",
    "plan": "0" * 64,
    "release": "0" * 64,
    "link": "x" * 43,
    "form": "html",
    "number": "1",
}


def routes_of(service: Service) -> Iterator[tuple[str, str]]:
    """Every method and path that the page answers, filled in."""
    for route in single(pages(service, Limits(), streams()).routes):
        for method in sorted(getattr(route, "methods", None) or {"GET"}):
            yield method, re.sub(r"\{(\w+)\}", lambda found: FILLED[found[1]], route.path)


def single(routes: Iterable[Any]) -> Iterator[Any]:
    """Every route of these, those of routers too."""
    for route in routes:
        router = getattr(route, "original_router", None)
        yield from [route] if router is None else single(router.routes)


def posts_of(service: Service) -> list[str]:
    return [path for method, path in routes_of(service) if method not in {"GET", "HEAD"}]


@pytest.fixture
async def place(service: Service) -> AsyncIterator[str]:
    async with page_of(service, Patient()) as found:
        yield found


@pytest.fixture
async def browser(place: str, service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody logged in as root."""
    async with httpx.AsyncClient(base_url=place) as client:
        await log_in(client, await link_of(service))
        yield client


@pytest.fixture
async def stranger(place: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=place) as client:
        yield client


FORM = {"reason": "because", "key": "k", "to": "1.3.0", "strategy": "canary"}


def test_the_page_has_forms_and_each_is_tried_here(service: Service) -> None:
    assert "/fleets/edge/orders/hold" in posts_of(service)
    assert {method for method, _ in routes_of(service)} <= {"GET", "POST", "HEAD"}


@pytest.mark.sweep
async def test_no_form_of_another_site_does_anything(
    browser: httpx.AsyncClient, place: str, service: Service, ledger: Ledger
) -> None:
    under_way(ledger)
    word, port = await word_of(browser), httpx.URL(place).port
    before = ledger.audit_entries()[-1].seq
    same = place
    elsewhere = [
        {},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "https://evil.example"},
        {"Origin": f"https://127.0.0.1:{port}"},  # another scheme
        {"Origin": f"http://127.0.0.1:{(port or 0) + 1}"},  # another port of the same host
        {"Origin": "http://127.0.0.1"},
        {"Origin": f"http://localhost:{port}"},
        {"Origin": f"{place}.evil.example"},
        {"Origin": f"http://evil.example@127.0.0.1:{port}"},
        {"Origin": same, "Sec-Fetch-Site": "cross-site"},
        {"Origin": same, "Sec-Fetch-Site": "same-site"},
        {"Origin": same, "Sec-Fetch-Site": "none"},
        {"Origin": same, "Sec-Fetch-Site": "SAME-ORIGIN"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Referer": f"{place}/fleets/edge"},
    ]
    for path in posts_of(service):
        for headers in elsewhere:
            answer = await browser.post(path, data=FORM | {"csrf": word}, headers=headers)
            assert answer.status_code == 403, (path, headers)
            assert "nothing was done" in answer.text, (path, headers)
    assert ledger.audit_entries()[-1].seq == before
    assert (await browser.get("/")).status_code == 200  # nor was anybody logged out


@pytest.mark.sweep
async def test_no_form_without_this_logins_word_does_anything(
    browser: httpx.AsyncClient, place: str, service: Service, ledger: Ledger
) -> None:
    under_way(ledger)
    async with httpx.AsyncClient(base_url=place) as another:
        await log_in(another, await link_of(service))
        others = await word_of(another)
    right = await word_of(browser)
    before = ledger.audit_entries()[-1].seq
    for path in posts_of(service):
        if path.startswith("/login/link/"):
            continue  # whoever has the link needs no login before
        for word in ("", "x", others, right[:-1], right.upper(), "é", right + "\x00"):
            answer = await browser.post(path, data=FORM | {"csrf": word}, headers=own(browser))
            assert answer.status_code == 403, (path, word)
        assert (await browser.post(path, data=FORM, headers=own(browser))).status_code == 403
        asked = f"{path}?csrf={right}"
        assert (await browser.post(asked, data=FORM, headers=own(browser))).status_code == 403
        as_json = await browser.post(path, json=FORM | {"csrf": right}, headers=own(browser))
        assert as_json.status_code in {403, 422}, path
        text = f"csrf={right}&reason=x&key=k"
        plain = own(browser) | {"Content-Type": "text/plain"}
        assert (await browser.post(path, content=text, headers=plain)).status_code in {403, 422}, path
    assert ledger.audit_entries()[-1].seq == before


async def test_a_form_of_the_page_itself_is_carried_out(browser: httpx.AsyncClient, ledger: Ledger) -> None:
    """What is refused above is refused for what it tries there."""
    under_way(ledger)
    form = FORM | {"csrf": await word_of(browser)}
    before = ledger.audit_head().seq
    for headers in (own(browser), {"Origin": own(browser)["Origin"]}, {"Sec-Fetch-Site": "same-origin"}):
        answer = await browser.post("/fleets/edge/orders/hold", data=form, headers=headers)
        assert answer.status_code != 403, answer.text
        entry = ledger.audit_entries()[-1]
        assert (entry.person, entry.via, entry.subject) == ("root", "web", "edge")
        assert before < entry.seq, "the order has not reached the service"
        before = entry.seq


async def test_a_stranger_sees_how_to_log_in_and_nothing_else(
    stranger: httpx.AsyncClient, service: Service, ledger: Ledger
) -> None:
    under_way(ledger)
    for method, path in routes_of(service):
        answer = await stranger.request(method, path, headers=own(stranger))
        assert "edge-1" not in answer.text.replace(path, ""), path
        assert "CVE" not in answer.text, path
        if path.startswith(("/login", "/static")):
            continue
        assert answer.status_code in {303, 403, 422}, (method, path)
        if method == "GET":
            assert answer.headers["location"].startswith("/login"), path


async def test_every_answer_says_what_browsers_may_do_with_it(
    browser: httpx.AsyncClient, stranger: httpx.AsyncClient, service: Service, ledger: Ledger
) -> None:
    under_way(ledger)
    paths = [path for method, path in routes_of(service) if method == "GET" and not path.endswith("/live")]
    more = ["/nothing", "/static/nothing.js?v=1", "/fleets/..%2f", "/audit?before=-1", "/v2", "/static/"]
    for client in (browser, stranger):
        for path in [*paths, *more]:
            answer = await client.get(path, headers={"Origin": "https://evil.example"})
            less = {"Content-Security-Policy": REPORT} if _is_report(path, answer) else {}
            for name, value in (HEADERS | less).items():
                assert answer.headers.get(name) == value, (path, name)
            assert answer.headers["cache-control"] == "no-store", path
            assert not [name for name in answer.headers if name.startswith("access-control-")], path
            if answer.text:
                assert answer.headers["content-type"].startswith(("text/html", "text/css")), path
    kept = re.search(r'href="(/static/penstock\.css\?v=[0-9a-f]+)"', (await stranger.get("/login")).text)
    assert kept is not None
    assert (await stranger.get(kept[1])).headers["cache-control"] == KEPT


def _is_report(path: str, answer: httpx.Response) -> bool:
    """Whether it is a report, which says itself what it may do in a browser: less than the page."""
    return answer.status_code == 200 and "/report" in path


async def test_an_answer_of_an_error_nobody_foresaw_is_guarded_too_and_tells_no_secret(
    stranger: httpx.AsyncClient,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    link = (await link_of(service)).rpartition("/")[2]

    async def fails(*_: object) -> str:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(page_logins.PageLogins, "whose_link", fails)
    with caplog.at_level(logging.DEBUG):
        answer = await stranger.get(f"/login/link/{link}")
    assert answer.status_code == 500
    assert "an internal error" in answer.text
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert link not in answer.text
    said = logged(caplog)
    assert said.count(" failed: ") == said.count(" failed: GET /login/link/{link}") == 1
    assert "nobody foresaw this" in said
    assert link not in said


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """What the API's process would have written into its log.

    uvicorn's own record of requests is switched off there; pytest listens to it nevertheless.
    """
    assert not logging.getLogger("uvicorn.access").propagate
    ours = [one for one in caplog.records if one.name.startswith(("orchestrator", "uvicorn.error"))]
    return "\n".join(f"{one.getMessage()} {one.exc_text}" for one in ours)


@pytest.mark.sweep
@pytest.mark.parametrize("host", ["evil.example", "evil.example:1", "127.0.0.1", ""])
async def test_no_answer_repeats_the_host_that_somebody_wrote(
    browser: httpx.AsyncClient, host: str, service: Service
) -> None:
    paths = [path for method, path in routes_of(service) if method == "GET" and not path.endswith("/live")]
    forwarded = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Original-URL": "/audit"}
    for path in [*paths, "/releases/", "/fleets/edge/", "/login/", "//evil.example", "//evil.example/%2e%2e"]:
        answer = await browser.get(
            str(browser.base_url).rstrip("/") + path, headers={"Host": host} | forwarded
        )
        assert "evil.example" not in answer.text.replace("//evil.example", ""), path
        assert not answer.headers.get("location", "/").startswith(("http", "//")), path


async def test_a_form_is_the_pages_own_where_something_stands_before_it(
    browser: httpx.AsyncClient, service: Service
) -> None:
    """A proxy with TLS before the page: browsers see another host and scheme than the page does."""
    word = await word_of(browser)
    service.page_logins = dataclasses.replace(service.page_logins, page="https://penstock.example/")
    headers = {"Origin": "https://penstock.example", "Sec-Fetch-Site": "same-origin"}
    browser.cookies.set("__Host-penstock", str(browser.cookies["penstock"]))
    assert (await browser.post("/logout", data={"csrf": word}, headers=headers)).status_code == 303


# --- sessions ------------------------------------------------------------------------


async def test_a_link_logs_in_once_and_is_used_up_by_no_look(
    stranger: httpx.AsyncClient, service: Service, place: str
) -> None:
    link = await link_of(service)
    for _ in range(3):
        assert "logs you in as" in (await stranger.get(link, headers={"Sec-Purpose": "prefetch"})).text
        assert (await stranger.head(link)).status_code == 405
    assert [*stranger.cookies] == []
    async with httpx.AsyncClient(base_url=place) as second:
        both = await asyncio.gather(*(one.post(link, headers=own(stranger)) for one in (stranger, second)))
    assert sorted(one.status_code for one in both) == [303, 403]
    again = await stranger.get(link)
    assert again.status_code == 403
    assert "penstock page" in again.text


@pytest.mark.parametrize(
    ("api", "url", "page"),
    [
        ("192.0.2.1:8787", None, "http://192.0.2.1:8787"),
        ("127.0.0.1:8787", "https://penstock.example", "https://penstock.example"),
        ("0.0.0.0:8787", "https://penstock.example", "https://penstock.example"),
        ("0.0.0.0:8787", None, None),
        ("[::]:8787", None, None),
        (None, None, None),
    ],
)
def test_nobody_is_sent_to_an_address_that_no_browser_opens(
    api: str | None, url: str | None, page: str | None
) -> None:
    assert composition.page_of(Settings(api_address=api, page_url=url)) == page


async def test_a_link_is_good_for_minutes(
    stranger: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_logins, "LINK_LIVES", timedelta(0))
    link = await link_of(service)
    assert (await stranger.get(link)).status_code == 403
    late = await stranger.post(link, headers=own(stranger))
    assert late.status_code == 403
    assert "log in again" in late.text
    assert "penstock page" in late.text


async def test_no_secret_is_chosen_by_whoever_shows_it_first(
    stranger: httpx.AsyncClient, service: Service, place: str
) -> None:
    """Session fixation: what a browser had before its login is worth nothing after it."""
    planted = "planted-by-somebody-else-and-as-long-as-a-real-one"
    stranger.cookies.set("penstock", planted)
    await stranger.post(await link_of(service), headers=own(stranger))
    async with httpx.AsyncClient(base_url=place, cookies={"penstock": planted}) as attacker:
        assert (await attacker.get("/")).status_code == 303


async def test_a_link_says_who_is_logged_in_already_and_ends_that_login(
    browser: httpx.AsyncClient, service: Service, place: str
) -> None:
    before, link = browser.cookies["penstock"], await link_of(service)
    assert "This browser is logged in as <strong>root</strong>; that ends." in (await browser.get(link)).text
    await browser.post(link, headers=own(browser))
    assert browser.cookies["penstock"] != before
    async with httpx.AsyncClient(base_url=place, cookies={"penstock": str(before)}) as copy:
        assert (await copy.get("/")).status_code == 303


async def test_a_logout_ends_the_session_wherever_it_was_copied_to(
    browser: httpx.AsyncClient, place: str
) -> None:
    async with httpx.AsyncClient(base_url=place, cookies=browser.cookies) as copy:
        assert (await copy.get("/")).status_code == 200
        await browser.post("/logout", data={"csrf": await word_of(browser)}, headers=own(browser))
        assert (await copy.get("/")).status_code == 303
    assert [*browser.cookies] == []


async def test_a_session_is_over_when_its_time_is(
    stranger: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_logins, "SESSION_LIVES", timedelta(0))
    await stranger.post(await link_of(service), headers=own(stranger))
    assert (await stranger.get("/")).status_code == 303


async def test_one_person_has_so_many_sessions_and_the_oldest_gives_way(
    browser: httpx.AsyncClient, service: Service, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_sessions, "MOST_OF_ONE", 3)
    for _ in range(2):
        async with httpx.AsyncClient(base_url=place) as another:
            await log_in(another, await link_of(service))
    assert (await browser.get("/")).status_code == 200
    async with httpx.AsyncClient(base_url=place) as another:
        await log_in(another, await link_of(service))
        assert (await another.get("/")).status_code == 200
    assert (await browser.get("/")).status_code == 303
    links = [await link_of(service) for _ in range(4)]
    found = [(await browser.get(link)).status_code for link in links]
    assert found == [403, 200, 200, 200]


async def test_the_secret_of_a_session_is_written_down_nowhere(
    browser: httpx.AsyncClient,
    ledger: Ledger,
    caplog: pytest.LogCaptureFixture,
    service: Service,
    tmp_path: Path,
) -> None:
    with caplog.at_level(logging.DEBUG):
        link = (await link_of(service)).rpartition("/")[2]
        await browser.post(f"/login/link/{link}", headers=own(browser))
        secret = str(browser.cookies["penstock"])
        seen = [await browser.get(path) for path in ("/", "/audit", "/fleets/edge", "/nothing", "/doctor")]
    for answer in seen:
        assert secret not in answer.text
        assert secret not in str(answer.url)
    said = "".join(str(entry) for entry in ledger.audit_entries())
    for word in (secret, link):
        assert word not in said
        assert word not in logged(caplog)
    files = await asyncio.to_thread(lambda: [one.read_bytes() for one in tmp_path.glob("ledger.db*")])
    kept = b"".join(files)
    assert kept
    assert secret.encode() not in kept
    assert link.encode() not in kept


async def test_who_is_at_the_socket_is_nobody_on_the_page(
    api: httpx.AsyncClient,
) -> None:
    """What a browser on this host could be made to ask there is asked by nobody."""
    assert (await api.get("/whoami")).json()["person"] == "root"
    seen = await api.get("http://penstock/")
    assert (seen.status_code, seen.headers["location"]) == (303, "/login")
    headers = {"Origin": "http://penstock", "Sec-Fetch-Site": "same-origin"}
    given = await api.post("http://penstock/fleets/edge/orders/hold", data=FORM, headers=headers)
    assert given.status_code == 403


async def test_a_token_is_nobody_on_the_page_and_a_cookie_nobody_at_the_api(
    browser: httpx.AsyncClient, stranger: httpx.AsyncClient, ledger: Ledger
) -> None:
    """No ambient authority: what browsers send by themselves counts where forms are guarded alone."""
    shown = token(ledger, Role.OPERATOR)
    assert (await stranger.get("/v1/whoami", headers=shown)).status_code == 200
    assert (await stranger.get("/", headers=shown)).status_code == 303
    assert (await browser.get("/")).status_code == 200
    assert (await browser.get("/v1/whoami")).status_code == 401
    order = {"kind": "hold", "reason": "x"}
    headers = {"Idempotency-Key": "k"} | own(browser)
    assert (await browser.post("/v1/fleets/edge/commands", json=order, headers=headers)).status_code == 401


# --- strangers and viewers -----------------------------------------------------------


@pytest.mark.sweep
@pytest.mark.usefixtures("no_refill")
async def test_strangers_who_try_forms_and_links_hear_that_it_is_enough(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PER_MINUTE, Kind.STRANGER, 5)
    async with page_of(service) as place:
        for path in (*posts_of(service), f"/login/link/{'x' * 42}", "/"):
            crowd = httpx.AsyncHTTPTransport(local_address=f"127.0.0.{10 + len(path)}")
            async with httpx.AsyncClient(base_url=place, transport=crowd) as stranger:
                stranger.cookies.set("penstock", "x" * 43)
                found = []
                for _ in range(8):
                    if path in posts_of(service):
                        answer = await stranger.post(path, data=FORM, headers=own(stranger))
                    else:
                        answer = await stranger.get(path)
                    found.append(answer.status_code)
                assert found[-1] == 429, (path, found)


@pytest.mark.usefixtures("no_refill")
async def test_who_has_a_link_gets_in_behind_an_address_whose_strangers_have_tried_too_often(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty requests a minute of anybody in an office kept everybody there from logging in."""
    monkeypatch.setitem(PER_MINUTE, Kind.STRANGER, 5)
    async with page_of(service) as place:
        async with httpx.AsyncClient(base_url=place, cookies={"penstock": "x" * 43}) as stranger:
            found = [(await stranger.get("/")).status_code for _ in range(20)]
            assert found[-1] == 429
        async with httpx.AsyncClient(base_url=place) as person:
            sent = await person.get("/")
            assert (sent.status_code, sent.headers["location"]) == (303, "/login")
            assert (await person.get("/login")).status_code == 200
            link = await link_of(service)
            assert (await person.get(link)).status_code == 200
            await log_in(person, link)
            assert (await person.get("/")).status_code == 200


async def test_a_stranger_who_logs_out_writes_nothing(
    stranger: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The word of a secret that somebody made up follows from it: anybody knows it."""
    written: list[object] = []

    def noted(engine: Engine) -> AbstractContextManager[Connection]:
        written.append(engine)
        return writing(engine)

    monkeypatch.setattr(page_sessions, "writing", noted)
    stranger.cookies.set("penstock", "made-up")
    word = hmac.new(b"made-up", FORM_WORD, hashlib.sha256).hexdigest()
    answer = await stranger.post("/logout", data={"csrf": word}, headers=own(stranger))
    assert (answer.status_code, written) == (303, [])


async def test_a_request_of_two_lengths_is_refused_and_nothing_after_it_is_answered(place: str) -> None:
    """A proxy that believes the other length would let somebody's next request be written by a stranger."""
    url = httpx.URL(place)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    lines = ["POST /logout HTTP/1.1", "Host: x", "Content-Length: 6", "Transfer-Encoding: chunked", "", "0"]
    lines += ["", "GET /login HTTP/1.1", "Host: x", "", ""]
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(PATIENCE):
        said = await reader.read()
    writer.close()
    assert said.startswith(b"HTTP/1.1 411")
    assert said.count(b"HTTP/1.1 ") == 1


async def test_a_stream_ends_with_the_session_that_opened_it(
    browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "RECOGNISED_SECONDS", 0.1)
    async with asyncio.timeout(PATIENCE), browser.stream("GET", "/fleets/edge/live") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines)
        await browser.post("/logout", data={"csrf": await word_of(browser)}, headers=own(browser))
        async for _ in lines:
            pass  # until it ends


async def test_who_reads_nothing_of_a_stream_is_let_go(
    browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each look said more than a socket keeps; whoever took none of it had a stream and a place for ever."""
    monkeypatch.setattr(fleets, "TAKEN_SECONDS", 0.5)
    ended, lost = asyncio.Event(), asyncio.Event()
    known = PeerProtocol.connection_lost

    def connection_lost(self: PeerProtocol, exc: Exception | None) -> None:
        if self.client is not None and self.client[1] == port:
            lost.set()
        known(self, exc)

    monkeypatch.setattr(PeerProtocol, "connection_lost", connection_lost)

    async def looks(*_: object) -> AsyncIterator[dict[str, str]]:
        try:
            while True:
                yield {"story": str(asyncio.get_running_loop().time()) * 500_000}
        finally:
            ended.set()

    monkeypatch.setattr(Lookout, "regions", looks)
    url = browser.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=1024)
    port = writer.get_extra_info("sockname")[1]
    cookie = f"penstock={browser.cookies['penstock']}"
    writer.write(f"GET /fleets/edge/live HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        assert b"200 OK" in await reader.readline()
        await ended.wait()
        await lost.wait()
    writer.close()
    assert logged(caplog) == ""


@pytest.mark.sweep
async def test_a_look_that_fails_in_a_way_nobody_foresaw_ends_the_streams_that_wait_for_it(
    browser: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They said nothing any more and looked live; whoever hears the end asks again."""
    fails = asyncio.Event()
    look = Lookout._look

    async def looked(self: Lookout, watch: Any) -> dict[str, str]:
        if fails.is_set():
            raise RuntimeError("nobody foresaw this")
        return await look(self, watch)

    monkeypatch.setattr(Lookout, "_look", looked)
    async with asyncio.timeout(PATIENCE), browser.stream("GET", "/fleets/edge/live") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines)
        fails.set()
        async for _ in lines:
            pass  # until it ends
    fails.clear()
    async with asyncio.timeout(PATIENCE), browser.stream("GET", "/fleets/edge/live") as stream:
        assert await anext(stream.aiter_lines())


async def test_a_viewer_of_one_fleet_sees_nothing_of_another(
    service: Service, stranger: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way(ledger)
    found = service.people.at_the_socket(0)
    viewer = found.model_copy(update={"person": "vera", "grants": {"core": frozenset({Role.VIEWER})}})
    monkeypatch.setattr(type(service.people), "at_the_socket", lambda *_: viewer)
    await log_in(stranger, await link_of(service))
    for method, path in routes_of(service):
        if method != "GET" or not ("edge" in path or path in {"/", "/audit", "/doctor", "/releases"}):
            continue
        answer = await stranger.get(path)
        there = await stranger.get(path.replace("edge", "nothing"))
        assert "CVE" not in answer.text, path
        if "edge" in path:
            assert answer.status_code in {403, 404}, path
            assert answer.status_code == there.status_code, path
            assert re.sub(r"\bedge\b", "nothing", answer.text) == there.text, path
        else:
            assert not re.search(r"\bedge\b", answer.text), path


async def test_frames_of_other_sites_show_nothing_and_their_forms_do_nothing(
    service: Service, place: str, ledger: Ledger
) -> None:
    """In a real browser, with somebody logged in: another port of this host is another site's page."""
    under_way(ledger)
    async with async_playwright() as programs:
        browser = await programs.chromium.launch(executable_path=SHELL, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.goto(await link_of(service))
        await page.get_by_role("button", name="Log in as").click()
        await page.wait_for_url(f"{place}/")
        word = await page.get_attribute("input[name=csrf]", "value")
        before = ledger.audit_entries()[-1].seq
        order = f"{place}/fleets/edge/orders/hold"
        attack = (
            f"<iframe name=frame src='{place}/fleets/edge'></iframe>"
            f"<form method=post action='{order}'><input name=csrf value='{word}'>"
            "<input name=reason value=r><input name=key value=k><button>Win a prize</button></form>"
        )
        refused: list[str] = []
        page.on("console", lambda said: refused.append(said.text))

        async def evil(route: object) -> None:
            await route.fulfill(body=attack, content_type="text/html")  # type: ignore[attr-defined]

        other = f"http://127.0.0.1:{(httpx.URL(place).port or 0) + 1}/"
        await page.route(other, evil)
        await page.goto(other)
        frame = page.frame("frame")
        assert frame is not None
        assert frame.url == "chrome-error://chromewebdata/", (frame.url, refused)
        answer = await page.evaluate(
            "(at) => fetch(at, {credentials: 'include'}).then(a => a.text()).catch(e => 'refused')",
            f"{place}/fleets/edge",
        )
        assert answer == "refused"
        await page.get_by_role("button", name="Win a prize").click()
        await page.get_by_text("another site has sent this").wait_for()
        await browser.close()
    assert ledger.audit_entries()[-1].seq == before
