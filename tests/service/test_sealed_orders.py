"""Orders are sealed for one gateway, one change and one step: whoever reaches the engine can forge none."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import RawValue, RetryPolicy
from temporalio.converter import ActivitySerializationContext, DataConverter, SerializationContext
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.drivers.private_files import write_private
from orchestrator.engine.keys import KEY_BYTES, MasterKeys, read_keys
from orchestrator.engine.sealing import REFUSED, WRAPPED, SealedPayloads, _seal, data_converter
from policies.model.errors import BadInput, Refused
from tests.patience import PATIENCE
from tests.workflows.engine import Engine

MINE, OTHER, BAD = (f"gateway/edge/gw-{number}" for number in (1, 2, 3))
ONCE = RetryPolicy(maximum_attempts=1)
SECRET = "192.0.2.77"


@dataclass
class Host:
    """What an agent was made to do, and what its keys kept out."""

    done: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @activity.defn(name="start_instance")
    async def start(self, order: str) -> str:
        self.done.append(order)
        if order == "fail":
            raise Refused(f"no room for {SECRET}")
        return f"started {order}"

    @activity.defn(name="make_permanent")
    async def keep(self, order: str) -> str:
        self.done.append(f"keep {order}")
        return "kept"


@workflow.defn
class Order:
    """The orchestrator's: gives one order, and waits to be told that it may end."""

    def __init__(self) -> None:
        self._told: list[str] = []

    @workflow.run
    async def run(self, order: str, queue: str = MINE) -> list[str]:
        try:
            answer: RawValue = await workflow.execute_activity(
                "start_instance",
                order,
                task_queue=queue,
                start_to_close_timeout=timedelta(seconds=20),
                retry_policy=ONCE,
                result_type=RawValue,
            )
            said: str = workflow.payload_converter().from_payload(answer.payload, str)
        except Exception as error:  # noqa: BLE001 - whatever it was
            said = f"failed: {error.__cause__ or error}"
        await workflow.wait_condition(lambda: "end" in self._told)
        return [said, *self._told]

    @workflow.signal
    def tell(self, word: str) -> None:
        self._told.append(word)

    @workflow.update
    def ask(self, word: str) -> str:
        self._told.append(word)
        return word


@workflow.defn
class Forgery:
    """A stranger's: hands a gateway whatever payload it was given."""

    @workflow.run
    async def run(self, queue: str, step: str, order: RawValue) -> None:
        await workflow.execute_activity(
            step, order, task_queue=queue, start_to_close_timeout=timedelta(seconds=20), retry_policy=ONCE
        )


@dataclass
class Lab:
    """An orchestrator with its master keys, two agents with theirs, and a stranger with none."""

    address: str
    namespace: str
    orchestrator: Client
    stranger: Client
    folder: Path
    hosts: dict[str, Host]

    async def order(self, order: str, name: str = "change/edge/edge-1") -> WorkflowHandle[Order, list[str]]:
        return await self.orchestrator.start_workflow(Order.run, order, id=name, task_queue="control")

    async def sealed(self, handle: WorkflowHandle[Order, list[str]]) -> Payload:
        """Return the sealed order that the engine keeps of it."""
        async for event in handle.fetch_history_events():
            if event.HasField("activity_task_scheduled_event_attributes"):
                return event.activity_task_scheduled_event_attributes.input.payloads[0]
        raise AssertionError("no order was given")

    async def forge(self, queue: str, step: str, order: Payload, name: str = "forgery") -> None:
        """Hand the payload to a gateway, as a stranger's workflow of that name; it must not be obeyed."""
        with pytest.raises(WorkflowFailureError):
            await self.stranger.execute_workflow(
                Forgery.run, args=[queue, step, RawValue(order)], id=name, task_queue="strangers"
            )


def step_of(workflow_id: str, queue: str, namespace: str = "default") -> ActivitySerializationContext:
    return ActivitySerializationContext(
        namespace=namespace,
        activity_id=None,
        activity_type="start_instance",
        activity_task_queue=queue,
        workflow_id=workflow_id,
        workflow_type="Order",
        is_local=False,
    )


