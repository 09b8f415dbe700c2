"""What Faust's tables read: the rows of the shards that this worker owns, straight from their stores.

Flows in: keys. Flows out: packed rows as of the last checkpoint. Nothing is written through here.
"""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from faust.stores.base import SerializedStore
from faust.types import TP

from state.store import Store

Stores = Callable[[], list[Store]]


class ReadOnlyTable(TypeError):
    """A table was written from outside a checkpoint."""


class ShardRows(SerializedStore[bytes, bytes]):
    """A Faust store over the shards' own stores; keys and values are bytes.

    Parameters
    ----------
    stores : gives the open stores of the table, one an owned shard
    """

    def __init__(self, *args: Any, stores: Stores, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stores = stores

    def _get(self, key: bytes) -> bytes | None:
        return next((row for store in self._stores() if (row := store.get(key)) is not None), None)

    def _set(self, key: bytes, value: bytes | None) -> NoReturn:
        raise ReadOnlyTable(f"{self.table_name} is written by checkpoints only: send an event instead")

    def _del(self, key: bytes) -> NoReturn:
        raise ReadOnlyTable(f"{self.table_name} is written by checkpoints only: send an event instead")

    def _clear(self) -> NoReturn:
        raise ReadOnlyTable(f"{self.table_name} is written by checkpoints only")

    def _iteritems(self) -> Iterator[tuple[bytes, bytes]]:
        for store in self._stores():
            yield from ((key, value) for key, value in store.scan(b"") if not key.startswith(b"__faust"))

    def _iterkeys(self) -> Iterator[bytes]:
        return (key for key, _ in self._iteritems())

    def _itervalues(self) -> Iterator[bytes]:
        return (value for _, value in self._iteritems())

    def _size(self) -> int:
        return sum(1 for _ in self._iteritems())

    def _contains(self, key: bytes) -> bool:
        return self._get(key) is not None

    def persisted_offset(self, tp: TP) -> int | None:
        """Faust's recovery asks; ours keeps offsets in the shards' stores."""
        return None

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Offsets are written with their rows."""

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        """Changelogs are read by the take-over."""

    async def backup_partition(self, tp: TP | int, flush: bool = True, purge: bool = False, keep: int = 1) -> None:
        """Changelogs are the backup."""
        raise NotImplementedError("a store is rebuilt from its changelog; there is nothing to back up")

    def restore_backup(self, tp: TP | int, latest: bool = True, backup_id: int = 0) -> None:
        """Changelogs are the backup."""
        raise NotImplementedError("a store is rebuilt from its changelog: remove its folder and start the worker")

    def reset_state(self) -> None:
        """State belongs to the shards."""

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Recovery is the take-over."""
