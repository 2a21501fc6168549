"""Spans to a collector, by OTLP over HTTP; what it does not take in time is dropped, which is said once."""

import logging
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from orchestrator.tracing.spans import Span

WITHIN_SECONDS = 5.0
"""How long a collector may take for one request."""

MOST_WAITING, MOST_AT_ONCE = 4096, 512
"""Spans that wait for a collector, some megabytes, and those of one request; more are dropped."""

EVERY_MILLISECONDS = 1000.0
LAST_SECONDS = 1.0
"""How long a process that ends gives the last spans."""

_log = logging.getLogger(__name__)


class Spans:
    """Takes spans without ever waiting, and tells a collector of them beside everything else."""

    def __init__(self, url: str, process: str) -> None:
        """Take the collector's address, and which process this is."""
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it says each failure anew
        self._exporter = _SayingOnce(url)
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=MOST_WAITING,
            schedule_delay_millis=EVERY_MILLISECONDS,
            max_export_batch_size=MOST_AT_ONCE,
            export_timeout_millis=WITHIN_SECONDS * 1000,
        )
        self._resource = Resource.create({"service.name": "penstock", "penstock.process": process})
        self._scope = InstrumentationScope("penstock")

    def tell(self, span: Span) -> None:
        """Take a span; one that finds no room is dropped."""
        flags = TraceFlags(TraceFlags.SAMPLED)

        def context(number: int) -> SpanContext:
            return SpanContext(span.place.trace, number, is_remote=False, trace_flags=flags)

        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=context(span.place.span),
                parent=context(span.parent) if span.parent is not None else None,
                resource=self._resource,
                attributes=span.attributes,
                kind=SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR, span.failed) if span.failed else Status(StatusCode.UNSET),
                start_time=span.began,
                end_time=span.ended,
                instrumentation_scope=self._scope,
            )
        )

    def close(self) -> None:
        """Give the last spans a moment; nobody waits longer for a collector that hangs."""
        last = threading.Thread(target=self._processor.shutdown, daemon=True)
        last.start()
        last.join(LAST_SECONDS)


class _SayingOnce(SpanExporter):
    """Sends to the collector; says once that it takes nothing, and once that it does again."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        parts = urlsplit(url)
        self._shown = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self._exporter = OTLPSpanExporter(endpoint=f"{self._url}/v1/traces", timeout=WITHIN_SECONDS)
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them; whatever goes wrong, they are gone."""
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001 - nothing of tracing may harm anything else
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._fails:
            _log.warning("the collector at %s takes no traces; they are dropped until it does", self._shown)
        if self._fails and not failed:
            _log.warning("the collector at %s takes traces again", self._shown)
        self._fails = failed
        return result

    def shutdown(self) -> None:
        """End."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
