"""The embedded broker for real: its data survive a stop and a crash, and what goes wrong is told."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra.embedded_kafka import BrokerError, BrokerRunningError, EmbeddedKafka, ensure_broker
from infra.kafka_jars import KAFKA, cache_dir
from infra.kafka_probe import cluster_at
from infra.settings import Settings

pytestmark = pytest.mark.broker
MESSAGES = [b"one", b"two", b"three"]


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    broker = EmbeddedKafka(tmp_path)
    yield broker
    broker.stop()


def create_topic(bootstrap: str, topic: str) -> None:
    client = AdminClient({"bootstrap.servers": bootstrap})
    client.create_topics([NewTopic(topic, 1, 1)])[topic].result(timeout=20)


def produce(bootstrap: str, topic: str, **options: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, **options})
    for message in MESSAGES:
        producer.produce(topic, message)
    assert producer.flush(20) == 0


def consume(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    try:
        consumer.subscribe([topic])
        deadline = time.monotonic() + 20
        values: list[bytes | None] = []
        while len(values) < count and time.monotonic() < deadline:
            values += [message.value() for message in consumer.consume(count, 0.5) if message.error() is None]
        return values
    finally:
        consumer.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A dead process whose parent has not asked for its status is still listed.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_produce_and_consume(bootstrap: str, codec: str) -> None:
    topic = f"compressed-{codec}"
    create_topic(bootstrap, topic)
    produce(bootstrap, topic, **{"compression.type": codec})
    assert consume(bootstrap, topic, 3) == MESSAGES


def test_transactions_commit_and_abort(bootstrap: str) -> None:
    create_topic(bootstrap, "transactions")
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "test"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("transactions", b"taken back")
    producer.abort_transaction(30)
    producer.begin_transaction()
    producer.produce("transactions", b"kept")
    producer.commit_transaction(30)
    assert consume(bootstrap, "transactions", 1) == [b"kept"]


def test_a_misspelt_topic_is_not_created(bootstrap: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": 3000, "log_level": 0})
    errors: list[object] = []
    producer.produce("interaktions", b"x", on_delivery=lambda error, _: errors.append(error))
    producer.flush(10)
    assert errors
    assert errors[0] is not None
    assert "interaktions" not in AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=10).topics


@pytest.mark.timeout(240)
def test_data_and_address_survive_a_stop_and_a_crash(kafka: EmbeddedKafka) -> None:
    first = kafka.start()
    assert kafka.start() == first, "a second start finds it running"
    create_topic(first, "kept")
    produce(first, "kept")
    kafka.stop()
    assert cluster_at(first) is None
    assert kafka.start() == first
    assert consume(first, "kept", 3) == MESSAGES
    produce(first, "kept")
    kafka.kill()
    assert kafka.start() == first
    assert consume(first, "kept", 6) == MESSAGES * 2


@pytest.mark.timeout(240)
def test_a_crash_is_told_with_the_log_and_can_be_started_over(kafka: EmbeddedKafka) -> None:
    bootstrap = kafka.start()
    assert kafka.log_file.stat().st_size > 0
    child = kafka.check()
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(20)
    with pytest.raises(BrokerError, match=r"ended with status -9; the end of .*broker.log"):
        _ = kafka.bootstrap
    assert kafka.start() == bootstrap


def test_a_broker_that_cannot_run_tells_why(kafka: EmbeddedKafka) -> None:
    (kafka.folder / "data").mkdir(parents=True)
    (kafka.folder / "data" / "meta.properties").write_text("version=1\ncluster.id=another\nnode.id=7\n")
    with pytest.raises(BrokerError, match=r"(?s)ended with status 1.*Stored node id 7"):
        kafka.start()
    with pytest.raises(BrokerError, match="not started"):
        _ = kafka.pid


def test_a_machine_that_is_too_busy_is_told(kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.embedded_kafka.START_TIMEOUT_S", 0.01)
    with pytest.raises(BrokerError, match="not formatted within 0 s"):
        kafka.start()
    monkeypatch.undo()
    kafka.start()
    kafka.check()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} on 127.0.0.1 is in use"):
            EmbeddedKafka(tmp_path, port=port).start()


def test_a_former_port_that_is_taken_is_changed(kafka: EmbeddedKafka) -> None:
    kafka.start()
    former = kafka.bootstrap
    kafka.stop()
    with socket.create_server(("127.0.0.1", int(former.rpartition(":")[2]))):
        assert kafka.start() != former
        assert cluster_at(kafka.bootstrap)


def test_one_broker_a_folder_and_others_share_it(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    address = kafka.start()
    with pytest.raises(BrokerRunningError, match="already runs"):
        EmbeddedKafka(tmp_path).start()
    with ensure_broker(Settings(home=tmp_path, kafka_bootstrap_servers=None)) as shared:
        assert shared == address
    assert cluster_at(address), "who shares a broker leaves it running"


def test_a_broker_of_your_own_wins(bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    with ensure_broker(Settings()) as address:
        assert address == bootstrap
    assert not list(tmp_path.iterdir()), "no embedded broker was prepared"


def test_a_broker_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(BrokerError, match=r"no Kafka broker answers at 127\.0\.0\.1:1 \(KAFKA_BOOTSTRAP_SERVERS\)"),
        ensure_broker(Settings(home=tmp_path, kafka_bootstrap_servers="127.0.0.1:1")),
    ):
        pytest.fail("the block ran without a broker")


def test_the_second_start_opens_no_connection_but_to_loopback(bootstrap: str, tmp_path: Path) -> None:
    assert bootstrap, "the first start, which may have downloaded the jars"
    assert (cache_dir() / KAFKA.replace(":", "-")).is_dir()
    script = f"""
        import pathlib, socket, sys
        def audit(event, arguments):
            if event == "socket.getaddrinfo" and arguments[0] != "127.0.0.1":
                raise RuntimeError(f"looked up {{arguments[0]}}")
            if event == "socket.connect" and arguments[1][0] != "127.0.0.1":
                raise RuntimeError(f"connected to {{arguments[1]}}")
        sys.addaudithook(audit)
        from infra.embedded_kafka import EmbeddedKafka
        with EmbeddedKafka(pathlib.Path({str(tmp_path)!r})) as kafka:
            print(kafka.bootstrap)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "127.0.0.1:" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
@pytest.mark.timeout(240)
def test_it_ends_with_an_owner_that_is_killed_and_the_next_one_takes_over(tmp_path: Path) -> None:
    script = f"""
        import pathlib, threading, time
        from infra.embedded_kafka import EmbeddedKafka
        kafka = EmbeddedKafka(pathlib.Path({str(tmp_path)!r}))
        # Started from a thread that ends: this must not end the broker.
        starter = threading.Thread(target=kafka.start)
        starter.start()
        starter.join()
        time.sleep(1)
        print(kafka.pid, flush=True)
        time.sleep(600)
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pid = next(int(line) for line in owner.stdout if line.strip().isdigit())
        assert alive(pid)
    finally:
        owner.kill()
        owner.communicate()
    settings = Settings(home=tmp_path, kafka_bootstrap_servers=None)
    with ensure_broker(settings) as address:
        assert not alive(pid)
        assert cluster_at(address)


@pytest.mark.timeout(240)
def test_headrace_broker_prints_its_address_and_stays_until_interrupted(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "broker"],
        env={**environment, "HEADRACE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        address = process.stdout.readline().strip()
        assert cluster_at(address)
        time.sleep(1)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to all of the group
        assert process.wait(30) == 0
        assert "crashed" not in process.stderr.read(), "Ctrl-C reached the broker before its owner stopped it"
    assert cluster_at(address) is None
