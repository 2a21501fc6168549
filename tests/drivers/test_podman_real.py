"""Containers as instances: what they may, what they outlive, and whom nobody is ever sent to.

Real podman and crun, real ocserv in an image of this machine's own daemon, real users.
"""

import asyncio
import os
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from activities.drivers.runtime.host.process import PROC, digest_of_file
from activities.drivers.runtime.podman import container_folders
from activities.drivers.runtime.podman.container_folders import configuration_of
from activities.drivers.runtime.podman.podman import CAPABILITIES, Podman
from activities.drivers.runtime.podman.slots import HALF_LAID
from activities.refusals import RunningMismatch
from policies.attempts import PROVEN_SECONDS, LoginOutcome
from policies.model.adoption import ADOPTED
from policies.model.errors import InstanceGone, Refused
from policies.model.instance import InstanceState
from policies.model.settings import Setting
from tests.drivers.gateway_fixtures import NO_CONTAINERS, built_podman, podman  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import operation
from tests.drivers.podman_lab import PodmanLab, conmon_of
from tests.drivers.unprepared import Unprepared
from tests.patience import PATIENCE, until, wait_until

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(NO_CONTAINERS is not None, reason=NO_CONTAINERS or ""),
    pytest.mark.asyncio(loop_scope="function"),
]
NUMBERS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7, "NET_ADMIN": 12}
"""Of capabilities (linux/capability.h)."""
STATE_PID = ("container", "inspect", "--format", "{{.State.Pid}}", "gw-1-a")


async def killed_while(lab: PodmanLab, step: str, line: str, version: str = "1") -> None:
    """Have an agent of its own do the step and die at the line; then start a new agent."""
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.drivers.dying_container_agent"),
        *(lab.folder, lab.tag, step, version, line),
    )
    assert await asyncio.wait_for(agent.wait(), PATIENCE) == -signal.SIGKILL
    lab.compose()


async def staged(lab: PodmanLab, version: str = "1") -> None:
    release = lab.admission.release(version)
    await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")


async def serving_beside(lab: PodmanLab) -> None:
    """Have release 1 serve in slot a and release 2 run in slot b."""
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    assert await lab.running("2") == "b"


async def pid_in(lab: PodmanLab, slot: str) -> int:
    pid = (await lab.slots.observe()).instance(slot).pid
    assert pid is not None
    return pid


async def test_a_container_has_the_hosts_network_one_device_and_no_right_too_many(
    podman: PodmanLab,  # noqa: F811
) -> None:
    pid = await pid_in(podman, await podman.running("1"))
    process = PROC / str(pid)
    said = dict(
        line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line
    )
    allowed = f"{sum(1 << NUMBERS[right] for right in CAPABILITIES):016x}"
    assert {said[kind] for kind in ("CapPrm", "CapEff", "CapBnd")} == {allowed}
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
    found = [path for path in (process / "root/dev").iterdir() if not path.is_symlink()]
    devices = sorted(path.name for path in found if path.is_char_device())
    assert devices == ["full", "null", "random", "tty", "urandom", "zero"]
    assert [path.name for path in (process / "root/dev/net").iterdir()] == ["tun"]
    own = Path("/proc/thread-self/ns")
    assert (process / "ns/net").readlink() == (own / "net").readlink()
    assert (process / "ns/pid").readlink() != (own / "pid").readlink()
    root = next(line for line in (process / "mountinfo").read_text().splitlines() if line.split()[4] == "/")
    assert root.split()[5].startswith("ro")


async def test_what_runs_is_the_signed_image_by_its_digest(podman: PodmanLab) -> None:  # noqa: F811
    slot = await podman.running("1")
    found = await podman.folders.podman.inspect(f"gw-1-{slot}")
    assert found is not None
    assert found.image == podman.admission.image_of("1").digest
    assert found.pid == await pid_in(podman, slot)


async def test_an_image_is_taken_whatever_the_folder_is_called(podman: PodmanLab, tmp_path: Path) -> None:  # noqa: F811
    await staged(podman)
    [layout] = podman.root.glob("versions/*/image")
    elsewhere = tmp_path / ".State of ours, 1:2" / "image"
    shutil.copytree(layout, elsewhere)
    await podman.folders.podman.keep_only(())
    assert await podman.folders.podman.take(elsewhere)
    assert not await podman.folders.podman.take(elsewhere)