def master(folder: Path, *names: str) -> Path:
    path = folder / "master.keys"
    kept = path.read_text() if path.exists() else ""
    write_private(path, ("".join(f"{name}:{secrets.token_hex(32)}\n" for name in names) + kept).encode())
    return path


def keys_of(folder: Path, queue: str) -> Path:
    path = folder / f"{queue.replace('/', '-')}.keys"
    write_private(path, MasterKeys(read_keys(folder / "master.keys")).lines_for(queue).encode())
    return path


@asynccontextmanager
async def agents(address: str, namespace: str, folder: Path) -> AsyncIterator[dict[str, Host]]:
    hosts = {queue: Host() for queue in (MINE, OTHER)}
    workers = []
    for queue, host in hosts.items():

        def refused(action: str, sentence: str, host: Host = host) -> None:
            host.refused.append(f"{action}: {sentence}")

        converter = data_converter(keys_of(folder, queue), queue, refused)
        client = await Client.connect(address, namespace=namespace, data_converter=converter)
        workers.append(Worker(client, task_queue=queue, activities=[host.start, host.keep]))
    async with workers[0], workers[1]:
        yield hosts


@pytest.fixture
async def lab(server: Engine, tmp_path: Path) -> AsyncIterator[Lab]:
    stranger = await server.client()
    address, namespace = server.address, stranger.namespace
    stranger = await Client.connect(address, namespace=namespace)
    keys = data_converter(master(tmp_path, "one"))
    client = await Client.connect(address, namespace=namespace, data_converter=keys)
    runner = UnsandboxedWorkflowRunner()
    async with (
        Worker(client, task_queue="control", workflows=[Order], workflow_runner=runner),
        Worker(stranger, task_queue="strangers", workflows=[Forgery], workflow_runner=runner),
        agents(address, namespace, tmp_path) as hosts,
    ):
        yield Lab(address, namespace, client, stranger, tmp_path, hosts)


async def test_an_order_is_carried_out_and_the_engine_shows_nothing_of_it(lab: Lab) -> None:
    for number, order in enumerate((SECRET, "fail")):
        handle = await lab.order(order, f"change/edge/edge-{number}")
        await handle.signal(Order.tell, "end")
        said = (await handle.result())[0]
        assert said == f"started {SECRET}" if order == SECRET else f"no room for {SECRET}" in said
        assert SECRET not in (await handle.fetch_history()).to_json()
    assert lab.hosts[MINE].done == [SECRET, "fail"]


async def test_a_plain_order_is_obeyed_by_nobody_who_has_keys(lab: Lab) -> None:
    """C2: plaintext passed through a process that has keys."""
    plain = Payload(metadata={"encoding": b"json/plain"}, data=b'"evil"')
    await lab.forge(MINE, "start_instance", plain)
    assert lab.hosts[MINE].done == []
    assert "a payload is not sealed" in lab.hosts[MINE].refused[0]


async def test_a_sealed_order_is_good_for_its_own_gateway_change_and_step_alone(lab: Lab) -> None:
    """C2: a sealed payload replayed in any workflow or gateway."""
    handle = await lab.order("1.4.0")
    await handle.signal(Order.tell, "end")
    await handle.result()
    order, mine = await lab.sealed(handle), lab.hosts[MINE]
    await lab.forge(MINE, "start_instance", order, "change/edge/edge-2")
    await lab.forge(MINE, "make_permanent", order, handle.id)
    await lab.forge(OTHER, "start_instance", order, handle.id)
    assert mine.done == ["1.4.0"]
    assert lab.hosts[OTHER].done == []
    assert [("belongs to another change, step or gateway" in one) for one in mine.refused] == [True, True]
    assert len(lab.hosts[OTHER].refused) == 1


