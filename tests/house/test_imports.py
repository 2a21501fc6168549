"""The import contracts are kept, and each of them notices when it is broken."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.installation import ROOMS
from tests.house.tree import ROOT

LINT = Path(sys.executable).parent / "lint-imports"


def lint(folder: Path) -> str:
    """What the linter says of the rooms in this folder."""
    result = subprocess.run(
        [LINT, "--no-logo", "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return result.stdout + result.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The four rooms and their contracts, free to be broken."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_kept() -> None:
    report = lint(ROOT)
    assert " 0 broken." in report, report


@pytest.mark.parametrize(
    ("room", "line", "contract"),
    [
        ("policies", "import workflows.sandbox", "Each room leans only on the ones below"),
        ("policies", "import activities.failures", "Each room leans only on the ones below"),
        ("activities", "import workflows.sandbox", "Each room leans only on the ones below"),
        ("workflows", "import orchestrator.settings", "Each room leans only on the ones below"),
        ("policies", "import time", "Decisions and values touch no clock"),
        ("policies", "import temporalio", "Decisions and values touch no clock"),
        ("policies", "import random", "Decisions and values touch no clock"),
        ("workflows", "import random", "Workflows reach the world only through activities"),
        ("workflows", "import time", "Workflows reach the world only through activities"),
        (
            "workflows",
            "import activities.drivers.steering",
            "Workflows reach the world only through activities",
        ),
    ],
)
def test_a_broken_contract_is_noticed(copy: Path, room: str, line: str, contract: str) -> None:
    (copy / room / "intruder.py").write_text(f'"""Break a rule on purpose."""\n\n{line}\n')
    report = lint(copy)
    assert f"{room}.intruder -> {line.removeprefix('import ').split('.')[0]}" in report
    assert any(text.startswith(contract) and text.endswith("BROKEN") for text in report.splitlines())


@pytest.mark.parametrize("room", ["workflows", "policies"])
@pytest.mark.parametrize(
    "line",
    ["from datetime import datetime; datetime.now()", "from uuid import uuid4; uuid4()", "import threading"],
)
def test_what_differs_from_run_to_run_is_named_by_the_linter(room: str, line: str) -> None:
    """Workflows run without a sandbox (docs/decisions/0012)."""
    told = subprocess.run(
        [
            Path(sys.executable).parent / "ruff",
            "check",
            "--no-cache",
            "--stdin-filename",
            f"{room}/new.py",
            "-",
        ],
        cwd=ROOT,
        input=line,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "TID251" in told.stdout, told
