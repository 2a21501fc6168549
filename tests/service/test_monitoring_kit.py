"""The monitoring kit: every file is what its program understands, and every series in it has a producer."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest

from activities.drivers.daemon.ocserv.log import LoginLog
from activities.drivers.metrics.certificates import CertificateLives
from activities.drivers.metrics.exporter import GatewayExporter, Running
from activities.drivers.metrics.interfaces import Interfaces
from activities.drivers.metrics.tunnel_probes import TunnelProbes
from activities.drivers.runtime.host.process import process
from deploy.lab.services import scrape_limits
from deploy.ports import free_port
from orchestrator.api.watch import Requests
from orchestrator.monitoring.readiness import Readiness
from orchestrator.monitoring.shown import ShownProcess
from orchestrator.processes.monitored import monitored
from orchestrator.relay.metrics import ShownRelay
from orchestrator.relay.server import Told
from orchestrator.settings import Settings
from policies.model.fleet import Fleet
from policies.runbooks import PAGES
from tests.fakes.prometheus import PROGRAM, RealPrometheus
from tests.house.tree import ROOT
from tests.patience import PATIENCE
from tests.service.command_line import CommandLine
from tests.service.conftest import FLEETS, installed
from tests.service.test_exporter import Keys, exporter, until_asked
from tests.service.test_exporter import written as written_file
from tests.service.test_monitoring import Known

KIT = ROOT / "deploy" / "monitoring"
RULES = sorted((KIT / "rules").glob("*.yaml"))
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
BY_PROMETHEUS_ITSELF = {"up", "ALERTS"}
SERIES = re.compile(r"\b(?:vpngw|penstock|process|python)_[a-z_]+\b|\bup\b|\bALERTS\b")


def promtool(*arguments: object, folder: Path = ROOT) -> str:
    """Return what promtool has to complain about, nothing when it is content."""
    command = [PROMTOOL or "promtool", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def alerts() -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def board_queries() -> list[str]:
    board = json.loads((KIT / "grafana" / "penstock.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    asked += [one["expr"] for one in board["annotations"]["list"]]
    found = re.findall(r"label_values\((\w+), \w+\)", json.dumps(board["templating"]))
    assert len(found) == 1
    return [*asked, *found]


@needs_promtool
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_alert_fires_when_it_has_to_and_is_silent_when_all_is_well(path: Path) -> None:
    assert promtool("check", "rules", path) == ""
    assert promtool("test", "rules", path.parent / "tests" / path.name) == ""


def test_every_alert_is_expected_to_fire_in_some_test() -> None:
    """promtool compares exactly, so that an alert that never fires fails the test that expects it."""
    expected = ""
    for path in RULES:
        for one in yaml.safe_load((path.parent / "tests" / path.name).read_text())["tests"]:
            asked = [each for each in one.get("promql_expr_test", ()) if each.get("exp_samples")]
            asked += [each for each in one.get("alert_rule_test", ()) if each.get("exp_alerts")]
            expected += json.dumps(asked)
    assert [one["alert"] for one in alerts() if one["alert"] not in expected] == []


@pytest.mark.sweep
@needs_promtool
def test_an_alert_that_never_fires_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(KIT / "rules", tmp_path / "rules")
    path = tmp_path / "rules" / "penstock.yaml"
    path.write_text(path.read_text().replace("max by (fleet) (penstock_drains_held) > 0", "vector(0) > 1"))
    assert "PenstockDrainHeld" in promtool("test", "rules", path.parent / "tests" / path.name)


@needs_promtool
def test_prometheus_understands_the_scrape_configuration_and_every_query_of_the_board(tmp_path: Path) -> None:
    assert promtool("check", "config", "--syntax-only", KIT / "prometheus.yaml") == ""
    rules = [{"record": f"query:{number}", "expr": one} for number, one in enumerate(board_queries())]
    path = tmp_path / "board.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    assert promtool("check", "rules", path) == ""
    rules.append({"record": "query:wrong", "expr": "sum by (fleet (up)"})
    path.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    assert "parse" in promtool("check", "rules", path)


LIMITS = {
    "sample_limit": "sampleLimit",
    "label_limit": "labelLimit",
    "label_name_length_limit": "labelNameLengthLimit",
    "label_value_length_limit": "labelValueLengthLimit",
}
"""As they are called for Prometheus, and for its operator, which has none for the size of an answer."""


def test_every_shipped_configuration_has_the_same_limits_of_one_gateways_metrics() -> None:
    limits = scrape_limits()
    assert {*limits} == {"body_size_limit", *LIMITS}
    [document] = re.findall(r"```yaml\n(global: .*?)```", (ROOT / "docs/install.md").read_text(), re.DOTALL)
    [job] = yaml.safe_load(document)["scrape_configs"]
    assert {name: job[name] for name in limits} == limits
    chart = (ROOT / "deploy/kubernetes/penstock/templates/monitors.yaml").read_text()
    found = dict(re.findall(r"^  (\w+Limit): (\d+)$", chart, re.MULTILINE))
    assert found == {there: str(limits[here]) for here, there in LIMITS.items()}


def test_an_exporter_with_all_that_it_can_have_is_far_below_the_limits(tmp_path: Path) -> None:
    """Of any daemon: eight instances of as many slots on a host with more interfaces than are shown."""
    fleet = yaml.safe_load(FLEETS.format(name="edge"))
    own = process(os.getpid())
    assert own is not None
    slots = [
        {
            "name": f"slot{number}",
            "port": 4440 + number,
            "device": f"oc{number}x",
            "pool4": f"10.0.{number}.0/24",
        }
        for number in range(8)
    ]
    gateway = Fleet.model_validate(
        {**fleet, "gateways": [{**fleet["gateways"][0], "slots": slots}]}
    ).gateways[0]
    instances = [Running(f"slot{number}", own, f"sha256:{number:064}", "1.3.0") for number in range(8)]
    for one in instances:
        (tmp_path / one.slot).touch()
    exporter = GatewayExporter(
        {one.slot: tmp_path / one.slot for one in instances},
        lambda: instances,
        lambda _: own,
        lambda: LoginLog(alive=lambda _: True),
        lambda: "slot1",
        tmp_path / "exporter.json",
    )
    exporter.refresh()
    for one in instances:
        exporter.learn(one, sessions=1_000, probe=True)
    devices = [f"veth{number}" for number in range(40)] + [f"oc{number}x0" for number in range(8)]
    (tmp_path / "dev").write_text("head\nhead\n" + "".join(f"{name}: {'7 ' * 16}\n" for name in devices))
    interfaces, registry = Interfaces(gateway, tmp_path / "dev"), CollectorRegistry(auto_describe=False)
    interfaces.read()
    for collector in (exporter, interfaces):
        registry.register(collector)
    page = generate_latest(registry).decode()
    samples = [line for line in page.splitlines() if not line.startswith("#")]
    others = 8 * len(("tunnel_probes", "tunnel_probe_lossy", "certificate_issued", "certificate_expiry")) + 8
    limits = scrape_limits()
    assert 400 < len(samples) + others <= 0.6 * int(limits["sample_limit"])
    assert len(page) < 500_000
    assert limits["body_size_limit"] == "1MB"


def produced(folder: Path) -> set[str]:
    """Return the name of every sample that exporters and penstock's own processes have."""

    class Relay:
        told, waiting = Told(), {"edge": 1}

    Relay.told.calls["GetSystemInfo"] = Relay.told.refused["edge/gw-1", "GetSystemInfo"] = 1
    known = Known(folder)
    known.begin()
    known.points.note(now=True)
    known.read()
    requests, registry = Requests(), CollectorRegistry()
    requests.count("GET", 200, 0.1)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    collectors = (
        GatewayExporter({}, list, lambda _: None, lambda: None, lambda: None, folder / "exporter.json"),  # type: ignore[arg-type, return-value]
        Interfaces(_gateway()),
        TunnelProbes(),
        CertificateLives("vpngw", {}),
        CertificateLives("penstock", {}),
        ShownProcess("api", Readiness({})),
        known.shown,
        requests,
        ShownRelay(Relay()),  # type: ignore[arg-type]
    )
    names = set(BY_PROMETHEUS_ITSELF)
    for family in [one for each in (*collectors, registry) for one in each.collect()]:
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return names


