"""Logs of real daemons at `-d 3`, recorded from scripted clients; `####` lines name what the client did.

Those of `-tunnels` are without the lines of the security module and of occtl.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from activities.drivers.daemon.ocserv.log import LONGEST, LoginLog, nobody_knows
from policies.attempts import PROVEN_SECONDS, Attempt, FirstAttempts, LoginOutcome

LOGS = Path(__file__).parent / "logs"
VERSIONS = ("1.1.6", "1.3.0")
BAD_WORKER = 8343
"""The one of the recorded wrong password."""


def scenes(version: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (LOGS / f"ocserv-{version}.log").read_text().splitlines():
        if line.startswith("#### "):
            name = line.removeprefix("#### ")
            found[name] = []
        elif found:
            found[name].append(line)
    return found


def replay(lines: list[str], log: LoginLog, start: float = 0.0, step: float = 0.001) -> list[Attempt]:
    return [a for n, line in enumerate(lines) for a in log.read(line, start + n * step)]


def replay_and_wait(
    lines: list[str], log: LoginLog, start: float = 0.0, step: float = 0.001
) -> list[Attempt]:
    """Replay the lines, and look once more when their logins have lived long enough to be good."""
    found = replay(lines, log, start, step)
    return [*found, *log.give_up(start + len(lines) * step + PROVEN_SECONDS)]


@pytest.fixture(params=VERSIONS)
def scene(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    return scenes(str(request.param))


@pytest.fixture(params=VERSIONS)
def tunnel(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    return scenes(f"{request.param}-tunnels")


def ended(lines: list[str], step: float = 0.001) -> list[tuple[str, str]]:
    log = LoginLog(alive=lambda _: False)
    return [(a.key, a.outcome.value) for a in replay_and_wait(lines, log, step=step)]


def where(lines: list[str], words: str) -> int:
    """Return the number of the first line with these words."""
    return next(number for number, line in enumerate(lines) if words in line)


def before_its_end(lines: list[str]) -> list[str]:
    """Return the lines of a session up to the first end of a worker."""
    return lines[: where(lines, "worker terminated")]


def test_each_way_a_login_can_go_is_told_apart(scene: dict[str, list[str]]) -> None:
    assert ended(scene["login-only alice"]) == [("user alice", "ok")]
    assert ended(scene["wrong password"]) == [("user alice", "auth_fail")]
    assert ended(scene["unknown user"]) == [("user mallory", "auth_fail")]
    assert ended(scene["tls failure (client distrusts)"]) == [("source 10.201.0.2", "tls_fail")]
    assert ended(scene["tls garbage"]) == [("source 10.201.0.2", "tls_fail")]


def test_a_tunnel_counts_once_when_it_has_lived_for_five_seconds_or_its_user_has_ended_it(
    scene: dict[str, list[str]],
) -> None:
    for name in ("full tunnel 3 s then SIGINT", "full tunnel 3 s then KILL"):
        lines = scene[name]
        opened = where(lines, "suggesting DPD")
        log = LoginLog(alive=lambda _: True)
        assert replay(lines[: opened + 1], log, start=100.0) == []
        assert list(log.give_up(100.0 + PROVEN_SECONDS)) == []
        (attempt,) = log.give_up(100.0 + opened * 0.001 + PROVEN_SECONDS)
        assert attempt.outcome is LoginOutcome.OK
        assert 100.0 <= attempt.ended < 101.0
        assert replay_and_wait(lines[opened + 1 :], log, start=200.0) == []
        assert [outcome for _, outcome in ended(lines)] == ["ok"]


@pytest.mark.parametrize(
    "how",
    [
        "the worker dies at the first packet",
        "the worker is killed by a fault",
        "the device refuses a packet",
        "a tunnel by a cookie whose worker dies",
    ],
)
def test_a_login_whose_tunnel_the_daemon_ends_by_a_fault_is_no_good_one(
    tunnel: dict[str, list[str]], how: str
) -> None:
    """Critical A: a release whose workers died at the first packet was promoted, with 0 of 50 logins bad."""
    ((_, outcome),) = ended(tunnel[how])
    assert outcome == "internal"


@pytest.mark.parametrize("alive", [lambda _: True, nobody_knows])
def test_a_login_counts_once_where_its_connection_outlives_the_tunnel_that_its_cookie_opened(
    tunnel: dict[str, list[str]], alive: Callable[[int], bool | None]
) -> None:
    """Also where another user from there is logging in when the connection ends."""
    lines = tunnel["a tunnel by a cookie whose worker dies"]
    login_ends = where(lines, "worker terminated")
    apart = [*lines[:login_ends], *lines[login_ends + 1 :], *other_user(tunnel)[:20], lines[login_ends]]
    log = LoginLog(alive=alive)
    assert [(a.key, a.outcome) for a in replay(apart, log)] == [("user user4", LoginOutcome.INTERNAL)]
    later = [*replay(other_user(tunnel)[20:], log), *log.give_up(60.0)]
    assert [(a.key, a.outcome) for a in later] == [("user user5", LoginOutcome.OK)]


def other_user(tunnel: dict[str, list[str]]) -> list[str]:
    """Return a session of another user from the address of the one with the cookie."""
    lines = tunnel["traffic, then a goodbye"]
    (worker,) = {m[1] for line in lines if (m := re.match(r"ocserv\[(\d+)\]: worker", line))}
    named = [line.replace("user1", "user5").replace("10.77.0.11", "10.77.0.14") for line in lines]
    return [line.replace(f"ocserv[{worker}]", "ocserv[9999]") for line in named]


def test_a_fault_in_a_tunnel_counts_at_once_and_has_no_handshake(tunnel: dict[str, list[str]]) -> None:
    log = LoginLog(alive=lambda _: True)
    (attempt,) = replay(tunnel["the worker dies at the first packet"], log)
    assert (attempt.key, attempt.outcome, attempt.seconds) == ("user user1", LoginOutcome.INTERNAL, None)


@pytest.mark.parametrize(
    "how",
    [
        "traffic, then a goodbye",
        "a goodbye at once",
        "the client is killed",
        "the client comes back by its cookie",
        "an operator ends the session",
        "a tunnel by a cookie on a connection of its own",
    ],
)
def test_a_session_that_anybody_but_a_fault_ends_within_a_second_was_a_good_login(
    tunnel: dict[str, list[str]], how: str
) -> None:
    ((_, outcome),) = ended(tunnel[how])
    assert outcome == "ok"


def test_the_end_of_an_older_session_of_the_same_user_and_address_is_not_the_newer_ones(
    tunnel: dict[str, list[str]],
) -> None:
    """They are told apart by the user's port alone, also where nobody sees the workers."""
    lines = tunnel["a user logs in again while the older session ends"]
    older = where(lines, "worker terminated")
    log = LoginLog(alive=nobody_knows, age=nobody_knows)
    without_last_words = [line for line in lines[: older + 2] if "cli stats" not in line]
    assert [a.outcome for a in replay(without_last_words, log)] == [LoginOutcome.INTERNAL]
    assert [a.outcome for a in log.give_up(older * 0.001 + PROVEN_SECONDS)] == [LoginOutcome.OK]


