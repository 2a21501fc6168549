"""Header lines of a hostile peer: each is matched once, and as h11 itself matches it."""

import re

import h11
import h11._abnf as grammar
import h11._readers as readers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.drivers import header_lines
from activities.drivers.source import wire
from orchestrator import request_heads
from orchestrator.enrolment import host

OWN = re.compile(grammar.header_field.encode("ascii"))
"""h11's own pattern."""


@given(st.text(alphabet="aA:-_ \t\x00\x0b\rü", max_size=14).map(lambda line: line.encode("latin-1")))
def test_a_line_is_read_as_h11_itself_reads_it(line: bytes) -> None:
    own, ours = OWN.fullmatch(line), header_lines.LINE.fullmatch(line)
    assert (own and own.groupdict()) == (ours and ours.groupdict())


def test_every_parser_of_this_process_has_the_pattern() -> None:
    assert readers.header_field_re is header_lines.LINE
    assert {one.header_lines for one in (wire, host, request_heads)} == {header_lines}


def test_h11_has_not_changed_its_pattern() -> None:
    """A version of h11 that changes it may need this module no more, or another pattern."""
    assert grammar.header_field == (
        rf"(?P<field_name>{grammar.field_name}):{grammar.OWS}(?P<field_value>{grammar.field_value}){grammar.OWS}"
    )


@pytest.mark.parametrize("end", [b"\x00", b"x\x00", b"\x0b"])
def test_a_line_of_spaces_that_cannot_match_is_refused(end: bytes) -> None:
    """With h11's own pattern this takes 40 s, and four times as long for each doubling."""
    connection = h11.Connection(h11.CLIENT, 128 * 1024)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(b"HTTP/1.1 200 OK\r\nA:" + b" " * 90_000 + end + b"\r\n\r\n")
    with pytest.raises(h11.RemoteProtocolError):
        connection.next_event()
