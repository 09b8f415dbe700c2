"""Stock Faust restores a table from its changelog, timed. Prints one JSON object and ends.

Defaults except these: the store is RocksDB through rocksdict, for the default keeps nothing on disk; the web server is off; keys
and values are raw bytes, so that nothing is decoded. The clock starts when partitions are assigned and stops when Faust calls the
table recovered.

    python -m bench.peers.stock_faust_restore BOOTSTRAP APP FOLDER PARTITIONS TOPIC
"""

import json
import os
import sys
import time
from typing import Any

import faust


def create_app(bootstrap: str, name: str, folder: str, partitions: int, source: str) -> faust.App:
    """Build the app: one table of bytes, and an agent that never gets an event."""
    app = faust.App(
        name,
        broker=f"kafka://{bootstrap}",
        store="rocksdb://",
        datadir=folder,
        topic_partitions=partitions,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
    )
    table = app.Table(
        "rows",
        partitions=partitions,
        key_type=bytes,
        value_type=bytes,
        options={"driver": "rocksdict"},
    )
    began: list[float] = []

    async def started(*_: Any, **__: Any) -> None:
        began.append(time.monotonic())

    app.on_partitions_assigned.connect(started)

    async def recovered() -> None:
        seconds = time.monotonic() - began[0]
        print(json.dumps({"seconds": seconds, "rows": len(table)}), flush=True)
        # What was measured is over, and a clean stop takes longer than it.
        os._exit(0)

    table.on_recover(recovered)

    async def ignore(stream: faust.StreamT[Any]) -> None:
        async for _ in stream:
            table[b"never"] = b""

    app.agent(app.topic(source, key_serializer="raw", value_serializer="raw"), name="ignore")(ignore)
    return app


if __name__ == "__main__":
    bootstrap, name, folder, partitions, source = sys.argv[1:]
    faust.Worker(
        create_app(bootstrap, name, folder, int(partitions), source), loglevel="warning", redirect_stdouts=False
    ).execute_from_commandline()
