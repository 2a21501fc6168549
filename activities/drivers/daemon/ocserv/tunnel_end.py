"""The client's end of a tunnel where no device can be made: openconnect hands over packets, and takes them.

`openconnect --script-tun --script='exec python -m activities.drivers.daemon.ocserv.tunnel_end KIND …'` starts
this program with a socket that carries whole IP packets (VPNFD, openconnect(8)) and tells in its environment
what the client was given. It says what the scripts of probes and tests say with a device: pings in the words
of ping(8), then openconnect is asked to leave. Nothing of the host's network is used but that tunnel.
"""

import os
import secrets
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from activities.drivers.resolving import Answer, answer_line

ICMP, UDP = socket.IPPROTO_ICMP, socket.IPPROTO_UDP
ECHO, ANSWER = 8, 0
"""Types of an ICMP message (RFC 792)."""
DO_NOT_FRAGMENT = 0x4000
DNS_PORT = 53
WORDS = 3
"""The descriptor from which it is told what to ask; openconnect has read the password from the usual one."""
LARGEST = 2**16
"""Bytes of one packet."""
AFTER_LAST = 1.0
"""Seconds in which an answer to the last ping comes."""
ASKED_AGAIN = 1.0
"""Seconds after which a question is asked again, which may have been lost."""
ANSWERED_WITHIN = 3.0
"""Seconds in which a DNS server answers."""
SETTLES = 0.3
"""Seconds in which DTLS is there, after which pings would rather be lost on their way to it."""

_IP = struct.Struct("!BBHHHBBH4s4s")
_ECHO = struct.Struct("!BBHHH")
_UDP = struct.Struct("!HHHH")


def program() -> str:
    """Return how openconnect is told to run this, as one word of a shell's; without its arguments."""
    return f"exec {sys.executable} -I -m {__name__}"


class Tunnel:
    """What goes through one tunnel: IPv4 packets, one at a time."""

    def __init__(self, end: socket.socket, own: IPv4Address) -> None:
        """Take openconnect's socket and the address that the client was given."""
        self._end = end
        self._own = own

    def send(self, protocol: int, to: IPv4Address, content: bytes) -> None:
        """Send one packet that no router may cut in pieces; what the tunnel does not take is lost."""
        size = _IP.size + len(content)
        fields = (0x45, 0, size, secrets.randbelow(2**16), DO_NOT_FRAGMENT, 64, protocol)
        ends = (self._own.packed, to.packed)
        head = _IP.pack(*fields, 0, *ends)
        with suppress(OSError):
            self._end.send(_IP.pack(*fields, sum_of(head), *ends) + content)

    def answers(self, protocol: int, until: float) -> Iterator[tuple[IPv4Address, bytes]]:
        """Yield what comes by that protocol, and from whom, until that moment of the monotonic clock."""
        while (left := until - time.monotonic()) > 0:
            self._end.settimeout(left)
            try:
                packet = self._end.recv(LARGEST)
            except (TimeoutError, ConnectionError):
                return
            if len(packet) >= _IP.size and packet[0] >> 4 == 4 and packet[9] == protocol:  # noqa: PLR2004
                yield IPv4Address(packet[12:16]), packet[4 * (packet[0] & 15) :]


