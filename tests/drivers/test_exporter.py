import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from activities.drivers.daemon.ocserv.log import LoginLog
from activities.drivers.metrics.exporter import (
    GatewayExporter,
    Hears,
    Notes,
    Running,
    nobody_hears,
    nobody_notes,
)
from activities.drivers.metrics.journal import Journal
from activities.drivers.runtime.host.process import Process, boot_time, process
from policies.attempts import PROVEN_SECONDS, Attempt

LOG = Path(__file__).parent / "logs" / "ocserv-1.3.0-tunnels.log"
DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def session(user: str, what: str = "a goodbye at once") -> str:
    """A recorded session of one user, under another name."""
    return LOG.read_text().split(f"#### {what}\n")[1].split("####")[0].replace("user1", user)


def logins(user: str) -> str:
    """The session of a user who ends it at once, so that nothing has to be waited for."""
    return session(user)


def open_tunnel(user: str) -> str:
    """The same while it is open."""
    return logins(user).partition("ocserv[707]: worker[" + user + "]: 10.77.0.11 received BYE")[0]


class Gateway:
    """A gateway of one slot whose instance is this very process, with a log the test writes."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.log.touch()
        self.memory = folder / "exporter.json"
        self.serving: str | None = "a"
        found = process(os.getpid())
        assert found
        self.own = found
        self.instance: Running | None = Running("a", found, DIGEST, "1.3.0")

    def writes(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(text)

    def find(self) -> Iterator[Running]:
        if self.instance:
            yield self.instance


class Shown:
    """An exporter as Prometheus sees it."""

    def __init__(self, gateway: Gateway, hears: Hears = nobody_hears, notes: Notes = nobody_notes) -> None:
        self.exporter = GatewayExporter(
            logs={"a": gateway.log},
            find=gateway.find,
            process=lambda _: gateway.instance.process if gateway.instance else None,
            reader=lambda: LoginLog(alive=lambda _: True),
            serving=lambda: gateway.serving,
            memory=gateway.memory,
            hears=hears,
            notes=notes,
        )
        self.exporter.refresh()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self.exporter)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.exported(name, **{"slot": "a", "digest": DIGEST, **labels})

    def exported(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(name, labels)

    def logins(self, outcome: str = "ok", digest: str = DIGEST) -> float | None:
        return self("vpngw_first_attempts_total", outcome=outcome, digest=digest)


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


@pytest.fixture
def show(gateway: Gateway) -> Callable[[], Shown]:
    return lambda: Shown(gateway)


def test_every_outcome_is_there_from_the_start_at_zero(show: Callable[[], Shown]) -> None:
    shown = show()
    outcomes = ("ok", "auth_fail", "tls_fail", "timeout", "internal")
    assert [shown.logins(outcome) for outcome in outcomes] == [0, 0, 0, 0, 0]
    assert shown("vpngw_handshake_seconds_count") == 0


def test_a_login_is_counted_once_with_its_handshake(gateway: Gateway, show: Callable[[], Shown]) -> None:
    shown = show()
    shown.exporter.follow()
    gateway.writes(logins("alice") + logins("bob") + logins("alice"))
    assert shown.logins() == 2
    assert shown("vpngw_handshake_seconds_bucket", le="10.0") == 2
    assert shown("vpngw_handshake_seconds_count") == 2


class Clock:
    """What the exporter takes for the time of day."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("activities.drivers.metrics.exporter.time.time", clock)
    return clock


def test_a_login_counts_when_its_tunnel_has_lived_for_five_seconds(
    gateway: Gateway, show: Callable[[], Shown], clock: Clock
) -> None:
    shown = show()
    shown.exporter.follow()
    gateway.writes(open_tunnel("alice"))
    assert (shown.logins(), shown("vpngw_handshake_seconds_count")) == (0, 0)
    clock.now += PROVEN_SECONDS
    shown.exporter.refresh()
    assert (shown.logins(), shown("vpngw_handshake_seconds_count")) == (1, 1)


def test_a_login_whose_worker_dies_in_its_tunnel_counts_as_the_daemons_fault(
    gateway: Gateway, show: Callable[[], Shown]
) -> None:
    shown = show()
    gateway.writes(session("alice", "the worker dies at the first packet"))
    assert (shown.logins(), shown.logins("internal")) == (0, 1)
    assert shown("vpngw_handshake_seconds_count") == 0


