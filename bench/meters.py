"""What a worker has done up to a moment, read from outside: two readings give the rates between them."""

import time
from typing import NamedTuple

import psutil
from confluent_kafka import Consumer, TopicPartition

from bench.workload import PARTITIONS
from cli.demo_probes import read_totals
from cli.worker_client import WorkerClient
from topics.specs import INTERACTIONS

ANSWER_TIMEOUT_S = 30.0


class Rates(NamedTuple):
    """Between two readings; shares are of a core.

    Attributes
    ----------
    sent_per_s, learned_per_s : events
    worker_cpu : what the worker took
    worker_core_busy : all that was taken of the worker's core: what is more than its own, others on the machine took
    broker_cpu : what the broker took
    load_core_busy : all that was taken of the core of the broker and the load
    """

    sent_per_s: float
    learned_per_s: float
    worker_cpu: float
    worker_core_busy: float
    broker_cpu: float
    load_core_busy: float


class Reading(NamedTuple):
    """How far all was at a moment.

    Attributes
    ----------
    at_s : of a monotonic clock
    sent : records of `interactions`
    learned : of these, learned, ignored, doubled or dead
    worker_s, broker_s : CPU time of the processes
    busy_s : of the worker's core and the load's, since the machine was started
    """

    at_s: float
    sent: int
    learned: int
    worker_s: float
    broker_s: float
    busy_s: tuple[float, float]

    def since(self, before: "Reading") -> Rates:
        """The rates from `before` to now."""
        seconds = self.at_s - before.at_s
        return Rates(
            sent_per_s=(self.sent - before.sent) / seconds,
            learned_per_s=(self.learned - before.learned) / seconds,
            worker_cpu=(self.worker_s - before.worker_s) / seconds,
            worker_core_busy=(self.busy_s[0] - before.busy_s[0]) / seconds,
            broker_cpu=(self.broker_s - before.broker_s) / seconds,
            load_core_busy=(self.busy_s[1] - before.busy_s[1]) / seconds,
        )


class Meters:
    """Reads how far a worker and its topic are; closed on leaving.

    Parameters
    ----------
    pids : of the worker and of the broker
    cores : the worker's, and that of all else
    """

    def __init__(self, bootstrap: str, client: WorkerClient, pids: tuple[int, int], cores: tuple[int, int]) -> None:
        self._client, self._cores = client, cores
        self._worker, self._broker = (psutil.Process(pid) for pid in pids)
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "meters", "enable.auto.commit": False})

    def __enter__(self) -> "Meters":
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def read(self) -> Reading:
        """Read all. Raises WorkerUnavailable."""
        sent = self.records()
        learned = sum(read_totals(self._client).values())
        worker, broker = self._worker.cpu_times(), self._broker.cpu_times()
        each = psutil.cpu_times(percpu=True)
        busy = [sum(each[core]) - each[core].idle - each[core].iowait for core in self._cores]
        return Reading(
            at_s=time.monotonic(),
            sent=sent,
            learned=learned,
            worker_s=worker.user + worker.system,
            broker_s=broker.user + broker.system,
            busy_s=(busy[0], busy[1]),
        )

    def records(self) -> int:
        """How many records `interactions` has: nobody writes to it in transactions, and nothing is ever removed."""
        places = [TopicPartition(INTERACTIONS, partition) for partition in range(PARTITIONS)]
        return sum(self._consumer.get_watermark_offsets(place, timeout=ANSWER_TIMEOUT_S)[1] for place in places)
