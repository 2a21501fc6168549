"""People who log in by the identity provider hold a change, whatever other callers and the provider do."""

import asyncio
import hashlib
import hmac
import json
import re
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from orchestrator.processes.api import THREADS, serving
from orchestrator.processes.listening import port_at
from orchestrator.service import identity, page_logins, provider_keys
from orchestrator.service.changes import ChangeService
from orchestrator.service.doctor import Finding, Health
from orchestrator.service.identity import IdentityProvider, Vouched
from orchestrator.service.login_attempts import LoginAttempt, new_browser
from orchestrator.service.page_logins import MOST_CODES
from orchestrator.service.provider_keys import Reading
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.command import Command, CommandReceipt
from policies.model.errors import NotAllowed, Unavailable
from policies.model.people import Oidc, Role
from tests.patience import PATIENCE, until
from tests.service.test_api import token

KEY: RSAPrivateKey = generate_private_key(65537, 2048)
PEOPLE = """\
apiVersion: penstock/v1
oidc: {{issuer: "{issuer}", audience: penstock, client: penstock}}
people:
  - {{name: ana, subjects: [ana], roles: {{edge: [operator]}}}}
"""
HOLD = {"kind": "hold", "reason": "it hurts"}


@dataclass
class Provider:
    """A provider on loopback, which may take its time, hang, fail or publish other keys."""

    issuer: str = ""
    hangs_on_codes: bool = False
    hangs: bool = False
    fails: bool = False
    publishes: str = "k1"
    asked: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def provider() -> Iterator[Provider]:
    found = Provider()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            if found.hangs:
                found.over.wait(2 * PATIENCE)
            own = {"kid": found.publishes, "alg": "RS256"}
            key = json.loads(RSAAlgorithm.to_jwk(KEY.public_key())) | own
            document = {
                "issuer": found.issuer,
                "jwks_uri": f"{found.issuer}/jwks",
                "authorization_endpoint": f"{found.issuer}/authorize",
                "token_endpoint": f"{found.issuer}/token",
            }
            self._say(500 if found.fails else 200, document if "well-known" in self.path else {"keys": [key]})

        def do_POST(self) -> None:
            found.asked.append(self.path)
            if found.hangs_on_codes:
                found.over.wait(2 * PATIENCE)
            self._say(400, {"error": "invalid_grant"})

        def _say(self, status: int, body: object) -> None:
            said = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its port has it
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    found.issuer = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    found.over.set()
    server.shutdown()
    server.server_close()


def signed(provider: Provider, kid: str = "k1") -> str:
    now = int(time.time())
    said = {"iss": provider.issuer, "aud": "penstock", "sub": "ana", "iat": now, "exp": now + 3000}
    return jwt.encode(said, KEY, "RS256", headers={"kid": kid})


@pytest.fixture
async def place(service: Service, provider: Provider, tmp_path: Path) -> AsyncIterator[str]:
    (tmp_path / "people.yaml").write_text(PEOPLE.format(issuer=provider.issuer))
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    where = f"http://127.0.0.1:{at.getsockname()[1]}"
    service.page_logins = replace(service.page_logins, page=where)
    async with serving(service, at):
        yield where


async def hold(client: httpx.AsyncClient, key: str, shown: dict[str, str]) -> httpx.Response:
    headers = shown | {"Idempotency-Key": key}
    return await client.post("/v1/fleets/edge/commands", json=HOLD, headers=headers)


def is_recognised(answer: httpx.Response) -> bool:
    """Return whether the order got as far as the engine, which is away in this installation."""
    return "the engine cannot be reached" in answer.text


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have it be so much later for the keys of providers."""
    monkeypatch.setattr(provider_keys, "_seconds", lambda: time.monotonic() + seconds)


def readings_waited_for(monkeypatch: pytest.MonkeyPatch) -> list[Reading]:
    """Return what grows by each wait of a request for a reading of the provider's documents."""
    waiting, wait = list[Reading](), Reading.wait

    async def noted(reading: Reading) -> None:
        waiting.append(reading)
        await wait(reading)

    monkeypatch.setattr(Reading, "wait", noted)
    return waiting


