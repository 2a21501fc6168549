"""Steering with people on the gateway: nobody may notice."""

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from datetime import timedelta

import pytest

from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.programs import run
from activities.drivers.steering import nftables
from activities.drivers.steering.nftables import NftablesTable
from activities.drivers.steering.orders import SteeringOrders
from deploy.lab.processes import freeze
from policies.drains import loss_between
from policies.model.drain import Loss
from policies.model.errors import Conflict, LeaseLapsed
from policies.model.instance import InstanceState
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    built_lab,
    lab,
    orders_wait,
)
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.halted import halt
from tests.patience import PATIENCE, until

pytestmark = ON_A_REAL_GATEWAY
LEASE = timedelta(minutes=5)


async def serving(lab: GatewayLab) -> str:  # noqa: F811
    slot = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), slot)
    return slot


@pytest.mark.usefixtures("orders_wait")
async def test_a_switch_and_its_way_back_cost_nobody_a_ping(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    people = [await lab.client(number).up() for number in (1, 2)] + [await lab.client(3, version=6).up()]
    for person in people:
        person.ping(old)
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, LEASE)
    await lab.client(4).up()
    await asyncio.sleep(1)
    await lab.table.start_trial(operation("trial"), new, LEASE)
    await lab.table.end_trial(operation("back"))
    await lab.client(5).up()
    await asyncio.sleep(1)
    assert [await lab.home_of(number) for number in (1, 2, 3, 4, 5)] == [old, old, old, new, old]
    counts = [person.lost() for person in people]
    assert min(sent for sent, _ in counts) > 40
    assert [lost for _, lost in counts] == [0, 0, 0]


@pytest.mark.sweep
async def test_a_session_over_tcp_alone_survives_the_switch(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    person = lab.client(1, more=("--no-dtls",))
    await person.until("penstock: tunnel")
    person.ping(old)
    new = await lab.running("2")
    await lab.table.make_permanent(operation("keep new"), new)
    await asyncio.sleep(1)
    sent, lost = person.lost()
    assert (sent > 20, lost) == (True, 0)
    sessions = (await lab.folders.live())[old]
    assert sessions is not None
    assert [session.transport for session in sessions] == ["tls"]


@pytest.mark.sweep
@pytest.mark.usefixtures("orders_wait")
async def test_a_client_that_reconnects_finds_its_own_instance(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    people = [await lab.client(1).up(), await lab.client(2, version=6).up()]
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, LEASE)
    for person in people:
        person.reconnect()
        await person.until("Established DTLS", times=2)
    assert [await lab.home_of(number) for number in (1, 2)] == [old, old]
    await lab.table.make_permanent(operation("keep new"), new)
    people[0].reconnect()
    await people[0].until("Established DTLS", times=3)
    assert await lab.home_of(1) == old


@pytest.mark.sweep
async def test_a_client_of_the_trial_reconnects_to_it_after_the_way_back(lab: GatewayLab) -> None:  # noqa: F811
    await serving(lab)
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, LEASE)
    person = await lab.client(1).up()
    await lab.table.end_trial(operation("back"))
    await lab.table.refresh()  # as its keeper does: a busy daemon may not name its sessions at once
    person.reconnect()
    await person.until("Established DTLS", times=2)
    assert await lab.home_of(1) == new


@pytest.mark.sweep
async def test_a_client_of_the_trial_reconnects_to_it_after_the_lease_ended_alone(
    lab: GatewayLab,  # noqa: F811
) -> None:
    await serving(lab)
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, LEASE)
    person = await lab.client(1).up()
    await lab.table.start_trial(operation("trial"), new, timedelta(seconds=1))
    await asyncio.sleep(1.2)
    person.reconnect()
    await person.until("Established DTLS", times=2)
    assert await lab.home_of(1) == new


@pytest.mark.sweep
async def test_a_lease_nobody_confirms_ends_by_itself_in_time(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, LEASE)
    await lab.client(1).up()
    await lab.table.start_trial(operation("trial"), new, timedelta(seconds=5))
    begun = time.monotonic()  # the lease may have begun any time before, never later
    await asyncio.sleep(5.1 - (time.monotonic() - begun))
    await lab.client(2).up()
    steering = await lab.table.read()
    assert (steering.trial, steering.serving) == (None, old)
    assert [await lab.home_of(number) for number in (1, 2)] == [new, old]


