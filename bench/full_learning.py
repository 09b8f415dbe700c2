"""Full learning: a real `headrace worker`, from its first event until the evidence of the last one is applied and committed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from bench.contender import Contender, ContenderFailed, Run
from bench.rates import Sample, is_warm
from bench.workload import PARTITIONS
from cli.demo_probes import read_totals
from cli.worker_client import WorkerClient, WorkerUnavailable
from infra.kafka_probe import free_port
from infra.settings import PREFIX, Settings
from topics.specs import INTERACTIONS, evidence_topic

HOST = "127.0.0.1"
#: Each answer takes the worker's own time: five a second are too few to be felt.
ASK_EVERY_S = 0.2
COMMAND = [sys.executable, "-m", "cli.main", "worker"]


def environment(run: Run, port: int) -> dict[str, str]:
    """Variables of a worker with default settings, but for where its broker and its state are, and a version of its own."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
        "KAFKA_BOOTSTRAP_SERVERS": run.bootstrap,
        "HEADRACE_HOME": str(run.folder),
        "HEADRACE_VERSION": run.identity,
        "HEADRACE_WEB_PORT": str(port),
    }


def measure(run: Run, profile: Path | None = None, repeats: bool = False) -> list[Sample]:
    """Let a worker learn the whole log; `profile` gets its stacks (py-spy) after the warm-up; `repeats`: some events are there twice.

    The last sample is taken when the positions of all interactions, and of all evidence, are committed.

    Raises
    ------
    ContenderFailed
        It ended, restarted, stood still, or did not learn every event exactly once.
    """
    port = free_port(HOST)
    client = WorkerClient(f"http://{HOST}:{port}")
    with Contender(run, COMMAND, environment(run, port)) as worker, contextlib.closing(client):
        samples: list[Sample] = []
        learn(worker, run, client, samples, lambda: is_warm(samples[-1], samples[0], run.events, run.limit_s))
        with _profiled(worker.pid, profile):
            learn(worker, run, client, samples, lambda: samples[-1].done >= run.events)
            await_committed(worker, run)
        samples.append(Sample(time.monotonic(), run.events))
        totals = read_totals(client)
        if totals["learned"] + totals["ignored"] + (totals["duplicate"] if repeats else 0) != run.events:
            raise worker.failed(f"{run.events} events became {totals}")
        worker.end()
        if b"worker restarts" in worker.log_file.read_bytes():
            raise worker.failed("it restarted")
    return samples


def learn(worker: Contender, run: Run, client: WorkerClient, samples: list[Sample], enough: Callable[[], bool]) -> None:
    """Add to `samples` what the worker says of its progress, until that is enough."""
    heard_s = time.monotonic()
    while not samples or not enough():
        worker.check()
        if time.monotonic() - heard_s > run.stall_s:
            raise worker.failed(f"no progress for {run.stall_s:.0f} s; the last was {samples[-1:]}")
        time.sleep(ASK_EVERY_S)
        with contextlib.suppress(WorkerUnavailable):
            done = sum(read_totals(client).values())
            if done > (samples[-1].done if samples else 0):
                heard_s = time.monotonic()
                samples.append(Sample(heard_s, done))


@contextlib.contextmanager
def _profiled(pid: int, file: Path | None) -> Iterator[None]:
    """Write the process's stacks, sampled during the block, to `file`, by thread: some of them only wait."""
    if file is None:
        yield
        return
    py_spy = Path(sys.executable).with_name("py-spy")
    if not py_spy.exists():
        raise ContenderFailed("--profile needs py-spy: pip install py-spy")
    command = [str(py_spy), "record", "--pid", str(pid), "--threads", "--format", "raw", "--output", str(file)]
    profiler = subprocess.Popen(command, stdout=sys.stderr)
    try:
        yield
    finally:
        profiler.send_signal(signal.SIGINT)
        profiler.wait()


def await_committed(worker: Contender, run: Run) -> None:
    """Wait until no record of `interactions` or of the evidence lies at or behind the committed positions."""
    app = Settings.model_fields["app"].default
    topics = [INTERACTIONS, evidence_topic(app, run.identity)]
    deadline = time.monotonic() + run.stall_s
    with contextlib.closing(position_reader(run.bootstrap, f"{app}.{run.identity}")) as consumer:
        while not nothing_left(consumer, topics):
            worker.check()
            if time.monotonic() > deadline:
                raise worker.failed(f"evidence was not applied and committed within {run.stall_s:.0f} s")


def position_reader(bootstrap: str, group: str) -> Consumer:
    """A consumer for `nothing_left`, which is no member of the group."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            # Evidence that is about to be committed counts as not applied.
            "isolation.level": "read_uncommitted",
            "fetch.wait.max.ms": 10,
        }
    )


def nothing_left(consumer: Consumer, topics: list[str]) -> bool:
    """Whether no record of these topics lies at or behind the positions that the reader's group has committed."""
    wanted = [TopicPartition(topic, partition) for topic in topics for partition in range(PARTITIONS)]
    committed = consumer.committed(wanted, timeout=10.0)
    # Without a committed position a partition is read from its beginning: an empty one has nothing to wait for.
    consumer.assign(
        [TopicPartition(at.topic, at.partition, at.offset if at.offset >= 0 else OFFSET_BEGINNING) for at in committed]
    )
    ended = 0
    while ended < len(wanted):
        for record in consumer.consume(len(wanted), timeout=1.0):
            error = record.error()
            if error is None:
                return False
            if error.code() != KafkaError._PARTITION_EOF:
                raise ContenderFailed(f"cannot read {topics}: {error}")
            ended += 1
    return True
