"""Gateways that only export metrics: real HTTP endpoints in Prometheus text form, values set by the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIGEST = "sha256:" + "ab" * 32
OLD = "sha256:" + "cd" * 32


@dataclass
class Exported:
    """What one gateway exports; the lock keeps a scrape whole."""

    digest: str
    ok: int = 0
    auth_fail: int = 0
    probe: float = 1.0
    started: float = 1000.0
    fds: float = 30.0
    scrapes: int = 0
    flood: int = 0
    """Series beside those that an exporter has, as of a host that was taken over."""
    hidden: frozenset[str] = frozenset()
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, good: int, bad: int = 0) -> None:
        """Count so many logins."""
        with self.lock:
            self.ok += good
            self.auth_fail += bad

    def text(self) -> str:
        """Return the page a scrape gets."""
        label = f'digest="{self.digest}"'
        with self.lock:
            self.scrapes += 1
            lines = {
                "first_attempts": [
                    f'vpngw_first_attempts_total{{outcome="ok",slot="a",{label}}} {self.ok}',
                    f'vpngw_first_attempts_total{{outcome="auth_fail",slot="a",{label}}} {self.auth_fail}',
                ],
                "build_info": [f"vpngw_build_info{{{label}}} 1"],
                "probe": [f"vpngw_probe_success {self.probe}"],
                "process": [
                    f'vpngw_process_start_time_seconds{{slot="a",{label}}} {self.started}',
                    f'vpngw_process_open_fds{{slot="a",{label}}} {self.fds}',
                    f'vpngw_process_max_fds{{slot="a",{label}}} 1024',
                ],
                "flood": [
                    f'vpngw_first_attempts_total{{outcome="x{number}",slot="a",{label}}} {number}'
                    for number in range(self.flood)
                ],
                "handshake": [
                    f'vpngw_handshake_seconds_bucket{{slot="a",le="{le}",{label}}} {self.ok}'
                    for le in ("0.5", "1.0", "+Inf")
                ],
            }
        return (
            "\n".join(line for name, some in lines.items() if name not in self.hidden for line in some) + "\n"
        )


@contextmanager
def exporting(*digests: str) -> Iterator[dict[str, Exported]]:
    """Serve one page per digest on loopback; the keys are `instance` labels."""
    servers, gateways = [], {}
    for digest in digests:
        exported = Exported(digest)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(exported))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        gateways[f"127.0.0.1:{server.server_port}"] = exported
    try:
        yield gateways
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def _handler(exported: Exported) -> type[BaseHTTPRequestHandler]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exported.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Page
