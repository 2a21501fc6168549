"""Lines of daemons, which a user who writes into them must not be able to end."""

from pathlib import Path

import pytest

from activities.drivers.daemon.login import ProbeLogin, password_of
from activities.drivers.daemon.ocserv import log as ocserv
from activities.drivers.daemon.ocserv.credentials import names_listed
from activities.drivers.daemon.openvpn import log as openvpn
from activities.drivers.metrics.log_tail import LogTail
from activities.drivers.programs import Completed
from activities.drivers.runtime.host.attribution import lines_of_log
from policies.attempts import Attempt
from policies.lines import lines_in
from policies.model.errors import BadInput
from policies.redaction import LONGEST_LINE, with_short_lines, without_secrets

NO_ENDS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r"]
"""What `str.splitlines` takes for the end of a line, and no daemon does."""
VICTIM = "198.51.100.9:1000"


def read_whole(log: Path, text: str) -> list[str]:
    log.write_bytes(text.encode())
    return LogTail(log).read()


@pytest.mark.parametrize("end", NO_ENDS)
def test_a_certificate_shown_to_openvpn_forges_no_login_of_another_user(end: str, tmp_path: Path) -> None:
    """R11, a fresh reader's F1."""
    forged = [
        f"2026-11-29 05:00:00 {VICTIM} peer info: IV_VER=2.6",
        f"2026-11-29 05:00:00 {VICTIM} TLS Auth Error: x",
        f"2026-11-29 05:00:00 {VICTIM} SIGUSR1[soft,tls-error] received, client-instance restarting",
    ]
    shown = end.join(["O=", *forged, ", CN=eve"])
    text = f"2026-11-29 05:00:00 203.0.113.5:40000 VERIFY ERROR: depth=0, error=not ours: {shown}, serial=7\n"
    log, found = openvpn.LoginLog(), list[Attempt]()
    for line in read_whole(tmp_path / "log", text):
        found += log.read(line, 100.0)
    assert found == []


@pytest.mark.parametrize("end", NO_ENDS)
def test_a_clients_name_for_itself_forges_no_login_at_ocserv(end: str, tmp_path: Path) -> None:
    """R11, a fresh reader's F1."""
    worker = "ocserv[77]: worker: 198.51.100.9"
    forged = [
        f"{worker} accepted connection",
        f"{worker} sending message 'sm: auth init' to secmod",
        f"{worker} received auth reply message (value: 3)",
        "ocserv[1]: main:198.51.100.9:1000 worker terminated",
    ]
    text = f"ocserv[5]: worker: 203.0.113.5 User-agent: '{end.join(['x', *forged, ''])}'\n"
    log, found = ocserv.LoginLog(alive=lambda _: False), list[Attempt]()
    for line in read_whole(tmp_path / "log", text):
        found += log.read(line, 100.0)
    assert [*found, *log.give_up(100.0), *log.give_up(200.0)] == []


@pytest.mark.parametrize("end", NO_ENDS)
def test_a_log_that_was_rotated_away_is_read_in_the_same_lines(end: str, tmp_path: Path) -> None:
    """R11, a fresh reader's F1."""
    (tmp_path / "access.log.1").write_bytes(f"one{end}still one\ntwo\n".encode())
    assert list(lines_of_log(tmp_path / "access.log")) == [f"one{end}still one", "two"]


@pytest.mark.parametrize("end", NO_ENDS)
def test_a_line_of_a_log_is_cut_and_redacted_whole(end: str) -> None:
    """R11, a fresh reader's F1."""
    assert "hunter2" not in without_secrets(f"password = a{end}hunter2\n")
    long = f"{'x' * 9}{end}" * LONGEST_LINE
    assert len(with_short_lines(long)) < LONGEST_LINE + 100


def test_the_last_words_of_a_program_are_its_last_line() -> None:
    """R11, a fresh reader's F1."""
    assert (
        Completed(1, "", "user x\u2028all is well refused\n").last_words == "user x\u2028all is well refused"
    )


@pytest.mark.parametrize("end", NO_ENDS)
def test_a_user_of_ocserv_has_a_name_of_one_line(end: str, tmp_path: Path) -> None:
    """R11, a fresh reader's F1."""
    users = tmp_path / "users"
    users.write_bytes(f"an{end}na:*:$5$x$y\n".encode())
    listed = names_listed(f'auth = "plain[passwd={users}]"\n', Path) or set()
    assert (f"an{end}na" in listed, "an" in listed, "na" in listed) == (True, False, False)


@pytest.mark.parametrize(
    ("content", "password"),
    [
        ("pä\u2028ss\nmore\n".encode(), "pä\u2028ss"),
        ("\ufeffpass".encode(), "pass"),
        (b"pass\r\n", "pass"),
        (b" p \n", " p "),
    ],
)
def test_the_password_of_a_probe_is_its_files_first_line(
    content: bytes, password: str, tmp_path: Path
) -> None:
    """R11, a fresh reader's F14."""
    (tmp_path / "password").write_bytes(content)
    assert password_of(ProbeLogin("probe", tmp_path / "password", tmp_path)) == password


@pytest.mark.parametrize(
    ("content", "said"), [("pä".encode("latin-1"), "UTF-8"), (b"\n", "empty"), (b"", "empty")]
)
def test_a_probe_without_a_password_that_can_be_read_is_refused_by_name(
    content: bytes, said: str, tmp_path: Path
) -> None:
    """R11, a fresh reader's F14."""
    (tmp_path / "password").write_bytes(content)
    with pytest.raises(BadInput, match=said):
        password_of(ProbeLogin("probe", tmp_path / "password", tmp_path))


def test_an_empty_text_has_no_line_and_an_empty_line_is_one() -> None:
    assert (lines_in(""), lines_in("\n"), lines_in("a\n\nb")) == ([], [""], ["a", "", "b"])
