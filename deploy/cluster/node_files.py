"""What is on a node's disk before its first start: accounts, and how its three services are run.

The three are set up as on any node, but for what a machine shared with others forbids: nothing here lowers a
score of the kernel's memory killer or changes a setting of the whole machine.
"""

import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.cluster import programs

PLACE = Path("/etc/node")
"""Where a node has its services and their files, on its own disk."""
SOCKET = "/run/containerd/containerd.sock"
KUBELET_PORT = 10250
POD_NETWORKS = "10.244.0.0/16"
_ACCOUNTS = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "ssl")
_OWN = {"hosts": "127.0.0.1 localhost\n::1 localhost\n", "resolv.conf": ""}
_MERGED = ("bin", "sbin", "lib", "lib64")


@dataclass(frozen=True)
class NodeIdentity:
    """Who a node is to its cluster, and what it believes."""

    name: str
    address: str
    pod_network: str
    """The addresses of pods that are not in the node's own network."""
    server: str
    """The API server's URL."""
    authority: Path
    """Who signed the API server's certificate and its clients'."""
    serving: tuple[Path, Path]
    """Key and certificate that the kubelet shows to the API server that asks it."""
    kubelet: tuple[Path, Path]
    """Likewise as a client, where it is `system:node:NAME` of the group `system:nodes`."""
    proxy: tuple[Path, Path]
    """Likewise of kube-proxy, which is `system:kube-proxy`."""


def write(disk: Path, identity: NodeIdentity, registry: str, sandbox: str) -> None:
    """Write a new disk's files.

    `registry` is what images of the lab come from, HOST:PORT; `sandbox` is the image that holds each pod.
    """
    _lay_out(disk)
    place = disk / PLACE.relative_to("/")
    for name, pair in {
        "serving": identity.serving,
        "kubelet": identity.kubelet,
        "kube-proxy": identity.proxy,
    }.items():
        for file, suffix in zip(pair, ("key", "pem"), strict=True):
            _write(place / f"{name}.{suffix}", file.read_bytes())
    _write(place / "authority.pem", identity.authority.read_bytes())
    _write(place / "containerd.toml", _containerd(sandbox).encode())
    _write(place / "hosts" / registry / "hosts.toml", _hosts(registry).encode())
    documents = {
        "kubelet.kubeconfig": _kubeconfig(identity.server, "kubelet"),
        "kube-proxy.kubeconfig": _kubeconfig(identity.server, "kube-proxy"),
        "kubelet.yaml": _kubelet(identity.address),
        "kube-proxy.yaml": _proxy(identity),
        "networks/pods.conflist": _networks(identity.pod_network),
    }
    for name, content in documents.items():
        _write(place / name, json.dumps(content, indent=1).encode())
    for name, command in _services(identity).items():
        _write(place / f"{name}.service", command.encode())


def _lay_out(disk: Path) -> None:
    (disk / "etc").mkdir(parents=True)
    for name in _MERGED:
        (disk / name).symlink_to(f"usr/{name}")
    for name in _ACCOUNTS:
        source = Path("/etc", name)
        if source.is_dir():
            shutil.copytree(source, disk / "etc" / name, symlinks=True)
        elif source.exists():
            shutil.copy(source, disk / "etc" / name)
    for name, content in _OWN.items():
        (disk / "etc" / name).write_text(content)
    (disk / "etc" / "machine-id").write_text(f"{secrets.token_hex(16)}\n")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)


def _services(identity: NodeIdentity) -> Mapping[str, str]:
    there = f"until [ -S {SOCKET} ]; do sleep 0.05; done"
    shims = programs.program("containerd-shim-runc-v2").parent
    kubelet = [
        f"--config={PLACE}/kubelet.yaml",
        f"--kubeconfig={PLACE}/kubelet.kubeconfig",
        f"--hostname-override={identity.name}",
        f"--node-ip={identity.address}",
        "--v=2",
    ]
    path = f"PATH={shims}:/usr/sbin:/usr/bin"
    return {
        "containerd": f"{path}\nexec {programs.program('containerd')} -c {PLACE}/containerd.toml\n",
        "kubelet": f"{there}\nexec {programs.program('kubelet')} {' '.join(kubelet)}\n",
        "kube-proxy": f"exec {programs.program('kube-proxy')} --config={PLACE}/kube-proxy.yaml --v=2\n",
    }


def _containerd(sandbox: str) -> str:
    images, runtime = '"io.containerd.cri.v1.images"', '"io.containerd.cri.v1.runtime"'
    plugins = programs.program("bridge").parent
    return f"""version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
address = "{SOCKET}"
[plugins.{images}]
snapshotter = "overlayfs"
[plugins.{images}.pinned_images]
sandbox = "{sandbox}"
[plugins.{images}.registry]
config_path = "{PLACE}/hosts"
[plugins.{runtime}]
restrict_oom_score_adj = true
disable_apparmor = true
disable_hugetlb_controller = true
tolerate_missing_hugetlb_controller = true
[plugins.{runtime}.cni]
bin_dirs = ["{plugins}"]
conf_dir = "{PLACE}/networks"
[plugins.{runtime}.containerd]
default_runtime_name = "runc"
[plugins.{runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.{runtime}.containerd.runtimes.runc.options]
BinaryName = "runc"
SystemdCgroup = false
"""


def _hosts(registry: str) -> str:
    return f'server = "http://{registry}"\n[host."http://{registry}"]\ncapabilities = ["pull", "resolve"]\n'


def _kubeconfig(server: str, client: str) -> dict[str, Any]:
    cluster = {"server": server, "certificate-authority": f"{PLACE}/authority.pem"}
    user = {"client-certificate": f"{PLACE}/{client}.pem", "client-key": f"{PLACE}/{client}.key"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": client, "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": client}}],
        "current-context": "lab",
    }


def _kubelet(address: str) -> dict[str, Any]:
    full = {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"}
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "port": KUBELET_PORT,
        "healthzBindAddress": "127.0.0.1",
        "tlsCertFile": f"{PLACE}/serving.pem",
        "tlsPrivateKeyFile": f"{PLACE}/serving.key",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{PLACE}/authority.pem"},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        # The disk is this machine's, and how full that is says nothing of the node.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": full,
        "nodeStatusUpdateFrequency": "5s",
    }


def _proxy(identity: NodeIdentity) -> dict[str, Any]:
    never = dict.fromkeys(("tcpEstablishedTimeout", "tcpCloseWaitTimeout", "udpTimeout"), "0s")
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": identity.address,
        "hostnameOverride": identity.name,
        "clusterCIDR": POD_NETWORKS,
        "clientConnection": {"kubeconfig": f"{PLACE}/kube-proxy.kubeconfig"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0, "min": 0, "udpStreamTimeout": "0s", **never},
        "nftables": {"minSyncPeriod": "0s"},
    }


def _networks(subnet: str) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "dataDir": "/run/network-addresses",
        "ranges": [[{"subnet": subnet}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "ipMasq": False, "ipam": addresses}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}