@pytest.mark.sweep
async def test_a_lease_confirmed_again_and_again_never_lapses(lab: GatewayLab) -> None:  # noqa: F811
    await serving(lab)
    new = await lab.running("2")
    for _ in range(12):
        steering = await lab.table.start_trial(operation("trial"), new, timedelta(seconds=3))
        assert steering.trial == new
        await asyncio.sleep(0.5)
    assert len([entry for entry in lab.journal.entries() if entry["step"] == "trial"]) == 2


@pytest.mark.sweep
@pytest.mark.usefixtures("orders_wait")
async def test_an_address_rebound_behind_its_nat_finds_its_instance(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    person = await lab.client(1).up()
    new = await lab.running("2")
    await lab.table.make_permanent(operation("keep new"), new)
    port = lab.gateway.slots[0].port
    send = (
        f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.77.0.1', {port}))"
    )
    await run(["ip", "netns", "exec", f"{lab.prefix}c2", "python3", "-c", send])
    learned = json.loads((await run(["nft", "-j", "list", "map", "inet", "penstock", "learned4"])).out)
    assert [entry[1] for entry in learned["nftables"][1]["map"]["elem"]] == [port]
    await lab.client(2).up()
    assert await lab.home_of(2) == old
    assert person.alive


async def drained(lab: GatewayLab, slot: str) -> None:  # noqa: F811
    """Count the slot's sessions as a drain does, its pins following them, until none is left."""
    while not (look := await lab.sessions.look(slot)).sessions == look.resumable == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.5)


