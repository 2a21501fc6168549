"""The crash table: an agent killed by SIGKILL at any line, and the same order given again."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from activities.drivers.runtime.host import slot_folders, slots
from activities.drivers.runtime.host.journal import exclusive
from activities.drivers.runtime.host.process import mapped_digests
from activities.snapshots import Evidence
from policies.model.errors import Fenced, Refused
from policies.model.instance import InstanceState
from policies.model.refusals import SignerRevoked
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.patience import PATIENCE, until
from tests.sampled import sampled

pytestmark = ON_A_REAL_GATEWAY


async def killed_while(lab: GatewayLab, step: str, line: str, version: str = "1") -> None:  # noqa: F811
    """Have an agent of its own do the step and die at the line; then start a new agent."""
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.drivers.dying_agent", lab.folder, lab.tag, step, version, line
    )
    assert await asyncio.wait_for(agent.wait(), PATIENCE) == -signal.SIGKILL
    lab.compose()


async def serving_beside(lab: GatewayLab) -> None:  # noqa: F811
    """Have release 1 serve in slot a and release 2 run in slot b."""
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    await lab.running("2")


@pytest.mark.sweep
@pytest.mark.parametrize("line", ["admitted", "unpacked", "verified", "renamed", "unreported"])
async def test_a_stage_killed_anywhere_ends_whole(lab: GatewayLab, line: str) -> None:  # noqa: F811
    await killed_while(lab, "stage", line)
    release = lab.admission.release("1")
    staged = await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    assert staged.changed is (line != "unreported")
    versions = lab.folders.versions
    versions.verify(versions.path(release.digest), versions.manifest(release.digest), release)
    assert [path.name for path in versions.folder.iterdir()] == [release.digest.replace(":", "-")]


@pytest.mark.parametrize(
    "line",
    sampled(["admitted", "rendered", "assigned", "meant", "launched", "unreported"], "launched"),
)
async def test_a_start_killed_anywhere_runs_one_process(lab: GatewayLab, line: str) -> None:  # noqa: F811
    release = lab.admission.release("1")
    await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    await killed_while(lab, "start", line)
    started = await lab.slots.start(operation("start", digest=release.digest), release)
    instance = started.state.instance(started.slot)
    assert lab.daemons() == [instance.pid]
    assert (instance.state, instance.executable) == (InstanceState.RUNNING, release.executable)
    assert started.changed is (line not in ("launched", "unreported"))
    assert (await lab.slots.probe(started.slot)).passed


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("step", "want"), [("trial", ("a", "b")), ("keep", ("b", None)), ("back", ("a", None))]
)
@pytest.mark.parametrize("line", sampled(["admitted", "written", "unreported"], "written"))
async def test_a_switch_killed_anywhere_is_told_as_the_kernel_has_it(
    lab: GatewayLab,  # noqa: F811
    step: str,
    want: tuple[str, str | None],
    line: str,
) -> None:
    await serving_beside(lab)
    await killed_while(lab, step, line)
    order = operation({"keep": "keep new"}.get(step, step))
    match step:
        case "trial":
            steering = await lab.table.start_trial(order, "b", slots.UP_WITHIN)
        case "keep":
            steering = await lab.table.make_permanent(order, "b")
        case _:
            steering = await lab.table.end_trial(order)
    assert (steering.serving, steering.trial) == want
    assert steering.changed is (line == "admitted" and step != "back")


@pytest.mark.sweep
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("line", sampled(["fenced", "admitted", "written", "unreported"], "written"))
async def test_going_back_killed_anywhere_is_finished_by_its_repeat(
    lab: GatewayLab,  # noqa: F811
    line: str,
    kept: bool,
) -> None:
    await serving_beside(lab)
    if kept:
        await lab.table.make_permanent(operation("keep new"), "b")
    else:
        await lab.table.start_trial(operation("trial"), "b", slots.UP_WITHIN)
    await killed_while(lab, "restore", line)
    order = operation("restore", rollout="r-back", epoch=2)
    restored = await lab.slots.restore(order, lab.admission.release("1"))
    assert (restored.back, restored.slot, restored.state.epoch) == (True, "a", 2)
    assert restored.changed is (line in ("fenced", "admitted"))
    with pytest.raises(Fenced):
        await lab.table.start_trial(operation("trial"), "b", slots.UP_WITHIN)


@pytest.mark.sweep
@pytest.mark.parametrize("line", sampled(["admitted", "ended", "unreported"], "ended"))
async def test_a_stop_killed_anywhere_ends_only_what_was_meant(lab: GatewayLab, line: str) -> None:  # noqa: F811
    await serving_beside(lab)
    await lab.table.make_permanent(operation("keep new"), "b")
    await killed_while(lab, "stop", line)
    state = await lab.slots.stop(operation("stop"), "a")
    assert state.instance("a").state is InstanceState.STOPPED
    assert lab.daemons() == [state.instance("b").pid]


async def test_two_agents_starting_at_once_run_one_process(lab: GatewayLab) -> None:  # noqa: F811
    release = lab.admission.release("1")
    await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    one = lab.slots
    lab.compose()
    both = await asyncio.gather(
        *(agent.start(operation("start", digest=release.digest), release) for agent in (one, lab.slots))
    )
    assert sorted(started.changed for started in both) == [False, True]
    assert len(lab.daemons()) == 1


@pytest.mark.sweep
async def test_instances_and_sessions_outlive_their_agent(lab: GatewayLab) -> None:  # noqa: F811
    await killed_while(lab, "stage", "unreported")
    await killed_while(lab, "start", "unreported")
    await lab.table.make_permanent(operation("keep"), "a")
    person = await lab.client(1).up()
    person.ping("a")
    await killed_while(lab, "keep", "admitted")
    assert (await lab.slots.observe()).instance("a").sessions == 1
    assert person.lost()[1] == 0


async def test_a_wave_given_up_cannot_start_what_it_was_about_to_start(lab: GatewayLab) -> None:  # noqa: F811
    release = lab.admission.release("1")
    await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    check = lab.folders.daemon.check

    async def fenced_meanwhile(environment: object) -> None:
        await check(environment)  # type: ignore[arg-type]
        await lab.slots.fence(operation("fence", rollout="back", epoch=2))

    lab.folders.daemon.check = fenced_meanwhile  # type: ignore[method-assign]
    with pytest.raises(Fenced):
        await lab.slots.start(operation("start", digest=release.digest), release)
    assert lab.daemons() == []


async def test_an_old_instance_that_crashes_while_draining_is_seen_as_failed(lab: GatewayLab) -> None:  # noqa: F811
    await serving_beside(lab)
    await lab.table.make_permanent(operation("keep new"), "b")
    pid = (await lab.slots.observe()).instance("a").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    async def has_failed() -> bool:
        return (await lab.slots.observe()).instance("a").state is InstanceState.FAILED

    await until(has_failed)
    assert await lab.sessions.count("a") == 0
    stopped = await lab.slots.stop(operation("stop"), "a")
    assert stopped.instance("a").state is InstanceState.STOPPED


async def test_a_pid_that_belongs_to_somebody_else_is_never_ended(lab: GatewayLab) -> None:  # noqa: F811
    await serving_beside(lab)
    await lab.table.make_permanent(operation("keep new"), "b")
    launched = lab.root / "slots/a/launched"
    boot, stat = launched.read_text().splitlines()[:2]
    pid, rest = stat.split(" ", 1)
    launched.write_text(f"{boot}\n{os.getpid()} {rest}\n")
    assert (await lab.slots.observe()).instance("a").pid is None
    await lab.slots.stop(operation("stop"), "a")
    assert int(pid) in lab.daemons()


async def test_files_changed_after_staging_are_not_started(lab: GatewayLab) -> None:  # noqa: F811
    release = lab.admission.release("1")
    await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    library = next((lab.folders.versions.path(release.digest) / "root").rglob("libgnutls*.so*")).resolve()
    library.write_bytes(library.read_bytes() + b"\0")
    with pytest.raises(Refused, match="not the file that was signed"):
        await lab.slots.start(operation("start", digest=release.digest), release)
    assert lab.daemons() == []


async def test_a_release_revoked_since_it_was_staged_is_refused(lab: GatewayLab) -> None:  # noqa: F811
    release = lab.admission.release("1")
    order = operation("stage", digest=release.digest)
    await lab.slots.stage(order, release, "lab")
    lab.admission.revoked = True
    with pytest.raises(Refused, match="revoked"):
        await lab.slots.stage(order, release, "lab")


async def test_the_way_back_to_a_release_that_ran_here_asks_nobody(lab: GatewayLab) -> None:  # noqa: F811
    old = await lab.running("1")
    release = lab.admission.release("1")
    await lab.slots.stop(operation("stop"), old)
    lab.admission.reachable = False
    staged = await lab.slots.stage(operation("back", digest=release.digest), release, "nowhere")
    started = await lab.slots.start(operation("start back", digest=release.digest), release)
    assert (staged.changed, started.changed) == (False, True)
    assert staged.signers == ("release@example.org",)


async def test_a_release_revoked_since_it_ran_here_is_not_started_anew(lab: GatewayLab) -> None:  # noqa: F811
    """H2: the order that put a revoked release into service, with the release still in its slot."""
    old = await lab.running("1")
    release = lab.admission.release("1")
    await lab.slots.stop(operation("stop"), old)
    lab.admission.revoked = True
    with pytest.raises(SignerRevoked):
        await lab.slots.stage(operation("back"), release, "nowhere")
    with pytest.raises(SignerRevoked):
        await lab.slots.start(operation("go"), release)
    assert lab.daemons() == []


async def test_a_revoked_release_that_runs_is_left_alone_and_not_started_after_a_reboot(
    lab: GatewayLab,  # noqa: F811
) -> None:
    """H2: nobody's tunnel is cut for a revocation; a reboot has ended the tunnels already."""
    slot = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), slot)
    lab.admission.revoked = True
    again = await lab.slots.start(operation("start again"), lab.admission.release("1"))
    assert (again.slot, again.changed) == (slot, False)
    for pid in lab.daemons():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: lab.folders.of(slot).process() is None)
    state = await lab.slots.resume()
    assert (state.instance(slot).state, lab.daemons()) == (InstanceState.FAILED, [])
    lab.admission.revoked = False
    assert (await lab.slots.resume()).instance(slot).state is InstanceState.RUNNING


