"""Releases that callers have verified: in few threads of their own, in turn by person, off the event loop."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.processes.composition import Installation, compose
from orchestrator.processes.worker import fetch_index
from orchestrator.service.background import VERIFICATIONS
from orchestrator.service.releases import MOST_RELEASES
from orchestrator.store.ledger import Ledger
from policies.model.errors import PenstockError, TooMany
from policies.model.people import Caller, Role, Via
from tests.activities.test_source_credentials import longest_pause
from tests.fakes.silent import silent_server, silent_vault
from tests.patience import PATIENCE, until
from tests.service.conftest import installed

AWAY = "http://127.0.0.1:1"
"""A repository that refuses connections."""


@pytest.fixture
def repository() -> Iterator[str]:
    """A repository that accepts connections and answers nothing."""
    with silent_server() as address:
        yield address


@pytest.fixture
async def installation(tmp_path: Path, ledger: Ledger) -> AsyncIterator[Installation]:
    """Whose API shares one thread among all callers."""
    del ledger
    made = await compose(installed(tmp_path))
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    yield made
    loop.set_default_executor(ThreadPoolExecutor())  # later tests have the same loop


def releases_are_at(installation: Installation, address: str, **more: object) -> None:
    object.__setattr__(installation.releases, "source", address)
    sources = {"allow": [address], **more}
    installation.settings.trust.write_text(json.dumps({"version": 1, "rules": [], "sources": sources}))
    installation.settings.trust.chmod(0o600)


def verify(installation: Installation, person: str, number: int = 0) -> "asyncio.Task[object]":
    caller = Caller(person=person, grants={"edge": frozenset({Role.CI})}, via=Via.API, machine=True)
    asked = installation.service.verify_release(caller, "edge", f"sha256:{number:064x}")
    return asyncio.create_task(asked)


async def refusal(installation: Installation) -> str:
    """Return why a release of the repository is not verified now."""
    with pytest.raises(PenstockError) as refused:
        await verify(installation, "bot", 2)
    return str(refused.value)


async def test_a_ledger_that_hangs_for_a_verification_does_not_stop_the_event_loop(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12: the known-good of every fleet was read on it; a hold was answered 25 s later."""
    releases_are_at(installation, AWAY)
    known_good, begun, free = Ledger.known_good, threading.Event(), threading.Event()

    def hanging(ledger: Ledger, fleet: str) -> object:
        begun.set()
        assert free.wait(PATIENCE), "the event loop does nothing else meanwhile"
        return known_good(ledger, fleet)

    monkeypatch.setattr(Ledger, "known_good", hanging)
    asked = verify(installation, "bot")
    await until(begun.is_set)
    assert not asked.done()
    free.set()
    await asyncio.gather(asked, return_exceptions=True)


async def test_a_vault_that_hangs_for_a_verification_does_not_stop_the_event_loop(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12: four verifications by one machine delayed a hold for 45 s."""
    monkeypatch.setattr("activities.drivers.credentials.VAULT_SECONDS", 1.5)
    with silent_vault(tmp_path, monkeypatch) as reference:
        releases_are_at(installation, AWAY, credentials={AWAY: reference})
        asked = verify(installation, "bot")
        assert await longest_pause(asyncio.gather(asked, return_exceptions=True)) < 1
    assert "Vault does not give secret/data/penstock" in str(asked.exception())


async def test_verifications_at_a_silent_repository_take_no_thread_that_all_callers_share(
    installation: Installation, repository: str
) -> None:
    """R12: each held one of the API's threads for 15 minutes; 35 of one machine held all of them."""
    releases_are_at(installation, repository)
    asked = [verify(installation, person, n) for n in range(3) for person in ("bot", "other-bot")]
    await until(lambda: sum(one.done() for one in asked) >= 2)
    refused = [one for one in asked if one.done()]
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), PATIENCE) == "free"
    assert refused == asked[4:]
    for one in refused:
        with pytest.raises(TooMany, match="bot has 2 long requests under way; ask again in 2 s"):
            await one
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_a_verification_ends_with_its_caller(installation: Installation, repository: str) -> None:
    releases_are_at(installation, repository)
    asked = [verify(installation, "bot", number) for number in range(2)]
    await until(lambda: VERIFICATIONS._tasks["bot"] == len(asked) and not VERIFICATIONS._queues)
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    releases_are_at(installation, AWAY)

    async def is_there_a_place() -> bool:
        return "Connection refused" in await refusal(installation)

    await until(is_there_a_place)  # long before the 15 minutes that the repository has


async def test_a_verification_that_found_no_place_is_none_of_the_hours_releases(
    installation: Installation, repository: str
) -> None:
    releases_are_at(installation, repository)
    held = [verify(installation, "bot", number) for number in range(2)]
    await until(lambda: VERIFICATIONS._tasks["bot"] == len(held))
    for number in range(2, MOST_RELEASES + 2):
        with pytest.raises(TooMany, match="long requests under way"):
            await verify(installation, "bot", number)
    assert len(installation.releases.verdicts._recorded["bot"]) == len(held)
    for one in held:
        one.cancel()
    await asyncio.gather(*held, return_exceptions=True)


async def test_a_worker_fetches_indexes_in_no_thread_that_its_steps_use(
    installation: Installation, repository: str
) -> None:
    releases_are_at(installation, repository)
    settings = installation.settings.model_copy(update={"source": repository})
    fetching = asyncio.create_task(fetch_index(settings, "ocserv", "stable"))
    await asyncio.sleep(1)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), PATIENCE) == "free"
    fetching.cancel()
    await asyncio.wait_for(asyncio.gather(fetching, return_exceptions=True), PATIENCE)
