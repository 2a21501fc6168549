"""Gateways that are pods, as plain as they can be: one DaemonSet for a slot, its config on every disk."""

import shutil
from pathlib import Path
from string import Template
from typing import Any

from deploy.cluster import images
from deploy.cluster.nodes import RealNodes
from deploy.lab.credentials import Credentials

NAMESPACE = "gateways"
LABEL = "penstock.dev/test.a"
PORT = 4431
DEVICE = "vpna"
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "KILL", "NET_ADMIN", "SETGID", "SETUID")
"""What ocserv needs to open tunnels, change its user and end its workers; nothing more."""
PLACE = "var/lib/penstock/slots/a"
"""Where a node has the slot's folders, below its disk."""
TEMPLATE = Path("deploy/lab/ocserv.conf.template")
SOCKET = "/run/penstock/occtl.sock"
LATCH = f"while occtl -s {SOCKET} -j show users | busybox grep -q Username; do busybox sleep 1; done"


def image(tree: Path) -> images.Image:
    """Return an image of a tree, with the shell that the latch is written in."""
    busybox = tree.parent / "shell"
    (busybox / "usr/bin").mkdir(parents=True)
    found = shutil.which("busybox")
    assert found, "busybox-static is not installed"
    shutil.copy(found, busybox / "usr/bin/busybox")
    return images.image([images.layer(tree), images.layer(busybox)], ["/usr/sbin/ocserv"])


def write_config(nodes: RealNodes, issued: Credentials) -> None:
    """Write the slot's config and credentials on every node's disk, as an agent would."""
    for node in nodes.nodes.values():
        folder = node.disk / PLACE / "config"
        folder.mkdir(parents=True)
        for file in (issued.users, issued.certificate, issued.key):
            shutil.copy(file, folder / file.name)
        said = {
            "credential_users": f"/etc/penstock/{issued.users.name}",
            "credential_certificate": f"/etc/penstock/{issued.certificate.name}",
            "credential_key": f"/etc/penstock/{issued.key.name}",
            "port": str(PORT),
            "device": DEVICE,
            "pool4": "10.65.0.0",
            "netmask4": "255.255.255.0",
            "pool6": "fd98:1::/112",
            "run": "/run/penstock",
        }
        (folder / "ocserv.conf").write_text(Template(TEMPLATE.read_text()).substitute(said))


def daemon_set(image: str, *, grace: int = 60) -> dict[str, Any]:
    """Return the slot's DaemonSet, with the image by its reference and so many seconds for the latch."""
    labels = {"slot": "a"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "slot-a", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": labels}, "spec": _pod(image, grace)},
        },
    }


def _pod(image: str, grace: int) -> dict[str, Any]:
    return {
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": grace,
        "nodeSelector": {LABEL: "true"},
        "tolerations": [{"operator": "Exists"}],
        "containers": [_container(image)],
        "volumes": [
            {"name": "config", "hostPath": {"path": f"/{PLACE}/config", "type": "Directory"}},
            {"name": "run", "hostPath": {"path": f"/{PLACE}/run", "type": "DirectoryOrCreate"}},
            {"name": "tun", "hostPath": {"path": "/dev/net/tun", "type": "CharDevice"}},
        ],
    }


def _container(image: str) -> dict[str, Any]:
    return {
        "name": "gateway",
        "image": image,
        "args": ["-f", "-c", "/etc/penstock/ocserv.conf"],
        "env": [{"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
        "securityContext": {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1, "failureThreshold": 2},
        "lifecycle": {"preStop": {"exec": {"command": ["busybox", "sh", "-c", LATCH]}}},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/penstock", "readOnly": True},
            {"name": "run", "mountPath": "/run/penstock", "subPathExpr": "$(POD_UID)"},
            {"name": "tun", "mountPath": "/dev/net/tun"},
        ],
    }
