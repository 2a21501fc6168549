"""Whatever goes wrong between the driver and its cluster, and wherever it is killed: the same end."""

import asyncio
import time
from collections import Counter
from contextlib import suppress

import pytest

from deploy.cluster.api import Api
from deploy.cluster.control_plane import API, CONTROLLERS, ControlPlane
from deploy.cluster.faults import Fault, Proxy
from policies.model.errors import Unavailable
from tests.cluster.driver.conftest import Nodes
from tests.cluster.driver.driving import (
    LEASE,
    SETS,
    Driven,
    DyingApi,
    KilledError,
    driver,
    image,
    labels,
    order,
    pods,
    until_done,
)
from tests.sampled import sampled

CHANGED = {"epoch": "2", "b": "true", "ordered": "b"}
"""What a node says of itself after `change`."""
USUAL = (Fault.CONFLICT, Fault.UNAVAILABLE, Fault.CUT_AFTER)
"""Faults of every run: refused, not heard, and obeyed without an answer; the others are in the sweep."""
POINTS = 25
"""Kills before a call is heard, and as many after one is obeyed."""


async def change(one: Driven, node: str) -> None:
    """Bring a gateway whose slot a has the first release to the second one."""
    slot = await until_done(lambda: one.prepare(2, epoch=2, rollout="second"))
    await until_done(lambda: one.cluster.place(order("gw", 2), node, slot, image(2)))
    (old,) = {"a", "b"} - {slot}
    await until_done(lambda: one.cluster.remove(order("gw", 2), node, old, None))


async def begun(plane: ControlPlane, node: str) -> None:
    """Have the gateway serve with the first release."""
    one = driver(plane)
    await one.cluster.place(order("gw"), node, await one.prepare(1), image(1))


def require_changed(admin: Api, node: str) -> None:
    """Say whether the change has come to its end, and nothing else is there."""
    assert labels(admin, node) == CHANGED
    (pod,) = pods(admin, node)
    assert pod["spec"]["containers"][0]["image"].endswith(image(2))
    assert not pod["metadata"].get("deletionTimestamp")


@pytest.mark.parametrize(
    "fault",
    sampled([one for one in Fault if "hang" not in one.value], *USUAL),
    ids=lambda one: one.name,
)
@pytest.mark.parametrize("method", ["GET", "PATCH", "POST", "PUT"])
async def test_a_fault_at_any_kind_of_call_changes_nothing_of_the_end(
    fault: Fault, method: str, driven: ControlPlane, admin: Api, nodes: Nodes, proxy: Proxy
) -> None:
    (node,) = nodes(1)
    await begun(driven, node)
    rule = proxy.inject(fault, method=method, times=2)
    await change(driver(driven, server=proxy.url, holder="driver-1"), node)
    assert rule.struck
    require_changed(admin, node)


