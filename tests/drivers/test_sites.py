"""A site that brings a network of its own: it moves to the new instance by establishing again."""

import asyncio
import re
import signal
import subprocess
from itertools import pairwise

import pytest

from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    built_planes,
    built_strongswan,
    planes,
    strongswan,
)
from tests.drivers.gateway_lab import operation
from tests.drivers.strongswan_lab import SITES, TEMPLATE, StrongSwanLab, TwoPlanesLab, why_not_here
from tests.patience import PATIENCE, until

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
]
PINGS_A_SECOND = 50
RETRANSMITS = 1.0
"""Seconds after which the lab's clients send again what was not answered; strongSwan's own default is 4."""

GONE_FOR = 10.0
"""Seconds within which a site that was told to go is back, also on a busy machine.

A site that was not told notices after minutes.
"""


class Counted:
    """Pings from a host to another one, and the longest time without an answer."""

    def __init__(self, namespace: str, target: str) -> None:
        ping = ["ping", "-n", "-i", str(1 / PINGS_A_SECOND), target]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *ping], stdout=subprocess.PIPE, text=True
        )

    def gap(self) -> tuple[int, float]:
        """Stop; return how many were answered, and the longest time between two answers in seconds."""
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=PATIENCE)
        answered = [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", said)]
        return len(answered), max(b - a for a, b in pairwise(answered)) / PINGS_A_SECOND


async def leads_to(namespace: str, network: str) -> list[str]:
    """Return the devices to which that namespace routes the network."""
    said = await asyncio.create_subprocess_exec(
        *("ip", "-n", namespace, "route", "show", network), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await said.communicate()
    return re.findall(r"dev (\S+)", out.decode())


async def until_led(lab: StrongSwanLab, namespace: str, network: str, devices: list[str]) -> None:
    """Look at the sessions meanwhile, as a drain does."""

    async def is_led() -> bool:
        await lab.sessions.count("a")
        return await leads_to(namespace, network) == devices

    await until(is_led)


async def serving(lab: StrongSwanLab, version: str) -> str:
    slot = await lab.running(version)
    await lab.table.make_permanent(operation(f"keep {version}"), slot)
    return slot


async def until_reached(namespace: str, target: str) -> None:
    ping = ["ip", "netns", "exec", namespace, "ping", "-n", "-c1", "-W", "0.2", target]

    async def is_reached() -> bool:
        process = await asyncio.create_subprocess_exec(*ping, stdout=subprocess.DEVNULL)
        return await process.wait() == 0

    await until(is_reached)


async def test_a_site_that_is_told_to_go_is_back_in_both_directions(planes: TwoPlanesLab) -> None:  # noqa: F811
    lab = planes
    lab.admission.template.write_text(TEMPLATE.read_text() + SITES)
    old = await serving(lab, "1")
    site = await lab.client(lab.SITE, network=lab.LEFT_NETWORK).up()
    ways = (lab.left, lab.PROTECTED), (lab.protected, lab.LEFT)
    for way in ways:
        await until_reached(*way)
    new = await serving(lab, "2")
    devices = {slot: lab.folders.of(slot).slot.device for slot in (old, new)}
    assert await leads_to(lab.inside, lab.LEFT_NETWORK) == [devices[old]]
    counted = [Counted(*way) for way in ways]
    await asyncio.sleep(1)
    assert await lab.sessions.end(operation("end"), old, 10) == 1

    async def is_moved() -> bool:  # a goodbye that leaves late costs a look
        return [await lab.sessions.count(slot) for slot in (old, new)] == [0, 1]

    await until(is_moved)
    await asyncio.sleep(2 + RETRANSMITS)
    found = [one.gap() for one in counted]
    print(f"gap of a site that moves: {found[0][1]:.2f} s as it asks, {found[1][1]:.2f} s as it is asked")
    assert all(answered > PINGS_A_SECOND and gap < GONE_FOR for answered, gap in found)
    assert await leads_to(lab.inside, lab.LEFT_NETWORK) == [devices[new]]
    await site.leave()
    await until_led(lab, lab.inside, lab.LEFT_NETWORK, [])


@pytest.mark.sweep
async def test_the_host_leads_to_a_site_by_the_instance_that_has_it_and_no_longer_than_that(
    strongswan: StrongSwanLab,  # noqa: F811
) -> None:
    lab = strongswan
    lab.admission.template.write_text(TEMPLATE.read_text() + SITES)
    old = await serving(lab, "1")
    network = "10.60.0.0/24"
    lab.change(f"{lab.prefix}c2", "address replace 10.60.0.1/24 dev lo")
    await lab.client(2, network=network).up()
    await until_led(lab, lab.namespace, network, [lab.folders.of(old).slot.device])
    new = await serving(lab, "2")
    assert await lab.sessions.end(operation("end"), old, 10) == 1
    back = [lab.folders.of(new).slot.device]
    await until_led(lab, lab.namespace, network, back)
    await until_reached(f"{lab.prefix}c2", str(lab.folders.of(new).slot.pool4[1]))
    running = lab.folders.of(new).process()
    assert running is not None
    running.tell(signal.SIGKILL)
    await until_led(lab, lab.namespace, network, [])