def test_a_daemon_that_is_stopped_says_nothing_of_the_tunnels_that_it_takes_along(
    tunnel: dict[str, list[str]],
) -> None:
    lines = tunnel["the daemon is stopped"]
    log = LoginLog(alive=lambda _: False)
    killed = [line for line in lines if "cli stats" not in line]
    assert [*replay(killed, log), *log.give_up(1.0), *log.give_up(2.0), *log.give_up(99.0)] == []


def test_a_worker_that_went_from_its_tunnel_without_last_words_is_a_fault_though_no_line_says_so(
    tunnel: dict[str, list[str]],
) -> None:
    log = LoginLog(alive=lambda _: False)
    assert replay(before_its_end(tunnel["the worker is killed by a fault"]), log) == []
    assert list(log.give_up(1.0)) == []
    assert [a.outcome for a in log.give_up(2.0)] == [LoginOutcome.INTERNAL]


def test_failures_wait_for_the_good_logins_before_them_so_that_no_count_has_one_without_the_other(
    tunnel: dict[str, list[str]],
) -> None:
    good = before_its_end(tunnel["traffic, then a goodbye"])
    bad = scenes("1.3.0")["wrong password"]
    log = LoginLog(alive=lambda pid: pid != BAD_WORKER)
    assert replay([*good, *bad], log) == []
    assert [a.outcome for a in log.give_up(1.0 + PROVEN_SECONDS)] == [
        LoginOutcome.OK,
        LoginOutcome.AUTH_FAIL,
    ]
    assert [a.outcome for a in replay(bad, LoginLog(alive=lambda _: False))] == [LoginOutcome.AUTH_FAIL]


