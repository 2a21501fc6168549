"""A host that serves without us: it is never called empty, and nobody on it notices that we looked."""

import asyncio
import json
import os
import shutil
import sys
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from activities.drivers.programs import run, start
from activities.drivers.runtime.host.path import GatewayPath
from activities.drivers.runtime.host.process import digest_of_file
from activities.snapshots import Evidence
from orchestrator.processes.exporter import Host
from policies.model.adoption import ADOPTED
from policies.model.errors import Refused, Unavailable
from policies.model.instance import InstanceState, Steering
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.unprepared import Unprepared
from tests.patience import PATIENCE, wait_until

pytestmark = ON_A_REAL_GATEWAY

LOCAL_USER = 1000


async def test_a_first_release_is_refused_where_a_daemon_serves_and_its_users_stay(
    lab: GatewayLab,  # noqa: F811
) -> None:
    daemon = Unprepared(lab)
    person = await lab.client(1).up()
    release = lab.admission.release("1")
    await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    with pytest.raises(Refused, match=rf"gw-1 serves already: ocserv\S* \(process {daemon.process.pid}\)"):
        await lab.slots.start(operation("start", digest=release.digest), release)
    assert lab.daemons() == [daemon.process.pid]
    assert (await lab.table.read()).serving is None
    person.reconnect()
    await person.until("Established DTLS", times=2)
    assert any("serves already" in reason for reason in await lab.slots.preflight(release))


async def test_what_listens_elsewhere_is_no_daemon_of_the_users(lab: GatewayLab) -> None:  # noqa: F811
    elsewhere = await asyncio.start_server(lambda *_: None, "127.0.0.1", 443)
    async with elsewhere:
        slot = await lab.running("1")
    assert (await lab.slots.probe(slot)).passed


async def test_a_pool_that_the_host_has_a_use_for_is_refused_before_anybody_is_served(
    lab: GatewayLab,  # noqa: F811
) -> None:
    pool = lab.gateway.slots[1].pool4
    assert pool == ip_network("10.90.1.0/24")
    release = lab.admission.release("1")
    await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    assert (await run(["ip", "route", "add", "10.90.1.128/25", "dev", "br0"])).status == 0
    try:
        said = "pool 10.90.1.0/24 of slot b of gw-1 overlaps the host's route to 10.90.1.128/25 on br0"
        assert any(said in reason for reason in await lab.slots.preflight(release))
        with pytest.raises(Refused, match="slot b of gw-1 overlaps"):
            await lab.slots.start(operation("start", digest=release.digest), release)
    finally:
        await run(["ip", "route", "del", "10.90.1.128/25", "dev", "br0"])
    assert lab.daemons() == []
    await lab.slots.start(operation("start", digest=release.digest), release)
    assert len(lab.daemons()) == 1


async def adopted(lab: GatewayLab) -> Unprepared:  # noqa: F811
    daemon = Unprepared(lab)
    await lab.client(1).up()
    await lab.adoption.adopt(operation("adopt"), ())
    return daemon


async def test_what_serves_is_described_with_its_users_and_slots_beside_it(lab: GatewayLab) -> None:  # noqa: F811
    daemon = Unprepared(lab, more="connect-script = /bin/true\n")
    await lab.client(1).up()
    found = await lab.adoption.examine()
    assert (found.obstacles, found.pid, found.sessions) == ((), daemon.process.pid, 1)
    assert found.config == str(daemon.config)
    assert found.release is not None
    assert found.release.executable == digest_of_file(Path("/usr/sbin/ocserv"))
    assert found.release.version == "1.1.6+adopted"
    assert [(line.key, line.number) for line in found.left_behind] == [("connect-script", 20)]
    assert [(str(slot.pool4), str(slot.pool6)) for slot in found.slots] == [
        ("10.90.10.0/24", "fd90:9:0:1::/64"),
        ("10.90.11.0/24", "fd90:9:0:2::/64"),
    ]
    assert lab.folders.adopted is None


