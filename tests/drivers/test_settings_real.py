"""Settings of running instances replaced: real daemons, real users, and what whoever logs in is told."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network

import pytest

from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.slot_folders import SlotFolder
from policies.model.errors import BadInput, BeyondHostLimits, Refused
from policies.model.host_limits import HostLimits
from policies.model.settings import Setting
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.patience import PATIENCE
from tests.sampled import sampled

pytestmark = ON_A_REAL_GATEWAY

TOLD = "env | grep -E '^(CISCO_|INTERNAL_)|^X-CSTP'; echo penstock: tunnel"
SETTINGS = (
    Setting(key="dns", values=("10.1.2.3", "10.1.2.4")),
    Setting(key="route", values=("10.66.0.0/16",)),
    Setting(key="banner", values=("maintenance on Sunday",)),
    Setting(key="dpd", values=("77",)),
)


async def told(lab: GatewayLab, number: int, port: int) -> str:  # noqa: F811
    """Log in at an instance's own port; return all that the client was told."""
    client = lab.client(number, url_port=port, more=("--script", TOLD))
    try:
        await client.until("penstock: tunnel")
        return client.log.read_text()
    finally:
        await client.leave()
        lab.people.remove(client)


def conf(lab: GatewayLab, slot: str) -> str:  # noqa: F811
    return (lab.root / "slots" / slot / "conf/ocserv.conf").read_text()


async def test_who_logs_in_after_a_change_of_settings_is_told_them_and_no_ping_is_lost(
    lab: GatewayLab,  # noqa: F811
) -> None:
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    inside = await lab.client(1).up()
    inside.ping()
    pids, before = lab.daemons(), conf(lab, "a")
    done = await lab.slots.configure(operation("configure", rollout="r-settings", epoch=9), SETTINGS)
    assert (done.slots, done.credentials) == (("a",), ("ocserv.conf",))
    assert done.state.settings[:2] == ("dns = 10.1.2.3", "dns = 10.1.2.4")
    said = await told(lab, 2, 4431)
    for words in (
        "INTERNAL_IP4_DNS=10.1.2.3 10.1.2.4",
        "CISCO_SPLIT_INC_0_ADDR=10.66.0.0",
        "X-CSTP-DPD=77",
        "CISCO_BANNER=maintenance on Sunday",
    ):
        assert words in said
    assert "10.99.0.0" not in said  # what the release says of the key is replaced whole
    again = await lab.slots.configure(operation("configure", rollout="r-settings", epoch=9), SETTINGS)
    assert (again.credentials, lab.daemons()) == ((), pids)
    assert await lab.running("2") == "b"  # an upgrade keeps them
    assert "route = 10.66.0.0/16" in conf(lab, "b")
    back = await lab.slots.take_back(operation("back", rollout="r-back", epoch=10), "r-settings")
    assert (back.credentials, back.state.settings, conf(lab, "a")) == (("ocserv.conf",), (), before)
    assert "CISCO_SPLIT_INC_0_ADDR=10.99.0.0" in await told(lab, 2, 4431)
    await asyncio.sleep(1)  # however fast all that was, its pings went on for a second
    sent, lost = inside.lost()
    assert (sent > 20, lost, inside.alive) == (True, 0, True)


async def test_settings_that_do_not_fit_change_nothing(lab: GatewayLab) -> None:  # noqa: F811
    await lab.running("1")
    before = conf(lab, "a")
    for setting, why in (
        (Setting(key="tcp-port", values=("443",)), "tcp-port belongs into the template of a release"),
        (Setting(key="connect-script", values=("/bin/sh",)), "connect-script belongs into the template"),
        (Setting(key="route", values=("nonsense",)), "route nonsense is not a network"),
        (Setting(key="banner", values=('x"\\ny',)), "banner .* is not a text without quotation marks"),
        (Setting(key="dpd", values=("10", "20")), "dpd has 2 values"),
    ):
        with pytest.raises(BadInput, match=f"settings: {why}.*; nothing was changed on gw-1$"):
            await lab.slots.configure(operation("configure"), (setting,))
    lab.journal.bounds = HostBounds("gw-1", HostLimits(settings=("banner",)))
    with pytest.raises(BeyondHostLimits, match="dns of gw-1 would be set by order"):
        await lab.slots.configure(operation("configure"), SETTINGS[:1])
    assert (conf(lab, "a"), lab.folders.settings) == (before, ())
    assert lab.folders.settings_answered == "r-1"  # what refuses has answered, and is not asked again


@contextmanager
def given(lab: GatewayLab, **changed: object) -> Iterator[SlotFolder]:  # noqa: F811
    """Have the agent's file say something else of slot a, as after a restart with another file."""
    folder = lab.folders.of("a")
    before, folder.slot = folder.slot, folder.slot.model_copy(update=changed)
    try:
        yield folder
    finally:
        folder.slot = before


@contextmanager
def routed(lab: GatewayLab, network: str) -> Iterator[None]:  # noqa: F811
    """Have the gateway's host lead packets to that network elsewhere."""
    command = ["ip", "netns", "exec", lab.namespace, "ip", "route"]
    subprocess.run([*command, "add", network, "dev", "br0"], check=True)
    try:
        yield
    finally:
        subprocess.run([*command, "del", network], check=True)


ONE, SMALL, LARGE = IPv4Network("10.90.0.0/30"), IPv4Network("10.90.0.0/29"), IPv4Network("10.90.0.0/22")
"""Room for one user beside the daemon, for five, and for a thousand."""


