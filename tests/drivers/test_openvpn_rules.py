"""Rules by users' own addresses through an upgrade: what each may reach, and may not, stays what it was.

People have an address of their own in every slot's pool, by one file of the gateway's. The rules are the
test's own: a table of nftables with a set of addresses, as somebody's firewall has it beside penstock's.
"""

import asyncio
import subprocess
from collections.abc import Iterator
from datetime import timedelta

import pytest

from activities.drivers.programs import run
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_openvpn, openvpn  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import operation
from tests.drivers.openvpn_lab import TEMPLATE, OpenVpnLab, why_not_here
from tests.patience import until

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
]
FOR_EVERYBODY, FOR_STAFF = "10.99.0.1", "10.99.0.9"
STAFF, GUEST = 1, 2
HOSTS = {STAFF: 10, GUEST: 20}
"""The last part of each person's address, in every slot's pool."""
LEASE = timedelta(minutes=5)


@pytest.fixture(autouse=True)
def _an_inside(built_openvpn: OpenVpnLab) -> Iterator[None]:  # noqa: F811
    """Two servers behind the gateway, one of them for staff only; and a file of everybody's addresses."""
    lab, inside = built_openvpn, f"{built_openvpn.prefix}in"
    batch(f"netns add {inside}")
    batch(
        f"link add inside type veth peer name eth0 netns {inside}\n"
        "address add 10.99.0.254/24 dev inside\nlink set inside up",
        lab.namespace,
    )
    batch(
        f"address add {FOR_EVERYBODY}/24 dev eth0\naddress add {FOR_STAFF}/24 dev eth0\nlink set eth0 up\n"
        "route add default via 10.99.0.254",
        inside,
    )
    here = ["ip", "netns", "exec", lab.namespace]
    subprocess.run([*here, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
    addresses = lab.folder / "addresses"
    addresses.touch(mode=0o600)
    addresses.write_text(
        "".join(
            f"user{number},{slot.pool4[host]}\n"
            for slot in lab.gateway.slots
            for number, host in HOSTS.items()
        )
    )
    lab.admission.template.write_text(
        f"{TEMPLATE.read_text()}ifconfig-pool-persist $credential_addresses 0\n"
    )
    yield
    lab.admission.template.write_text(TEMPLATE.read_text())
    batch(f"netns del {inside}")


def batch(lines: str, namespace: str | None = None) -> None:
    inside = ["-n", namespace] if namespace else []
    subprocess.run(["ip", *inside, "-batch", "-"], input=lines, text=True, check=True)


async def allow_staff(lab: OpenVpnLab) -> None:
    """Write somebody's own rules, which name staff's addresses in the pools of all slots."""
    staff = ", ".join(str(slot.pool4[HOSTS[STAFF]]) for slot in lab.gateway.slots)
    rules = (
        "table ip firewall {\n"
        f" set staff {{ type ipv4_addr; elements = {{ {staff} }} }}\n"
        " chain forward {\n  type filter hook forward priority filter; policy drop;\n"
        "  ct state established,related accept\n"
        f"  ip daddr {FOR_EVERYBODY} accept\n  ip saddr @staff ip daddr {FOR_STAFF} accept\n }}\n}}\n"
    )
    assert (await run(["nft", "-f", "-"], given=rules)).status == 0


async def reaches(lab: OpenVpnLab, number: int) -> list[str]:
    """Return which of the two servers answer that person's pings."""
    site = ["ip", "netns", "exec", f"{lab.prefix}c{number}"]
    asked = [
        run([*site, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", server])
        for server in (FOR_EVERYBODY, FOR_STAFF)
    ]
    done = await asyncio.gather(*asked)
    return [
        server
        for server, one in zip((FOR_EVERYBODY, FOR_STAFF), done, strict=True)
        if " 0 received" not in one.out
    ]


async def forgotten(lab: OpenVpnLab, number: int) -> None:
    """Wait until the gateway knows nothing of that person any more; OpenVPN does for five seconds."""

    async def is_forgotten() -> bool:
        live = await lab.folders.live()
        listed = [session.remote_address for sessions in live.values() for session in sessions or ()]
        return f"10.77.0.{10 + number}" not in listed

    await until(is_forgotten)
    await lab.table.refresh()


@pytest.mark.sweep
async def test_what_each_person_may_reach_is_the_same_before_during_and_after_an_upgrade(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    openvpn.compose(addresses="addresses")
    await allow_staff(openvpn)
    may = {STAFF: [FOR_EVERYBODY, FOR_STAFF], GUEST: [FOR_EVERYBODY]}

    async def everybody_reaches_what_they_may() -> None:
        assert {number: await reaches(openvpn, number) for number in may} == may

    old = await openvpn.running("1")
    await openvpn.table.make_permanent(operation("keep 1"), old)
    people = {number: await openvpn.client(number).up() for number in may}
    await everybody_reaches_what_they_may()

    new = await openvpn.running("2")
    await openvpn.table.start_trial(operation("trial"), new, LEASE)
    await everybody_reaches_what_they_may()
    for number, person in people.items():  # each logs in anew, the guest first of all in the new pool
        await person.leave()
        await forgotten(openvpn, number)
        people[number] = await openvpn.client(number).up()
        assert await openvpn.home_of(number) == new
        await everybody_reaches_what_they_may()

    await openvpn.table.make_permanent(operation("keep 2"), new)
    await everybody_reaches_what_they_may()
    pool = next(slot.pool4 for slot in openvpn.gateway.slots if slot.name == new)
    live = (await openvpn.folders.live())[new] or ()
    given = {session.remote_address: session.vpn_address for session in live}
    assert given == {f"10.77.0.{10 + number}": str(pool[host]) for number, host in HOSTS.items()}
