"""Logs of real daemons at `-d 3`, recorded from scripted clients; `####` lines name what the client did."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.drivers.daemon.ocserv.log import LONGEST, LoginLog, nobody_knows
from policies.attempts import Attempt, FirstAttempts, LoginOutcome

LOGS = Path(__file__).parent / "logs"
VERSIONS = ("1.1.6", "1.3.0")


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


@pytest.fixture(params=VERSIONS)
def scene(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    return scenes(str(request.param))


def ended(lines: list[str], step: float = 0.001) -> list[tuple[str, str]]:
    log = LoginLog(alive=lambda _: False)
    return [(a.key, a.outcome.value) for a in replay(lines, log, step=step)]


def test_each_way_a_login_can_go_is_told_apart(scene: dict[str, list[str]]) -> None:
    assert ended(scene["login-only alice"]) == [("user alice", "ok")]
    assert ended(scene["wrong password"]) == [("user alice", "auth_fail")]
    assert ended(scene["unknown user"]) == [("user mallory", "auth_fail")]
    assert ended(scene["tls failure (client distrusts)"]) == [("source 10.201.0.2", "tls_fail")]
    assert ended(scene["tls garbage"]) == [("source 10.201.0.2", "tls_fail")]


def test_a_tunnel_counts_when_it_opens_and_not_again_when_it_ends(scene: dict[str, list[str]]) -> None:
    for name in ("full tunnel 3 s then SIGINT", "full tunnel 3 s then KILL"):
        lines = scene[name]
        opened = next(n for n, line in enumerate(lines) if "suggesting DPD" in line)
        assert [outcome for _, outcome in ended(lines[:opened])] == ["ok"]
        assert len(ended(lines)) == 1


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
    seconds = [replay(lines, log, start=100.0)[0].seconds for log in logs]
    assert None not in seconds
    assert seconds[1] == pytest.approx((seconds[0] or 0.0) + 1.2)


def test_a_cookie_that_resumes_a_session_is_no_login(scene: dict[str, list[str]]) -> None:
    lines = scene["full tunnel 3 s then SIGINT"]
    assert ended([line for line in lines if "sm: auth" not in line]) == []


def test_the_handshake_leaves_out_the_time_a_person_takes_to_answer(scene: dict[str, list[str]]) -> None:
    lines = scene["login-only alice"]
    answer = next(n for n, line in enumerate(lines) if "sending message 'sm: auth cont'" in line)
    log = LoginLog(alive=lambda _: False)
    attempts = [*replay(lines[:answer], log), *replay(lines[answer:], log, start=40.0)]
    (seconds,) = [attempt.seconds for attempt in attempts]
    assert seconds is not None
    assert 0 < seconds < 0.1


def test_a_backlog_tells_outcomes_but_no_durations(scene: dict[str, list[str]]) -> None:
    log = LoginLog(alive=lambda _: False)
    attempts = [a for line in scene["login-only alice"] for a in log.read(line, 1.0, timed=False)]
    assert [(a.outcome, a.seconds) for a in attempts] == [(LoginOutcome.OK, None)]


def test_the_gateways_own_probes_are_not_users(scene: dict[str, list[str]]) -> None:
    log = LoginLog(ignored=frozenset({"10.201.0.2"}), alive=lambda _: False)
    assert replay(scene["wrong password"], log) == []


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
    attempts = replay([*bad[: end - 3], *good, *bad[end - 3 :]], log)
    assert [a.outcome for a in attempts] == [LoginOutcome.OK, LoginOutcome.AUTH_FAIL]


def test_where_nobody_sees_its_workers_a_connection_counts_at_the_end_that_is_logged_for_its_source() -> None:
    good = scenes("1.3.0")["login-only alice"]
    bad = [line.replace("ocserv[8343]", "ocserv[9343]") for line in scenes("1.3.0")["wrong password"]]
    end = next(n for n, line in enumerate(bad) if "main:" in line and "worker terminated" in line)
    log = LoginLog(alive=nobody_knows, age=nobody_knows)
    attempts = replay([*bad[: end - 3], *good, *bad[end - 3 :]], log)
    assert sorted(a.outcome for a in attempts) == sorted([LoginOutcome.OK, LoginOutcome.AUTH_FAIL])
    unended = [line for line in good if "main" not in line]
    assert [*replay(unended, log), *log.give_up(1.0), *log.give_up(2.0)] == []


def test_a_worker_that_went_without_a_word_is_given_up_at_the_second_look() -> None:
    lines = [line for line in scenes("1.3.0")["login-only alice"] if "main" not in line]
    log = LoginLog(alive=lambda _: False)
    assert replay(lines, log) == []
    assert list(log.give_up(1.0)) == []
    assert [a.outcome for a in log.give_up(2.0)] == [LoginOutcome.OK]
    assert list(log.give_up(3.0)) == []


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
    assert replay(carried["probe from the gateway"], log) == []
    assert [(one.key, one.outcome.value) for one in replay(carried["login of a user"], log)] == [
        ("user user1", "ok")
    ]
    failed = replay(carried["wrong password"], log)
    assert {(one.key, one.outcome.value) for one in failed} == {("user user2", "auth_fail")}
    assert list(log.give_up(LONGEST * 2)) == []
