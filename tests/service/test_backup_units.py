"""The units that back up the ledger: systemd reads them, and their commands keep the newest backup."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.store.backup import require_whole
from tests.drivers.test_index_renewal import verified
from tests.service.test_backup_in_a_shared_folder import used_ledger
from tests.service.test_bad_inputs import ALONE

UNITS = Path(__file__).parents[2] / "deploy/backup"
SERVICE = "penstock-backup.service"
DAY = 24 * 3600


def command_of(key: str, folder: Path) -> list[str]:
    """Return the command of the service as systemd runs it, with this folder for that of backups."""
    text = (UNITS / SERVICE).read_text().replace("\\\n", "")
    (line,) = [one.partition("=")[2] for one in text.splitlines() if one.startswith(f"{key}=")]
    line = line.replace("%%", "%").replace("$$", "$").replace("/srv/backup", str(folder))
    return shlex.split(line.replace("/usr/bin/penstock", f"{sys.executable} -m orchestrator"))


def run(key: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command_of(key, folder), env=ALONE | environment, capture_output=True, text=True, check=False
    )


def aged(file: Path, days: float) -> Path:
    file.touch()
    os.utime(file, (time.time() - days * DAY,) * 2)
    return file


def test_systemd_reads_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text())
        assert verified(tmp_path / unit.name) == ""


def test_the_service_writes_a_whole_backup_that_has_the_time_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    ledger = used_ledger(tmp_path / "ledger.db")
    done = run("ExecStart", folder, PENSTOCK_STATE=str(tmp_path), PENSTOCK_LEDGER_URL=ledger)
    assert done.returncode == 0, done.stderr
    (made,) = folder.iterdir()
    assert abs(int(made.stem.removeprefix("hourly-")) - time.time()) < DAY
    assert require_whole(made.open()) > 0


def test_backups_older_than_two_weeks_are_removed_and_nothing_else_is(tmp_path: Path) -> None:
    old = aged(tmp_path / "hourly-100.jsonl", 14.1)
    others = [aged(tmp_path / name, 100) for name in ("before-upgrade.jsonl", "ledger-2026-10-22.jsonl")]
    kept = [aged(tmp_path / f"hourly-{200 + days}.jsonl", days) for days in (0, 13.9)]
    assert run("ExecStartPre", tmp_path).returncode == 0
    assert sorted(tmp_path.iterdir()) == sorted([*others, *kept])
    assert not old.exists()


def test_the_newest_backup_stays_however_old_it_is(tmp_path: Path) -> None:
    for days in (40, 30, 20):
        aged(tmp_path / f"hourly-{100 - days}.jsonl", days)
    assert run("ExecStartPre", tmp_path).returncode == 0
    assert [one.name for one in tmp_path.iterdir()] == ["hourly-80.jsonl"]


def test_the_first_backup_finds_nothing_to_remove(tmp_path: Path) -> None:
    assert run("ExecStartPre", tmp_path).returncode == 0


def test_a_backup_removes_what_killed_ones_have_left(tmp_path: Path) -> None:
    """Each has a name of its own, so the next one of the same name never comes."""
    folder = tmp_path / "backup"
    folder.mkdir()
    killed = aged(folder / ".hourly-100.jsonl.0a1b2c3d.part", 1.1)
    running = aged(folder / ".hourly-200.jsonl.0a1b2c3d.part", 0.1)
    other = aged(folder / ".anas.part", 9)
    ledger = used_ledger(tmp_path / "ledger.db")
    assert run("ExecStart", folder, PENSTOCK_STATE=str(tmp_path), PENSTOCK_LEDGER_URL=ledger).returncode == 0
    assert not killed.exists()
    assert {running, other} < {*folder.iterdir()}
