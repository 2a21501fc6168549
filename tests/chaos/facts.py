"""What is true of a lab's gateways, read from kernel, processes and journals; nobody is asked."""

import asyncio
import json
import re
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activities.drivers.runtime.host.process import Process
from deploy.lab.lab import Lab
from policies.model.plan import ReleaseRef

_LOGGED_IN = re.compile(rb"auth init for user 'user-")
_STARTED = re.compile(rb"main: initialized ")


@dataclass(frozen=True)
class Serves:
    """Where a gateway's new sessions go: slots by the kernel's table, what runs there by /proc."""

    permanent: str | None
    trial: str | None
    release: str | None
    executable: str | None

    def is_on(self, release: ReleaseRef) -> bool:
        """Say whether they go to this release, for good, and to the very program it names."""
        return self.trial is None and (self.release, self.executable) == (release.digest, release.executable)


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
        return Serves(permanent, trial, _release(slot), running.executable if running else None)

    def logins(self) -> Counter[str]:
        """Return how often somebody has begun to log in on each slot, by the daemons' own logs."""
        return self._said(_LOGGED_IN)

    def starts(self) -> Counter[str]:
        """Return how often an instance has come up in each slot, by the daemons' own logs."""
        return self._said(_STARTED)

    def _said(self, words: re.Pattern[bytes]) -> Counter[str]:
        logs = {slot.name: self._root / "slots" / slot.name / "log" for slot in self.gateway.slots}
        return Counter(
            {name: len(words.findall(log.read_bytes())) for name, log in logs.items() if log.exists()}
        )

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


def effects(host: Host, rollout: str, before: Serves, starts: Counter[str]) -> Effects:
    """Return what was done for this rollout since `before`, when so many instances had come up."""
    targets, slots = [before.permanent], []
    for line in host.journal():
        if line["rollout"] != rollout or line["kind"] != "result":
            continue
        result = line["result"]
        if line["step"] == "start" and result["slot"] not in slots:
            slots.append(result["slot"])
        if "serving" in result and (target := result["trial"] or result["serving"]) != targets[-1]:
            targets.append(target)
    since = host.starts() - starts
    return Effects(dict(since), tuple(str(target) for target in targets[1:]), tuple(slots))


def _target(content: dict[str, Any]) -> int:
    """Return the port a steering map leads to; 0 for an empty one."""
    elements = content.get("elem", [])
    return int(elements[0][1]) if elements else 0


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