async def test_a_server_that_hangs_after_it_has_acted_is_given_up_and_read_back(
    driven: ControlPlane, admin: Api, nodes: Nodes, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.drivers.runtime.kubernetes.api.READ_SECONDS", 1.0)
    (node,) = nodes(1)
    await begun(driven, node)
    for method in ("PATCH", "GET"):
        proxy.inject(Fault.HANGS_AFTER, method=method, path="nodes|daemonsets")
        proxy.inject(Fault.HANGS, method=method, path="nodes|pods")
    began = time.monotonic()
    await change(driver(driven, server=proxy.url), node)
    assert time.monotonic() - began < 30
    require_changed(admin, node)


async def test_a_connection_that_says_nothing_ends_with_its_time(
    driven: ControlPlane, admin: Api, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.drivers.runtime.kubernetes.api.READ_SECONDS", 1.0)
    monkeypatch.setattr("activities.drivers.runtime.kubernetes.api.CONNECT_SECONDS", 1.0)
    one, began = driver(driven, server=proxy.url), time.monotonic()
    with proxy.half_open(), pytest.raises(Unavailable, match=r"did not answer get daemonsets.apps edge-a"):
        await one.prepare(1)
    assert time.monotonic() - began < 5
    assert await one.prepare(1) == "a"


async def test_an_api_server_that_is_killed_in_the_middle_only_takes_time(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,) = nodes(1)
    await begun(driven, node)
    going = asyncio.create_task(change(driver(driven), node))
    await asyncio.sleep(0.4)
    await asyncio.to_thread(driven.kill, API)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(driven.start_again, API)
    await going
    require_changed(admin, node)


async def test_nothing_is_started_before_the_controllers_know_what_a_slot_holds(
    driven: ControlPlane, admin: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node,), one = nodes(1), driver(driven)
    controllers = driven.parts[CONTROLLERS]
    controllers.freeze()
    try:
        with monkeypatch.context() as hasty:
            hasty.setattr("activities.drivers.runtime.kubernetes.cluster.SEEN_AFTER", (0.1,))
            with pytest.raises(Unavailable, match="would start what it held before: try again"):
                await one.prepare(1)
            (slot,) = [name for name in "abc" if image(1) in held(admin, name)]
            with pytest.raises(Unavailable, match="would start what it held before: try again"):
                await one.cluster.place(order("gw"), node, slot, image(1))
        assert not pods(admin, node)
    finally:
        controllers.thaw()
    assert await one.prepare(1) == slot
    await one.cluster.place(order("gw"), node, slot, image(1))


def held(admin: Api, slot: str) -> str:
    found = admin.get(f"{SETS}/edge-{slot}")["spec"]["template"]["spec"]["containers"]
    return " ".join(one["image"] for one in found)


@pytest.mark.parametrize("after", [False, True], ids=["before it is heard", "after it is obeyed"])
async def test_a_driver_killed_at_some_calls_leaves_what_the_next_one_ends(
    after: bool, driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    assert await killed_at_each(driven, admin, nodes, after=after, apart=5) > 3


@pytest.mark.sweep
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("after", [False, True], ids=["before it is heard", "after it is obeyed"])
async def test_a_driver_killed_at_any_call_leaves_what_the_next_one_ends(
    after: bool, driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    kills = 0
    while kills < POINTS:  # a change is a few calls: each of them, and each again
        kills += await killed_at_each(driven, admin, nodes, after=after, apart=1)
    print(f"{kills} kills")


async def killed_at_each(driven: ControlPlane, admin: Api, nodes: Nodes, *, after: bool, apart: int) -> int:
    """Kill a driver at its first call, and so many calls later, and so on; return how often it was killed."""
    at = 1
    while True:
        (node,) = nodes(1)
        await begun(driven, node)
        place, dying = driven.audit.position(), driver(driven, kind=DyingApi)
        assert isinstance(dying.api, DyingApi)
        dying.api.dies_at, dying.api.after = at, after
        with suppress(KilledError):
            await change(dying, node)
        await change(driver(driven), node)
        require_changed(admin, node)
        require_deleted_once(driven, place)
        await as_before(driver(driven), admin, node)
        if not dying.api.dead:
            return at // apart
        at += apart


def require_deleted_once(plane: ControlPlane, place: int) -> None:
    """No pod was told to end twice: each has a name of its own, and kwok only says that it has ended."""
    deletions = [one for one in plane.audit.since(place) if (one.verb, one.resource) == ("delete", "pods")]
    told = Counter(one.name for one in deletions if one.status == 200 and one.user != "test:kwok")
    assert set(told.values()) == {1}, told


async def as_before(one: Driven, admin: Api, node: str) -> None:
    """Have the node end what it runs, and slot b hold nothing that was prepared."""
    assert (await one.cluster.remove(order("gw", 3), node, "b", None)).gone
    annotations = dict.fromkeys(["penstock.dev/release", "penstock.dev/image"])
    admin.merge(f"{SETS}/edge-b", {"spec": {"template": {"metadata": {"annotations": annotations}}}})


async def test_two_drivers_of_one_fleet_never_act_at_once(
    driven: ControlPlane, admin: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.drivers.runtime.kubernetes.lease.FREED_WITHIN", 1.0)
    (node,), one, other = nodes(1), driver(driven), driver(driven, holder="driver-2")
    slot = await one.prepare(1)
    with pytest.raises(Unavailable, match="another driver, driver-1, acts for edge in west"):
        await other.cluster.place(order("gw"), node, slot, image(1))
    assert labels(admin, node) == {}
    await driver(driven).lease.hold()  # who is started anew in its folder goes on at once
    await one.lease.let_go()
    assert (await other.cluster.place(order("gw"), node, slot, image(1))).changed
    assert admin.get(LEASE)["spec"]["holderIdentity"] == "driver-2"
    with pytest.raises(Unavailable, match="another driver, driver-2"):
        await driver(driven).lease.hold()
