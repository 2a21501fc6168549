"""A fleet's own openvpn_exporter is read: a recorded page of it, a real Prometheus, the job of our page."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from activities.drivers.metrics.prometheus import PrometheusSource
from activities.drivers.metrics.replicas import Replicas
from orchestrator.service import traffic
from orchestrator.service.standing import UNKNOWN_RELEASE
from orchestrator.service.traffic import TrafficService
from orchestrator.store.ledger import Ledger
from policies.judge.counts import Series, planned
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.verdict import Cohorts
from policies.traffic import Traffic
from tests.drivers.test_prometheus import page, server
from tests.fakes.ledgers import new_ledger
from tests.fakes.prometheus import PROGRAM, prometheus_of
from tests.patience import until
from tests.unit.fleets import fleet, gateway

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed here")

PAGE = Path(__file__).with_name("logs") / "openvpn-exporter-1.2.4.txt"
OURS = b'vpngw_sessions{slot="a",digest="sha256:1"} 7\n'
WHO = "127.0.0.1:9500"
SESSIONS = "openvpn_server_connected_clients{$cohort}"
SECTION = (
    (Path(__file__).parents[2] / "docs/openvpn.md").read_text().partition("## An openvpn_exporter that")[2]
)


def shown(number: int) -> dict[str, Any]:
    found = re.findall(r"^```yaml\n(.+?)^```$", SECTION.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    return dict(yaml.safe_load(found[number]))


def users() -> Fleet:
    return fleet(gateway("gw-1").model_copy(update={"addresses": (ip_address("127.0.0.1"),)}))


@pytest_asyncio.fixture
async def source(request: pytest.FixtureRequest) -> AsyncIterator[PrometheusSource]:
    """Prometheus over that page, by the job of our page."""
    (job,) = shown(0)["scrape_configs"]
    content = PAGE.read_bytes() + (OURS if getattr(request, "param", False) else b"")
    with (
        server(page(content)) as url,
        prometheus_of(
            [{"targets": [url.removeprefix("http://")]}],
            "1s",
            {key: job[key] for key in ("job_name", "relabel_configs", "metric_relabel_configs")},
        ) as prometheus,
    ):
        await prometheus.start()
        found = PrometheusSource(prometheus.url)
        await scraped(found)
        yield found
        found.close()


async def scraped(source: PrometheusSource) -> None:
    """Wait until something is there for as long as it takes to be counted."""

    async def is_read() -> bool:
        return any(len(one.samples) > 3 for one in await read(source, SESSIONS))

    await until(is_read)


async def read(source: PrometheusSource, selector: str) -> tuple[Series, ...]:
    return await source.raw(selector, [WHO], datetime.now(UTC), timedelta(seconds=30))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sessions counted each second: by steps of 15 s nothing is there for so long."""
    monkeypatch.setattr(traffic, "STEP", timedelta(seconds=1))


async def counted(source: PrometheusSource, tmp_path: Path) -> Traffic:
    ledger = Ledger.open(new_ledger(tmp_path / "ledger.db"))
    try:
        return await TrafficService(ledger, Replicas([source])).of(users(), None)
    finally:
        ledger.close()


async def test_its_clients_are_the_sessions_of_a_gateway_that_we_do_not_count_yet(
    source: PrometheusSource, tmp_path: Path
) -> None:
    found = await counted(source, tmp_path)
    assert (found.seen, found.gateways, found.unknown) == (1, 1, "")
    assert [(one.version, one.sessions) for one in found.releases] == [(UNKNOWN_RELEASE, 2)]


@pytest.mark.sweep
@pytest.mark.parametrize("source", [True], ids=["beside ours"], indirect=True)
async def test_where_we_count_ourselves_nobody_is_counted_twice(
    source: PrometheusSource, tmp_path: Path
) -> None:
    found = await counted(source, tmp_path)
    assert [one.sessions for one in found.releases] == [7]


@pytest.mark.sweep
async def test_a_gate_that_asks_it_is_told_of_the_slot_on_trial_alone(source: PrometheusSource) -> None:
    policy = GatePolicy.model_validate(shown(1))
    assert policy.gates[0].model_dump()["per"] == SESSIONS
    found = await read(source, SESSIONS)
    values = {
        slot: [
            one.samples[-1][1]
            for one in planned(found, Cohorts(canary=(WHO,), control=(), slots={WHO: slot}), "digest")
        ]
        for slot in "ab"
    }
    assert values == {"a": [2.0], "b": [0.0]}
