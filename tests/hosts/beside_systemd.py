"""The parts of an agent with this checkout's code, beside the systemd of a booted host.

`on(host, …)` runs them in the host's network, processes and control groups, with this machine's own files:
`python -m tests.hosts.beside_systemd FOLDER STEP…` is what runs there, made anew for each call as an agent
is that was just started.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from activities.snapshots import Evidence
from policies.model.adoption import ADOPTED
from policies.model.errors import Refused
from policies.model.plan import ReleaseRef
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.hosts.host import Host

# The socket by which systemctl speaks to systemd, and the journal, are the host's; a program that sees
# another root than that of process 1 would take itself for one in a chroot.
_BESIDE = """set -e
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
for one in run/systemd run/log var/log/journal; do ln -s "/proc/1/root/$one" "/$one"; done
cat /proc/1/root/etc/machine-id >/run/machine-id
mount --bind /run/machine-id /etc/machine-id
SYSTEMD_IGNORE_CHROOT=1 exec "$@"
"""


def on(host: Host, folder: Path, *steps: str) -> dict[str, Any]:
    """Return what the last of these steps found on the host, and what it wrote into the host's own record."""
    this = [sys.executable, "-m", __spec__.name, str(folder), *steps]
    told: dict[str, Any] = json.loads(host.beside("unshare", "--mount", "sh", "-c", _BESIDE, "sh", *this))
    return told


async def _take(lab: GatewayLab, step: str, epoch: int) -> None:
    match step:
        case "resume":
            await lab.slots.resume()
        case "adopt":
            await lab.adoption.adopt(operation(step, epoch=epoch), ())
        case "promote":
            slot = await lab.running("1", epoch)
            await lab.table.make_permanent(operation(step, epoch=epoch), slot)
        case "empty":
            await lab.slots.stop(operation(step, epoch=epoch), ADOPTED)
        case "hand back":
            await lab.slots.start(operation(step, epoch=epoch), _adopted(lab))
            await lab.table.make_permanent(operation(f"keep {step}", epoch=epoch), ADOPTED)
        case "follow":
            await lab.adoption.follow()
        case "freeze":
            digest = await lab.snapshots.freeze(operation(step, epoch=epoch), Evidence(reason="a test"))
            frozen = json.loads(lab.snapshots.read_frozen(digest))["slots"][ADOPTED]
            lab.record += [("config", str(frozen["config"])), ("log", frozen["log"])]
        case _:
            raise AssertionError(step)


def _adopted(lab: GatewayLab) -> ReleaseRef:
    folder = lab.folders.adopted
    assert folder is not None
    assert folder.release is not None
    return folder.release


async def _main(folder: Path, steps: list[str]) -> None:
    lab = GatewayLab(folder, "host")
    if lab.root.exists():
        lab.compose()
    else:
        lab.furnish()
    await lab.table.prime()
    refused = ""
    for step in steps:
        try:
            await _take(lab, step, lab.journal.epoch + 1)
        except Refused as error:
            refused = str(error)
    state = await lab.slots.observe()
    found = {"serving": state.steering.serving, "adopted": state.instance(ADOPTED).state, "refused": refused}
    print(json.dumps(found | {"record": lab.record}))


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2:]))
