"""A HAProxy that carries users' connections: real HAProxy, real daemons, real clients."""

import asyncio
import signal
import time
from contextlib import suppress
from datetime import timedelta

import pytest

from activities.drivers.programs import run
from activities.drivers.steering.haproxy import PINS
from activities.drivers.steering.haproxy_socket import HaproxySocket
from policies.model.errors import Conflict, Unavailable
from tests.drivers.carried import addresses, carried, sides_of
from tests.drivers.front_lab import BalancerLab, move
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    balancer,
    built_balancer,
    orders_wait,
)
from tests.drivers.gateway_lab import operation
from tests.patience import until

pytestmark = [*ON_A_REAL_GATEWAY, pytest.mark.usefixtures("orders_wait")]
LEASE = timedelta(minutes=5)


async def serving(lab: BalancerLab) -> str:
    slot = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), slot)
    return slot


async def over_tcp(lab: BalancerLab, number: int) -> Client:
    person = lab.client(number, more=("--no-dtls",))
    await person.until("penstock: tunnel")
    return person


async def test_a_switch_and_its_way_back_cost_nobody_a_ping(balancer: BalancerLab) -> None:  # noqa: F811
    old = await serving(balancer)
    people = [await balancer.client(1).up(), await over_tcp(balancer, 2)]
    for person in people:
        person.ping(old)
    new = await balancer.running("2")
    await balancer.table.start_trial(operation("trial"), new, LEASE)
    await balancer.client(3).up()
    await balancer.table.end_trial(operation("back"))
    await balancer.client(4).up()
    assert [await balancer.home_of(number) for number in (1, 2, 3, 4)] == [old, old, new, old]
    counts = [person.lost() for person in people]
    assert min(sent for sent, _ in counts) > 10
    assert [lost for _, lost in counts] == [0, 0]


async def test_instances_know_from_where_their_users_come(balancer: BalancerLab) -> None:  # noqa: F811
    old = await serving(balancer)
    await balancer.client(1).up()
    person = balancer.client(2, version=6, more=("--no-dtls",))
    await person.until("penstock: tunnel")
    sessions = (await balancer.folders.live())[old]
    assert {one.remote_address for one in sessions or ()} == {"10.77.0.11", "fd77::12"}


@pytest.mark.sweep
async def test_who_reconnects_finds_the_own_instance(balancer: BalancerLab) -> None:  # noqa: F811
    old = await serving(balancer)
    person = await balancer.client(1).up()
    new = await balancer.running("2")
    await balancer.table.start_trial(operation("trial"), new, LEASE)
    trying = await balancer.client(2).up()
    await balancer.table.refresh()  # as its keeper does
    person.reconnect()
    await person.until("Established DTLS", times=2)
    assert await balancer.home_of(1) == old
    await balancer.table.start_trial(operation("trial"), new, timedelta(seconds=2))
    await asyncio.sleep(2.1)
    assert (await balancer.table.read()).trial is None
    trying.reconnect()
    await trying.until("Established DTLS", times=2)
    assert await balancer.home_of(2) == new


@pytest.mark.sweep
async def test_a_lease_nobody_confirms_ends_by_itself_in_time(balancer: BalancerLab) -> None:  # noqa: F811
    old = await serving(balancer)
    new = await balancer.running("2")
    await balancer.table.start_trial(operation("trial"), new, LEASE)
    await balancer.client(1).up()
    await balancer.table.start_trial(operation("trial"), new, timedelta(seconds=5))
    begun = time.monotonic()
    await asyncio.sleep(5.1 - (time.monotonic() - begun))
    await balancer.client(2).up()
    assert [await balancer.home_of(number) for number in (1, 2)] == [new, old]


@pytest.mark.sweep
async def test_the_end_of_haproxy_costs_seconds_and_no_session(balancer: BalancerLab) -> None:  # noqa: F811
    old = await serving(balancer)
    people = [await balancer.client(1).up(), await over_tcp(balancer, 2)]
    new = await balancer.running("2")
    await balancer.table.make_permanent(operation("keep new"), new)
    before = {one.id: one.vpn_address for one in (await balancer.folders.live())[old] or ()}
    for person in people:
        person.ping(old)
    keeping = asyncio.create_task(balancer.table.keep())
    balancer.haproxy.tell(signal.SIGKILL)
    for person in people:
        await person.until("Connected to HTTPS", times=2)
    await people[0].until("Established DTLS", times=2)
    await asyncio.sleep(1)
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    after = {one.vpn_address for one in (await balancer.folders.live())[old] or () if one.connected}
    assert after == set(before.values())
    assert all(person.alive for person in people)
    print("pings sent and lost by who came back:", [person.lost() for person in people])
    await balancer.client(3).up()
    assert await balancer.home_of(3) == new


