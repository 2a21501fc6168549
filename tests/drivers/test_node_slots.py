"""What is special on a node: a pod is believed by its uid, and its agent neither starts nor ends any."""

import asyncio
import json
import os
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from activities.drivers.runtime.pods.pod import CONTROL, pod_at
from policies.model.errors import BadInput, InstanceGone, Refused
from policies.model.instance import InstanceState
from policies.model.mirror import Mirror
from policies.model.placement import Placed
from policies.model.plan import ReleaseRef
from policies.model.release_tests import Asked, Load
from policies.model.settings import Setting
from policies.model.value import digest_of
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    built_lab,
    built_node,
    lab,
    node,
)
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.node_lab import NOBODY, NodeLab

pytestmark = ON_A_REAL_GATEWAY

ANYTHING = {"instance": NOBODY, "image": digest_of(b"an image")}
LEASE = timedelta(minutes=5)
NET_ADMIN, DAC_OVERRIDE = 1 << 12, 1 << 1
"""Capabilities by their bits (capability.h)."""

# What a pod is that has a read-only root, one folder of its own, some memory at /tmp, and two capabilities.
AS_A_POD = """set -e
folder=$1 root=$2; shift 2
mount --bind "$folder" /mnt
mount -t tmpfs tmpfs /tmp
mkdir -p "$folder"; mount --bind /mnt "$folder"; mount -o remount,bind,ro "$folder"
mount --bind "/mnt/${root##*/}" "$root"
umount /mnt; mount -o remount,bind,ro /
exec setpriv --bounding-set -all,+net_admin,+dac_override --inh-caps -all --no-new-privs -- "$@"
"""


async def serving(node: NodeLab, version: str = "1") -> str:  # noqa: F811
    slot = await node.running(version)
    await node.table.make_permanent(operation("keep"), slot)
    return slot


async def placed(node: NodeLab, version: str, slot: str) -> Placed:  # noqa: F811
    """Have a cluster place the release there, which the agent has staged and not heard more of."""
    await node.node.stage(operation("stage"), node.admission.release(version), "lab", slot)
    return await node.kubelet.place(slot)


# --- who is believed ------------------------------------------------------------------


async def test_a_pod_that_was_not_proven_is_counted_and_trusted_by_nobody(node: NodeLab) -> None:  # noqa: F811
    await placed(node, "1", "b")
    release, state = node.admission.release("1"), await node.node.observe()
    found = state.instance("b")
    assert (found.state, found.executable, found.sessions) == (InstanceState.RUNNING, None, 0)
    assert state.running(release.digest, release.executable) is None
    with pytest.raises(InstanceGone, match="not what was proven"):
        await node.table.make_permanent(operation("keep"), "b")
    with pytest.raises(InstanceGone, match="not what was proven"):
        await node.table.start_trial(operation("trial"), "b", LEASE)
    assert (await node.table.read()).serving is None
    back = await node.node.restore(operation("back", epoch=2), release)
    assert (back.back, back.slot) == (False, None)
    with pytest.raises(Refused, match="nothing that could be tested"):
        await node.node.inspect(operation("inspect", epoch=2), "b")


@pytest.mark.sweep
async def test_a_pod_that_took_the_place_of_the_proven_one_serves_unbelieved_until_it_is_proven(
    node: NodeLab,  # noqa: F811
) -> None:
    slot = await serving(node)
    await node.kubelet.lose(slot)
    gone = (await node.node.observe()).instance(slot)
    assert (gone.state, gone.sessions) == (InstanceState.FAILED, 0)
    stranger = await node.kubelet.place(slot)
    await node.client(1).up()
    release, state = node.admission.release("1"), await node.node.observe()
    found = state.instance(slot)
    assert (found.state, found.executable, found.sessions) == (InstanceState.RUNNING, None, 1)
    assert any("is not the one that its cluster proved" in one for one in await node.node.preflight(release))
    assert not (await node.node.restore(operation("back", epoch=2), release)).back
    started = await node.node.start(operation("restart", epoch=2), release, stranger)
    assert started.state.instance(slot).executable == release.executable
    assert (await node.node.restore(operation("back", epoch=2), release)).back
    assert await node.sessions.count(slot) == 1


async def test_a_proof_holds_over_a_restart_of_the_agent_and_of_the_same_pod_and_for_no_other(
    node: NodeLab,  # noqa: F811
) -> None:
    slot = await serving(node)
    before, look = (await node.node.observe()).instance(slot), await node.sessions.look(slot)
    node.compose()
    resumed = await node.node.resume()
    assert (resumed.instance(slot), resumed.changed) == (before, False)
    uid = await node.kubelet.restart(slot)
    again, later = (await node.node.observe()).instance(slot), await node.sessions.look(slot)
    assert (again.executable, again.state) == (before.executable, InstanceState.RUNNING)
    assert again.started_at != before.started_at
    assert look.process != later.process
    assert [str(one.process).partition(".")[0] for one in (look, later)] == [uid, uid]


