"""The exporter as a process of its own beside real instances with real users."""

import asyncio
import signal
import time
from datetime import timedelta
from urllib.request import urlopen

import pytest

from activities.drivers.metrics.tunnel_probes import PINGS
from activities.drivers.runtime.host.process import digest_of_file
from tests.drivers.exporter_process import Exporter, exporters, pings  # noqa: F401 - fixtures
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    built_lab,
    built_node,
    lab,
    node,
)
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.halted import halt
from tests.drivers.node_lab import NodeLab
from tests.patience import PATIENCE

pytestmark = ON_A_REAL_GATEWAY

MOST_RESIDENT = 96 << 20


def logins(slot: str, outcome: str = "ok") -> tuple[str, str, str]:
    return ("vpngw_first_attempts_total", slot, outcome)


async def serving(lab: GatewayLab, version: str) -> str:  # noqa: F811
    slot = await lab.running(version)
    await lab.table.make_permanent(operation("serve"), slot)
    return slot


@pytest.mark.sweep
async def test_users_sessions_probe_and_steering_are_shown_as_they_are(
    lab: GatewayLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
    pings: None,  # noqa: F811
) -> None:
    slot = await serving(lab, "1.1.6")
    exporter = Exporter(lab, tunnels=True)
    exporters.append(exporter)
    build, sessions = ("vpngw_build_info", slot, "1.1.6"), ("vpngw_sessions", slot, "")
    shown = await exporter.until(lambda s: s.get(build) == 1 and s.get(sessions) == 0)
    assert shown["vpngw_probe_success", slot, ""] == 1
    assert shown[logins(slot)] == 0

    for number in (1, 2):
        await lab.client(number).up()
    shown = await exporter.until(lambda s: s.get(sessions) == 2 and s.get(logins(slot)) == 2)
    assert shown["vpngw_handshake_seconds_count", slot, ""] == 2
    assert shown["vpngw_process_open_fds", slot, ""] > 10
    shown = await exporter.until(lambda s: s.get(("vpngw_tunnel_probes_total", slot, "")) == 2)
    assert shown["vpngw_tunnel_probe_lossy_total", slot, ""] == 0
    shown = await exporter.until(lambda s: s.get(("vpngw_tunnel_packets_total", slot, ""), 0) >= 2 * PINGS)
    assert shown["vpngw_tunnel_bytes_total", slot, ""] > 0
    assert shown["vpngw_certificate_expiry_seconds", slot, ""] > time.time()
    assert exporter.resident() < MOST_RESIDENT

    trial = await lab.running("1.1.6-2")
    await lab.table.start_trial(operation("trial"), trial, timedelta(seconds=60))
    new_build = ("vpngw_build_info", trial, "1.1.6-2")
    shown = await exporter.until(lambda s: s.get(new_build) == 1)
    assert build not in shown
    assert shown[sessions] == 2


@pytest.mark.sweep
async def test_the_digest_shown_is_the_running_executables(
    lab: GatewayLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
) -> None:
    slot = await serving(lab, "1.1.6")
    exporter = Exporter(lab)
    exporters.append(exporter)
    await exporter.until(lambda s: ("vpngw_build_info", slot, "1.1.6") in s)
    text = await asyncio.to_thread(lambda: urlopen(exporter.url, timeout=PATIENCE).read().decode())
    assert f'digest="{digest_of_file(lab.admission.tree / "usr/sbin/ocserv")}"' in text


@pytest.mark.sweep
async def test_a_killed_exporter_comes_back_without_counting_anybody_twice(
    lab: GatewayLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
) -> None:
    slot = await serving(lab, "1.1.6")
    first = Exporter(lab)
    exporters.append(first)
    await first.until(lambda s: logins(slot) in s)
    await lab.client(1).up()
    await first.until(lambda s: s.get(logins(slot)) == 1)
    first.kill()
    await lab.client(2).up()
    second = Exporter(lab)
    exporters.append(second)
    shown = await second.until(lambda s: s.get(logins(slot), 0) >= 1)
    assert shown[logins(slot)] == 1
    assert shown["vpngw_handshake_seconds_count", slot, ""] == 0


@pytest.mark.sweep
async def test_a_frozen_daemon_has_unknown_sessions_and_a_failing_probe(
    lab: GatewayLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
) -> None:
    slot = await serving(lab, "1.1.6")
    exporter = Exporter(lab)
    exporters.append(exporter)
    sessions, probe = ("vpngw_sessions", slot, ""), ("vpngw_probe_success", slot, "")
    await exporter.until(lambda s: s.get(sessions) == 0 and s.get(probe) == 1)
    process = lab.folders.of(slot).process()
    assert process
    await halt(process.pid)
    try:
        await exporter.until(lambda s: s.get(probe) == 0 and sessions not in s)
    finally:
        process.tell(signal.SIGCONT)


@pytest.mark.sweep
async def test_nothing_is_left_to_say_of_an_instance_that_died(
    lab: GatewayLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
) -> None:
    slot = await serving(lab, "1.1.6")
    exporter = Exporter(lab)
    exporters.append(exporter)
    await exporter.until(lambda s: ("vpngw_build_info", slot, "1.1.6") in s)
    process = lab.folders.of(slot).process()
    assert process
    process.tell(signal.SIGKILL)
    of_the_host = ("vpngw_boot_info", "vpngw_interface_", "vpngw_tunnel_", "vpngw_certificate_")
    await exporter.until(lambda s: all(name.startswith(of_the_host) for name, _, _ in s))


@pytest.mark.sweep
async def test_a_nodes_exporter_counts_by_socket_and_log_and_says_nothing_of_a_pod_that_nobody_proved(
    node: NodeLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
) -> None:
    slot = await serving(node, "1.1.6")
    exporter = Exporter(node)
    exporters.append(exporter)
    build, sessions = ("vpngw_build_info", slot, "1.1.6"), ("vpngw_sessions", slot, "")
    await exporter.until(lambda s: s.get(build) == 1 and s.get(sessions) == 0)
    for number in (1, 2):
        await node.client(number).up()
    shown = await exporter.until(lambda s: s.get(sessions) == 2 and s.get(logins(slot)) == 2)
    assert shown["vpngw_handshake_seconds_count", slot, ""] == 2
    assert shown["vpngw_process_start_time_seconds", slot, ""] <= time.time()
    assert ("vpngw_process_resident_memory_bytes", slot, "") not in shown
    exporter.kill()
    exporters.append(again := Exporter(node))
    shown = await again.until(lambda s: s.get(sessions) == 2)
    assert shown[logins(slot)] == 0
    await node.kubelet.lose(slot)
    await node.kubelet.place(slot)
    await again.until(lambda s: sessions not in s and build not in s)
