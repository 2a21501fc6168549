"""Agents and exporters as the chart has them: pods of its DaemonSet on real nodes, in place of processes."""

import asyncio
import base64
import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from deploy.cluster.api import Json
from deploy.cluster.lab import ClusterLab
from deploy.cluster.nodes import is_ready
from deploy.kubernetes.chart import NAMESPACE, rendered
from deploy.lab.lab import FLEET
from orchestrator.publishing.image import BuiltImage
from policies.model.errors import Unavailable

MOUNTED = Path("/etc/penstock")
"""Where the chart's pods have files and Secrets."""
SECRET = f"{FLEET}-lab"
SET = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{FLEET}-agent"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
OURS = f"penstock.dev/agent={FLEET}"
_UP_WITHIN = 180.0
"""Seconds until a node has pulled the image, too."""
_PARTS = ("credentials", "probe", "exporter")
"""Of agent.yaml: what is the same on each node."""
_FROM_FILE = "file:"


async def into_pods(one: ClusterLab, image: BuiltImage) -> None:
    """End the lab's agents and exporters, and have pods of this image go on in the same folders.

    Raises:
        Unavailable: the pods are not there in time; their node's words are quoted.
    """
    lab, real = one.lab, one.ground.real
    reference = await asyncio.to_thread(real.registry.push, "penstock/agent", image)
    for program in (*lab.agents.values(), *lab.exporters.values()):
        program.kill()
    for manifest in _manifests(one, reference):
        real.plane.admin.apply(manifest, manager="installer")
    await _until_ready(one)


async def delete_pods(one: ClusterLab) -> None:
    """Delete the pods of all agents at once, and wait until the DaemonSet has made others."""
    admin = one.ground.real.plane.admin
    old = agent_pods(one)
    for pod in old:
        await asyncio.to_thread(admin.delete, f"{PODS}/{pod['metadata']['name']}")
    await _until_ready(one, without={pod["metadata"]["uid"] for pod in old})


def agent_pods(one: ClusterLab) -> list[Json]:
    """Return the agents' pods."""
    return one.ground.real.plane.admin.every(PODS, labelSelector=OURS)


async def _until_ready(one: ClusterLab, without: Collection[str] = ()) -> None:
    deadline, nodes = asyncio.get_running_loop().time() + _UP_WITHIN, len(one.ground.real.nodes)
    while True:
        pods = await asyncio.to_thread(agent_pods, one)
        fresh = [pod for pod in pods if pod["metadata"]["uid"] not in without and is_ready(pod)]
        if len(fresh) == nodes == len(pods):
            return
        if asyncio.get_running_loop().time() > deadline:
            states = [pod["status"].get("containerStatuses") or pod["status"] for pod in pods]
            raise Unavailable(f"agents are no pods after {_UP_WITHIN:g} s: {states}")
        await asyncio.sleep(0.2)


def _manifests(one: ClusterLab, image: str) -> Iterator[Json]:
    """Yield what the chart says of agents, and the Secret that it takes for granted."""
    own = yaml.safe_load(
        (one.lab.folder / "etc" / "agents" / f"{next(iter(one.lab.agents))}.yaml").read_text()
    )
    private: dict[str, bytes] = {}
    file = {part: _moved(own[part], private) for part in _PARTS}
    file["probe"].pop("name")  # each gateway's own address, which is what a probe expects anyway
    yield {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "data": {name: base64.b64encode(content).decode() for name, content in private.items()},
    }
    values = one.ground.values(one.lab.fleet)
    values["fleets"][0]["agent"] = {
        "file": file,
        "relay": own["temporal_address"],
        "sources": [{"secret": {"name": SECRET}}],
    }
    written = {"image": image, "files": _trust(Path(own["trust"]))}
    wanted = {"penstock-files", f"{FLEET}-agent"}
    for manifest in yaml.safe_load_all(rendered(values | written)):
        name = manifest["metadata"]["name"] if manifest else ""
        if name in wanted or name.startswith(f"{FLEET}-agents-"):
            yield manifest


def _moved(part: dict[str, Any], private: dict[str, bytes]) -> dict[str, Any]:
    """Return a part of agent.yaml with its files where pods have them; their contents are noted by name."""
    moved = {}
    for key, value in part.items():
        path = Path(str(value).removeprefix(_FROM_FILE))
        if path.is_absolute():
            content = path.read_bytes()
            name = f"{hashlib.sha256(str(path).encode()).hexdigest()[:8]}-{path.name}"
            private[name] = content
            mounted = str(MOUNTED / name)
            moved[key] = f"{_FROM_FILE}{mounted}" if str(value).startswith(_FROM_FILE) else mounted
        else:
            moved[key] = value
    return moved


def _trust(policy: Path) -> dict[str, str]:
    """Return the trust policy and what it names, all in one folder."""
    content = yaml.safe_load(policy.read_text())
    files = {}
    for name, root in content["trust_roots"].items():
        files[f"{name}.json"] = (policy.parent / root["trusted_root"]).read_text()
        root["trusted_root"] = f"{name}.json"
    return files | {policy.name: yaml.safe_dump(content)}
