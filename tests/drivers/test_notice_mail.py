"""Mail on real servers: by STARTTLS, by TLS from the first byte on, with a login; never in the open."""

import asyncio
import ipaddress
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.noticing.rules import RulesFile
from tests.drivers.test_notice_sinks import Place, add, deliver, place, said  # noqa: F401 - a fixture
from tests.fakes.notice_receivers import Heard, mail_server

LOGIN = ("penstock", "a password that nobody else has")
WAYS = {"starttls": False, "tls": True}
"""How TLS begins, and whether that is with the connection."""


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """Return what a server on this host shows, and the file by which it is known."""
    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(called, called, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    shown, private = folder / f"{name}.pem", folder / f"{name}.key"
    shown.write_bytes(made.public_bytes(pem))
    private.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown, private)
    return context, shown


def rules(place: Place, server: Heard, tls: str, **more: Any) -> RulesFile:  # noqa: F811 - the fixture's
    sink = {"name": "mail", "kind": "smtp", "host": "127.0.0.1", "port": int(server.place), "tls": tls}
    return place.rules({**sink, "sender": "penstock@example.com", "to": ["ana@example.com"], **more})


@pytest.mark.parametrize("way", WAYS)
def test_mail_comes_over_tls_with_a_login_once(place: Place, way: str) -> None:  # noqa: F811
    context, authority = certified(place.folder, "ours")
    place.secret("mail.key", LOGIN[1])
    with mail_server(context, implicit=WAYS[way], login=LOGIN) as server:
        by = {"login": LOGIN[0], "password_file": "mail.key", "authorities": authority.name}
        known = rules(place, server, way, **by)
        add(place.ledger, said("k1"), "mail")
        for _ in range(2):
            asyncio.run(deliver(place.ledger, known))
        assert [mail["Penstock-Notice"] for mail in server.bodies] == ["k1"]
    assert place.ledger.sink_health() == {}


@pytest.mark.parametrize("way", WAYS)
def test_a_login_that_is_refused_is_named_without_its_password_and_is_tried_again(
    place: Place,  # noqa: F811
    way: str,
) -> None:
    context, authority = certified(place.folder, "ours")
    place.secret("mail.key", "another password")
    with mail_server(context, implicit=WAYS[way], login=LOGIN) as server:
        by = {"login": LOGIN[0], "password_file": "mail.key", "authorities": authority.name}
        known = rules(place, server, way, **by)
        add(place.ledger, said("k1"), "mail")
        asyncio.run(deliver(place.ledger, known))
        error = place.ledger.sink_health()["mail"].error
        assert error == "penstock cannot log in: it answers 535"
        assert server.raw == []
        later = datetime.now(UTC) + timedelta(minutes=1)
        assert place.ledger.sinks_due(later) == ("mail",)


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_nobody_vouches_for_hears_neither_mail_nor_password(
    place: Place,  # noqa: F811
    way: str,
) -> None:
    context, _ = certified(place.folder, "theirs")
    _, authority = certified(place.folder, "ours")
    place.secret("mail.key", LOGIN[1])
    with mail_server(context, implicit=WAYS[way], login=LOGIN) as server:
        by = {"login": LOGIN[0], "password_file": "mail.key", "authorities": authority.name}
        known = rules(place, server, way, **by)
        add(place.ledger, said("k1"), "mail")
        asyncio.run(deliver(place.ledger, known))
        assert "certificate" in place.ledger.sink_health()["mail"].error.lower()
        assert server.raw == []


def test_a_server_without_tls_is_told_nothing_where_tls_is_wanted(place: Place) -> None:  # noqa: F811
    with mail_server() as server:
        known = rules(place, server, "starttls")
        add(place.ledger, said("k1"), "mail")
        asyncio.run(deliver(place.ledger, known))
        assert "STARTTLS" in place.ledger.sink_health()["mail"].error
        assert server.raw == []


def test_a_silent_address_of_a_mail_server_leaves_time_for_the_next(
    place: Place,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It had all the time, and the mail waited for the next try, in which it came first again."""
    monkeypatch.setattr("activities.drivers.notices.smtp.DEADLINE", timedelta(seconds=6))
    with mail_server() as server, socket.create_server(("127.0.0.1", 0)) as silent:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
            for port in (silent.getsockname()[1], int(server.place))
        ]
        monkeypatch.setattr("activities.drivers.addresses.addresses_of", lambda *_: found)
        known = rules(place, server, "none")
        add(place.ledger, said("k1"), "mail")
        asyncio.run(deliver(place.ledger, known))
        assert [mail["Penstock-Notice"] for mail in server.bodies] == ["k1"]
