"""Traces: sent to a collector that is named, below the client's span, and nothing at all where none is."""

import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from infra import tracing
from tests.api.guarded import GuardedThread
from tests.otlp_collector import Collector

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        tracing.start()
        yield running
        tracing.stop()


def test_a_request_is_a_span_below_its_clients(collector: Collector) -> None:
    with GuardedThread() as running, httpx.Client(base_url=running.url) as http:
        sampled = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "request-7"}
        http.get("/v1/recommend/secret-user", headers=sampled)
        http.get("/v1/trending?fail=1", headers={"traceparent": "nonsense"})
        # Whoever asked does not want it sampled.
        http.get("/readyz", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    tracing.stop()
    assert sorted(span.name for span in collector.spans) == ["GET /v1/recommend/{user_id}", "GET /v1/trending"]
    assert collector.services == {"headrace"}
    request = collector.wait(lambda span: "recommend" in span.name)
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    told = {field.key: field.value.string_value or field.value.int_value for field in request.attributes}
    assert told == {
        "http.request.method": "GET",
        "http.route": "/v1/recommend/{user_id}",
        "http.response.status_code": 200,
        "headrace.request_id": "request-7",
    }
    failed = collector.wait(lambda span: "trending" in span.name)
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert not failed.parent_span_id
    assert failed.trace_id.hex() != TRACE


def test_stages_follow_each_other_below_their_span(collector: Collector) -> None:
    assert tracing.spans is not None
    began_ns = time.time_ns() - 1_000_000_000
    tracing.spans.done("checkpoint", began_ns, {"headrace.shard": 3}, [(began_ns, [("copy", 0.25), ("send", 0.5)])])
    tracing.stop()
    whole = collector.wait(lambda span: span.name == "checkpoint")
    assert collector.below(whole) == ["copy", "send"]
    send = collector.wait(lambda span: span.name == "send")
    assert send.start_time_unix_nano == began_ns + 250_000_000
    assert send.end_time_unix_nano == began_ns + 750_000_000


def test_without_a_collector_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    program = (
        "import sys; from infra import tracing; tracing.start(); print(tracing.spans, 'opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "None False\n"


AWAY = """
import time
from infra import tracing
tracing.start()
for _ in range(5_000):  # more than wait
    tracing.spans.done("learn", time.time_ns(), {})
began = time.monotonic()
tracing.stop()
print(tracing.spans, time.monotonic() - began < 10)
"""


def test_a_collector_that_is_away_costs_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: the SDK's thread goes on trying, and logs, for a while."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    done = subprocess.run([sys.executable, "-c", AWAY], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "None True"


def test_a_missing_library_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    tracing.start()
    assert tracing.spans is None
