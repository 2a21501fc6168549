"""The front door: what it installs is what the lab needs, what it locks is what the project asks for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.lab import preflight
from deploy.lab.daemons.products import DAEMONS
from tests.bench import __main__ as bench
from tests.bench import bench_trust

ROOT = Path(__file__).parents[2]
RUN = (ROOT / "run").read_text()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "run", *arguments], text=True, capture_output=True, check=False)


def test_the_door_is_plain_posix_shell() -> None:
    assert RUN.startswith("#!/bin/sh\n")
    subprocess.run(["dash", "-n", ROOT / "run"], check=True)


def test_an_unknown_verb_is_named_and_changes_nothing() -> None:
    done = run("upgrade-everything")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "there is no verb 'upgrade-everything'" in done.stderr


def test_whoever_asks_how_to_measure_is_told_and_nothing_is_measured() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--help"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert told.stdout.startswith("usage: ")
    assert all(name in told.stdout for name in bench.names())


def test_the_usage_names_every_verb() -> None:
    usage = run("help").stdout
    verbs = re.findall(r"^((?:\w+ \| )*\w+)\)", RUN.split("case $verb in", 1)[1], re.MULTILINE)
    named = {verb for line in verbs for verb in line.split(" | ")} - {"help"}
    assert named == {
        "demo",
        "lab",
        "test",
        "bench",
        "check",
        "package",
        "picture",
        "reference",
        "serve",
        "penstock",
        "clean",
    }
    assert all(re.search(rf"^  {verb}\b", usage, re.MULTILINE) for verb in named)


def cleaned(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `clean` does in a folder with a state: a lab's, an install's, and whatever is there already."""
    (folder / "run").write_text(RUN)
    for made in (
        ".state/lab/cache",
        ".state/lab-drill",
        ".state/snapshots",
        ".state/wheels",
        ".venv/bin",
        "dist",
    ):
        (folder / made).mkdir(parents=True)
    (folder / ".state/install.log").write_text("Setting up ocserv\n")
    return run_in(folder, "clean", *arguments)


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", folder / "run", *arguments], text=True, capture_output=True, check=False)


