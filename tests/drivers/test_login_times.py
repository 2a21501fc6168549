"""The record of when users logged in: what is in it, how long, and that nothing of theirs ever is."""

import re
import string
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from activities.drivers.daemon.ocserv.log import LoginLog
from activities.drivers.metrics.login_times import BEFORE, NAME, LoginTimes, recorded_logins
from policies.attempts import PROVEN_SECONDS, Attempt, LoginOutcome
from policies.model.mirror import ClientKind, RecordedLogin

LOG = Path(__file__).parent / "logs" / "ocserv-1.3.0.log"
NOW = 1_764_000_000.0
LINE = re.compile(r"\d+\.\d [46] (openconnect|anyconnect|other)")


def attempt(at: float, outcome: LoginOutcome = LoginOutcome.OK) -> Attempt:
    return Attempt(key="user alice", outcome=outcome, ended=at, family=6, client=ClientKind.ANYCONNECT)


def test_a_login_is_recorded_when_it_began_with_its_kind_of_address_and_client(tmp_path: Path) -> None:
    times = LoginTimes(tmp_path, clock=lambda: NOW)
    times.note(attempt(NOW).model_copy(update={"seconds": 1.5}))
    assert recorded_logins(tmp_path) == (RecordedLogin(at=NOW - 1.5, family=6, client=ClientKind.ANYCONNECT),)


def test_who_is_not_let_in_is_not_recorded_so_that_nobody_can_order_a_load(tmp_path: Path) -> None:
    times = LoginTimes(tmp_path, clock=lambda: NOW)
    for outcome in LoginOutcome:
        times.note(attempt(NOW, outcome))
    assert len(recorded_logins(tmp_path)) == 1


def test_at_least_an_hour_and_at_most_two_are_kept_across_restarts(tmp_path: Path) -> None:
    now = NOW
    for minutes in range(300):
        now = NOW + 60 * minutes
        LoginTimes(tmp_path, clock=lambda now=now: now).note(attempt(now))  # type: ignore[misc]
        kept = [one.at for one in recorded_logins(tmp_path)]
        assert {NOW + 60 * past for past in range(max(0, minutes - 59), minutes + 1)} <= {*kept}
        assert len(kept) <= 121


def test_a_torn_line_and_a_strange_one_are_no_logins(tmp_path: Path) -> None:
    times = LoginTimes(tmp_path, clock=lambda: NOW)
    times.note(attempt(NOW))
    with (tmp_path / NAME).open("a") as record:
        record.write("\nnan 4 openconnect\n17 5 openconnect\n17 4 alice\n17640")
    times.note(attempt(NOW + 1))
    assert [one.at for one in recorded_logins(tmp_path)] == [NOW, NOW + 1]


def test_a_disk_that_takes_nothing_costs_the_record_and_nothing_else(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    LoginTimes(gone, clock=lambda: NOW).note(attempt(NOW))
    assert recorded_logins(gone) == ()


def test_what_is_recorded_is_not_readable_by_others(tmp_path: Path) -> None:
    LoginTimes(tmp_path, clock=lambda: NOW).note(attempt(NOW))
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


words = st.text(string.ascii_letters + string.digits + "-_.@' ", min_size=1, max_size=30)


CLIENTS = st.ip_addresses().filter(lambda address: not address.is_unspecified)
"""No client has the address that stands for none."""


@given(words, CLIENTS, words)
def test_no_name_address_or_word_of_a_client_is_in_the_record(user: str, source: object, agent: str) -> None:
    lines = LOG.read_text().split("#### login-only alice\n")[1].split("####")[0]
    said = lines.replace("alice", user.replace("]", "")).replace("10.201.0.2", str(source))
    said = said.replace("Open AnyConnect VPN Agent v9.01-3", agent)
    log = LoginLog(alive=lambda _: False)
    with TemporaryDirectory() as folder:
        times = LoginTimes(Path(folder), clock=lambda: NOW)
        for line in said.splitlines():
            for found in log.read(line, NOW):
                times.note(found)
        for found in log.give_up(NOW + PROVEN_SECONDS):
            times.note(found)
        written = "".join(
            path.read_text() for name in (BEFORE, NAME) if (path := Path(folder) / name).exists()
        )
    lines_written = written.split("\n")
    assert any(lines_written)
    assert all(LINE.fullmatch(line) for line in lines_written if line)
