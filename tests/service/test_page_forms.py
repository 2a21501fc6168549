"""A form that is refused keeps what was typed and its key, with one sentence and the status of the API."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from orchestrator.service.planning import PlanView
from orchestrator.service.reports import ReportService
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.errors import Refused, Unavailable
from tests.service.page import Patient, link_of, log_in, own, page_of, word_of
from tests.service.test_api import under_way
from tests.service.test_page_markup import hostile_plan

KEY = "the-key-of-this-form"
TYPED = "what somebody typed for a while"
PLAN = "0" * 64


@pytest.fixture
async def browser(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody logged in as root."""
    async with page_of(service, Patient()) as place, httpx.AsyncClient(base_url=place) as client:
        await log_in(client, await link_of(service))
        yield client


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/fleets/edge/orders/hold", {"reason": TYPED}),
        (f"/plans/{PLAN}/approve", {"reason": TYPED}),
        (f"/plans/{PLAN}/start", {"reason": TYPED}),
        ("/changes/edge-1/cause", {"text": TYPED}),
        ("/changes/edge-1/follow-ups", {"text": TYPED, "owner": "somebody.else", "due": "2026-12-24"}),
    ],
)
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Refused("the fleet is frozen"), 422, "Not done"),
        (Unavailable("the engine does not answer"), 503, "It may be done all the same"),
    ],
)
async def test_a_refused_form_keeps_what_was_typed_and_its_key(
    browser: httpx.AsyncClient,
    service: Service,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    form: dict[str, str],
    error: Exception,
    code: int,
    said: str,
) -> None:
    under_way(ledger)

    async def refuses(*_: object, **__: object) -> None:
        raise error

    async def planned(*_: object) -> PlanView:
        return hostile_plan()

    for name in ("command", "start", "approve_plan"):
        monkeypatch.setattr(service, name, refuses)
    for name in ("write_cause", "add_follow_up"):
        monkeypatch.setattr(ReportService, name, refuses)
    monkeypatch.setattr(service, "planned", planned)
    sent = form | {"key": KEY, "csrf": await word_of(browser)}
    answer = await browser.post(path, data=sent, headers=own(browser))
    assert answer.status_code == code, answer.text
    main = answer.text.split("<main", 1)[1]
    assert re.search(rf'role="alert"><strong>{said}:</strong> {error}', main)
    assert f'name="key" value="{KEY}"' in main
    for typed in form.values():
        assert typed in main


async def test_a_refused_choice_of_a_plan_stays_chosen(
    browser: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(*_: object, **__: object) -> None:
        raise Refused("that release was withdrawn")

    monkeypatch.setattr(service, "plan", refuses)
    sent = {"to": "1.3.0", "strategy": "rolling", "csrf": await word_of(browser)}
    answer = await browser.post("/fleets/edge/plan", data=sent, headers=own(browser))
    assert answer.status_code == 422
    assert "that release was withdrawn" in answer.text
