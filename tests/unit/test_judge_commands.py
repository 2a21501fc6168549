"""`penstock judge lint` and `penstock judge replay`, over files."""

import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from activities.drivers.metrics.records import FolderRecorder, read_record
from activities.files import FleetFiles
from activities.observation import ObservationOrder
from orchestrator.cli.judge import app
from orchestrator.processes.worker import KEPT_AT_LEAST, keep_expiring
from orchestrator.settings import Settings
from policies.judge.tick import Tick
from policies.model.errors import BadInput
from tests.patience import until
from tests.unit.judged import COHORTS, counted, policy

DEPLOY = Path(__file__).parents[2] / "deploy"


def run(*arguments: str) -> Result:
    """Run a command; errors meant for people come back as they are."""
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, BadInput):
        raise result.exception
    return result


def recorded(folder: Path, ticks: Sequence[Tick]) -> Path:
    gates = policy()
    order = ObservationOrder(
        rollout="r-1", wave=1, gates=gates, cohorts=COHORTS, window=gates.window, slice=timedelta(0)
    )

    async def record_all() -> None:
        for tick in ticks:
            await FolderRecorder(folder).record(order, tick)

    asyncio.run(record_all())
    return folder / "r-1-1.window"


BROKEN = [counted(t, (2, 2), (2, 0)) for t in range(12)]


def test_lint_says_how_long_the_policy_needs() -> None:
    result = run("lint", str(DEPLOY / "lab/gates.yaml"), "--attempts", "120")
    assert result.exit_code == 0
    assert "connect-success: healthy after 14 s" in result.output
    slow = json.loads(
        run("lint", str(DEPLOY / "prometheus/gates.yaml"), "--attempts", "3", "-o", "json").output
    )
    assert "cannot be decided in 20 min" in slow["data"]["predictions"][0]["advice"]


def test_lint_refuses_a_policy_that_could_never_promote(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text("name: nothing\ngates: []\n")
    with pytest.raises(BadInput, match="nothing could ever be promoted"):
        run("lint", str(path))


def test_replay_tells_what_happened_again(tmp_path: Path) -> None:
    result = run("replay", str(recorded(tmp_path, BROKEN)))
    assert result.exit_code == 0
    assert result.output.startswith("recorded policy: roll back after")


def test_replay_ends_with_ten_when_another_policy_would_have_ended_otherwise(tmp_path: Path) -> None:
    shadow = tmp_path / "shadow.yaml"
    shadow.write_text(policy(shadow=True).model_dump_json())
    result = run("replay", str(recorded(tmp_path, BROKEN)), "--policy", str(shadow))
    assert result.exit_code == 10
    assert "shadow: would roll back" in result.output


def test_a_tick_recorded_twice_counts_once_and_half_a_line_not_at_all(tmp_path: Path) -> None:
    path = recorded(tmp_path, [*BROKEN, BROKEN[-1]])
    path.write_bytes(path.read_bytes() + b"eJyrVk")
    assert read_record(path).ticks == tuple(BROKEN)
    recorded(tmp_path, [counted(12, (2, 2), (2, 0))])
    assert len(read_record(path).ticks) == len(BROKEN) + 1


def test_a_record_takes_a_small_part_of_what_its_ticks_take(tmp_path: Path) -> None:
    rows = {f"10.0.{n // 250}.{n % 250}:9500": (7, n % 60 == 0) for n in range(400)}
    ticks = [Tick(at=1000.0 + 15 * n, counts={"logins": rows}) for n in range(20)]
    path = recorded(tmp_path, ticks)
    assert read_record(path).ticks == tuple(ticks)
    assert path.stat().st_size < sum(len(tick.model_dump_json()) for tick in ticks) / 5


def test_a_record_goes_when_nothing_was_added_to_it_for_as_long_as_evidence_is_kept(tmp_path: Path) -> None:
    path, now = recorded(tmp_path, BROKEN), datetime.now(UTC)
    assert FolderRecorder(tmp_path).expire(now - timedelta(hours=1)) == 0
    assert path.exists()
    assert FolderRecorder(tmp_path).expire(now + timedelta(hours=1)) == 1
    assert not path.exists()
    assert FolderRecorder(tmp_path / "never made").expire(now) == 0


def test_the_worker_removes_records_that_are_older_than_any_fleet_keeps_its_evidence(tmp_path: Path) -> None:
    """D15."""
    folder = tmp_path / "windows"
    old, recent = recorded(folder, BROKEN), folder / "recent.window"
    shutil.copy(old, recent)
    long_ago = (datetime.now(UTC) - KEPT_AT_LEAST - timedelta(minutes=1)).timestamp()
    os.utime(old, (long_ago, long_ago))
    settings = Settings(
        snapshots=tmp_path / "snapshots", ledger_url=f"sqlite:///{tmp_path / 'ledger.db'}", windows=folder
    )

    async def expire() -> None:
        expiring = asyncio.create_task(keep_expiring(settings, FleetFiles(tmp_path / "fleets")))
        await until(lambda: not old.exists())
        expiring.cancel()

    asyncio.run(expire())
    assert [*folder.iterdir()] == [recent]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "is empty"), (b"{}\n", "line 1 is not part"), (b"<html>\n", "line 1 is not part")],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "r.window"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=sentence):
        run("replay", str(path))


def test_a_record_damaged_in_its_middle_is_refused_by_line(tmp_path: Path) -> None:
    path = recorded(tmp_path, BROKEN)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"eJyrVk\n", *lines[3:]]))
    with pytest.raises(BadInput, match="line 4 is not part"):
        run("replay", str(path))