def sum_of(content: bytes) -> int:
    """Return the internet checksum (RFC 1071)."""
    even = content + b"\0" * (len(content) % 2)
    total = sum(int.from_bytes(even[at : at + 2]) for at in range(0, len(even), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(tunnel: Tunnel, target: IPv4Address, times: int, apart: float, payload: bytes) -> None:
    """Send so many pings, and say what its program says of each answer and at the end."""
    known, heard = secrets.randbelow(2**16), set[int]()

    def listen(until: float) -> None:
        for source, said in tunnel.answers(ICMP, until):
            kind, _, _, identifier, serial = _ECHO.unpack_from(said)
            if (source, kind, identifier) == (target, ANSWER, known) and serial not in heard:
                heard.add(serial)
                print(f"{len(said)} bytes from {target}: icmp_seq={serial}", flush=True)  # noqa: T201
                if len(heard) == times:
                    return

    for serial in range(1, times + 1):
        bare = _ECHO.pack(ECHO, 0, 0, known, serial) + payload
        tunnel.send(ICMP, target, _ECHO.pack(ECHO, 0, sum_of(bare), known, serial) + payload)
        listen(time.monotonic() + (apart if serial < times else AFTER_LAST))
    print(f"{times} packets transmitted, {len(heard)} received", flush=True)  # noqa: T201


def ask(tunnel: Tunnel, server: IPv4Address, name: str, kind: str) -> Answer:
    """Return the addresses that the server names; None without an answer of any use."""
    import dns.exception  # noqa: PLC0415 - only what asks loads it
    import dns.message  # noqa: PLC0415
    import dns.rcode  # noqa: PLC0415

    question = dns.message.make_query(f"{name}.", kind)
    try:
        found = dns.message.from_wire(_exchange(tunnel, server, question.to_wire()))
        if found.rcode() == dns.rcode.NXDOMAIN:
            return ()
        if found.rcode() != dns.rcode.NOERROR or not isinstance(found, dns.message.QueryMessage):
            return None
        answer = found.resolve_chaining().answer
    except (dns.exception.DNSException, TimeoutError):
        return None
    return tuple(ip_address(record.to_text()) for record in answer or ())


def _exchange(tunnel: Tunnel, server: IPv4Address, question: bytes) -> bytes:
    """Return the first answer; TimeoutError when none comes, however often it is asked."""
    port = 49152 + secrets.randbelow(2**14)
    end = time.monotonic() + ANSWERED_WITHIN
    while time.monotonic() < end:
        # Over IPv4 a sum of 0 says that there is none (RFC 768).
        tunnel.send(UDP, server, _UDP.pack(port, DNS_PORT, _UDP.size + len(question), 0) + question)
        for source, said in tunnel.answers(UDP, min(end, time.monotonic() + ASKED_AGAIN)):
            if source == server and _UDP.unpack_from(said)[:2] == (DNS_PORT, port):
                return said[_UDP.size :]
    raise TimeoutError


def given(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what the client was given, in the words of a test's script."""
    for kind in ("CISCO_SPLIT_INC", "CISCO_IPV6_SPLIT_INC"):
        for number in range(int(environment.get(kind, "0"))):
            network = environment[f"{kind}_{number}_ADDR"], environment[f"{kind}_{number}_MASKLEN"]
            yield f"route {'/'.join(network)}"
    for server in environment.get("INTERNAL_IP4_DNS", "").split():
        if ":" not in server or environment.get("INTERNAL_IP6_ADDRESS"):
            yield f"dns {server}"
    if domains := environment.get("CISCO_SPLIT_DNS"):
        yield f"split-dns {domains}"
    if (everything := environment.get("X-CSTP-Tunnel-All-DNS")) is not None:
        yield f"all-dns {everything}"
    yield f"mtu {environment['INTERNAL_IP4_MTU']}"


def probe(tunnel: Tunnel, target: IPv4Address, pings: str) -> None:
    """Say that the tunnel is there, and ping."""
    _say("tunnel")
    ping(tunnel, target, int(pings), 0.1, secrets.token_bytes(56))


def hold(tunnel: Tunnel, target: IPv4Address, pings: str, small: str, pattern: str) -> None:
    """Say what was given, ping with small and full-size packets, and ask the names that it is told."""
    for line in given(os.environ):
        _say(line)
    _say("tunnel")
    time.sleep(SETTLES)
    for kind, size in (("small", int(small)), ("full", int(os.environ["INTERNAL_IP4_MTU"]))):
        _say(kind)
        payload = bytes.fromhex(pattern) * size
        ping(tunnel, target, int(pings), 0.02, payload[: size - _IP.size - _ECHO.size])
    _say("carried")
    with os.fdopen(WORDS) as words:
        asked = words.readline().split()
    if "--" in asked:
        split = asked.index("--")
        for server in asked[:split]:
            for name in asked[split + 1 :]:
                print(answer_line(server, name, _both_kinds(tunnel, server, name)), flush=True)  # noqa: T201


def _both_kinds(tunnel: Tunnel, server: str, name: str) -> Answer:
    """Return the addresses of both kinds; clients wait for both answers, so one alone is none."""
    if ":" in server:
        return None
    four, six = (ask(tunnel, IPv4Address(server), name, kind) for kind in ("A", "AAAA"))
    return None if four is None or six is None else (*four, *six)


def _say(words: str) -> None:
    print(f"penstock: {words}", flush=True)  # noqa: T201


KINDS: Mapping[str, Callable[..., None]] = {"probe": probe, "hold": hold}


def main(kind: str, arguments: Sequence[str]) -> None:
    """Be the end of the tunnel until all was asked, then have openconnect leave in order."""
    with socket.socket(fileno=int(os.environ["VPNFD"])) as end:
        tunnel = Tunnel(end, IPv4Address(os.environ["INTERNAL_IP4_ADDRESS"]))
        KINDS[kind](tunnel, IPv4Address(os.environ["PROBE_TARGET"]), *arguments)
        if (openconnect := _openconnect()) is None:  # it has ended before us
            return
        os.kill(openconnect, signal.SIGINT)
        end.settimeout(None)
        with suppress(OSError):
            while end.recv(LARGEST):  # until it has left: whoever hangs up first is taken for a failure
                continue


def _openconnect() -> int | None:
    """Return the number of who has started us; one that is left behind has another parent, told nothing."""
    parent = os.getppid()
    with suppress(OSError):
        return parent if Path(f"/proc/{parent}/comm").read_text().strip() == "openconnect" else None
    return None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
