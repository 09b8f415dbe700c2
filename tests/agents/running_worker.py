"""A `headrace worker` process, as an operator starts it, and a view of what it has committed."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.kafka_probe import free_port

HOST = "127.0.0.1"


class RunningWorker:
    """Started on entering; killed, if it still runs, on leaving."""

    def __init__(self, bootstrap: str, home: Path, app: str, **settings: object) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.port = free_port(HOST)
        self.log_file = home / f"worker-{time.time_ns()}.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "HEADRACE_HOME": str(home),
            "HEADRACE_APP": app,
            "HEADRACE_WEB_PORT": str(self.port),
            **{f"HEADRACE_{name.upper()}": str(value) for name, value in settings.items()},
        }

    def __enter__(self) -> "RunningWorker":
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "worker"], stdout=log, stderr=log, env=self._environment
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL: nothing is said, written or closed."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """Ctrl-C; returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(25)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def totals(self) -> dict[str, int]:
        """What `/readyz` says is learned; empty while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/readyz", timeout=2) as answer:
                return dict(json.load(answer)["totals"])
        except (OSError, urllib.error.URLError):
            return {}

    def wait(self, until: Callable[[dict[str, int]], bool], timeout_s: float = 30.0) -> dict[str, int]:
        """Poll the totals until they are as wanted; fails with the worker's log if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            totals = self.totals()
            if until(totals):
                return totals
            assert self.process.poll() is None, f"the worker ended by itself:\n{self.log[-3000:]}"
            time.sleep(0.02)
        raise AssertionError(f"not in {timeout_s:.0f} s; totals {self.totals()}, log:\n{self.log[-3000:]}")


def handled(totals: dict[str, int]) -> int:
    """Interactions that became one of the four things."""
    return sum(totals.get(name, 0) for name in ("learned", "ignored", "duplicate", "dead"))


def read_committed(bootstrap: str, topic: str) -> list[Message]:
    """Every committed record of the topic, each partition in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "test-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    records: list[Message] = []
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        left = set(partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        deadline = time.monotonic() + 20
        while left:
            assert time.monotonic() < deadline, f"{topic} does not end"
            for record in consumer.consume(5_000, timeout=0.2):
                error = record.error()
                if error is None:
                    records.append(record)
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(record.partition() or 0)
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
    return sorted(records, key=lambda record: (record.partition() or 0, record.offset() or 0))


def latest(records: list[Message]) -> dict[tuple[int, bytes], bytes]:
    """What a compacted topic means: the last value of each key and partition, without deleted keys."""
    values: dict[tuple[int, bytes], Any] = {}
    for record in records:
        key = (record.partition() or 0, record.key() or b"")
        if record.value() is None:
            values.pop(key, None)
        else:
            values[key] = record.value()
    return values