async def test_made_up_codes_delay_no_hold_by_a_login_of_the_provider(
    place: str, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_logins, "PROVIDER_SECONDS", 2 * PATIENCE)
    monkeypatch.setattr(identity, "ANSWER_SECONDS", 2 * PATIENCE)
    provider.hangs_on_codes = True
    shown = {"Authorization": f"Bearer {signed(provider)}"}
    async with httpx.AsyncClient(base_url=place, timeout=PATIENCE) as ana:
        assert is_recognised(await hold(ana, "before", shown))
        browser = new_browser()
        async with httpx.AsyncClient(
            base_url=place, timeout=2 * PATIENCE, cookies={"penstock-login": browser}
        ) as stranger:
            codes = [
                asyncio.create_task(
                    stranger.get(
                        "/login/callback",
                        params={"state": LoginAttempt.begun(browser, "/").state, "code": f"made-up-{n}"},
                    )
                )
                for n in range(2 * MOST_CODES)
            ]
            await until(lambda: sum(one.done() for one in codes) == MOST_CODES)  # there is no place for these
            assert is_recognised(await hold(ana, "during", shown))
            refused = [one.result() for one in codes if one.done()]
            assert len(refused) == MOST_CODES, "the others hang still"
            provider.over.set()
            await asyncio.gather(*codes)
        assert {one.status_code for one in refused} == {429}
        assert "log in again" in refused[0].text


async def test_tokens_of_unknown_keys_delay_no_hold_while_the_provider_hangs(
    place: str, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_keys, "UNKNOWN_WAITS_SECONDS", 2 * PATIENCE)
    monkeypatch.setattr(identity, "ANSWER_SECONDS", 2 * PATIENCE)
    shown = {"Authorization": f"Bearer {signed(provider)}"}
    async with httpx.AsyncClient(base_url=place, timeout=PATIENCE) as ana:
        assert is_recognised(await hold(ana, "before", shown))
        later(monkeypatch, provider_keys.KEYS_AGAIN_SECONDS + 0.5)
        provider.hangs = True
        waiting = readings_waited_for(monkeypatch)
        forged = {"Authorization": f"Bearer {signed(provider, 'another')}"}
        async with httpx.AsyncClient(base_url=place, timeout=2 * PATIENCE) as stranger:
            waits = [asyncio.create_task(stranger.get("/v1/whoami", headers=forged)) for _ in range(12)]
            await until(lambda: len(waiting) == len(waits))
            assert is_recognised(await hold(ana, "during", shown))
            assert not any(one.done() for one in waits), "they wait still"
            provider.over.set()
            await asyncio.gather(*waits)


@pytest.mark.sweep
@pytest.mark.parametrize("silence", ["hangs", "fails"])
async def test_a_login_of_the_provider_holds_a_change_for_hours_of_its_silence_and_not_for_ever(
    silence: str, place: str, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "ANSWER_SECONDS", 2 * PATIENCE)
    shown = {"Authorization": f"Bearer {signed(provider)}"}
    async with httpx.AsyncClient(base_url=place, timeout=PATIENCE) as ana:
        assert is_recognised(await hold(ana, "before", shown))
        setattr(provider, silence, True)
        limit = provider_keys.KEYS_LIVE.total_seconds()
        for seconds in (provider_keys.FRESH_SECONDS + 1, limit / 2, limit - 60):
            later(monkeypatch, seconds)
            assert is_recognised(await hold(ana, f"after-{seconds:g}", shown)), seconds
        later(monkeypatch, limit + 60)
        answer = await hold(ana, "too-late", shown)
        assert answer.status_code == 503
        assert not is_recognised(answer)


def provider_at(provider: Provider) -> IdentityProvider:
    return IdentityProvider(Oidc(issuer=provider.issuer, audience="penstock", client="penstock"), None)


def recognise(known: IdentityProvider, shown: str) -> str:
    """Return the subject of a token, after the reading that it needs."""
    if (reading := known.reading(shown)) is not None:
        reading.block()
    return known.vouched(shown).subject


