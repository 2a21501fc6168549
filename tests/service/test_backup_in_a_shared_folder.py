"""A backup of the ledger writes to no file that another user has put into its folder."""

import stat
from pathlib import Path

import pytest

from orchestrator.store.ledger import Ledger
from tests.fakes.ledgers import new_ledger
from tests.service.command_line import CommandLine
from tests.service.test_bad_inputs import ALONE


def used_ledger(file: Path) -> str:
    """Return the address of a ledger with an entry: a backup of an empty one is refused."""
    address = new_ledger(file)
    ledger = Ledger.open(address)
    ledger.audit("ana", "cli", "planned", "edge", {})
    ledger.close()
    return address


async def backed_up(to: Path, ledger: str, state: Path) -> int:
    environment = ALONE | {"PENSTOCK_STATE": str(state), "PENSTOCK_LEDGER_URL": ledger}
    return (await CommandLine(environment)("ledger", "backup", str(to))).code


def parts_in(folder: Path) -> list[Path]:
    return [*folder.glob(".*.part")]


@pytest.mark.parametrize("name", [".ledger.jsonl.part", ".ledger.jsonl.0a1b2c3d.part"])
async def test_a_backup_writes_through_no_link_that_lies_in_its_folder(tmp_path: Path, name: str) -> None:
    target = tmp_path / "precious"
    target.write_text("as it was")
    (tmp_path / name).symlink_to(target)
    to = tmp_path / "ledger.jsonl"
    assert await backed_up(to, used_ledger(tmp_path / "ledger.db"), tmp_path) == 0
    assert target.read_text() == "as it was"
    assert stat.S_IMODE(to.stat().st_mode) == 0o600


async def test_a_backup_removes_what_a_killed_one_has_left(tmp_path: Path) -> None:
    (tmp_path / ".ledger.jsonl.0a1b2c3d.part").write_text("half of a ledger")
    await backed_up(tmp_path / "ledger.jsonl", used_ledger(tmp_path / "ledger.db"), tmp_path)
    assert not parts_in(tmp_path)
