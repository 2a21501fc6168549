"""The host's own last word: what it refuses whoever orders it, and its own record of that."""

import json
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from activities.drivers.runtime.host.audit import HostAudit
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.runtime.host.repeats import HOUR, MOST_IN_AN_HOUR
from activities.drivers.signature.host_lines import first_fault
from activities.host_record import LONGEST_LINE
from policies.model.errors import BeyondHostLimits, Fenced, ForeignOrder
from policies.model.host_limits import HostLimits
from policies.model.operation import LAST_EPOCH, LONGEST_STEP, Operation
from tests.drivers.small_disk import fill
from tests.drivers.test_slots_journal import small_disk  # noqa: F401 - a fixture
from tests.patience import PATIENCE

NOW = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)
NOW_EPOCH = int(NOW.timestamp() * 1000)


def operation(epoch: int = NOW_EPOCH, gateway: str = "gw-1", rollout: str = "edge-1") -> Operation:
    digest = "sha256:" + "0" * 64
    return Operation(rollout=rollout, epoch=epoch, gateway=gateway, step="start", digest=digest)


class Host:
    """A host's journal and record, with a clock and an uptime that a test sets."""

    def __init__(self, folder: Path, limits: HostLimits | None = None) -> None:
        self.now, self.uptime = NOW, 1.0
        self.path = folder / "audit.jsonl"
        self.audit = HostAudit(self.path, folder / "audit.key", lambda: self.now, lambda: self.uptime)
        hears = self.audit.record_refusal
        self.bounds = HostBounds("gw-1", limits, hears, lambda: self.now, lambda: self.uptime)
        self.journal = Journal(folder / "journal.jsonl", self.bounds)

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    @property
    def refusals(self) -> list[str]:
        return [json.loads(line)["entry"]["action"] for line in self.lines]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_an_order_for_another_gateway_is_refused_by_name_and_written_down(host: Host) -> None:
    """C1: `operation.gateway` was never compared with the host's own."""
    for ask in (host.journal.admit, host.journal.fence, host.journal.check):
        with pytest.raises(ForeignOrder, match="is for gw-2, and this host is gw-1"):
            ask(operation(gateway="gw-2"))
    assert host.journal.epoch == 0
    assert host.refusals == ["refused: ForeignOrder"]


@pytest.mark.parametrize("epoch", [LAST_EPOCH, NOW_EPOCH + 600_001])
def test_an_epoch_far_ahead_of_the_hosts_clock_locks_nobody_out(host: Host, epoch: int) -> None:
    """C1: a fence with epoch 2^60 made the owner's own rollback Fenced from then on."""
    with pytest.raises(BeyondHostLimits, match=f"has epoch {epoch}, which is more than 0:10:00 ahead"):
        host.journal.fence(operation(epoch))
    assert host.journal.fence(operation()) == NOW_EPOCH
    assert host.refusals == ["refused: BeyondHostLimits"]


def test_a_clock_that_is_a_little_behind_obeys(host: Host) -> None:
    host.now -= timedelta(minutes=9)
    assert host.journal.fence(operation()) == NOW_EPOCH


def test_a_reset_lets_nobody_own_the_gateway_and_refuses_what_was_ordered_before(host: Host) -> None:
    host.journal.fence(operation(NOW_EPOCH + 500_000, rollout="stranger-1"))
    with pytest.raises(Fenced):
        host.journal.admit(operation())
    host.now += timedelta(seconds=1)
    assert host.journal.reset("the engine is not ours") == host.journal.epoch == NOW_EPOCH + 1000
    with pytest.raises(Fenced):
        host.journal.admit(operation())  # older than the reset
    host.journal.admit(operation(NOW_EPOCH + 2000, rollout="edge-2"))
    assert host.journal.epoch == NOW_EPOCH + 2000
    again = Journal(host.path.with_name("journal.jsonl"), host.bounds)
    assert again.epoch == NOW_EPOCH + 2000


