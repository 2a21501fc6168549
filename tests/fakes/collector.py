"""A collector of traces: a real receiver of OTLP over HTTP, which can hang or refuse."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span


class Collector:
    """What a collector has heard, and how it answers."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        self.asked = threading.Event()
        self.released = threading.Event()
        self.released.set()
        self.status = 200
        self.url = ""
        self._processes: dict[bytes, str] = {}
        self._turn = threading.Lock()

    def hang(self) -> None:
        """Answer nobody until the test is over."""
        self.released.clear()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def said(self, span: Span) -> dict[str, str]:
        return {one.key: one.value.string_value or str(one.value.int_value) for one in span.attributes}

    def process_of(self, span: Span) -> str:
        """Return which process has told of the span."""
        return self._processes[span.span_id]

    def heard(self, body: bytes) -> int:
        self.asked.set()
        self.released.wait()
        if self.status != 200:
            return self.status
        with self._turn:
            self.raw += body
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self._keep(resource)
        return self.status

    def _keep(self, told: ResourceSpans) -> None:
        process = {one.key: one.value.string_value for one in told.resource.attributes}["penstock.process"]
        for scope in told.scope_spans:
            # What was late comes twice.
            fresh = [one for one in scope.spans if one.span_id not in self._processes]
            self.spans += fresh
            self._processes |= {span.span_id: process for span in fresh}


@contextmanager
def collecting(*doors: socket.socket) -> Iterator[Collector]:
    """Run a collector for the length of the body, on loopback or where these sockets listen."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = collector.heard(body)
            said = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    servers = []
    for door in doors or (socket.create_server(("127.0.0.1", 0)),):
        server = ThreadingHTTPServer(door.getsockname(), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = door
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
    collector.url = "http://{}:{}".format(*servers[0].socket.getsockname())
    try:
        yield collector
    finally:
        collector.released.set()
        for server in servers:
            server.shutdown()
            server.server_close()
