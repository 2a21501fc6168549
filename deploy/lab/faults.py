"""Accidents on demand: what can happen to the parts of a lab, and how each is mended.

Every accident is the real one: SIGKILL, SIGSTOP, packets dropped in the hub, files that may
not grow. The daemons that carry sessions are never touched.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from deploy.lab.lab import Lab, stand_ins
from deploy.lab.processes import Process
from deploy.lab.topology import Host
from policies.model.errors import Unavailable

CUT = "penstock_cut"
"""The table in the hub that drops what a host is cut off from; one chain in each direction."""


class Fault(StrEnum):
    """What ends, or stops for a while."""

    WORKER_KILLED = "worker killed"
    AGENT_KILLED = "agent killed"
    ENGINE_KILLED = "engine killed"
    WORKER_FROZEN = "worker frozen"


class Faults:
    """Strikes one part of a lab and mends it, as a supervisor of processes would."""

    def __init__(self, lab: Lab) -> None:
        """Take the lab; `worker` is whoever is the worker now."""
        self._lab = lab
        self.worker = lab.worker
        self._frozen: Process | None = None
        self._replaced = 0

    def strike(self, fault: Fault, gateway: str) -> None:
        """Do it, at once; an agent's fault is that gateway's."""
        match fault:
            case Fault.WORKER_KILLED:
                self.worker.kill()
            case Fault.AGENT_KILLED:
                self._lab.agents[gateway].kill()
            case Fault.ENGINE_KILLED:
                self._lab.engine.kill()
            case Fault.WORKER_FROZEN:
                self._frozen = self.worker
                self._frozen.freeze()

    def mend(self, fault: Fault, gateway: str) -> Process:
        """Start what ended, or a second worker beside a frozen one; return who goes on."""
        match fault:
            case Fault.WORKER_KILLED:
                mended = self.worker
            case Fault.AGENT_KILLED:
                mended = self._lab.agents[gateway]
            case Fault.ENGINE_KILLED:
                mended = self._lab.engine.process
            case Fault.WORKER_FROZEN:
                self._replaced += 1
                mended = self.worker = self._lab.worker.twin(f"worker-{self._replaced}")
        mended.start()
        return mended

    def thaw(self) -> None:
        """Let a frozen worker go on, in a world that has moved on without it."""
        if self._frozen:
            self._frozen.thaw()

    def tidy(self) -> None:
        """End the worker that was frozen once; its place is taken."""
        if self._frozen:
            self._frozen.kill()
            self._frozen = None


@contextmanager
def cut_off(lab: Lab, *hosts: Host) -> Iterator[None]:
    """Drop everything between the hub and these hosts; users go on: they are bridged past the hub."""
    hub = lab.topology.hub
    rules = [f"add table inet {CUT}"]
    for hook, side in (("input", "saddr"), ("output", "daddr")):
        rules.append(f"add chain inet {CUT} {hook} {{ type filter hook {hook} priority 0; }}")
        for host in hosts:
            rules += [
                f"add rule inet {CUT} {hook} ip {side} {address} drop"
                for address in (host.address4, host.management4)
                if address
            ]
            rules.append(f"add rule inet {CUT} {hook} ip6 {side} {host.address6} drop")
    _nft(hub, "\n".join(rules))
    try:
        yield
    finally:
        _nft(hub, f"delete table inet {CUT}")


@contextmanager
def nft_refuses(lab: Lab, gateway: str) -> Iterator[None]:
    """Make every change of the steering table fail that this gateway's agent asks for; the kernel's go on."""
    program = stand_ins(lab.folder, lab.agents[gateway].name) / "nft"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(
        "#!/bin/sh\necho 'Error: Could not process rule: Device or resource busy' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    try:
        yield
    finally:
        program.unlink()


def flush_nftables(host: Host) -> None:
    """Remove every table of the host, as the reload of a firewall does."""
    _nft(host, "flush ruleset")


@contextmanager
def no_room(process: Process) -> Iterator[None]:
    """Make every write of this process fail that would make a file longer, as on a full disk."""
    pid = str(process.pid)
    subprocess.run(["prlimit", "--pid", pid, "--fsize=0:unlimited"], check=True)
    try:
        yield
    finally:
        subprocess.run(["prlimit", "--pid", pid, "--fsize=unlimited:unlimited"], check=False)


def lose_the_engine(lab: Lab) -> None:
    """Delete the engine's database as if its disk had died, and start it with nothing in it."""
    lab.engine.kill()
    for file in lab.engine.folder.glob("engine.sqlite*"):
        file.unlink()
    lab.engine.process.start()


def _nft(host: Host, rules: str) -> None:
    command = ["nsenter", f"--net=/run/netns/{host.namespace}", "nft", "-f", "-"]
    done = subprocess.run(command, input=rules, text=True, capture_output=True, check=False)
    if done.returncode:
        raise Unavailable(f"nft in {host.namespace}: {done.stderr.strip()}")