async def test_a_socket_at_which_nobody_listens_and_a_link_to_one_are_no_pods(
    node: NodeLab,  # noqa: F811
) -> None:
    slot = await serving(node)
    run = node.pods.pod(slot).path / "run"
    stale, link = run / str(uuid4()), run / str(uuid4())
    for folder in (stale, link):
        folder.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale / CONTROL))
    (uid,) = [folder.name for folder in run.iterdir() if pod_at(folder) is not None]
    (link / CONTROL).symlink_to(run / uid / CONTROL)
    assert (stale / CONTROL).is_socket()
    assert [pod_at(folder) for folder in (stale, link)] == [None, None]


async def test_what_is_placed_is_refused_where_it_is_not_what_was_staged_and_signed(
    node: NodeLab,  # noqa: F811
) -> None:
    good = await placed(node, "1", "a")
    release = node.admission.release("1")
    other = await node.node.observe()

    async def start(release: ReleaseRef, **said: str) -> None:
        await node.node.start(operation("start"), release, good.model_copy(update=said))

    with pytest.raises(Refused, match="runs image"):
        await start(release, image=digest_of(b"another"))
    with pytest.raises(Refused, match="no config of ocserv 1"):
        await start(release, slot="b")
    with pytest.raises(BadInput, match="none of gw-1"):
        await start(release, gateway="gw-2")
    with pytest.raises(BadInput, match="none of gw-1"):
        await start(release, instance="../../b")
    with pytest.raises(BadInput, match="stage it first"):
        await start(node.admission.release("2"))
    with pytest.raises(BadInput, match="its cluster starts"):
        await node.node.start(operation("start"), release)
    with pytest.raises(BadInput, match="say in which slot"):
        await node.node.stage(operation("stage"), release, "lab")
    assert (await node.node.observe()).instances == other.instances


