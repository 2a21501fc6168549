"""Notices as mail: plain text, one conversation for each change, a repeat under the same Message-ID."""

import asyncio
import base64
import hashlib
import smtplib
import socket
import ssl
import threading
import time
from contextlib import suppress
from datetime import UTC
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

from activities.drivers.addresses import Found, connected
from activities.drivers.notices.port import DEADLINE, ONCE, THREADS, Sink, Undelivered
from activities.drivers.notices.posting import line_of, trusting
from activities.drivers.notices.text import Spell, headline, lines
from activities.drivers.private_files import secret_line
from policies.model.notice import Delivery, Notice, NoticeLevel
from policies.model.notice_rules import SmtpSink, Tls
from policies.model.value import sentence

_MARKS = {NoticeLevel.INFO: "", NoticeLevel.NEEDS_YOU: "NEEDS YOU: ", NoticeLevel.PAGE: "PAGE: "}


class Mail(Sink):
    """One mail server, and who gets its mails."""

    repeats_after = None
    occasions = ONCE

    def __init__(self, settings: SmtpSink, folder: Path, spell: Spell) -> None:
        """Take the settings; files are from that folder on."""
        self._settings = settings
        self._folder = folder
        self._spell = spell

    def ready(self) -> None:
        """Read the password, if there is one, and the authorities."""
        self._password()
        self._trusted()

    async def tell(self, delivery: Delivery) -> str:
        """Send the notice as one mail."""
        mail = written(delivery, self._settings, self._spell)
        return await asyncio.get_running_loop().run_in_executor(THREADS, self._send, mail)

    def _password(self) -> str | None:
        file = self._settings.password_file
        return secret_line(self._folder / file, "the password") if file is not None else None

    def _trusted(self) -> ssl.SSLContext:
        own = self._settings.authorities
        return trusting(self._folder / own if own else None)

    def _send(self, mail: EmailMessage) -> str:
        """Hand the mail over; whatever the server does, it ends at the deadline."""
        settings = self._settings
        password, tls = self._password(), self._trusted()
        secrets = [] if password is None else [password, *_as_logged_in(settings.login or "", password)]
        seconds = DEADLINE.total_seconds()
        client = (
            smtplib.SMTP_SSL(timeout=seconds, context=tls)
            if settings.tls is Tls.TLS
            else smtplib.SMTP(timeout=seconds)
        )
        # What smtplib starts TLS with is checked against the name that it has connected to by itself.
        client._host = settings.host  # type: ignore[attr-defined]  # noqa: SLF001 - its constructor connects
        timer = threading.Timer(seconds, _hang_up, [client])
        timer.daemon = True
        timer.start()
        try:
            _connect(client, settings.host, settings.port, seconds)
            if settings.tls is Tls.STARTTLS:
                client.starttls(context=tls)
            if settings.login is not None and password is not None:
                client.login(settings.login, password)
            refused = client.send_message(mail)
            with suppress(smtplib.SMTPException, OSError):
                client.quit()
        except smtplib.SMTPAuthenticationError as error:  # its own words may have the login in them
            raise Undelivered(
                f"{settings.login} cannot log in: it answers {error.smtp_code}", reached=True
            ) from error
        except smtplib.SMTPResponseException as error:
            said = error.smtp_error
            why = line_of(said.decode(errors="replace") if isinstance(said, bytes) else said, secrets)
            raise Undelivered(f"it answers {error.smtp_code}: {why}", reached=True) from error
        except smtplib.SMTPRecipientsRefused as error:
            raise Undelivered(
                f"it takes mail for none of the {len(error.recipients)} receivers", reached=True
            ) from error
        except (smtplib.SMTPException, OSError, ValueError) as error:
            why = line_of(str(error) or type(error).__name__, secrets)
            raise Undelivered(f"it cannot be reached: {why}") from error
        finally:
            timer.cancel()
            client.close()
        return f"it took the mail{f', but not for {len(refused)} of its receivers' if refused else ''}"


def written(delivery: Delivery, settings: SmtpSink, spell: Spell) -> EmailMessage:
    """Return the notice as a mail; the same notice has the same Message-ID, whoever sends it again."""
    notice, domain = delivery.notice, settings.sender.rpartition("@")[2]
    mail = EmailMessage()
    mail["From"] = settings.sender
    mail["To"] = ", ".join(settings.to)
    mail["Subject"] = f"[penstock {notice.fleet}] {_MARKS[notice.level]}{headline(notice)}"
    mail["Date"] = format_datetime(notice.at.astimezone(UTC))
    mail["Message-ID"] = message_id(notice.key, domain)
    thread = message_id(f"thread/{notice.change or notice.fleet}", domain)
    mail["In-Reply-To"] = thread
    mail["References"] = " ".join([thread, *(message_id(one.key, domain) for one in delivery.resolved)])
    mail["Auto-Submitted"] = "auto-generated"
    mail["Penstock-Notice"] = sentence(notice.key, 200)
    mail.set_content(
        "\n".join([headline(notice), "", *lines(notice, spell), "", *_settles(delivery.resolved)]) + "\n"
    )
    return mail


def message_id(key: str, domain: str) -> str:
    """Return the Message-ID of what has that key."""
    return f"<{hashlib.sha256(key.encode()).hexdigest()[:40]}@{domain}>"


def _as_logged_in(login: str, password: str) -> tuple[str, ...]:
    """Return the password as a login of SMTP shows it."""
    plain = f"\0{login}\0{password}"
    return tuple(base64.b64encode(one.encode()).decode().rstrip("=") for one in (password, plain))


def _settles(resolved: tuple[Notice, ...]) -> list[str]:
    return [f"This settles: {headline(one)}" for one in resolved]


def _connect(client: smtplib.SMTP, host: str, port: int, seconds: float) -> None:
    """Connect to the first address that answers before the deadline, name servers included."""
    ends = time.monotonic() + seconds

    def left() -> float:
        if (rest := ends - time.monotonic()) > 0:
            return rest
        raise TimeoutError(f"it did not answer within {seconds:g} s")

    def try_one(found: Found, within: float) -> None:
        client.timeout = within
        client.connect(*found[-1][:2])
        if client.sock is not None:
            client.sock.settimeout(left())

    connected(host, port, left, try_one)


def _hang_up(client: smtplib.SMTP) -> None:
    with suppress(OSError, AttributeError, TypeError):  # before it has a socket, too
        socket.socket.shutdown(client.sock, socket.SHUT_RDWR)  # type: ignore[arg-type]
