"""The exporter with the rights that its packaged unit leaves it, beside every daemon."""

import os
from pathlib import Path

import pytest

from tests.drivers.exporter_process import Exporter, exporters  # noqa: F401 - fixtures
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
from tests.drivers.openvpn_lab import why_not_here as why_no_openvpn
from tests.drivers.strongswan_lab import StrongSwanLab
from tests.drivers.strongswan_lab import why_not_here as why_no_strongswan

pytestmark = ON_A_REAL_GATEWAY

UNIT = Path("deploy/debian/penstock-agent/lib/systemd/system/penstock-exporter.service")
(RIGHTS,) = (
    line.partition("=")[2]
    for line in UNIT.read_text().splitlines()
    if line.startswith("CapabilityBoundingSet=")
)
NOBODY = 65534
"""Whose control socket ocserv makes it, unless its configuration names another user."""
SESSIONS = "vpngw_sessions"


async def exports_sessions(
    lab: GatewayLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
    socket: str,
) -> None:
    """Give the control socket to another user, and wait until the exporter reports the daemon's sessions."""
    slot = await lab.running("1.1.6")
    await lab.table.make_permanent(operation("serve"), slot)
    control = lab.folders.of(slot).chroot.run / socket
    os.chown(control, NOBODY, NOBODY)
    control.chmod(0o711)
    exporters.append(exporter := Exporter(lab, capabilities=RIGHTS))
    await exporter.until(lambda shown: shown.get((SESSIONS, slot, "")) == 0)


@pytest.mark.sweep
async def test_the_packaged_exporter_reads_sessions_at_an_occtl_socket_of_another_user(
    lab: GatewayLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
) -> None:
    """newcomer 1: the unit's rights did not reach ocserv's socket, which belongs to nobody."""
    await exports_sessions(lab, exporters, "occtl.sock")


@pytest.mark.sweep
@pytest.mark.skipif(why_no_openvpn() is not None, reason=why_no_openvpn() or "")
async def test_the_packaged_exporter_reads_sessions_at_a_management_socket_of_another_user(
    openvpn: OpenVpnLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
) -> None:
    """newcomer 1: the same of OpenVPN."""
    await exports_sessions(openvpn, exporters, "management.sock")


@pytest.mark.sweep
@pytest.mark.skipif(why_no_strongswan() is not None, reason=why_no_strongswan() or "")
async def test_the_packaged_exporter_reads_sessions_at_a_vici_socket_of_another_user(
    strongswan: StrongSwanLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
) -> None:
    """newcomer 1: the same of charon."""
    await exports_sessions(strongswan, exporters, "charon.vici")


@pytest.mark.sweep
async def test_the_journal_names_a_daemon_that_does_not_report_its_sessions_and_the_cause(
    lab: GatewayLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
) -> None:
    """newcomer 1: the exporter left the series out without a word."""
    slot = await lab.running("1.1.6")
    await lab.table.make_permanent(operation("serve"), slot)
    control = lab.folders.of(slot).chroot.run / "occtl.sock"
    away = control.with_suffix(".away")
    control.rename(away)
    exporters.append(exporter := Exporter(lab))
    silent = f"ocserv in slot {slot} does not report its sessions"
    shown = await exporter.until(lambda _: silent in exporter.log.read_text())
    assert (SESSIONS, slot, "") not in shown
    (line,) = (line for line in exporter.log.read_text().splitlines() if silent in line)
    assert "so vpngw_sessions of that slot is not exported" in line
    assert "No such file or directory" in line
    away.rename(control)
    await exporter.until(lambda shown: (SESSIONS, slot, "") in shown)
    assert "reports its sessions again" in exporter.log.read_text()