def test_a_clock_that_is_set_back_keeps_no_login_waiting(tunnel: dict[str, list[str]]) -> None:
    log = LoginLog(alive=lambda _: True)
    assert replay(before_its_end(tunnel["traffic, then a goodbye"]), log, start=7200.0) == []
    assert [a.outcome for a in log.give_up(3600.0)] == [LoginOutcome.OK]


def test_a_load_balancers_check_and_a_curious_look_are_no_attempts(scene: dict[str, list[str]]) -> None:
    assert ended(scene["tcp connect-close"]) == []
    assert ended(scene["tls then close"]) == []


def test_a_client_that_stays_silent_until_the_daemon_gives_up_timed_out(scene: dict[str, list[str]]) -> None:
    assert ended(scene["idle after tls until auth-timeout"], step=1.0) == [("source 10.201.0.2", "timeout")]
    assert ended(scene["idle tcp until auth-timeout"], step=6.0) == [("source 10.201.0.2", "timeout")]


def test_an_authenticator_that_never_answers_is_the_daemons_fault(scene: dict[str, list[str]]) -> None:
    lines = [line for line in scene["login-only alice"] if "auth reply message" not in line]
    assert ended(lines) == [("user alice", "internal")]
    assert ended(lines, step=1.0) == [("user alice", "timeout")]


def test_a_login_whose_tunnel_never_opens_is_not_ok(scene: dict[str, list[str]]) -> None:
    lines = scene["full tunnel 3 s then SIGINT"]
    cookie = next(n for n, line in enumerate(lines) if "sending message 'auth cookie request'" in line)
    source = next(line for line in scene["login-only alice"] if "worker terminated" in line)
    assert ended([*lines[: cookie + 1], source]) == [("user alice", "internal")]


def test_a_handshake_lasts_from_the_start_of_its_worker_not_from_the_first_line_of_it(
    scene: dict[str, list[str]],
) -> None:
    lines = scene["login-only alice"]
    logs = [
        LoginLog(alive=lambda _: False, age=lambda _: None),
        LoginLog(alive=lambda _: False, age=lambda _: 1.2),
    ]
    seconds = [replay_and_wait(lines, log, start=100.0)[0].seconds for log in logs]
    assert None not in seconds
    assert seconds[1] == pytest.approx((seconds[0] or 0.0) + 1.2, abs=0.0011)


def test_a_cookie_that_resumes_a_session_is_no_login(scene: dict[str, list[str]]) -> None:
    lines = scene["full tunnel 3 s then SIGINT"]
    assert ended([line for line in lines if "sm: auth" not in line]) == []


def test_the_handshake_leaves_out_the_time_a_person_takes_to_answer(scene: dict[str, list[str]]) -> None:
    lines = scene["login-only alice"]
    answer = next(n for n, line in enumerate(lines) if "sending message 'sm: auth cont'" in line)
    log = LoginLog(alive=lambda _: False)
    attempts = [*replay(lines[:answer], log), *replay_and_wait(lines[answer:], log, start=40.0)]
    (seconds,) = [attempt.seconds for attempt in attempts]
    assert seconds is not None
    assert 0 < seconds < 0.1


def test_a_backlog_tells_outcomes_but_no_durations(scene: dict[str, list[str]]) -> None:
    log = LoginLog(alive=lambda _: False)
    assert [a for line in scene["login-only alice"] for a in log.read(line, 1.0, timed=False)] == []
    attempts = log.give_up(1.0 + PROVEN_SECONDS)
    assert [(a.outcome, a.seconds) for a in attempts] == [(LoginOutcome.OK, None)]


def test_the_gateways_own_probes_are_not_users(scene: dict[str, list[str]]) -> None:
    log = LoginLog(ignored=frozenset({"10.201.0.2"}), alive=lambda _: False)
    assert replay_and_wait(scene["wrong password"], log) == []


def test_the_version_is_read_from_the_daemons_first_words() -> None:
    for version in VERSIONS:
        log = LoginLog()
        replay((LOGS / f"ocserv-{version}.log").read_text().splitlines()[:20], log)
        assert log.version == version


