"""What refusals of known callers cost the audit record, and whom they delay."""

import asyncio
import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from orchestrator.refusals import HOUR_SECONDS
from orchestrator.service import patience
from orchestrator.service.caller_refusals import MOST_ENTRIES, CallerRefusals
from orchestrator.service.identity import IdentityProvider, Vouched
from orchestrator.service.service import Service
from orchestrator.store.later import LateEntries
from orchestrator.store.ledger import Ledger
from policies.model.errors import NotAllowed
from policies.model.people import Caller, Role, Via
from tests.patience import PATIENCE
from tests.service.test_api import token
from tests.service.test_refusals import Clock

PROVIDED = """\
apiVersion: penstock/v1
people:
  - {name: ana, subjects: [s-ana], roles: {edge: [operator]}}
oidc: {issuer: https://idp.example, audience: penstock, client: penstock}
"""

VIEWER = Caller(person="robot", grants={"edge": frozenset({Role.VIEWER})}, via=Via.API, machine=True)
HOLD = {"kind": "hold", "reason": "x"}


async def hold(api: httpx.AsyncClient, key: str, headers: dict[str, str] | None = None) -> int:
    shown = (headers or {}) | {"Idempotency-Key": key}
    answer = await api.post("/fleets/edge/commands", json=HOLD, headers=shown, timeout=PATIENCE)
    return answer.status_code


def test_refusals_of_one_caller_are_a_bounded_number_of_entries_an_hour(
    ledger: Ledger, tmp_path: Path
) -> None:
    """S3 again, a fresh reader's M2: each refused look at the record was an entry of it."""
    clock = Clock()
    refusals = CallerRefusals(ledger, LateEntries(tmp_path / "late.jsonl"), clock)
    for number in range(10 * MOST_ENTRIES):
        refusals.note(VIEWER, "edge", "edge", {"why": f"not {number}"})
    assert len(ledger.audit_entries()) == MOST_ENTRIES
    assert refusals.write() == 0
    clock.now = HOUR_SECONDS
    assert (refusals.write(), refusals.write()) == (1, 0)
    assert json.loads(ledger.audit_entries()[-1].body)["count"] == 9 * MOST_ENTRIES


@pytest.mark.parametrize(
    "path", ["/audit", "/audit/newest", "/audit/head", "/audit/export", "/notices/outbox/x"]
)
async def test_a_viewer_who_asks_for_the_record_again_and_again_is_in_it_once(
    path: str, api: httpx.AsyncClient, ledger: Ledger
) -> None:
    """S3 again, a fresh reader's M2."""
    shown = token(ledger, Role.VIEWER)
    before = len(ledger.audit_entries())
    codes = [(await api.get(path, headers=shown)).status_code for _ in range(10)]
    assert set(codes) == {403}
    assert [one.action for one in ledger.audit_entries()[before:]] == ["refused"]


async def test_a_refused_hold_takes_no_thread_of_those_that_authorise_while_the_writer_hangs(
    api: httpx.AsyncClient, ledger: Ledger, tmp_path: Path
) -> None:
    """S1 again, a fresh reader's H5: eight refused holds of a viewer kept everybody from holding."""
    shown = token(ledger, Role.VIEWER)
    order = list[str]()

    async def asked(key: str, headers: dict[str, str] | None = None) -> int:
        status = await hold(api, key, headers)
        order.append(key)
        return status

    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = await asyncio.gather(
            *(asked(f"viewer-{n}", shown) for n in range(3 * patience.SAFE_THREADS))
        )
        await asked("root")
        other.execute("ROLLBACK")
    assert {403} <= {*refused} <= {403, 429}
    assert order[-1] == "root"


async def test_the_socket_waits_for_no_look_up_of_a_strangers_token(
    api: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1 again, a fresh reader's M5: a database that stands still had made-up tokens wait before root."""
    del ledger
    begun, ended = threading.Semaphore(0), threading.Event()

    def caller_of(*_: object) -> None:
        begun.release()
        ended.wait(PATIENCE)
        raise NotAllowed("that token is not known here")

    monkeypatch.setattr(Ledger, "caller_of", caller_of)
    made_up = {"Authorization": f"Bearer pst_{'0' * 16}_{'A' * 43}"}
    strangers = [asyncio.create_task(api.get("/whoami", headers=made_up)) for _ in range(30)]
    try:
        for _ in range(patience.RECOGNISING):
            await asyncio.to_thread(begun.acquire, timeout=PATIENCE)
        assert (await api.get("/whoami", timeout=PATIENCE / 2)).json()["person"] == "root"
        assert not any(one.done() for one in strangers)
    finally:
        ended.set()
        await asyncio.gather(*strangers, return_exceptions=True)


async def test_who_comes_by_the_identity_provider_waits_for_nobodys_work(
    api: httpx.AsyncClient, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1 again, a fresh reader's H5: a login of the provider was read in the threads of everybody's plans."""
    del service
    (tmp_path / "people.yaml").write_text(PROVIDED)
    vouched = Vouched(issuer="https://idp.example", subject="s-ana")
    monkeypatch.setattr(IdentityProvider, "vouched", lambda *_: vouched)
    ended = threading.Event()
    loop = asyncio.get_running_loop()
    busy = [loop.run_in_executor(None, ended.wait) for _ in range(100)]
    try:
        assert await hold(api, "h", {"Authorization": "Bearer eyJ"}) not in {401, 403, 500}
    finally:
        ended.set()
        await asyncio.gather(*busy)