@pytest.mark.parametrize("lease", [timedelta(0), timedelta(seconds=-1), timedelta(minutes=16)])
def test_a_lease_that_would_last_without_anybody_alive_is_refused(host: Host, lease: timedelta) -> None:
    with pytest.raises(BeyondHostLimits, match="is not one that gw-1 takes"):
        host.bounds.check_lease(lease)
    host.bounds.check_lease(timedelta(minutes=15))


def test_more_endings_in_a_minute_than_the_host_allows_end_nobody(tmp_path: Path) -> None:
    host = Host(tmp_path, HostLimits(endings_per_minute=10))
    host.bounds.count_endings(6)
    with pytest.raises(BeyondHostLimits, match="5 sessions of gw-1 were to be ended, 6 were in the last"):
        host.bounds.count_endings(5)
    host.bounds.count_endings(4)
    host.uptime += 60
    host.bounds.count_endings(10)


def test_more_loads_in_an_hour_than_the_host_allows_disturb_nobody(tmp_path: Path) -> None:
    host = Host(tmp_path, HostLimits(loads_per_hour=2))
    for _ in range(2):
        host.bounds.count_load("b", gets_new_sessions=False)
    host.uptime += HOUR - 1
    with pytest.raises(BeyondHostLimits, match="gw-1 was to be loaded, 2 loads were in the last hour"):
        host.bounds.count_load("b", gets_new_sessions=False)
    host.uptime += 1
    host.bounds.count_load("b", gets_new_sessions=False)
    assert host.refusals == ["refused: BeyondHostLimits"]


def test_no_load_is_for_an_instance_that_gets_new_sessions(tmp_path: Path) -> None:
    host = Host(tmp_path, HostLimits(loads_per_hour=1))
    with pytest.raises(BeyondHostLimits, match="slot a of gw-1 gets new sessions, so it is not loaded"):
        host.bounds.count_load("a", gets_new_sessions=True)
    host.bounds.count_load("b", gets_new_sessions=False)


def test_no_login_is_mirrored_to_an_instance_that_gets_new_sessions(tmp_path: Path) -> None:
    host = Host(tmp_path, HostLimits(shadow_logins_per_minute=5))
    with pytest.raises(BeyondHostLimits, match="slot a of gw-1 gets new sessions, so no logins are mirrored"):
        host.bounds.shadow_logins("a", 5, gets_new_sessions=True)
    assert host.bounds.shadow_logins("b", 3, gets_new_sessions=False) == 3


def test_more_shadow_logins_in_a_minute_than_the_host_allows_are_not_made_whatever_is_ordered(
    tmp_path: Path,
) -> None:
    host = Host(tmp_path, HostLimits(shadow_logins_per_minute=5))
    assert host.bounds.shadow_logins("b", 120, gets_new_sessions=False) == 5
    assert [host.bounds.take_shadow_login() for _ in range(7)] == [True] * 5 + [False] * 2
    host.uptime += 60
    assert host.bounds.take_shadow_login()
    none = Host(tmp_path, HostLimits(shadow_logins_per_minute=0))
    with pytest.raises(BeyondHostLimits, match=r"limits\.shadow_logins_per_minute in the agent's file is 0"):
        none.bounds.shadow_logins("b", 5, gets_new_sessions=False)


def test_a_clock_that_is_set_back_stops_no_endings_and_no_record(tmp_path: Path) -> None:
    host = Host(tmp_path, HostLimits(endings_per_minute=10))
    host.bounds.count_endings(10)
    for number in range(MOST_IN_AN_HOUR):
        host.audit.record_refusal("refused: ForeignOrder", f"{number} while the clock was ahead")
    host.now -= timedelta(hours=6)
    host.uptime += HOUR
    host.bounds.count_endings(10)
    host.audit.record_refusal("refused: ForeignOrder", "an hour later")
    assert "an hour later" in host.lines[-1]


