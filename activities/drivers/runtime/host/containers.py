"""Daemons in containers: recognised by who publishes their port, and by where their process lives.

A runtime starts such a daemon anew as it likes, gives it other addresses than its users see, and brought
the programs along by which it is asked. So none is taken over, and each is named with what to do.
"""

import re
from contextlib import suppress
from pathlib import Path

from activities.drivers.runtime.host.process import PROC

OURSELVES = PROC / "self"

WHAT_TO_DO = (
    "what runs in a container is not adopted: when its last user has left, stop it there together with what "
    "starts it anew (its restart policy, or its unit), then install a release"
)

_PUBLISHERS = frozenset(
    "conmon docker-proxy pasta pasta.avx2 rootlessport rootlessport-child slirp4netns".split()  # noqa: SIM905
)
"""Programs that hold a container's published port: of Docker, of Podman, and of both without root."""

_IN_CONTAINER = re.compile(
    r"/(?:docker|libpod|crio|cri-containerd|containerd)[-/]([0-9a-f]{12})[0-9a-f]*(?:\.scope)?(?=/|$)"
    r"|/kubepods[^/\n]*/(?:[^/\n]*/)*([^/\n]+)"
    r"|/lxc(?:\.payload)?[./]([^/\n]+)"
    r"|/machine\.slice/machine-([^/\n]+)\.scope",
    re.MULTILINE,
)
"""Control groups as container runtimes name them, with what the container is called there."""


def publishes(program: str) -> bool:
    """Whether a program of that path holds ports of containers for them."""
    return program.rpartition("/")[2] in _PUBLISHERS


def why_in_container(pid: int) -> str | None:
    """Return by what the process is in a container, None when it lives as this host's own processes do.

    A mount namespace of its own is none: units have them. A root of its own is. OSError when it has ended.
    """
    process = PROC / str(pid)
    if (OURSELVES / "ns/pid").readlink() != (process / "ns/pid").readlink():
        return "has process numbers of its own"
    name = _container(process)
    if name is not None and name != _container(OURSELVES):
        return f"is in the control group of container {name}"
    if not (process / "root").samefile(_root_of_the_host()):
        return "has a root folder of its own"
    return None


def _root_of_the_host() -> Path:
    """Return the first process' root folder, or our own where nobody may look at that one."""
    root = PROC / "1/root"
    try:
        root.stat()
    except PermissionError:
        return OURSELVES / "root"
    return root


def _container(process: Path) -> str | None:
    with suppress(OSError):
        found = _IN_CONTAINER.search((process / "cgroup").read_text())
        return next(filter(None, found.groups())) if found else None
    return None
