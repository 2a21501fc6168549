"""A Python environment that lies in a package: every file from a wheel of the lock, the same each time."""

import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.debian.contents import Package
from deploy.debian.lock import TARGET, Locked
from policies.model.errors import Unavailable

PYTHON = "python3.11"
CONFIG = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON.removeprefix('python')}\n"
PROGRAM = """#!/usr/lib/@NAME@/bin/python -I
from orchestrator.__main__ import main

main()
"""
COMMAND = Path(__file__).with_name("command.sh")
NEVER_LOADED = (
    *("**/*.pyi", "**/tests", "**/test_data", "temporalio/bridge/sdk-core"),
    *("pygments/lexers/[a-z]*.py", "pygments/lexers/_*_builtins.py"),
)
"""What wheels have for those who develop with them, and languages that no screen shows: a tenth of an
agent's package."""
_NOT_KEPT = ("INSTALLER", "REQUESTED", "direct_url.json")
"""What pip writes about this installation, and not about the package."""


def fetch(requirements: Sequence[Locked], wheels: Path) -> None:
    """Have the wheel of each requirement in the folder; the index is asked only for what is not there.

    Raises:
        Unavailable: One is not to be had with a digest of the lock.
    """
    wheels.mkdir(parents=True, exist_ok=True)
    listed = wheels / "wanted.txt"
    listed.write_text("".join(f"{one.line}\n" for one in requirements))
    words = ("download", "--quiet", "--no-deps", "--require-hashes", "-r", listed, "-d", wheels, *TARGET)
    offline = _pip(*words, "--no-index", "--find-links", wheels)
    if offline.returncode == 0:
        return
    online = _pip(*words)
    if online.returncode:
        raise Unavailable(f"the wheels cannot be fetched: {online.stderr.strip()}")


def install(package: Package, requirements: Sequence[Locked], wheels: Path, ours: Path, root: Path) -> None:
    """Lay out the package's environment below this root, from wheels that were fetched and our own.

    Raises:
        Unavailable: A wheel is missing, or is not what the lock says.
    """
    environment = root / package.environment
    packages = environment / "lib" / PYTHON / "site-packages"
    packages.mkdir(parents=True)
    listed = wheels / f"{package.name}.txt"
    listed.write_text("".join(f"{one.line}\n" for one in requirements))
    words = ("install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", packages, *TARGET)
    for source in (("--require-hashes", "--find-links", wheels, "-r", listed), (ours,)):
        done = _pip(*words, *source)
        if done.returncode:
            raise Unavailable(f"{package.name} cannot be laid out: {done.stderr.strip()}")
    programs = environment / "bin"
    programs.mkdir()
    for program in package.programs:
        shutil.move(packages / "bin" / program, programs / program)
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for name in package.left_out:
        _remove(packages / name)
    for unused in [found for pattern in NEVER_LOADED for found in packages.glob(pattern)]:
        _remove(unused)
    for metadata in packages.glob("*.dist-info"):
        _tidy(metadata)
    (programs / "python").symlink_to(f"../../../bin/{PYTHON}")
    (environment / "pyvenv.cfg").write_text(CONFIG)
    for path, text in (
        (programs / "penstock", PROGRAM),
        (environment / "penstock", COMMAND.read_text()),
    ):
        path.write_text(text.replace("@NAME@", package.name))
        path.chmod(0o755)


def _pip(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _remove(path: Path) -> None:
    """Remove a file or a folder, which has to be there: a list that names what is gone hides what is new."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _tidy(metadata: Path) -> None:
    """Let a distribution's record name what is there, in order, and nothing of the machine that made it."""
    for name in _NOT_KEPT:
        (metadata / name).unlink(missing_ok=True)
    record = metadata / "RECORD"
    rows = csv.reader(io.StringIO(record.read_text()))
    kept = sorted(row for row in rows if (metadata.parent / row[0]).is_file())
    with record.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(kept)
