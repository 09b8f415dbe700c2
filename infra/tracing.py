"""Traces by OpenTelemetry, where an operator has named a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`); nothing else is loaded or done.

Flows in: what was done, told when it is over, with when it began and its stages. Flows out: spans, sent by a thread of the SDK's own
over OTLP (HTTP), which drops what finds no room. Always holds: no id of a user or video is in a span, and while `spans` is None
tracing costs whoever could tell it something one comparison.
"""

import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = structlog.get_logger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SERVICE = "headrace"
#: For the spans that wait when a worker stops, in seconds.
LAST_SPANS_S = 2.0

#: What a stage was, and the seconds that it took; they follow each other.
Stage = tuple[str, float]
#: Where a request's view leaves its stages: when the first began (ns since 1970), and what came. None where nobody asks for them.
REQUEST_STAGES: ContextVar[list[tuple[int, list[Stage]]] | None] = ContextVar("request_stages", default=None)


class Spans:
    """Takes what is done."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace, self._provider = trace, provider
        self._tracer = provider.get_tracer(SERVICE)
        self._propagator = TraceContextTextMapPropagator()

    def done(
        self,
        name: str,
        began_ns: int,
        attributes: Mapping[str, str | int],
        parts: Iterable[tuple[int, list[Stage]]] = (),
        *,
        headers: Mapping[str, str] | None = None,
        failed: bool = False,
    ) -> None:
        """Something is over: it is one span, and each of its stages one below it.

        Parameters
        ----------
        began_ns : since 1970
        parts : stages, with when the first of each part began
        headers : of a request that somebody made; its `traceparent` (W3C) says whose part this is, and whether it is sampled
        failed : whether it came to nothing
        """
        kind = self._trace.SpanKind.INTERNAL if headers is None else self._trace.SpanKind.SERVER
        # Without headers an empty context: what this thread does otherwise is no parent.
        known = (
            {} if headers is None else {key: headers[key] for key in ("traceparent", "tracestate") if key in headers}
        )
        parent = self._propagator.extract(known, context=self._trace.set_span_in_context(self._trace.INVALID_SPAN))
        span = self._tracer.start_span(name, parent, kind, dict(attributes), start_time=began_ns)
        if span.is_recording():
            inside = self._trace.set_span_in_context(span)
            for at_ns, stages in parts:
                for stage, seconds in stages:
                    part = self._tracer.start_span(stage, inside, start_time=at_ns)
                    at_ns += int(seconds * 1e9)
                    part.end(at_ns)
            if failed:
                span.set_status(self._trace.StatusCode.ERROR)
        span.end(time.time_ns())

    def stop(self) -> None:
        """Send what waits, if the collector takes it soon, and end."""
        # The SDK's own time-outs do not count tries that are repeated: with a collector away it took half a minute.
        ending = threading.Thread(target=self._provider.shutdown, name="spans-end", daemon=True)
        ending.start()
        ending.join(LAST_SPANS_S)


#: Takes what is done; None where nobody wants to know. Ask anew each time.
spans: Spans | None = None


def start() -> None:
    """Begin to trace, if a collector is named; settings beside it are OpenTelemetry's own (`OTEL_*`)."""
    global spans
    named = any(os.environ.get(name) for name in ENDPOINTS)
    if spans is not None or not named or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, and nothing is traced: install `headrace[otel]`, or unset it")
        return
    # OTEL_SERVICE_NAME comes first.
    resource = Resource.create() if "OTEL_SERVICE_NAME" in os.environ else Resource.create({SERVICE_NAME: SERVICE})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    spans = Spans(provider)
    log.info("tracing", endpoint=next(os.environ[name] for name in reversed(ENDPOINTS) if os.environ.get(name)))


def stop() -> None:
    """End; waits for a moment."""
    global spans
    ending, spans = spans, None
    if ending is not None:
        ending.stop()
