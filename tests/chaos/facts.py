"""What is true of a lab's gateways, read from kernel, processes and journals; nobody is asked."""

import asyncio
import json
import re
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from activities.drivers.runtime.host.process import Process
from deploy.lab.lab import Lab
from policies.model.plan import ReleaseRef

_LOGGED_IN = re.compile(rb"auth init for user 'user-")
_STARTED = re.compile(rb"main: initialized ")
LOGINS_END_WITHIN = 1.0
"""Seconds in which logins end that began before new sessions went elsewhere."""
Marks = Mapping[str, int]
"""How long the log of each slot's daemon was at some moment."""


@dataclass(frozen=True)
class Serves:
    """Where a gateway's new sessions go: slots by the kernel's table, what runs there by /proc.

    `permanent` is None unless the table names exactly one slot. `split` says that the table asks
    who somebody is before it sends him to the slot on trial, as it does for a share of the addresses.
    """

    permanent: str | None
    trial: str | None
    split: bool
    release: str | None
    executable: str | None
    process: Process | None

    def is_on(self, release: ReleaseRef) -> bool:
        """Say whether they go to this release, all of them and for good, and to the very program it names."""
        runs = (self.release, self.executable) == (release.digest, release.executable)
        return runs and self.permanent is not None and self.trial is None and not self.split


class Host:
    """One gateway's host as root sees it."""

    def __init__(self, lab: Lab, gateway: str) -> None:
        self.gateway = lab.fleet.gateway(gateway)
        self._root = lab.folder / "gateways" / gateway
        self._namespace = next(host.namespace for host in lab.topology.gateways if host.name == gateway)

    async def serves(self) -> Serves:
        """Return where new sessions go."""
        command = ("nsenter", f"--net=/run/netns/{self._namespace}", "nft", "-j", "list", "table", "inet")
        nft = await asyncio.create_subprocess_exec(*command, "penstock", stdout=PIPE, stderr=DEVNULL)
        said, _ = await nft.communicate()
        slots = {slot.port: slot.name for slot in self.gateway.slots}
        listed = [entry["map"] for entry in json.loads(said)["nftables"] if "map" in entry]
        maps = {found["name"]: found for found in listed}
        permanent, trial = (slots.get(_target(maps[name])) for name in ("steer", "trial"))
        slot = self._root / "slots" / str(trial or permanent)
        running = _running(slot)
        return Serves(
            permanent=permanent,
            trial=trial,
            split=b'"jhash"' in said,
            release=_release(slot),
            executable=running.executable if running else None,
            process=running,
        )

    def marks(self) -> Marks:
        """Return how long the daemons' logs are now."""
        return {name: log.stat().st_size for name, log in self._logs().items()}

    def logins(self, since: Marks | None = None) -> Counter[str]:
        """Return how often somebody has begun to log in on each slot, by the daemons' own logs."""
        return self._said(_LOGGED_IN, since or {})

    def starts(self, since: Marks | None = None) -> Counter[str]:
        """Return how often an instance has come up in each slot, by the daemons' own logs."""
        return self._said(_STARTED, since or {})

    def _said(self, words: re.Pattern[bytes], since: Marks) -> Counter[str]:
        found: Counter[str] = Counter()
        for name, log in self._logs().items():
            with log.open("rb") as file:
                file.seek(since.get(name, 0))
                found[name] = len(words.findall(file.read()))
        return +found

    def _logs(self) -> dict[str, Path]:
        logs = {slot.name: self._root / "slots" / slot.name / "log" for slot in self.gateway.slots}
        return {name: log for name, log in logs.items() if log.exists()}

    def sessions(self, slot: str | None, addresses: Collection[str]) -> int:
        """Return how many of these addresses inside tunnels are of that slot's instance."""
        pools = [found.pool4 for found in self.gateway.slots if found.name == slot]
        return sum(ip_address(address) in pool for pool in pools for address in addresses if address)

    def journal(self) -> list[dict[str, Any]]:
        """Return the journal's whole lines."""
        lines = (self._root / "journal.jsonl").read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Effects:
    """What a change did to one gateway: instances that came up, and where new sessions went in turn."""

    starts: Mapping[str, int]
    targets: tuple[str, ...]
    slots: tuple[str, ...]
    """Where the change's own start steps say that they left the release."""

    def doubled(self, *, back: bool) -> list[str]:
        """Return in words what happened more often than once."""
        found = [f"slot {slot} was started {count} times" for slot, count in self.starts.items() if count > 1]
        if sum(self.starts.values()) > 1:
            found.append(f"instances were started in {', '.join(sorted(self.starts))}")
        if len(self.slots) > 1:
            found.append(f"the start step ended in slots {' and '.join(self.slots)}")
        if len(self.targets) > (2 if back else 1):
            found.append(f"new sessions went to {', then '.join(self.targets)}")
        return found


def effects(host: Host, changes: Collection[str], before: Serves, marks: Marks) -> Effects:
    """Return what was done for these changes since `before`, when the logs were so long."""
    targets, slots = [before.permanent], []
    for line in host.journal():
        if line["rollout"] not in changes or line["kind"] != "result":
            continue
        result = line["result"]
        if line["step"] == "start" and result["slot"] not in slots:
            slots.append(result["slot"])
        if "serving" in result and (target := result["trial"] or result["serving"]) != targets[-1]:
            targets.append(target)
    return Effects(dict(host.starts(marks)), tuple(str(target) for target in targets[1:]), tuple(slots))


def _target(content: dict[str, Any]) -> int:
    """Return the one port that a steering map leads to; 0 for an empty map, and for one with several."""
    elements = content.get("elem", [])
    return int(elements[0][1]) if len(elements) == 1 else 0


def _release(slot: Path) -> str | None:
    try:
        digest: str = json.loads((slot / "state.json").read_text())["release"]["digest"]
    except (OSError, ValueError, KeyError):
        return None
    return digest


def _running(slot: Path) -> Process | None:
    try:
        boot, stat = (slot / "launched").read_text().splitlines()[:2]
        found = Process(int(stat.split()[0]), int(stat.rpartition(")")[2].split()[19]), boot)
    except (OSError, ValueError, IndexError):
        return None
    return found if found.alive else None
