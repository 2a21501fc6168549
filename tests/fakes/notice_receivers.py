"""Receivers of notices: a webhook that verifies, real mail and Alertmanager servers, a fake PagerDuty."""

import email
import email.policy
import json
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from activities.drivers.notices.webhook import signature
from deploy.ports import free_port
from tests.patience import PATIENCE

KEY = "a key that both sides have, and nobody else"
ALERTMANAGER = "/usr/bin/prometheus-alertmanager"


class Heard:
    """What a receiver was told, each time it was."""

    def __init__(self) -> None:
        self.raw: list[str] = []
        """What repeats are known by, as often as it came."""
        self.bodies: list[Any] = []
        self.wrong: list[str] = []
        self.place = ""
        self.status = 202
        self.location = ""
        self.refused: set[str] = set()
        """What it never takes, whatever else it does."""
        self.meanwhile: Callable[[str], None] = lambda _: None
        """What happens when something was taken and not answered yet."""

    @property
    def distinct(self) -> set[str]:
        return {*self.raw}

    def take(self, key: str, body: Any) -> None:
        self.raw.append(key)
        self.bodies.append(body)
        self.meanwhile(key)


@contextmanager
def webhook() -> Iterator[Heard]:
    """A receiver that verifies signatures as docs/notices.md says."""
    heard = Heard()

    def hear(headers: Any, body: bytes) -> None:
        at = headers["Penstock-Timestamp"]
        good = headers["Penstock-Signature"] == f"v1={signature(KEY, at, body)}"
        if not good or abs(time.time() - int(at)) > 300:
            heard.wrong.append(body.decode())
            return
        event = json.loads(body)
        if event["id"] in heard.refused:
            heard.wrong.append(event["id"])
            return
        heard.take(event["id"], event)

    with _http(heard, hear):
        yield heard


@contextmanager
def pagerduty(routing_key: str = "R0") -> Iterator[tuple[Heard, dict[str, str]]]:
    """A fake that keeps incidents by their key as PagerDuty does; yield it and how each incident stands."""
    heard, incidents = Heard(), dict[str, str]()

    def hear(_headers: Any, body: bytes) -> None:
        event = json.loads(body)
        action, key = event["event_action"], event["dedup_key"]
        whole = action != "trigger" or {"summary", "source", "severity"} <= event["payload"].keys()
        if event["routing_key"] != routing_key or not whole or len(key) > 255:
            heard.wrong.append(body.decode())
            return
        if action == "trigger":
            incidents.setdefault(key, "triggered")
        elif key in incidents:  # of an incident that it does not know it takes the event, and does nothing
            incidents[key] = {"acknowledge": "acknowledged", "resolve": "resolved"}[action]
        heard.take(key, event)

    with _http(heard, hear):
        yield heard, incidents


@contextmanager
def forwarding(to: str) -> Iterator[Heard]:
    """What stands before an Alertmanager and passes everything on, then lets something happen."""
    heard = Heard()

    def hear(_headers: Any, body: bytes) -> None:
        answer = httpx.post(f"{to}/api/v2/alerts", content=body, headers={"Content-Type": "application/json"})
        heard.status = answer.status_code
        for alert in json.loads(body):
            heard.take(alert["labels"]["notice"], alert)

    with _http(heard, hear):
        yield heard


@contextmanager
def mail_server(
    tls: ssl.SSLContext | None = None, *, implicit: bool = False, login: tuple[str, str] | None = None
) -> Iterator[Heard]:
    """A real SMTP server on loopback.

    Args:
        tls: It takes nothing without TLS, begun by STARTTLS; in the open when left out.
        implicit: TLS begins with the connection instead.
        login: The only account that may send; everybody when left out.
    """
    heard = Heard()

    class Keeping:
        async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
            del server
            if login is not None and not session.authenticated:
                return "530 log in first"
            mail = email.message_from_bytes(
                bytes(envelope.content if isinstance(envelope.content, bytes) else b""),
                policy=email.policy.default,
            )
            heard.take(str(mail["Message-ID"]), mail)
            return "250 taken"

    port = free_port()
    asked: dict[str, Any] = {}
    if login is not None:

        def logs_in(
            _server: SMTP, _session: Session, _envelope: Envelope, _how: str, said: Any
        ) -> AuthResult:
            good = (said.login.decode(), said.password.decode()) == login
            return AuthResult(success=good, handled=False)

        asked = {"authenticator": logs_in, "auth_require_tls": not implicit}
    if tls is not None:
        asked |= {"ssl_context": tls} if implicit else {"tls_context": tls, "require_starttls": True}
    controller = Controller(Keeping(), hostname="127.0.0.1", port=port, **asked)
    controller.start()
    heard.place = str(port)
    try:
        yield heard
    finally:
        controller.stop()


@contextmanager
def alertmanager() -> Iterator[tuple[str, Heard]]:
    """Debian's Alertmanager, and what its own receiver hears from it; yield its address and that."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-alertmanager-"))
    heard = Heard()

    def hear(_headers: Any, body: bytes) -> None:
        for alert in json.loads(body)["alerts"]:
            heard.take(f"{alert['labels']['notice']} {alert['status']}", alert)

    with _http(heard, hear):
        port = free_port()
        config = {
            "route": {
                "receiver": "test",
                "group_by": ["notice"],
                "group_wait": "0s",
                "group_interval": "1s",
                "repeat_interval": "1h",
            },
            "receivers": [{"name": "test", "webhook_configs": [{"url": heard.place, "send_resolved": True}]}],
        }
        (folder / "alertmanager.yml").write_text(json.dumps(config))
        arguments = [
            ALERTMANAGER,
            f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            "--log.level=error",
        ]
        process = subprocess.Popen(arguments)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(url)
            yield url, heard
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(url: str) -> None:
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            if httpx.get(f"{url}/-/ready", timeout=1).is_success:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < ends, "the Alertmanager does not begin"
        time.sleep(0.05)


@contextmanager
def _http(heard: Heard, hear: Callable[[Any, bytes], None]) -> Iterator[None]:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # whoever sent it was killed in the middle
                return
            wrong = len(heard.wrong)
            if heard.status < 300:
                hear(self.headers, body)
            self.send_response(heard.status if len(heard.wrong) == wrong else 400)
            if heard.location:
                self.send_header("Location", heard.location)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    heard.place = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
