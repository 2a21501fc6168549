"""strongSwan on a real gateway: its users through a switch, a kick, and the end of their instance."""

import asyncio
import re
import shutil
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import vici

from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.strongswan import daemon as driver
from activities.drivers.daemon.strongswan.control import termination
from activities.drivers.daemon.strongswan.log import LoginLog
from activities.drivers.flows import Flow, flows_of
from policies.attempts import LoginOutcome
from policies.exposure import exposure, findings_of
from policies.model.errors import Refused
from policies.model.fleet import UNMADE_TESTS
from policies.model.instance import InstanceState
from policies.model.release_tests import Method, Outcome, ReleaseTests
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    built_strongswan,
    strongswan,
)
from tests.drivers.gateway_lab import operation
from tests.drivers.halted import halt
from tests.drivers.strongswan_lab import TEMPLATE, StrongSwanLab, why_not_here
from tests.patience import until

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
]
LEASE = timedelta(minutes=5)
RETRANSMITS = 1.0
"""Seconds after which the lab's clients send again what was not answered; strongSwan's own default is 4."""


async def serving(strongswan: StrongSwanLab, version: str) -> str:  # noqa: F811
    slot = await strongswan.running(version)
    await strongswan.table.make_permanent(operation(f"keep {version}"), slot)
    return slot


async def until_home_is(strongswan: StrongSwanLab, number: int, slot: str) -> None:  # noqa: F811
    """Look at the sessions meanwhile, as a drain does."""

    async def is_home() -> bool:
        await strongswan.sessions.count(slot)
        live = await strongswan.folders.live()
        homes = [
            name
            for name, sessions in live.items()
            if any(one.remote_address == f"10.77.0.{10 + number}" for one in sessions or ())
        ]
        return homes == [slot]

    await until(is_home)


async def sent_to(strongswan: StrongSwanLab, slot: str) -> tuple[Flow, ...]:  # noqa: F811
    home = strongswan.folders.of(slot).slot.address
    assert home is not None
    return (await flows_of([home]))[home].sent


async def test_nobody_loses_a_ping_while_new_sessions_go_elsewhere(strongswan: StrongSwanLab) -> None:  # noqa: F811
    old = await serving(strongswan, "1")
    people = [await strongswan.client(number).up() for number in (1, 2)]
    for one in people:
        one.ping(old)
    new = await strongswan.running("2")
    await strongswan.table.start_trial(operation("trial"), new, LEASE)
    await strongswan.client(3).up()
    assert await strongswan.home_of(3) == new
    await strongswan.table.end_trial(operation("back"))
    await strongswan.table.make_permanent(operation("keep 2"), new)
    await asyncio.sleep(1)
    counts = [one.lost() for one in people]
    assert [lost for _, lost in counts] == [0, 0]
    assert all(sent > 20 for sent, _ in counts)
    assert [await strongswan.home_of(number) for number in (1, 2)] == [old, old]


@pytest.mark.sweep
async def test_who_is_told_to_go_is_back_at_the_new_instance_after_one_retransmission_at_most(
    strongswan: StrongSwanLab,  # noqa: F811
) -> None:
    """In both directions: pings come back only when what the client sends and what it gets go through."""
    old = await serving(strongswan, "1")
    client = await strongswan.client(1).up()
    client.ping(old)
    new = await serving(strongswan, "2")
    assert await strongswan.sessions.end(operation("end"), old, 10) == 1
    await until_home_is(strongswan, 1, new)
    await asyncio.sleep(2)
    _, lost = client.lost()
    gap = lost / 20
    print(f"gap of a kick in both directions: {gap:.2f} s")
    assert gap < 3 * RETRANSMITS
    assert await strongswan.sessions.count(old) == 0


