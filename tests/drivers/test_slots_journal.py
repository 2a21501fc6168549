import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.drivers.disk import write_whole
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from policies.model.errors import Fenced
from policies.model.operation import BREAK_GLASS
from tests.drivers.gateway_lab import operation
from tests.drivers.small_disk import fill
from tests.drivers.small_disk import small_disk as mounted
from tests.patience import PATIENCE

WRITER = """
import sys
from pathlib import Path
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from tests.drivers.gateway_lab import operation
journal = Journal(Path(sys.argv[1]), HostBounds("gw-1"))
for number in range(20):
    order = operation(f"{sys.argv[2]}-{number}")
    journal.admit(order)
    journal.finish(order, {"number": number})
"""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl", HostBounds("gw-1"))


def test_a_new_journal_is_in_epoch_zero_and_admits_anybody(journal: Journal) -> None:
    assert journal.epoch == 0
    assert journal.admit(operation("stage", epoch=3)) is None
    assert journal.epoch == 3


def test_a_fence_that_was_only_reset_belongs_to_the_first_order_of_its_epoch(journal: Journal) -> None:
    """A5, D2."""
    journal.admit(operation("stage", epoch=3))
    assert journal.owner == (3, operation("stage").rollout)
    epoch = journal.reset("ana: the orchestrator is not to be obeyed")
    assert journal.owner == (epoch, "")
    journal.admit(operation("steer", epoch=epoch).model_copy(update={"rollout": BREAK_GLASS}))
    assert journal.owner == (epoch, BREAK_GLASS)
    with pytest.raises(Fenced):
        journal.admit(operation("stop", epoch=epoch))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    with mounted(tmp_path / "disk") as disk:
        yield disk


def test_a_full_disk_takes_the_fence_of_a_way_back_and_no_torn_line(small_disk: Path) -> None:
    path = small_disk / "penstock" / "journal.jsonl"
    journal = Journal(path, HostBounds("gw-1"))
    journal.admit(operation("start"))
    fill(small_disk)
    for epoch in range(2, 40):
        assert journal.fence(operation("fence", epoch=epoch)) == epoch
    journal.reserve.spend_for(lambda: write_whole(path.with_name("steering.json"), '{"serving": "a"}'))
    assert Journal(path, HostBounds("gw-1")).epoch == 39
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == list(range(1, 40))


def test_a_disk_without_any_room_left_is_said_and_leaves_the_journal_whole(small_disk: Path) -> None:
    path = small_disk / "journal.jsonl"
    journal = Journal(path, HostBounds("gw-1"))
    journal.admit(operation("start"))
    path.with_name("reserve").unlink()
    fill(small_disk)
    before = path.read_bytes()

    def fence_on_and_on() -> None:
        for epoch in range(2, 100):
            journal.fence(operation("fence", epoch=epoch))

    with pytest.raises(OSError, match="Errno 28"):
        fence_on_and_on()
    lines = path.read_bytes()
    assert lines.startswith(before)
    assert lines.endswith(b"\n")


def test_the_result_of_an_operation_outlives_the_process(journal: Journal, tmp_path: Path) -> None:
    journal.admit(operation("start"))
    journal.finish(operation("start"), {"slot": "b"})
    assert Journal(tmp_path / "journal.jsonl", HostBounds("gw-1")).admit(operation("start")) == {"slot": "b"}


def test_a_repeat_writes_nothing_new(journal: Journal) -> None:
    for _ in range(3):
        journal.admit(operation("start"))
        journal.finish(operation("start"), {"slot": "b"})
    assert [entry["kind"] for entry in journal.entries()] == ["intent", "result"]


def test_an_older_epoch_is_refused_before_anything_is_written(journal: Journal) -> None:
    journal.fence(operation("fence", epoch=5))
    with pytest.raises(Fenced, match="epoch 5"):
        journal.admit(operation("start", epoch=4))
    assert len(journal.entries()) == 1


def test_an_operation_overtaken_on_its_way_finds_out(journal: Journal) -> None:
    journal.admit(operation("start", epoch=4))
    journal.fence(operation("fence", rollout="r-2", epoch=5))
    with pytest.raises(Fenced):
        journal.check(operation("start", epoch=4))


def test_a_fence_repeated_is_one_fence(journal: Journal) -> None:
    for _ in range(3):
        journal.fence(operation("fence", epoch=2))
    assert len(journal.entries()) == 1


def test_the_epoch_grows_over_rollouts(journal: Journal) -> None:
    journal.fence(operation("fence", rollout="r-1", epoch=2))
    journal.fence(operation("fence", rollout="r-2", epoch=3))
    with pytest.raises(Fenced):
        journal.fence(operation("fence", rollout="r-1", epoch=2))
    assert journal.epoch == 3


@pytest.mark.parametrize(
    "torn", [b'{"kind": "fence", "epoch": 9', b"\0\0\0\0", b'{"kind": "fence"}garbage\n']
)
def test_a_torn_last_line_is_as_if_never_written(journal: Journal, tmp_path: Path, torn: bytes) -> None:
    journal.fence(operation("fence", epoch=2))
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(torn)
    assert journal.epoch == 2
    journal.admit(operation("start", epoch=2))
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["fence", "intent"]


def test_every_truncation_leaves_a_journal_that_works(journal: Journal, tmp_path: Path) -> None:
    journal.fence(operation("fence", epoch=2))
    journal.admit(operation("start", epoch=2))
    whole = (tmp_path / "journal.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(len(whole)):
        (tmp_path / "cut.jsonl").write_bytes(whole[:length])
        cut = Journal(tmp_path / "cut.jsonl", HostBounds("gw-1"))
        assert cut.epoch == (2 if length >= first else 0)
        cut.admit(operation("again", epoch=2))
        assert cut.entries()[-1]["step"] == "again"


def test_two_processes_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in ("one", "two")]
    assert [writer.wait(PATIENCE) for writer in writers] == [0, 0]
    kinds = [entry["kind"] for entry in Journal(path, HostBounds("gw-1")).entries()]
    assert (kinds.count("intent"), kinds.count("result")) == (40, 40)
