"""An instance that answers in a form that penstock does not read lives, and is not taken for a silent one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.openvpn import daemon as openvpn
from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.daemon.port import Environment
from activities.drivers.daemon.strongswan import daemon as strongswan
from activities.drivers.daemon.strongswan.daemon import StrongSwan
from activities.drivers.daemon.unread import Unread
from policies.model.fleet import Gateway, Slot
from tests.unit.fleets import gateway
from tests.unit.test_openvpn_sessions import HEADER, LAST, TITLE, client


@dataclass
class Place:
    """Where an instance would be, whose occtl prints what a test says."""

    folder: Path
    printed: str = ""
    status: int = 0
    control: str | None = None

    @property
    def gateway(self) -> Gateway:
        return gateway("gw-1")

    @property
    def slot(self) -> Slot:
        return self.gateway.slots[0]

    @property
    def config(self) -> Path:
        return self.folder

    run = config

    def beside(self, *_: Any) -> list[str]:
        return ["sh", "-c", f"printf '%s' '{self.printed}'; exit {self.status}"]


def place(folder: Path, printed: str = "", status: int = 0) -> Environment:
    return cast("Environment", Place(folder, printed, status))


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([*TITLE, HEADER, client("alice", "quic:10.77.0.11#40432", "10.90.0.2"), *LAST], "Real Address"),
        ([*TITLE, "HEADER\tSESSION_LIST\tUser", *LAST], "no list of clients"),
        (
            [*TITLE, HEADER.replace("Peer ID", "Peer"), client("alice", "10.77.0.11:1", "10.90.0.2")],
            "Peer ID is missing",
        ),
    ],
)
async def test_an_openvpn_of_a_later_form_answers_and_its_sessions_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[str], part: str
) -> None:
    """Reader of real inputs 2: a 2.7 that served its users was called one that gives no answer."""
    answers = [[rows], None, [[*TITLE, HEADER, *LAST]]]

    async def ask(*_: object) -> list[list[str]] | None:
        return answers[0]

    monkeypatch.setattr(openvpn, "ask", ask)
    daemon, here = OpenVpn(), place(tmp_path)
    assert daemon.unread(here) == ""
    assert await daemon.count(here) is None
    unread = f"OpenVPN answers in a form that penstock does not read ({part})"
    assert (daemon.unread(here), await daemon.silence(here)) == (unread, unread)
    assert "10.77" not in unread
    answers.pop(0)
    assert await daemon.count(here) is None
    assert daemon.unread(here) == ""
    answers.pop(0)
    assert (await daemon.count(here), daemon.unread(here)) == (0, "")


@pytest.mark.parametrize(
    ("printed", "status", "unread"),
    [
        ("users: 3", 0, "ocserv answers in a form that penstock does not read (a value of another form)"),
        ("{}", 0, "ocserv answers in a form that penstock does not read (`show sessions valid` is no list)"),
        ('[{"Name": 1}]', 0, "ocserv answers in a form that penstock does not read (State is missing)"),
        ("", 0, ""),
        ("[]", 1, ""),
        ("[]", 0, ""),
    ],
)
async def test_an_ocserv_of_another_form_is_told_from_one_without_an_answer(
    tmp_path: Path, printed: str, status: int, unread: str
) -> None:
    daemon, here = Ocserv(), place(tmp_path, printed, status)
    assert await daemon.count(here) == (0 if printed == "[]" and not status else None)
    assert daemon.unread(here) == unread
    if unread:
        assert await daemon.silence(here) == unread


async def test_a_strongswan_of_another_form_is_told_from_one_without_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answers(_: Path, question: Callable[[object], object], __: object) -> object:
        return question(None)

    async def silent(*_: object) -> None:
        return None

    monkeypatch.setattr(strongswan, "security_associations", lambda _: [{"state": b"ESTABLISHED"}])
    monkeypatch.setattr(strongswan, "ask", answers)
    daemon, here = StrongSwan(), place(tmp_path)
    assert await daemon.count(here) is None
    unread = "strongSwan answers in a form that penstock does not read (uniqueid is missing)"
    assert (daemon.unread(here), await daemon.silence(here)) == (unread, unread)
    monkeypatch.setattr(strongswan, "ask", silent)
    assert await daemon.count(here) is None
    assert daemon.unread(here) == ""


def test_what_is_not_read_is_known_of_each_slot() -> None:
    unread = Unread("OpenVPN")
    with unread.reading("a"):
        raise ValueError("10.77.0.11")
    with unread.reading("b"):
        pass
    assert unread.of("a").endswith("does not read (a value of another form)")
    assert (unread.of("b"), unread.of("c")) == ("", "")
