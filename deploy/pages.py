"""Generated files of a folder, such as pages of the reference: only what is new is written."""

from collections.abc import Mapping
from pathlib import Path


def write_new(folder: Path, texts: Mapping[str, str]) -> list[str]:
    """Ensure that the folder has these texts by the names of their files; return the names that were new."""
    folder.mkdir(parents=True, exist_ok=True)
    new = []
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            new.append(name)
    return new
