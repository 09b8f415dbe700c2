"""Brokers that ask for TLS and a user: a worker learns from one and answers; whoever is refused is told why, in one line."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.worker_process import worker_environment
from infra.kafka_address import kafka_address
from infra.kafka_probe import ask, free_port
from infra.settings import PREFIX, Settings
from tests.agents.running_worker import HOST, RunningWorker, handled
from tests.otlp_collector import Collector
from tests.secure_kafka import PASSWORD, USERNAME, SecureKafka, secure_kafka

pytestmark = pytest.mark.broker
READY_TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with secure_kafka(tmp_path_factory.mktemp("secure")) as running:
        yield running


def headrace(
    bootstrap: str, home: Path, settings: dict[str, object], *arguments: str
) -> subprocess.CompletedProcess[str]:
    environment = worker_environment(bootstrap, home, free_port(HOST), settings)
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def worker(
    kafka: SecureKafka, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningWorker]:
    settings = kafka.settings(app="secure", log_level="debug")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        running = RunningWorker(kafka.sasl, tmp_path_factory.mktemp("worker"), **settings)  # type: ignore[arg-type]
    with running:
        running.wait(lambda _: "worker ready" in running.log, READY_TIMEOUT_S)
        yield running
        assert running.stop() == 0
    assert PASSWORD not in running.log


def test_a_worker_learns_and_answers_over_sasl_and_tls(
    kafka: SecureKafka, worker: RunningWorker, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    at_ms = int(time.time() * 1000) - 60_000
    events = [
        {"event_id": f"e{n}", "user_id": f"u{n % 3}", "video_id": f"v{n % 5}", "event": "like", "at_ms": at_ms + n}
        for n in range(30)
    ]
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    done = headrace(kafka.sasl, tmp_path, kafka.settings(app="secure"), "ingest", str(file))
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    worker.wait(lambda totals: handled(totals) == 30)
    with urllib.request.urlopen(f"http://{HOST}:{worker.port}/v1/recommend/u1?n=2", timeout=5) as answer:
        assert json.load(answer)["source"] == "owner"
    body = json.dumps({"user_id": "u1", "video_id": "v1", "event": "view"}).encode()
    with urllib.request.urlopen(f"http://{HOST}:{worker.port}/v1/events", body, timeout=5) as answer:
        assert json.load(answer)["accepted"] == 1
    worker.wait(lambda totals: handled(totals) == 31)


def test_what_a_worker_does_is_traced(worker: RunningWorker, collector: Collector) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    url = f"http://{HOST}:{worker.port}/v1/recommend/traced?n=2"
    assert httpx.get(url, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}).status_code == 200
    event = json.dumps({"user_id": "traced", "video_id": "v1", "event": "like"}).encode()
    with urllib.request.urlopen(f"http://{HOST}:{worker.port}/v1/events", event, timeout=5) as answer:
        assert answer.status == 202
    request = collector.wait(lambda span: span.trace_id.hex() == trace and span.name == "GET /v1/recommend/{user_id}")
    stages = collector.below(request)
    assert stages[:4] == ["filter", "candidates", "rank", "diversify"]
    assert stages[-1] == "encode"
    collector.wait(lambda span: span.name == "learn interactions")
    checkpoint = collector.wait(lambda span: span.name == "checkpoint")
    assert collector.below(checkpoint) == ["copy", "send", "commit", "store"]
    assert "traced" not in "".join(map(str, collector.spans))


def asked(bootstrap: str, monkeypatch: pytest.MonkeyPatch, **settings: object) -> str | None:
    """What is said of a broker; None if it answers."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(PREFIX + name.upper(), str(value))
    address = kafka_address(Settings(kafka_bootstrap_servers=bootstrap))
    assert address is not None
    answer = ask(address, 3.0)
    assert PASSWORD not in repr(answer)
    return None if answer.cluster_id is not None else answer.refused or answer.hint


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_every_mechanism_lets_in_who_knows_the_password(
    kafka: SecureKafka, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mechanism: str
) -> None:
    assert asked(kafka.sasl, monkeypatch, **kafka.settings(kafka_sasl_mechanism=mechanism)) is None
    wrong = tmp_path / "wrong"
    wrong.write_text("guessed")
    told = asked(kafka.sasl, monkeypatch, **kafka.settings(kafka_sasl_mechanism=mechanism, kafka_password_file=wrong))
    assert told is not None
    assert f"refuses the user '{USERNAME}' with {mechanism}" in told
    assert "check HEADRACE_KAFKA_USERNAME, HEADRACE_KAFKA_PASSWORD" in told


def test_a_client_shows_its_certificate(kafka: SecureKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = {"kafka_security": "ssl", "kafka_ca_file": kafka.ca}
    shown = tls | {"kafka_cert_file": kafka.client_cert, "kafka_key_file": kafka.client_key}
    assert asked(kafka.tls, monkeypatch, **shown) is None
    assert "set HEADRACE_KAFKA_CERT_FILE and HEADRACE_KAFKA_KEY_FILE" in str(asked(kafka.tls, monkeypatch, **tls))


def test_who_is_not_understood_is_told_why(kafka: SecureKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    sasl = {"kafka_username": USERNAME, "kafka_password_file": kafka.password_file}
    other_ca = kafka.settings(kafka_ca_file=kafka.other_ca)
    for bootstrap, settings, told in (
        (kafka.sasl, other_ca, "is not vouched for by HEADRACE_KAFKA_CA_FILE="),
        (kafka.sasl, {}, "speaks TLS, and HEADRACE_KAFKA_SECURITY='plaintext' does not: set it to 'ssl' or 'sasl_ssl'"),
        (kafka.sasl, sasl | {"kafka_security": "sasl_plaintext"}, "speaks TLS.*set it to 'sasl_ssl'"),
        (
            kafka.sasl,
            {"kafka_security": "ssl", "kafka_ca_file": kafka.ca},
            "one that asks for a user closes connections",
        ),
        (
            kafka.plaintext,
            kafka.settings(),
            "does not speak TLS: check the port, and HEADRACE_KAFKA_SECURITY='sasl_ssl'",
        ),
        (kafka.plaintext, sasl | {"kafka_security": "sasl_plaintext"}, "does not take SCRAM-SHA-512"),
    ):
        found = asked(bootstrap, monkeypatch, **settings)
        assert found is not None, told
        assert all(part in found for part in told.split(".*")), found


def test_a_refused_worker_ends_with_one_line(kafka: SecureKafka, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guessed\n")
    with RunningWorker(kafka.sasl, tmp_path, **kafka.settings(app="refused", kafka_password_file=wrong)) as worker:  # type: ignore[arg-type]
        assert worker.process.wait(READY_TIMEOUT_S) == 1
        line, *more = worker.log.splitlines()
    assert not more
    assert line.startswith(f"headrace: Kafka at {kafka.sasl} refuses the user '{USERNAME}'")
    assert "guessed" not in line