def test_an_exporter_that_was_late_sees_the_worker_die_before_it_takes_the_tunnel_for_proven(
    gateway: Gateway, show: Callable[[], Shown], clock: Clock
) -> None:
    shown = show()
    died = session("alice", "the worker dies at the first packet")
    opened, end, rest = died.partition("ocserv[664]: main[alice]:10.77.0.11:49192 worker terminated")
    gateway.writes(opened)
    shown.exporter.follow()
    gateway.writes(f"a line between\n{end}{rest}")
    clock.now += 2 * PROVEN_SECONDS
    shown.exporter.refresh()
    assert (shown.logins(), shown.logins("internal")) == (0, 1)


def test_a_tunnel_that_is_not_proven_when_the_exporter_ends_is_no_login_of_the_next_one(
    gateway: Gateway, show: Callable[[], Shown], clock: Clock
) -> None:
    gateway.writes("a line from before\n")
    first = show()
    gateway.writes(open_tunnel("alice"))
    assert first.logins() == 0
    second = show()
    gateway.writes(logins("bob"))
    clock.now += PROVEN_SECONDS
    second.exporter.refresh()
    assert (second.logins(), second.logins("internal")) == (1, 0)


def test_an_instance_that_ends_takes_its_unproven_tunnels_along(
    gateway: Gateway, show: Callable[[], Shown], clock: Clock
) -> None:
    shown = show()
    gateway.writes(open_tunnel("alice"))
    assert shown.logins() == 0
    now = gateway.own
    gateway.instance = Running("a", Process(now.pid, now.start + 1, now.boot), OTHER, "1.1.6")
    clock.now += PROVEN_SECONDS
    shown.exporter.refresh()
    assert (shown.logins(), shown.logins(digest=OTHER)) == (None, 0)


def test_a_login_is_noted_with_the_moment_at_which_its_user_was_let_in_and_never_one_of_a_backlog(
    gateway: Gateway, clock: Clock
) -> None:
    noted = list[Attempt]()
    gateway.instance, living = None, gateway.instance
    shown = Shown(gateway, notes=noted.append)
    gateway.writes(open_tunnel("alice"))
    gateway.instance = living
    shown.exporter.refresh()
    clock.now += 1.0
    shown.exporter.follow()
    gateway.writes(open_tunnel("bob").replace("[707]", "[708]"))
    came = clock.now
    shown.exporter.follow()
    clock.now += PROVEN_SECONDS
    shown.exporter.refresh()
    assert shown.logins() == 2
    assert [(one.key, one.ended) for one in noted] == [("user bob", came)]


def test_what_was_logged_before_the_first_exporter_is_nobodys_evidence(
    gateway: Gateway, show: Callable[[], Shown]
) -> None:
    gateway.writes(logins("alice"))
    assert show().logins() == 0


def test_a_login_that_was_shown_is_not_shown_again_after_a_restart(
    gateway: Gateway, show: Callable[[], Shown]
) -> None:
    first = show()
    gateway.writes(logins("alice"))
    assert first.logins() == 1
    second = show()
    gateway.writes(logins("alice") + logins("bob"))
    assert second.logins() == 1


def test_a_login_that_was_read_but_never_shown_is_read_again_after_a_restart(
    gateway: Gateway, show: Callable[[], Shown]
) -> None:
    first = show()
    assert first.logins() == 0
    gateway.writes(logins("alice"))
    first.exporter.follow()
    assert show().logins() == 1


def test_the_next_instance_of_a_slot_begins_at_zero_under_its_own_digest(
    gateway: Gateway, show: Callable[[], Shown]
) -> None:
    shown = show()
    gateway.writes(logins("alice"))
    assert shown.logins() == 1
    now = gateway.own
    gateway.instance = Running("a", Process(now.pid, now.start + 1, now.boot), OTHER, "1.1.6")
    shown.exporter.refresh()
    gateway.writes(logins("alice"))
    assert (shown.logins(), shown.logins(digest=OTHER)) == (None, 1)


def test_nothing_is_said_of_a_slot_where_nothing_runs(gateway: Gateway, show: Callable[[], Shown]) -> None:
    gateway.instance = None
    shown = show()
    assert shown.logins() is None
    assert shown("vpngw_process_open_fds") is None


def test_lines_of_an_instance_that_ended_unwatched_are_not_given_to_the_next(
    gateway: Gateway, show: Callable[[], Shown]
) -> None:
    assert gateway.instance
    living = gateway.instance
    now = gateway.own
    gateway.instance = Running("a", Process(now.pid, now.start + 1, now.boot), DIGEST, "1.3.0")
    assert show().logins() == 0
    gateway.writes(logins("alice"))
    gateway.instance = living
    assert show().logins() == 0


