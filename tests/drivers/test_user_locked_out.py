"""A user is locked out as the runbook says, on a gateway with people: that user alone is gone, for good."""

import re
import subprocess
from pathlib import Path

import pytest

from activities.drivers.daemon.control import Asked
from activities.drivers.daemon.openvpn import management
from tests.drivers import openvpn_lab, strongswan_lab
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    built_lab,
    built_openvpn,
    built_strongswan,
    lab,
    openvpn,
    strongswan,
)
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.openvpn_lab import OpenVpnLab
from tests.drivers.strongswan_lab import StrongSwanLab
from tests.patience import PATIENCE, until

pytestmark = ON_A_REAL_GATEWAY

RUNBOOK = (Path(__file__).parents[2] / "runbooks/user-locked-out.md").read_text()
TAKE_OUT, DISCONNECT = re.findall(r"^# ((?:ocpasswd|occtl) .+)$", RUNBOOK, flags=re.MULTILINE)
LIST, TERMINATE = re.findall(r"`(swanctl [^`]+)`", RUNBOOK)
URI = "--uri unix:///var/lib/penstock/slots/a/run/charon.vici"


def typed(lab: GatewayLab, line: str) -> "subprocess.CompletedProcess[str]":  # noqa: F811
    """Type a line of the runbook on the gateway's host, about the user of the first client."""
    text = re.sub(r"\bben\b", "user1", line).replace("/var/lib/penstock", str(lab.root))
    text = text.replace("/etc/ocserv/passwd", str(lab.folder / "users"))
    return subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=PATIENCE, check=False)


async def test_a_user_who_was_taken_out_is_disconnected_and_let_in_no_more_and_nobody_else_is_touched(
    lab: GatewayLab,  # noqa: F811
) -> None:
    assert await lab.running("1") == "a"
    await lab.table.make_permanent(operation("keep"), "a")
    gone, stays = await lab.client(1).up(), await lab.client(2).up()
    stays.ping()
    assert typed(lab, TAKE_OUT).returncode == 0
    done = await lab.slots.reload(operation("reload"), older=False)
    assert (done.credentials, gone.alive) == (("users",), True)
    assert typed(lab, DISCONNECT).stdout == "user 'user1' was disconnected\n"
    await until(lambda: not gone.alive)
    again = lab.client(1)
    await until(lambda: not again.alive)
    assert not again.said(again.logged_in)
    assert "could not disconnect user" in (found := typed(lab, DISCONNECT)).stdout + found.stderr
    sent, lost = stays.lost()
    assert (sent > 5, lost, stays.alive) == (True, 0, True)


@pytest.mark.sweep
@pytest.mark.skipif(openvpn_lab.why_not_here() is not None, reason=openvpn_lab.why_not_here() or "")
async def test_the_command_for_openvpn_ends_the_sessions_of_that_common_name_alone(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    assert "run/management.sock`, then `kill ben`" in RUNBOOK
    assert await openvpn.running("1") == "a"
    await openvpn.table.make_permanent(operation("keep"), "a")
    gone, stays = await openvpn.client(1).up(), await openvpn.client(2).up()
    stays.ping()
    asked = Asked(openvpn.root / "slots/a/run", management.SOCKET)
    assert await management.ask(asked, "kill user1") == [
        ["SUCCESS: common name 'user1' found, 1 client(s) killed"]
    ]
    await gone.until(gone.logged_in, times=2)  # no list of revoked certificates keeps it out here
    assert stays.lost()[1] == 0


@pytest.mark.skipif(strongswan_lab.why_not_here() is not None, reason=strongswan_lab.why_not_here() or "")
async def test_the_commands_for_strongswan_end_that_session_alone(
    strongswan: StrongSwanLab,  # noqa: F811
) -> None:
    assert await strongswan.running("1") == "a"
    await strongswan.table.make_permanent(operation("keep"), "a")
    gone, stays = strongswan.client(1, close_action="none"), strongswan.client(2)
    await gone.up()
    await stays.up()
    stays.ping()
    listed = typed(strongswan, LIST).stdout
    found = re.search(r"#(\d+), ESTABLISHED(?:.*\n){1,4}?.*CN=user1", listed)
    assert found, listed
    line = f"{TERMINATE} {URI}".replace("NUMBER", found[1])
    assert "terminate completed successfully" in typed(strongswan, line).stdout
    await gone.until("deleting IKE_SA")
    assert stays.lost()[1] == 0
