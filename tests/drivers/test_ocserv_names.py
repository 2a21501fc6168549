"""Where a client asks for a name, by what an ocserv gave it, and what follows from the answers."""

from ipaddress import ip_address

import pytest

from activities.drivers.daemon.ocserv.names import goes_inside, resolved
from activities.drivers.daemon.ocserv.session import Session
from activities.drivers.resolving import Answers, answer_in
from policies.model.release_tests import Names

SERVER = "10.0.0.53"
NAME = "intranet.example.com"
NAMES = Names.model_validate({"inside": {NAME: ["10.0.0.80"]}, "outside": ["www.example.org"]})


def session(answers: Answers | None = None, *domains: str) -> Session:
    split = [*domains] or ["example.com"]
    return Session(let_in=True, dns=[SERVER], split_dns=split, answers=answers or {}, words="it left")


@pytest.mark.parametrize(
    ("domain", "name", "inside"),
    [
        ("example.com", "example.com", True),
        ("example.com", "a.b.example.com", True),
        ("example.com", "notexample.com", False),
        ("example.com", "example.com.example.org", False),
        (".example.com", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
    ],
)
def test_a_domain_covers_itself_and_what_is_below_it(domain: str, name: str, inside: bool) -> None:
    assert (goes_inside(session(None, domain), name) is not None) is inside


def test_without_a_server_no_name_is_asked_inside_whatever_else_was_pushed() -> None:
    assert goes_inside(Session(let_in=True, split_dns=["example.com"], all_dns=True), NAME) is None


async def measured(*held: Session) -> list[tuple[float | None, str]]:
    return [(one.measured, one.said) for one in await resolved(held, NAMES)]


RIGHT: Answers = {(SERVER, NAME): (ip_address("10.0.0.80"),)}


async def test_a_name_that_is_answered_in_every_session_is_none_that_is_wrong() -> None:
    inside, outside = await measured(session(RIGHT), session(RIGHT))
    assert inside == (0, f"{NAME} answered through the tunnel by {SERVER}")
    assert outside == (0, "www.example.org asked outside of the tunnel")


async def test_a_name_that_one_session_could_not_ask_for_is_unknown() -> None:
    assert (await measured(session(RIGHT), session()))[0] == (
        None,
        f"{SERVER} could not be asked for {NAME}: it left",
    )


async def test_a_wrong_answer_in_one_session_outweighs_what_is_unknown_of_another() -> None:
    count, said = (await measured(session({(SERVER, NAME): (ip_address("192.0.2.1"),)}), session()))[0]
    assert (count, said) == (1, f"{SERVER} answers 192.0.2.1 for {NAME}, which is to be 10.0.0.80")


async def test_where_nobody_gets_in_nothing_is_known_of_names() -> None:
    assert [count for count, _ in await measured(Session(), Session())] == [None, None]


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("penstock: answer 10.0.0.53 a.example.com 10.0.0.80,fd00::80", ("10.0.0.80", "fd00::80")),
        ("penstock: answer 10.0.0.53 a.example.com", ()),
        ("penstock: answer 10.0.0.53 a.example.com -", None),
    ],
)
def test_an_answer_is_read_from_a_line(line: str, answers: tuple[str, ...] | None) -> None:
    found = None if answers is None else tuple(ip_address(one) for one in answers)
    assert answer_in(line) == {("10.0.0.53", "a.example.com"): found}


@pytest.mark.parametrize(
    "line", ["", "penstock: answer", "penstock: answers a b c", "penstock: answer a b c d"]
)
def test_what_is_no_answer_is_none(line: str) -> None:
    assert answer_in(line) == {}
