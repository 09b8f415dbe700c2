"""A small server that receives traces over OTLP, and keeps them."""

import gzip
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Listens on entering."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        outer = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            named = {field.key: field.value.string_value for field in resource.resource.attributes}
            self.services.add(named["service.name"])
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def wait(self, wanted: Callable[[Span], bool], timeout_s: float = 30.0) -> Span:
        """A span as wanted, once it has come."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (found := next((span for span in list(self.spans) if wanted(span)), None)) is not None:
                return found
            time.sleep(0.05)
        raise AssertionError(f"no such span; there are {sorted({span.name for span in self.spans})}")

    def below(self, span: Span) -> list[str]:
        """Names of the spans below one, by their beginning."""
        parts = [each for each in self.spans if each.parent_span_id == span.span_id]
        return [part.name for part in sorted(parts, key=lambda part: part.start_time_unix_nano)]

    def __enter__(self) -> "Collector":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