@pytest.mark.sweep
async def test_sessions_outlive_the_agent_podman_and_its_conmon(podman: PodmanLab) -> None:  # noqa: F811
    await podman.table.make_permanent(operation("keep"), await podman.running("1"))
    person = await podman.client(1).up()
    person.ping("a")
    pid = await pid_in(podman, "a")
    await killed_while(podman, "keep", "admitted")
    os.kill(conmon_of(pid), signal.SIGKILL)
    podman.podman("system", "renumber")
    shutil.rmtree(podman.folders.podman.volatile / "libpod")
    podman.podman("ps", "--all")
    await asyncio.sleep(1)
    assert (await podman.slots.observe()).instance("a").sessions == 1
    assert await pid_in(podman, "a") == pid
    assert person.lost()[1] == 0
    assert person.alive


@pytest.mark.sweep
async def test_a_container_without_its_conmon_is_stopped_and_removed_like_any_other(
    podman: PodmanLab,  # noqa: F811
) -> None:
    await serving_beside(podman)
    os.kill(conmon_of(await pid_in(podman, "b")), signal.SIGKILL)
    state = await podman.slots.stop(operation("stop"), "b")
    assert (state.changed, state.instance("b").state) == (True, InstanceState.STOPPED)
    assert podman.podman("ps", "--all", "--format", "{{.Names}}").split() == ["gw-1-a"]


@pytest.mark.sweep
async def test_a_container_that_a_stranger_removed_is_seen_as_failed_and_nobody_is_sent_there(
    podman: PodmanLab,  # noqa: F811
) -> None:
    await serving_beside(podman)
    podman.podman("rm", "--force", "--time", "0", "gw-1-b")
    assert (await podman.slots.observe()).instance("b").state is InstanceState.FAILED
    with pytest.raises(InstanceGone, match="nothing runs"):
        await podman.table.make_permanent(operation("keep new"), "b")
    assert (await podman.table.read()).serving == "a"
    assert await podman.running("2") == "b"


@pytest.mark.sweep
async def test_a_container_that_a_stranger_put_in_our_place_is_not_believed(
    podman: PodmanLab,  # noqa: F811
) -> None:
    await serving_beside(podman)
    before = await podman.folders.podman.inspect("gw-1-b")
    assert before is not None
    podman.podman("rm", "--force", "--time", "0", "gw-1-b")
    folder = podman.container("b")
    podman.podman(
        *("run", "--detach", "--name", "gw-1-b", "--pull", "never", "--cap-drop", "all", "--user", "0:0"),
        *(
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            "--read-only",
            "--log-driver",
            "none",
        ),
        *("--volume", f"{folder.path / 'conf'}:/etc/penstock", "--cap-add", "NET_ADMIN,SETUID,SETGID,CHOWN"),
        *("--device", "/dev/net/tun", "--volume", f"{folder.path / 'run'}:/run/penstock"),
        configuration_of(folder.image).removeprefix("sha256:"),
    )
    running = await podman.folders.podman.inspect("gw-1-b")
    assert running is not None
    assert (running.image, running.pid is None) == (before.image, False)
    assert (await podman.slots.observe()).instance("b").state is InstanceState.FAILED
    with pytest.raises(InstanceGone):
        await podman.table.make_permanent(operation("keep new"), "b")
    with pytest.raises(Refused, match="taken by"):
        await podman.running("2")
    assert (await podman.folders.podman.inspect("gw-1-b")) == running


@pytest.mark.sweep
async def test_a_strangers_container_of_our_name_is_left_alone_and_said(
    podman: PodmanLab,  # noqa: F811
) -> None:
    await staged(podman)
    release = podman.admission.release("1")
    image = podman.admission.image_of("1")
    podman.podman("create", "--name", "gw-1-a", "--pull", "never", *podman.podman("images", "-q").split())
    with pytest.raises(
        Refused, match=rf"gw-1-a .* taken by container .* {image.digest}, which penstock did not"
    ):
        await podman.slots.start(operation("start", digest=release.digest), release)
    assert podman.podman("ps", "--all", "--format", "{{.Names}}").split() == ["gw-1-a"]
    assert podman.daemons() == []


