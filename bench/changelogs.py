"""Changelogs filled by hand, as checkpoints fill them: transactions of a few thousand rows, uncompressed."""

from collections.abc import Iterable

from confluent_kafka import Producer

from bench.state_rows import Placed
from topics.specs import TopicSpec, ensure_topics

#: Rows a transaction; a checkpoint of a busy shard has about as many.
TRANSACTION_ROWS = 2_000


def create(bootstrap: str, names: Iterable[str], partitions: int) -> None:
    """Create compacted topics."""
    ensure_topics(bootstrap, [TopicSpec(name, partitions, {"cleanup.policy": "compact"}) for name in names])


def write(bootstrap: str, rows: Iterable[Placed], topic_of: dict[str, str], *, transactional: bool) -> int:
    """Write rows to the changelogs of their tables; returns the bytes of keys and values.

    Parameters
    ----------
    topic_of : changelog by table
    transactional : in transactions, as ours are; stock Faust's changelogs have none
    """
    settings: dict[str, str | int | float | bool] = {
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "batch.size": 512 * 1024,
        "linger.ms": 20,
        "log_level": 2,  # a coordinator that is still loading is no news
        "queue.buffering.max.messages": 100_000,
    }
    if transactional:
        settings["transactional.id"] = "bench-rows"
    producer = Producer(settings)
    size_bytes = 0
    if transactional:
        producer.init_transactions(30)
        producer.begin_transaction()
    for count, (table, partition, key, value) in enumerate(rows, 1):
        producer.produce(topic_of[table], value, key, partition)
        size_bytes += len(key) + len(value)
        if count % TRANSACTION_ROWS == 0:
            if transactional:
                producer.commit_transaction(60)
                producer.begin_transaction()
            else:
                producer.flush(60)
    if transactional:
        producer.commit_transaction(60)
    if producer.flush(60):
        raise TimeoutError("the broker did not take all rows in 60 s")
    return size_bytes