def test_sessions_where_new_ones_are_sent_are_not_ended(host: Host) -> None:
    with pytest.raises(BeyondHostLimits, match="gets new sessions"):
        host.bounds.check_slot_to_empty("a", gets_new_sessions=True)
    host.bounds.check_slot_to_empty("b", gets_new_sessions=False)


def test_the_record_is_whole_for_who_has_the_hosts_key_and_every_forgery_is_named(host: Host) -> None:
    for number in range(5):
        host.audit.record("break-glass", f"reset {number}", "root")
    lines, key = host.lines, host.audit.public_key
    assert first_fault(lines, key) is None
    forged = [*lines[:2], lines[2].replace("reset 2", "reset 9"), *lines[3:]]
    assert first_fault(forged, key) == "line 3 was altered, or another key signed it"
    assert first_fault([*lines[:2], *lines[3:]], key) == "line 3 does not follow the one before it"
    other = HostAudit(host.path.with_name("other.jsonl"), host.path.with_name("other.key"))
    assert first_fault(lines, other.public_key) == "line 1 was altered, or another key signed it"
    assert host.audit.page(3).lines == tuple(lines[3:])
    assert host.path.with_name("audit.key").stat().st_mode & 0o777 == 0o600


def test_half_a_line_that_a_crash_left_is_taken_away(host: Host) -> None:
    host.audit.record("break-glass", "one", "root")
    with host.path.open("a") as file:
        file.write('{"entry": {"num')
    host.audit.record("break-glass", "two", "root")
    assert first_fault(host.lines, host.audit.public_key) is None
    assert host.audit.length() == 2


