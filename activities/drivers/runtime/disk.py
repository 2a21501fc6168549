"""Changes on disk that are either whole or not there, also after a power cut."""

import os
from pathlib import Path


def write_whole(path: Path, content: str) -> None:
    """Replace the file's content in one step."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


def point(link: Path, target: Path) -> None:
    """Have the symbolic link lead to the target, in one step, by a path relative to its own folder."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.parent))
    new.replace(link)
    sync_folder(link.parent)


def sync_folder(folder: Path) -> None:
    """Have the folder's entries on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Have every file and folder below on disk."""
    for path, _, names in os.walk(folder):
        for name in names:
            if not (file := Path(path, name)).is_symlink():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        sync_folder(Path(path))


def size_of(folder: Path) -> int:
    """Return the bytes of all files below."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
