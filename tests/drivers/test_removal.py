"""penstock leaves a gateway as its runbook says, with people on it: nobody may notice."""

import asyncio
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.patience import PATIENCE, until, wait_until

pytestmark = ON_A_REAL_GATEWAY

RUNBOOK = (Path(__file__).parents[2] / "runbooks/removal.md").read_text()
TYPED = re.findall(r"^# ((?:\w+=|printf|nft|occtl).+)$", RUNBOOK, flags=re.MULTILINE)
OWN = """
auth = "plain[passwd={secrets}/users]"
server-cert = {secrets}/gw.pem
server-key = {secrets}/gw.key
tcp-port = 443
udp-port = 443
device = own
ipv4-network = 10.90.100.0
ipv4-netmask = 255.255.255.0
socket-file = {folder}/own.sock
occtl-socket-file = {folder}/occtl.sock
use-occtl = true
pid-file = {folder}/own.pid
run-as-user = nobody
run-as-group = nogroup
isolate-workers = false
"""


def typed(lab: GatewayLab, *lines: str) -> str:  # noqa: F811
    """Type lines of the runbook on the gateway's host."""
    text = "\n".join(("set -e", *lines)).replace("/var/lib/penstock", str(lab.root))
    return subprocess.run(
        ["sh", "-c", text], capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout


@contextmanager
def own_daemon(lab: GatewayLab) -> Iterator[Path]:  # noqa: F811
    """The socket of another daemon on the users' port, which nobody reaches yet."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)  # its workers are nobody
        (folder / "conf").write_text(OWN.format(folder=folder, secrets=lab.folder))
        (folder / "log").touch()
        command = ["ip", "netns", "exec", lab.namespace, "ocserv", "-f", "-c", str(folder / "conf")]
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until((folder / "occtl.sock").exists, found=(folder / "log").read_text)
            yield folder / "occtl.sock"
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE)


async def test_a_gateway_is_given_to_another_daemon_without_a_lost_ping(
    lab: GatewayLab,  # noqa: F811
) -> None:
    assert await lab.running("1") == "a"
    await lab.table.make_permanent(operation("keep"), "a")
    with own_daemon(lab) as own:
        await removed(lab, own)


async def removed(lab: GatewayLab, own: Path) -> None:  # noqa: F811
    """Type the runbook beside the daemon that takes over, with people on both."""
    socket, pins, switch, delete, stop = TYPED

    async def empty() -> bool:
        return await lab.folders.count("a") == 0

    people = [await lab.client(number).up() for number in (1, 2)]
    people[1].ping("a")
    typed(lab, socket, pins, switch)
    newcomer = await lab.client(3).up()
    people[0].reconnect()
    await people[0].until("Established DTLS", times=2)
    assert [await lab.home_of(number) for number in (1, 2)] == ["a", "a"]
    assert "user3" in typed(lab, f"occtl -s {own} show users")
    await asyncio.sleep(1)
    sent, lost = people[1].lost()
    assert sent > 20
    assert lost == 0
    for person in people:
        await person.leave()
    await until(empty)
    assert len(lab.daemons()) == 2
    typed(lab, socket, delete, stop)
    await until(lambda: len(lab.daemons()) == 1)
    assert "penstock" not in typed(lab, "nft list tables")
    assert newcomer.alive