async def only_user(lab: GatewayLab) -> Client:  # noqa: F811
    """Log in at an instance that has one address to give.

    ocserv draws an address sixteen times before it calls a pool full: where one of four is free, it refuses
    one login in a hundred, (3/4)^16. Six refusals in a row are not chance.
    """
    for _ in range(5):
        client = lab.client(1)
        try:
            return await client.up()
        except AssertionError:
            if not client.said("Cookie was rejected"):
                raise
    return await lab.client(1).up()


@pytest.mark.sweep
async def test_a_full_pool_grows_and_lets_the_next_user_in_and_no_ping_is_lost(
    lab: GatewayLab,  # noqa: F811
) -> None:
    with given(lab, pool4=ONE):
        await lab.table.make_permanent(operation("keep"), await lab.running("1"))
        inside = await only_user(lab)
        inside.ping()
        with pytest.raises(AssertionError, match="the client ended"):
            await lab.client(2).up()
    with given(lab, pool4=LARGE):
        pids = lab.daemons()
        done = await lab.slots.configure(operation("configure", rollout="r-pool", epoch=9), ())
        assert (done.slots, done.credentials) == (("a",), ("ocserv.conf",))
        assert done.state.instance("a").pools[0] == LARGE
        second = await lab.client(2).up()
        second.ping()
        assert [(await lab.slots.probe("a")).passed, lab.daemons()] == [True, pids]
        await lab.slots.take_back(operation("back", rollout="r-back", epoch=10), "r-pool")
        assert (await lab.slots.observe()).instance("a").pools[0] == ONE
        await asyncio.sleep(1)  # however fast all that was, their pings went on for a second
        for client in (inside, second):
            sent, lost = client.lost()
            assert (sent > 20, lost, client.alive) == (True, 0, True)


async def test_a_session_that_breaks_after_its_pool_has_grown_logs_in_again_as_its_plan_says(
    lab: GatewayLab,  # noqa: F811
) -> None:
    """The day on which this fails is a good one: take the sentence out of the plan."""
    with given(lab, pool4=SMALL):
        await lab.running("1")
        inside = lab.client(1, url_port=4431)
        await inside.until("penstock: tunnel")
    with given(lab, pool4=LARGE):
        await lab.slots.configure(operation("configure"), ())
        inside.reconnect()
        await inside.until("Reconnect gave different Legacy IP address")


async def test_a_pool_that_has_not_only_grown_or_that_the_host_has_a_use_for_changes_nothing(
    lab: GatewayLab,  # noqa: F811
) -> None:
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    before = conf(lab, "a")
    for changed, why in (
        ({"port": 4439}, r"tcp-port, udp-port of slot a of gw-1 would change, which only"),
        ({"pool4": IPv4Network("10.90.0.0/25")}, "ipv4-netmask of slot a of gw-1 would change, which only"),
        ({"pool4": IPv4Network("10.91.0.0/24")}, "ipv4-network of slot a of gw-1 would change, which only"),
    ):
        with given(lab, **changed), pytest.raises(Refused, match=why):
            await lab.slots.configure(operation("configure"), ())
    overlaps = r"the pool 10.90.0.0/22 of slot a of gw-1 overlaps the host's route to 10.90.3.0/24"
    with routed(lab, "10.90.3.0/24"), given(lab, pool4=LARGE), pytest.raises(Refused, match=overlaps):
        await lab.slots.configure(operation("configure"), ())
    assert conf(lab, "a") == before


@pytest.mark.sweep
@pytest.mark.parametrize(
    "line",
    sampled(["reconfigured", "before kept", "half put", "put", "told", "settings kept", "answered"], "put"),
)
async def test_a_change_of_settings_killed_anywhere_is_finished_by_its_repeat(
    lab: GatewayLab,  # noqa: F811
    line: str,
) -> None:
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    inside, before = await lab.client(1).up(), conf(lab, "a")
    inside.ping()
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.drivers.dying_agent", lab.folder, lab.tag, "configure", "1", line
    )
    assert await asyncio.wait_for(agent.wait(), PATIENCE) == -signal.SIGKILL
    lab.compose()
    if line != "answered":
        assert lab.folders.settings_answered == ""  # so that it is asked again when nobody repeats it
    done = await lab.slots.configure(operation("configure"), SETTINGS[3:])
    assert (done.state.settings, done.state.settings_answered) == (("dpd = 77",), "r-1")
    assert "dpd = 77" in conf(lab, "a")
    back = await lab.slots.take_back(operation("back", rollout="r-back", epoch=10), "r-1")
    assert (conf(lab, "a"), back.state.settings_answered) == (before, "r-back")
    await asyncio.sleep(1)  # however fast all that was, its pings went on for a second
    sent, lost = inside.lost()
    assert (sent > 10, lost, inside.alive) == (True, 0, True)


async def test_limits_of_mobiles_and_of_one_name_count_from_the_next_login_on(lab: GatewayLab) -> None:  # noqa: F811
    await lab.running("1")
    settings = (
        Setting(key="mobile-dpd", values=("1777",)),
        Setting(key="mobile-idle-timeout", values=("2345",)),
        Setting(key="max-same-clients", values=("1",)),
    )
    first = lab.client(1, url_port=4431)
    await first.until("penstock: tunnel")
    await lab.slots.configure(operation("configure"), settings)
    second = lab.client(1, url_port=4431)
    with pytest.raises(AssertionError, match="the client ended"):
        await second.until("penstock: tunnel")
    phone = lab.client(2, url_port=4431, more=("--os", "android", "--script", TOLD))
    await phone.until("penstock: tunnel")
    assert "X-CSTP-DPD=1777" in phone.log.read_text()
    assert "X-CSTP-Idle-Timeout=2345" in phone.log.read_text()
