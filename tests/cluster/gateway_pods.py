"""Gateways that are pods, of the manifests as they are shipped; their config is written without an agent."""

import shutil
from pathlib import Path
from string import Template
from typing import Any

import yaml

from deploy.cluster.nodes import RealNodes
from deploy.lab.credentials import Credentials

ROOT = Path(__file__).parents[2]
SLOTS = ROOT / "deploy/kubernetes/manifests/slots.yaml"
TEMPLATE = ROOT / "deploy/lab/ocserv.conf.template"
NAMESPACE = "penstock"
LABEL = "penstock.dev/edge.a"
"""Tells a node to run the slot."""
PORT = 4431
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "KILL", "NET_ADMIN", "SETGID", "SETUID")
"""What ocserv needs to open tunnels, change its user and end its workers; nothing more."""
PLACE = "var/lib/penstock/slots/a"
"""Where a node has the slot's folders, below its disk."""


def write_config(cluster: RealNodes, issued: Credentials) -> None:
    """Write the slot's config and credentials on every node's disk, as an agent would."""
    for node in cluster.nodes.values():
        folder = node.disk / PLACE / "conf"
        folder.mkdir(parents=True)
        for file in (issued.users, issued.certificate, issued.key):
            shutil.copy(file, folder / file.name)
        said = {
            "credential_users": f"/etc/penstock/{issued.users.name}",
            "credential_certificate": f"/etc/penstock/{issued.certificate.name}",
            "credential_key": f"/etc/penstock/{issued.key.name}",
            "port": str(PORT),
            "device": "vpna",
            "pool4": "10.65.0.0",
            "netmask4": "255.255.255.0",
            "pool6": "fd98:1::/112",
            "run": "/run/penstock",
        }
        (folder / "ocserv.conf").write_text(Template(TEMPLATE.read_text()).safe_substitute(said))


def daemon_set(image: str) -> dict[str, Any]:
    """Return the DaemonSet of the slot, as it is shipped, with an image by its reference."""
    found: dict[str, Any] = next(yaml.safe_load_all(SLOTS.read_text()))
    assert found["metadata"]["name"] == "edge-a"
    found["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return found
