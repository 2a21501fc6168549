"""Users who change networks while their instance drains, on real gateways with real clients."""

import asyncio

import pytest

from activities.drivers.programs import run
from tests.drivers.front_lab import BalancerLab, RedirectLab
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    balancer,
    built_balancer,
    built_lab,
    built_openvpn,
    built_redirect,
    lab,
    openvpn,
    redirect,
)
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.networks import Change, Changed, change_networks
from tests.drivers.openvpn_lab import OpenVpnLab

pytestmark = [*ON_A_REAL_GATEWAY, pytest.mark.sweep]
WATCHED = 20.0
"""Seconds in which every client has found out by itself: the lab's notice a dead peer after ten."""
CHANGES = tuple(Change)


async def noticed(lab: GatewayLab, changes: tuple[Change, ...] = CHANGES) -> dict[Change, Changed]:  # noqa: F811
    found = await change_networks(lab, changes, watched=WATCHED)
    print(*found, sep="\n")
    assert all(one.pings_sent > 300 for one in found)
    return {one.change: one for one in found}


async def test_with_nftables_who_is_rebound_keeps_the_session_and_waits_for_less_than_five_seconds(
    lab: GatewayLab,  # noqa: F811
) -> None:
    found = await noticed(lab)
    kept = {how for how, one in found.items() if one.kept}
    assert kept == {Change.ADDRESS, Change.PORT, Change.MOVED}
    gaps = [found[how].gap_s for how in (Change.ADDRESS, Change.PORT)]
    assert all(gap is not None and gap < 5 for gap in gaps)


async def test_who_stays_where_she_is_and_whose_flow_the_kernel_forgot_has_her_session_back_at_once(
    lab: GatewayLab,  # noqa: F811
) -> None:
    old = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), old)
    person = await lab.client(6).up()
    new = await lab.running("2")
    await lab.table.make_permanent(operation("keep new"), new)
    person.ping(old)
    await asyncio.sleep(1)
    forgotten = await run(["conntrack", "-D", "-p", "udp", "-s", "10.77.0.16"])
    assert forgotten.status == 0, forgotten.err
    await person.until("Established DTLS", times=2)
    await asyncio.sleep(2)
    print("a flow that the kernel forgot:", person.lost(), person.gap())
    assert person.gap() < 5
    assert (await lab.home_of(6), person.said(person.logged_in)) == (old, 1)


async def test_with_a_redirect_everybody_keeps_the_session(redirect: RedirectLab) -> None:  # noqa: F811
    found = await noticed(redirect)
    assert all(one.kept for one in found.values())
    gap = found[Change.TOLD].gap_s
    assert gap is not None
    assert gap < 5


async def test_with_a_balancer_that_carries_who_comes_from_another_address_logs_in_again(
    balancer: BalancerLab,  # noqa: F811
) -> None:
    found = await noticed(balancer)
    assert not found[Change.ADDRESS].kept
    assert not found[Change.TOLD].kept
    assert found[Change.PORT].kept


async def test_with_openvpn_nobody_notices(openvpn: OpenVpnLab) -> None:  # noqa: F811
    found = await noticed(openvpn, (Change.ADDRESS, Change.PORT, Change.MOVED))
    assert all(one.kept for one in found.values())
    assert all(one.gap_s is not None and one.gap_s < 5 for one in found.values())
