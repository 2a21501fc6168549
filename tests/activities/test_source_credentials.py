"""A source's credential is resolved by the first request that shows it, and by nothing else."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.admission import AdmitOrder, ReleaseActivities
from policies.model.errors import BadInput, Unavailable
from policies.model.host import Host
from policies.model.plan import ReleaseRef
from policies.model.refusals import SignerNotAllowed
from policies.model.release import Platform
from tests.activities.test_known_good_in_time import known_good, need, signed_by_lead, sigstore
from tests.fakes.silent import silent_vault
from tests.fakes.stage import CHANNEL, PRODUCT, Stage
from tests.patience import PATIENCE

HERE = Host(platform=Platform(os="linux", arch="amd64"))
SOON = PATIENCE
"""Seconds in which everything here is done; Vault is waited for twice as long."""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("activities.drivers.credentials.VAULT_SECONDS", 2 * SOON)
    with silent_vault(tmp_path, monkeypatch) as reference:
        yield reference


def needs(stage: Stage, **secrets: str) -> None:
    """Have the repository need this credential, and other origins theirs."""
    origins = {"own": stage.server.url, "other": "http://127.0.0.1:5000"}
    credentials = {origins[name]: secret for name, secret in secrets.items()}
    allow = [*origins.values()]
    stage.change_policy(lambda policy: policy["sources"].update(allow=allow, credentials=credentials))


async def longest_pause(work: Awaitable[object]) -> float:
    """Do the work; return for how many seconds the event loop did nothing else at the longest."""
    longest = 0.0

    async def pulse() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.02)
            longest = max(longest, time.monotonic() - began)

    beating = asyncio.create_task(pulse())
    await asyncio.sleep(0.05)
    try:
        await work
    finally:
        await asyncio.sleep(0.05)
        beating.cancel()
    return longest


async def _admitted(stage: Stage, release: ReleaseRef) -> None:
    await stage.compose().admit(release, stage.server.url, host=HERE)


async def _vouched(stage: Stage, release: ReleaseRef) -> None:
    await stage.compose().vouch(release, stage.server.url)


async def _has_a_way_back(stage: Stage, release: ReleaseRef) -> None:
    await stage.compose().require_way_back(release, stage.server.url)


@pytest.mark.parametrize("secret", ["file:/gone", "env:NOT_SET_AT_ALL", "vault"])
@pytest.mark.parametrize("step", [_admitted, _vouched, _has_a_way_back])
async def test_the_way_back_needs_no_credential_of_the_repository(
    stage: Stage, vault: str, secret: str, step: Callable[[Stage, ReleaseRef], Awaitable[None]]
) -> None:
    release = await known_good(stage)
    needs(stage, own=vault if secret == "vault" else secret)
    began = time.monotonic()
    await step(stage, release)
    assert time.monotonic() - began < SOON


async def test_a_credential_that_is_missing_refuses_a_new_release_by_name_and_on_record(stage: Stage) -> None:
    needs(stage, own="file:/gone")
    with pytest.raises(BadInput, match="the credential file /gone cannot be read"):
        await stage.admit()
    assert stage.verdicts() == ["BadInput"]


async def test_the_credential_of_another_origin_is_not_resolved(stage: Stage, vault: str) -> None:
    needs(stage, other=vault)
    began = time.monotonic()
    await stage.admit()
    assert time.monotonic() - began < SOON


async def test_a_silent_vault_stops_neither_the_event_loop_nor_heartbeats(
    stage: Stage, vault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker sent no heartbeat for 10 s, and every other step and workflow waited."""
    monkeypatch.setattr("activities.drivers.credentials.VAULT_SECONDS", 2.5)
    release = (await stage.admit()).reference
    needs(stage, own=vault, other=vault)
    beats = list[float]()
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *_: beats.append(time.monotonic())
    order = AdmitOrder(release=release, source=stage.server.url, product=PRODUCT, channel=CHANNEL)

    async def refused() -> None:
        with pytest.raises(ApplicationError, match="Vault does not give secret/data/penstock: deadline"):
            await environment.run(ReleaseActivities(stage.compose()).admit_release, order)

    assert await longest_pause(refused()) < 1
    assert beats


async def test_a_silent_vault_is_waited_for_no_longer_than_the_source_itself(
    stage: Stage, vault: str
) -> None:
    stage.change_policy(lambda policy: policy["sources"].update(deadline_s=0.5))
    needs(stage, own=vault)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="Vault does not give"):
        await stage.admit()
    assert time.monotonic() - began < SOON


async def test_a_silent_vault_is_left_when_the_step_is_cancelled(stage: Stage, vault: str) -> None:
    needs(stage, own=vault)
    step = asyncio.create_task(stage.admit())
    await asyncio.sleep(0.5)
    step.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert time.monotonic() - began < SOON


async def test_a_silent_vault_holds_no_check_of_the_way_back_up(
    stage: Stage, vault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secret was resolved before the bound of four seconds began."""
    signed_by_lead(stage, "openpgp")
    release = await known_good(stage)
    need(stage, sigstore(stage, stage.lab.builder))
    needs(stage, own=vault)
    monkeypatch.setattr("activities.releases.SIGNED_ANEW_WITHIN", timedelta(milliseconds=200))
    began = time.monotonic()
    with pytest.raises(SignerNotAllowed):
        await stage.compose().require_way_back(release, stage.server.url)
    assert time.monotonic() - began < SOON