@pytest.mark.sweep
async def test_a_container_that_somebody_restarted_is_found_again_and_not_started_twice(
    podman: PodmanLab,  # noqa: F811
) -> None:
    await podman.table.make_permanent(operation("keep"), await podman.running("1"))
    before = await pid_in(podman, "a")
    podman.restart("gw-1-a", before)
    assert await pid_in(podman, "a") not in (None, before)
    release = podman.admission.release("1")
    again = await podman.slots.start(operation("start again"), release)
    assert (again.slot, again.changed) == ("a", False)
    assert len(podman.daemons()) == 1


@pytest.mark.sweep
async def test_an_image_of_another_digest_is_ended_before_it_gets_a_user(
    podman: PodmanLab,  # noqa: F811
) -> None:
    """The other image has the same files, each as it was signed."""
    for version in ("1", "2"):
        await staged(podman, version)
    one, two = (podman.folders.versions.path(podman.admission.release(v).digest) for v in ("1", "2"))
    shutil.rmtree(one / "image")
    shutil.copytree(two / "image", one / "image")
    release = podman.admission.release("1")
    with pytest.raises(RunningMismatch, match=podman.admission.image_of("2").digest):
        await podman.slots.start(operation("start", digest=release.digest), release)
    assert podman.daemons() == []
    assert podman.podman("ps", "--all", "--quiet") == ""


@pytest.mark.sweep
async def test_a_file_that_was_changed_in_podmans_store_is_found_before_it_gets_a_user(
    podman: PodmanLab,  # noqa: F811
) -> None:
    await staged(podman)
    release = podman.admission.release("1")
    executable = release.executable
    changed = [
        path
        for path in podman.folders.podman.folder.glob("storage/overlay/*/diff/usr/bin/occtl")
        if path.is_file() and not path.is_symlink()
    ]
    assert len(changed) == 1
    changed[0].write_bytes(changed[0].read_bytes() + b"\0")
    with pytest.raises(RunningMismatch, match=r"usr/bin/occtl runs in slot a .* was not signed"):
        await podman.slots.start(operation("start", digest=release.digest), release)
    assert podman.daemons() == []
    root = podman.folders.versions.path(release.digest) / "root"
    assert digest_of_file(root / "usr/sbin/ocserv") == executable


@pytest.mark.sweep
async def test_a_store_that_somebody_emptied_is_filled_again_without_the_source(
    podman: PodmanLab,  # noqa: F811
) -> None:
    old = await podman.running("1")
    await podman.slots.stop(operation("stop"), old)
    podman.podman("rmi", "--all", "--force")
    podman.admission.reachable = False
    release = podman.admission.release("1")
    staged = await podman.slots.stage(operation("back", digest=release.digest), release, "nowhere")
    started = await podman.slots.start(operation("start back", digest=release.digest), release)
    assert (staged.changed, started.changed) == (True, True)
    assert (await podman.slots.probe(started.slot)).passed


@pytest.mark.sweep
async def test_images_go_with_the_versions_that_nobody_needs(podman: PodmanLab) -> None:  # noqa: F811
    await staged(podman, "1")
    shutil.rmtree(podman.folders.versions.path(podman.admission.release("1").digest))
    await staged(podman, "2")
    kept = podman.folders.versions.path(podman.admission.release("2").digest) / "image"
    assert podman.podman("images", "--quiet", "--no-trunc").split() == [configuration_of(kept)]


@pytest.mark.sweep
@pytest.mark.parametrize(
    "line", ["unpacked", "renamed", "image laid", "image beside", "image taken", "unreported"]
)
async def test_a_stage_killed_anywhere_ends_whole(podman: PodmanLab, line: str) -> None:  # noqa: F811
    await killed_while(podman, "stage", line)
    await staged(podman)
    release = podman.admission.release("1")
    version = podman.folders.versions.path(release.digest)
    assert not (version / HALF_LAID).exists()
    assert await podman.folders.podman.has(configuration_of(version / "image"))
    assert [path.name for path in podman.folders.versions.folder.iterdir()] == [version.name]


