"""A real worker of the engine's library behind a relay does what it did without one, and nothing else.

One that the relay refuses waits for another certificate, and says what the relay says.
"""

import asyncio
from datetime import timedelta
from functools import partial

import pytest
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.drivers.private_files import write_private
from activities.files import load
from activities.refusals import only_logged
from deploy.ports import free_port
from orchestrator.engine.silence import cause_of
from orchestrator.enrolment.authority import Authority, key_pem, new_key
from orchestrator.processes import steady_worker
from orchestrator.processes.agent import connected, connected_worker
from orchestrator.processes.agent_file import AgentSettings
from orchestrator.processes.process import ending_within, make_worker
from orchestrator.relay.limits import MOST_LARGE
from policies.model.errors import BadInput, NotAllowed, Unavailable
from tests.patience import until
from tests.relay.installation import (
    CONTROL,
    ENDS_WITHIN,
    Errand,
    Installation,
    fail,
    issued,
    queue_of,
    say,
    wait,
    working,
)
from tests.relay.test_enrolment import House, house  # noqa: F401 - a fixture
from workflows.answers import MOST_BYTES


async def test_an_agent_works_through_the_relay_with_heartbeats_and_cancellation(
    installation: Installation,
) -> None:
    agent = await installation.agent("gw-1")
    async with working(agent, "gw-1"):
        assert await installation.errand("gw-1") == ["said hello", "told to stop"]
    assert installation.relay.told.refused == {}


def settings_of(house: House) -> AgentSettings:  # noqa: F811
    """Return the agent's file, without seals: the errands of these tests travel in the clear."""
    return load(house.folder / "agent.yaml", AgentSettings).model_copy(update={"payload_keys": None})


async def revoke(house: House) -> None:  # noqa: F811
    house.relay.ledger.revoke_certificates("edge", "edge-1", "ada", "stolen")
    assert await house.relay.relay.look_again()


async def test_a_refused_agent_says_why_once_and_goes_on_when_its_host_is_enrolled_anew(
    house: House,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(steady_worker, "AGAIN", timedelta(milliseconds=50))
    await house.enrol(await house.token())
    tried = []

    async def make() -> Worker:
        tried.append(0)
        return await connected_worker(settings_of(house), only_logged, [say, wait, fail])

    client = await connected(settings_of(house), only_logged)
    await revoke(house)
    first = make_worker(client, "gateway/edge/edge-1", activities=[say])
    worker = steady_worker.SteadyWorker(first, make)
    async with ending_within(worker, timedelta(seconds=20)) as running:
        await until(lambda: len(tried) > 3)
        assert not running.done()
        said = [one.getMessage() for one in caplog.records]
        assert sum("gets no orders" in one for one in said) == 1
        assert "the certificate of edge/edge-1 was revoked; its host has to be enrolled anew" in caplog.text
        assert not [one for one in said if "Worker failed" in one]
        await house.enrol(await house.token())
        assert await house.relay.errand("edge-1", "anew") == ["said anew", "told to stop"]


async def test_a_refused_agent_ends_when_it_is_told_to(
    house: House,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    await house.enrol(await house.token())
    settings = settings_of(house).model_copy(update={"temporal_namespace": "another"})
    make = partial(connected_worker, settings, only_logged, [say])
    worker = steady_worker.SteadyWorker(await make(), make)
    async with ending_within(worker, timedelta(seconds=5)):
        await until(lambda: "gets no orders" in caplog.text)


@pytest.mark.parametrize("said", ["connection closed", "operation was canceled", "peer sent close_notify"])
def test_a_connection_that_was_ended_is_said_in_one_way_however_the_client_says_it(said: str) -> None:
    error = RuntimeError(f"Failed client connect: Server connection error: Transport({said})")
    assert cause_of(error).startswith("it ended the connection: it does not take the certificate")


async def test_an_agent_that_cannot_begin_says_what_is_wrong_and_where(house: House) -> None:  # noqa: F811
    await house.enrol(await house.token())
    settings = settings_of(house)
    begin = partial(connected, refused=only_logged)
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(
        Unavailable, match=f"the relay at {nobody} does not answer: connection refused; check"
    ):
        await begin(settings.model_copy(update={"temporal_address": nobody}))
    with pytest.raises(
        BadInput, match=r"address relay\.example has no port: write HOST:PORT; check temporal_ad"
    ):
        await begin(settings.model_copy(update={"temporal_address": "relay.example"}))
    with pytest.raises(Unavailable, match="its certificate names somebody else"):
        await begin(settings.model_copy(update={"server_name": "elsewhere.example"}))
    stranger = Authority.open(house.folder / "stranger")
    shown = issued(stranger, "edge-1")
    write_private(house.folder / "agent.pem", shown.certificate)
    write_private(house.folder / "other.key", shown.key)
    foreign = {"certificate": house.folder / "agent.pem", "key": house.folder / "other.key"}
    with pytest.raises(Unavailable, match="it ended the connection: it does not take the certificate"):
        await begin(settings.model_copy(update=foreign))
    distrusted = {"authority": house.folder / "stranger" / "authority.pem"}
    with pytest.raises(Unavailable, match="from an authority that is not trusted here"):
        await begin(settings.model_copy(update=distrusted))
    await revoke(house)
    with pytest.raises(NotAllowed, match="was revoked; its host has to be enrolled anew"):
        await begin(settings)


async def test_an_agent_begins_only_with_a_certificate_a_key_and_a_name_that_belong_together(
    house: House,  # noqa: F811
) -> None:
    settings = settings_of(house)
    begin = partial(connected_worker, refused=only_logged, activities=[say])
    with pytest.raises(BadInput, match="penstock agent enrol gets one"):
        await begin(settings)
    await house.enrol(await house.token())
    other = settings.gateway.model_copy(update={"name": "edge-2"})
    with pytest.raises(BadInput, match="is the certificate of edge/edge-1, and this is edge/edge-2"):
        await begin(settings.model_copy(update={"gateway": other}))
    write_private(house.files.key, key_pem(new_key()))
    with pytest.raises(BadInput, match="is not the key of"):
        await begin(settings)


@pytest.mark.sweep
async def test_answers_as_long_as_workflows_take_them_come_through_many_at_once(
    installation: Installation,
) -> None:
    control = Worker(
        installation.client,
        task_queue=CONTROL,
        workflows=[Errand],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    long = "x" * (MOST_BYTES - 100)
    async with control, working(await installation.agent("gw-1"), "gw-1"):
        errands = [
            installation.client.execute_workflow(
                Errand.run,
                args=[queue_of("gw-1"), long],
                id=f"long-{number}",
                task_queue=CONTROL,
                execution_timeout=ENDS_WITHIN,
            )
            for number in range(MOST_LARGE + 2)
        ]
        answers = await asyncio.gather(*errands)
    assert answers == [[f"said {long}", "told to stop"]] * len(errands)