async def test_an_answer_that_was_given_once_is_none_to_the_same_step_of_a_later_change(
    tmp_path: Path,
) -> None:
    """Every change of a fleet has the same id, and whoever polls its queue can answer in a worker's place."""
    master(tmp_path, "one")

    def at(step: str) -> DataConverter:
        place = replace(step_of("change/edge", "control"), activity_id=step)
        return data_converter(tmp_path / "master.keys").with_context(place)

    (given,) = await at("0b9c").encode(["admitted"])
    assert await at("0b9c").decode([given]) == ["admitted"]
    for other in ("71aa", "1"):
        with pytest.raises(BadInput, match="belongs to another change"):
            await at(other).decode([given])


async def test_an_apis_keys_start_changes_and_seal_or_open_nothing_of_a_gateway(lab: Lab) -> None:
    """S5: the API, which people reach, had the master keys, and so every gateway's."""
    path = lab.folder / "api.keys"
    write_private(path, MasterKeys(read_keys(lab.folder / "master.keys")).lines_for_api().encode())
    converter = data_converter(path)
    api = await Client.connect(lab.address, namespace=lab.namespace, data_converter=converter)
    handle = await api.start_workflow(Order.run, "1.4.0", id="change/edge/edge-1", task_queue="control")
    assert await handle.execute_update(Order.ask, "hold") == "hold"
    await handle.signal(Order.tell, "end")
    assert await handle.result() == ["started 1.4.0", "hold", "end"]
    step = converter.with_context(step_of(handle.id, MINE, lab.namespace))
    with pytest.raises(BadInput, match="no payload key here"):
        await step.encode(["evil"])
    assert step.payload_codec is not None
    (unopened,) = await step.payload_codec.decode([await lab.sealed(handle)])
    assert b"with a key that is not in the payload key file" in unopened.data
    with pytest.raises(BadInput, match="has the keys of an API"):
        read_keys(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_apis_keys_are_made_of_the_master_keys_for_their_owner_alone(tmp_path: Path) -> None:
    """S5: written again after each change of the master keys, by root, for the API's user."""
    master(tmp_path, "one")
    file = tmp_path / "api.keys"
    command = [sys.executable, "-m", "orchestrator", "keys", "api", str(tmp_path / "master.keys"), str(file)]
    for names in (["one"], ["two", "one"]):
        lines = MasterKeys(read_keys(tmp_path / "master.keys")).lines_for_api()
        os.chown(tmp_path / "master.keys", 12346, 12346)  # the worker's user, as the packages have it
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert f"the API's keys {', '.join(names)}." in done.stdout
        assert file.read_text() == lines
        assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o600, 12345 if "two" in names else 0)
        os.chown(file, 12345, 12345)
        os.chown(tmp_path / "master.keys", 0, 0)
        master(tmp_path, "two")


async def test_another_gateways_keys_forge_nothing_for_this_one(lab: Lab) -> None:
    """The key file of a stolen host seals orders for that host alone."""
    stolen = data_converter(lab.folder / f"{OTHER.replace('/', '-')}.keys", MINE)
    place = step_of("forgery", MINE, lab.namespace)
    order = (await stolen.with_context(place).encode(["evil"]))[0]
    await lab.forge(MINE, "start_instance", order)
    assert lab.hosts[MINE].done == []
    assert len(lab.hosts[MINE].refused) == 1


async def test_a_plain_signal_is_dropped_and_stops_nobodys_change(lab: Lab) -> None:
    """C2: a keyless stranger promoted a held release."""
    handle = await lab.order("1.4.0")
    theirs = lab.stranger.get_workflow_handle(handle.id)
    await theirs.signal("tell", "promote")
    with pytest.raises(WorkflowUpdateFailedError):
        await theirs.execute_update("ask", "promote")
    assert await handle.execute_update(Order.ask, "hold") == "hold"
    await handle.signal(Order.tell, "end")
    assert await handle.result() == ["started 1.4.0", "hold", "end"]