@pytest.mark.sweep
@pytest.mark.parametrize("line", ["assigned", "room made", "meant", "launched", "unreported"])
async def test_a_start_killed_anywhere_runs_one_container(podman: PodmanLab, line: str) -> None:  # noqa: F811
    await staged(podman)
    await killed_while(podman, "start", line)
    await _starts_one(podman, changed=line not in ("launched", "unreported"))


@pytest.mark.sweep
@pytest.mark.parametrize(("words", "made"), [(("start", "gw-1-a"), False), (STATE_PID, True)])
async def test_a_launch_killed_between_create_start_and_record_runs_one_container(
    podman: PodmanLab,  # noqa: F811
    words: tuple[str, ...],
    made: bool,
) -> None:
    await staged(podman)
    release = podman.admission.release("1")
    podman.deadly(*words)
    order = operation("start", digest=release.digest)
    agent = asyncio.create_task(podman.slots.start(order, release))
    seen = ("--filter", "status=running") if made else ()

    async def is_there() -> bool:
        return bool(await asyncio.to_thread(podman.podman, "ps", "--all", "--quiet", *seen))

    await until(is_there)
    agent.cancel()
    await asyncio.wait([agent])
    assert not (podman.container("a").path / "launched").exists()
    podman.compose()
    await _starts_one(podman, changed=not made)


@pytest.mark.sweep
@pytest.mark.parametrize("line", ["ended", "cleared", "unreported removal", "unreported"])
async def test_a_stop_killed_anywhere_leaves_no_container(podman: PodmanLab, line: str) -> None:  # noqa: F811
    await serving_beside(podman)
    await podman.table.make_permanent(operation("keep new"), "b")
    await killed_while(podman, "stop", line)
    for _ in range(2):
        state = await podman.slots.stop(operation("stop"), "a")
    assert state.instance("a").state is InstanceState.STOPPED
    assert podman.daemons() == [state.instance("b").pid]
    assert podman.podman("ps", "--all", "--format", "{{.Names}}").split() == ["gw-1-b"]


@pytest.mark.sweep
async def test_logins_are_read_from_the_log_as_the_daemon_wrote_it(podman: PodmanLab) -> None:  # noqa: F811
    await podman.table.make_permanent(operation("keep"), await podman.running("1"))
    await podman.client(1).up()
    folder = podman.container("a")
    reader = podman.folders.daemon.logins(frozenset(), sees_processes=podman.folders.sees_processes)
    found = [a for line in folder.log.read_text().splitlines() for a in reader.read(line, 1.0, timed=False)]
    found += reader.give_up(1.0 + PROVEN_SECONDS)
    assert [attempt.key for attempt in found if attempt.outcome is LoginOutcome.OK] == ["user user1"]
    assert folder.log.stat().st_mode & 0o077 == 0


@pytest.mark.sweep
async def test_a_full_log_is_cut_while_the_container_writes_on(podman: PodmanLab) -> None:  # noqa: F811
    slot = await podman.running("1")
    log = podman.container(slot).log
    os.truncate(log, 0)
    await podman.slots.probe(slot)
    assert log.read_bytes()[:1] != b"\0"
    assert "main" in log.read_text()


@pytest.mark.sweep
async def test_settings_reach_a_running_container(podman: PodmanLab) -> None:  # noqa: F811
    await podman.table.make_permanent(operation("keep"), await podman.running("1"))
    pid = await pid_in(podman, "a")
    done = await podman.slots.configure(operation("configure"), (Setting(key="dpd", values=("77",)),))
    assert done.slots == ("a",)
    inside = PROC / str(pid) / "root/etc/penstock/ocserv.conf"
    assert "dpd = 77" in inside.read_text()
    assert await pid_in(podman, "a") == pid


@pytest.mark.sweep
async def test_what_podman_refuses_to_start_is_said_in_its_words(podman: PodmanLab) -> None:  # noqa: F811
    await staged(podman)
    release = podman.admission.release("1")
    podman.deadly("start", "gw-1-a", by='{ echo "Error: no more devices" >&2; exit 125; }')
    with pytest.raises(Refused, match=r"as soon as it was started in slot a of gw-1: Error: no more devices"):
        await podman.slots.start(operation("start", digest=release.digest), release)
    podman.compose()
    await _starts_one(podman, changed=True)


