"""A fake of one endpoint of Vault's PKI, MOUNT/sign/ROLE, over real HTTPS, with an authority of its own.

OpenBao itself is not built here: its module needs others that are not at hand where tests run.
"""

import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.fakes.authority import EnterpriseCa

TOKEN = "s.penstock"
PATH = "/v1/pki/sign/vpn"


class FakeVault:
    """Answers as the API documents; what it does wrong is told to it."""

    def __init__(self, folder: Path) -> None:
        self.corp = EnterpriseCa(folder / "pki", "the fake's own root")
        self.tls = EnterpriseCa(folder / "tls", "who vouches for the fake")
        self.token = folder / "token"
        self.token.write_text(f"{TOKEN}\n")
        self.token.chmod(0o600)
        self.sealed = False
        self.of_another_key = False
        self.asked: list[dict[str, Any]] = []
        self.address = ""

    @contextmanager
    def running(self) -> Iterator["FakeVault"]:
        """Have it answer for the length of the block."""
        here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        key, certificate = self.tls.leaf("vault", usage=ExtendedKeyUsageOID.SERVER_AUTH, names=(here,))
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._answering())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.address = f"https://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, path: str, token: str | None, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the status and the answer to one request."""
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if token != TOKEN:
            return 403, {"errors": ["permission denied"]}
        if path != PATH:
            return 404, {"errors": [f"unsupported path {path}"]}
        self.asked.append(asked)
        request = x509.load_pem_x509_csr(asked["csr"].encode())
        key: Any = request.public_key()
        if self.of_another_key:
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
        names = [x509.DNSName(name) for name in asked["alt_names"].split(",") if name]
        addresses = [x509.IPAddress(ipaddress.ip_address(one)) for one in asked["ip_sans"].split(",") if one]
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(self.corp.root.subject, x509.Name([]), key, x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=30))
            .not_valid_after(now + timedelta(days=30, seconds=len(self.asked)))
            .add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=True)
            .sign(self.corp.key, hashes.SHA256())
        )
        return 200, {
            "data": {
                "certificate": certificate.public_bytes(Encoding.PEM).decode().strip(),
                "ca_chain": [self.corp.roots.read_text().strip()],
            }
        }

    def _answering(fake) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler has a self of its own
        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, said = fake.answer(self.path, self.headers.get("x-vault-token"), asked)
                content = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *said: Any) -> None:
                """Write nothing."""

        return Answer
