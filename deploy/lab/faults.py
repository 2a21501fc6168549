"""Accidents on demand: what can happen to the parts of a lab, and how each is mended.

Every accident is the real one: SIGKILL, SIGSTOP, packets dropped in the hub, files that may
not grow. The daemons that carry sessions are never touched.
"""

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from pathlib import Path

from deploy.lab import namespaces
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


def no_room_on(lab: Lab, gateway: str) -> AbstractContextManager[None]:
    """Have the disk of this gateway's agent full."""
    return no_room(lab.agents[gateway])


FAULT = "penstock_fault"
"""The table of a gateway in which a fault drops packets."""
_DROPS = """
table inet {name} {{
  chain {hook} {{
    type filter hook {hook} priority 0; {rule}
  }}
}}
"""


@contextmanager
def forwards_nothing(host: Host) -> Iterator[None]:
    """Have the gateway's kernel forward no IPv4 packets, as after a sysctl that was lost with a reboot."""
    setting = Path("/proc/sys/net/ipv4/ip_forward")
    with namespaces.inside(host.namespace):
        setting.write_text("0")
    try:
        yield
    finally:
        with namespaces.inside(host.namespace):
            setting.write_text("1")


@contextmanager
def drops_forwarded(host: Host) -> Iterator[None]:
    """Have a firewall's own chain drop whatever is forwarded."""
    _nft(host, _DROPS.format(name=FAULT, hook="forward", rule="policy drop;"))
    try:
        yield
    finally:
        _nft(host, f"delete table inet {FAULT}")


@contextmanager
def swallows_large(host: Host) -> Iterator[None]:
    """Swallow large pings that come out of tunnels, and say so to nobody."""
    rule = 'iifname "vpn*" meta length > 1000 icmp type echo-request drop;'
    _nft(host, _DROPS.format(name=f"{FAULT}_size", hook="input", rule=rule))
    try:
        yield
    finally:
        _nft(host, f"delete table inet {FAULT}_size")


@contextmanager
def no_accounts(lab: Lab) -> Iterator[None]:
    """Let no gateway know anybody: the lists that every instance asks are empty for a while."""
    lists = list(lab.folder.glob("gateways/*/slots/*/conf/credentials/users*"))
    before = {path: path.read_text() for path in lists}
    try:
        for path in lists:
            overwrite(path, "nobody:*:!\n")
        yield
    finally:
        for path, content in before.items():
            if path.exists():
                overwrite(path, content)


def overwrite(path: Path, content: str) -> None:
    """Write in place: the file that a running instance has in its own mounts stays the same one."""
    with path.open("r+") as file:
        file.write(content)
        file.truncate()


ALTERED = 3
"""The number of the entry that somebody changes."""

ZEROED = bytes(16) + b"\n"
"""What a crash of a host leaves of a line that was not on the disk yet."""


_KEEPERS = "select name, sql from sqlite_master where name like 'audit_no_%'"
"""The triggers by which the database itself refuses to change an entry."""


@contextmanager
def altered_audit(lab: Lab) -> Iterator[None]:
    """Change an entry of the record as an administrator of the database could, and back at the end."""
    ledger = str(lab.ledger_file)
    before = _set_entry(ledger, None)
    _set_entry(ledger, "somebody-else")
    try:
        yield
    finally:
        _set_entry(ledger, before)


@contextmanager
def checkpoint_zeroed(lab: Lab) -> Iterator[None]:
    """Have the file of checkpoints end in zeros; without them again at the end, if nobody mended it."""
    path = lab.installation.settings.audit_checkpoints
    with path.open("ab") as file:
        file.write(ZEROED)
    try:
        yield
    finally:
        path.write_bytes(path.read_bytes().removesuffix(ZEROED))


def _set_entry(ledger: str, person: str | None) -> str:
    """Ensure who acted, as the entry says, without the triggers that forbid it; return who it said."""
    with sqlite3.connect(ledger, timeout=10) as book:
        row = book.execute("select person from audit where seq = ?", (ALTERED,)).fetchone()
        if person is not None:
            found = book.execute(
                "select name, sql from sqlite_master where name like 'audit_no_%'"
            ).fetchall()
            for name, _ in found:
                book.execute(f'drop trigger "{name}"')
            book.execute("update audit set person = ? where seq = ?", (person, ALTERED))
            for _, made in found:
                book.execute(made)
    book.close()
    said: str = row[0]
    return said


@contextmanager
def orchestrator_stopped(lab: Lab) -> Iterator[None]:
    """Stop whatever writes to the ledger; at the end there is one, whatever became of it, and they start.

    Somebody may move the ledger away meanwhile and restore a backup in its place.
    """
    kept = lab.folder / "ledger-of-before"
    kept.mkdir()
    _stop_all(lab)
    for file in _ledger_files(lab):
        shutil.copy2(file, kept / file.name)
    try:
        yield
    finally:
        if not lab.ledger_file.exists():
            for copy in kept.iterdir():
                shutil.copy2(copy, lab.ledger_file.with_name(copy.name))
        shutil.rmtree(kept)
        _start_all(lab)


@contextmanager
def ledger_lost(lab: Lab) -> Iterator[None]:
    """Lose the ledger and its checkpoints with a disk: all start with an empty one, and the end undoes it.

    Who was revoked or given a token meanwhile is not, after that.
    """
    checkpoints = lab.installation.settings.audit_checkpoints
    lost = lab.folder / "lost-disk"
    lost.mkdir()
    _stop_all(lab)
    moved = {file: lost / file.name for file in (*_ledger_files(lab), checkpoints) if file.exists()}
    for file, there in moved.items():
        file.rename(there)
    _start_all(lab)
    try:
        yield
    finally:
        _stop_all(lab)
        for file in (*_ledger_files(lab), checkpoints):
            file.unlink(missing_ok=True)
        for file, there in moved.items():
            there.rename(file)
        lost.rmdir()
        _start_all(lab)


def _stop_all(lab: Lab) -> None:
    """End who writes to the ledger, and let go of it here."""
    for one in (lab.worker, lab.relay, lab.api):
        one.stop()
    lab.installation.ledger.close()


def _start_all(lab: Lab) -> None:
    for one in (lab.api, lab.relay, lab.worker):
        one.start()


def _ledger_files(lab: Lab) -> list[Path]:
    """Return the database and what SQLite keeps beside it."""
    return sorted(lab.ledger_file.parent.glob(f"{lab.ledger_file.name}*"))


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
