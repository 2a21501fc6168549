"""A login as openconnect does it, without a process of its own; with or without a tunnel.

AnyConnect's XML over one TLS connection (draft-mavrogiannopoulos-openconnect, section 2.1): init,
user name, password, then a session cookie. It costs a tenth of `openconnect --authenticate`,
and a gateway logs the same. With a target the login goes on as section 2.2 has it: a tunnel over the same
connection, one ping through it, and a goodbye.
"""

import asyncio
import re
import ssl
import struct
from ipaddress import IPv4Address
from urllib.parse import urlsplit

from deploy.lab.daemons.port import Outcome

PATIENCE = 15.0
_VERSION = '<version who="vpn">v9.01</version><device-id>linux-64</device-id>'
_OK, _FOUND = 200, 302
_MOST_REDIRECTS = 3
_DATA, _ASKS, _ANSWERS, _GOODBYE = 0, 3, 4, 5
"""Kinds of packets in a tunnel over TLS."""


async def log_in(
    address: str,
    port: int,
    user: str,
    password: str,
    *,
    trust: ssl.SSLContext,
    source: str | None = None,
    target: str | None = None,
) -> tuple[Outcome, str]:
    """Log in once, from this source address, and say how it ended and why.

    With a target a login is accepted when a ping through its tunnel was answered; the session ends then.
    """
    local = (source, 0) if source else None
    try:
        async with asyncio.timeout(PATIENCE):
            for _ in range(1 + _MOST_REDIRECTS):
                reader, writer = await asyncio.open_connection(address, port, ssl=trust, local_addr=local)
                try:
                    talk = _Conversation(address, reader, writer)
                    return await talk.log_in(user, password, target)
                except _Redirected as elsewhere:
                    address, port = elsewhere.where
                finally:
                    writer.transport.abort()
            return Outcome.BROKEN, f"redirected more than {_MOST_REDIRECTS} times"
    except TimeoutError:
        return Outcome.TIMED_OUT, f"nothing within {PATIENCE:g} s"
    except ConnectionRefusedError as error:
        return Outcome.UNREACHABLE, str(error)
    except (OSError, EOFError, ValueError) as error:
        return Outcome.BROKEN, f"{type(error).__name__}: {error}"


class _Redirected(Exception):
    """The first request was answered with where to ask."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        found = urlsplit(location)
        self.where = (found.hostname or "", found.port or 443)


class _Conversation:
    """One TLS connection on which documents are posted and cookies kept."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host, self._reader, self._writer = host, reader, writer
        self._cookies: dict[str, str] = {}

    async def log_in(self, user: str, password: str, target: str | None) -> tuple[Outcome, str]:
        """Authenticate, and with a target ping through a tunnel; say how it ended and why."""
        outcome, reason = await self.authenticate(user, password)
        if outcome is Outcome.ACCEPTED and target is not None:
            await self.ping_through_tunnel(target)
        return outcome, reason

    async def authenticate(self, user: str, password: str) -> tuple[Outcome, str]:
        """Give name and password; accepted means that a session cookie came back."""
        status, said = await self._post("/", "init", f"<group-access>https://{self._host}</group-access>")
        if status == _FOUND:
            raise _Redirected(said)
        body = ""
        for field, value in (("username", user), ("password", password)):
            reply = f"<auth><{field}>{value}</{field}></auth>"
            status, body = await self._post("/auth", "auth-reply", reply)
            if status != _OK:
                return Outcome.REJECTED, f"HTTP {status} to the {field}"
        if "webvpn" in self._cookies and 'id="success"' in body:
            return Outcome.ACCEPTED, ""
        return Outcome.REJECTED, "asked for the password again"

    async def ping_through_tunnel(self, target: str) -> None:
        """Have a tunnel, wait for one ping through it, and say goodbye.

        Raises:
            ValueError: There is no tunnel.
            EOFError: The gateway ended it.
        """
        cookies = "; ".join(f"{key}={value}" for key, value in self._cookies.items())
        lines = [
            "CONNECT /CSCOSSLC/tunnel HTTP/1.1",
            f"Host: {self._host}",
            "User-Agent: Open AnyConnect VPN Agent v9.01",
            f"Cookie: {cookies}",
            "X-CSTP-Version: 1",
            "X-CSTP-Hostname: lab",
            "X-CSTP-MTU: 1300",
            "X-CSTP-Address-Type: IPv4",
        ]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        own = re.search(r"(?im)^x-cstp-address: *(\S+)", head)
        if own is None:
            raise ValueError(f"no tunnel: {head.partition(chr(13))[0]}")
        self._packet(_DATA, _echo(own[1], target))
        while True:
            header = await self._reader.readexactly(8)
            content = await self._reader.readexactly(int.from_bytes(header[4:6], "big"))
            if header[6] == _DATA and content[9:10] == b"\x01" and content[20:21] == b"\x00":
                break
            if header[6] == _ASKS:
                self._packet(_ANSWERS, content)
        self._packet(_GOODBYE, b"\xb0done")
        await self._writer.drain()
        await self._reader.read()  # the gateway ends the session and the connection

    def _packet(self, kind: int, content: bytes) -> None:
        self._writer.write(b"STF\x01" + struct.pack(">HBB", len(content), kind, 0) + content)

    async def _post(self, path: str, kind: str, content: str) -> tuple[int, str]:
        document = f'<config-auth client="vpn" type="{kind}">{_VERSION}{content}</config-auth>'
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'.encode()
        headers = {
            "Host": self._host,
            "User-Agent": "Open AnyConnect VPN Agent v9.01",
            "X-Transcend-Version": "1",
            "X-Aggregate-Auth": "1",
            "X-Support-HTTP-Auth": "true",
            "Content-Type": "application/xml; charset=utf-8",
            "Content-Length": str(len(body)),
        }
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in self._cookies.items())
        lines = [f"POST {path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self._writer.drain()
        return await self._answer()

    async def _answer(self) -> tuple[int, str]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self._cookies.update(re.findall(r"(?im)^set-cookie: *([^=;\s]+)=([^;\r]*)", head))
        if elsewhere := re.search(r"(?im)^location: *(\S+)", head):
            return int(head.split(maxsplit=2)[1]), elsewhere[1]
        length = re.search(r"(?im)^content-length: *(\d+)", head)
        content = await self._reader.readexactly(int(length[1])) if length else b""
        return int(head.split(maxsplit=2)[1]), content.decode(errors="replace")


def _echo(source: str, target: str) -> bytes:
    """Return an IPv4 packet that asks the target for an answer (RFC 792)."""
    asks = struct.pack(">BBHHH", 8, 0, 0, 1, 1) + bytes(32)
    asks = asks[:2] + _sum(asks) + asks[4:]
    ends = IPv4Address(source).packed + IPv4Address(target).packed
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(asks), 1, 0, 64, 1, 0) + ends
    return head[:10] + _sum(head) + head[12:] + asks


def _sum(content: bytes) -> bytes:
    """Return the checksum of RFC 1071."""
    total = sum(struct.unpack(f">{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)
