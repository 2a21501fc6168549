"""The driver as it is installed: its file, commands and process, and releases that it verifies itself."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.drivers.runtime.kubernetes.rights import PATCH_NODE, UPDATE_LEASE
from activities.files import load
from activities.placement import PlaceOrder, Prepared, PrepareOrder
from deploy.cluster.api import Api
from deploy.cluster.control_plane import ControlPlane
from deploy.kubernetes.chart import NAMESPACE
from deploy.lab.releases import LabReleases
from deploy.lab.repository import RepositoryServer
from orchestrator.enrolment.authority import Authority
from orchestrator.processes.cluster import alone_in, compose_driver, holder_of
from orchestrator.processes.cluster_file import ClusterSettings
from orchestrator.publishing.builder import ReleaseLabels, build_release
from orchestrator.publishing.image import ImageLabels, build_image
from policies.model.errors import BadInput, Conflict
from policies.model.placement import Placed
from policies.model.plan import ReleaseRef
from policies.model.refusals import DoesNotFit, ThresholdNotMet
from policies.model.release import ReleaseManifest
from policies.model.value import Digest
from policies.trust.statements import parse_release
from tests.cluster.driver.conftest import Nodes
from tests.cluster.driver.driving import (
    CLUSTER,
    FLEET,
    LEASE,
    REPOSITORY,
    SETS,
    account_file,
    order,
    pods,
)
from tests.cluster.driver.test_driver_rights import without
from tests.fakes.image import small_shell
from tests.fakes.trees import small_tree
from tests.relay.installation import issued
from tests.service.command_line import CommandLine
from tests.workflows.engine import engine

PRODUCT = "ocserv-gw"
PATIENCE = timedelta(seconds=60)


@dataclass
class Shop:
    """A repository of signed releases, and the driver's own file for it."""

    lab: LabReleases
    folder: Path
    config: Path
    manifests: dict[int, ReleaseManifest] = field(default_factory=dict)
    """What was published, by its number."""

    def publish(self, number: int, *, pictured: bool = True, alone: bool = False) -> ReleaseRef:
        """Return a release that two people have signed, or one alone; with an image or without."""
        tree, template = small_tree(self.folder, marker=str(number).encode())
        blobs, version = self.lab.folder / "blobs", f"1.{number}"
        labels = ReleaseLabels(product=PRODUCT, version=version, rollback_index=number, serial=number)
        shown = ImageLabels(PRODUCT, version)
        picture = build_image(tree, small_shell(self.folder), shown, blobs) if pictured else None
        built = build_release(tree, template, labels, blobs, image=picture)
        digest = self.lab.publish_built(built, number, [self.lab.builder] if alone else None)
        self.manifests[number] = parse_release(built.statement)
        return self.manifests[number].reference(digest)

    def image(self, number: int) -> Digest:
        """Return the digest of that release's image."""
        found = self.manifests[number].image_digest
        assert found is not None
        return found

    @property
    def settings(self) -> ClusterSettings:
        return load(self.config, ClusterSettings)


def written(folder: Path, **changed: Any) -> Path:
    """Return the driver's own file; JSON is YAML, too."""
    said: dict[str, Any] = {
        "name": CLUSTER,
        "fleet": FLEET,
        "namespace": NAMESPACE,
        "slots": {slot: f"{FLEET}-{slot}" for slot in "abc"},
        "repository": REPOSITORY,
        "root": str(folder / "root"),
        "product": PRODUCT,
        "channel": "stable",
        "trust": str(folder / "trust.yaml"),
        "temporal_address": "127.0.0.1:1",
        "gone_within": "30s",
    }
    path = folder / "cluster.yaml"
    path.write_text(json.dumps(said | changed))
    path.chmod(0o600)
    return path


@pytest.fixture
def shop(driven: ControlPlane, admin: Api, tmp_path: Path) -> Iterator[Shop]:
    root = tmp_path / "repository"
    root.mkdir()
    server = RepositoryServer(("127.0.0.1", 0), root)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    lab = LabReleases(tmp_path / "lab", root, server.url, product=PRODUCT)
    config = written(tmp_path, kubeconfig=str(account_file(driven)), trust=str(lab.trust_policy))
    yield Shop(lab, tmp_path, config)
    server.shutdown()
    server.server_close()


