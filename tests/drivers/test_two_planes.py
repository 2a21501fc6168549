"""strongSwan between a network of users and one that only tunnels lead to."""

import asyncio
import re
import subprocess
from datetime import timedelta
from statistics import median, quantiles

import pytest

from policies.model.errors import PenstockError
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_planes, planes  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import operation
from tests.drivers.strongswan_lab import TwoPlanesLab, why_not_here

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
]
OUTSIDE = "10.77.0.1"
PINGS, LONG_MS = 60, 40
WITHIN_SHARE, ADDED_MS = 0.055, 1.0
"""What a tunnel may add: the paper's 42.3 ms against 40.1 there and back, and what a short path may take."""


async def serving(planes: TwoPlanesLab, version: str) -> str:  # noqa: F811
    slot = await planes.running(version)
    assert (await planes.slots.probe(slot)).passed
    await planes.table.make_permanent(operation(f"keep {version}"), slot)
    return slot


async def pings(namespace: str, target: str, count: int = 40, every: float = 0.1) -> list[float]:
    """Return the milliseconds of each answered ping."""
    ping = ["ping", "-n", "-i", str(every), "-c", str(count), "-W", "1", target]
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", namespace, *ping, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return [float(found) for found in re.findall(r"time=([\d.]+) ms", out.decode())]


def asked(namespace: str) -> int:
    """Return how many pings have come to a host there, answered or not."""
    said = subprocess.run(
        ["ip", "netns", "exec", namespace, "cat", "/proc/net/snmp"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names, numbers = re.findall(r"^Icmp: (.*)$", said, re.MULTILINE)
    return int(dict(zip(names.split(), numbers.split(), strict=True))["InEchos"])


async def test_the_inside_is_reached_through_a_tunnel_and_by_no_other_way(
    planes: TwoPlanesLab,  # noqa: F811
) -> None:
    slot = await serving(planes, "1")
    site = f"{planes.prefix}c1"
    home = planes.folders.of(slot).slot
    before = asked(planes.protected)
    # Also where the users' side is told that the way inside leads by the instance, and is told so by all.
    ways = (
        (site, f"route add 10.90.200.0/24 via {OUTSIDE}"),
        (planes.namespace, f"route add 10.90.200.0/24 via {home.address}"),
        (site, f"address add {home.pool4[9]}/32 dev lo"),
    )
    for namespace, line in ways:
        planes.change(namespace, line)
    try:
        assert await pings(site, planes.PROTECTED, 3) == []
        assert asked(planes.protected) == before
    finally:
        for namespace, line in ways:
            planes.change(namespace, line.replace(" add ", " del ", 1))
    await planes.client(1).up()
    assert len(await pings(site, planes.PROTECTED, 5)) == 5
    assert asked(planes.protected) == before + 5
    assert await pings(planes.protected, f"10.77.0.{10 + 1}", 3) == []


@pytest.mark.sweep
async def test_a_tunnel_adds_little_to_a_long_path_and_to_a_short_one(planes: TwoPlanesLab) -> None:  # noqa: F811
    """Of what the path itself takes: on a busy machine most pings wait for the processor as well."""
    await serving(planes, "1")
    near, far = f"{planes.prefix}c1", f"{planes.prefix}c{planes.FAR}"
    for number in (1, planes.FAR):
        await planes.client(number).up()
    for site in (near, far):
        assert len(await pings(site, planes.PROTECTED, 5)) == 5
    ways = [(site, target) for site in (far, near) for target in (OUTSIDE, planes.PROTECTED)]
    found = await asyncio.gather(*(pings(site, target, PINGS) for site, target in ways))
    assert [len(each) for each in found] == [PINGS] * len(ways)
    long, tunnelled_long, short, tunnelled_short = (quantiles(each, n=10)[0] for each in found)
    print(
        f"bare path {long:.2f} ms, tunnel {tunnelled_long:.2f} ms ({tunnelled_long / long - 1:+.1%}); "
        f"short path {short:.2f} ms, tunnel {tunnelled_short:.2f} ms; "
        f"medians {[round(median(each), 2) for each in found]}"
    )
    assert long > LONG_MS
    assert tunnelled_long / long - 1 <= WITHIN_SHARE
    assert tunnelled_short - short <= ADDED_MS


@pytest.mark.sweep
async def test_nobody_loses_a_ping_to_the_inside_while_new_sessions_go_elsewhere(
    planes: TwoPlanesLab,  # noqa: F811
) -> None:
    old = await serving(planes, "1")
    await planes.client(1).up()
    long = asyncio.create_task(pings(f"{planes.prefix}c1", planes.PROTECTED, 80, 0.05))
    new = await planes.running("2")
    await planes.table.start_trial(operation("trial"), new, timedelta(seconds=30))
    await planes.client(2).up()
    assert [await planes.home_of(number) for number in (1, 2)] == [old, new]
    assert len(await pings(f"{planes.prefix}c2", planes.PROTECTED, 5)) == 5
    assert len(await long) == 80


@pytest.mark.sweep
async def test_an_instance_whose_way_inside_is_missing_fails_its_probe_before_users_are_sent_there(
    planes: TwoPlanesLab,  # noqa: F811
) -> None:
    slot = await planes.running("1")
    device = planes.folders.of(slot).slot.device
    planes.change(planes.inside, f"route del 10.90.0.0/24 dev {device}")
    refused = await planes.slots.probe(slot)
    assert (refused.passed, refused.stage) == (False, "ping")
    planes.change(planes.inside, f"link del dev {device}")
    refused = await planes.slots.probe(slot)
    assert (refused.passed, refused.stage) == (False, "ping")


async def test_a_host_without_the_inside_is_told_what_to_make_and_starts_nothing(
    planes: TwoPlanesLab,  # noqa: F811
) -> None:
    release = planes.admission.release("1")
    planes.forward(planes.inside, 0)
    reasons = await planes.slots.preflight(release)
    planes.forward(planes.inside, 1)
    assert [
        reason for reason in reasons if "forwards no packets; set net.ipv4.ip_forward = 1 there" in reason
    ]
    planes.gateway = planes.gateway.model_copy(update={"inside": "psh-nowhere"})
    planes.compose()
    try:
        reasons = await planes.slots.preflight(release)
        assert [one for one in reasons if "network namespace psh-nowhere, is not there" in one]
        with pytest.raises(PenstockError, match="psh-nowhere"):
            await planes.running("1")
        assert planes.folders.of("a").process() is None
    finally:
        planes.gateway = planes.gateway.model_copy(update={"inside": planes.inside})
        planes.compose()