def test_an_instance_that_starts_later_is_counted_from_its_first_line(
    gateway: Gateway, show: Callable[[], Shown]
) -> None:
    gateway.writes(logins("alice"))
    living, gateway.instance = gateway.instance, None
    shown = show()
    gateway.writes(logins("bob"))
    gateway.instance = living
    shown.exporter.refresh()
    assert shown.logins() == 1


def test_a_log_that_was_rotated_is_read_on_from_the_new_files_beginning(
    gateway: Gateway, show: Callable[[], Shown]
) -> None:
    shown = show()
    gateway.writes(logins("alice"))
    shown.exporter.follow()
    gateway.log.rename(gateway.log.with_suffix(".1"))
    gateway.log.write_text(logins("bob"))
    shown.exporter.refresh()
    assert shown.logins() == 2


def test_half_a_line_waits_for_its_other_half(gateway: Gateway, show: Callable[[], Shown]) -> None:
    shown = show()
    text = logins("alice")
    for begin in range(0, len(text), 7):
        gateway.writes(text[begin : begin + 7])
        shown.exporter.follow()
    assert shown.logins() == 1


def test_unknown_sessions_are_absent_and_never_zero(gateway: Gateway, show: Callable[[], Shown]) -> None:
    shown = show()
    assert gateway.instance
    assert shown("vpngw_sessions") is None
    shown.exporter.learn(gateway.instance, sessions=0, probe=True)
    assert (shown("vpngw_sessions"), shown("vpngw_probe_success")) == (0, 1)
    shown.exporter.learn(gateway.instance, sessions=None, probe=False)
    assert (shown("vpngw_sessions"), shown("vpngw_probe_success")) == (None, 0)


