"""Units of the packages, as systemd itself reads and scores them."""

import re
import subprocess
from pathlib import Path

import pytest

from deploy.debian.contents import PACKAGES

UNITS = [unit for one in PACKAGES for unit in sorted((one.folder / "lib/systemd/system").glob("*.service"))]
EXAMPLES = Path(__file__).parents[2] / "deploy/examples"
ADDED = ("penstock-agent-podman.conf", "steering-hook.conf")
MOST_EXPOSED = {"penstock-agent.service": 5.5}
OTHERS = 4.0


def analyze(*words: object) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_there_is_a_unit_for_every_process() -> None:
    started = {
        re.findall(r"^ExecStart=\S+/penstock (.+)$", unit.read_text(), re.MULTILINE)[0] for unit in UNITS
    }
    words = {line.split(" --config")[0].split(" /")[0] for line in started}
    assert words == {"serve", "worker", "api", "relay", "chat run", "agent run", "exporter"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_exposed_no_more_than_its_work_asks_for(unit: Path) -> None:
    said = analyze("security", "--offline=true", unit).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= MOST_EXPOSED.get(unit.name, OTHERS)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_every_line_of_a_unit(unit: Path, tmp_path: Path) -> None:
    program = tmp_path / "penstock"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    tried = tmp_path / unit.name
    tried.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={program}", unit.read_text(), flags=re.MULTILINE))
    done = analyze("verify", "--man=no", "--recursive-errors=no", tried)
    assert (done.returncode, done.stderr.replace(str(tmp_path), "")) == (0, "")


@pytest.mark.parametrize("example", ADDED)
def test_systemd_understands_what_an_agent_adds_to_its_unit(example: str, tmp_path: Path) -> None:
    unit = next(unit for unit in UNITS if unit.name == "penstock-agent.service")
    program = tmp_path / "penstock"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    tried, added = tmp_path / unit.name, tmp_path / f"{unit.name}.d/{example}"
    tried.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={program}", unit.read_text(), flags=re.MULTILINE))
    added.parent.mkdir()
    added.write_text((EXAMPLES / example).read_text())
    done = analyze("verify", "--man=no", "--recursive-errors=no", tried)
    assert (done.returncode, done.stderr.replace(str(tmp_path), "")) == (0, "")
    added.write_text(added.read_text() + "NoSuchKey=yes\n")
    assert "NoSuchKey" in analyze("verify", "--man=no", "--recursive-errors=no", tried).stderr


def test_an_agent_may_write_where_the_examples_of_hooks_do() -> None:
    written = re.findall(r"^ReadWritePaths=(.*)", (EXAMPLES / "steering-hook.conf").read_text(), re.MULTILINE)
    folders = [
        folder
        for hook in EXAMPLES.glob("steering-hook-*")
        for folder in re.findall(r'^FOLDER = Path\("(.*)"\)$', hook.read_text(), re.MULTILINE)
    ]
    assert {f"-{folder}" for folder in folders} == {*" ".join(written).split()}
    assert len(folders) == 2


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_has_started_when_its_process_says_that_it_does_its_work(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    assert "Type=notify" in lines
    assert not [line for line in lines if line.startswith(("NotifyAccess", "WatchdogSec"))]


def test_daemons_outlive_the_agent_and_are_as_many_as_there_are_sessions() -> None:
    agent = next(unit for unit in UNITS if unit.name == "penstock-agent.service").read_text().splitlines()
    assert {"KillMode=process", "Delegate=yes", "TasksMax=infinity"} <= {*agent}
    # What systemd removes or hides when the agent stops, a daemon that goes on would miss.
    assert not [line for line in agent if line.startswith(("PrivateTmp", "PrivateDevices", "PrivateNetwork"))]


def test_the_agent_may_ask_for_paths_beneath_one_folder() -> None:
    # RestrictSUIDSGID makes openat2(2) "not implemented" (systemd.exec(5)), and no release could be staged.
    agent = next(unit for unit in UNITS if unit.name == "penstock-agent.service").read_text().splitlines()
    assert not [line for line in agent if line.startswith("RestrictSUIDSGID")]


def test_the_agent_may_look_at_the_wire_for_what_lies_open_there() -> None:
    # The test for cleartext reads packets (packet(7)); without the right a fleet with tests would only wait.
    agent = next(unit for unit in UNITS if unit.name == "penstock-agent.service").read_text().splitlines()
    bounding = [line for line in agent if line.startswith("CapabilityBoundingSet=")]
    families = [line for line in agent if line.startswith("RestrictAddressFamilies=")]
    assert "CAP_NET_RAW" in " ".join(bounding).replace("=", " ").split()
    assert "AF_PACKET" in " ".join(families).replace("=", " ").split()


def test_the_orchestrators_processes_have_an_own_user_and_no_capability() -> None:
    for unit in (unit for unit in UNITS if unit.parts[-5] == "penstock"):
        assert {"User=penstock", "CapabilityBoundingSet=", "NoNewPrivileges=yes"} <= {
            *unit.read_text().splitlines()
        }, unit.name
