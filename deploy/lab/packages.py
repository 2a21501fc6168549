"""Packages of the next Debian release, pinned by digest, fetched without touching this machine's own apt.

apt checks the archive's signature and its index; we check what came against `packages.lock`.
A version the mirror has dropped since comes from Debian's archive of every day.
`python -m deploy.lab.renew_lock` writes the lock anew when the archive has moved on.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from policies.model.errors import BadInput, Unavailable

LOCK = Path(__file__).with_name("packages.lock")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITE = "trixie"
EVERY_DAY = "http://snapshot.debian.org/archive/debian"
_RENEW = "`.venv/bin/python -m deploy.lab.renew_lock` pins what the archive has now"


@dataclass(frozen=True)
class Package:
    """One pinned package: the exact version and the SHA-256 of its file."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Lock:
    """What may be unpacked: nothing else is."""

    suite: str
    architecture: str
    taken: str
    """When, as the archive of every day names it: 20261120T100000Z."""
    packages: tuple[Package, ...]


def read_lock(path: Path = LOCK) -> Lock:
    """Return the pinned packages.

    Raises:
        BadInput: a line is not `name version sha256`, or the first not `suite architecture time`.
    """
    rows = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    try:
        (suite, architecture, taken), *pinned = rows
        return Lock(suite, architecture, taken, tuple(Package(*row) for row in pinned))
    except (TypeError, ValueError):
        raise BadInput(f"{path}: not a list of pinned packages; {_RENEW}") from None


def write_lock(lock: Lock, path: Path = LOCK) -> None:
    """Write the pinned packages, sorted, one per line."""
    lines = [
        "# The next Debian's ocserv and what it links to. First line: suite, architecture, time;",
        "# then name, version and SHA-256 of each package. Made by `python -m deploy.lab.renew_lock`.",
        f"{lock.suite} {lock.architecture} {lock.taken}",
        *(
            f"{each.name} {each.version} {each.sha256}"
            for each in sorted(lock.packages, key=lambda p: p.name)
        ),
    ]
    path.write_text("\n".join(lines) + "\n")


def fetch(lock: Lock, cache: Path) -> list[Path]:
    """Return the pinned packages' files, from the cache or the archive, each with its pinned digest.

    Raises:
        BadInput: this machine's architecture is not the lock's.
        Unavailable: the archive cannot be read, has moved on, or sent other bytes.
    """
    if (here := architecture()) != lock.architecture:
        raise BadInput(f"{LOCK.name} pins packages for {lock.architecture}, this machine is {here}; {_RENEW}")
    cache.mkdir(parents=True, exist_ok=True)
    missing = [each for each in lock.packages if _digest(cache / f"{each.sha256}.deb") != each.sha256]
    if missing:
        with scratch(cache) as home:
            for package, file in _download(lock, missing, home):
                file.replace(cache / f"{package.sha256}.deb")
    return [cache / f"{each.sha256}.deb" for each in lock.packages]


def _download(lock: Lock, missing: list[Package], home: Path) -> list[tuple[Package, Path]]:
    try:
        return Archive.read(lock.suite, home / "now", mirror()).download(missing)
    except Unavailable as today:
        try:
            return Archive.read(lock.suite, home / "then", f"{EVERY_DAY}/{lock.taken}").download(missing)
        except Unavailable as then:
            raise Unavailable(f"{today}; {EVERY_DAY} did not help ({then}); {_RENEW}") from then


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """Give an own folder beside the cached packages for a moment; those of killed processes are removed."""
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob("scratch-*"):
        if not Path("/proc", old.name.split("-")[1]).exists():
            shutil.rmtree(old)
    home = Path(tempfile.mkdtemp(prefix=f"scratch-{os.getpid()}-", dir=cache))
    try:
        yield home
    finally:
        shutil.rmtree(home)