@pytest.fixture
def penstock() -> CommandLine:
    return CommandLine({"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd())})


async def test_the_driver_prepares_what_it_has_verified_by_statement_signatures_and_image_without_its_tree(
    shop: Shop,
) -> None:
    cluster, sound = compose_driver(shop.settings).cluster, shop.publish(1)
    prepared = await cluster.prepare(order(CLUSTER), sound, shop.lab.url)
    assert (prepared.image, prepared.changed) == (shop.image(1), True)
    stored, tree = shop.settings.root / "store", shop.manifests[1].tree
    assert tree is not None
    assert [path for path in stored.rglob("*") if tree.sha256 in path.name] == []
    (line,) = (stored / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["verification"]["verdict"]["code"] == "Admitted"


async def test_what_too_few_have_signed_or_what_has_no_image_is_refused_and_changes_no_slot(
    shop: Shop, admin: Api
) -> None:
    cluster = compose_driver(shop.settings).cluster
    with pytest.raises(ThresholdNotMet):
        await cluster.prepare(order(CLUSTER), shop.publish(1, alone=True), shop.lab.url)
    with pytest.raises(DoesNotFit, match=r"1\.2 names no image"):
        await cluster.prepare(order(CLUSTER), shop.publish(2, pictured=False), shop.lab.url)
    templates = [one["spec"]["template"]["metadata"] for one in admin.every(SETS)]
    assert all("penstock.dev/release" not in one.get("annotations", {}) for one in templates)


async def test_what_gateways_served_with_is_prepared_again_though_its_source_is_gone(
    shop: Shop, driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), cluster = nodes(1), compose_driver(shop.settings).cluster
    first, second = shop.publish(1), shop.publish(2)
    slot = (await cluster.prepare(order(CLUSTER), first, shop.lab.url)).slot
    await cluster.place(order("gw"), node, slot, shop.image(1))
    await cluster.prepare(order(CLUSTER, 2, "second"), second, shop.lab.url)
    gone = "http://127.0.0.1:1/"
    again = compose_driver(shop.settings).cluster
    back = await again.prepare(order(CLUSTER, 3, "second"), first, gone)
    assert (back.slot, back.image, back.changed) == (slot, shop.image(1), False)


@workflow.defn(name="Placing", sandboxed=False)
class Placing:
    """Prepares a release and places it, as a batch does."""

    @workflow.run
    async def run(self, queue: str, prepare: PrepareOrder, node: str) -> dict[str, str]:
        """Return what the driver has said."""
        ask = partial(
            workflow.execute_activity,
            task_queue=queue,
            start_to_close_timeout=PATIENCE,
            heartbeat_timeout=PATIENCE / 10,
        )
        prepared: Prepared = await ask("prepare_slot", prepare, result_type=Prepared)
        place = PlaceOrder(operation=order("gw"), node=node, slot=prepared.slot, image=prepared.image)
        placed: Placed = await ask("place_instance", place, result_type=Placed)
        return {"slot": placed.slot, "instance": placed.instance}


async def test_the_process_takes_orders_from_its_queue_and_goes_on_after_it_was_killed(
    shop: Shop, admin: Api, nodes: Nodes
) -> None:
    (node,), sound = nodes(1), shop.publish(1)
    prepare = PrepareOrder(operation=order(CLUSTER), release=sound, source=shop.lab.url)
    with engine() as server:
        client = await server.client()
        changed = {"temporal_address": server.address, "temporal_namespace": client.namespace}
        config = written(shop.folder, **json.loads(shop.config.read_text()) | changed)
        with started(config) as running:
            first = await placed(client, prepare, node, "first")
            running.kill()
            running.wait()
        with started(config) as running:
            assert await placed(client, prepare, node, "second") == first
            running.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(running.wait, 40) == 0
    (pod,) = pods(admin, node)
    assert first == {"slot": "a", "instance": pod["metadata"]["uid"]}
    assert admin.get(LEASE)["spec"].get("holderIdentity", "") == ""


async def placed(client: Client, prepare: PrepareOrder, node: str, name: str) -> Any:
    """Have the driver prepare a release and place it."""
    asking = Worker(
        client, task_queue="asking", workflows=[Placing], workflow_runner=UnsandboxedWorkflowRunner()
    )
    async with asking:
        given = [f"gateway/{FLEET}/{CLUSTER}", prepare, node]
        return await client.execute_workflow(
            Placing.run, args=given, id=name, task_queue="asking", execution_timeout=2 * PATIENCE
        )


class started:  # noqa: N801 - reads as what it is
    """The driver's process while a block lasts."""

    def __init__(self, config: Path) -> None:
        self._config = config

    def __enter__(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "orchestrator", "cluster", "run", "--config", str(self._config)]
        self._process = subprocess.Popen(command)
        return self._process

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


async def test_the_check_command_says_each_right_that_is_missing(
    shop: Shop, admin: Api, penstock: CommandLine
) -> None:
    done = await penstock("cluster", "check", "--config", str(shop.config))
    assert (done.code, done.err) == (0, "")
    assert done.out == f"The driver of {FLEET} may do all that it needs to in {CLUSTER}.\n"
    with without(admin, PATCH_NODE), without(admin, UPDATE_LEASE):
        done = await penstock("cluster", "check", "--config", str(shop.config))
    assert done.code == 10
    assert done.out == "missing: patch nodes\nmissing: update leases.coordination.k8s.io\n"


@pytest.mark.sweep
async def test_the_driver_is_enrolled_by_the_clusters_name_and_renewed_by_its_own_command(
    tmp_path: Path, penstock: CommandLine
) -> None:
    authority = Authority.open(tmp_path / "authority")
    identity = tmp_path / "identity"
    kept = {"certificate": "agent.pem", "key": "agent.key", "authority": "authority.pem"}
    config = str(written(tmp_path, **{key: str(identity / name) for key, name in kept.items()}))
    own = issued(authority, CLUSTER, fleet=FLEET)
    (tmp_path / "own.pem").write_bytes(own.certificate)
    (tmp_path / "own.key").touch(mode=0o600)
    (tmp_path / "own.key").write_bytes(own.key)
    shown = ("--certificate", str(tmp_path / "own.pem"), "--key", str(tmp_path / "own.key"))
    above = ("--authority", str(tmp_path / "authority" / "authority.pem"))
    done = await penstock("cluster", "enrol", "--config", config, *shown, *above)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{FLEET}/{CLUSTER} has certificate ")
    done = await penstock("cluster", "enrol", "--config", config)
    assert (done.code, "say --at HOST:PORT of a relay" in done.err) == (2, True)
    done = await penstock("cluster", "renew", "--config", config)
    assert (done.code, "127.0.0.1:1" in done.err) == (1, True), done.err


def test_two_drivers_never_share_a_folder_and_one_is_the_same_holder_when_it_comes_back(
    tmp_path: Path,
) -> None:
    with alone_in(tmp_path), pytest.raises(Conflict, match=r"runs in .* already"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        assert holder_of(tmp_path) == holder_of(tmp_path)
    assert holder_of(tmp_path) != holder_of(tmp_path / "other")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"slots": {"a": "edge-a"}}, "slots"),
        ({"slots": {"a": "edge-a", "b": "edge-a"}}, "two slots have the same DaemonSet"),
        ({"repository": "registry.example/vpn/edge:1"}, "repository"),
        ({"repository": "https://registry.example/vpn"}, "repository"),
        ({"tracing_url": "collector"}, "is no address of a collector"),
        ({"colour": "blue"}, "colour"),
        ({"up_within": "500ms"}, "up_within"),
        ({"up_within": "101s"}, "up_within"),
        ({"gone_within": "0s"}, "gone_within"),
        ({"gone_within": "2m"}, "gone_within"),
    ],
)
def test_a_file_that_fits_no_cluster_is_refused_by_its_key(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=said):
        load(written(tmp_path, **changed), ClusterSettings)


def test_names_that_no_label_takes_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    long = {"fleet": "f" * 62, "slots": {"aa": "x-a", "bb": "x-b"}}
    with pytest.raises(BadInput, match="too long for a label's name"):
        compose_driver(load(written(tmp_path, **long), ClusterSettings))


@pytest.mark.parametrize("slot", ["epoch", "gateway", "ordered"])
def test_no_slot_is_called_as_a_label_that_means_something_else(slot: str, tmp_path: Path) -> None:
    named = {"slots": {"a": "x-a", slot: "x-b"}}
    with pytest.raises(BadInput, match=f"no slot can be called {slot}"):
        compose_driver(load(written(tmp_path, **named), ClusterSettings))
