"""Logging in at the page by a real identity provider: who comes back is who went there."""

import asyncio
import dataclasses
import json
import re
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import jwt
import pytest
from playwright.async_api import async_playwright

from activities.drivers.exchange import Answered
from orchestrator.api.limits import PER_MINUTE, Kind
from orchestrator.processes.api import serving
from orchestrator.processes.listening import port_at
from orchestrator.service import identity, login_attempts, provider_keys
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.errors import NotAllowed, Unavailable
from policies.model.people import Oidc, Role
from tests.fakes.identity_provider import IdentityProvider
from tests.service.page import SHELL
from tests.service.test_api import token

PEOPLE = """\
apiVersion: penstock/v1
oidc: {{issuer: "{issuer}", audience: penstock, client: penstock, name_claim: username}}
people:
  - {{name: ana, subjects: ["{ana}"], roles: {{edge: [operator]}}}}
groups:
  - {{name: auditors, roles: {{"*": [auditor]}}}}
"""


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityProvider]:
    if shutil.which("glewlwyd") is None:
        pytest.fail("glewlwyd is not installed: ./run test installs it")
    with IdentityProvider(tmp_path_factory.mktemp("idp") / "provider") as found:
        found.add("ana")
        found.add("berta", "auditors")
        found.add("carl")
        yield found


@pytest.fixture
async def page(service: Service, provider: IdentityProvider, tmp_path: Path) -> AsyncIterator[str]:
    """Where the page answers, known to the provider."""
    said = jwt.decode(provider.logged_in("ana"), options={"verify_signature": False})
    people = PEOPLE.format(issuer=provider.issuer, ana=said["sub"])
    (tmp_path / "people.yaml").write_text(people)
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    place = f"http://127.0.0.1:{at.getsockname()[1]}"
    service.page_logins = dataclasses.replace(service.page_logins, page=place)
    provider.send_back_to(f"{place}/login/callback")
    async with serving(service, at):
        yield place


@pytest.fixture
async def browser(page: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=page) as client:
        yield client


async def test_somebody_logs_in_at_the_provider_and_sees_what_was_wanted(
    browser: httpx.AsyncClient, provider: IdentityProvider, ledger: Ledger
) -> None:
    asked = await browser.get("/fleets/edge?before=x")
    login = await browser.get(asked.headers["location"])
    assert f"Log in at {provider.issuer}" in login.text
    sent = await browser.get("/login/provider", params={"to": "/fleets/edge?before=x"})
    back = provider.agreed("ana", sent.headers["location"])
    entered = await browser.get(back)
    assert (entered.status_code, entered.headers["location"]) == (303, "/fleets/edge?before=x")
    assert "ana" in (await browser.get("/")).text
    assert ledger.audit_entries()[-1].action == "login"


async def begun(browser: httpx.AsyncClient, to: str = "/") -> str:
    """Begin to log in; return where the browser is sent."""
    sent = await browser.get("/login/provider", params={"to": to})
    assert sent.status_code == 303, sent.text
    return sent.headers["location"]


async def is_nobody(browser: httpx.AsyncClient) -> bool:
    answer = await browser.get("/")
    return answer.status_code == 303 and answer.headers["location"].startswith("/login")


async def test_a_login_at_the_page_has_the_groups_and_the_name_that_the_provider_gives_by_scope(
    browser: httpx.AsyncClient, provider: IdentityProvider, tmp_path: Path
) -> None:
    people = (tmp_path / "people.yaml").read_text()
    (tmp_path / "people.yaml").write_text(people.replace("name_claim: username", "name_claim: email"))
    place = await begun(browser)
    assert httpx.URL(place).params["scope"] == "openid groups email"
    entered = await browser.get(provider.agreed("berta", place))
    assert entered.status_code == 303
    assert "berta@corp.example" in (await browser.get("/")).text


