"""Units of the packages, as systemd itself reads and scores them."""

import re
import subprocess
from pathlib import Path

import pytest

from deploy.debian.contents import PACKAGES
from orchestrator.service import foreign_files

UNITS = [unit for one in PACKAGES for unit in sorted((one.folder / "lib/systemd/system").glob("*.service"))]
EXAMPLES = Path(__file__).parents[2] / "deploy/examples"
ADDED = ("penstock-agent-podman.conf", "steering-hook.conf")
SYSTEM = Path(__file__).parents[2] / "deploy/debian/penstock/usr/lib"
USERS = {
    "penstock.service": "penstock",
    "penstock-api.service": "penstock-api",
    "penstock-worker.service": "penstock",
    "penstock-relay.service": "penstock-relay",
    "penstock-chat.service": "penstock-chat",
}
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


def test_the_orchestrators_processes_have_no_capability() -> None:
    for name in USERS:
        assert {"CapabilityBoundingSet=", "NoNewPrivileges=yes"} <= {*lines_of(name)}, name


def test_each_process_has_a_user_and_a_folder_of_its_own_that_the_others_cannot_enter() -> None:
    """S5: a compromised chat or API must not have the authority's key, the master payload or the audit key.

    `penstock.service` is all of them in one process, in the worker's place.
    """
    created = [line.split() for line in (SYSTEM / "tmpfiles.d/penstock.conf").read_text().splitlines()]
    folders = {words[1]: words[2:] for words in created if words[0] == "d"}
    users = re.findall(r"^u +(\S+)", (SYSTEM / "sysusers.d/penstock.conf").read_text(), re.MULTILINE)
    assert {*users} == {*USERS.values()}
    assert len({user for name, user in USERS.items() if name != "penstock.service"}) == 4
    shared = {
        "/var/lib/penstock-evidence": ["2750", "penstock", "penstock-api"],
        "/var/lib/penstock-fleets": ["2750", "penstock-api", "penstock"],
    }
    assert shared.items() <= folders.items()
    for name, user in USERS.items():
        unit = lines_of(name)
        own = "penstock-orchestrator" if user == "penstock" else user
        assert {f"User={user}", f"StateDirectory={own}"} <= {*unit}, name
        assert not [line for line in unit if line.startswith(("Group=", "SupplementaryGroups="))], name
        written = {word.lstrip("-") for word in words_of(unit, "ReadWritePaths")}
        assert written == {folder for folder, rights in shared.items() if rights[1] == user}, name
        theirs = {folder for folder, rights in shared.items() if user in rights}
        others = {one for one in folders if one.startswith("/var/lib/")} - theirs - {f"/var/lib/{own}"}
        closed = {word.lstrip("-") for word in words_of(unit, "InaccessiblePaths")}
        assert closed >= others or name == "penstock.service", name
        mode = "0750" if user == "penstock" else "0700"
        assert folders[f"/var/lib/{own}"] == [mode, user, user], name


def test_settings_and_passwords_of_one_process_reach_no_other() -> None:
    """S5: systemd hands an environment file to the process, whatever the process itself may read."""
    read = {
        name: [line.partition("=-")[2] for line in lines_of(name) if line.startswith("EnvironmentFile=")]
        for name in USERS
    }
    assert read == {
        "penstock.service": ["/etc/default/penstock"],
        "penstock-api.service": ["/etc/default/penstock-api"],
        "penstock-worker.service": ["/etc/default/penstock"],
        "penstock-relay.service": ["/etc/default/penstock-relay"],
        "penstock-chat.service": [],
    }
    postinst = (SYSTEM.parents[1] / "DEBIAN/postinst").read_text()
    assert "\n    for name in penstock penstock-api penstock-relay; do\n" in postinst
    for name in ("api", "relay"):
        said = (SYSTEM.parents[1] / f"etc/default/penstock-{name}").read_text()
        assert f"\nPENSTOCK_STATE=/var/lib/penstock-{name}\n" in said


def test_api_and_worker_are_set_to_the_same_files_where_they_have_to_agree() -> None:
    """S5: settings were one file, and two files can differ."""
    said = {
        name: settings_in(SYSTEM.parents[1] / f"etc/default/{name}") for name in ("penstock", "penstock-api")
    }
    for name in ("FLEET", "PEOPLE", "TRUST", "GATES", "SNAPSHOTS", "AUDIT_CHECKPOINTS", "SOCKET"):
        values = {one[f"PENSTOCK_{name}"] for one in said.values()}
        assert len(values) == 1, name
    assert said["penstock-api"].keys() - said["penstock"].keys() == {
        "PENSTOCK_LEDGER_URL",
        "PENSTOCK_AUTHORITY",
    }


def test_a_relay_begins_anew_before_it_takes_the_hosts_memory() -> None:
    """S2: whatever its bounds miss."""
    relay = lines_of("penstock-relay.service")
    assert {"Restart=always", "KillMode=mixed"} <= {*relay}
    assert [line for line in relay if line.startswith("MemoryMax=")]


def test_an_api_that_takes_the_hosts_memory_begins_anew_and_a_file_that_does_ends_alone() -> None:
    """One reader of a caller's file may have 3 GB, and the kernel ends that one first."""
    api = lines_of("penstock-api.service")
    assert {"Restart=always", "OOMPolicy=continue"} <= {*api}
    (most,) = [line.removeprefix("MemoryMax=") for line in api if line.startswith("MemoryMax=")]
    assert int(most.removesuffix("G")) << 30 > foreign_files.MEMORY_BYTES


@pytest.mark.parametrize("name", ["penstock.service", "penstock-relay.service"])
def test_a_unit_with_a_relay_allows_the_call_by_which_haproxy_is_started(name: str) -> None:
    """newcomer 1: setpriv calls capset, and no relay of the packages started."""
    calls = [line for line in lines_of(name) if line.startswith("SystemCallFilter=")]
    assert calls.index("SystemCallFilter=capset") > calls.index("SystemCallFilter=~@privileged @resources")


def settings_in(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^(PENSTOCK_\w+)=(.*)$", file.read_text(), re.MULTILINE))


def words_of(unit: list[str], key: str) -> list[str]:
    return [word for line in unit if line.startswith(f"{key}=") for word in line.partition("=")[2].split()]


def lines_of(name: str) -> list[str]:
    return next(unit for unit in UNITS if unit.name == name).read_text().splitlines()
