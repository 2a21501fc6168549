"""A site that brings a network of its own: it moves to the new instance by establishing again."""

import asyncio
import re
import signal
import subprocess
from itertools import pairwise

import pytest

from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_planes, planes  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import operation
from tests.drivers.strongswan_lab import SITES, TEMPLATE, TwoPlanesLab, why_not_here

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
]
PINGS_A_SECOND = 50


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
        said, _ = self._process.communicate(timeout=10)
        answered = [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", said)]
        return len(answered), max(b - a for a, b in pairwise(answered)) / PINGS_A_SECOND


@pytest.fixture
def with_sites(planes: TwoPlanesLab) -> TwoPlanesLab:  # noqa: F811
    planes.admission.template.write_text(TEMPLATE.read_text() + SITES)
    return planes


async def serving(planes: TwoPlanesLab, version: str) -> str:  # noqa: F811
    slot = await planes.running(version)
    await planes.table.make_permanent(operation(f"keep {version}"), slot)
    return slot


async def until_reached(namespace: str, target: str) -> None:
    ping = ["ip", "netns", "exec", namespace, "ping", "-n", "-c1", "-W", "0.2", target]
    async with asyncio.timeout(15):
        while True:
            process = await asyncio.create_subprocess_exec(*ping, stdout=subprocess.DEVNULL)
            if await process.wait() == 0:
                return


async def test_a_site_that_is_told_to_go_is_back_in_both_directions(with_sites: TwoPlanesLab) -> None:
    lab = with_sites
    old = await serving(lab, "1")
    site = await lab.client(lab.SITE, network="10.60.0.0/24").up()
    rightward, leftward = (lab.left, lab.PROTECTED), (lab.protected, lab.LEFT)
    for way in (rightward, leftward):
        await until_reached(*way)
    new = await serving(lab, "2")
    counted = [Counted(*way) for way in (rightward, leftward)]
    await asyncio.sleep(1)
    assert await lab.sessions.end(operation("end"), old, 10) == 1
    await asyncio.sleep(4)
    found = [one.gap() for one in counted]
    print(f"gap of a site that moves: {found[0][1]:.2f} s from it, {found[1][1]:.2f} s to it")
    print(site.log.read_text()[-3000:])
    assert [await lab.sessions.count(slot) for slot in (old, new)] == [0, 1]
    assert all(answered > PINGS_A_SECOND and gap < 3 for answered, gap in found)
