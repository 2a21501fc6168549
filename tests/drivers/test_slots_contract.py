"""One contract for gateways, kept by the fake and by real processes, real kernel steering, real users."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Protocol

import pytest

from activities.instances import Runtime
from activities.sessions import SessionTable
from activities.snapshots import Evidence, SnapshotStore
from activities.steering_table import SteeringTable
from policies.model.errors import BadInput, Fenced, InstanceGone, LeaseLapsed, Refused, Unavailable
from policies.model.instance import InstanceState
from policies.model.operation import BREAK_GLASS
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    MISSING,
    NO_CONTAINERS,
    balancer,
    built_balancer,
    built_hooked,
    built_lab,
    built_node,
    built_openvpn,
    built_podman,
    built_redirect,
    built_strongswan,
    hooked,
    lab,
    node,
    openvpn,
    podman,
    redirect,
    strongswan,
)
from tests.drivers.gateway_lab import GatewayLab, gateway, operation
from tests.drivers.node_lab import NodeLab, freeze
from tests.fakes.gateway import FakeGateway
from tests.patience import until

LEASE = timedelta(minutes=5)
pytestmark = pytest.mark.asyncio(loop_scope="function")


class Stand(Protocol):
    """A gateway under test, and its users."""

    runtime: Runtime
    table: SteeringTable
    sessions: SessionTable
    snapshots: SnapshotStore
    short: timedelta
    """A lease that outlasts one renewal, and no more."""
    pins: bool
    """Whether who comes back passes the steering again, and so has to be led back by an address."""

    def release(self, version: str) -> ReleaseRef: ...
    async def login(self, number: int) -> str: ...
    async def logout(self, number: int) -> None: ...
    async def silence(self, slot: str) -> None: ...
    async def crash(self, slot: str) -> None: ...
    def lose_signer(self) -> None: ...


class FakeStand:
    short, pins = timedelta(seconds=1), True

    def __init__(self) -> None:
        self.gateway = FakeGateway(gateway())
        self.runtime: Runtime = self.gateway
        self.table: SteeringTable = self.gateway
        self.sessions: SessionTable = self.gateway
        self.snapshots: SnapshotStore = self.gateway

    def release(self, version: str) -> ReleaseRef:
        digest = digest_of(version.encode())
        return ReleaseRef(digest=digest, product="ocserv", version=version, executable=digest)

    async def login(self, number: int) -> str:
        slot = self.gateway.login(f"10.77.0.{10 + number}")
        assert slot is not None
        return slot

    async def logout(self, number: int) -> None:
        self.gateway.logout(f"10.77.0.{10 + number}")

    async def silence(self, slot: str) -> None:
        self.gateway.uncountable.add(slot)

    async def crash(self, slot: str) -> None:
        self.gateway.crash(slot)

    def lose_signer(self) -> None:
        self.gateway.no_way_back = "ana@corp.example may not sign"


class RealStand:
    short, pins = timedelta(seconds=1), True

    def __init__(self, lab: GatewayLab) -> None:  # noqa: F811
        self.lab = lab
        self.runtime: Runtime = lab.slots
        self.table: SteeringTable = lab.table
        self.sessions: SessionTable = lab.sessions
        self.snapshots: SnapshotStore = lab.snapshots
        self.clients: dict[int, Client] = {}

    def release(self, version: str) -> ReleaseRef:
        return self.lab.admission.release(version)

    async def login(self, number: int) -> str:
        self.clients[number] = await self.lab.client(number).up()
        return await self.lab.home_of(number)

    async def logout(self, number: int) -> None:
        await self.clients.pop(number).leave()

    async def silence(self, slot: str) -> None:
        (self.lab.folders.of(slot).chroot.run / "occtl.sock").unlink()

    async def crash(self, slot: str) -> None:
        running = self.lab.folders.of(slot).process()
        assert running is not None
        running.tell(signal.SIGKILL)
        await until(lambda: not running.alive)

    def lose_signer(self) -> None:
        self.lab.admission.left = "ana@corp.example"


class NodeStand(RealStand):
    """A gateway that is a node: its instances are started and ended for its agent."""

    def __init__(self, node: NodeLab) -> None:  # noqa: F811
        super().__init__(node)
        self.node = node
        self.runtime = node.placed

    async def silence(self, slot: str) -> None:
        freeze(self.node, slot)

    async def crash(self, slot: str) -> None:
        await self.node.kubelet.lose(slot)


class RedirectStand(RealStand):
    """A gateway whose users are redirected to their instance, to which they come back by themselves."""

    pins = False


class HookStand(RealStand):
    """A gateway that a program steers, which pins nobody; it is started three times for each change."""

    short, pins = timedelta(seconds=5), False


class OpenVpnStand(RealStand):
    """A gateway that runs OpenVPN, and its clients."""

    async def logout(self, number: int) -> None:
        """Leave; OpenVPN keeps who said goodbye for five seconds more."""
        await super().logout(number)

        async def is_forgotten() -> bool:
            live = await self.lab.folders.live()
            listed = [one.remote_address for sessions in live.values() for one in sessions or ()]
            return f"10.77.0.{10 + number}" not in listed

        await until(is_forgotten)

    async def silence(self, slot: str) -> None:
        (self.lab.folders.of(slot).chroot.run / "management.sock").unlink()


class StrongSwanStand(RealStand):
    """A gateway that runs strongSwan, and its clients."""

    async def silence(self, slot: str) -> None:
        (self.lab.folders.of(slot).chroot.run / "charon.vici").unlink()


IN_CONTAINERS = [pytest.mark.lab, pytest.mark.skipif(NO_CONTAINERS is not None, reason=NO_CONTAINERS or "")]
ON_REAL_KERNELS = [pytest.mark.lab, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]


STANDS: Mapping[str, tuple[str, Callable[[Any], Stand]]] = {
    "real": ("lab", RealStand),
    "node": ("node", NodeStand),
    "openvpn": ("openvpn", OpenVpnStand),
    "strongswan": ("strongswan", StrongSwanStand),
    "redirect": ("redirect", RedirectStand),
    "balancer": ("balancer", RealStand),
    "hook": ("hooked", HookStand),
    "podman": ("podman", RealStand),
}
"""What is looked at by the contract, by its name: the fixture that builds it, and what it makes of that."""


USUAL = "real"
"""The stand of every run; the others are in the sweep, and have usual tests of their own."""


def marked(name: str) -> Any:
    marks = IN_CONTAINERS if name == "podman" else ON_REAL_KERNELS
    return pytest.param(name, marks=marks if name == USUAL else [*marks, pytest.mark.sweep])


@pytest.fixture(params=["fake", *map(marked, STANDS)])
def stand(request: pytest.FixtureRequest) -> Stand:
    if request.param == "fake":
        return FakeStand()
    built, made_of = STANDS[request.param]
    return made_of(request.getfixturevalue(built))


async def running(stand: Stand, version: str, epoch: int = 1) -> str:
    release = stand.release(version)
    await stand.runtime.stage(operation("stage", epoch=epoch, digest=release.digest), release, "lab")
    started = await stand.runtime.start(operation("start", epoch=epoch, digest=release.digest), release)
    return started.slot


async def serving(stand: Stand, version: str = "1") -> str:
    slot = await running(stand, version)
    await stand.table.make_permanent(operation("keep"), slot)
    return slot


async def test_staging_twice_changes_the_host_once(stand: Stand) -> None:
    release = stand.release("1")
    orders = [operation("stage", digest=release.digest)] * 2
    first, second = [await stand.runtime.stage(order, release, "lab") for order in orders]
    assert (first.changed, second.changed) == (True, False)
    assert first.signers == second.signers


async def test_a_release_that_is_not_staged_is_not_started(stand: Stand) -> None:
    with pytest.raises(BadInput, match="stage it first"):
        await stand.runtime.start(operation("start"), stand.release("1"))
    state = await stand.runtime.observe()
    assert {instance.state for instance in state.instances} == {InstanceState.STOPPED}


async def test_starting_twice_runs_one_process(stand: Stand) -> None:
    slot = await running(stand, "1")
    before = (await stand.runtime.observe()).instance(slot)
    again = await stand.runtime.start(operation("start again"), stand.release("1"))
    assert (again.slot, again.changed) == (slot, False)
    assert again.state.instance(slot) == before
    assert [i.slot for i in again.state.instances if i.state is InstanceState.RUNNING] == [slot]


async def test_what_runs_is_what_the_manifest_names(stand: Stand) -> None:
    slot = await running(stand, "1")
    instance = (await stand.runtime.observe()).instance(slot)
    release = stand.release("1")
    assert (instance.release, instance.executable) == (release.digest, release.executable)


async def test_a_probe_logs_in_and_pings_before_anybody_is_steered(stand: Stand) -> None:
    slot = await running(stand, "1")
    probe = await stand.runtime.probe(slot)
    assert (probe.passed, probe.stage, probe.pings_lost) == (True, "ping", 0), probe.reason
    assert (await stand.table.read()).serving is None


async def test_a_probe_of_an_empty_slot_fails_at_its_first_stage(stand: Stand) -> None:
    probe = await stand.runtime.probe("b")
    assert (probe.passed, probe.stage) == (False, "tcp")


async def test_a_new_release_never_takes_the_slot_that_serves(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    assert new != old
    assert (await stand.table.read()).serving == old


async def test_new_sessions_follow_the_trial_and_live_ones_stay(stand: Stand) -> None:
    old = await serving(stand)
    assert await stand.login(1) == old
    new = await running(stand, "2")
    steering = await stand.table.start_trial(operation("trial"), new, LEASE)
    assert (steering.trial, steering.serving, steering.changed) == (new, old, True)
    assert steering.pinned == int(stand.pins)
    assert await stand.login(2) == new
    assert [await stand.sessions.count(slot) for slot in (old, new)] == [1, 1]


async def test_confirming_a_trial_renews_its_lease_and_changes_nothing_else(stand: Stand) -> None:
    await serving(stand)
    new = await running(stand, "2")
    await stand.table.start_trial(operation("trial"), new, timedelta(seconds=5))
    again = await stand.table.start_trial(operation("trial"), new, LEASE)
    assert (again.changed, again.trial) == (False, new)
    assert again.trial_expires_in is not None
    assert again.trial_expires_in > timedelta(seconds=20)


async def test_ending_a_trial_sends_new_sessions_back_at_once(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    await stand.table.start_trial(operation("trial"), new, LEASE)
    back = await stand.table.end_trial(operation("back"))
    assert (back.trial, back.serving, back.changed) == (None, old, True)
    assert await stand.login(1) == old
    assert not (await stand.table.end_trial(operation("back"))).changed


async def test_a_permanent_slot_keeps_its_people_without_a_lease(stand: Stand) -> None:
    await serving(stand)
    new = await running(stand, "2")
    await stand.table.start_trial(operation("trial"), new, LEASE)
    kept = await stand.table.make_permanent(operation("keep new"), new)
    assert (kept.serving, kept.trial, kept.trial_expires_in) == (new, None, None)
    assert not (await stand.table.make_permanent(operation("keep new"), new)).changed
    assert await stand.login(1) == new


async def test_steering_to_a_slot_where_nothing_runs_is_refused(stand: Stand) -> None:
    old = await serving(stand)
    with pytest.raises(InstanceGone, match="nothing runs"):
        await stand.table.start_trial(operation("trial"), "c", LEASE)
    assert (await stand.table.read()).trial is None
    assert await stand.login(1) == old


async def test_orders_of_a_fenced_rollout_are_refused_and_change_nothing(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    fenced = await stand.runtime.fence(operation("fence", epoch=2))
    assert (fenced.epoch, fenced.changed) == (2, True)
    assert not (await stand.runtime.fence(operation("fence", epoch=2))).changed
    late = operation("late", epoch=1)
    with pytest.raises(Fenced):
        await stand.table.start_trial(late, new, LEASE)
    with pytest.raises(Fenced):
        await stand.table.make_permanent(late, new)
    with pytest.raises(Fenced):
        await stand.runtime.stop(late, new)
    with pytest.raises(Fenced):
        await stand.runtime.start(late, stand.release("1"))
    with pytest.raises(Fenced):
        await stand.sessions.end(late, old, 1)
    with pytest.raises(Fenced):
        await stand.sessions.check(late)
    state = await stand.runtime.observe()
    assert (state.steering.serving, state.steering.trial) == (old, None)
    assert state.instance(new).state is InstanceState.RUNNING


async def test_two_rollouts_never_share_an_epoch(stand: Stand) -> None:
    await stand.runtime.fence(operation("fence", rollout="r-1", epoch=7))
    with pytest.raises(Fenced):
        await stand.runtime.fence(operation("fence", rollout="r-2", epoch=7))


async def test_an_instance_that_serves_is_not_stopped(stand: Stand) -> None:
    old = await serving(stand)
    with pytest.raises(Refused):
        await stand.runtime.stop(operation("stop"), old)
    assert (await stand.runtime.observe()).instance(old).state is InstanceState.RUNNING


async def test_an_instance_with_sessions_is_not_stopped(stand: Stand) -> None:
    old = await serving(stand)
    await stand.login(1)
    new = await running(stand, "2")
    await stand.table.make_permanent(operation("keep new"), new)
    with pytest.raises(Refused, match="1 sessions"):
        await stand.runtime.stop(operation("stop"), old)
    assert await stand.sessions.count(old) == 1


async def test_sessions_that_cannot_be_counted_are_unknown_and_nothing_is_stopped(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    await stand.table.make_permanent(operation("keep new"), new)
    await stand.silence(old)
    assert await stand.sessions.count(old) is None
    with pytest.raises(Refused, match="cannot be counted"):
        await stand.runtime.stop(operation("stop"), old)
    assert (await stand.runtime.observe()).instance(old).state is InstanceState.RUNNING


@pytest.mark.sweep
async def test_an_empty_old_instance_stops_once(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    await stand.table.make_permanent(operation("keep new"), new)
    first = await stand.runtime.stop(operation("stop"), old)
    second = await stand.runtime.stop(operation("stop"), old)
    assert (first.changed, second.changed) == (True, False)
    assert second.instance(old).state is InstanceState.STOPPED
    assert await stand.sessions.count(old) == 0


@pytest.mark.sweep
async def test_who_logs_out_just_before_the_old_instance_is_stopped_logs_in_at_the_new_one(
    stand: Stand,
) -> None:
    old = await serving(stand)
    assert await stand.login(1) == old
    new = await running(stand, "2")
    await stand.table.make_permanent(operation("keep new"), new)
    await stand.logout(1)
    await stand.runtime.stop(operation("stop"), old)
    assert await stand.login(1) == new


@pytest.mark.sweep
async def test_ending_sessions_takes_no_more_than_a_batch(stand: Stand) -> None:
    old = await serving(stand)
    for number in (1, 2, 3):
        await stand.login(number)
    new = await running(stand, "2")
    await stand.table.make_permanent(operation("keep new"), new)
    assert await stand.sessions.end(operation("end"), old, 2) == 2
    assert await stand.sessions.end(operation("end"), old, 2) <= 1


async def test_that_what_serves_would_not_start_again_is_said_before_a_change(stand: Stand) -> None:
    """Also by a gateway whose instances are containers, or pods: each asks when it starts one."""
    await serving(stand)
    release = stand.release("2")
    stand.lose_signer()
    [why] = await stand.runtime.preflight(release)
    assert "ana@corp.example may not sign" in why
    assert await stand.runtime.preflight(release, given_up=True) == ()


@pytest.mark.sweep
async def test_no_slot_is_taken_from_people(stand: Stand) -> None:
    for version, number in (("1", 1), ("2", 2), ("3", 3)):
        slot = await running(stand, version)
        await stand.table.make_permanent(operation(f"keep {version}"), slot)
        await stand.login(number)
    with pytest.raises(Refused, match="no free slot"):
        await running(stand, "4")
    assert [await stand.sessions.count(slot) for slot in "abc"] == [1, 1, 1]


async def test_nobody_is_steered_away_from_sessions_that_cannot_be_listed(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    await stand.silence(old)
    if not stand.pins:  # who has a session there comes back to it whatever is said here
        assert (await stand.table.start_trial(operation("trial"), new, LEASE)).trial == new
        return
    with pytest.raises(Unavailable, match="cannot be listed"):
        await stand.table.start_trial(operation("trial"), new, LEASE)
    assert (await stand.table.read()).trial is None


async def test_an_instance_that_hangs_where_nobody_is_sent_delays_no_trial(stand: Stand) -> None:
    """What a hanging release leaves in its slot after its rollback must not stop the next release."""
    old = await serving(stand)
    await stand.login(1)
    new = await running(stand, "2")
    pinned = (await stand.table.make_permanent(operation("keep new"), new)).pinned
    await stand.silence(old)
    newest = await running(stand, "3")
    tried = await stand.table.start_trial(operation("trial"), newest, LEASE)
    assert (tried.trial, tried.pinned) == (newest, pinned)


async def test_a_lease_is_renewed_though_the_old_instance_has_gone_silent(stand: Stand) -> None:
    old = await serving(stand)
    await stand.login(1)
    new = await running(stand, "2")
    await stand.table.start_trial(operation("trial"), new, timedelta(seconds=5))
    await stand.silence(old)
    renewed = await stand.table.start_trial(operation("trial"), new, LEASE)
    assert renewed.pinned == int(stand.pins)
    assert renewed.trial_expires_in is not None
    assert renewed.trial_expires_in > timedelta(seconds=20)


async def test_a_snapshot_is_named_by_its_digest(stand: Stand) -> None:
    await serving(stand)
    digest = await stand.snapshots.freeze(operation("snapshot"), Evidence(reason="a test"))
    assert digest_of(stand.snapshots.read_frozen(digest)) == digest


# --- going back in one step ----------------------------------------------------------


async def test_going_back_ends_the_trial_and_is_the_same_when_repeated(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    await stand.table.start_trial(operation("trial"), new, LEASE)
    assert await stand.login(1) == new
    order, good = operation("back", rollout="r-back", epoch=2), stand.release("1")
    first, second = [await stand.runtime.restore(order, good) for _ in range(2)]
    assert (first.back, first.slot, first.changed) == (True, old, True)
    assert (second.back, second.slot, second.changed) == (True, old, False)
    assert (first.state.epoch, first.state.steering.serving, first.state.steering.trial) == (2, old, None)
    assert await stand.login(2) == old
    assert [await stand.sessions.count(slot) for slot in (old, new)] == [1, 1]


async def test_going_back_from_a_release_that_serves_for_good_ends_nobodys_session(stand: Stand) -> None:
    old = await serving(stand)
    assert await stand.login(1) == old
    new = await running(stand, "2")
    await stand.table.make_permanent(operation("keep new"), new)
    assert await stand.login(2) == new
    restored = await stand.runtime.restore(operation("back", epoch=2), stand.release("1"))
    assert (restored.back, restored.slot) == (True, old)
    assert [await stand.sessions.count(slot) for slot in (old, new)] == [1, 1]
    assert await stand.login(3) == old


async def test_going_back_to_what_runs_no_more_fences_and_leaves_the_steering(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    await stand.table.start_trial(operation("trial"), new, LEASE)
    await stand.crash(old)
    restored = await stand.runtime.restore(operation("back", epoch=2), stand.release("1"))
    assert (restored.back, restored.slot, restored.changed) == (False, None, True)
    assert (restored.state.epoch, restored.state.steering.trial) == (2, new)
    assert await stand.login(1) == new
    started = await stand.runtime.start(operation("restart", epoch=2), stand.release("1"))
    restored = await stand.runtime.restore(operation("back", epoch=2), stand.release("1"))
    assert (restored.back, restored.slot) == (True, started.slot)
    assert await stand.login(2) == started.slot


async def test_after_going_back_every_older_order_is_refused(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    await stand.table.start_trial(operation("trial"), new, LEASE)
    await stand.runtime.restore(operation("back", rollout="r-back", epoch=5), stand.release("1"))
    with pytest.raises(Fenced) as refused:
        await stand.table.start_trial(operation("trial"), new, LEASE, renew=True)
    assert refused.value.details == ({"epoch": 5, "rollout": "r-back"},)
    with pytest.raises(Fenced):
        await stand.runtime.restore(operation("late", epoch=4), stand.release("2"))
    with pytest.raises(Fenced):
        await stand.runtime.restore(operation("same epoch", rollout="r-2", epoch=5), stand.release("2"))
    steering = await stand.table.read()
    assert (steering.serving, steering.trial) == (old, None)


async def test_a_gateway_that_was_steered_by_break_glass_goes_back_by_an_operators_order_alone(
    stand: Stand,
) -> None:
    """R9."""
    old = await serving(stand)
    new = await running(stand, "2")
    await stand.table.make_permanent(operation("keep new", rollout=BREAK_GLASS, epoch=3), new)
    with pytest.raises(Fenced) as refused:
        await stand.runtime.restore(operation("back", epoch=4), stand.release("1"))
    assert refused.value.details == ({"epoch": 3, "rollout": BREAK_GLASS},)
    assert (await stand.table.read()).serving == new
    ordered = await stand.runtime.restore(operation("back", epoch=4), stand.release("1"), overrules=True)
    assert (ordered.back, ordered.state.steering.serving) == (True, old)


async def test_two_going_back_at_once_end_in_one_place(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    await stand.table.make_permanent(operation("keep new"), new)
    orders = [operation("back", rollout=f"r-{epoch}", epoch=epoch) for epoch in (3, 4, 5)]
    answers = await asyncio.gather(
        *(stand.runtime.restore(order, stand.release("1")) for order in orders), return_exceptions=True
    )
    assert [
        answer for answer in answers if isinstance(answer, BaseException) and not isinstance(answer, Fenced)
    ] == []
    state = await stand.runtime.observe()
    assert (state.epoch, state.steering.serving) == (5, old)


async def test_a_replaced_instance_stays_one_change_away_and_keeps_its_people(stand: Stand) -> None:
    blue = await serving(stand)
    assert await stand.login(1) == blue
    green = await running(stand, "2")
    await stand.table.make_permanent(operation("keep green"), green)
    assert await stand.login(2) == green
    with pytest.raises(Refused):
        await stand.runtime.stop(operation("stop"), blue)
    state = await stand.runtime.observe()
    assert [(i.slot, i.sessions) for i in state.instances if i.state is InstanceState.RUNNING] == [
        (blue, 1),
        (green, 1),
    ]
    assert (await stand.runtime.restore(operation("back", epoch=2), stand.release("1"))).back
    assert await stand.login(3) == blue


async def test_a_state_says_which_boot_of_the_host_it_is_of(stand: Stand) -> None:
    await serving(stand)
    state, look = await stand.runtime.observe(), await stand.sessions.look("a")
    assert state.boot
    assert state.boot == look.boot


# --- leases and shares ---------------------------------------------------------------


async def test_a_lapsed_trial_is_not_renewed(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    await stand.table.start_trial(operation("trial"), new, LEASE)
    await stand.table.start_trial(operation("trial"), new, stand.short, renew=True)
    await asyncio.sleep(stand.short.total_seconds() + 0.2)
    before = await stand.table.read()
    with pytest.raises(LeaseLapsed):
        await stand.table.start_trial(operation("trial"), new, LEASE, renew=True)
    assert await stand.table.read() == before
    assert (before.serving, before.trial) == (old, None)
    assert await stand.login(1) == old


async def test_what_was_never_on_trial_is_not_renewed(stand: Stand) -> None:
    await serving(stand)
    new = await running(stand, "2")
    with pytest.raises(LeaseLapsed):
        await stand.table.start_trial(operation("trial"), new, LEASE, renew=True)
    assert (await stand.table.read()).trial is None


async def test_a_renewal_that_comes_after_the_slot_was_kept_for_good_changes_nothing(stand: Stand) -> None:
    await serving(stand)
    new = await running(stand, "2")
    await stand.table.start_trial(operation("trial"), new, LEASE)
    await stand.table.make_permanent(operation("keep new"), new)
    late = await stand.table.start_trial(operation("trial"), new, LEASE, renew=True)
    assert (late.serving, late.trial, late.changed) == (new, None, False)


@pytest.mark.sweep
async def test_a_share_is_told_as_it_is_and_ends_with_its_trial(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    steering = await stand.table.start_trial(operation("trial"), new, LEASE, share=5)
    assert (steering.trial, steering.serving, steering.share, steering.changed) == (new, old, 5, True)
    again = await stand.table.start_trial(operation("trial"), new, LEASE, renew=True, share=5)
    assert (again.share, again.changed) == (5, False)
    more = await stand.table.start_trial(operation("trial"), new, LEASE, renew=True, share=100)
    assert (more.share, more.changed) == (100, True)
    less = await stand.table.start_trial(operation("trial"), new, stand.short, share=25)
    assert less.share == 25
    await asyncio.sleep(stand.short.total_seconds() + 0.2)
    lapsed = await stand.table.read()
    assert (lapsed.trial, lapsed.share) == (None, 100)
    assert await stand.login(1) == old


async def test_a_growing_share_moves_no_session_and_keeps_who_was_among_it(stand: Stand) -> None:
    old = await serving(stand)
    new = await running(stand, "2")
    await stand.table.start_trial(operation("trial"), new, LEASE, share=50)
    homes = {number: await stand.login(number) for number in (1, 2, 3)}
    await stand.table.start_trial(operation("trial"), new, LEASE, renew=True, share=100)
    counts = [await stand.sessions.count(slot) for slot in (old, new)]
    assert counts == [list(homes.values()).count(slot) for slot in (old, new)]
    for number in homes:
        await stand.logout(number)
    await emptied(stand, old, new)
    again = await stand.table.start_trial(operation("trial"), new, LEASE, renew=True, share=50)
    assert again.pinned == 0
    assert {number: await stand.login(number) for number in homes} == homes


async def emptied(stand: Stand, *slots: str) -> None:
    async def are() -> bool:
        return [await stand.sessions.count(slot) for slot in slots] == [0] * len(slots)

    await until(are)
