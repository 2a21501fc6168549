"""A gateway that serves by itself, whole: real daemon, users, kernel, engine and ledger."""

from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from activities.adoption import AdoptionActivities
from activities.drivers.runtime.host.audit import HostAudit
from activities.host_record import HostRecordActivities
from activities.instances import InstanceActivities
from activities.paths import PathActivities
from activities.sessions import SessionActivities
from activities.snapshots import SnapshotActivities
from activities.steering import SteeringActivities
from deploy.lab.namespaces import inside
from orchestrator.processes.agent import gateway_activities
from policies.model.adoption import ADOPTED
from policies.model.change import ChangeKind, ChangeOrder, ChangeResult, Outcome
from policies.model.fleet import Fleet, Limits
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab
from tests.drivers.unprepared import Unprepared
from tests.fakes.gateway import FakeGateway
from tests.workflows.engine import Engine
from tests.workflows.world import World, agent_worker, result_of, working

pytestmark = ON_A_REAL_GATEWAY


async def change(world: World, kind: ChangeKind, plan: str) -> ChangeResult:
    order = ChangeOrder(
        fleet=world.fleet.name, kind=kind, plan=plan, source="http://repository", reason="a test"
    )
    return await result_of(await world.run(order))


@pytest.mark.sweep
async def test_users_of_a_gateway_that_serves_by_itself_notice_neither_adoption_nor_upgrade_nor_the_way_back(
    built_lab: GatewayLab,  # noqa: F811
    server: Engine,
    tmp_path: Path,
) -> None:
    lab, client = built_lab, await server.client()
    lab.reset()

    def agent(of: Client, fake: FakeGateway) -> Worker:
        audit = HostAudit(tmp_path / "audit.jsonl", tmp_path / "audit.key")
        steps = gateway_activities(
            InstanceActivities(lab.slots),
            SnapshotActivities(lab.snapshots),
            SteeringActivities(lab.table),
            SessionActivities(lab.sessions),
            HostRecordActivities(audit),
            AdoptionActivities(lab.adoption),
            PathActivities(fake),
        )
        return agent_worker(of, fake, steps)

    # Threads that are started from here on, the engine's client among them not, are the gateway's.
    with inside(lab.namespace):
        await lab.table.prime()
        daemon = Unprepared(lab)
        people = [await lab.client(1).up(), await lab.client(2, version=6).up()]
        restless = await lab.client(5).up()  # loses a ping by itself whenever it drops its connection
        for person in people:
            person.ping(host=9)
        fleet = Fleet(name="edge", product="ocserv", gateways=(lab.gateway,), limits=Limits())
        world, new = World.made(client, fleet, serving=None), lab.admission.release("1")
        async with working(world, agent=agent):
            refused = await change(world, ChangeKind.INSTALL, world.book.record_first(fleet, new))
            assert refused.outcome is Outcome.REFUSED
            assert "gw-1 serves already" in refused.aside["gw-1"]

            adopted = await change(world, ChangeKind.ADOPT, world.book.record_adoption(fleet, ["gw-1"]))
            assert adopted.reason == "1 gateways with 3 sessions were adopted as they ran"
            found = world.book.known_good("edge")["gw-1"]
            assert found.version.endswith("+adopted")

            assert (await world.upgrade(("gw-1",), release=new)).outcome is Outcome.PROMOTED
            await lab.client(3).up()
            restless.reconnect()
            await restless.until("Established DTLS", times=2)
            homes = [await lab.home_of(number) for number in (1, 2, 5, 3)]
            assert homes[:3] == [ADOPTED] * 3
            assert homes[3] != ADOPTED

            back = await change(world, ChangeKind.GO_BACK, world.book.record_return(fleet, {"gw-1": found}))
            assert back.outcome is Outcome.ROLLED_BACK
            await lab.client(4).up()
            assert [await lab.home_of(number) for number in (1, 2, 4)] == [ADOPTED] * 3
        counts = [person.lost() for person in people]
        assert [lost for _, lost in counts] == [0, 0]
        assert min(sent for sent, _ in counts) > 50
        assert daemon.process.poll() is None
        await lab.clients_gone()
    lab.reset()