async def test_two_tabs_of_one_browser_log_in_and_each_sees_what_it_wanted(
    browser: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    first, second = await begun(browser, "/releases"), await begun(browser, "/doctor")
    for place, wanted in ((first, "/releases"), (second, "/doctor")):
        entered = await browser.get(provider.agreed("ana", place))
        assert (entered.status_code, entered.headers["location"]) == (303, wanted)


async def test_nobody_is_logged_in_as_somebody_else_by_a_link_to_the_callback(
    browser: httpx.AsyncClient, provider: IdentityProvider, page: str
) -> None:
    """Login CSRF: an attacker's own code and state, in the browser of somebody who clicks."""
    async with httpx.AsyncClient(base_url=page) as attacker:
        planted = provider.agreed("berta", await begun(attacker))
    refused = await browser.get(planted)
    assert refused.status_code == 403
    assert "has not begun this login" in refused.text
    await begun(browser)  # nor where the browser has begun one of its own
    assert (await browser.get(planted)).status_code == 403
    assert await is_nobody(browser)


async def test_a_code_of_one_attempt_is_good_for_no_other(
    browser: httpx.AsyncClient, provider: IdentityProvider, page: str, ledger: Ledger, service: Service
) -> None:
    """An injected code, stolen from somebody else's callback, with a state of the thief's own."""
    async with httpx.AsyncClient(base_url=page) as victim:
        stolen = httpx.URL(provider.agreed("ana", await begun(victim))).params["code"]
    own = httpx.URL(await begun(browser)).params["state"]
    refused = await browser.get("/login/callback", params={"code": stolen, "state": own})
    assert refused.status_code == 403
    assert "did not take this login" in refused.text
    assert stolen not in refused.text
    assert await is_nobody(browser)
    assert await service.write_refusals() == 1
    entry = ledger.audit_entries()[-1]
    assert entry.action == "login refused"
    assert stolen not in str(entry.body)


async def test_a_code_is_redeemed_once(browser: httpx.AsyncClient, provider: IdentityProvider) -> None:
    back = provider.agreed("ana", await begun(browser))
    assert (await browser.get(back)).status_code == 303
    assert (await browser.get(back)).status_code == 403


async def test_after_a_logout_nobody_comes_back_by_the_history_of_the_browser(
    browser: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    back = provider.agreed("ana", await begun(browser))
    await browser.get(back)
    word = re.search(r'name="csrf" value="([0-9a-f]+)"', (await browser.get("/")).text)
    assert word is not None
    own = {"Origin": str(browser.base_url).rstrip("/")}
    left = await browser.post("/logout", data={"csrf": word[1]}, headers=own)
    assert left.headers["location"] == "/login"
    assert [*browser.cookies] == []
    assert "has not begun" in (await browser.get(back)).text
    assert await is_nobody(browser)


@pytest.mark.usefixtures("no_refill")
async def test_made_up_codes_run_out_and_logins_that_turn_out_well_do_not(
    page: str, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An office behind one address logs in at eight o'clock, whatever strangers there have tried."""
    monkeypatch.setitem(PER_MINUTE, Kind.STRANGER, 0)
    monkeypatch.setitem(PER_MINUTE, Kind.LOGIN, 2)
    for _ in range(4):
        async with httpx.AsyncClient(base_url=page) as person:
            back = provider.agreed("ana", await begun(person))
            assert (await person.get("/login/callback", params={"code": "x"})).status_code == 403
            assert (await person.get(back)).status_code == 303
    async with httpx.AsyncClient(base_url=page) as stranger:
        state = httpx.URL(await begun(stranger)).params["state"]
        asked = {"code": "made-up", "state": state}
        found = [(await stranger.get("/login/callback", params=asked)).status_code for _ in range(3)]
        assert found == [403, 403, 429]
        assert (await stranger.get("/login")).status_code == 200


@pytest.mark.parametrize("place", ["http://id.example/keys", "file:///etc/hostname", "ftp://127.0.0.1/k", 7])
def test_keys_are_read_from_nowhere_that_somebody_on_the_way_could_write(
    place: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = "https://id.example"
    said = Answered(200, json.dumps({"issuer": issuer, "jwks_uri": place}).encode())
    monkeypatch.setattr(identity, "exchange", lambda *_, **__: said)
    found = identity.IdentityProvider(Oidc(issuer=issuer, audience="penstock", client="penstock"), None)
    reading = found.reading("e30.e30.e30")
    assert reading is not None
    reading.block()
    with pytest.raises(Unavailable, match="by TLS"):
        found.vouched("e30.e30.e30")


async def test_who_took_too_long_at_the_provider_begins_again(
    browser: httpx.AsyncClient, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = provider.agreed("ana", await begun(browser))
    monkeypatch.setattr(login_attempts, "ATTEMPT_LIVES", timedelta(seconds=-1))
    refused = await browser.get(back)
    assert refused.status_code == 403
    assert "ago; log in again" in refused.text
    assert await is_nobody(browser)


async def test_a_state_that_nobody_gave_out_logs_nobody_in(browser: httpx.AsyncClient) -> None:
    await begun(browser)
    for state in ("", "x", "a.b.c", "a.b.c.d", "a.1.b.c", "....", "a.1.\x00.d", "é.1.b.c"):
        refused = await browser.get("/login/callback", params={"code": "c", "state": state})
        assert refused.status_code == 403
        assert "has not begun this login" in refused.text


async def test_who_says_no_at_the_provider_hears_so_and_no_word_of_a_stranger(
    browser: httpx.AsyncClient,
) -> None:
    state = httpx.URL(await begun(browser)).params["state"]
    said = {"state": state, "error": "access_denied", "error_description": "call 555 and pay"}
    refused = await browser.get("/login/callback", params=said)
    assert refused.status_code == 403
    assert "access_denied" in refused.text
    assert "555" not in refused.text
    odd = await browser.get("/login/callback", params={"state": state, "error": "<b>call 555</b>"})
    assert "555" not in odd.text


async def test_who_has_no_role_hears_what_to_do_and_has_no_session(
    browser: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    refused = await browser.get(provider.agreed("carl", await begun(browser)))
    assert refused.status_code == 403
    assert "nobody who is known here: an administrator adds it" in refused.text
    assert "penstock" not in browser.cookies


async def test_a_machines_name_is_nobodys(
    browser: httpx.AsyncClient, provider: IdentityProvider, ledger: Ledger
) -> None:
    token(ledger, Role.CI, name="berta")
    refused = await browser.get(provider.agreed("berta", await begun(browser)))
    assert refused.status_code == 403
    assert "a machine&#39;s name" in refused.text


async def test_a_person_whom_the_provider_renames_is_no_second_person(
    browser: httpx.AsyncClient, provider: IdentityProvider, ledger: Ledger
) -> None:
    said = jwt.decode(provider.logged_in("berta"), options={"verify_signature": False})
    ledger.know_login(f"{provider.issuer} {said['sub']}", "bertha")
    refused = await browser.get(provider.agreed("berta", await begun(browser)))
    assert refused.status_code == 403
    assert "is bertha: an administrator" in refused.text


async def test_who_is_taken_out_of_the_file_is_nobody_at_the_next_request(
    browser: httpx.AsyncClient, provider: IdentityProvider, tmp_path: Path
) -> None:
    await browser.get(provider.agreed("ana", await begun(browser)))
    assert (await browser.get("/fleets/edge")).status_code == 200
    people = (tmp_path / "people.yaml").read_text()
    (tmp_path / "people.yaml").write_text(re.sub(r"people:\n.*\n", "people: []\n", people))
    assert await is_nobody(browser)


async def test_another_provider_is_not_believed_about_the_people_of_the_first(
    browser: httpx.AsyncClient, provider: IdentityProvider, tmp_path: Path
) -> None:
    """The same subject at another provider is somebody else."""
    await browser.get(provider.agreed("ana", await begun(browser)))
    people = (tmp_path / "people.yaml").read_text()
    other = people.replace(f'"{provider.issuer}"', '"https://id.example.org"')
    (tmp_path / "people.yaml").write_text(other)
    assert await is_nobody(browser)


async def test_nobody_is_sent_to_another_site_after_a_login(
    browser: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    elsewhere = [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/login/provider",
        "/fleets/<script>",
        "/\u202efleets",
    ]
    for to in elsewhere:
        back = provider.agreed("ana", await begun(browser, to))
        assert (await browser.get(back)).headers["location"] == "/", to
        assert "evil" not in (await browser.get("/login", params={"to": to})).text


async def test_where_people_come_back_to_is_what_the_settings_say(
    browser: httpx.AsyncClient, page: str
) -> None:
    tricks = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    sent = await browser.get("/login/provider", headers=tricks)
    assert httpx.URL(sent.headers["location"]).params["redirect_uri"] == f"{page}/login/callback"


async def test_a_token_with_another_nonce_is_of_another_login(
    provider: IdentityProvider, service: Service, page: str, browser: httpx.AsyncClient
) -> None:
    del page
    found = service.people.provider()
    assert found is not None
    shown = provider.logged_in("ana")
    if (reading := found.reading(shown)) is not None:
        reading.block()
    with pytest.raises(NotAllowed, match="begun by somebody else"):
        found.vouched(shown, "a nonce")


async def test_a_provider_that_is_away_is_said_and_the_link_is_still_offered(
    browser: httpx.AsyncClient, tmp_path: Path
) -> None:
    people = (tmp_path / "people.yaml").read_text()
    (tmp_path / "people.yaml").write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", people))
    away = await browser.get("/login/provider")
    assert away.status_code == 503
    assert "does not say where" in away.text
    assert "penstock page" in away.text
    assert (await browser.get("/login")).status_code == 200


async def test_a_provider_that_hangs_is_waited_for_so_long_and_keeps_nobody_from_looking(
    browser: httpx.AsyncClient, provider: IdentityProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.get(provider.agreed("ana", await begun(browser)))
    monkeypatch.setattr(identity, "ANSWER_SECONDS", 30.0)
    monkeypatch.setattr(provider_keys, "UNKNOWN_WAITS_SECONDS", 1.0)
    people = (tmp_path / "people.yaml").read_text()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        issuer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hangs = people.replace(provider.issuer, issuer)
        (tmp_path / "people.yaml").write_text(hangs)
        async with httpx.AsyncClient(base_url=browser.base_url, timeout=30) as stranger:
            waits = [asyncio.create_task(stranger.get("/login/provider")) for _ in range(8)]
            await asyncio.sleep(0)
            assert (await stranger.get("/login")).status_code == 200
            answers = await asyncio.gather(*waits)
    assert {one.status_code for one in answers} == {503}
    assert "does not answer in time" in answers[0].text


async def test_without_a_provider_only_the_link_is_offered(
    browser: httpx.AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "people.yaml").unlink()
    login = await browser.get("/login")
    assert "/login/provider" not in login.text
    assert (await browser.get("/login/provider")).status_code == 422


async def test_cookies_of_a_login_are_read_by_no_script_and_sent_by_no_other_site(
    browser: httpx.AsyncClient, provider: IdentityProvider, service: Service, page: str
) -> None:
    sent = await browser.get("/login/provider")
    back = await browser.get(provider.agreed("ana", sent.headers["location"]))
    for answer, name in ((sent, "penstock-login"), (back, "penstock")):
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"{name}=")
        assert {"HttpOnly", "Path=/", "SameSite=lax"} <= {*cookie.split("; ")}
        assert "Domain" not in cookie
        assert "Secure" not in cookie
    service.page_logins = dataclasses.replace(service.page_logins, page="https://penstock.example")
    secure = (await browser.get("/login/provider")).headers["set-cookie"]
    assert secure.startswith("__Host-penstock-login=")
    assert "; Secure" in secure


async def test_somebody_logs_in_at_the_provider_in_a_real_browser(
    page: str, provider: IdentityProvider
) -> None:
    """The provider's own pages need a web server; what they do, a script of the same origin does here."""
    with provider.browser_of("ana"):
        pass  # who has agreed to penstock once is not asked again
    async with async_playwright() as programs:
        browser = await programs.chromium.launch(executable_path=SHELL, args=["--no-sandbox"])
        tab = await browser.new_page()
        await tab.context.request.post(provider.password_page, data=provider.password_of("ana"))
        await tab.goto(f"{page}/fleets/edge")
        async with tab.expect_request(re.compile(re.escape(provider.issuer) + r"/auth\?")) as sent:
            await tab.get_by_role("link", name="Log in at").click()
        await tab.wait_for_url(re.compile("/login.html"))
        asked = (await sent.value).url
        await tab.evaluate("place => { location = place }", f"{asked}&g_continue")
        await tab.wait_for_url(f"{page}/fleets/edge")
        assert await tab.inner_text("h1") == "edge"
        assert "ana" in await tab.inner_text("form.who")
        cookies = {one["name"]: one for one in await tab.context.cookies(page)}
        kept = cookies["penstock"]
        assert (kept["httpOnly"], kept["sameSite"]) == (True, "Lax")
        await tab.get_by_role("button", name="Log out").click()
        await tab.wait_for_url(f"{page}/login")
        await browser.close()