async def test_a_groups_own_pool_is_named_and_kept_from_the_slots_beside_the_daemon(
    lab: GatewayLab,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Reader of the third round, 1: a group had the pool that was proposed for a slot."""
    (tmp_path / "staff").write_text("ipv4-network = 10.90.10.0/24\n")
    Unprepared(lab, more=f"config-per-group = {tmp_path}\n")
    await lab.client(1).up()
    found = await lab.adoption.examine()
    assert found.obstacles == ()
    assert f"{tmp_path}/staff: line 1: ipv4-network gives the same addresses" in found.left_behind[0].reason
    assert [str(slot.pool4) for slot in found.slots] == ["10.90.11.0/24", "10.90.12.0/24"]
    assert ip_network("10.90.10.0/24") in found.pools
    (tmp_path / "staff").write_text(f"ipv4-network = {lab.gateway.slots[0].pool4}\n")
    with pytest.raises(Refused, match=r"some of its users get addresses of .* give the slot another pool"):
        await lab.adoption.adopt(operation("adopt"), ("config-per-group",))
    assert (await lab.adoption.examine()).obstacles
    assert lab.folders.adopted is None


async def test_the_probe_is_tried_at_the_daemon_that_serves_before_anything_is_adopted(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """newcomer 3: a name that misses was found by the first upgrade, an hour later."""
    Unprepared(lab)
    await lab.client(1).up()
    assert (await lab.adoption.examine()).probe == ""
    daemon: Any = lab.folders.daemon
    monkeypatch.setattr(daemon, "_login", replace(daemon._login, name="somebody.example"))
    found = await lab.adoption.examine()
    assert found.probe.startswith("it failed at tls: slot adopted on gw-1, port 443: ")
    assert "certificate does not match hostname; name the certificate's name as probe.name" in found.probe
    assert found.obstacles == ()
    assert found.sessions == 1


async def test_the_way_through_a_gateway_whose_daemon_was_adopted_is_walked(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """newcomer 3: the doctor of a gateway tried no slot there, and called its instance missing."""
    await adopted(lab)
    facts = await GatewayPath(lab.folders, lab.table).walk()
    assert (facts.running, facts.steered_to) == ((ADOPTED,), ADOPTED)
    (tried,) = facts.tried
    assert (tried.slot, tried.let_in) == (ADOPTED, True), tried.words
    daemon: Any = lab.folders.daemon
    monkeypatch.setattr(daemon, "_login", replace(daemon._login, name="somebody.example"))
    (tried,) = (await GatewayPath(lab.folders, lab.table).walk()).tried
    assert "name the certificate's name as probe.name" in tried.words


async def test_a_line_that_no_slot_can_take_over_is_named_and_left_behind_only_when_told(
    lab: GatewayLab,  # noqa: F811
) -> None:
    Unprepared(lab, more="connect-script = /bin/true\n")
    await lab.client(1).up()
    with pytest.raises(
        Refused, match=r"take over: connect-script \(line 20\)\. .* adopt with --without connect-script;"
    ):
        await lab.adoption.adopt(operation("adopt"), ())
    assert (await lab.table.read()).serving is None
    assert (await lab.adoption.adopt(operation("adopt"), ("connect-script",))).changed


@pytest.mark.sweep
async def test_an_adopted_daemon_keeps_its_users_through_an_upgrade_and_the_way_back_to_it(
    lab: GatewayLab,  # noqa: F811
) -> None:
    daemon = Unprepared(lab)
    people = [await lab.client(1).up(), await lab.client(2, version=6).up()]
    for person in people:
        person.ping(host=9)
    done = await lab.adoption.adopt(operation("adopt"), ())
    assert (done.sessions, done.changed, daemon.process.poll()) == (2, True, None)
    restless = await lab.client(3).up()
    new = await lab.running("1")
    await lab.table.start_trial(operation("trial"), new, timedelta(seconds=30))
    await lab.table.make_permanent(operation("keep"), new)
    await lab.client(4).up()
    restless.reconnect()  # loses a ping by itself when it drops its connection
    await restless.until("Established DTLS", times=2)
    homes = [await lab.home_of(number) for number in (1, 2, 3, 4)]
    assert homes == [ADOPTED, ADOPTED, ADOPTED, new]
    assert (await lab.sessions.look(ADOPTED)).sessions == 3
    back = await lab.slots.restore(operation("back", rollout="r-2", epoch=2), done.release)
    assert (back.slot, back.back) == (ADOPTED, True)
    await lab.client(5).up()
    assert await lab.home_of(5) == ADOPTED
    await asyncio.sleep(1)  # however fast all that was, its pings went on for a second
    sent = [person.lost() for person in people]
    assert [lost for _, lost in sent] == [0, 0]
    assert min(count for count, _ in sent) > 20
    assert lab.daemons().count(daemon.process.pid) == 1


async def test_an_adoption_is_the_same_when_repeated_also_by_an_agent_started_anew(
    lab: GatewayLab,  # noqa: F811
) -> None:
    first = await adopted(lab)
    lab.compose()
    await lab.table.prime()
    assert (await lab.slots.resume()).serving is not None
    again = await lab.adoption.adopt(operation("adopt"), ())
    assert not again.changed
    assert (await lab.slots.observe()).serving == (await lab.slots.observe()).instance(ADOPTED)
    assert lab.daemons() == [first.process.pid]


@pytest.mark.sweep
async def test_an_adopted_daemon_that_was_drained_is_ended_and_never_taken_for_a_free_slot(
    lab: GatewayLab,  # noqa: F811
) -> None:
    daemon = await adopted(lab)
    with pytest.raises(Refused, match="gets new sessions"):
        await lab.slots.stop(operation("stop"), ADOPTED)
    slot = await lab.running("1")
    assert slot != ADOPTED
    await lab.table.make_permanent(operation("keep"), slot)
    with pytest.raises(Refused, match="still has 1 sessions"):
        await lab.slots.stop(operation("stop"), ADOPTED)
    assert await lab.sessions.end(operation("end"), ADOPTED, 9) == 1
    assert [str(pool) for pool in (await lab.slots.observe()).own_pools] == ["10.90.9.0/24", "fd90:9::/64"]
    await lab.slots.stop(operation("stop"), ADOPTED)
    assert daemon.process.wait(PATIENCE) is not None
    assert (await lab.slots.observe()).own_pools == ()
    others = [await lab.running("2"), await lab.running("3")]
    assert ADOPTED not in others


async def test_the_first_release_after_an_adoption_has_to_follow_what_was_adopted(lab: GatewayLab) -> None:  # noqa: F811
    await adopted(lab)
    await lab.running("1")
    assert lab.admission.met is not None
    there = lab.admission.met.serving
    assert there is not None
    assert (there.version, there.rollback_index) == ("1.1.6+adopted", 0)
    assert there.executable == digest_of_file(Path("/usr/sbin/ocserv"))


async def test_nothing_to_adopt_and_too_much_to_adopt_are_told_as_they_are(lab: GatewayLab) -> None:  # noqa: F811
    assert "nothing listens on port 443" in (await lab.adoption.examine()).obstacles[0]
    stranger = await start([sys.executable, "-m", "http.server", "443"], stderr=asyncio.subprocess.DEVNULL)
    try:
        while "nothing listens" in (said := (await lab.adoption.examine()).obstacles[0]):
            assert stranger.returncode is None
        assert f"(process {stranger.pid}) serves port 443 of gw-1" in said
        assert "no ocserv" in said
    finally:
        stranger.kill()
        await stranger.wait()
    with pytest.raises(Refused, match="nothing to adopt"):
        await lab.adoption.adopt(operation("adopt"), ())
    await lab.running("1")
    await lab.table.make_permanent(operation("keep"), "a")
    Unprepared(lab)
    with pytest.raises(Refused, match="slot a of gw-1 serves already"):
        await lab.adoption.adopt(operation("adopt"), ())


@pytest.mark.sweep
async def test_a_gateway_is_handed_back_to_its_own_daemon_once_its_unit_runs_it_and_nobody_is_lost(
    lab: GatewayLab,  # noqa: F811
) -> None:
    daemon = Unprepared(lab)
    first = await lab.client(1).up()
    own = (await lab.adoption.adopt(operation("adopt"), ())).release
    slot = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), slot)
    await first.leave()
    await lab.sessions.end(operation("end"), ADOPTED, 9)
    await lab.slots.stop(operation("stop"), ADOPTED)
    daemon.process.wait(PATIENCE)
    person = await lab.client(2).up()
    person.ping(slot)
    back = operation("restart", rollout="r-2", epoch=2)
    with pytest.raises(Refused, match="only its own unit can start it: nothing listens on port 443"):
        await lab.slots.start(back, own)
    Unprepared(lab)
    assert (await lab.slots.start(back, own)).slot == ADOPTED
    assert (await lab.slots.probe(ADOPTED)).passed
    await lab.table.make_permanent(operation("keep own", rollout="r-2", epoch=2), ADOPTED)
    await lab.client(3).up()
    assert person.lost()[1] == 0
    person.reconnect()
    await person.until("Established DTLS", times=2)
    assert [await lab.home_of(number) for number in (2, 3)] == [slot, ADOPTED]


async def test_a_daemon_that_its_unit_has_started_anew_is_adopted_again_in_its_slot(
    lab: GatewayLab,  # noqa: F811
) -> None:
    daemon = await adopted(lab)
    daemon.process.kill()
    daemon.process.wait(PATIENCE)
    assert (await lab.slots.observe()).instance(ADOPTED).state is InstanceState.FAILED
    for person in lab.people:
        await person.leave()
    anew = Unprepared(lab)
    again = await lab.adoption.adopt(operation("adopt anew"), ())
    assert again.changed
    assert (await lab.slots.observe()).instance(ADOPTED).pid == anew.process.pid


async def test_a_daemon_that_was_started_anew_as_it_was_is_the_first_instance_again_without_a_person(
    lab: GatewayLab,  # noqa: F811
) -> None:
    daemon = await started_anew(lab)
    state = await lab.slots.resume()
    assert state.instance(ADOPTED).pid == daemon.process.pid
    assert (state.serving, lab.record) == (state.instance(ADOPTED), [])


async def test_a_daemon_that_was_started_anew_with_another_configuration_waits_for_a_person(
    lab: GatewayLab,  # noqa: F811
) -> None:
    await started_anew(lab, more="banner = other\n")
    state = await lab.slots.resume()
    assert state.instance(ADOPTED).state is InstanceState.FAILED
    [(action, why)] = lab.record
    assert action == "adopted daemon not taken again"
    assert why.startswith("gw-1: what its unit runs now has another configuration in /")
    reasons = await lab.slots.preflight(lab.admission.release("1"))
    assert any("has ended: what its unit runs now has another configuration" in one for one in reasons)
    assert (await lab.adoption.adopt(operation("adopt anew"), ())).changed
    await lab.adoption.follow()
    assert (await lab.slots.observe()).instance(ADOPTED).state is InstanceState.RUNNING


async def started_anew(lab: GatewayLab, more: str = "") -> Unprepared:  # noqa: F811
    """Adopt a daemon, end it, start it again, and begin as an agent does."""
    before = await adopted(lab)
    before.process.kill()
    before.process.wait(PATIENCE)
    for person in lab.people:
        await person.leave()
    lab.compose()
    return Unprepared(lab, more=more)


async def test_an_adoption_that_was_cut_short_before_the_steering_is_completed_by_its_repeat(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = Unprepared(lab)
    await lab.client(1).up()

    async def cut(*_: object) -> Steering:
        raise Unavailable("the agent was killed here")

    with monkeypatch.context() as killed:
        killed.setattr(lab.table, "make_permanent", cut)
        with pytest.raises(Unavailable):
            await lab.adoption.adopt(operation("adopt"), ())
    lab.compose()
    assert (await lab.slots.observe()).serving is None
    assert (await lab.adoption.adopt(operation("adopt"), ())).sessions == 1
    serving = (await lab.slots.observe()).serving
    assert serving is not None
    assert serving.pid == daemon.process.pid


async def test_a_daemon_in_a_container_is_refused_and_nothing_of_it_is_run(lab: GatewayLab) -> None:  # noqa: F811
    Unprepared(lab, within=("unshare", "--pid", "--fork", "--kill-child"))
    found = await lab.adoption.examine()
    assert "serves gw-1 and has process numbers of its own: what runs in a container" in found.obstacles[0]
    assert found.release is None


async def test_a_daemon_of_somebody_elses_making_is_refused(lab: GatewayLab, tmp_path: Path) -> None:  # noqa: F811
    copy = tmp_path / "ocserv"
    shutil.copy("/usr/sbin/ocserv", copy)
    os.chown(copy, 1000, 1000)
    Unprepared(lab, program=copy)
    found = await lab.adoption.examine()
    assert "its executable belongs to user 1000" in found.obstacles[0]


class LocalUsers(Unprepared):
    """A daemon that takes connections, and has no answer for root, whom its namespace does not know."""

    def _wait(self) -> None:
        def listens() -> bool:
            assert self.process.poll() is None, self.words()
            return "listening (UDP) on [::]:443" in self.words()

        wait_until(listens)


async def test_a_daemon_that_a_local_user_started_is_refused_and_nothing_among_its_mounts_is_run(
    lab: GatewayLab,  # noqa: F811
) -> None:
    folder = lab.root / "unprepared"
    folder.mkdir()
    os.chown(folder, LOCAL_USER, LOCAL_USER)
    for above in folder.parents:
        if above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    trap, sprung = folder / "occtl", folder / "ran as root"
    trap.write_text(f"#!/bin/sh\nid > '{sprung}'\n")
    trap.chmod(0o755)
    for name in ("gw.key", "users"):
        (lab.folder / name).chmod(0o644)
    assert (await run(["sysctl", "-w", "net.ipv4.ip_unprivileged_port_start=0"])).status == 0
    user = ("setpriv", f"--reuid={LOCAL_USER}", f"--regid={LOCAL_USER}", "--clear-groups")
    mounts = ("unshare", "-Urm", "sh", "-c", f'mount --bind "{trap}" /usr/bin/occtl; exec "$@"', "sh")
    LocalUsers(lab, within=(*user, *mounts))
    found = await lab.adoption.examine()
    assert not sprung.exists()
    assert f"runs as user {LOCAL_USER}: only root's daemons are adopted" in found.obstacles[0]
    with pytest.raises(Refused, match="only root's daemons"):
        await lab.adoption.adopt(operation("adopt"), ())


@pytest.mark.parametrize(
    ("whose", "mode", "said"), [(0, 0o666, "chmod go-w"), (LOCAL_USER, 0o644, "chown 0")]
)
async def test_a_configuration_that_a_local_user_may_write_counts_as_nobodys(
    lab: GatewayLab,  # noqa: F811
    whose: int,
    mode: int,
    said: str,
) -> None:
    daemon = Unprepared(lab)
    await lab.client(1).up()
    daemon.config.chmod(mode)
    os.chown(daemon.config, whose, whose)
    found = await lab.adoption.examine()
    assert said in found.obstacles[0]
    assert (found.config, found.sessions) == ("", None)


async def test_an_adopted_daemon_is_seen_by_the_exporter_and_in_the_evidence_of_a_failure(
    lab: GatewayLab,  # noqa: F811
) -> None:
    host = Host(lab.gateway, lab.root)
    await adopted(lab)
    assert list(host.find()) == []  # once seen it may still be a shell
    [running] = host.find()
    assert (running.slot, running.version) == (ADOPTED, "1.1.6+adopted")
    await host.read_steering()
    assert host.serving() == ADOPTED
    assert (await host.answer(ADOPTED)).certificate is not None
    assert await host.folders.count(ADOPTED) == 1
    digest = await lab.snapshots.freeze(operation("freeze"), Evidence(reason="a test"))
    frozen = json.loads(lab.snapshots.read_frozen(digest))
    assert frozen["slots"][ADOPTED]["state"]["release"]["version"] == "1.1.6+adopted"
    assert len(frozen["sessions"][ADOPTED]) == 1


async def test_a_daemon_that_listens_on_one_address_alone_is_refused_with_the_line_that_says_so(
    lab: GatewayLab,  # noqa: F811
) -> None:
    Unprepared(lab, more="listen-host = 10.77.0.1\n")
    assert "take listen-host out of its configuration" in (await lab.adoption.examine()).obstacles[0]


async def test_a_daemon_whose_users_a_slot_would_get_too_is_refused(lab: GatewayLab) -> None:  # noqa: F811
    daemon = Unprepared(lab, pool="10.90.0.0/24")
    await lab.client(1).up()
    found = await lab.adoption.examine()
    assert "its pool 10.90.0.0/24 overlaps 10.90.0.0/24 of slot a of gw-1" in found.obstacles[0]
    with pytest.raises(Refused, match="overlaps"):
        await lab.adoption.adopt(operation("adopt"), ())
    assert (lab.folders.adopted, daemon.process.poll()) == (None, None)
