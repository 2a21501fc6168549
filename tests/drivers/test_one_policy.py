"""One gate policy for every daemon: each of its questions is answered by each daemon's own exporter."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.drivers.metrics.prometheus import PrometheusSource
from activities.files import load
from policies.judge.counts import Series
from policies.model.gates import GatePolicy
from tests.drivers.exporter_process import PORT, Exporter, exporters, pings  # noqa: F401 - fixtures
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
from tests.fakes.prometheus import PROGRAM, prometheus_over
from tests.patience import until

MISSING = None if PROGRAM else "prometheus is not installed here"
MISSING = MISSING or why_no_openvpn() or why_no_strongswan()
pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
    pytest.mark.sweep,  # that each series has somebody who makes it is tested with the monitoring kit
]
POLICY = Path(__file__).parents[2] / "deploy/prometheus/gates.yaml"
OF_ALERTS = "ALERTS{"
"""What Prometheus itself makes of a fleet's own rules: no exporter has it, and none firing is none there."""
TARGET = f"127.0.0.1:{PORT}"
TUNNELS = tuple(f"vpngw_tunnel_{what}_total{{$cohort}}" for what in ("bytes", "packets", "errors", "drops"))
"""What the board shows beside what gates ask."""


def selectors(part: Any) -> Iterator[str]:
    """Yield everything that a policy asks Prometheus for."""
    if isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for each in part:
            yield from selectors(each)
    elif isinstance(part, str) and "$cohort" in part and not part.startswith(OF_ALERTS):
        yield part


async def one_session(lab: GatewayLab, exporters: list[Exporter]) -> dict[str, list[float]]:  # noqa: F811
    """Have one user log in; return the last values by each question, once the user is seen in them."""
    slot = await lab.running("1")
    await lab.table.make_permanent(operation("serve"), slot)
    exporters.append(exporter := Exporter(lab, tunnels=True))
    sessions = "vpngw_sessions", slot, ""
    await exporter.until(lambda shown: shown.get(sessions) == 0)
    await lab.client(1).up()
    asked = ("vpngw_tunnel_probes_total", slot, "")
    counted = ("vpngw_first_attempts_total", slot, "ok")
    await exporter.until(
        lambda shown: shown.get(sessions) == 1 and shown.get(asked) == 1 and shown.get(counted) == 1
    )
    policy = load(POLICY, GatePolicy)
    wanted = sorted({*selectors(policy.model_dump()), *TUNNELS})
    with prometheus_over([TARGET]) as prometheus:
        await prometheus.start()
        source = PrometheusSource(prometheus.url)
        found: dict[str, tuple[Series, ...]] = {}

        async def are_answered() -> bool:
            nonlocal found
            now, back = datetime.now(UTC), timedelta(seconds=5)
            found = {one: await source.raw(one, [TARGET], now, back) for one in wanted}
            return all(found.values())

        try:
            await until(are_answered, found=lambda: [one for one, said in found.items() if not said])
        finally:
            source.close()
    return {one: [series.samples[-1][1] for series in said] for one, said in found.items()}


def require_numbers(found: dict[str, list[float]]) -> None:
    assert all(math.isfinite(value) for values in found.values() for value in values)
    assert found["vpngw_sessions{$cohort}"] == [1]
    assert sum(found["vpngw_first_attempts_total{$cohort}"]) == 1
    assert sum(found["vpngw_handshake_seconds_bucket{$cohort}"]) > 0
    assert found["vpngw_probe_success{$cohort}"] == [1]
    assert found["vpngw_tunnel_probe_lossy_total{$cohort}"] == [0]
    assert sum(found["vpngw_tunnel_packets_total{$cohort}"]) > 0


async def test_every_question_of_the_policy_is_answered_of_ocserv(
    lab: GatewayLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
    pings: None,  # noqa: F811
) -> None:
    require_numbers(await one_session(lab, exporters))


async def test_every_question_of_the_policy_is_answered_of_openvpn(
    openvpn: OpenVpnLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
    pings: None,  # noqa: F811
) -> None:
    openvpn.gateway = openvpn.gateway.model_copy(update={"daemon": "openvpn"})
    require_numbers(await one_session(openvpn, exporters))


async def test_every_question_of_the_policy_is_answered_of_strongswan(
    strongswan: StrongSwanLab,  # noqa: F811
    exporters: list[Exporter],  # noqa: F811
    pings: None,  # noqa: F811
) -> None:
    require_numbers(await one_session(strongswan, exporters))
