"""A small DNS server behind a scratch gateway, which can be told to refuse or to say nothing."""

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv4Address, ip_address, ip_network

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from deploy.lab.namespaces import inside


class NameServer:
    """Answers at its addresses, each a socket in the namespace; it ends with its socket."""

    def __init__(
        self, namespace: str, addresses: tuple[str, ...], names: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.names = dict(names)
        self.refused = ip_network("0.0.0.0/32")
        """Whose questions are refused."""
        self.silent = False
        self.asked: list[tuple[str, str]] = []
        """Who asked for which name, the oldest first."""
        self._sockets = [_bound(namespace, address) for address in addresses]
        for one in self._sockets:
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def close(self) -> None:
        for one in self._sockets:
            with suppress(OSError):  # it has no peer; its thread wakes up nevertheless
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self, here: socket.socket) -> None:
        while True:
            try:
                said, peer = here.recvfrom(4096)
            except OSError:
                return
            if not said:
                return
            if (answer := self._answer(said, ip_address(peer[0].partition("%")[0]))) is not None:
                here.sendto(answer, peer)

    def _answer(self, said: bytes, peer: object) -> bytes | None:
        question = dns.message.from_wire(said)
        asked = question.question[0]
        name = str(asked.name).removesuffix(".")
        self.asked.append((str(peer), name))
        if self.silent:
            return None
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        if isinstance(peer, IPv4Address) and peer in self.refused:
            answer.set_rcode(dns.rcode.REFUSED)
        elif name not in self.names:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            kind = dns.rdatatype.to_text(asked.rdtype)
            fits = [one for one in self.names[name] if (":" in one) is (kind == "AAAA")]
            answer.answer = [dns.rrset.from_text(asked.name, 60, "IN", kind, *fits)] if fits else []
        return answer.to_wire()


def _bound(namespace: str, address: str) -> socket.socket:
    with inside(namespace):
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, 53))
    return made