async def test_a_version_that_nobody_may_need_is_removed_and_what_a_slot_has_stays(
    lab: GatewayLab,  # noqa: F811
) -> None:
    """Low: versions/ is pruned, and every old signed build does not stay startable."""
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    old, unused = lab.admission.release("1"), lab.admission.release("2")
    await lab.slots.stage(operation("stage 2"), unused, "lab")
    versions = lab.folders.versions
    for version in (old, unused):
        os.utime(versions.path(version.digest) / ".complete", (0, 0))
    await lab.slots.stage(operation("stage 3"), lab.admission.release("3"), "lab")
    found = {version: versions.complete(lab.admission.release(version).digest) for version in "123"}
    assert found == {"1": True, "2": False, "3": True}
    assert len(list(versions.folder.iterdir())) == 2


async def test_what_a_killed_staging_left_goes_with_the_next_staging_of_any_release(
    lab: GatewayLab,  # noqa: F811
) -> None:
    await killed_while(lab, "stage", "unpacked")
    versions, other = lab.folders.versions, lab.admission.release("2")
    assert versions.left_by_the_killed() > 0, "which counts as room on the disk"
    await lab.slots.stage(operation("stage 2", digest=other.digest), other, "lab")
    assert [path.name for path in versions.folder.iterdir()] == [versions.path(other.digest).name]