def test_cleaning_leaves_nothing_of_labs_and_installs(tmp_path: Path) -> None:
    done = cleaned(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("own", ["ledger.db", "penstock.toml", "audit.key", "relay.key", "authority"])
def test_cleaning_never_takes_a_ledger_or_keys_unless_it_is_told(tmp_path: Path, own: str) -> None:
    (tmp_path / ".state").mkdir()
    (tmp_path / ".state" / own).write_text("not to be made again")
    done = cleaned(tmp_path)
    assert done.returncode == 0
    assert f".state has the {own} of an installation" in done.stderr
    assert "./run clean --state" in done.stderr
    assert sorted(path.name for path in (tmp_path / ".state").iterdir()) == sorted([own, "snapshots"])
    told = run_in(tmp_path, "clean", "--state")
    assert (told.returncode, told.stderr) == (0, "")
    assert not (tmp_path / ".state").exists()


def test_cleaning_refuses_what_it_does_not_know_before_it_removes_anything(tmp_path: Path) -> None:
    done = cleaned(tmp_path, "--sate")
    assert done.returncode == 2
    assert "clean knows --state, not '--sate'; nothing was removed" in done.stderr
    assert (tmp_path / ".state/lab/cache").is_dir()
    assert (tmp_path / ".venv").is_dir()


@pytest.mark.parametrize(("verb", "why"), [("check", "was made of another"), ("clean", "would be removed")])
def test_an_environment_that_is_mounted_is_refused_and_left_as_it_is(
    tmp_path: Path, verb: str, why: str
) -> None:
    (tmp_path / "run").write_text(RUN)
    for name in ("requirements.lock", "pyproject.toml", "shared/stamp", ".venv/.keep"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("another one\n")
    mounted = 'mount --bind shared .venv && exec sh ./run "$0"'
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, verb]
    done = subprocess.run(alone, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert f"run: .venv is a mount point, whose files others may use, and it {why}" in done.stderr
    assert (tmp_path / "shared/stamp").read_text() == "another one\n"


BACKEND = """
import zipfile
from pathlib import Path

def build_editable(folder, config_settings=None, metadata_directory=None):
    info, wheel = "penstock-1.dist-info", "penstock-1-py3-none-any.whl"
    files = {
        "penstock.py": "import sys\\ndef main(): print(sys.prefix)\\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\\nName: penstock\\nVersion: 1\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{info}/entry_points.txt": "[console_scripts]\\npenstock = penstock:main\\n",
    }
    with zipfile.ZipFile(Path(folder) / wheel, "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
        made.writestr(f"{info}/RECORD", "".join(f"{name},,\\n" for name in (*files, f"{info}/RECORD")))
    return wheel
"""
"""Builds the smallest project that has a program of the name penstock."""


@pytest.mark.sweep
def test_an_environment_stays_in_use_until_the_next_one_is_complete(tmp_path: Path) -> None:
    """The old one was removed before the package index had answered, and 'Nothing else was changed'."""
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    for name, text in (("run", RUN), ("backend.py", BACKEND), ("pyproject.toml", project)):
        (tmp_path / name).write_text(text)
    old, lock = tmp_path / ".venv/bin/penstock", tmp_path / "requirements.lock"
    old.parent.mkdir(parents=True)
    old.write_text("of another lock\n")

    def penstock() -> subprocess.CompletedProcess[str]:
        away = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
        command, known = ["sh", str(tmp_path / "run"), "penstock"], os.environ | away
        return subprocess.run(command, text=True, capture_output=True, check=False, env=known)

    lock.write_text(f"certifi==2025.1.31 --hash=sha256:{'0' * 64}\n")
    refused = penstock()
    assert old.read_text() == "of another lock\n"
    assert refused.returncode == 2
    assert "is the package index reachable? .venv is as it was" in refused.stderr
    assert not (tmp_path / ".venv.new").exists()
    lock.write_text("# nothing\n")
    made = penstock()
    assert (made.returncode, made.stdout) == (0, f"{tmp_path}/.venv\n"), made.stderr
    assert not (tmp_path / ".venv.new").exists()
    assert not (tmp_path / ".venv/before").exists()
    assert penstock().stderr == ""


def test_every_program_the_lab_asks_for_is_one_the_door_installs() -> None:
    installed = dict(
        pair.split(":") for pair in re.findall(r"[\w./-]+:[\w.-]+(?=[\s\"])", RUN.split("usage()")[0])
    )
    asked = dict(preflight.PROGRAMS)
    for daemon in DAEMONS.values():
        asked |= daemon.programs
    essential = {name: package for name, package in asked.items() if package == "util-linux"}
    assert {**installed, **essential}.items() >= asked.items()


def test_continuous_integration_types_what_the_readme_tells_a_person_to_type() -> None:
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if not line.startswith("#")]
    typed = [line for line in lines if line.startswith("./run ")]
    assert typed == [
        "./run check",
        "./run package",
        "./run test",
        './run test --slow-sample "$commit" --slow-minutes 15',
    ]


def test_the_installed_packages_are_those_of_the_lock_with_digests_and_no_index() -> None:
    locked = (ROOT / "requirements.lock").read_text()
    assert "://" not in locked
    uv = Path(sys.executable).with_name("uv")
    exported = subprocess.run(
        [
            uv,
            "export",
            "--frozen",
            "--offline",
            "--no-emit-project",
            "--all-groups",
            "--no-header",
            "--no-annotate",
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    assert exported.stdout == locked


def test_the_lock_is_in_step_with_the_project() -> None:
    uv = Path(sys.executable).with_name("uv")
    done = subprocess.run(
        [uv, "lock", "--check", "--offline"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_lock_names_no_index_but_the_public_one() -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text()))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def test_the_trust_bench_names_files_that_exist() -> None:
    missing = [pattern for pattern in (*bench_trust.CODE, *bench_trust.TESTS) if not list(ROOT.glob(pattern))]
    assert missing == []
