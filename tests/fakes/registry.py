"""A small OCI registry with the referrers API, which Debian's has not, and with faults on demand."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from policies.model.value import digest_of
from policies.trust.images import IMAGE_INDEX, IMAGE_MANIFEST

TOKEN = "let-me-in"


class FakeRegistry:
    """Blobs, manifests and tags in memory; everybody may push, reading may need a token."""

    def __init__(self, *, realm: str | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.realm = realm
        self.lies: dict[str, str] = {}
        """Manifest references whose Docker-Content-Digest header is this instead of the truth."""
        self.answers: dict[str, tuple[int, bytes]] = {}
        """Kinds of requests, or references, that get this status and body instead of what is here."""
        self.challenges: tuple[str, ...] = ()
        """What an unauthorised answer asks for, a header each, if not a token of the realm."""
        self.accepted = f"Bearer {TOKEN}"
        self.token_answer = json.dumps({"token": TOKEN}).encode()
        self.pages: int | None = None
        """How many entries of referrers are given at once, if not all."""
        self.authorizations: list[str] = []
        self.token_queries: list[str] = []
        handler = type("Handler", (_Handler,), {"registry": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def manifest(self, reference: str) -> bytes | None:
        return self.manifests.get(self.tags.get(reference, reference))

    def referrers(self, subject: str) -> bytes:
        found = []
        for digest, content in self.manifests.items():
            manifest = json.loads(content)
            if isinstance(manifest, dict) and manifest.get("subject", {}).get("digest") == subject:
                descriptor = {"mediaType": IMAGE_MANIFEST, "digest": digest, "size": len(content)}
                found.append(descriptor | {"artifactType": manifest["artifactType"]})
        return json.dumps({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": found}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: FakeRegistry

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        authorization = self.headers.get("authorization", "")
        self.registry.authorizations.append(authorization)
        if path == "/token":
            self.registry.token_queries.append(self.path.partition("?")[2])
            self._answer(200, self.registry.token_answer)
        elif self.registry.realm and authorization != self.registry.accepted:
            realm = f'Bearer realm="{self.registry.realm}",service="lab",scope="repository:x:pull"'
            self._challenge(self.registry.challenges or (realm,))
        elif found := re.search(r"/(blobs|manifests|referrers)/([^/]+)$", path):
            self._thing(*found.groups())
        else:
            self._answer(404, b"")

    def _thing(self, kind: str, reference: str) -> None:
        instead = self.registry.answers.get(reference, self.registry.answers.get(kind))
        if instead is not None:
            self._answer(*instead)
            return
        if kind == "referrers":
            self._referrers(reference)
            return
        content = self.registry.blobs.get(reference) if kind == "blobs" else self.registry.manifest(reference)
        if content is None:
            self._answer(404, b"")
            return
        digest = self.registry.lies.get(reference, digest_of(content))
        self._answer(200, content, {"Docker-Content-Digest": digest, "ETag": f'"{digest}"'})

    def _referrers(self, subject: str) -> None:
        content, most = self.registry.referrers(subject), self.registry.pages
        if most is None:
            self._answer(200, content)
            return
        listing, at = json.loads(content), int(self.path.partition("?at=")[2] or 0)
        every = listing["manifests"]
        following = f"{self.path.partition('?')[0]}?at={at + most}"
        links = {"Link": f'<{following}>; rel="next"'} if at + most < len(every) else {}
        self._answer(200, json.dumps(listing | {"manifests": every[at : at + most]}).encode(), links)

    def do_POST(self) -> None:
        self._answer(202, b"", {"Location": f"{self.path}one"})

    def do_PUT(self) -> None:
        content = self._body()
        digest = digest_of(content)
        if "/manifests/" in self.path:
            self.registry.manifests[digest] = content
            reference = self.path.rpartition("/")[2]
            if reference != digest:
                self.registry.tags[reference] = digest
        else:
            self.registry.blobs[digest] = content
        self._answer(201, b"")

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        return content

    def _challenge(self, challenges: tuple[str, ...]) -> None:
        self.send_response(401)
        for challenge in challenges:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_request(self, *_: object) -> None:
        pass
