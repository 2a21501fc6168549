"""The judge's commands over a real Prometheus filled with a past: backtest and calibration."""

import asyncio
import json
import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli.judge import app
from policies.model.errors import BadInput
from tests.fakes.prometheus import PROGRAM, RealPrometheus, prometheus_over

PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.skipif(
    not (PROGRAM and PROMTOOL), reason="prometheus and promtool are not both installed here"
)

POLICY = str(Path(__file__).parents[2] / "deploy/prometheus/gates.yaml")
GATEWAYS = [f"10.9.0.{n}:9500" for n in range(1, 6)]
SCRAPE, MINUTES, BROKEN_FROM = 15, 150, 120
START = int(datetime.now(UTC).timestamp()) // 60 * 60 - 12 * 3600
"""Twelve hours ago, on a whole minute; the first gateway fails half its logins in the last half hour."""


def logins(gateway: int) -> list[tuple[int, int, int]]:
    """Return (time, good, bad) counters of one gateway at thirty logins a minute."""
    chance, good, bad, rows = random.Random(gateway), 0, 0, []
    for tick in range(MINUTES * 60 // SCRAPE + 1):
        share = 0.5 if gateway == 0 and tick * SCRAPE >= BROKEN_FROM * 60 else 0.015
        failed = sum(chance.random() < share for _ in range(7))
        good, bad = good + 7 - failed, bad + failed
        rows.append((START + tick * SCRAPE, good, bad))
    return rows


def openmetrics() -> str:
    """Return everything the required gate reads, as promtool wants it."""
    families: dict[str, list[str]] = {"up": [], "vpngw_build_info": [], "vpngw_first_attempts": []}
    for number, name in enumerate(GATEWAYS):
        label = f'job="vpngw",instance="{name}"'
        for at, good, bad in logins(number):
            families["up"].append(f"up{{{label}}} 1 {at}")
            families["vpngw_build_info"].append(f'vpngw_build_info{{{label},digest="x"}} 1 {at}')
            for outcome, value in (("ok", good), ("auth_fail", bad)):
                families["vpngw_first_attempts"].append(
                    f'vpngw_first_attempts_total{{{label},outcome="{outcome}"}} {value} {at}'
                )
    lines = []
    for family, samples in families.items():
        kind = "counter" if family == "vpngw_first_attempts" else "gauge"
        lines += [f"# TYPE {family} {kind}", *samples]
    return "\n".join([*lines, "# EOF", ""])


@pytest.fixture(scope="module")
async def past(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealPrometheus]:
    """A Prometheus that remembers two and a half hours of five gateways."""
    text = tmp_path_factory.mktemp("past") / "past.txt"
    text.write_text(openmetrics())
    with prometheus_over(["127.0.0.1:1"], scrape="60s") as prometheus:
        fill = [
            str(PROMTOOL),
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            str(text),
            f"{prometheus.folder}/data",
        ]
        await asyncio.to_thread(subprocess.run, fill, check=True, capture_output=True)
        await prometheus.start()
        yield prometheus


async def run(*arguments: str) -> Any:
    """Run a judge command and return what it printed as JSON."""
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--output", "json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)["data"]


def at(minute: int) -> str:
    return datetime.fromtimestamp(START + 60 * minute, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def sides(canary: str) -> list[str]:
    others = [name for name in GATEWAYS if name != canary]
    return ["--canary", canary, *(word for name in others for word in ("--control", name))]


def only_logins(tmp_path: Path) -> str:
    """Return the shipped policy with its required gate alone: the past holds no more than that."""
    text = Path(POLICY).read_text()
    path = tmp_path / "gates.yaml"
    path.write_text(text.partition("  - id: auth-failure")[0])
    return str(path)


async def test_a_backtest_finds_a_past_drop_and_passes_a_past_calm(
    past: RealPrometheus, tmp_path: Path
) -> None:
    common = ["backtest", "--prometheus", past.url, "--policy", only_logins(tmp_path)]
    broken = await run(*common, *sides(GATEWAYS[0]), "--from", at(BROKEN_FROM - 5), "--minutes", "30")
    assert broken["decision"]["action"] == "roll_back"
    assert 300 < broken["seconds"] <= 300 + 120
    calm = await run(*common, *sides(GATEWAYS[1]), "--from", at(70), "--minutes", "40")
    assert calm["decision"]["action"] == "promote"
    assert calm["seconds"] >= 600


@pytest.mark.sweep
async def test_calibration_counts_the_placebo_rollouts_of_a_past(
    past: RealPrometheus, tmp_path: Path
) -> None:
    gateways = [word for name in GATEWAYS[1:] for word in ("--gateway", name)]
    common = ["calibrate", "--prometheus", past.url, "--policy", only_logins(tmp_path), "--minutes", "20"]
    (gate,) = await run(*common, *gateways, "--days", str(60 / 1440), "--to", at(MINUTES - 5))
    assert gate["windows"] == 3 * 4
    assert gate["rollbacks"] == 0
    assert gate["may_roll_back"]
    assert gate["events"] == pytest.approx(12 * 20 * 28, rel=0.05)


async def test_the_shipped_policy_promotes_nothing_on_a_past_that_lacks_its_metrics(
    past: RealPrometheus,
) -> None:
    common = ["backtest", "--prometheus", past.url, "--policy", POLICY]
    found = await run(*common, *sides(GATEWAYS[1]), "--from", at(70), "--minutes", "30")
    assert found["decision"]["action"] == "hold_for_human"
    assert found["decision"]["verdict"] == "metrics_unavailable"


async def test_calibration_of_one_gateway_is_refused(past: RealPrometheus) -> None:
    with pytest.raises(BadInput, match="at least twice"):
        await run("calibrate", "--prometheus", past.url, "--policy", POLICY, "--gateway", GATEWAYS[0])
