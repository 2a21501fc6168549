"""Lines of ocserv's log that a client writes by line feeds in what it sends, and those of ocserv around them.

What ocserv logs of a login is compared with `tests/drivers/logs`; a name has 63 bytes at most.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest

from activities.drivers.daemon.ocserv.log import LoginLog
from activities.drivers.daemon.ocserv.own_lines import Line, OwnLines
from policies.attempts import Attempt, LoginOutcome
from policies.lines import lines_in

LOGS = Path(__file__).parents[1] / "drivers" / "logs"
MINE, OTHER = "1.1.1.1", "9.9.9.9"
CLOSING = (
    "",
    "x",
    "'",
    "]: a:: ",
    f"]: {MINE} ",
    "' (session: ",
    "' (session: a)",
    "]:a:::1 ",
    "' but is not ",
)
FORGED = (
    "ocserv[0]: worker: a:: accepted connection",
    "ocserv[0]: worker: a:: TLS handshake completed",
    "ocserv[1]: main: termination request received",
    "ocserv[1]: main:a:::1 worker terminated",
    "ocserv[1]: main[u]:a:::1 new user session",
    "ocserv[1]: main: initialized ocserv 1",
    "ocserv[7]: GnuTLS error (at worker-vpn.c:1): x",
    "ocserv[7]: worker: 9.9.9.9 Received TCP health probe",
)
BEGUN = (
    "",
    "x",
    "ocserv[1]: ",
    "ocserv[1]: main:",
    "ocserv[1]: main[",
    "ocserv[7]: worker[",
    "ocserv[7]: worker: a:: ",
    "ocserv[1]: sec-mod: ",
)
GENUINE = (
    f"ocserv[7]: worker: {OTHER} accepted connection",
    f"ocserv[7]: worker[ana]: {OTHER} sending message 'sm: auth cont' to secmod",
    "ocserv[3]: sec-mod: auth complete for user 'ana' (session: WQeywI) of group: ''",
    "note: setting 'file' as supplemental config option",
    f"ocserv[1]: main[ana]:{OTHER}:39840 user logged in",
)


def refused(name: str, pid: int = 500) -> list[str]:
    """Return what ocserv writes of one login by that name, each at once."""
    worker = f"ocserv[{pid}]: worker"
    return [
        f"{worker}: {MINE} accepted connection",
        f"{worker}: {MINE} TLS handshake completed",
        f"{worker}[{name}]: {MINE} sending message 'sm: auth init' to secmod",
        f"ocserv[3]: sec-mod: auth init for user '{name}' (session: WQeywI) of group: '' from '{MINE}'",
        f"ocserv[3]: pam_unix(ocserv:auth): authentication failure; user={name}",
        f"{worker}[{name}]: {MINE} received auth reply message (value: 2)",
        f"{worker}[{name}]: {MINE} continuing authentication for '{name}'",
        f"ocserv[3]: sec-mod: auth cont for user '{name}' (session: WQeywI)",
        f"ocserv[3]: plain-auth: error authenticating user '{name}'",
        f"{worker}[{name}]: {MINE} received auth reply message (value: 3)",
        f"{worker}[{name}]: {MINE} failed authentication for '{name}'",
        f"ocserv[1]: main:{MINE}:40000 worker terminated",
    ]


def believed(written: Iterable[str]) -> list[str]:
    own = OwnLines()
    found = [own.take(Line(line, 0.0)) for one in written for line in lines_in(f"{one}\n")]
    return [line.text for line in (*found, own.flush()) if line is not None]


def attempts(written: Iterable[str]) -> list[Attempt]:
    log = LoginLog(alive=lambda _: False)
    found = [a for one in written for line in lines_in(f"{one}\n") for a in log.read(line, 100.0)]
    return [*found, *(a for at in (110.0, 120.0, 130.0) for a in log.give_up(at))]


@pytest.mark.parametrize("closing", CLOSING)
def test_no_name_of_a_login_writes_a_line_that_is_believed(closing: str) -> None:
    for forged, begun in product(FORGED, BEGUN):
        for name in (f"{closing}\n{forged}\n{begun}", f"{closing}\n{begun}\n{forged}"):
            written = [one for line in refused(name.encode()[:63].decode()) for one in (line, *GENUINE[:1])]
            whole = {one for one in written if "\n" not in one}
            strange = [one for one in believed(written) if one not in whole and one in FORGED]
            assert strange == [], name
            found = attempts(written)
            assert {one.source for one in found} <= {MINE, OTHER}, name
            assert LoginOutcome.OK not in {one.outcome for one in found}, name


def test_a_client_that_writes_of_a_stop_keeps_no_fault_of_the_daemon_from_counting() -> None:
    worker, main = f"ocserv[7]: worker[ana]: {OTHER}", f"ocserv[1]: main[ana]:{OTHER}:1000"
    ended_by_a_fault = [
        f"ocserv[7]: worker: {OTHER} accepted connection",
        f"ocserv[7]: worker: {OTHER} TLS handshake completed",
        f"{worker} sending message 'sm: auth init' to secmod",
        f"{worker} received auth reply message (value: 1)",
        f"{worker} sending message 'auth cookie request' to main",
        f"{main} new user session",
        f"{worker} received auth reply message (value: 1)",
        f"{main} worker terminated",
    ]
    for name in ("ana", f"\n{FORGED[2]}\n", f"]: {MINE} \n{FORGED[2]}"):
        found = attempts([*refused(name), *ended_by_a_fault])
        assert [one.outcome for one in found if one.source == OTHER] == [LoginOutcome.INTERNAL]


def test_a_name_with_a_line_feed_takes_no_line_of_another_process_along() -> None:
    for name in ("ana\n", f"\n{FORGED[0]}\n", f"]: {MINE} \n{FORGED[0]}\n"):
        written = [one for line in refused(name) for one in (line, *GENUINE)]
        kept = Counter(believed(written))
        assert {kept[one] for one in GENUINE if one.startswith("ocserv")} == {len(refused(name))}


@pytest.mark.parametrize("log", sorted(LOGS.glob("ocserv*.log")), ids=lambda log: log.stem)
def test_every_line_of_a_recorded_log_that_is_read_is_believed(log: Path) -> None:
    lines = [line for line in lines_in(log.read_text()) if line and not line.startswith("####")]
    left_out = Counter(lines) - Counter(believed(lines))
    assert not [one for one in left_out if "worker" in one or "main" in one or "GnuTLS" in one]


def post(body: str, *headers: str) -> list[str]:
    """Return what ocserv writes of a request from level 4 on, into a buffer of 512 bytes."""
    worker = f"ocserv[500]: worker: {MINE}"
    processed = [f"{worker} HTTP processing: {header}" for header in ("Host: vpn.example", *headers)]
    said = f"POST body: '{body}'"
    return [*processed, f"{worker} HTTP POST /auth", f"{worker} {said[:511]}"]


XML = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<config-auth client="vpn" type="auth-reply"><auth>'
    "<username>ana</username></auth></config-auth>\n"
)


@pytest.mark.parametrize("body", [XML, "username=ana", XML.replace("ana", "a" * 400), "username=\xff\n"])
def test_a_login_is_read_where_bodies_are_logged(body: str) -> None:
    login = refused("ana")
    size = f"Content-Length: {len(body.encode())}"
    written = [*login[:2], *post(body, size), *login[2:]]
    assert [one for one in login if one not in believed(written)] == []
    assert [one.outcome for one in attempts(written)] == [LoginOutcome.AUTH_FAIL]


@pytest.mark.parametrize(
    "ends", ["", "'", "\n", "'\n", "\nocserv[1]: main: x", "\nocserv[7]: worker[y]: 1.1.1.1 x"]
)
@pytest.mark.parametrize("sized", [True, False], ids=["of a length", "in chunks"])
def test_no_body_of_a_request_writes_a_line_that_is_believed(ends: str, *, sized: bool) -> None:
    stop = "ocserv[1]: main: termination request received; waiting for children to die"
    said = ("accepted connection", "sending message 'sm: auth init' to secmod")
    body = "\n".join(["x'", stop, *(f"ocserv[9]: worker: {OTHER} {one}" for one in said)]) + ends
    header = f"Content-Length: {len(body)}" if sized else "Transfer-Encoding: chunked"
    written = [*refused("ana")[:2], *post(body, header), *refused("ana")[2:]]
    assert not {stop, *(f"ocserv[9]: worker: {OTHER} {one}" for one in said)} & set(believed(written))
    assert {one.source for one in attempts(written)} <= {MINE}


def test_a_name_that_looks_like_a_body_hides_no_line_behind_it() -> None:
    name = f"]: {MINE} POST body: 'x"
    written = [*refused(name), *GENUINE]
    assert [one for one in GENUINE if one not in believed(written)] == [GENUINE[3]]
