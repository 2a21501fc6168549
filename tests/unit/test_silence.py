"""For how long an instance has not answered, and what the kernel shows of its users meanwhile."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.strongswan.daemon import StrongSwan
from activities.drivers.runtime.host import silence
from activities.drivers.runtime.host.silence import Silences, users_of
from policies.model.drain import Silence
from tests.unit.fleets import gateway

GATEWAY = gateway("gw-1")
SLOT = GATEWAY.slots[0]
LISTENS = "00000000:{port:04X} 00000000:0000 0A"
CONNECTED = "01004D0A:{port:04X} 0B004D0A:936E 01"
CLOSED = "01004D0A:{port:04X} 0B004D0A:936E 08"
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


@dataclass
class Daemon:
    """The process of an instance, whose tables of the kernel tests write."""

    tables: Path
    pid: int | None = 7
    name: str = "7.1"
    boot: str = "boot"
    alive: bool = True
    file: None = None
    started_at: datetime = datetime(2026, 11, 29, tzinfo=UTC)
    after_boot: None = None
    executable: None = None

    def shows(self, *states: str, packets: int = 0, inode: int = 12139576, port: int = SLOT.port) -> None:
        lines = [f"   0: {state.format(port=port)} 0:0 0:0 0 0 0 {inode} 1\n" for state in states]
        (self.tables / "tcp").write_text("".join([HEAD, *lines]))
        (self.tables / "dev").write_text(
            "Inter-|   Receive\n face |bytes    packets errs\n"
            f"{SLOT.device}0:   96 {packets} 0 0\n  eth0: 1 9 0\n"
        )

    def tell(self, wish: object) -> bool:
        raise NotImplementedError


class Minutes:
    """A clock that tests set, in minutes."""

    now = 0.0

    def __call__(self) -> float:
        return self.now * 60


@pytest.fixture(name="daemon")
def hung_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setattr(silence, "PROC", tmp_path)
    (tmp_path / "7/net").mkdir(parents=True)
    return Daemon(tmp_path / "7/net")


@pytest.fixture(name="clock")
def set_clock() -> Minutes:
    return Minutes()


def looks(silences: Silences, clock: Minutes, daemon: Daemon, minutes: float) -> Silence:
    """Look every half minute; return what is so at the end."""
    for _ in range(int(2 * minutes)):
        clock.now += 0.5
        found = silences.note(SLOT, daemon)
    return found


def minutes(found: Silence) -> tuple[float, float | None]:
    one = timedelta(minutes=1)
    return found.lasts / one, None if found.deserted is None else found.deserted / one


def test_an_instance_is_deserted_for_as_long_as_its_kernel_has_shown_no_user(
    daemon: Daemon, clock: Minutes
) -> None:
    silences = Silences(GATEWAY, Ocserv(), clock)
    daemon.shows(LISTENS, CONNECTED)
    silences.note(SLOT, daemon)
    assert minutes(looks(silences, clock, daemon, 3)) == (3, 0)
    daemon.shows(LISTENS, CLOSED)
    looks(silences, clock, daemon, 0.5)
    assert minutes(looks(silences, clock, daemon, 5)) == (8.5, 5)
    daemon.shows(LISTENS, packets=1)
    looks(silences, clock, daemon, 0.5)
    assert minutes(looks(silences, clock, daemon, 2)) == (11, 2)


def test_what_an_instance_answers_in_another_form_goes_with_how_long_its_sessions_are_unknown(
    daemon: Daemon, clock: Minutes
) -> None:
    daemon.shows(LISTENS)
    silences = Silences(GATEWAY, Ocserv(), clock)
    looks(silences, clock, daemon, 3)
    found = silences.note(SLOT, daemon, "ocserv answers in a form that penstock does not read")
    assert (minutes(found), found.unread[:14]) == ((2.5, 2.5), "ocserv answers")


def test_silence_begins_anew_with_an_answer_another_process_and_a_minute_without_a_look(
    daemon: Daemon, clock: Minutes
) -> None:
    silences = Silences(GATEWAY, Ocserv(), clock)
    daemon.shows(LISTENS)
    looks(silences, clock, daemon, 3)
    silences.end(SLOT.name)
    assert minutes(silences.note(SLOT, daemon)) == (0, 0)
    looks(silences, clock, daemon, 3)
    daemon.name = "7.2"
    assert minutes(silences.note(SLOT, daemon)) == (0, 0)
    looks(silences, clock, daemon, 3)
    clock.now += 1.1
    assert minutes(silences.note(SLOT, daemon)) == (0, 0)


def test_where_the_kernel_does_not_show_users_nobody_knows_whether_an_instance_is_deserted(
    daemon: Daemon, clock: Minutes
) -> None:
    daemon.shows(LISTENS)
    assert minutes(Silences(GATEWAY, StrongSwan(), clock).note(SLOT, daemon)) == (0, None)
    daemon.shows(LISTENS, port=SLOT.port + 1)  # its port is of another network
    assert minutes(Silences(GATEWAY, Ocserv(), clock).note(SLOT, daemon)) == (0, None)
    daemon.pid = None
    assert minutes(Silences(GATEWAY, Ocserv(), clock).note(SLOT, daemon)) == (0, None)


def test_a_connection_that_no_process_has_accepted_is_no_user(daemon: Daemon) -> None:
    daemon.shows(LISTENS, CONNECTED, inode=0)
    found = users_of(daemon.tables, SLOT)
    assert found is not None
    assert found.connections == 0
    daemon.shows(LISTENS, CONNECTED)
    found = users_of(daemon.tables, SLOT)
    assert found is not None
    assert found.connections == 1