@pytest.mark.sweep
async def test_a_session_rebound_in_the_middle_of_a_drain_comes_back(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    site = ["ip", "netns", "exec", f"{lab.prefix}c6"]
    person = await lab.client(6).up()
    before = (await lab.folders.live())[old]
    new = await lab.running("2")
    await lab.table.make_permanent(operation("keep new"), new)
    draining = asyncio.create_task(drained(lab, old))
    person.ping(old)
    rebind = (
        "add table ip nat\nadd chain ip nat post { type nat hook postrouting priority srcnat; }\n"
        "add rule ip nat post oifname eth0 snat to 10.77.0.26\n"
        # The old address leads here no more: an answer to it would keep half of the flows where they were.
        "add chain ip nat lost { type filter hook prerouting priority raw; }\n"
        "add rule ip nat lost ip daddr 10.77.0.16 drop\n"
    )
    await run([*site, "ip", "address", "add", "10.77.0.26/24", "dev", "eth0"])
    assert (await run([*site, "nft", "-f", "-"], given=rebind)).status == 0
    await run([*site, "conntrack", "-F"])
    began = time.monotonic()
    try:
        # openconnect tries DTLS again a minute after a try that failed, and is connected meanwhile.
        await person.until("Established DTLS", times=2)
        took = time.monotonic() - began
        await asyncio.sleep(2)
        over = draining.done()
        # Before the address is taken away again: that breaks the session once more.
        sessions, (sent, lost) = (await lab.folders.live())[old], person.lost()
    finally:
        draining.cancel()
        with suppress(asyncio.CancelledError):
            await draining
        await run([*site, "nft", "delete", "table", "ip", "nat"])
        await run([*site, "ip", "address", "del", "10.77.0.26/24", "dev", "eth0"])
    assert sessions is not None
    assert before is not None
    assert [session.remote_address for session in sessions] == ["10.77.0.26"], person.log.read_text()
    assert [session.vpn_address for session in sessions] == [session.vpn_address for session in before]
    assert person.alive
    assert sent - lost > 10
    assert not over
    print(f"rebound in the middle of a drain: back after {took:.1f} s; {lost} of {sent} pings lost")
    assert person.gap() < 5


@pytest.mark.sweep
@pytest.mark.usefixtures("orders_wait")
async def test_a_session_whose_connection_broke_is_waited_for_and_comes_back_to_its_instance(
    lab: GatewayLab,  # noqa: F811
) -> None:
    old = await serving(lab)
    sleeper, gone = await lab.client(1).up(), await lab.client(2).up()
    before = {session.remote_address: session for session in (await lab.folders.live())[old] or ()}
    new = await lab.running("2")
    await lab.table.make_permanent(operation("keep new"), new)
    freeze(sleeper.process)
    os.kill(int(before["10.77.0.11"].id), signal.SIGKILL)
    gone.process.send_signal(signal.SIGINT)
    draining = asyncio.create_task(drained(lab, old))

    async def one_is_left() -> bool:
        look = await lab.sessions.look(old)
        return (look.sessions, look.resumable) == (0, 1)

    await until(one_is_left)
    await asyncio.sleep(1)  # the drain looks on meanwhile
    look, steering = await lab.sessions.look(old), await lab.table.refresh()
    assert (look.sessions, look.resumable, steering.pinned) == (0, 1, 1)
    assert not draining.done()
    sleeper.process.send_signal(signal.SIGCONT)
    await sleeper.until("Established DTLS", times=2)
    [back] = (await lab.folders.live())[old] or ()
    assert (back.connected, back.vpn_address) == (True, before["10.77.0.11"].vpn_address)
    assert not draining.done()
    draining.cancel()


async def test_a_change_that_is_not_read_back_as_written_is_a_conflict(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await serving(lab)
    new = await lab.running("2")

    async def overwritten(*_: object) -> None: ...

    monkeypatch.setattr(lab.table, "_write", overwritten)
    with pytest.raises(Conflict, match="somebody else"):
        await lab.table.make_permanent(operation("keep new"), new)


@pytest.mark.sweep
async def test_a_user_who_left_the_old_instance_logs_in_to_the_new_one(lab: GatewayLab) -> None:  # noqa: F811
    await serving(lab)
    person = await lab.client(1).up()
    new = await lab.running("2")
    await lab.table.make_permanent(operation("keep new"), new)
    assert (await lab.table.read()).pinned == 1
    await person.leave()
    assert (await lab.table.refresh()).pinned == 0
    await lab.client(1).up()
    assert await lab.home_of(1) == new


@pytest.mark.usefixtures("orders_wait")
async def test_people_whose_sessions_are_ended_log_in_to_the_good_instance(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, LEASE)
    person = await lab.client(1).up()
    await lab.table.end_trial(operation("back"))
    assert await lab.sessions.end(operation("end"), new, 10) == 1
    await asyncio.to_thread(person.process.wait, 10)
    await lab.client(1).up()
    assert await lab.home_of(1) == old


@pytest.mark.usefixtures("orders_wait")
async def test_several_old_instances_keep_their_own_people(lab: GatewayLab) -> None:  # noqa: F811
    homes = {}
    for number, version in ((1, "1"), (2, "2"), (3, "3")):
        slot = await lab.running(version)
        await lab.table.make_permanent(operation(f"keep {version}"), slot)
        person = await lab.client(number).up()
        homes[number] = slot
        person.ping(slot)
    for person in lab.people:
        person.reconnect()
        await person.until("Established DTLS", times=2)
    assert {number: await lab.home_of(number) for number in homes} == homes
    assert sorted(homes.values()) == ["a", "b", "c"]


async def test_priming_twice_leaves_the_table_as_it_is(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    again = await lab.table.prime()
    assert (again.changed, again.serving) == (False, old)


@pytest.mark.sweep
@pytest.mark.usefixtures("orders_wait")
async def test_after_a_firewalls_flush_logins_go_on_and_everybody_finds_their_own_instance(
    lab: GatewayLab,  # noqa: F811
) -> None:
    old = await serving(lab)
    person = await lab.client(1).up()
    new = await lab.running("2")
    await lab.table.make_permanent(operation("keep new"), new)
    keeping = asyncio.create_task(lab.table.keep())
    assert (await run(["nft", "flush", "ruleset"])).status == 0

    async def is_primed() -> bool:
        return (await lab.table.read()).primed

    await until(is_primed)
    await lab.client(2).up()
    person.reconnect()
    await person.until("Established DTLS", times=2)
    assert [await lab.home_of(number) for number in (1, 2)] == [old, new]
    assert (await lab.table.read()).serving == new
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_what_was_kept_is_noted_and_a_note_that_fails_costs_nobody_the_steering(
    lab: GatewayLab,  # noqa: F811
) -> None:
    noted: list[str] = []

    def note(slot: str) -> None:
        noted.append(slot)
        raise OSError("the disk is full")

    orders = SteeringOrders(lab.gateway, lab.journal, lab.folders.live, lab.root / "steering.json", kept=note)
    table = NftablesTable(orders, lab.means)
    slot = await lab.running("1")
    assert (await table.start_trial(operation("trial"), slot, LEASE)).trial == slot
    assert noted == []
    assert (await table.make_permanent(operation("keep"), slot)).serving == slot
    assert noted == [slot]


async def test_another_tables_redirects_do_not_take_steering_away(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    late = (
        "table ip other { chain pre { type nat hook prerouting priority dstnat; policy accept; "
        "tcp dport 443 redirect to :9; }; }"
    )
    assert (await run(["nft", late])).status == 0
    await lab.client(1).up()
    assert await lab.home_of(1) == old


@pytest.mark.sweep
async def test_the_way_back_waits_for_no_daemon(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, LEASE)
    await lab.client(1).up()
    running = lab.folders.of(new).process()
    assert running is not None
    await halt(running.pid)
    begun = time.monotonic()
    fenced = await lab.slots.fence(operation("fence", rollout="back", epoch=2))
    assert fenced.instance(new).sessions is None
    back = await lab.table.end_trial(operation("back", rollout="back", epoch=2))
    took = time.monotonic() - begun
    assert (back.trial, back.serving) == (None, old)
    assert took < 1
    await lab.table.start_trial(operation("trial", rollout="back", epoch=2), new, LEASE)
    begun = time.monotonic()
    restored = await lab.slots.restore(operation("again", epoch=3), lab.admission.release("1"))
    took = time.monotonic() - begun
    running.tell(signal.SIGCONT)
    assert (restored.back, restored.state.instance(new).sessions) == (True, None)
    assert took < 1


@pytest.mark.sweep
async def test_a_lease_that_lapses_while_it_is_being_renewed_stays_lapsed(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = await serving(lab)
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, timedelta(seconds=1))
    assert isinstance(lab.table, NftablesTable)
    still_on_trial, read = await lab.table._present(), lab.table._present
    readings = [still_on_trial]

    async def late() -> object:
        return readings.pop() if readings else await read()

    monkeypatch.setattr(lab.table, "_present", late)
    await asyncio.sleep(1.2)
    with pytest.raises(LeaseLapsed):
        await lab.table.start_trial(operation("trial"), new, LEASE, renew=True)
    assert readings == []
    steering = await lab.table.read()
    assert (steering.serving, steering.trial) == (old, None)


@pytest.mark.sweep
@pytest.mark.usefixtures("orders_wait")
async def test_who_is_kept_beside_the_serving_instance_keeps_it_without_any_drain(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nftables, "FOLLOW_EVERY", timedelta(milliseconds=200))
    monkeypatch.setattr(nftables, "HEAL_EVERY", timedelta(milliseconds=100))
    table = NftablesTable(lab.orders, lab.means, timedelta(seconds=2))
    blue = await serving(lab)
    person = await lab.client(1).up()
    green = await lab.running("2")
    await table.make_permanent(operation("keep green"), green)
    keeping = asyncio.create_task(table.keep())
    await asyncio.sleep(2.5)
    person.reconnect()
    await person.until("Established DTLS", times=2)
    assert await lab.home_of(1) == blue
    running = lab.folders.of(blue).process()
    assert running is not None
    running.tell(signal.SIGKILL)

    async def is_forgotten() -> bool:
        return "10.77.0.11" not in (await run(["nft", "list", "map", "inet", "penstock", "old4"])).out

    await until(is_forgotten)
    await person.leave()
    await lab.client(1).up()
    assert await lab.home_of(1) == green
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


CONNECT = """
import socket, sys, time
port, version, count, whole = (int(argument) for argument in sys.argv[1:])
for number in range(count):
    source = f"10.78.{number // 250}.{number % 250 + 1}" if version == 4 else f"fd78::{number + 1:x}"
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((source, port))
        sock.setblocking(bool(whole))
        sock.connect_ex(("10.77.0.1" if version == 4 else "fd77::1", 443))
        time.sleep(0.001)
"""


WATCH = """
table inet watch {
  set seen4 { type ipv4_addr . inet_service; flags dynamic; size 65535; }
  set seen6 { type ipv6_addr . inet_service; flags dynamic; size 65535; }
  chain input {
    type filter hook input priority 0;
    ip saddr 10.78.0.0/16 tcp flags & (syn | ack) == syn add @seen4 { ip saddr . tcp dport }
    ip6 saddr fd78::/64 tcp flags & (syn | ack) == syn add @seen6 { ip6 saddr . tcp dport }
  }
}
"""
"""What each new connection was translated to, as the kernel delivers it."""


async def sides_of(
    lab: GatewayLab,  # noqa: F811
    port: int,
    count: int,
    *,
    version: int = 4,
    whole: bool = False,
) -> dict[str, str]:
    """Connect once from each of so many addresses; return the slot that each connection was sent to.

    The first packet decides; only `whole` connections cost the daemon a process each.
    """
    assert (await run(["nft", "flush", "set", "inet", "watch", f"seen{version}"])).status == 0
    site = ["ip", "netns", "exec", f"{lab.prefix}c6"]
    connecting = await run(
        [*site, "python3", "-c", CONNECT, str(port), str(version), str(count), str(int(whole))],
        within=timedelta(seconds=60),
    )
    assert connecting.status == 0, connecting.last_words
    slots = {slot.port: slot.name for slot in lab.gateway.slots}
    seen = json.loads((await run(["nft", "-j", "list", "set", "inet", "watch", f"seen{version}"])).out)
    found = [element["concat"] for element in seen["nftables"][1]["set"]["elem"]]
    return {source: slots[port] for source, port in found}


async def more_addresses(lab: GatewayLab) -> None:  # noqa: F811
    """Give site 6 the addresses of 2,000 people more, of either family."""
    lines = [f"address add 10.78.{n // 250}.{n % 250 + 1}/32 dev eth0" for n in range(2000)]
    lines += [f"address add fd78::{n + 1:x}/128 dev eth0 nodad" for n in range(200)]
    await run(["ip", "-n", f"{lab.prefix}c6", "-batch", "-"], given="\n".join(lines))
    for route in ("10.78.0.0/16 via 10.77.0.16", "fd78::/64 via fd77::16"):
        await run(["ip", "-n", lab.namespace, "route", "replace", *route.split()])
    assert (await run(["nft", "-f", "-"], given=WATCH)).status == 0


@pytest.mark.sweep
async def test_a_share_of_2000_addresses_is_what_was_asked_and_grows_without_taking_anybody_back(
    lab: GatewayLab,  # noqa: F811
) -> None:
    old = await serving(lab)
    await more_addresses(lab)
    people = [await lab.client(number).up() for number in (1, 2)]
    for person in people:
        person.ping(old)
    new = await lab.running("2")
    chosen: list[set[str]] = []
    for number, share in enumerate((5, 25, 50)):
        steering = await lab.table.start_trial(operation("trial"), new, LEASE, renew=number > 0, share=share)
        assert steering.share == share
        sides = await sides_of(lab, 20001 + number, 2000)
        assert len(sides) == 2000
        assert (await sides_of(lab, 21001 + number, 250, whole=True)).items() <= sides.items()
        chosen.append({source for source, slot in sides.items() if slot == new})
        assert abs(len(chosen[-1]) / 20 - share) < 3, f"{len(chosen[-1])} of 2000 for {share}%"
    sixes = [slot for slot in (await sides_of(lab, 22001, 200, version=6)).values() if slot == new]
    assert len(sixes) == pytest.approx(100, abs=30)
    assert chosen[0] < chosen[1] < chosen[2]
    print("shares of 2000 addresses:", [len(group) / 20 for group in chosen])
    await lab.table.start_trial(operation("trial", rollout="another", epoch=2), new, LEASE, share=25)
    others = await sides_of(lab, 23001, 500)
    assert {source for source, slot in others.items() if slot == new} != chosen[1] & set(others)
    assert [await lab.home_of(number) for number in (1, 2)] == [old, old]
    assert [person.lost()[1] for person in people] == [0, 0]


@pytest.mark.sweep
@pytest.mark.usefixtures("orders_wait")
async def test_while_a_share_is_on_trial_everybody_reconnects_to_their_own_instance(
    lab: GatewayLab,  # noqa: F811
) -> None:
    old = await serving(lab)
    before = [await lab.client(number).up() for number in (1, 2)]
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, LEASE, share=50)
    people = [*before, *[await lab.client(number).up() for number in (3, 4, 5)]]
    homes = [await lab.home_of(number) for number in (1, 2, 3, 4, 5)]
    for share in (1, 99):
        await lab.table.start_trial(operation("trial"), new, LEASE, renew=True, share=share)
        times = 2 if share == 1 else 3
        for person in people:
            person.reconnect()
            await person.until("Established DTLS", times=times)
        assert [await lab.home_of(number) for number in (1, 2, 3, 4, 5)] == homes
    assert homes[:2] == [old, old]


async def test_after_a_reboot_the_gateway_serves_what_it_served(lab: GatewayLab) -> None:  # noqa: F811
    slot = await serving(lab)
    await lab.table.remove()
    running = lab.folders.of(slot).process()
    assert running is not None
    running.tell(signal.SIGKILL)
    await until(lambda: not running.alive)
    lab.compose()
    assert (await lab.table.prime()).serving == slot
    assert (await lab.slots.observe()).instance(slot).state is InstanceState.FAILED
    state = await lab.slots.resume()
    assert state.instance(slot).state is InstanceState.RUNNING
    await lab.client(1).up()
    assert await lab.home_of(1) == slot


@pytest.mark.sweep
async def test_an_exempt_person_is_known_on_the_gateway_alone_and_not_ended(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    people = [await lab.client(number).up() for number in (1, 2)]
    lab.folders.daemon = Ocserv(exempt=Exempt(users=("user1",)))
    await lab.table.make_permanent(operation("keep new"), await lab.running("2"))
    look = await lab.sessions.look(old)
    assert (look.sessions, look.exempt) == (2, 1)
    assert "user1" not in look.model_dump_json()
    assert await lab.sessions.end(operation("end"), old, 10) == 1
    await asyncio.to_thread(people[1].process.wait, PATIENCE)
    assert people[0].alive
    assert (await lab.sessions.look(old)).sessions == 1
    assert await lab.sessions.end(operation("end"), old, 10, exempt_too=True) == 1


async def test_a_crash_is_seen_by_the_process_that_is_gone(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    await lab.client(1).up()
    before = await lab.sessions.look(old)
    running = lab.folders.of(old).process()
    assert running is not None
    running.tell(signal.SIGKILL)
    await until(lambda: not running.alive)
    after = await lab.sessions.look(old)
    assert (before.sessions, after.sessions) == (1, 0)
    assert loss_between(before, after) is Loss.CRASH
    assert loss_between(before, after.model_copy(update={"boot": "another"})) is Loss.REBOOT


async def test_a_login_that_never_became_a_session_is_nobody_who_may_come_back(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    site = [
        "ip",
        "netns",
        "exec",
        f"{lab.prefix}c1",
        "openconnect",
        "--protocol=anyconnect",
        "--authenticate",
    ]
    who = ["--non-inter", "--passwd-on-stdin", "--user=user1", f"--cafile={lab.folder}/ca.pem"]
    said = await run([*site, *who, "https://10.77.0.1"], given="secret\n")
    assert "COOKIE=" in said.out
    look = await lab.sessions.look(old)
    assert (look.sessions, look.resumable) == (0, 0)