async def test_a_release_without_an_image_is_never_taken_for_what_a_pod_runs(
    node: NodeLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signed = node.admission.manifest
    monkeypatch.setattr(
        node.admission, "manifest", lambda version: signed(version).model_copy(update={"image": None})
    )
    there = await placed(node, "1", "a")
    with pytest.raises(Refused, match="names no image"):
        await node.node.start(operation("start"), node.admission.release("1"), there)


# --- what is laid out, and what ends ---------------------------------------------------


async def test_a_config_is_never_put_under_a_pod_nor_where_another_release_gets_new_sessions(
    node: NodeLab,  # noqa: F811
) -> None:
    slot = await serving(node)
    one, two = (node.admission.release(version) for version in "12")
    kept = node.pods.pod(slot).config
    assert not (await node.node.stage(operation("again"), one, "lab", slot)).changed
    with pytest.raises(Refused, match="is in use"):
        await node.node.stage(operation("stage"), two, "lab", slot)
    await node.kubelet.lose(slot)
    with pytest.raises(Refused, match="gets new sessions"):
        await node.node.stage(operation("stage"), two, "lab", slot)
    assert (node.pods.pod(slot).config, node.pods.pod(slot).release) == (kept, one)
    assert not (await node.node.stage(operation("for the way back"), one, "lab", slot)).changed


async def test_a_config_that_the_releases_own_daemon_refuses_is_refused_before_any_pod_is_placed(
    node: NodeLab,  # noqa: F811
) -> None:
    template = node.admission.template
    good = template.read_text()
    template.write_text(good.replace('auth = "plain[', 'auth = "guessed['))
    try:
        with pytest.raises(Refused, match="own test refuses the config of slot a"):
            await node.node.stage(operation("stage"), node.admission.release("1"), "lab", "a")
    finally:
        template.write_text(good)
    with pytest.raises(BadInput, match="stage it first"):
        await node.node.start(
            operation("start"),
            node.admission.release("2"),
            Placed(gateway="gw-1", slot="a", instance=NOBODY, image=node.admission.image),
        )


@pytest.mark.sweep
async def test_stopping_ends_nothing_and_lets_nobody_be_steered_there_any_more(
    node: NodeLab,  # noqa: F811
) -> None:
    old = await serving(node)
    uid = node.kubelet.containers[old].uid
    new = await node.running("2")
    await node.table.make_permanent(operation("keep new"), new)
    first = await node.node.stop(operation("stop"), old)
    second = await node.node.stop(operation("stop"), old)
    assert (first.changed, second.changed) == (True, False)
    found = second.instance(old)
    assert (found.state, found.executable) == (InstanceState.RUNNING, None)
    assert node.kubelet.containers[old].uid == uid
    assert node.kubelet.containers[old].alive
    with pytest.raises(InstanceGone, match="not what was proven"):
        await node.table.make_permanent(operation("keep old"), old)
    await node.kubelet.remove(old)
    assert (await node.node.observe()).instance(old).state is InstanceState.STOPPED


async def test_what_ended_pods_left_goes_and_what_a_pod_may_be_mounting_stays(node: NodeLab) -> None:  # noqa: F811
    run = node.pods.pod("a").path / "run"
    left, young = run / str(uuid4()), run / str(uuid4())
    for folder in (left, young):
        folder.mkdir()
    os.utime(left, (time.time() - 7200,) * 2)
    await node.node.stage(operation("stage"), node.admission.release("1"), "lab", "a")
    assert (left.exists(), young.exists()) == (False, True)


# --- every other thing that an agent does -----------------------------------------------


@pytest.mark.sweep
async def test_new_credentials_reach_pods_at_their_socket_and_no_session_ends(node: NodeLab) -> None:  # noqa: F811
    slot = await serving(node)
    await node.client(1).up()
    before = await node.sessions.look(slot)
    node.certify("gw")
    reloaded = await node.node.reload(operation("reload"), older=True)
    assert reloaded.slots == (slot,)
    assert "certificate" in reloaded.credentials
    after = await node.sessions.look(slot)
    assert (after.process, after.sessions) == (before.process, 1)
    banner = Setting(key="banner", values=("maintenance on Sunday",))
    told = await node.node.configure(operation("configure", rollout="r-banner", epoch=2), (banner,))
    assert (told.slots, told.state.settings) == ((slot,), banner.lines)
    config = node.pods.pod(slot).path / "conf/ocserv.conf"
    assert "maintenance on Sunday" in config.read_text()
    back = await node.node.take_back(operation("take back", rollout="r-back", epoch=3), "r-banner")
    assert (back.slots, "maintenance" in config.read_text()) == ((slot,), False)
    assert await node.sessions.count(slot) == 1


@pytest.mark.sweep
async def test_an_instance_is_tested_as_far_as_an_agent_without_rights_can_and_says_what_it_cannot(
    node: NodeLab,  # noqa: F811
) -> None:
    slot = await serving(node)
    made = {one.test: one for one in await node.node.inspect(operation("inspect"), slot)}
    assert {name for name, one in made.items() if one.measured is None} <= {Asked.CLEARTEXT}
    assert (made[Asked.FILES].measured, made[Asked.CONFIG].measured) == (0, 0)
    assert (made[Asked.LOGIN].measured, made[Asked.PINGS_LOST].measured) == (2, 0)
    assert "by its cluster's word" in made[Asked.FILES].said
    new = await node.running("2")
    loaded = await node.node.load(operation("load"), new, Load(sessions=2, seconds=1))
    assert {one.measured for one in loaded} == {None}
    assert all("an agent on a node may not make" in one.said for one in loaded)
    mirror = Mirror(seconds=6, at_least=60, at_most=60)
    refused, seconds = await node.node.mirror(operation("mirror"), new, mirror)
    assert refused.measured == 0, refused.said
    assert seconds.measured is not None
    assert refused.said.startswith("6 and 6 of 6 shadow logins let in, new and old")


async def test_a_host_starts_its_instances_itself_and_takes_none_from_a_cluster(
    lab: GatewayLab,  # noqa: F811
) -> None:
    release = lab.admission.release("1")
    await lab.slots.stage(operation("stage"), release, "lab")
    for refused in (
        lab.slots.stage(operation("stage"), release, "lab", "a"),
        lab.slots.start(operation("start"), release, Placed(gateway="gw-1", slot="a", **ANYTHING)),
    ):
        with pytest.raises(BadInput, match="starts its instances itself"):
            await refused
    assert {one.state for one in (await lab.slots.observe()).instances} == {InstanceState.STOPPED}


async def test_nothing_is_adopted_on_a_node(node: NodeLab) -> None:  # noqa: F811
    none = node.nothing_adopted
    assert "nothing is adopted" in (await none.examine()).obstacles[0]
    with pytest.raises(Refused, match="nothing is adopted"):
        await none.adopt(operation("adopt"), ())


@pytest.mark.sweep
async def test_an_agent_needs_two_capabilities_and_one_folder_that_it_can_write(
    node: NodeLab,  # noqa: F811
) -> None:
    """As a pod: a read-only root, no rights but those of its bounding set, no new ones by any program."""
    await said_by(node, "stage", "a")
    there = await node.kubelet.place("a")
    told = await said_by(node, "run", there.model_dump_json())
    assert told["capabilities"] == NET_ADMIN | DAC_OVERRIDE
    assert not told["writes"]
    assert told["executable"] == node.admission.release("1").executable
    assert told["probe"][0], told["probe"]
    assert told["walked"] == [True, [10, 10], [10, 10]]
    assert (told["serving"], told["reloaded"], told["sessions"]) == ("a", ["a"], 0)
    assert told["frozen"].startswith("sha256:")
    assert told["preflight"] == []
    unmade = {test for test, measured in told["tests"].items() if measured is None}
    assert unmade == {Asked.CLEARTEXT}


async def said_by(node: NodeLab, step: str, said: str) -> dict[str, Any]:  # noqa: F811
    """Return what the agent told that did this step as a pod would."""
    program = [sys.executable, "-m", "tests.drivers.node_agent", str(node.folder), node.tag, step, said]
    agent = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", AS_A_POD, "pod"),
        *(str(node.folder), str(node.root)),
        *program,
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await agent.communicate()
    assert agent.returncode == 0, err.decode()
    told: dict[str, Any] = json.loads(out.decode().splitlines()[-1])
    return told
