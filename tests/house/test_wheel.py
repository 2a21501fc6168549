"""What is installed is exactly the four rooms, and nobody else owns their names."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from orchestrator.installation import ROOMS, refuse_foreign_owners, refuse_strangers
from policies.model.errors import BadInput
from tests.house.tree import ROOT


def test_the_wheel_holds_the_four_rooms_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(archive.read(n).decode() for n in names if n.endswith(".dist-info/METADATA"))
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == set(ROOMS)
    assert "Classifier: Private :: Do Not Upload" in metadata


def test_the_rooms_in_this_environment_are_ours() -> None:
    refuse_strangers()


@pytest.mark.parametrize(
    ("told", "listed"), [("RECORD", "workflows/retry.py,,"), ("top_level.txt", "workflows")]
)
def test_another_owner_of_a_rooms_name_is_refused_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, listed: str
) -> None:
    installed = tmp_path / "llama_index_workflows-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: llama-index-workflows\nVersion: 1.0\n")
    (installed / told).write_text(f"llama_index/__init__.py,,\n{listed}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match="uninstall llama-index-workflows"):
        refuse_strangers()
    monkeypatch.undo()
    refuse_strangers()
    with pytest.raises(BadInput, match="uninstall llama-index-workflows"):
        refuse_foreign_owners({"workflows": ["penstock", "llama-index-workflows"]})
    refuse_foreign_owners({"workflows": ["penstock", "penstock"], "yaml": ["pyyaml"]})