@pytest.mark.parametrize("room", range(100, 4096, 200))
def test_a_full_disk_takes_whole_lines_or_none(small_disk: Path, room: int) -> None:  # noqa: F811
    """A line that was refused was written after all, in part, when its file was closed."""
    host = Host(small_disk)
    for _ in range(3):
        host.audit.record("break-glass", "y" * (300 + room // 3), "root")
    fill(small_disk)

    def record_on_and_on() -> None:
        for _ in range(12):  # some lines may still fit into the file's last block
            host.audit.record("break-glass", "w" * 700, "root")

    with pytest.raises(OSError, match="Errno 28"):
        record_on_and_on()
    (small_disk / "filler").unlink()
    host.audit.record("break-glass", "there is room again", "root")
    assert first_fault(host.lines, host.audit.public_key) is None
    assert host.audit.length() == len(host.lines)


@pytest.mark.parametrize("letter", ["s", "\0", "\N{PILE OF POO}", '"'], ids=["s", "nul", "astral", "quote"])
def test_nothing_is_so_long_that_its_line_breaks_the_record(host: Host, letter: str) -> None:
    """A step's name of a mebibyte was a line whose beginning the next writer did not find."""
    host.audit.record(letter * 2_000_000, letter * 2_000_000, letter * 2_000_000)
    host.audit.record("break-glass", "the owner takes it back", "root")
    assert first_fault(host.lines, host.audit.public_key) is None
    assert max(map(len, host.lines)) <= LONGEST_LINE
    assert host.audit.page(0).lines == tuple(host.lines)


def test_no_step_has_a_name_longer_than_any_step() -> None:
    with pytest.raises(ValidationError, match="step"):
        Operation.model_validate(operation().model_dump() | {"step": "s" * (LONGEST_STEP + 1)})


def test_a_page_begins_where_it_was_asked_for_whatever_was_altered(host: Host) -> None:
    for number in range(200):
        host.audit.record("break-glass", f"reset {number}", "root")
    lines = host.lines
    for altered in (None, 0, 90, 199):
        written = [line if number != altered else "{}" for number, line in enumerate(lines)]
        host.path.write_text("\n".join(written) + "\n")
        for after in (0, 1, 89, 90, 91, 150, 198, 199, 200, 201):
            page = host.audit.page(after)
            assert page.after == after
            assert page.recorded == 200
            assert list(page.lines) == written[after : after + len(page.lines)]
            assert len(page.lines) > 80 or after + len(page.lines) >= 200


def test_a_long_record_is_not_read_to_show_a_page_of_it(host: Host) -> None:
    lines = (
        f'{{"entry": {{"number": {number}}}, "signature": "{"x" * 600}"}}' for number in range(1, 30_001)
    )
    host.path.write_text("\n".join(lines) + "\n")
    assert host.audit.public_key
    tracemalloc.start()
    page = host.audit.page(20_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert page.after == 20_000
    assert page.recorded == 30_000
    assert most < 1_000_000, "bytes; the file has 20 million"


def test_a_record_that_has_grown_too_long_loses_its_older_half_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = HostAudit(path, tmp_path / "audit.key", largest=20_000)
    for number in range(100):
        audit.record("break-glass", f"reset {number}", "root")
        assert path.stat().st_size <= 20_000
    page = audit.page(0)
    first = json.loads(page.lines[0])["entry"]
    assert page.after == first["number"] - 1 > 0
    assert page.recorded == page.after + len(page.lines) == audit.length()
    assert first_fault(page.lines, page.public_key, None, page.after) is None
    told = [json.loads(line)["entry"] for line in page.lines]
    shortened = [one["sentence"] for one in told if one["action"] == "record shortened"]
    assert shortened[-1].startswith("it had more than 20000 bytes, and lines up to ")


WRITER = """
import sys
from pathlib import Path
from activities.drivers.runtime.host.audit import HostAudit
folder = Path(sys.argv[1])
audit = HostAudit(folder / "audit.jsonl", folder / "audit.key", largest=6_000)
for number in range(60):
    audit.record("break-glass", f"{sys.argv[2]} {number}", "root")
"""


@pytest.mark.sweep
def test_nobodys_line_is_lost_while_another_process_shortens_the_record(tmp_path: Path) -> None:
    HostAudit(tmp_path / "audit.jsonl", tmp_path / "audit.key").record("break-glass", "first", "root")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait(PATIENCE) for writer in writers] == [0, 0]
    page = HostAudit(tmp_path / "audit.jsonl", tmp_path / "audit.key").page(0)
    assert first_fault(page.lines, page.public_key, None, page.after) is None
    shortened = sum(json.loads(line)["entry"]["action"] == "record shortened" for line in page.lines)
    assert shortened
    assert page.recorded >= 121


def sentences(host: Host) -> list[str]:
    return [json.loads(line)["entry"]["sentence"] for line in host.lines]


def test_a_stranger_who_orders_without_end_is_a_line_and_its_number_an_hour_later(host: Host) -> None:
    for _ in range(1000):
        with pytest.raises(ForeignOrder):
            host.journal.check(operation(gateway="gw-2"))
    told = "step start of edge-1 is for gw-2, and this host is gw-1"
    assert sentences(host) == [told]
    host.uptime += HOUR
    assert host.audit.length() == 2, "whoever looks every minute has it written down"
    host.uptime += HOUR
    assert host.audit.length() == 2
    assert sentences(host) == [told, f"999 more in an hour: {told}"]


def test_a_stranger_who_never_says_the_same_twice_fills_no_disk(host: Host) -> None:
    for hour in range(3):
        for number in range(500):
            host.audit.record_refusal("refused: payload", f"{hour} {number}")
        host.uptime += HOUR
    told = sentences(host)
    assert len(told) <= 3 * (MOST_IN_AN_HOUR + 1)
    assert told[MOST_IN_AN_HOUR] == "470 more in an hour: others of this kind, each with another sentence"


def test_neither_a_person_nor_another_kind_of_refusal_is_hidden_by_many(host: Host) -> None:
    for number in range(500):
        host.audit.record_refusal("refused: payload", f"{number}")
    host.audit.record_refusal("refused: ForeignOrder", "for gw-2")
    for _ in range(100):
        host.audit.record("break-glass", "reset the fence", "root")
    assert host.refusals[MOST_IN_AN_HOUR:] == ["refused: ForeignOrder", *["break-glass"] * 100]
