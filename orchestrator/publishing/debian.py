"""Debian packages as files: fetched from an archive without touching this machine's own apt, and unpacked.

apt checks the archive's signature and its index. No script of a package ever runs.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from orchestrator.publishing.linking import Root
from orchestrator.publishing.tree import lay_out
from policies.model.errors import BadInput, Unavailable

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Package:
    """One package: its exact version and the SHA-256 of its file."""

    name: str
    version: str
    sha256: str


class Archive:
    """A view of one Debian suite with its own index, cache and empty package database.

    Proxy and certificates are those this machine is configured with.
    """

    def __init__(self, suite: str, home: Path) -> None:
        self._suite = suite
        self._home = home.absolute()

    @classmethod
    def read(cls, suite: str, home: Path, mirror: str, keyring: Path = KEYRING) -> Self:
        """Read the suite's signed index into a new folder, which stays the caller's.

        Raises:
            BadInput: the archive's keyring, or apt itself, is not installed.
            Unavailable: the index cannot be had or its signature does not hold.
        """
        require_tools()
        if not keyring.is_file():
            raise BadInput(f"{keyring} is missing: `apt-get install debian-archive-keyring`")
        archive = cls(suite, home)
        for folder in ("lists/partial", "cache/archives/partial", "got"):
            (archive._home / folder).mkdir(parents=True)
        (archive._home / "status").touch()
        line = f"deb [signed-by={keyring.absolute()}] {mirror} {suite} main\n"
        (archive._home / "sources.list").write_text(line)
        archive._apt("update", "--error-on=any")
        return archive

    def closure(self, *names: str) -> list[tuple[str, str]]:
        """Return name and version of these packages and of all they depend on.

        A name with a slash is a package's file.

        Raises:
            Unavailable: the archive does not have one of them.
        """
        told = self._apt("install", "--simulate", *names)
        rows = [line.split() for line in told.splitlines() if line.startswith("Inst ")]
        return [(row[1], row[2].lstrip("(")) for row in rows]

    def pin(self, names: list[tuple[str, str]]) -> list[tuple[Package, Path]]:
        """Fetch these versions as the signed index has them, and return them with their digests."""
        got = self._home / "got"
        self._apt("download", *(f"{name}={version}" for name, version in names), folder=got)
        files = sorted(got.glob("*.deb"))
        return [(described(file), file) for file in files]

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


@contextmanager
def package_root(
    packages: Sequence[str], suite: str, mirror_url: str | None = None
) -> Iterator[tuple[Path, tuple[Package, ...]]]:
    """Give a folder with these packages unpacked, for a moment, and which they were.

    Files are taken as they are. Names come from the suite with all they depend on, and then so does what
    the files depend on.

    Raises:
        BadInput: a file is no package, or Debian's own tools are missing.
        Unavailable: the archive cannot be read, or has no such package.
    """
    require_tools()
    own = [Path(name).absolute() for name in packages if name.endswith(".deb")]
    names = [name for name in packages if not name.endswith(".deb")]
    found = [(described(file), file) for file in own]
    with tempfile.TemporaryDirectory(prefix="penstock-tree-") as made:
        home, root = Path(made), Path(made, "root")
        if names:
            archive = Archive.read(suite, home / "archive", mirror_url or mirror())
            given = {package.name for package, _ in found}
            closure = archive.closure(*names, *map(str, own))
            found += archive.pin([one for one in closure if one[0] not in given])
        lay_out(root)
        unpack([file for _, file in found], root)
        yield root, tuple(sorted((package for package, _ in found), key=lambda one: one.name))


def unpack(files: Sequence[Path], into: Path) -> None:
    """Lay the packages' files out under a folder; none of their scripts runs.

    Each is unpacked alone and then moved there along the folder's own links: what one package has beside a
    link of another one is written inside the folder, and nowhere else on this machine. Devices stay away.

    Raises:
        BadInput: one of them is no Debian package, is damaged, or has files that would lie elsewhere.
    """
    require_tools()
    root = Root(into)
    for file in files:
        with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=into.parent) as alone:
            command = ["dpkg-deb", "--extract", str(file), alone]
            done = subprocess.run(command, text=True, capture_output=True, check=False)
            if done.returncode:
                raise BadInput(f"{file} cannot be unpacked as a Debian package: {_last_line(done.stderr)}")
            try:
                _move(Path(alone), root)
            except OSError as error:
                wrong = f"{file} cannot be laid out beside the packages before it: {error.strerror}"
                raise BadInput(wrong) from error


def _move(package: Path, root: Root, at: str = "") -> None:
    """Move what is below a folder of an unpacked package to the same place of the root."""
    there = root.path / root.place(at)
    there.mkdir(parents=True, exist_ok=True)
    for one in sorted((package / at).iterdir()):
        if one.is_dir() and not one.is_symlink():
            _move(package, root, f"{at}/{one.name}".lstrip("/"))
        elif one.is_symlink() and (there / one.name).is_dir():
            continue  # as dpkg does: a folder that is there stays one
        elif one.is_symlink() or one.is_file():
            one.replace(there / one.name)


def described(file: Path) -> Package:
    """Return what a package's file says it is.

    Raises:
        BadInput: it is no Debian package.
    """
    require_tools()
    return Package(field(file, "Package"), field(file, "Version"), digest_of_file(file) or "")


def require_tools() -> None:
    """Refuse a machine where Debian's own tools are missing.

    Raises:
        BadInput: with what to do instead.
    """
    if missing := [name for name in ("apt-get", "dpkg-deb", "dpkg") if shutil.which(name) is None]:
        raise BadInput(
            f"{missing[0]} is not on this machine; make the tree on a Debian, or of a folder (--directory)"
        )


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


def field(file: Path, name: str) -> str:
    """Return a field of a package's description.

    Raises:
        BadInput: the file is no Debian package.
    """
    command = ["dpkg-deb", "--field", str(file), name]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise BadInput(f"{file} is no Debian package: {_last_line(done.stderr)}")
    return done.stdout.strip()


def digest_of_file(file: Path) -> str | None:
    """Return the SHA-256 of a file in hex, None where there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _last_line(said: str) -> str:
    return (said.strip().splitlines() or ["no reason"])[-1][:200]