class Archive:
    """A view of one Debian suite with its own index, cache and empty package database.

    Proxy and certificates are those this machine is configured with.
    """

    def __init__(self, suite: str, home: Path) -> None:
        self._suite = suite
        self._home = home.absolute()

    @classmethod
    def read(cls, suite: str, home: Path, mirror: str) -> Self:
        """Read the suite's signed index into a new folder, which stays the caller's.

        Raises:
            BadInput: the archive's keyring is not installed.
            Unavailable: the index cannot be had or its signature does not hold.
        """
        if not KEYRING.is_file():
            raise BadInput(f"{KEYRING} is missing: `apt-get install debian-archive-keyring`")
        archive = cls(suite, home)
        for folder in ("lists/partial", "cache/archives/partial", "got"):
            (archive._home / folder).mkdir(parents=True)
        (archive._home / "status").touch()
        line = f"deb [signed-by={KEYRING}] {mirror} {suite} main\n"
        (archive._home / "sources.list").write_text(line)
        archive._apt("update", "--error-on=any")
        return archive

    def closure(self, name: str) -> list[tuple[str, str]]:
        """Return name and version of the package and of all it depends on."""
        told = self._apt("install", "--simulate", name)
        rows = [line.split() for line in told.splitlines() if line.startswith("Inst ")]
        return [(row[1], row[2].lstrip("(")) for row in rows]

    def download(self, packages: list[Package]) -> list[tuple[Package, Path]]:
        """Fetch these versions; every file has the pinned digest.

        Raises:
            Unavailable: a version is gone from the archive, or other bytes came.
        """
        got = self._home / "got"
        self._apt("download", *(f"{package.name}={package.version}" for package in packages), folder=got)
        files = {_field(file, "Package"): file for file in got.glob("*.deb")}
        for package in packages:
            if (digest := _digest(files[package.name])) != package.sha256:
                raise Unavailable(
                    f"{package.name} {package.version} has SHA-256 {digest}, not {package.sha256}"
                )
        return [(package, files[package.name]) for package in packages]

    def pin(self, names: list[tuple[str, str]]) -> list[tuple[Package, Path]]:
        """Fetch these versions, whatever their digests are, and return them pinned."""
        got = self._home / "got"
        self._apt("download", *(f"{name}={version}" for name, version in names), folder=got)
        files = sorted(got.glob("*.deb"))
        return [(Package(_field(f, "Package"), _field(f, "Version"), _digest(f) or ""), f) for f in files]

    def _apt(self, *arguments: str, folder: Path | None = None) -> str:
        own = {
            "Dir::Etc::sourcelist": self._home / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": self._home / "lists",
            "Dir::State::status": self._home / "status",
            "Dir::Cache": self._home / "cache",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::http::Timeout": "20",
            # An archive of a past day says truly that it is past; what comes has a pinned digest.
            "Acquire::Check-Valid-Until": "false",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
        }
        options = [part for key, value in own.items() for part in ("-o", f"{key}={value}")]
        command = ["apt-get", "-q", "-y", *options, *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            command, cwd=folder, env=environment, text=True, capture_output=True, check=False, timeout=600
        )
        if done.returncode:
            complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
            said = complaints[0][3:] if complaints else done.stderr.strip()[:200]
            raise Unavailable(f"Debian {self._suite}: apt-get {arguments[0]} failed: {said}")
        return done.stdout


def unpack(files: list[Path], into: Path) -> None:
    """Lay the packages' files out under a folder; none of their scripts runs."""
    for file in files:
        subprocess.run(["dpkg-deb", "--extract", str(file), str(into)], check=True, capture_output=True)


def mirror() -> str:
    """Return the mirror from which this machine gets Debian itself; its security archive has other suites."""
    told = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(SITE) $(REPO_URI) $(ORIGIN) $(LABEL)",
            "Created-By: Packages",
        ],
        text=True,
        capture_output=True,
        check=False,
    ).stdout
    for line in told.splitlines():
        _, repository, origin, label = [*line.split(), "", "", "", ""][:4]
        if (origin, label) == ("Debian", "Debian"):
            return repository
    return "http://deb.debian.org/debian"


def architecture() -> str:
    """Return what Debian calls this machine's kind of processor."""
    done = subprocess.run(["dpkg", "--print-architecture"], text=True, capture_output=True, check=True)
    return done.stdout.strip()


def _field(file: Path, field: str) -> str:
    done = subprocess.run(
        ["dpkg-deb", "--field", str(file), field], text=True, capture_output=True, check=True
    )
    return done.stdout.strip()


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
