"""The machine that this process runs on, as releases name platforms."""

import os

from policies.model.release import Platform

ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
"""What uname(2) calls a processor, and what manifests call it, as container images do."""


def this_platform() -> Platform:
    """Return the system and processor of this machine."""
    machine = os.uname().machine.lower()
    known = ARCHITECTURES.get(machine, "".join(filter(str.isalnum, machine)))
    return Platform(os=os.uname().sysname.lower(), arch=known)