async def test_one_agent_that_answers_plainly_spoils_its_own_answer_alone(lab: Lab) -> None:
    """An error of the codec would stop the workflow that looks after fifty gateways."""

    @activity.defn(name="start_instance")
    async def evil(_: RawValue) -> str:
        return "started"

    async with Worker(lab.stranger, task_queue=BAD, activities=[evil]):
        handle = await lab.orchestrator.start_workflow(
            Order.run, args=["1.4.0", BAD], id="change/edge/edge-2", task_queue="control"
        )
        await handle.signal(Order.tell, "end")
        assert (await handle.result())[0].startswith("failed: a payload is not sealed")


class Garbage(SealedPayloads):
    """The codec of a gateway that is taken over: it seals with its own keys, and no payload."""

    content, key_bytes, nonce = b"\xff\xff\xff", KEY_BYTES, slice(None)

    def with_context(self, context: SerializationContext) -> "Garbage":
        found = type(self)(self._keys, self._refused, context)
        found.content, found.key_bytes, found.nonce = self.content, self.key_bytes, self.nonce
        return found

    def _seal(self, payload: Payload) -> Payload:
        sealed, own = super()._seal(payload), secrets.token_bytes(self.key_bytes)
        for name in self._keys.names:
            key = self._keys.key(name, self._queue)
            assert key is not None
            sealed.metadata[WRAPPED + name] = _seal(key, own, self._place)
        with suppress(ValueError):  # of a key that is none
            sealed.data = _seal(AESGCM(own), self.content, self._place)[self.nonce]
        return sealed


def garbage(path: Path, queue: str) -> tuple[DataConverter, Garbage]:
    converter = data_converter(path, queue)
    assert isinstance(converter.payload_codec, SealedPayloads)
    codec = Garbage(converter.payload_codec._keys)
    return replace(converter, payload_codec=codec), codec


async def test_an_agent_that_seals_what_is_no_payload_spoils_its_own_answer_alone(lab: Lab) -> None:
    @activity.defn(name="start_instance")
    async def evil(_: RawValue) -> str:
        return "started"

    converter, _ = garbage(keys_of(lab.folder, BAD), BAD)
    client = await Client.connect(lab.address, namespace=lab.namespace, data_converter=converter)
    async with Worker(client, task_queue=BAD, activities=[evil]):
        handle = await lab.orchestrator.start_workflow(
            Order.run, args=["1.4.0", BAD], id="change/edge/edge-2", task_queue="control"
        )
        await handle.signal(Order.tell, "end")
        async with asyncio.timeout(PATIENCE):
            assert (await handle.result())[0].startswith("failed: a payload was altered")


@pytest.mark.parametrize(
    ("content", "key_bytes", "nonce"),
    [
        (b"\xff\xff\xff", KEY_BYTES, slice(None)),
        (b"\xfb\x01" * 200, KEY_BYTES, slice(None)),
        (b"", KEY_BYTES - 1, slice(None)),
        (b"", KEY_BYTES, slice(3)),
        (b"", KEY_BYTES, slice(0)),
    ],
    ids=["no message", "endless groups", "no key", "no nonce", "nothing"],
)
async def test_whatever_is_wrong_with_what_is_sealed_it_is_refused_and_nothing_raises(
    tmp_path: Path, content: bytes, key_bytes: int, nonce: slice
) -> None:
    refused: list[str] = []
    ours = data_converter(master(tmp_path, "one"), None, lambda _, said: refused.append(said))
    theirs, codec = garbage(keys_of(tmp_path, MINE), MINE)
    codec.content, codec.key_bytes, codec.nonce = content, key_bytes, nonce
    place = step_of("change/edge/edge-1", MINE)
    sealed = await theirs.with_context(place).encode(["answer"])
    opening = ours.with_context(place).payload_codec
    assert opening is not None
    (found,) = await opening.decode(sealed)
    assert found.metadata["encoding"] == REFUSED
    assert len(refused) == 1


