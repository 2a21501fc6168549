"""Each kind of request takes of its own bucket, and none of them takes of none."""

import re

import httpx
import pytest

from orchestrator.api.limits import PER_MINUTE, Kind
from orchestrator.store.ledger import Ledger
from policies.model.people import Role
from tests.service.conftest import PAGE
from tests.service.test_api import token

pytestmark = pytest.mark.usefixtures("no_refill")


async def test_a_busy_screen_keeps_its_own_operator_from_no_hold_on_the_page(
    page: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1 again, a fresh reader's LOW: hold and its sheet took from the bucket of looks first."""
    monkeypatch.setitem(PER_MINUTE, Kind.LOOK, 10)
    looks = [(await page.get("/fleets/edge")).status_code for _ in range(2 * Kind.LOOK.size)]
    assert looks[-1] == 429
    assert (await page.get("/fleets/edge/orders/resume")).status_code == 429
    form = await page.get("/fleets/edge/orders/hold")
    assert form.status_code == 200
    sent = dict(re.findall(r'name="(csrf|key)" value="([^"]+)"', form.text)) | {"reason": "x"}
    held = await page.post("/fleets/edge/orders/hold", data=sent, headers={"Origin": PAGE})
    assert held.status_code != 429


async def test_a_description_that_is_refused_takes_of_a_bucket(
    api: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1 again, a fresh reader's LOW: each refusal was a write of the ledger."""
    monkeypatch.setitem(PER_MINUTE, Kind.LOOK, 10)
    shown = token(ledger, Role.VIEWER)
    codes = [
        (
            await api.post("/fleets/edge/description", json={}, headers=shown | {"Idempotency-Key": f"{n}"})
        ).status_code
        for n in range(2 * Kind.LOOK.size)
    ]
    assert codes == [403] * Kind.LOOK.size + [429] * Kind.LOOK.size


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/releases/verify", {"fleet": "edge", "digest": f"sha256:{'0' * 64}"}),
        ("GET", "/audit/export", None),
        ("POST", "/tokens/deploy-bot/revoke", {"reason": "it is lost"}),
    ],
)
async def test_a_question_that_is_written_into_a_record_takes_of_the_bucket_of_changes(
    api: httpx.AsyncClient, method: str, path: str, body: dict[str, str] | None
) -> None:
    """Each was an entry that is kept for ever, and 600 of them a minute were answered."""
    codes = [(await api.request(method, path, json=body)).status_code for _ in range(Kind.CHANGE.size + 1)]
    assert codes[-2] != 429
    assert codes[-1] == 429
