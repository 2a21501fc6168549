"""What small images of tests are made of."""

from pathlib import Path

from orchestrator.publishing.image import BuiltImage, ImageLabels, build_image
from tests.fakes.trees import small_tree


def small_shell(folder: Path) -> Path:
    """Make what stands for the static shell."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "busybox"
    path.write_bytes(b"stands for the static shell\n")
    return path


def small_image(folder: Path, *, marker: bytes = b"", version: str = "1.0") -> BuiltImage:
    """Make a small tree and the image of it."""
    tree, _ = small_tree(folder, marker=marker)
    return build_image(tree, small_shell(folder), ImageLabels("gw", version), folder / "image")