@pytest.mark.sweep
async def test_a_podman_that_hangs_gives_up_the_slots_and_the_next_start_has_them(
    podman: PodmanLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await staged(podman)
    monkeypatch.setattr(container_folders, "LAUNCHED_WITHIN", timedelta(seconds=1))
    release = podman.admission.release("1")
    podman.deadly("start", "gw-1-a", by="exec sleep 600")
    with pytest.raises(
        Refused, match=r"as soon as it was started in slot a of gw-1: timeout: sending signal"
    ):
        await podman.slots.start(operation("start", digest=release.digest), release)
    monkeypatch.undo()
    podman.compose()
    async with asyncio.timeout(PATIENCE):
        await _starts_one(podman, changed=True)


def has_ended(pid: int) -> bool:
    """Whether the process has ended, also where its parent has not heard of that yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def killed(*pids: int) -> None:
    """Kill these processes and wait until they have ended: nothing outlives a reboot."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(has_ended(pid) for pid in pids), found=lambda: pids)


@pytest.mark.sweep
async def test_what_served_before_a_reboot_is_started_again_in_a_new_container(
    podman: PodmanLab,  # noqa: F811
) -> None:
    await podman.table.make_permanent(operation("keep"), await podman.running("1"))
    before = await podman.folders.podman.inspect("gw-1-a")
    assert before is not None
    assert before.pid is not None
    killed(conmon_of(before.pid), before.pid)
    shutil.rmtree(podman.folders.podman.volatile)
    podman.compose()
    state = await podman.slots.resume()
    after = await podman.folders.podman.inspect("gw-1-a")
    assert after is not None
    assert (state.instance("a").state, state.instance("a").pid) == (InstanceState.RUNNING, after.pid)
    assert (after.id != before.id, after.image) == (True, before.image)
    assert (await podman.slots.probe("a")).passed


@pytest.mark.sweep
async def test_a_daemon_of_the_host_is_taken_over_and_followed_by_a_container(
    podman: PodmanLab,  # noqa: F811
) -> None:
    Unprepared(podman)
    person = await podman.client(1).up()
    person.ping(host=9)
    adopted = await podman.adoption.adopt(operation("adopt"), ())
    new = await podman.running("1")
    await podman.table.make_permanent(operation("keep"), new)
    await podman.client(2).up()
    assert await podman.home_of(2) == new
    assert (await podman.sessions.count(ADOPTED), await podman.sessions.count(new)) == (1, 1)
    assert adopted.changed
    assert person.lost()[1] == 0


@pytest.mark.sweep
async def test_what_a_host_lacks_is_said_before_anything_is_changed(podman: PodmanLab) -> None:  # noqa: F811
    release = podman.admission.release("1")
    assert await podman.slots.preflight(release) == ()
    podman.folders.podman = Podman(podman.root / "containers", "no-podman")
    (lacking,) = await podman.slots.preflight(release)
    assert lacking == (
        "no-podman is not installed, without which no container is made; apt-get install no-podman"
    )
    with pytest.raises(Refused, match="gw-1 runs no containers: no-podman is not installed"):
        await staged(podman)
    assert list(podman.folders.versions.folder.iterdir()) == []


@pytest.mark.sweep
async def test_a_store_that_cannot_be_used_is_said_in_podmans_words(podman: PodmanLab) -> None:  # noqa: F811
    (podman.root / "containers").mkdir(parents=True)
    (podman.root / "containers/storage").write_text("no folder\n")
    (lacking,) = await podman.slots.preflight(podman.admission.release("1"))
    assert lacking.startswith(f"podman has no usable store in {podman.root / 'containers'}: ")


async def _starts_one(lab: PodmanLab, *, changed: bool) -> None:
    """Give the order again; one container runs then, and is good."""
    release = lab.admission.release("1")
    started = await lab.slots.start(operation("start", digest=release.digest), release)
    instance = started.state.instance(started.slot)
    assert lab.daemons() == [instance.pid]
    assert (instance.state, instance.executable) == (InstanceState.RUNNING, release.executable)
    assert started.changed is changed
    assert (await lab.slots.probe(started.slot)).passed
    assert lab.podman("ps", "--all", "--format", "{{.Names}}").split() == [f"gw-1-{started.slot}"]