@pytest.mark.parametrize(
    ("orchestrator", "gateway"),
    [
        ("old", "old"),
        (
            "old new",
            "old",
        ),  # the orchestrator has a new one, and the gateway gets it with its next certificate
        ("new old", "old"),
        ("old new", "old new"),
        ("new old", "old new"),
        ("old new", "new"),
        ("new", "old new"),  # every gateway was handed the new one, and the old one is taken away
        ("new", "new"),
    ],
)
async def test_keys_are_changed_without_a_pause(tmp_path: Path, orchestrator: str, gateway: str) -> None:
    """Of two neighbours each opens what the other seals, at every moment of a rotation."""
    keys = {name: secrets.token_hex(32) for name in ("old", "new")}

    def converter(names: str, queue: str | None) -> DataConverter:
        path = tmp_path / f"{names}-{queue is None}".replace(" ", "-")
        write_private(path, "".join(f"{name}:{keys[name]}\n" for name in names.split()).encode())
        if queue is not None:
            write_private(path, MasterKeys(read_keys(path)).lines_for(queue).encode())
        return data_converter(path, queue).with_context(step_of("change/edge/edge-1", queue or MINE))

    ours, theirs = converter(orchestrator, None), converter(gateway, MINE)
    assert await theirs.decode(await ours.encode(["order"])) == ["order"]
    assert await ours.decode(await theirs.encode(["answer"])) == ["answer"]


async def test_keys_that_were_given_to_a_running_process_are_taken_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keys = {name: f"{name}:{secrets.token_hex(32)}\n" for name in ("old", "new")}
    write_private(path, keys["old"].encode())
    running = data_converter(path).with_context(step_of("change/edge/edge-1", "orchestrator"))
    sealed = await running.encode(["order"])
    for written in (keys["new"] + keys["old"], "half a li", ""):
        write_private(path, written.encode())
        assert await running.decode(sealed) == ["order"]
    write_private(path, keys["new"].encode())
    renewed = await running.encode(["order"])
    assert {*renewed[0].metadata} == {"encoding", "penstock-key/new"}
    path.unlink()
    assert await running.decode(renewed) == ["order"]


async def test_a_sealed_failure_is_kept_whole_by_the_engine_however_long_it_was(tmp_path: Path) -> None:
    """Of one over 4 KiB the engine only says `Failure exceeds size limit.`"""
    master(tmp_path, "a-key-with-a-long-name-of-2026", "its-successor-of-2027")
    converter = data_converter(keys_of(tmp_path, MINE), MINE).with_context(step_of("change", MINE))
    error = ApplicationError("\N{SNOWMAN}\n" * 10_000)
    error.__cause__ = ApplicationError('"\N{SNOWMAN}\n' * 10_000)
    failure = Failure()
    await converter.encode_failure(error, failure)
    assert failure.ByteSize() < 4_096
    assert "SNOWMAN" not in str(failure)
    read = await converter.decode_failure(failure)
    assert str(read).startswith("\N{SNOWMAN}\n\N{SNOWMAN}")
    assert str(read.__cause__).startswith('"\N{SNOWMAN}')


@pytest.mark.parametrize("keys", ["theirs", None])
async def test_a_failure_whose_words_cannot_be_opened_says_so_and_what_to_do(
    tmp_path: Path, keys: str | None
) -> None:
    """Of an agent whose keys were not changed yet, or of one that seals while nobody else does."""
    sealed = data_converter(keys_of(master(tmp_path, "old").parent, MINE), MINE).with_context(
        step_of("change", MINE)
    )
    failure = Failure()
    await sealed.encode_failure(ApplicationError("the disk is full"), failure)
    (tmp_path / "master.keys").unlink()
    other = data_converter(master(tmp_path, "new") if keys else None).with_context(step_of("change", MINE))
    read = await other.decode_failure(failure)
    assert str(read).startswith(
        "what it says is sealed with a key that is not here: have the agent get its keys"
    )