def _gateway() -> Any:
    return Fleet.model_validate(yaml.safe_load(FLEETS.format(name="edge"))).gateways[0]


def test_every_series_that_gates_rules_or_board_read_has_a_producer(tmp_path: Path) -> None:
    there = produced(tmp_path)
    gates = [
        path.read_text() for path in (ROOT / "deploy/prometheus/gates.yaml", ROOT / "deploy/lab/gates.yaml")
    ]
    asked = {
        "gates.yaml": "\n".join(line for text in gates for line in text.splitlines() if "'" in line),
        "rules": "\n".join(one["expr"] for one in alerts()),
        "board": "\n".join(board_queries()),
    }
    for where, text in asked.items():
        named = set(SERIES.findall(text))
        assert len(named) > 5
        assert named - there == set(), where
    assert "vpngw_nobody_makes_this" not in there


def test_whoever_is_woken_reads_what_is_wrong_which_command_comes_next_and_which_page_helps() -> None:
    listed = set(re.findall(r"^\| `(penstock [a-z -]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    names = [one["alert"] for one in alerts()]
    assert len(names) == len(set(names)) > 25
    for one in alerts():
        said = one["annotations"]
        assert one["labels"]["severity"] in {"page", "ticket"}
        assert set(said) == {"summary", "description", "runbook"}
        assert (ROOT / said["runbook"]).is_file(), one["alert"]
        commands = re.findall(r"`(penstock [^`]+)`", said["description"])
        assert commands, f"{one['alert']} names no command"
        for command in commands:
            assert any(f"{command} ".startswith(f"{name} ") for name in listed), command
        assert len(said["summary"]) < 200


def test_every_alert_is_named_by_the_page_that_it_leads_to() -> None:
    for one in alerts():
        page = ROOT / one["annotations"]["runbook"]
        assert page.stem in PAGES
        assert f"`{one['alert']}`" in page.read_text(), one["alert"]


@pytest.fixture
def offline(tmp_path: Path) -> CommandLine:
    for name in ("edge", "core"):
        text = FLEETS.format(name=name).replace("192.0.2.1", "192.0.2.40" if name == "edge" else "192.0.2.41")
        (tmp_path / f"{name}.yaml").write_text(text)
    return CommandLine({"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PENSTOCK_STATE": str(tmp_path)})


async def test_targets_are_written_whole_readable_for_prometheus_and_only_when_they_change(
    offline: CommandLine, tmp_path: Path
) -> None:
    files, to = [str(tmp_path / f"{name}.yaml") for name in ("edge", "core")], tmp_path / "penstock.json"
    said = await offline("monitoring", "targets", *files, "--to", str(to))
    assert (said.code, said.out) == (0, f"{to} lists 2 gateways\n")
    first = {"fleet": "core", "group": "main", "gateway": "core-1"}
    assert json.loads(to.read_text())[0] == {"targets": ["192.0.2.41:9500"], "labels": first}
    assert to.stat().st_mode & 0o777 == 0o644
    before = to.stat().st_mtime_ns
    said = await offline("monitoring", "targets", *files, "--to", str(to))
    assert said.out == f"{to} still lists 2 gateways\n"
    assert to.stat().st_mtime_ns == before
    printed = await offline("monitoring", "targets", *files)
    assert json.loads(printed.out) == json.loads(to.read_text())


async def test_targets_stay_as_they_were_when_a_fleets_file_is_wrong(
    offline: CommandLine, tmp_path: Path
) -> None:
    edge, to = tmp_path / "edge.yaml", tmp_path / "penstock.json"
    await offline("monitoring", "targets", str(edge), "--to", str(to))
    before = to.read_text()
    again = tmp_path / "again.yaml"
    again.write_text(edge.read_text().replace("name: edge\n", "name: other\n"))
    said = await offline("monitoring", "targets", str(edge), str(again), "--to", str(to))
    assert said.code == 2
    assert "192.0.2.40:9500 is the exporter of more than one gateway (edge/edge-1, other/edge-1)" in said.err
    edge.write_text("name: edge\n")
    said = await offline("monitoring", "targets", str(edge), "--to", str(to))
    assert said.code == 2
    assert f"{edge}, line 1" in said.err
    assert to.read_text() == before
    said = await offline("monitoring", "targets", str(again), "--to", str(tmp_path / "none" / "x.json"))
    assert (said.code, "cannot be written (No such file or directory)" in said.err) == (2, True)


COMMANDS = re.findall(r"^\$ (.+)$", (ROOT / "docs" / "monitoring.md").read_text(), flags=re.MULTILINE)


@pytest.mark.sweep
@needs_promtool
async def test_every_command_of_the_document_does_what_it_is_there_for(tmp_path: Path) -> None:
    shutil.copytree(KIT, tmp_path, dirs_exist_ok=True)
    (tmp_path / "targets").mkdir()
    (tmp_path / "fleet.yaml").write_text(FLEETS.format(name="edge"))
    program, port = tmp_path / "penstock", free_port()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m orchestrator "$@"\n')
    program.chmod(0o755)
    readiness = Readiness({})
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PENSTOCK_STATE": str(tmp_path)}
    said = {}
    (tmp_path / "other").mkdir()
    async with monitored(installed(tmp_path / "other"), "worker", f"127.0.0.1:{port}", readiness):
        for command in COMMANDS:
            process = await asyncio.create_subprocess_shell(
                command.replace(":9511", f":{port}"),
                cwd=tmp_path,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await process.communicate()
            assert process.returncode == 0, command
            said[command.split()[-1].rpartition("/")[2]] = out.decode()
    assert (said["healthz"], said["readyz"]) == ("alive\n", "ready\n")
    assert "penstock_build_info" in said["metrics"]
    assert json.loads((tmp_path / "targets" / "penstock.json").read_text())[0]["targets"] == [
        "192.0.2.1:9500"
    ]


def test_the_document_names_the_settings_that_there_are_and_every_series(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    for block in re.findall(r"^```toml\n(.+?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        assert set(tomllib.loads(block)) <= set(Settings.model_fields)
    own = {name for name in produced(tmp_path) if name.startswith("penstock_")}
    bare = {re.sub(r"_(?:bucket|count|sum)$", "", name) for name in own}
    assert {name for name in bare if f"`{name}`" not in text} == set()


@pytest.mark.sweep
@pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed")
async def test_prometheus_with_the_kit_finds_an_exporter_by_its_file_and_evaluates_every_rule(
    tmp_path: Path, offline: CommandLine
) -> None:
    keys, port, kit = Keys(tmp_path / "keys"), free_port(), tmp_path / "kit"
    shutil.copytree(KIT, kit)
    (kit / "targets").mkdir()
    fleet = tmp_path / "edge.yaml"
    managed = "    management: 127.0.0.1\n    metrics_port: " + f"{port}\n    slots:"
    fleet.write_text(fleet.read_text().replace("    slots:", managed))
    said = await offline("monitoring", "targets", str(fleet), "--to", str(kit / "targets" / "penstock.json"))
    assert said.code == 0, said.err
    config = (kit / "prometheus.yaml").read_text()
    for written, here in (
        ("/etc/prometheus/penstock-exporters.pem", str(keys.authority.roots)),
        ("/etc/prometheus/penstock-exporters.token", str(keys.token)),
        ("scrape_timeout: 10s", "scrape_timeout: 1s"),
        ("15s", "1s"),
    ):
        assert written in config
        config = config.replace(written, here)
    (kit / "prometheus.yml").write_text(config)
    server = RealPrometheus(kit, free_port())
    loopback = {"addresses": ["192.0.2.11"], "management": "127.0.0.1"}
    settings = written_file(tmp_path, keys.settings, metrics_port=port, **loopback)
    try:
        async with exporter(settings):
            await server.start()
            await until_asked(server.url, 'up{job="vpngw",fleet="edge",gateway="edge-1"}', 1)
            await until_asked(server.url, 'count(vpngw_tunnel_bytes_total{gateway="edge-1"})', 4)
            async with (
                httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
                asyncio.timeout(PATIENCE),
            ):
                rules: list[dict[str, Any]] = []
                while not rules or "unknown" in {one["health"] for one in rules}:
                    answer = await client.get(f"{server.url}/api/v1/rules")
                    rules = [one for group in answer.json()["data"]["groups"] for one in group["rules"]]
                    await asyncio.sleep(0.2)
    finally:
        server.kill()
    assert {one["name"] for one in rules} == {one["alert"] for one in alerts()}
    assert [(one["name"], one.get("lastError")) for one in rules if one["health"] != "ok"] == []
