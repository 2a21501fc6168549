"""The steering table of a real gateway is watched over, and looked at only when something has changed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import pytest

from activities.drivers.programs import run
from activities.drivers.steering import nftables
from activities.drivers.steering.nftables_changes import NftablesChanges
from policies.model.instance import Steering
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.patience import PATIENCE, until

pytestmark = ON_A_REAL_GATEWAY


async def test_the_kernel_tells_of_every_change_and_of_nothing_else(
    lab: GatewayLab,  # noqa: F811
) -> None:
    with NftablesChanges() as changes:
        assert changes.told
        for _ in range(3):
            assert (await run(["nft", "add", "table", "inet", "somebodys"])).status == 0
            assert (await run(["nft", "delete", "table", "inet", "somebodys"])).status == 0
        assert await changes.next(timedelta(seconds=PATIENCE))
        assert (await run(["nft", "list", "ruleset"])).status == 0
        assert not await changes.next(timedelta(milliseconds=200))


async def test_a_table_that_somebody_removed_is_back_and_nobody_had_to_ask(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nftables, "FOLLOW_EVERY", timedelta(minutes=10))
    monkeypatch.setattr(nftables, "HEAL_EVERY", timedelta(milliseconds=50))
    await lab.table.prime()
    looked: list[bool] = []
    heal = lab.table.heal

    async def heard() -> bool:
        looked.append(await heal())
        return looked[-1]

    monkeypatch.setattr(lab.table, "heal", heard)
    async with kept(lab):
        assert (await run(["nft", "flush", "ruleset"])).status == 0
        await until(lambda: True in looked and not looked[-1])  # it hears of its own writing, too
        assert (await run(["nft", "list", "table", *nftables.TABLE.split()])).status == 0
        with NftablesChanges() as changes:
            before = -1
            async with asyncio.timeout(PATIENCE):  # once nothing changes any more, nobody looks again
                while await changes.next(timedelta(milliseconds=500)) or len(looked) != before:
                    before = len(looked)


async def test_a_calm_table_is_not_written_again_and_a_changed_one_is(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = await served(lab, monkeypatch)
    async with kept(lab):
        with NftablesChanges() as changes:
            async with asyncio.timeout(PATIENCE):
                while await changes.next(timedelta(seconds=1)):
                    pass
            assert await rules.flushed() == 0
            async with asyncio.timeout(PATIENCE):
                while await rules.now() != rules.whole:
                    await changes.next(timedelta(seconds=1))


async def test_a_change_that_comes_while_the_table_is_looked_at_is_not_missed(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = await served(lab, monkeypatch)
    refresh = lab.table.refresh
    flushed: list[int] = []

    async def and_somebody_flushes() -> Steering:
        steering = await refresh()
        if not flushed:
            flushed.append(await rules.flushed())
        return steering

    monkeypatch.setattr(lab.table, "refresh", and_somebody_flushes)
    async with kept(lab):
        await until(lambda: flushed == [0])
        await until(rules.are_whole)


@dataclass(frozen=True)
class Rules:
    """The rules of a table, without who wrote them last, which is told by the rules alone."""

    chain: str
    whole: list[str]

    async def now(self) -> list[str]:
        return await rules_of(self.chain)

    async def are_whole(self) -> bool:
        return await self.now() == self.whole

    async def flushed(self) -> int:
        return (await run(["nft", "flush", "chain", *nftables.TABLE.split(), self.chain])).status


async def served(lab: GatewayLab, monkeypatch: pytest.MonkeyPatch) -> Rules:  # noqa: F811
    """Return the rules by which the gateway serves, once they are looked at at a quick pace."""
    monkeypatch.setattr(nftables, "FOLLOW_EVERY", timedelta(milliseconds=300))
    monkeypatch.setattr(nftables, "HEAL_EVERY", timedelta(milliseconds=50))
    await lab.table.make_permanent(operation("serve"), await lab.running("1.1.6"))
    chain = await first_chain()
    return Rules(chain, await rules_of(chain))


async def rules_of(chain: str) -> list[str]:
    listed = (await run(["nft", "list", "chain", *nftables.TABLE.split(), chain])).out
    return [line.partition(" comment ")[0] for line in listed.splitlines()]


@asynccontextmanager
async def kept(lab: GatewayLab) -> AsyncIterator[None]:  # noqa: F811
    """Have the table kept for the length of the body."""
    keeping = asyncio.create_task(lab.table.keep())
    try:
        yield
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


async def first_chain() -> str:
    listed = json.loads((await run(["nft", "-j", "list", "table", *nftables.TABLE.split()])).out)["nftables"]
    name: str = next(entry["chain"]["name"] for entry in listed if "chain" in entry)
    return name
