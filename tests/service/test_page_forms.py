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
from tests.service.shown import shown
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


FORMS = (
    ("/fleets/edge/orders/hold", {"reason": TYPED}),
    (f"/plans/{PLAN}/approve", {"reason": TYPED}),
    (f"/plans/{PLAN}/start", {"reason": TYPED}),
    ("/changes/edge-1/cause", {"text": TYPED}),
    ("/changes/edge-1/follow-ups", {"text": TYPED, "owner": "ada", "due": "2096-12-24"}),
)
WRONG = {
    "reason": {"   \n": "the reason is blank", "x" * 600: "the reason has 600 characters; write 500 at most"},
    "text": {" ": "is blank"},
    "owner": {"Ada Lovelace": "no name of an operator; write it as people.yaml does"},
    "due": {"tomorrow": "no day; write it as YYYY-MM-DD"},
}


@pytest.mark.parametrize(
    ("path", "form", "field", "typed", "said"),
    [
        (path, form, field, typed, said)
        for path, form in FORMS
        for field in form
        for typed, said in WRONG[field].items()
    ],
)
async def test_a_field_that_is_wrong_keeps_the_form_and_says_what_to_write(
    browser: httpx.AsyncClient,
    service: Service,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    form: dict[str, str],
    field: str,
    typed: str,
    said: str,
) -> None:
    """Screens 17: blanks as a reason lost form and plan, and showed the pattern of a text."""
    under_way(ledger)

    async def planned(*_: object) -> PlanView:
        return hostile_plan()

    monkeypatch.setattr(service, "planned", planned)
    sent = form | {field: typed, "key": KEY, "csrf": await word_of(browser)}
    answer = await browser.post(path, data=sent, headers=own(browser))
    assert answer.status_code == httpx.codes.BAD_REQUEST, answer.text
    main = answer.text.split("<main", 1)[1]
    assert said in main
    assert "body." not in main
    assert f'name="key" value="{KEY}"' in main
    for other in form.keys() - {field}:
        assert form[other] in main


@pytest.mark.parametrize(
    ("change", "waits", "said"),
    [
        ("edge-7", None, "edge-7 started: "),
        ("edge-7", "waiting for its window", "edge-7 is waiting for its window: "),
        (None, None, "The order is stored, and begins when a worker is back: "),
    ],
)
async def test_a_start_is_answered_with_what_became_of_it(
    browser: httpx.AsyncClient,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    change: str | None,
    waits: str | None,
    said: str,
) -> None:
    """Screens 11: a start led to the page of the fleet, which showed the change before it."""

    async def planned(*_: object) -> PlanView:
        return hostile_plan()

    async def start(*_: object, **__: object) -> str | None:
        return change

    async def waited_for(*_: object) -> str | None:
        return waits

    monkeypatch.setattr(service, "planned", planned)
    monkeypatch.setattr(service, "start", start)
    monkeypatch.setattr(type(service.windows), "waited_for", waited_for)
    sent = {"reason": TYPED, "key": KEY, "csrf": await word_of(browser)}
    answer = await browser.post(f"/plans/{PLAN}/start", data=sent, headers=own(browser))
    assert answer.status_code == httpx.codes.OK, answer.text
    (receipt,) = shown(answer.text).all("p", "given")
    assert receipt.text.startswith(said)
    assert [one.text for one in shown(answer.text).all("a", "button")] == ["Show progress"]
