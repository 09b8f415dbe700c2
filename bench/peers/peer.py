"""Running one of the peers, and checking that it has counted what it says."""

import json
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, TopicPartition

from bench.contender import Contender, ContenderFailed, Run
from bench.peers import kafka_streams, quix_streams
from bench.rates import Sample
from bench.report import ROOT
from topics.specs import INTERACTIONS


@dataclass(frozen=True)
class Peer:
    """One program.

    Attributes
    ----------
    command : given the scratch folder, program and first arguments; builds what is missing
    changelog : name of its changelog, from its identity; None if it keeps no state
    count : one user's count, from a value of the changelog
    """

    command: Callable[[Path], list[str]]
    changelog: str | None = None
    count: Callable[[bytes], int] = json.loads


def _module(name: str) -> Callable[[Path], list[str]]:
    return lambda _: [sys.executable, "-m", f"bench.peers.{name}"]


def _long(value: bytes) -> int:
    return int(struct.unpack(">q", value)[0])


PEERS = {
    "raw_decode": Peer(_module("raw_decode")),
    "batch_agent": Peer(_module("batch_agent")),
    "stock_faust": Peer(_module("stock_faust"), "{identity}-counts-changelog"),
    "quix_streams": Peer(
        lambda scratch: [quix_streams.build(scratch / "quix"), "-m", "bench.peers.quix_counts"],
        f"changelog__{{identity}}--{INTERACTIONS}--default",
    ),
    "kafka_streams": Peer(
        lambda scratch: kafka_streams.build(scratch / "kafka-streams"), "{identity}-counts-changelog", _long
    ),
    "kafka_streams_uncached": Peer(
        lambda scratch: kafka_streams.build(scratch / "kafka-streams", "-Duncached=true"),
        "{identity}-counts-changelog",
        _long,
    ),
    "kafka_streams_exactly_once": Peer(
        lambda scratch: kafka_streams.build(scratch / "kafka-streams", "-Dexactly_once=true"),
        "{identity}-counts-changelog",
        _long,
    ),
}


@cache
def prepare(name: str, scratch: Path) -> list[str]:
    """Return the peer's command; what it needs is downloaded and compiled once."""
    return PEERS[name].command(scratch)


def measure(name: str, scratch: Path, run: Run) -> list[Sample]:
    """Let a peer count until it has done all, or for its time.

    Raises
    ------
    ContenderFailed
        It ended or stood still, or its changelog holds another sum than it says.
    """
    command = [*prepare(name, scratch), run.bootstrap, run.identity, str(run.folder), str(run.events)]
    with Contender(run, command, {**os.environ, "PYTHONPATH": str(ROOT)}) as running:
        samples = running.await_samples()
        counted = running.stop()
        peer = PEERS[name]
        if counted < samples[-1].done or counted > run.events:
            raise running.failed(f"it counted {counted} of {run.events} after it had counted {samples[-1].done}")
        if peer.changelog is not None:
            held = _sum(run.bootstrap, peer.changelog.format(identity=run.identity), peer.count)
            if held != counted:
                raise running.failed(f"its changelog holds {held} events, it says {counted}")
    return samples


def _sum(bootstrap: str, topic: str, count: Callable[[bytes], int]) -> int:
    """The sum over the last value of every key of a changelog."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-sum",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        latest: dict[tuple[int | None, bytes | None], int] = {}
        left = len(partitions)
        while left:
            for record in consumer.consume(5_000, timeout=1.0):
                error, value = record.error(), record.value()
                if error is None and value is not None:
                    latest[record.partition(), record.key()] = count(value)
                elif error is not None and error.code() == KafkaError._PARTITION_EOF:
                    left -= 1
                elif error is not None:
                    raise ContenderFailed(f"cannot read {topic}: {error}")
    finally:
        consumer.close()
    return sum(latest.values())
