"""The lock's part that a package has, as Debian 12 would install it: names, versions, digests."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from policies.model.errors import Unavailable

DEBIAN_12 = {
    "implementation_name": "cpython",
    "implementation_version": "3.11.2",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
}
"""What markers of the lock are asked about, on whatever machine the packages are made."""
TARGET = (
    *("--python-version", "3.11", "--implementation", "cp", "--only-binary", ":all:"),
    *(word for abi in ("cp311", "abi3", "none") for word in ("--abi", abi)),
    *(
        word
        for system in ("_2_36", "_2_34", "_2_28", "_2_17", "2014")
        for word in ("--platform", f"manylinux{system}_x86_64")
    ),
)
"""The same for wheels."""


@dataclass(frozen=True)
class Locked:
    """One requirement with the digests that its wheel may have."""

    name: str
    version: str
    line: str
    """As pip reads it, without markers."""


def locked(project: Path, part: Sequence[str]) -> tuple[Locked, ...]:
    """Return this part of the project's lock, by name.

    Raises:
        Unavailable: uv does not say; the lock is not one of this project.
    """
    uv = Path(sys.executable).with_name("uv")
    export = ("export", "--frozen", "--offline", "--no-emit-project", "--no-header", "--no-annotate")
    done = subprocess.run([uv, *export, *part], cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"uv cannot read uv.lock: {done.stderr.strip()}; make it anew with uv lock")
    return tuple(parsed(done.stdout))


def parsed(exported: str) -> list[Locked]:
    """Return the requirements of an export that Debian 12 has, by name."""
    found = []
    for line in exported.replace("\\\n", " ").splitlines():
        said, *digests = line.split(" --hash=")
        requirement = Requirement(said.strip())
        if requirement.marker is not None and not requirement.marker.evaluate(DEBIAN_12):
            continue
        pinned = f"{requirement.name}{requirement.specifier}"
        wanted = " ".join([pinned, *(f"--hash={digest.strip()}" for digest in digests)])
        found.append(Locked(requirement.name, str(requirement.specifier).removeprefix("=="), wanted))
    return sorted(found, key=lambda one: one.name)
