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


def test_another_owner_of_a_rooms_name_is_refused_by_its_own_name() -> None:
    with pytest.raises(BadInput, match="uninstall llama-index-workflows"):
        refuse_foreign_owners({"workflows": ["penstock", "llama-index-workflows"]})
    refuse_foreign_owners({"workflows": ["penstock", "penstock"], "yaml": ["pyyaml"]})
