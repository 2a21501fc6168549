"""For each kind of sink a receiver that says whatever a test wants, and the settings that lead there."""

import base64
import email
import email.policy
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, get_args

from policies.model.notice_rules import AnySink, SinkOf

MODELS: dict[str, type[SinkOf]] = {
    get_args(model.model_fields["kind"].annotation)[0]: model for model in get_args(get_args(AnySink)[0])
}
"""Every kind that a sink of notices.yaml may have."""

ASK_BY_THEMSELVES = {"chat"}
"""Kinds that nobody tells anything."""

LOGIN = "penstock"
SECRET = 's3cret "in quotes" & <more> 50%/4ever'
"""What the sink's own file has, with all that is written otherwise elsewhere."""
IN_THE_ADDRESS = "T0k3n-1n-Th3-Addr3ss"

Talk = Callable[[socket.socket], None]
"""What a receiver does with one connection."""


class Kind(NamedTuple):
    """How one kind of sink is reached and heard."""

    settings: Callable[[str, int], Mapping[str, Any]]
    """Its settings beside name and kind, for a receiver on this host, by `http` or `https`, at that port.

    What is secret stands in a file `it.key`.
    """
    in_the_open: Mapping[str, Any]
    """What is refused in place of some of them, since everybody would read what is told."""
    hears: Callable[[socket.socket], bytes]
    """Takes all that the sink says, up to where the receiver decides about it."""
    answers: Callable[[socket.socket, int, bytes], None]
    """Says yes (200) or no (403), and these words."""
    known_by: Callable[[bytes], list[str]]
    """What repeats are known by, of what was heard."""


def _web(**more: str) -> Callable[[str, int], Mapping[str, Any]]:
    key = more.pop("address", "url")
    return lambda origin, port: {key: f"{origin}://127.0.0.1:{port}/hooks/{IN_THE_ADDRESS}", **more}


def _request(talk: socket.socket) -> bytes:
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += _more(talk)
    head, _, body = heard.partition(b"\r\n\r\n")
    (length,) = [
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    ]
    while len(body) < length:
        body += _more(talk)
    return head + b"\r\n\r\n" + body


def _more(talk: socket.socket) -> bytes:
    if found := talk.recv(1 << 16):
        return found
    raise ConnectionError("whoever talked has gone")


def _respond(talk: socket.socket, status: int, words: bytes) -> None:
    talk.sendall(b"HTTP/1.1 %d Said\r\nConnection: close\r\n\r\n%s" % (status, words))


def _body(heard: bytes) -> Any:
    return json.loads(heard.partition(b"\r\n\r\n")[2])


def _mail(talk: socket.socket) -> bytes:
    """Take a login and a mail to its end, as a server that wants no TLS."""
    talk.sendall(b"220 here\r\n")
    heard, mails = b"", False
    for line in talk.makefile("rb"):
        heard += line
        word = line[:4].upper()
        if mails:
            if line == b".\r\n":
                return heard
        elif word == b"EHLO":
            talk.sendall(b"250-here\r\n250 AUTH PLAIN\r\n")
        elif word == b"AUTH":
            talk.sendall(b"235 welcome\r\n")
        elif word == b"DATA":
            mails = True
            talk.sendall(b"354 go on\r\n")
        else:
            talk.sendall(b"250 go on\r\n")
    raise ConnectionError("whoever talked has gone")


def _mailed(talk: socket.socket, status: int, words: bytes) -> None:
    code = b"250" if status < 300 else b"554"
    line = words.replace(b"\r", b" ").replace(b"\n", b" ")
    parts = [line[at : at + 900] for at in range(0, len(line), 900)] or [b""]
    talk.sendall(b"".join(code + b"-" + part + b"\r\n" for part in parts[:-1]))
    talk.sendall(code + b" " + parts[-1] + b"\r\n")


def _message_id(heard: bytes) -> list[str]:
    mail = email.message_from_bytes(heard.partition(b"data\r\n")[2], policy=email.policy.default)
    return [str(mail["Message-ID"])]


_OPEN = f"http://mail.example.com/hooks/{IN_THE_ADDRESS}"

KINDS: dict[str, Kind] = {
    "webhook": Kind(
        settings=_web(key_file="it.key"),
        in_the_open={"url": _OPEN},
        hears=_request,
        answers=_respond,
        known_by=lambda heard: [_body(heard)["id"]],
    ),
    "pagerduty": Kind(
        settings=_web(address="endpoint", routing_key_file="it.key"),
        in_the_open={"endpoint": _OPEN},
        hears=_request,
        answers=_respond,
        known_by=lambda heard: [_body(heard)["dedup_key"]],
    ),
    "alertmanager": Kind(
        settings=_web(token_file="it.key"),
        in_the_open={"url": _OPEN},
        hears=_request,
        answers=_respond,
        known_by=lambda heard: [one["labels"]["notice"] for one in _body(heard)],
    ),
    "smtp": Kind(
        settings=lambda _, port: {
            "host": "127.0.0.1",
            "port": port,
            "tls": "none",
            "login": LOGIN,
            "password_file": "it.key",
            "sender": "penstock@example.com",
            "to": ["ana@example.com"],
        },
        in_the_open={"host": "mail.example.com"},
        hears=_mail,
        answers=_mailed,
        known_by=_message_id,
    ),
}
"""By kind: a new kind of sink stands here, or all that sinks promise is not known of it."""


@contextmanager
def receiver(talk: Talk, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Have this said to whoever connects; yield the port. At the end every connection is cut."""
    listening, open_ones = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()

    def one(raw: socket.socket) -> None:
        with suppress(OSError):
            connection = tls.wrap_socket(raw, server_side=True) if tls is not None else raw
            open_ones.append(connection)
            with connection:
                talk(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                raw, _ = listening.accept()
                open_ones.append(raw)
                threading.Thread(target=one, args=(raw,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        for each in (listening, *open_ones):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        accepting.join(10)


@contextmanager
def answering(
    kind: Kind,
    status: int,
    words: Callable[[bytes], bytes] = lambda _: b"",
    tls: ssl.SSLContext | None = None,
) -> Iterator[tuple[int, list[bytes]]]:
    """Have a receiver answer so to all that it hears; yield its port, and what it heard."""
    heard = list[bytes]()

    def talk(connection: socket.socket) -> None:
        heard.append(kind.hears(connection))
        kind.answers(connection, status, words(heard[-1]))

    with receiver(talk, tls) as port:
        yield port, heard


def dripping(connection: socket.socket) -> None:
    """Say something all the time and never anything whole."""
    with suppress(OSError):
        connection.settimeout(0.05)
        while True:
            connection.sendall(b"2")
            with suppress(TimeoutError):
                if not connection.recv(1 << 16):
                    return


def written(secret: str) -> list[bytes]:
    """Return how a secret stands in what a sink sends."""
    plain = f"\0{LOGIN}\0{secret}".encode()
    return [secret.encode(), json.dumps(secret)[1:-1].encode(), base64.b64encode(plain)]
