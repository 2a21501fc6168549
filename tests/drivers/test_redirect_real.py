"""Steering by a redirect with people on the gateway: real HAProxy, real daemons, real clients."""

import asyncio
import signal
import ssl
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from activities.drivers.programs import run
from activities.drivers.steering import haproxy_steering
from activities.drivers.steering.nftables import NftablesTable
from activities.drivers.steering.products import READERS, retire_others
from policies.model.errors import Conflict, LeaseLapsed, Refused
from policies.model.fleet import Slot
from tests.drivers.front_lab import RedirectLab, move
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    built_lab,
    built_redirect,
    lab,
    orders_wait,
    redirect,
)
from tests.drivers.gateway_lab import GatewayLab, gateway, operation
from tests.drivers.halted import halt
from tests.patience import answered, until

pytestmark = [*ON_A_REAL_GATEWAY, pytest.mark.usefixtures("orders_wait")]
LEASE = timedelta(minutes=5)


async def serving(lab: GatewayLab) -> str:  # noqa: F811
    slot = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), slot)
    return slot


async def where(host: str, source: str | None = None) -> str:
    """Return the status, and where a user is sent who asks for this host."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    local = (source, 0) if source else None
    reader, writer = await asyncio.open_connection("10.77.0.1", 443, ssl=anybody, local_addr=local)
    writer.write(f"GET /group?x=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    said = (await reader.read()).decode()
    writer.close()
    status = said.split()[1]
    found = [line.partition(": ")[2] for line in said.splitlines() if line.lower().startswith("location:")]
    return " ".join([status, *found])


async def test_a_switch_and_its_way_back_cost_nobody_a_ping(redirect: RedirectLab) -> None:  # noqa: F811
    old = await serving(redirect)
    people = [await redirect.client(1).up(), await redirect.client(2, version=6).up()]
    for person in people:
        person.ping(old)
    new = await redirect.running("2")
    await redirect.table.start_trial(operation("trial"), new, LEASE)
    await redirect.client(3).up()
    await redirect.table.end_trial(operation("back"))
    await redirect.client(4).up()
    await redirect.table.make_permanent(operation("keep new"), new)
    await redirect.client(5).up()
    assert [await redirect.home_of(number) for number in (1, 2, 3, 4, 5)] == [old, old, new, old, new]
    counts = [person.lost() for person in people]
    assert min(sent for sent, _ in counts) > 10
    assert [lost for _, lost in counts] == [0, 0]


@pytest.mark.sweep
async def test_a_lease_nobody_confirms_ends_by_itself_in_time(redirect: RedirectLab) -> None:  # noqa: F811
    old = await serving(redirect)
    new = await redirect.running("2")
    await redirect.table.start_trial(operation("trial"), new, LEASE)
    await redirect.client(1).up()
    await redirect.table.start_trial(operation("trial"), new, timedelta(seconds=5))
    begun = time.monotonic()  # the lease may have begun any time before, never later
    await asyncio.sleep(5.1 - (time.monotonic() - begun))
    await redirect.client(2).up()
    steering = await redirect.table.read()
    assert (steering.trial, steering.serving) == (None, old)
    assert [await redirect.home_of(number) for number in (1, 2)] == [new, old]


async def test_who_changes_networks_while_the_instance_drains_keeps_the_session(
    redirect: RedirectLab,  # noqa: F811
) -> None:
    old = await serving(redirect)
    person = await redirect.client(6).up()
    new = await redirect.running("2")
    await redirect.table.make_permanent(operation("keep new"), new)
    assert "drains keeps the session" in redirect.table.promises.sentence
    move(redirect, person, 116)
    person.reconnect()
    await person.until("Established DTLS", times=2)
    (session,) = (await redirect.folders.live())[old] or ()
    assert (session.remote_address, person.alive) == ("10.77.0.116", True)
    person.ping(old)
    await asyncio.sleep(1)
    assert person.lost()[1] == 0


@pytest.mark.sweep
async def test_with_nftables_the_same_change_of_networks_costs_the_session(lab: GatewayLab) -> None:  # noqa: F811
    old = await serving(lab)
    person = await lab.client(6).up()
    new = await lab.running("2")
    await lab.table.make_permanent(operation("keep new"), new)
    assert await lab.home_of(6) == old
    assert "drains logs in again" in lab.table.promises.sentence
    move(lab, person, 116)
    person.reconnect()
    await until(lambda: not person.alive)
    assert person.said("Cookie was rejected") + person.said("401") + person.said("Cookie is not") > 0


@pytest.mark.sweep
async def test_the_end_of_haproxy_costs_nobody_a_ping_and_it_is_started_again(
    redirect: RedirectLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(haproxy_steering, "HEAL_EVERY", timedelta(milliseconds=200))
    old = await serving(redirect)
    person = await redirect.client(1).up()
    person.ping(old)
    new = await redirect.running("2")
    begun = datetime.now(UTC)
    await redirect.table.start_trial(operation("trial"), new, LEASE)
    killed = redirect.haproxy
    killed.tell(signal.SIGKILL)
    await until(lambda: not killed.alive)
    assert not (await answered(redirect.table.read)).primed  # its last connection may be reset first
    keeping = asyncio.create_task(redirect.table.keep())

    async def is_on_trial() -> bool:
        return (await redirect.table.read()).trial is not None

    await until(is_on_trial)
    steering = await answered(redirect.table.read)
    assert (steering.serving, steering.trial) == (old, new)
    left = LEASE - (datetime.now(UTC) - begun)
    assert left - timedelta(seconds=1) < (steering.trial_expires_in or LEASE) < LEASE
    await redirect.client(2).up()
    keeping.cancel()
    assert await redirect.home_of(2) == new
    assert redirect.haproxy != killed
    sent, lost = person.lost()
    assert (sent > 20, lost) == (True, 0)


@pytest.mark.sweep
async def test_a_new_agent_finds_the_permanent_slot_though_haproxy_ended_with_the_old_one(
    redirect: RedirectLab,  # noqa: F811
) -> None:
    old = await serving(redirect)
    new = await redirect.running("2")
    await redirect.table.start_trial(operation("trial"), new, LEASE)
    killed = redirect.haproxy
    killed.tell(signal.SIGKILL)
    await until(lambda: not killed.alive)
    redirect.compose()
    steering = await redirect.table.prime()
    assert (steering.serving, steering.trial, steering.changed) == (old, None, True)
    with pytest.raises(LeaseLapsed):
        await redirect.table.start_trial(operation("trial"), new, LEASE, renew=True)
    await redirect.client(1).up()
    assert await redirect.home_of(1) == old


@pytest.mark.sweep
async def test_a_new_agent_finds_haproxy_as_the_old_one_left_it(redirect: RedirectLab) -> None:  # noqa: F811
    old = await serving(redirect)
    new = await redirect.running("2")
    await redirect.table.start_trial(operation("trial"), new, LEASE, share=30)
    before = redirect.haproxy
    redirect.compose()
    steering = await redirect.table.prime()
    assert (steering.serving, steering.trial, steering.share, steering.changed) == (old, new, 30, False)
    assert redirect.haproxy == before
    shown = await READERS["redirect"](redirect.gateway, redirect.root, {})
    assert (shown.primed, shown.serving, shown.trial, shown.share) == (True, old, new, 30)


@pytest.mark.sweep
async def test_a_haproxy_that_somebody_reloaded_says_again_what_it_said(redirect: RedirectLab) -> None:  # noqa: F811
    old = await serving(redirect)
    person = await redirect.client(1).up()
    person.ping(old)
    new = await redirect.running("2")
    await redirect.table.start_trial(operation("trial"), new, LEASE)
    redirect.reloaded_by_somebody()

    async def is_reloaded() -> bool:
        with suppress(OSError, IndexError):  # who is cut off by the one that goes asks again
            return (await where("vpn.example.org")).startswith("302 https://vpn.example.org:4431")
        return False

    await until(is_reloaded)
    assert await redirect.table.heal()
    assert (await where("vpn.example.org")).startswith("302 https://vpn.example.org:4432")
    assert not await redirect.table.heal()
    renewed = await redirect.table.start_trial(operation("trial"), new, LEASE, renew=True)
    assert (renewed.serving, renewed.trial, renewed.changed) == (old, new, False)
    assert person.lost()[1] == 0


@pytest.mark.sweep
async def test_a_haproxy_that_hangs_is_ended_and_started_again(redirect: RedirectLab) -> None:  # noqa: F811
    old = await serving(redirect)
    hung = redirect.haproxy
    await halt(hung.pid)
    keeping = asyncio.create_task(redirect.table.keep())

    async def is_primed() -> bool:
        return not hung.alive and (await redirect.table.read()).primed

    await until(is_primed)
    keeping.cancel()
    await redirect.client(1).up()
    assert await redirect.home_of(1) == old


@pytest.mark.parametrize("what", ["commit map", "set table"])
async def test_a_simulated_haproxy_that_takes_a_change_and_does_not_make_it_is_a_conflict(
    redirect: RedirectLab,  # noqa: F811
    what: str,
) -> None:
    old = await serving(redirect)
    new = await redirect.running("2")
    async with redirect.simulated_liar(lambda command: command.startswith(what)) as taken:
        with pytest.raises(Conflict, match="took a change and did not make it"):
            await redirect.table.start_trial(operation("trial"), new, LEASE)
        assert len(taken) == 1
    steering = await redirect.table.read()
    assert (steering.serving, steering.trial) == (old, None)
    honest = await redirect.table.start_trial(operation("trial"), new, LEASE)
    assert honest.trial == new


async def test_a_haproxy_that_says_what_it_was_told_and_serves_nobody_is_a_conflict(
    redirect: RedirectLab,  # noqa: F811
) -> None:
    await serving(redirect)
    new = await redirect.running("2")
    await haproxy_says(redirect, "disable frontend users")
    with pytest.raises(Conflict, match="does not answer users"):
        await redirect.table.make_permanent(operation("keep new"), new)
    await haproxy_says(redirect, "enable frontend users")
    assert (await redirect.table.make_permanent(operation("keep new"), new)).serving == new


async def haproxy_says(redirect: RedirectLab, command: str) -> str:  # noqa: F811
    reader, writer = await asyncio.open_unix_connection(str(redirect.front / "haproxy.sock"))
    writer.write(f"{command}\n".encode())
    said = (await reader.read()).decode()
    writer.close()
    return said


async def test_a_map_that_somebody_changed_is_written_again(redirect: RedirectLab) -> None:  # noqa: F811
    old = await serving(redirect)
    new = await redirect.running("2")
    assert not await redirect.table.heal()
    await haproxy_says(redirect, f"set map {redirect.front / 'switch.map'} steer {new}")
    assert (await redirect.table.read()).serving == new
    assert await redirect.table.heal()
    assert (await redirect.table.read()).serving == old


@pytest.mark.sweep
async def test_users_are_sent_to_the_name_that_they_asked_for_at_the_instances_port(
    redirect: RedirectLab,  # noqa: F811
) -> None:
    assert await where("vpn.example.org") == "503"
    await serving(redirect)
    assert await where("vpn.example.org") == "302 https://vpn.example.org:4431/group?x=1"
    assert await where("vpn.example.org:443") == "302 https://vpn.example.org:4431/group?x=1"
    assert await where("[fd77::1]:443") == "302 https://[fd77::1]:4431/group?x=1"
    assert await where("evil.example.org/path@x") == "400"


@pytest.mark.sweep
async def test_users_are_sent_to_a_slots_own_name_where_it_has_one(redirect: RedirectLab) -> None:  # noqa: F811
    plain = redirect.gateway
    slots = [slot.model_dump() | {"users_at": f"{slot.name}.example.org"} for slot in plain.slots]
    own = type(plain).model_validate(plain.model_dump() | {"slots": slots, "steering": "redirect"})
    await serving(redirect)
    redirect.gateway = own
    try:
        redirect.compose()
        await redirect.table.prime()
        assert await where("vpn.example.org") == "302 https://a.example.org/group?x=1"
        assert (await redirect.table.refresh()).serving == "a"
    finally:
        redirect.gateway = plain


@pytest.mark.sweep
async def test_a_share_is_kept_within_three_points_over_two_thousand_addresses(
    redirect: RedirectLab,  # noqa: F811
) -> None:
    await serving(redirect)
    new = await redirect.running("2")
    await run(["ip", "route", "replace", "local", "10.88.0.0/16", "dev", "lo"])
    sources = [f"10.88.{number // 250}.{number % 250 + 1}" for number in range(2000)]
    sent: dict[int, set[str]] = {}
    for share in (10, 25):
        await redirect.table.start_trial(operation("trial"), new, LEASE, share=share)
        found = [(source, await where("vpn.example.org", source)) for source in sources]
        counts = Counter(answer for _, answer in found)
        assert set(counts) == {f"302 https://vpn.example.org:{port}/group?x=1" for port in (4431, 4432)}
        sent[share] = {source for source, answer in found if ":4432" in answer}
        assert abs(len(sent[share]) / len(sources) - share / 100) < 0.03
    assert sent[10] <= sent[25]


@pytest.mark.sweep
async def test_users_see_the_certificate_that_was_renewed(redirect: RedirectLab) -> None:  # noqa: F811
    await serving(redirect)
    before = shown()
    redirect.certify("gw")
    assert await redirect.table.renew()
    assert shown() != before
    assert not await redirect.table.renew()
    (redirect.folder / "gw.key").write_text("no key\n")
    with pytest.raises(Exception, match="refuses"):
        await redirect.table.renew()
    assert shown() != before
    redirect.certify("gw")
    await redirect.table.renew()
    await redirect.client(1).up()


def shown() -> str:
    return ssl.get_server_certificate(("10.77.0.1", 443))


@pytest.mark.sweep
async def test_no_daemon_is_adopted_on_the_port_that_haproxy_has(built_redirect: RedirectLab) -> None:  # noqa: F811
    adopted = Slot(**gateway().slots[0].model_dump() | {"name": "own", "port": 443})
    with pytest.raises(Refused, match="adopt it with `steering: nftables`"):
        built_redirect.table.take(adopted)


@pytest.mark.sweep
async def test_a_gateway_that_nftables_steers_is_redirected_from_now_on_and_nobody_notices(
    redirect: RedirectLab,  # noqa: F811
) -> None:
    kernel = NftablesTable(redirect.orders, redirect.means)
    await redirect.table.remove()
    await kernel.prime()
    old = await redirect.running("1")
    await kernel.make_permanent(operation("keep"), old)
    people = [await redirect.client(1).up(), await redirect.client(2).up()]
    new = await redirect.running("2")
    await kernel.make_permanent(operation("keep new"), new)
    for person in people:
        person.ping(old)
    redirect.compose()
    steering = await redirect.table.prime()
    assert (steering.primed, steering.serving) == (True, new)
    plain = redirect.gateway.model_copy(update={"steering": "redirect"})
    assert await retire_others(plain, redirect.root)
    assert not await retire_others(plain, redirect.root)
    people[0].reconnect()
    await people[0].until("Established DTLS", times=2)
    assert "302 Found" in (await redirect.client(3).up()).log.read_text()
    assert [await redirect.home_of(number) for number in (1, 2, 3)] == [old, old, new]
    assert people[1].lost()[1] == 0
    back = NftablesTable(redirect.orders, redirect.means)
    assert (await back.prime()).serving == new
    assert await retire_others(redirect.gateway, redirect.root)
    assert "302 Found" not in (await redirect.client(4).up()).log.read_text()
    assert await redirect.home_of(4) == new
