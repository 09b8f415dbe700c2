"""What the stores take of the disk, and what is left of it, as metrics; brought up to date when they are scraped."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from infra import metrics
from state.shard import Shard


def publish(shards: Iterable[Shard], folder: Path) -> None:
    """Set the gauges. `folder` holds the stores; where there is none yet, nothing is said of its disk."""
    users = items = 0
    for shard in shards:
        users += shard.users_store.disk_bytes()
        items += shard.items_store.disk_bytes()
    metrics.STORE_BYTES.labels("users").set(users)
    metrics.STORE_BYTES.labels("items").set(items)
    with suppress(FileNotFoundError):
        metrics.DISK_FREE.set(shutil.disk_usage(folder).free)
