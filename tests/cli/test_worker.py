"""`headrace worker` as an operator starts it: ready, stopped by SIGTERM, and refused where its port is taken."""

import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from infra.embedded_kafka import EmbeddedKafka
from infra.kafka_probe import free_port
from ingestion.produce import produce_events
from tests.agents.running_worker import HOST, FreshWorker, handled
from topics.interactions import Interaction

pytestmark = pytest.mark.broker
#: The first start on a machine compiles the models' loops.
READY_TIMEOUT_S = 90.0


def test_a_ready_worker_ends_cleanly_on_sigterm(bootstrap: str, tmp_path: Path) -> None:
    with FreshWorker(bootstrap, tmp_path, "sigterm-test") as worker:
        # The totals of an idle worker may be empty: readiness is asked for itself.
        worker.wait(lambda _: is_ready(worker.port), READY_TIMEOUT_S)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(25) == 0, worker.log
        assert "worker stopped" in worker.log.splitlines()[-1]
        assert "Traceback" not in worker.log


def test_a_taken_port_is_one_line_and_status_1(bootstrap: str, tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with FreshWorker(bootstrap, tmp_path, "port-test", web_port=port) as worker:
            assert worker.process.wait(30) == 1
            assert worker.log == (f"headrace: port {port} of {HOST} is in use: set HEADRACE_WEB_PORT to another\n")


def test_a_named_broker_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    address = f"{HOST}:{free_port(HOST)}"
    with FreshWorker(address, tmp_path, "absent-test") as worker:
        worker.wait(lambda _: "trying again" in worker.log, READY_TIMEOUT_S)
        assert f"no Kafka broker answers at {address} (KAFKA_BOOTSTRAP_SERVERS); trying again" in worker.log
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(10) == 0
        assert "Traceback" not in worker.log


@pytest.fixture
def empty_broker(tmp_path: Path) -> Iterator[str]:
    """Address of a broker with nothing to learn from, of the test's own."""
    with EmbeddedKafka(tmp_path / "broker") as kafka:
        yield kafka.bootstrap


def test_a_fenced_worker_says_so_and_starts_anew_in_the_same_process(empty_broker: str, tmp_path: Path) -> None:
    """Fenced between two transactions: nothing waits to be learned. In the middle of one, the broker names it otherwise."""
    bootstrap = empty_broker
    with FreshWorker(bootstrap, tmp_path, "fence-test") as worker:
        worker.wait(lambda _: is_ready(worker.port), READY_TIMEOUT_S)
        for partition in range(4):  # as a second owner of the same shards would
            Producer(
                {"bootstrap.servers": bootstrap, "transactional.id": f"fence-test.v1.{partition}"}
            ).init_transactions()
        before = handled(worker.totals())
        event = Interaction("fence-test", "fence-test", "fence-test", "like", 1_650_000_000_000)
        produce_events(bootstrap, [event])  # learned, and found out at the next checkpoint
        worker.wait(lambda _: "worker restarts" in worker.log, READY_TIMEOUT_S)
        worker.wait(lambda totals: is_ready(worker.port) and handled(totals) > before, READY_TIMEOUT_S)
        assert worker.log.count("shards owned") >= 2
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(25) == 0, worker.log
    [why] = [line for line in worker.log.splitlines() if "worker restarts" in line]
    assert "Fenced" in why


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
