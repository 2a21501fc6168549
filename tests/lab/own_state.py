"""A state folder of a lab's own, where the packages lie that this machine has fetched already."""

from pathlib import Path

from deploy.lab import packages

SHARED = Path(__file__).parents[2] / ".state" / "lab" / "cache" / "packages"
"""Where labs without a folder of their own keep them."""


def own_state(folder: Path) -> Path:
    """Make the folder and return it; nothing but the packages is there from labs before.

    Raises:
        Unavailable: This machine has not all of them, and they cannot be fetched.
    """
    packages.fetch(SHARED)
    cache = folder / "lab" / "cache"
    cache.mkdir(parents=True)
    (cache / SHARED.name).symlink_to(SHARED)
    return folder
