"""Made packages: the same bytes each time, with signed sums and a bill of what is in them."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from deploy.debian import __main__ as package
from deploy.debian import archive, sums
from deploy.debian.contents import PACKAGES, Package
from deploy.debian.wheel import ROOT
from policies.model.errors import Unavailable

MOMENT = 1_700_000_000
MOST_INSTALLED = 150_000_000
SCRIPTS = ("postinst", "prerm", "postrm")
CONTROL = "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.invalid>\nDescription: tiny\n"


def tiny(folder: Path, *, mask: int, names: list[str]) -> Path:
    """A tree with a library that is marked as a program, a program, and a text, made in this order."""
    before = os.umask(mask)
    try:
        (folder / "DEBIAN").mkdir(parents=True)
        (folder / "DEBIAN/control").write_text(CONTROL)
        for name in names:
            (folder / name).write_bytes(b"#!/bin/sh\n" if name == "program" else name.encode())
            (folder / name).chmod(0o700 if name != "text" else 0o600)
    finally:
        os.umask(before)
    return folder


def test_a_package_has_the_same_bytes_whoever_makes_it_in_whatever_order(tmp_path: Path) -> None:
    names = ["library.so", "program", "text"]
    first = tiny(tmp_path / "a", mask=0o022, names=names)
    second = tiny(tmp_path / "b", mask=0o077, names=names[::-1])
    os.utime(second / "text", (1, 1))
    for tree in (first, second):
        archive.write(tree, tree.with_suffix(".deb"), MOMENT)
    made = [(tmp_path / name).read_bytes() for name in ("a.deb", "b.deb")]
    assert made[0] == made[1]
    listed = subprocess.run(
        ["dpkg-deb", "-c", tmp_path / "a.deb"], capture_output=True, text=True, check=True
    ).stdout
    rights = {line.split()[-1]: line.split()[:2] for line in listed.splitlines()}
    assert rights["./program"] == ["-rwxr-xr-x", "root/root"]
    assert rights["./library.so"] == rights["./text"] == ["-rw-r--r--", "root/root"]


INSTALLED = """
mount --bind default /etc/default && mount --bind group /etc/group
PATH=$PWD/programs:$PATH
sh "$1" configure && stat -c '%a %U:%G' "$2" && rm "$2" && sh "$1" configure
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a folder over /etc/default, for itself alone")
@pytest.mark.parametrize(
    ("package", "rights"), [(PACKAGES[0], "640 root:penstock"), (PACKAGES[1], "640 root:root")]
)
def test_an_installation_leaves_what_may_hold_passwords_to_those_who_need_it(
    tmp_path: Path, package: Package, rights: str
) -> None:
    for name in ("systemd-sysusers", "systemd-tmpfiles", "py3compile", "update-alternatives", "systemctl"):
        program = tmp_path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / package.name).touch(0o644)
    (tmp_path / "group").write_text(Path("/etc/group").read_text() + "penstock:x:4711:\n")
    script = os.fspath(package.folder / "DEBIAN/postinst")
    words = ["sh", "-c", INSTALLED, "sh", script, f"/etc/default/{package.name}"]
    done = subprocess.run(
        ["unshare", "--mount", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{rights}\n"


def test_the_sums_are_signed_by_the_key_that_was_named_and_told_when_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    words = [
        "gpg",
        "--batch",
        "--passphrase",
        "",
        "--quick-generate-key",
        "packages@b.invalid",
        "ed25519",
        "sign",
    ]
    subprocess.run(words, check=True, capture_output=True)
    made = tmp_path / "a.deb"
    made.write_bytes(b"bytes")
    try:
        written = sums.write([made], "packages@b.invalid")
        assert [path.name for path in written] == ["SHA256SUMS", "SHA256SUMS.asc"]
        assert written[0].read_text() == f"{hashlib.sha256(b'bytes').hexdigest()}  a.deb\n"
        verified = ["gpg", "--verify", str(written[1]), str(written[0])]
        subprocess.run(verified, check=True, capture_output=True)
        written[0].write_text("other")
        assert subprocess.run(verified, check=False, capture_output=True).returncode == 1
        with pytest.raises(Unavailable, match=r"gpg does not sign with nobody@b\.invalid"):
            sums.write([made], "nobody@b.invalid")
        assert not written[1].exists()  # a signature of other sums is not left beside these
    finally:
        subprocess.run(["gpgconf", "--kill", "gpg-agent"], check=False)


def test_scripts_of_the_packages_are_plain_shell_and_remove_nothing_that_was_written() -> None:
    for one in PACKAGES:
        for name in SCRIPTS:
            script = one.folder / "DEBIAN" / name
            subprocess.run(["dash", "-n", script], check=True)
            assert os.access(script, os.X_OK)
            assert not [
                line
                for line in script.read_text().splitlines()
                if "rm -r" in line or "/var/lib" in line.split("echo")[0]
            ]


def made_of_this_commit() -> list[Path]:
    """Return what `./run package` left in dist/, none where that is of another tree than this commit's."""
    changed = ["git", "status", "--porcelain"]
    if subprocess.run(changed, cwd=ROOT, capture_output=True, text=True, check=False).stdout:
        return []
    found = [path for path in (ROOT / "dist").glob("penstock*") if path.stat().st_size]
    of_commit = {path for path in found if path.suffix != ".deb" or _moment_of(path) == package.epoch()}
    names = (
        "penstock-*.whl",
        "penstock_*.deb",
        "penstock_*.json",
        "penstock-agent_*.deb",
        "penstock-agent_*.json",
    )
    made = [path for name in names for path in of_commit if path.match(name)]
    return made if len(made) == len(names) else []


def _moment_of(deb: Path) -> int:
    """Return the time that the files of a package have."""
    members = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(members)) as tree:
        return int(tree.next().mtime)  # type: ignore[union-attr]


@pytest.mark.sweep
@pytest.mark.timeout(1200)  # made twice, unless `./run package` has made them: five minutes of processor
def test_packages_are_the_same_bytes_each_time_small_and_without_errors_of_lintian(tmp_path: Path) -> None:
    second = package.make(tmp_path / "again", package.epoch())
    first = made_of_this_commit() or package.make(tmp_path / "once", package.epoch())
    assert [path.name for path in first] == [path.name for path in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    packages = [path for path in first if path.suffix == ".deb"]
    assert [path.name for path in packages] == ["penstock_0.1.0_amd64.deb", "penstock-agent_0.1.0_amd64.deb"]
    lintian = ["lintian", "--fail-on", "error", *map(str, packages)]
    done = subprocess.run(lintian, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    subprocess.run(["dpkg-deb", "-x", packages[1], tmp_path / "agent"], check=True)
    compiled = ["python3", "-m", "compileall", "-q", str(tmp_path / "agent")]
    subprocess.run(compiled, check=True, capture_output=True)  # as py3compile does when it is installed
    size = sum(path.lstat().st_size for path in (tmp_path / "agent").rglob("*") if path.is_file())
    assert size <= MOST_INSTALLED
    bill = json.loads(
        next(path for path in first if path.name.startswith("penstock-agent_0.1.0.cdx")).read_text()
    )
    assert bill["bomFormat"] == "CycloneDX"
    assert {one["name"] for one in bill["components"]} >= {"temporalio", "cryptography"}
    assert all(len(one["hashes"][0]["content"]) == 64 for one in bill["components"])