def test_a_key_that_the_provider_has_removed_ends_with_the_next_reading(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, shown = provider_at(provider), signed(provider)
    assert recognise(known, shown) == "ana"
    provider.publishes = "k2"
    later(monkeypatch, provider_keys.FRESH_SECONDS + 1)
    with pytest.raises(NotAllowed, match="has published no key by the name"):
        recognise(known, shown)
    assert recognise(known, signed(provider, "k2")) == "ana"


def test_a_provider_that_fails_is_asked_once_in_a_while_however_many_tokens_name_unknown_keys(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = provider_at(provider)
    assert recognise(known, signed(provider)) == "ana"
    provider.fails = True
    provider.asked.clear()
    later(monkeypatch, provider_keys.KEYS_AGAIN_SECONDS + 1)
    for number in range(20):
        with pytest.raises(Unavailable, match="500"):
            recognise(known, signed(provider, f"unknown-{number}"))
        assert recognise(known, signed(provider)) == "ana"
    assert len(provider.asked) == 1
    [said] = [one.getMessage() for one in caplog.records if one.name == provider_keys.__name__]
    assert re.search(r"500.*; its keys of .* UTC count until .* UTC", said), said


async def test_doctor_reports_a_silent_provider_and_until_when_its_keys_count(
    place: str, provider: Provider, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = service.people.at_the_socket(0)

    async def found() -> Finding:
        return next(one for one in await service.examine(root) if one.about == "logins")

    well = await found()
    assert (well.health, well.sentence) == (
        Health.WELL,
        f"{provider.issuer} answers; signing keys: 1",
    )
    provider.fails = True
    later(monkeypatch, provider_keys.KEYS_AGAIN_SECONDS + 1)
    silent = await found()
    assert silent.health is Health.DOUBTFUL
    assert re.search(r"500.*; its keys of .* UTC count until .* UTC", silent.sentence), silent.sentence
    later(monkeypatch, provider_keys.KEYS_LIVE.total_seconds() + 60)
    assert (await found()).health is Health.WRONG


@pytest.mark.parametrize("by", ["link", "provider"])
async def test_a_viewer_and_a_writer_that_hangs_keep_no_operator_from_a_hold_on_the_page(
    by: str,
    place: str,
    provider: Provider,
    service: Service,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = asyncio.Event()

    async def command(_: ChangeService, fleet: str, said: Command) -> CommandReceipt:
        given.set()
        return CommandReceipt(id=said.id, accepted=True, sentence=f"{fleet} is held")

    monkeypatch.setattr(ChangeService, "command", command)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))  # as the API's process does
    if by == "provider":
        vouched = Vouched(issuer=provider.issuer, subject="ana")
        secret = await service.page_logins.begin("ana", vouched, "127.0.0.1")
    else:
        link = (await service.page_logins.make_link(service.people.at_the_socket(0), 0)).url
        secret = await service.page_logins.open_link(link.rpartition("/")[2], "127.0.0.1")
    viewer = token(ledger, Role.VIEWER)
    csrf = hmac.new(secret.encode(), b"penstock form", hashlib.sha256).hexdigest()
    sent = {"csrf": csrf, "key": "k", "reason": "it hurts"}
    writer = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    async with (
        httpx.AsyncClient(base_url=place, timeout=120, cookies={"penstock": secret}) as ana,
        httpx.AsyncClient(base_url=place, timeout=120) as vera,
    ):
        writer.execute("BEGIN IMMEDIATE")  # a writer that hangs
        asked = {"kind": "resume", "reason": "x"}
        noise = [
            asyncio.create_task(
                vera.post(
                    "/v1/fleets/edge/commands", json=asked, headers=viewer | {"Idempotency-Key": f"v{n}"}
                )
            )
            for n in range(20)
        ]
        await asyncio.sleep(1.5)
        began = time.monotonic()
        holding = asyncio.create_task(
            ana.post("/fleets/edge/orders/hold", data=sent, headers={"Origin": place})
        )
        waits = asyncio.create_task(given.wait())
        await asyncio.wait({holding, waits}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        took, was_given = time.monotonic() - began, given.is_set()
        said = f"{took:.1f} s, given {was_given}"
        if holding.done():
            said += f", {holding.result().status_code}: " + re.sub(r"\s+", " ", holding.result().text)[-400:]
        writer.execute("ROLLBACK")
        await asyncio.gather(*noise, holding, return_exceptions=True)
        waits.cancel()
        writer.close()
    assert was_given, said
    assert took < 10, said
