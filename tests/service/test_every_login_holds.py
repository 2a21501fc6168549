"""People hold and roll back by every kind of login while other callers use up all that callers share."""

import asyncio
import hashlib
import hmac
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.exc import TimeoutError as PoolTimeout

from orchestrator.service.identity import Vouched
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening
from policies.model.people import Role
from tests.service.chat_rooms import USERS, Process, code_in, link, with_chat
from tests.service.chat_rooms import token as token_of_chat
from tests.service.conftest import PAGE
from tests.service.test_api import token
from tests.service.test_safe_direction import Night, night
from tests.service.test_who_holds_by_the_provider import Provider, provider, signed
from tests.workflows.conftest import engines, server  # noqa: F401 - fixtures

__all__ = ["night", "provider"]

PEOPLE = """\
apiVersion: penstock/v1
oidc: {{issuer: "{issuer}", audience: penstock, client: penstock}}
people:
  - {{name: ana, subjects: [ana], system_users: ["uid:{uid}"], roles: {{edge: [operator]}}}}
"""

Order = Callable[[str], Awaitable[None]]
"""Gives `hold` or `roll_back` to the fleet edge."""


def by_request(night: Night, shown: dict[str, str]) -> Order:
    async def give(kind: str) -> None:
        asked = {"kind": kind, "reason": "it hurts"}
        headers = shown | {"Idempotency-Key": kind}
        answer = await night.api.post("/fleets/edge/commands", json=asked, headers=headers)
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.json()["accepted"], answer.text

    return give


def by_page(night: Night, secret: str) -> Order:
    csrf = hmac.new(secret.encode(), b"penstock form", hashlib.sha256).hexdigest()

    async def give(kind: str) -> None:
        sent = {"csrf": csrf, "key": kind, "reason": "it hurts"}
        headers = {"Origin": PAGE, "Cookie": f"penstock={secret}"}
        answer = await night.api.post(f"{PAGE}/fleets/edge/orders/{kind}", data=sent, headers=headers)
        assert answer.status_code == httpx.codes.OK, answer.text

    return give


async def at_the_socket(night: Night, ledger: Ledger, provider: Provider) -> Order:
    del ledger, provider
    return by_request(night, {})


async def by_token(night: Night, ledger: Ledger, provider: Provider) -> Order:
    del provider
    return by_request(night, token(ledger, Role.OPERATOR))


async def by_provider(night: Night, ledger: Ledger, provider: Provider) -> Order:
    del ledger
    return by_request(night, {"Authorization": f"Bearer {signed(provider)}"})


async def by_link_at_the_page(night: Night, ledger: Ledger, provider: Provider) -> Order:
    del ledger, provider
    service = night.installation.service
    link = await service.page_logins.make_link(service.people.at_the_socket(USERS["ana"]), USERS["ana"])
    return by_page(night, await service.page_logins.open_link(link.url.rpartition("/")[2], "192.0.2.1"))


async def by_provider_at_the_page(night: Night, ledger: Ledger, provider: Provider) -> Order:
    del ledger
    vouched = Vouched(issuer=provider.issuer, subject="ana")
    return by_page(night, await night.installation.service.page_logins.begin("ana", vouched, "192.0.2.1"))


async def by_chat(night: Night, ledger: Ledger, provider: Provider) -> Order:
    del provider
    with_chat(night.folder)
    link(ledger, "ana")
    room = Process(night.api, token_of_chat(ledger))

    async def give(kind: str) -> None:
        if kind == "hold":
            answer = await room.say("ana", "hold edge it hurts")
        else:
            code = code_in(await room.say("ana", "rollback edge it hurts"))
            answer = await room.say("ana", f"confirm {code}")
        assert answer.begun, answer.text

    return give


LOGINS = (at_the_socket, by_token, by_provider, by_link_at_the_page, by_provider_at_the_page, by_chat)


@contextmanager
def all_that_callers_share_is_used_up(night: Night) -> Iterator[None]:
    """Let the connections of the shared ledger and the shared threads be in use until the end."""
    over = threading.Event()

    def wait_in_vain(*_: object) -> None:
        over.wait()
        raise PoolTimeout("QueuePool limit of size 5 overflow 10 reached")

    engine, loop = night.installation.ledger.engine, asyncio.get_running_loop()
    threads = ThreadPoolExecutor(1)
    loop.set_default_executor(threads)
    threads.submit(over.wait)
    event.listen(engine, "checkout", wait_in_vain)
    try:
        yield
    finally:
        over.set()
        event.remove(engine, "checkout", wait_in_vain)
        loop.set_default_executor(ThreadPoolExecutor())  # later tests have the same loop
        threads.shutdown()


@pytest.mark.sweep
@pytest.mark.parametrize("login", LOGINS)
async def test_a_hold_and_a_rollback_by_every_login_wait_for_nothing_that_callers_share(
    login: Callable[[Night, Ledger, Provider], Awaitable[Order]], night: Night, provider: Provider
) -> None:
    (night.folder / "people.yaml").write_text(PEOPLE.format(issuer=provider.issuer, uid=USERS["ana"]))
    ledger = Ledger.open(night.settings.ledger_url)
    ledger.open_change(
        ChangeOpening(
            key="the change under way",
            fleet="edge",
            kind=ChangeKind.UPGRADE,
            requested_by="eve",
            reason="new features",
            release="1.4.0",
        )
    )
    give = await login(night, ledger, provider)
    with all_that_callers_share_is_used_up(night):
        await give("hold")
        await give("roll_back")
    assert len(await night.heard()) == 2