async def test_a_config_the_daemon_refuses_is_not_started(lab: GatewayLab) -> None:  # noqa: F811
    with broken(lab.admission.template):
        release = lab.admission.release("1")
        await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    with pytest.raises(Refused, match="ocserv's own test refuses"):
        await lab.slots.start(operation("start", digest=release.digest), release)
    assert lab.daemons() == []


async def test_a_refusal_of_the_daemon_keeps_the_line_that_says_what_is_wrong(lab: GatewayLab) -> None:  # noqa: F811
    """newcomer 4: ocserv's last line says in which line it is, and the one before says what it is."""
    template = lab.admission.template
    good = template.read_text()
    template.write_text(good.replace("run-as-group = nogroup", "run-as-group = daemon"))
    try:
        release = lab.admission.release("1")
        await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
        with pytest.raises(Refused, match=r"on gw-1: unknown group: daemon; config file error in line \d+$"):
            await lab.slots.start(operation("start", digest=release.digest), release)
    finally:
        template.write_text(good)


async def test_every_file_that_runs_was_signed(lab: GatewayLab) -> None:  # noqa: F811
    slot = await lab.running("1")
    pid = (await lab.slots.observe()).instance(slot).pid
    assert pid is not None
    mapped = mapped_digests(pid, lab.folders.of(slot).chroot.root)
    assert any("libgnutls" in path for path in mapped)
    signed = {f"sha256:{file.sha256}" for file in lab.admission.manifest("1").artifacts[0].files}
    assert set(mapped.values()) <= signed