@pytest.mark.sweep
async def test_a_haproxy_that_somebody_reloaded_cuts_nobody_and_is_written_again(
    balancer: BalancerLab,  # noqa: F811
) -> None:
    old = await serving(balancer)
    person = await over_tcp(balancer, 1)
    person.ping(old)
    new = await balancer.running("2")
    await balancer.table.start_trial(operation("trial"), new, LEASE)
    balancer.reloaded_by_somebody()

    async def is_reloaded() -> bool:
        with suppress(Unavailable):
            return (await balancer.table.read()).trial is None
        return False

    await until(is_reloaded)
    assert await balancer.table.heal()
    await balancer.client(2).up()
    assert [await balancer.home_of(number) for number in (1, 2)] == [old, new]
    person.reconnect()
    await person.until("Connected to HTTPS", times=2)
    assert await balancer.home_of(1) == old
    assert person.alive


@pytest.mark.sweep
async def test_who_reconnects_finds_the_own_instance_though_somebody_emptied_the_map(
    balancer: BalancerLab,  # noqa: F811
) -> None:
    old = await serving(balancer)
    person = await balancer.client(1).up()
    new = await balancer.running("2")
    await balancer.table.make_permanent(operation("keep new"), new)
    assert not await balancer.table.heal()
    await HaproxySocket(balancer.front / "haproxy.sock", "gw-1").order(f"clear map {balancer.front / PINS}")
    assert await balancer.table.heal()
    assert not await balancer.table.heal()
    person.reconnect()
    await person.until("Established DTLS", times=2)
    assert await balancer.home_of(1) == old


@pytest.mark.sweep
async def test_a_haproxy_that_is_told_who_has_a_session_where_and_does_not_keep_it_is_noticed(
    balancer: BalancerLab,  # noqa: F811
) -> None:
    await serving(balancer)
    await balancer.client(1).up()
    new = await balancer.running("2")
    async with balancer.simulated_liar(lambda said: PINS in said and not said.startswith("show")) as taken:
        with pytest.raises(Conflict, match="1 of the addresses with a session are led elsewhere"):
            await balancer.table.make_permanent(operation("keep new"), new)
        assert taken
    await balancer.table.make_permanent(operation("keep new"), new)


@pytest.mark.sweep
async def test_who_changes_networks_while_the_instance_drains_loses_the_session(
    balancer: BalancerLab,  # noqa: F811
) -> None:
    await serving(balancer)
    person = await balancer.client(6).up()
    new = await balancer.running("2")
    await balancer.table.make_permanent(operation("keep new"), new)
    assert "drains logs in again" in balancer.table.promises.sentence
    move(balancer, person, 116)
    person.reconnect()
    await until(lambda: not person.alive)
    assert person.said("Cookie was rejected") + person.said("401") + person.said("Cookie is not") > 0


@pytest.mark.sweep
async def test_a_share_is_kept_within_three_points_over_two_thousand_addresses(
    balancer: BalancerLab,  # noqa: F811
) -> None:
    old = await serving(balancer)
    new = await balancer.running("2")
    site, sources = f"{balancer.prefix}c5", addresses(2000)
    await run(["ip", "-n", site, "route", "replace", "local", "10.88.0.0/16", "dev", "lo"])
    await run(["ip", "route", "replace", "10.88.0.0/16", "via", "10.77.0.15"])
    person = await balancer.client(1).up()
    person.ping(old)
    ports = {slot.port: slot.name for slot in balancer.gateway.slots}
    chosen: list[set[str]] = []
    with carried(balancer.namespace, ports) as watched:
        for share, asked in ((25, sources), (50, sources[:400])):
            renew = bool(chosen)
            await balancer.table.start_trial(operation("trial"), new, LEASE, renew=renew, share=share)
            sides = await sides_of(watched, site, asked, "10.77.0.1", 443)
            chosen.append({source for source, slot in sides.items() if slot == new})
    assert abs(len(chosen[0]) / 20 - 25) < 3, f"{len(chosen[0])} of 2000 for 25%"
    assert chosen[0] & set(sources[:400]) < chosen[1]
    assert person.lost()[1] == 0
    assert await balancer.home_of(1) == old
