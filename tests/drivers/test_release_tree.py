"""Trees are made of packages and folders with exactly what their programs load, and nothing else."""

import io
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import release
from orchestrator.publishing.debian import package_root, unpack
from orchestrator.publishing.linking import Root
from orchestrator.publishing.tree import MOUNT_POINTS, collect, lay_out
from policies.model.errors import BadInput

DAEMON = "usr/sbin/daemon"
SLEEP = Path("/bin/sleep")
"""A small real program: it needs the loader and the C library alone."""


def needed() -> list[str]:
    """What the real loader of this machine loads for the program."""
    told = subprocess.run(["ldd", SLEEP], text=True, capture_output=True, check=True).stdout
    return [word for line in told.splitlines() for word in line.split() if word.startswith("/")]


def deb(folder: Path, name: str, files: dict[str, Path]) -> Path:
    """Build a real package of copies of these files."""
    root = folder / name
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN").chmod(0o755)  # whatever this process's umask: dpkg-deb wants it so
    lines = [
        f"Package: {name}",
        "Version: 1.0-1",
        "Architecture: all",
        "Maintainer: a test",
        "Description: -",
    ]
    (root / "DEBIAN/control").write_text("\n".join(lines) + "\n")
    (root / "DEBIAN/control").chmod(0o644)
    for path, source in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, root / path)
        (root / path).chmod(0o755)
    file = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", root, file], check=True, capture_output=True)
    return file


@pytest.fixture
def packages(tmp_path: Path) -> tuple[Path, Path]:
    """Return a package of a program, and one of all that it loads."""
    libraries = {path.lstrip("/"): Path(path) for path in needed()}
    return deb(tmp_path, "daemon", {DAEMON: SLEEP}), deb(tmp_path, "libraries", libraries)


def everything(tree: Path) -> list[tuple[str, int, float, bytes]]:
    return [
        (
            path.relative_to(tree).as_posix(),
            path.lstat().st_mode,
            path.lstat().st_mtime,
            path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else b"",
        )
        for path in sorted([tree, *tree.rglob("*")])
    ]


