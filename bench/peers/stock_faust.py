"""Stock Faust: JSON in, one RocksDB table write an event, changelog on.

Defaults except these: the store is RocksDB through rocksdict, for the default keeps nothing on disk; its repaired Cython paths
are on, which its settings offer for throughput (about a fifth less CPU an event here); the web server is off.
"""

import sys
from typing import Any

import faust

from bench.peers.progress import Progress
from topics.specs import INTERACTIONS

PARTITIONS = 4


def create_app(bootstrap: str, group: str, folder: str, progress: Progress) -> faust.App:
    """Build the app: a counter a user."""
    app = faust.App(
        group,
        broker=f"kafka://{bootstrap}",
        store="rocksdb://",
        datadir=folder,
        topic_partitions=PARTITIONS,
        cython_optimizations=True,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
    )
    counts = app.Table("counts", default=int, partitions=PARTITIONS, options={"driver": "rocksdict"})

    async def count(stream: faust.StreamT[Any]) -> None:
        async for event in stream:
            counts[event["user_id"]] += 1
            progress.add()

    topic = app.topic(INTERACTIONS, key_serializer="raw", value_serializer="json")
    app.agent(topic, name="count")(count)
    return app


if __name__ == "__main__":
    counted = Progress(int(sys.argv[4]))
    worker = faust.Worker(
        create_app(sys.argv[1], sys.argv[2], sys.argv[3], counted), loglevel="warning", redirect_stdouts=False
    )
    try:
        worker.execute_from_commandline()
    finally:
        counted.stopped()
