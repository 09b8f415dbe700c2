"""Room on the disk for a canonical replay, which is gone when it ends.

Flows in: settings. Flows out: empty stores, or an empty folder, below `home`, for a `with` block.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.settings import Settings
from state.store import RocksStore, Store


@contextmanager
def workspace(settings: Settings) -> Iterator[Path]:
    """An empty folder."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="replay-", dir=settings.home) as folder:
        yield Path(folder)


@contextmanager
def disk_stores(settings: Settings) -> Iterator[dict[int, tuple[Store, Store]]]:
    """Users' and items' stores of all shards: memory is bounded, whatever the log has."""
    with workspace(settings) as folder, ExitStack() as opened:
        stores: dict[int, tuple[Store, Store]] = {}
        for partition in range(settings.partitions):
            pair = RocksStore(folder / f"users-{partition}"), RocksStore(folder / f"items-{partition}")
            for store in pair:
                opened.callback(store.close)
            stores[partition] = pair
        yield stores