def make(into: Path, *arguments: str) -> str:
    """Make a tree on the command line; return what was said, or raise the refusal."""
    result = CliRunner().invoke(release.app, ["tree", str(into), "--program", f"/{DAEMON}", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def of(packages: tuple[Path, ...]) -> list[str]:
    return [word for package in packages for word in ("--package", str(package))]


def test_a_tree_of_packages_holds_what_the_real_loader_loads(
    tmp_path: Path, packages: tuple[Path, Path]
) -> None:
    said = make(tmp_path / "tree", *of(packages))
    assert "daemon 1.0-1 sha256:" in said
    files = {path.name for path in (tmp_path / "tree").rglob("*") if path.is_file() and not path.is_symlink()}
    assert files == {"daemon", "passwd", "group", *(Path(path).name for path in needed())}
    assert all((tmp_path / "tree" / place).is_dir() for place in MOUNT_POINTS)


def test_the_same_packages_make_the_same_tree(tmp_path: Path, packages: tuple[Path, Path]) -> None:
    for name in ("one", "two"):
        make(tmp_path / name, *of(packages))
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_a_library_that_no_package_brings_is_named_with_who_needs_it(
    tmp_path: Path, packages: tuple[Path, Path]
) -> None:
    with pytest.raises(BadInput, match=r"lacks /lib\S+ \(needed by usr/sbin/daemon\), libc\.so\.6 "):
        make(tmp_path / "tree", *of(packages[:1]))
    assert not (tmp_path / "tree").exists()
    assert list(tmp_path.glob(".tree*")) == []


def test_a_tree_of_a_folder_follows_its_links_and_never_out_of_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "opt").mkdir(parents=True)
    for path in needed():
        (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, root / path.lstrip("/"))
    shutil.copyfile(SLEEP, root / "opt/daemon-1.2")
    (root / "usr/sbin").mkdir(parents=True, exist_ok=True)
    (root / DAEMON).symlink_to("/opt/daemon-1.2")
    collect(root, tmp_path / "tree", [DAEMON])
    assert (tmp_path / "tree" / DAEMON).read_bytes() == SLEEP.read_bytes()
    (root / DAEMON).unlink()
    (root / DAEMON).symlink_to("../../../outside")
    with pytest.raises(BadInput, match="leads out of the tree"):
        collect(root, tmp_path / "other", [DAEMON])


def bare_deb(folder: Path, name: str, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """Build a package with exactly these members, as dpkg-deb itself never would."""
    control = f"Package: {name}\nVersion: 1.0-1\nArchitecture: all\nMaintainer: a test\nDescription: -\n"
    parts = {"debian-binary": b"2.0\n"}
    for part, inside in (
        ("control.tar", [(tarfile.TarInfo("./control"), control.encode())]),
        ("data.tar", members),
    ):
        with tarfile.open(folder / part, "w") as archive:
            for info, content in inside:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        parts[part] = (folder / part).read_bytes()
    file = folder / f"{name}.deb"
    written = b"!<arch>\n"
    for part, said in parts.items():
        head = f"{part:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(said):<10}`\n"
        written += head.encode() + said + b"\n" * (len(said) % 2)
    file.write_bytes(written)
    return file


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = tarfile.SYMTYPE, target
    return made, b""


def test_a_package_writes_through_no_link_of_another_one_to_this_machine(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    job = bare_deb(tmp_path, "job", (tarfile.TarInfo("./usr/share/x/job"), b"* * * * * root id\n"))
    unpack([bare_deb(tmp_path, "whole", link("./usr/share/x", str(outside))), job], root)
    assert [path.name for path in (root / str(outside).lstrip("/")).iterdir()] == ["job"]
    (root / "usr/share/x").unlink()
    with pytest.raises(BadInput, match="leads out of the tree"):
        unpack([bare_deb(tmp_path, "short", link("./usr/share/x", "../../../outside")), job], root)
    assert list(outside.iterdir()) == []


def test_packages_of_a_merged_usr_and_of_before_meet_in_one_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    lay_out(root)
    before = deb(tmp_path, "before", {"lib/libold.so": SLEEP, "usr/share/doc/a": SLEEP})
    merged = deb(tmp_path, "merged", {"usr/lib/libnew.so": SLEEP, "usr/share/doc/b": SLEEP})
    unpack([before, merged], root)
    assert (root / "lib").readlink() == Path("usr/lib")
    assert {path.name for path in (root / "usr/lib").iterdir()} == {"libold.so", "libnew.so"}
    assert {path.name for path in (root / "usr/share/doc").iterdir()} == {"a", "b"}


def test_modules_that_are_opened_later_come_along_with_what_they_load(
    tmp_path: Path, packages: tuple[Path, Path]
) -> None:
    module = deb(tmp_path, "module", {"usr/lib/security/pam_mine.so": SLEEP, "etc/mine.conf": Path(__file__)})
    also = ["--also", "/usr/lib/security", "--also", "etc/mine.conf"]
    make(tmp_path / "tree", *of((*packages, module)), *also)
    assert (tmp_path / "tree/usr/lib/security/pam_mine.so").stat().st_mode & 0o777 == 0o755
    with pytest.raises(BadInput, match="has no usr/share/none"):
        make(tmp_path / "other", *of(packages), "--also", "usr/share/none")


def test_a_link_to_a_file_of_this_machine_brings_nothing_of_it_along(
    tmp_path: Path, packages: tuple[Path, Path]
) -> None:
    linked = bare_deb(tmp_path, "linked", link("./opt/modules/mine", "/etc/passwd"))
    make(tmp_path / "tree", *of((*packages, linked)), "--also", "opt/modules")
    assert not (tmp_path / "tree/opt").exists()


def test_what_is_no_package_or_no_program_is_named(tmp_path: Path, packages: tuple[Path, Path]) -> None:
    (tmp_path / "wrong.deb").write_text("nothing of the kind")
    with pytest.raises(BadInput, match=r"wrong\.deb is no Debian package"):
        make(tmp_path / "tree", "--package", str(tmp_path / "wrong.deb"))
    with package_root([str(package) for package in packages], "stable") as (root, _):
        (root / DAEMON).write_bytes(SLEEP.read_bytes()[:100])
        with pytest.raises(BadInput, match=r"sbin/daemon is a damaged program"):
            collect(root, tmp_path / "tree", [DAEMON])
        (root / DAEMON).write_text("#!/usr/bin/python9\n")
        assert [str(one) for one in Root(root).closure([DAEMON]).missing] == [
            "/usr/bin/python9 (needed by usr/sbin/daemon)"
        ]


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, packages: tuple[Path, Path]) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/mine").touch()
    with pytest.raises(BadInput, match="is there already"):
        make(tmp_path / "tree", *of(packages))
    with pytest.raises(BadInput, match="say what the tree is made of"):
        make(tmp_path / "other")
