"""Fleets from a folder of files: one that is wrong takes itself away, and no other."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from activities.files import FleetFiles, load
from policies.model.errors import BadInput
from policies.model.fleet import Fleet

API, OTHER = 64_002, 64_009
FLEET = """\
apiVersion: penstock/v1
name: {name}
product: ocserv
gateways:
  - name: gw-1
    addresses: [{address}]
    slots:
      - {{name: a, port: 4441, device: oca, pool4: 10.0.0.0/24}}
      - {{name: b, port: 4442, device: ocb, pool4: 10.0.1.0/24}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "edge.yaml").write_text(FLEET.format(name="edge", address="192.0.2.1"))
    (tmp_path / "core.yaml").write_text(FLEET.format(name="core", address="192.0.2.2"))
    return tmp_path


def test_a_folder_has_the_fleet_of_each_file_and_a_file_has_one(folder: Path) -> None:
    assert sorted(FleetFiles(folder).all()) == ["core", "edge"]
    assert sorted(FleetFiles(folder / "edge.yaml").all()) == ["edge"]


def test_a_file_that_is_wrong_takes_its_own_fleet_away_and_no_other(folder: Path) -> None:
    files = FleetFiles(folder)
    assert files.wrong() == ()
    (folder / "core.yaml").write_text("name: core\n")
    assert sorted(files.all()) == ["edge"]
    (wrong,) = files.wrong()
    assert "core.yaml, line" in str(wrong)
    with pytest.raises(BadInput, match=r"not core; .*core\.yaml, line"):
        files.fleet("core")
    (folder / "core.yaml").write_text(FLEET.format(name="core", address="192.0.2.2"))
    assert files.fleet("core").name == "core"


def test_of_two_files_that_describe_one_fleet_neither_is_believed(folder: Path) -> None:
    (folder / "again.yaml").write_text(FLEET.format(name="edge", address="192.0.2.9"))
    files = FleetFiles(folder)
    assert sorted(files.all()) == ["core"]
    assert "both describe the fleet edge" in str(files.wrong()[0])


def test_a_gateway_is_found_by_where_it_is_scraped_also_after_its_file_has_changed(folder: Path) -> None:
    files = FleetFiles(folder)
    found = files.fleets_at(["192.0.2.2:9500"]).get("core")
    assert found is not None
    assert found.name == "core"
    assert files.gateway_at("192.0.2.9:9500") is None
    (folder / "core.yaml").write_text(FLEET.format(name="core", address="192.0.2.9"))
    assert files.gateway_at("192.0.2.9:9500") is not None
    assert files.fleets_at(["192.0.2.2:9500"]) == {}


def test_gateways_of_one_name_in_two_fleets_have_queues_of_their_own(folder: Path) -> None:
    queues = {fleet.gateways[0].task_queue for fleet in FleetFiles(folder).all().values()}
    assert queues == {"gateway/edge/gw-1", "gateway/core/gw-1"}


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("penstock/v1", "penstock/v2", "line 1"),
        ("    addresses", "    fleet: core\n    addresses", "says that it is of core; this is edge"),
        ("    addresses", "    runtime: docker\n    addresses", "line 6"),
    ],
)
def test_what_a_fleets_file_is_not_is_said_by_line(
    before: str, after: str, sentence: str, folder: Path
) -> None:
    path = folder / "edge.yaml"
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(BadInput, match=sentence):
        load(path, Fleet)


def test_a_file_without_a_version_is_of_the_first_one(folder: Path) -> None:
    path = folder / "edge.yaml"
    path.write_text(path.read_text().removeprefix("apiVersion: penstock/v1\n"))
    assert load(path, Fleet).api_version == "penstock/v1"


LOOSE: dict[str, Callable[[Path], None]] = {
    "written by the group": lambda file: file.chmod(0o664),
    "written by all": lambda file: file.chmod(0o666),
    "in a folder of the group": lambda file: file.parent.chmod(0o775),
    "of another user": lambda file: os.chown(file, OTHER, -1),
    "in a folder of another user": lambda file: os.chown(file.parent, OTHER, -1),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("how", LOOSE)
def test_a_fleet_that_another_user_may_describe_is_left_alone_until_that_is_mended(
    folder: Path, how: str
) -> None:
    """S6: an orchestrator trusted a fleet.yaml that everybody could write."""
    file = folder / "edge.yaml"
    files = FleetFiles(file, of=API)
    assert sorted(files.all()) == ["edge"]
    LOOSE[how](file)
    [wrong] = files.wrong()
    assert str(file) in str(wrong)
    assert files.all() == {}
    with pytest.raises(BadInput, match=r"chmod go-w|chown 0"):
        files.fleet("edge")
    for mended, mode in ((file, 0o640), (folder, 0o2750)):
        os.chown(mended, API, -1)
        mended.chmod(mode)
    assert sorted(files.all()) == ["edge"]