def test_two_logins_from_one_address_at_once_keep_their_own_outcomes() -> None:
    good = scenes("1.3.0")["login-only alice"]
    bad = [line.replace("ocserv[8343]", "ocserv[9343]") for line in scenes("1.3.0")["wrong password"]]
    end = next(n for n, line in enumerate(bad) if "main:" in line and "worker terminated" in line)
    log = LoginLog(alive=lambda _: False)
    attempts = replay_and_wait([*bad[: end - 3], *good, *bad[end - 3 :]], log)
    assert [a.outcome for a in attempts] == [LoginOutcome.OK, LoginOutcome.AUTH_FAIL]


def test_where_nobody_sees_its_workers_a_connection_counts_at_the_end_that_is_logged_for_its_source() -> None:
    good = scenes("1.3.0")["login-only alice"]
    bad = [line.replace("ocserv[8343]", "ocserv[9343]") for line in scenes("1.3.0")["wrong password"]]
    end = next(n for n, line in enumerate(bad) if "main:" in line and "worker terminated" in line)
    log = LoginLog(alive=nobody_knows, age=nobody_knows)
    attempts = replay_and_wait([*bad[: end - 3], *good, *bad[end - 3 :]], log)
    assert sorted(a.outcome for a in attempts) == sorted([LoginOutcome.OK, LoginOutcome.AUTH_FAIL])
    unended = [line for line in good if "main" not in line]
    assert [*replay(unended, log), *log.give_up(1.0), *log.give_up(2.0)] == []


def test_a_worker_that_went_without_a_word_is_given_up_at_the_second_look() -> None:
    lines = [line for line in scenes("1.3.0")["login-only alice"] if "main" not in line]
    log = LoginLog(alive=lambda _: False)
    assert replay(lines, log) == []
    assert list(log.give_up(1.0)) == []
    assert list(log.give_up(2.0)) == []
    assert [a.outcome for a in log.give_up(2.0 + PROVEN_SECONDS)] == [LoginOutcome.OK]
    assert list(log.give_up(99.0)) == []


def test_a_connection_nobody_ever_ends_is_forgotten() -> None:
    log = LoginLog(alive=lambda _: True)
    replay(scenes("1.3.0")["idle tcp until auth-timeout"][:3], log)
    assert [a.outcome for a in log.give_up(LONGEST + 1)] == [LoginOutcome.TIMEOUT]


def test_lines_of_no_known_shape_are_skipped() -> None:
    log = LoginLog()
    assert (
        replay(["", "\x00\xff", "ocserv[1]: worker", "ocserv[x]: worker: 1 accepted", "note: a" * 9999], log)
        == []
    )


def retries(lines: list[str], every: float, for_seconds: float) -> Iterator[tuple[float, str]]:
    """One client's recorded failure again and again, each time with a worker of its own."""
    (worker,) = {m[1] for line in lines if (m := re.match(r"ocserv\[(\d+)\]: worker", line))}
    for n in range(int(for_seconds / every)):
        for line in lines:
            yield n * every, line.replace(f"ocserv[{worker}]", f"ocserv[{20000 + n}]")


def test_a_client_retrying_every_five_seconds_for_an_hour_counts_six_times(
    scene: dict[str, list[str]],
) -> None:
    log, first = LoginLog(alive=lambda _: False), FirstAttempts()
    attempts = [a for at, line in retries(scene["wrong password"], 5, 3600) for a in log.read(line, at)]
    assert len(attempts) == 720
    assert {a.outcome for a in attempts} == {LoginOutcome.AUTH_FAIL}
    assert sum(first.counts(a) for a in attempts) == 6


@pytest.mark.parametrize("version", ["1.1.6-behind-haproxy", "1.3.0-behind-haproxy"])
def test_logins_that_a_haproxy_carries_are_told_by_the_users_own_addresses(version: str) -> None:
    carried = scenes(version)
    (probe,) = re.findall(r"updating remote IP to (\S+)", "\n".join(carried["probe from the gateway"]))
    log = LoginLog(frozenset({probe}), alive=lambda _: False)
    assert replay_and_wait(carried["probe from the gateway"], log) == []
    assert [(one.key, one.outcome.value) for one in replay(carried["login of a user"], log)] == [
        ("user user1", "ok")
    ]
    killed = [line for line in carried["login of a user"] if "cli stats" not in line]
    assert [one.outcome for one in replay(killed, log)] == [LoginOutcome.INTERNAL]
    failed = replay(carried["wrong password"], log)
    assert {(one.key, one.outcome.value) for one in failed} == {("user user2", "auth_fail")}
    assert list(log.give_up(LONGEST * 2)) == []