async def test_a_full_disk_is_said_before_anything_changes(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots, "SPARE_BYTES", 2**60)
    release = lab.admission.release("1")
    assert "make room" in (await lab.slots.preflight(release))[0]
    with pytest.raises(Refused, match="make room"):
        await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    assert list(lab.folders.versions.folder.iterdir()) == []


async def test_a_port_taken_by_something_else_is_said_by_the_preflight(lab: GatewayLab) -> None:  # noqa: F811
    assert await lab.slots.preflight(lab.admission.release("1")) == ()
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "0.0.0.0", 4431)
    reasons = await lab.slots.preflight(lab.admission.release("1"))
    server.close()
    await server.wait_closed()
    assert reasons == ("TCP port 4431 of slot a on gw-1 is taken by something else",)


async def test_a_known_good_that_is_gone_from_disk_is_said_by_the_preflight(lab: GatewayLab) -> None:  # noqa: F811
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    (lab.folders.versions.path(lab.admission.release("1").digest) / ".complete").unlink()
    reasons = await lab.slots.preflight(lab.admission.release("2"))
    assert [reason for reason in reasons if "known-good" in reason]


async def test_a_snapshot_holds_the_evidence_and_no_secret(lab: GatewayLab) -> None:  # noqa: F811
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    await lab.client(1).up()
    evidence = Evidence(reason="a test", queries={"loss": ("lost{$cohort}",)})
    content = lab.snapshots.read_frozen(await lab.snapshots.freeze(operation("snapshot"), evidence)).decode()
    for known in ("tcp-port = 4431", "table inet penstock", "VmRSS", "open_fds", "lost{"):
        assert known in content
    assert "worker[user-" in content
    assert "user1" not in content
    assert "10.77.0.11" not in content
    for secret in ("users", "gw.key"):
        for line in (lab.folder / secret).read_text().splitlines():
            assert not line.strip() or line not in content


@contextmanager
def broken(template: Path) -> Iterator[None]:
    """Have the template refused by ocserv itself, for a moment."""
    good = template.read_text()
    template.write_text(good.replace("tcp-port = $port", "tcp-port = none\nno-such-key"))
    yield
    template.write_text(good)


async def test_a_log_that_grew_too_long_is_begun_anew_while_its_instance_writes_on(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    monkeypatch.setattr(slot_folders, "LOG_BYTES", 100)
    await lab.slots.observe()
    log = lab.folders.of("a").log
    assert "initialized" in log.with_name("log.1").read_text()
    await lab.client(1).up()
    written = log.read_text()
    assert "worker[user1]" in written
    assert "initialized" not in written


async def test_who_holds_the_slots_for_long_holds_up_no_agents_start_and_it_is_tried_again(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    for pid in lab.daemons():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: lab.folders.of("a").process() is None)
    monkeypatch.setattr(slots, "RESUMED_WITHIN", timedelta(milliseconds=100))
    monkeypatch.setattr(slots, "RESUMED_EVERY", timedelta(milliseconds=100))
    async with exclusive(lab.root / "slots.lock"), asyncio.timeout(PATIENCE):
        assert (await lab.slots.resume()).instance("a").state is InstanceState.FAILED
    assert "nothing is started again on gw-1 yet: somebody else holds" in caplog.text
    keeping = asyncio.create_task(lab.slots.keep())
    await until(lambda: lab.folders.of("a").process() is not None)
    keeping.cancel()


async def test_connections_that_never_logged_in_are_no_sessions(lab: GatewayLab) -> None:  # noqa: F811
    slot = await lab.running("1")
    _, writer = await asyncio.open_connection("10.77.0.1", 4431)
    chroot, daemon = lab.folders.of(slot).chroot, lab.folders.daemon

    async def is_counted() -> bool:
        said = await daemon._ask(chroot, "show", "status")  # type: ignore[attr-defined]
        return bool(said["Active sessions"] == 1)

    await until(is_counted)
    assert await lab.sessions.count(slot) == 0
    writer.close()