async def test_a_goodbye_that_leaves_late_keeps_nobody_from_the_new_instance(
    strongswan: StrongSwanLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """charon says that it has told a peer before its sender, a thread of its own, has sent anything."""

    def late(number: str, told: Callable[[], object]) -> Callable[[vici.Session], bool]:
        def terminate(session: vici.Session) -> bool:
            told()
            return termination(number, lambda: None)(session)

        return terminate

    monkeypatch.setattr(driver, "termination", late)
    old = await serving(strongswan, "1")
    await strongswan.client(1).up()
    new = await serving(strongswan, "2")
    assert await strongswan.sessions.end(operation("end"), old, 10) == 1
    await until_home_is(strongswan, 1, new)


@pytest.mark.sweep
async def test_several_who_are_told_to_go_are_all_back_at_the_new_instance(
    strongswan: StrongSwanLab,  # noqa: F811
) -> None:
    old = await serving(strongswan, "1")
    for number in (1, 2, 3, 4):
        await strongswan.client(number).up()
    new = await serving(strongswan, "2")
    assert await strongswan.sessions.end(operation("end"), old, 10) == 4
    for number in (1, 2, 3, 4):
        await until_home_is(strongswan, number, new)


@pytest.mark.sweep
async def test_who_is_told_to_go_and_has_no_close_action_stays_away(
    strongswan: StrongSwanLab,  # noqa: F811
) -> None:
    old = await serving(strongswan, "1")
    client = await strongswan.client(1, close_action="none").up()
    new = await serving(strongswan, "2")
    assert await strongswan.sessions.end(operation("end"), old, 10) == 1
    await client.until("received DELETE")
    await asyncio.sleep(2)
    assert [await strongswan.sessions.count(slot) for slot in (old, new)] == [0, 0]
    assert client.alive


@pytest.mark.sweep
async def test_a_client_whose_instance_crashed_finds_the_other(strongswan: StrongSwanLab) -> None:  # noqa: F811
    old = await serving(strongswan, "1")
    await strongswan.client(1).up()
    new = await serving(strongswan, "2")
    await strongswan.table.refresh()
    running = strongswan.folders.of(old).process()
    assert running is not None
    running.tell(signal.SIGKILL)
    await until(lambda: not running.alive)
    await strongswan.table.refresh()  # as its keeper does every ten seconds
    await until_home_is(strongswan, 1, new)


@pytest.mark.sweep
async def test_a_login_that_the_new_instance_refuses_is_let_in_after_the_way_back(
    strongswan: StrongSwanLab,  # noqa: F811
) -> None:
    """It sends from the same ports each time, so its flow to the refusing one has to be forgotten."""
    old = await serving(strongswan, "1")
    template = strongswan.admission.template
    template.write_text(
        TEMPLATE.read_text().replace("      auth = pubkey\n      cacerts", "      auth = psk\n      #")
    )
    try:
        new = await strongswan.running("2")
    finally:
        template.write_text(TEMPLATE.read_text())
    await strongswan.table.start_trial(operation("trial"), new, LEASE)
    client = strongswan.client(1)
    await client.until("AUTHENTICATION_FAILED notify error")
    assert {flow.port for flow in await sent_to(strongswan, new)} == {500, 4500}
    await strongswan.table.end_trial(operation("back"))
    assert await sent_to(strongswan, new) == ()
    await client.leave()
    strongswan.people.remove(client)
    await strongswan.client(1).up()
    assert await strongswan.home_of(1) == old


@pytest.mark.sweep
async def test_who_logs_out_and_in_again_finds_the_instance_that_gets_new_sessions_by_then(
    strongswan: StrongSwanLab,  # noqa: F811
) -> None:
    old = await serving(strongswan, "1")
    client = await strongswan.client(1).up()
    stays = await strongswan.client(2).up()
    stays.ping(old)
    new = await serving(strongswan, "2")
    await client.leave()
    strongswan.people.remove(client)
    await strongswan.table.refresh()
    assert {flow.source for flow in await sent_to(strongswan, old)} == {ip_address("10.77.0.12")}
    begun = time.monotonic()
    await strongswan.client(1).up()
    assert time.monotonic() - begun < 3
    assert [await strongswan.home_of(number) for number in (1, 2)] == [new, old]
    assert stays.lost()[1] == 0


@pytest.mark.sweep
async def test_who_changes_its_address_while_its_instance_drains_keeps_its_session(
    strongswan: StrongSwanLab,  # noqa: F811
) -> None:
    """Its packets carry the numbers of its session, wherever they come from."""
    old = await serving(strongswan, "1")
    client = await strongswan.client(1).up()
    new = await serving(strongswan, "2")
    client.ping(old)
    await asyncio.sleep(1)
    strongswan.move(client, "10.77.0.200")

    async def is_known() -> bool:
        await strongswan.table.refresh()
        return [one.remote_address for one in (await strongswan.folders.live())[old] or ()] == ["10.77.0.200"]

    await until(is_known)
    await asyncio.sleep(2)
    sent, lost = client.lost()
    print(f"pings of a client that changes its address: {sent} sent, {lost} lost")
    assert lost <= 20 * RETRANSMITS
    assert [await strongswan.sessions.count(slot) for slot in (old, new)] == [1, 0]
    assert client.said("IKE_SA home[1] established") == 1
    assert client.said("IKE_SA home[2]") == 0


async def test_a_user_with_a_name_beyond_ascii_is_exempt_by_that_name(strongswan: StrongSwanLab) -> None:  # noqa: F811
    """charon prints a question mark for each byte of such a letter."""
    strongswan.certify_by_authority("jürgen")
    for end in ("pem", "key"):
        shutil.copy(strongswan.folder / f"jürgen.{end}", strongswan.folder / f"user3.{end}")
    slot = await serving(strongswan, "1")
    try:
        await strongswan.client(3).up()
        await strongswan.client(2).up()
        place, exempt = strongswan.folders.of(slot).chroot, Exempt(users=("jürgen",))
        found = await driver.StrongSwan(strongswan.login, exempt).sessions(place)
        assert {one.remote_address: one.exempt for one in found or ()} == {
            "10.77.0.13": True,
            "10.77.0.12": False,
        }
    finally:
        strongswan.certify_by_authority("user3")


async def test_an_instance_that_has_ended_leaves_neither_cable_nor_route(strongswan: StrongSwanLab) -> None:  # noqa: F811
    slot = await strongswan.running("1")
    there = await networks()
    assert ("vpna", "10.90.0.0/24") in there
    running = strongswan.folders.of(slot).process()
    assert running is not None
    running.tell(signal.SIGKILL)

    async def is_gone() -> bool:
        return "vpna" not in [device for device, _ in await networks()] and not running.alive

    await until(is_gone)
    assert (await strongswan.slots.observe()).instance(slot).state is InstanceState.FAILED
    again = await strongswan.running("1")
    assert again == slot
    assert (await strongswan.slots.probe(slot)).passed


async def networks() -> list[tuple[str, str]]:
    process = await asyncio.create_subprocess_exec("ip", "route", stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return [(found[2], found[1]) for found in re.finditer(r"^(\S+) .*dev (\S+)", out.decode(), re.MULTILINE)]


@pytest.mark.parametrize(
    ("said", "instead", "words"),
    [
        ("version = 2", "version = 2\n    no_such_option = yes", "unknown option: no_such_option"),
        ("version = 2", "version = 2\n    proposals = nothing", "invalid value for: proposals"),
        ("pools {", "pools", "syntax error"),
        ("file = $credential_key", "file = $credential_authority", "private key failed"),
    ],
)
async def test_a_config_that_charon_refuses_is_not_started_and_its_words_are_told(
    strongswan: StrongSwanLab,  # noqa: F811
    said: str,
    instead: str,
    words: str,
) -> None:
    template = strongswan.admission.template
    template.write_text(TEMPLATE.read_text().replace(said, instead))
    try:
        with pytest.raises(Refused, match=words):
            await strongswan.running("1")
    finally:
        template.write_text(TEMPLATE.read_text())
    assert strongswan.folders.of("a").process() is None


@pytest.mark.sweep
async def test_a_running_instance_keeps_its_socket_and_its_users_while_its_config_is_tested(
    strongswan: StrongSwanLab,  # noqa: F811
) -> None:
    slot = await serving(strongswan, "1")
    client = await strongswan.client(1).up()
    client.ping(slot)
    chroot = strongswan.folders.of(slot).chroot
    await strongswan.folders.daemon.check(chroot)
    assert await strongswan.folders.daemon.count(chroot) == 1
    assert client.lost()[1] == 0


@pytest.mark.sweep
async def test_what_cannot_be_asked_is_unknown_and_never_zero(strongswan: StrongSwanLab) -> None:  # noqa: F811
    slot = await serving(strongswan, "1")
    await strongswan.client(1).up()
    running = strongswan.folders.of(slot).process()
    assert running is not None
    await halt(running.pid)
    try:
        assert await strongswan.sessions.count(slot) is None
        assert not await strongswan.folders.daemon.ready(strongswan.folders.of(slot).chroot)
    finally:
        running.tell(signal.SIGCONT)
    assert await strongswan.sessions.count(slot) == 1


@pytest.mark.sweep
async def test_a_probe_says_at_which_stage_it_failed(strongswan: StrongSwanLab) -> None:  # noqa: F811
    slot = await strongswan.running("1")
    strongswan.forge("probe")
    try:
        refused = await strongswan.slots.probe(slot)
    finally:
        strongswan.certify_by_authority("probe")
    assert (refused.passed, refused.stage) == (False, "auth")
    assert "AUTHENTICATION_FAILED" in refused.reason
    running = strongswan.folders.of(slot).process()
    assert running is not None
    await halt(running.pid)
    silent = await strongswan.slots.probe(slot)
    running.tell(signal.SIGCONT)
    assert (silent.passed, silent.stage) == (False, "tcp")
    assert (await strongswan.slots.probe(slot)).passed


async def test_a_real_instance_passes_the_tests_that_are_left_when_those_it_has_not_are_skipped(
    strongswan: StrongSwanLab,  # noqa: F811
) -> None:
    slot = await strongswan.running("1")
    made = await strongswan.slots.inspect(operation("look"), slot)
    skipped = ReleaseTests(skip=UNMADE_TESTS["strongswan"])
    found = exposure(findings_of(skipped, made, Method.TRIED))
    assert (found.outcome, found.sentence) == (Outcome.PASSED, "passed 4 tests")
    assert exposure(findings_of(ReleaseTests(), made, Method.TRIED)).outcome is Outcome.UNKNOWN


async def test_logins_and_a_stranger_are_told_by_the_log(strongswan: StrongSwanLab, tmp_path: Path) -> None:  # noqa: F811
    del tmp_path
    slot = await serving(strongswan, "1")
    await strongswan.client(1).up()
    strongswan.forge("user2")
    stranger = strongswan.client(2)
    log, found = strongswan.folders.of(slot).log, list[tuple[str, LoginOutcome]]()
    reader = LoginLog()

    def are_told() -> bool:
        nonlocal found, reader
        reader = LoginLog()
        lines = log.read_text(errors="replace").splitlines()
        found = [(one.key, one.outcome) for line in lines for one in reader.read(line, 0.0)]
        return len(found) > 1

    await until(are_told)
    strongswan.certify_by_authority("user2")
    assert stranger.said("} established with SPIs") == 0
    assert found[:2] == [("user user1", LoginOutcome.OK), ("source 10.77.0.12", LoginOutcome.AUTH_FAIL)]
    assert reader.version.startswith("5.")
    names = strongswan.folders.daemon.names_in(log.read_text(errors="replace"))
    assert names >= {"user1", "user2"}