def test_an_answer_too_old_is_unknown(
    gateway: Gateway, show: Callable[[], Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = show()
    assert gateway.instance
    clock = [1000.0]
    monkeypatch.setattr("activities.drivers.metrics.exporter.time.monotonic", lambda: clock[0])
    shown.exporter.learn(gateway.instance, sessions=3, probe=True)
    assert shown("vpngw_sessions") == 3
    clock[0] += 16
    assert (shown("vpngw_sessions"), shown("vpngw_probe_success")) == (None, None)


def test_only_the_slot_with_the_new_sessions_has_build_info(
    gateway: Gateway, show: Callable[[], Shown]
) -> None:
    shown = show()
    assert shown("vpngw_build_info", version="1.3.0") == 1
    for serving in ("b", None):
        gateway.serving = serving
        assert shown("vpngw_build_info", version="1.3.0") is None


def test_the_hosts_boot_is_named(gateway: Gateway, show: Callable[[], Shown]) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert show().exported("vpngw_boot_info", boot_id=boot) == 1


def test_process_figures_are_the_kernels(gateway: Gateway, show: Callable[[], Shown]) -> None:
    shown = show()
    cpu, started = shown("vpngw_process_cpu_seconds_total"), shown("vpngw_process_start_time_seconds")
    assert cpu is not None
    assert cpu > 0
    assert (shown("vpngw_process_max_fds") or 0) > (shown("vpngw_process_open_fds") or 0) > 0
    assert (shown("vpngw_process_resident_memory_bytes") or 0) > 1 << 20
    assert gateway.instance
    assert started is not None
    assert abs(started - gateway.instance.process.started_at.timestamp()) < 2
    assert started == show()("vpngw_process_start_time_seconds")


class HostClock:
    """The wall clock of the host, as the kernel dates the boot by it."""

    def __init__(self) -> None:
        self.booted = boot_time()

    def __call__(self) -> float:
        return self.booted


@pytest.fixture
def host_clock(monkeypatch: pytest.MonkeyPatch) -> HostClock:
    clock = HostClock()
    monkeypatch.setattr("activities.drivers.metrics.exporter.boot_time", clock)
    monkeypatch.setattr("activities.drivers.runtime.host.process.boot_time", clock)
    return clock


STARTED = "vpngw_process_start_time_seconds"


@pytest.mark.parametrize("step", [-7200.0, 3.0])
def test_a_step_of_the_hosts_clock_changes_no_start_time(
    gateway: Gateway, show: Callable[[], Shown], host_clock: HostClock, step: float
) -> None:
    shown = show()
    before = shown(STARTED)
    assert before == gateway.own.started_at.timestamp()
    host_clock.booted += step
    assert gateway.own.started_at.timestamp() == pytest.approx(before + step)
    assert shown(STARTED) == before
    assert show()(STARTED) == before


def test_a_daemon_that_starts_again_has_another_start_time_whatever_the_hosts_clock_was_set_to(
    gateway: Gateway, show: Callable[[], Shown], host_clock: HostClock
) -> None:
    shown = show()
    before = shown(STARTED)
    assert before is not None
    own, ticks = gateway.own, os.sysconf("SC_CLK_TCK")
    again = replace(own, start=own.start + 30 * ticks)
    host_clock.booted -= 30
    gateway.instance = Running("a", again, DIGEST, "1.3.0")
    shown.exporter.refresh()
    assert again.started_at.timestamp() == pytest.approx(before)
    assert shown(STARTED) == pytest.approx(before + 30)
    assert show()(STARTED) == pytest.approx(before + 30)


def test_what_was_kept_in_an_earlier_boot_dates_no_start_in_this_one(
    gateway: Gateway, show: Callable[[], Shown], host_clock: HostClock
) -> None:
    before = show()(STARTED)
    assert before is not None
    kept = json.loads(gateway.memory.read_text())
    kept["a"]["boot"] = "an earlier boot"
    gateway.memory.write_text(json.dumps(kept))
    host_clock.booted += 3600
    assert show()(STARTED) == pytest.approx(before + 3600)


def test_a_torn_memory_file_is_like_none(gateway: Gateway, show: Callable[[], Shown]) -> None:
    gateway.memory.write_text('{"a": {"boot"')
    shown = show()
    gateway.writes(logins("alice"))
    assert shown.logins() == 1


class HostJournal:
    """The socket at which a journal takes lines."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def took(self) -> dict[str, str]:
        fields = self.socket.recv(1 << 16).decode().splitlines()
        return {name: value for name, _, value in (one.partition("=") for one in fields)}


def test_each_line_of_a_daemon_reaches_the_journal_with_its_slot_release_and_executable(
    gateway: Gateway, tmp_path: Path
) -> None:
    host = HostJournal(tmp_path / "socket")
    journal = Journal("gw-1", "ocserv", tmp_path / "socket")
    shown = Shown(gateway, hears=journal.say)
    gateway.writes("main: user 'eve'\x1bPRIORITY=0 logged in\nanother line\n")
    shown.exporter.follow()
    took = host.took()
    assert took["MESSAGE"] == "main: user 'eve' PRIORITY=0 logged in"
    assert took["PRIORITY"] == "6"
    assert took["SYSLOG_IDENTIFIER"] == "ocserv-a"
    assert (took["VPN_GATEWAY"], took["VPN_SLOT"]) == ("gw-1", "a")
    assert (took["VPN_EXECUTABLE"], took["VPN_VERSION"]) == (DIGEST, "1.3.0")
    assert host.took()["MESSAGE"] == "another line"
    host.socket.close()


def test_no_password_that_a_user_has_sent_reaches_the_journal(gateway: Gateway, tmp_path: Path) -> None:
    host = HostJournal(tmp_path / "socket")
    shown = Shown(gateway, hears=Journal("gw-1", "ocserv", tmp_path / "socket").say)
    gateway.writes("POST body: 'username=ana&password=hunter2'\n<auth><password>hunter2</password></auth>\n")
    shown.exporter.follow()
    assert host.took()["MESSAGE"] == "POST body: [removed]"
    assert host.took()["MESSAGE"] == "<auth><password>[removed]</password></auth>"
    host.socket.close()


def test_nobody_waits_for_a_journal_that_is_full_or_away(gateway: Gateway, tmp_path: Path) -> None:
    host = HostJournal(tmp_path / "socket")
    journal = Journal("gw-1", "ocserv", tmp_path / "socket")
    shown = Shown(gateway, hears=journal.say)
    gateway.writes("a line\n" * 20_000)
    began = time.monotonic()
    shown.exporter.follow()
    assert time.monotonic() - began < 5
    registry = CollectorRegistry(auto_describe=False)
    registry.register(journal)

    def lines(outcome: str) -> float:
        return registry.get_sample_value("vpngw_journal_lines_total", {"outcome": outcome}) or 0

    assert lines("taken") > 0
    assert lines("taken") + lines("dropped") == 20_000
    before = lines("dropped")
    assert before > 0
    host.socket.close()
    gateway.writes(logins("alice"))
    assert shown.logins() == 1
    assert lines("dropped") > before
