"""A tunnel's end without a device: packets in and out of a socket, as openconnect hands them over."""

import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import dns.message
import dns.rcode
import dns.rrset
import pytest

from activities.drivers.daemon.ocserv.tunnel_end import ICMP, UDP, Tunnel, ask, given, ping, sum_of

OWN, GATEWAY, SERVER = map(IPv4Address, ("10.90.0.7", "10.90.0.1", "10.99.0.53"))
HEADER, PORTS = 20, 8

Answers = Callable[[bytes], bytes | None]
"""What comes back for a packet, None where it is lost."""


@contextmanager
def tunnel(answers: Answers) -> Iterator[Tunnel]:
    """Have somebody at the other end, who answers each packet or loses it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def serve() -> None:
        while packet := theirs.recv(65536):
            if (answer := answers(packet)) is not None:
                theirs.send(answer)

    other = threading.Thread(target=serve)
    other.start()
    try:
        yield Tunnel(ours, OWN)
    finally:
        ours.send(b"")  # nothing more comes
        other.join()
        ours.close()
        theirs.close()


def back(packet: bytes, content: bytes) -> bytes:
    """Return a packet with this content from whom that one was sent to; the end reads no more of its head."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, HEADER + len(content), 0, 0, 64, packet[9], 0)
    return head + packet[16:20] + packet[12:16] + content


def echoed(packet: bytes) -> bytes:
    """Answer a ping whose sums are right."""
    assert (sum_of(packet[:HEADER]), sum_of(packet[HEADER:])) == (0, 0)
    assert (packet[9], struct.unpack("!H", packet[2:4])[0]) == (ICMP, len(packet))
    return back(packet, b"\0" + packet[HEADER + 1 :])


def test_answered_pings_are_told_as_ping_tells_them(capsys: pytest.CaptureFixture[str]) -> None:
    with tunnel(echoed) as there:
        ping(there, GATEWAY, 3, 0.01, b"x" * 100)
    assert capsys.readouterr().out.splitlines() == [
        *(f"108 bytes from 10.90.0.1: icmp_seq={serial}" for serial in (1, 2, 3)),
        "3 packets transmitted, 3 received",
    ]


def test_a_ping_that_is_lost_and_one_of_somebody_else_are_not_answered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def some(packet: bytes) -> bytes | None:
        serial = struct.unpack("!H", packet[HEADER + 6 : HEADER + 8])[0]
        others = back(packet, struct.pack("!BBHHH", 0, 0, 0, 1, serial))
        return {1: echoed(packet), 2: None, 3: others}[serial]

    with tunnel(some) as there:
        ping(there, GATEWAY, 3, 0.01, b"x")
    assert capsys.readouterr().out.splitlines()[1:] == ["3 packets transmitted, 1 received"]


def answering(code: dns.rcode.Rcode, *addresses: str, lost: int = 0) -> Answers:
    """Be a DNS server that answers with this, after so many questions were lost."""
    asked = 0

    def answer(packet: bytes) -> bytes | None:
        nonlocal asked
        asked += 1
        if asked <= lost:
            return None
        port, to = struct.unpack("!HH", packet[HEADER : HEADER + 4])
        assert (packet[9], to, IPv4Address(packet[16:20])) == (UDP, 53, SERVER)
        question = dns.message.from_wire(packet[HEADER + PORTS :])
        said = dns.message.make_response(question)
        said.set_rcode(code)
        if addresses:
            name = question.question[0].name
            said.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *addresses))
        wire = said.to_wire()
        return back(packet, struct.pack("!HHHH", to, port, PORTS + len(wire), 0) + wire)

    return answer


def test_names_are_asked_for_through_the_tunnel_and_once_more_when_the_question_was_lost() -> None:
    with tunnel(answering(dns.rcode.NOERROR, "192.0.2.1", "192.0.2.2", lost=1)) as there:
        found = ask(there, SERVER, "inside.example", "A")
    assert found is not None
    assert sorted(map(str, found)) == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize(
    ("code", "found"), [(dns.rcode.NXDOMAIN, ()), (dns.rcode.NOERROR, ()), (dns.rcode.SERVFAIL, None)]
)
def test_a_name_that_there_is_not_is_none_and_a_servers_failure_is_no_answer(
    code: dns.rcode.Rcode, found: tuple[()] | None
) -> None:
    with tunnel(answering(code)) as there:
        assert ask(there, SERVER, "inside.example", "A") == found


@pytest.mark.sweep
def test_a_silent_server_is_waited_for_three_seconds() -> None:
    begun = time.monotonic()
    with tunnel(lambda _: None) as there:
        assert ask(there, SERVER, "inside.example", "A") is None
    assert time.monotonic() - begun >= 3


def test_what_a_client_was_given_is_told_without_dns_servers_of_a_kind_that_its_tunnel_has_not() -> None:
    environment = {
        "CISCO_SPLIT_INC": "1",
        "CISCO_SPLIT_INC_0_ADDR": "10.99.0.0",
        "CISCO_SPLIT_INC_0_MASKLEN": "24",
        "INTERNAL_IP4_DNS": "10.99.0.53 fd99::53",
        "CISCO_SPLIT_DNS": "corp.example",
        "X-CSTP-Tunnel-All-DNS": "false",
        "INTERNAL_IP4_MTU": "1434",
    }
    told = ["route 10.99.0.0/24", "dns 10.99.0.53", "split-dns corp.example", "all-dns false", "mtu 1434"]
    assert list(given(environment)) == told
    assert "dns fd99::53" in given(environment | {"INTERNAL_IP6_ADDRESS": "fd90::7"})


def test_who_is_no_openconnect_is_not_told_to_leave() -> None:
    """One that is left behind has the parent of all orphans: in a pod that is the agent itself."""
    told: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: told.append(number))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        given = {
            "INTERNAL_IP4_ADDRESS": str(OWN),
            "PROBE_TARGET": str(GATEWAY),
            "VPNFD": str(theirs.fileno()),
        }
        command = [sys.executable, "-I", "-m", "activities.drivers.daemon.ocserv.tunnel_end", "probe", "1"]
        done = subprocess.run(
            command, env=given, pass_fds=[theirs.fileno()], capture_output=True, text=True, check=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
        ours.close()
        theirs.close()
    assert done.stdout.splitlines() == ["penstock: tunnel", "1 packets transmitted, 0 received"]
    assert told == []
