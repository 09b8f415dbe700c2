"""One take-over of all shards by a fresh process, timed: our side of `bench.restore`.

The clock starts when everything is loaded and stops when the stores are written and the videos are in the replica. Prints one
JSON object.

    python -m bench.restoring BOOTSTRAP APP FOLDER PARTITIONS [SNAPSHOTS]
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from agents.checkpoint import ShardTopics
from agents.snapshot_start import StartFrom
from agents.takeover import take_over
from infra.logs import configure_logs
from state.engine import Engine, EngineOptions
from state.store import Store


async def restore(
    bootstrap: str, app: str, folder: Path, partitions: int, snapshots: str | None = None
) -> dict[str, float]:
    """Take all shards over, from the latest snapshot in `snapshots` if that is given.

    Returns seconds, those of it for loading the replica, CPU seconds, rows in the stores and videos.
    """
    topics = ShardTopics.of(app, "v1")
    engine = Engine(EngineOptions(partitions=partitions), b"bench")
    start = None if snapshots is None else StartFrom(snapshots, "latest", app, "v1", partitions)
    began, began_cpu = time.monotonic(), time.process_time()
    owned = await asyncio.gather(
        *(take_over(bootstrap, topics, partition, folder, start) for partition in range(partitions))
    )
    stored = time.monotonic()
    for _, shard in owned:
        engine.add_shard(shard)
        engine.replica.serve_base(shard.partition)
    ended, ended_cpu = time.monotonic(), time.process_time()
    rows = sum(_count(store) for _, shard in owned for store in (shard.users_store, shard.items_store))
    for writer, shard in owned:
        await writer.stop()
        shard.close()
    return {
        "seconds": ended - began,
        "load_s": ended - stored,
        "cpu_s": ended_cpu - began_cpu,
        "rows": rows,
        "videos": len(engine.replica),
    }


def _count(store: Store) -> int:
    return sum(1 for key, _ in store.scan(b"") if not key.startswith(b"__faust"))


if __name__ == "__main__":
    configure_logs(level="warning")
    bootstrap, app, folder, partitions, *snapshots = sys.argv[1:]
    done = asyncio.run(restore(bootstrap, app, Path(folder), int(partitions), *snapshots))
    print(json.dumps(done), flush=True)
