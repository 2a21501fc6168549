"""A name that a daemon does not print whole ends no session of a user who may be listed, or exempt."""

import pytest

from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.ocserv.printed import LOST, printed_forms, readings
from activities.drivers.daemon.strongswan.sessions import LOST as LOST_BY_CHARON


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        (b"ana", "ana"),
        ("jürgen".encode(), "jÿÿrgen"),  # 1.1.6 on x86
        ("jürgen".encode(), "jürgen"),  # on ARM
        ("jürgen".encode(), "j\u00c3\u00bcrgen"),  # each byte escaped as it is
        ("aÿ".encode(), "aÿ"),
        ("иван".encode(), "ÿ" * 8),
        ("jürgen".encode("latin-1"), "jÿrgen"),
        ("jürgen".encode("latin-1"), "j\ufffdrgen"),
    ],
)
def test_a_listed_name_is_found_however_occtl_prints_it(name: bytes, printed: str) -> None:
    assert printed in printed_forms(name)


def test_a_name_that_is_printed_whole_is_no_other_one() -> None:
    assert "jörgen" not in printed_forms("jürgen".encode())
    assert "jÿÿrgem" not in printed_forms("jürgen".encode())
    assert printed_forms(b"ana") == {"ana"}


@pytest.mark.parametrize(
    ("printed", "pattern", "spared"),
    [
        ("jÿÿrgen", "jürgen", True),
        ("jÿÿrgen", "jörgen", True),  # it may be
        ("jÿÿrgen", "j?rgen", True),
        ("jÿÿrgen", "j[üö]rgen", True),
        ("jÿÿrgen", "j[!a]rgen", True),
        ("jÿÿrgen", "j*", True),
        ("jÿÿrgen", "*ürgen", True),
        ("jÿÿrgen", "j[uo]rgen", False),
        ("jÿÿrgen", "jrgen", False),
        ("jÿÿrgen", "jürgens", False),
        ("jÿÿrgen", "vip-*", False),
        ("ÿÿÿÿÿÿÿÿ", "иван", True),
        ("ÿÿÿÿÿÿÿÿ", "????", True),
        ("ÿÿÿÿÿÿÿÿ", "?????????", False),
        ("ÿÿÿÿ-ÿÿ", "Ää-*", True),
        ("j\u00c3\u00bcrgen", "jürgen", True),
        ("jürgen", "jürgen", True),
        ("jürgen", "jörgen", False),
        ("j\ufffdrgen", "jürgen", True),
        ("ana", "an?", True),
        ("ana", "", False),
        ("", "*", True),
    ],
)
def test_a_user_who_may_be_exempt_is_exempt(printed: str, pattern: str, *, spared: bool) -> None:
    for exempt in (Exempt(users=(pattern,)), Exempt(groups=(pattern,))):
        names = [(one, "") if exempt.users else ("", one) for one in readings(printed)]
        assert any(exempt.spares(*one, LOST) for one in names) is spared


def test_a_user_of_charon_who_may_be_exempt_is_exempt() -> None:
    """identification_t prints each byte that isprint(3) does not know as a question mark."""
    exempt = Exempt(users=("jürgen@*", "vip-[ä-ü]*"))
    spared = [
        exempt.spares(name, "", LOST_BY_CHARON)
        for name in ("j??rgen@example.org", "vip-??", "vip-a", "j?rge")
    ]
    assert spared == [True, True, False, False]


@pytest.mark.timeout(10)
def test_a_name_of_a_hostile_user_is_matched_at_once() -> None:
    assert not Exempt(users=("?" * 40 + "*" + "ü" * 20 + "x",)).spares("ÿ" * 500, "", LOST)
