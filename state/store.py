"""One shard's rows of one table on disk, with the changelog offset that they reach.

Flows in: the rows of a committed transaction, or of a changelog being tailed, always together with the offset of the next
record. Always holds: rows and offset are written in one RocksDB batch, so a store is at every moment the exact image of a
changelog prefix.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import rocksdict

from state.errors import StateError

#: Where the offset stands; Faust's own stores use the same key, so that its tools read it.
OFFSET_KEY = b"__faust\0offset__"
#: Which topic the rows are of, by the id that Kafka gave it: a topic wiped and filled anew has the same name and another id.
TOPIC_KEY = b"__faust\0topic__"
#: Per store. RocksDB's defaults (2 GiB of block cache a partition in Faust) would take the machine with eight stores.
WRITE_BUFFER_BYTES = 8 << 20
BLOCK_CACHE_BYTES = 16 << 20
OPEN_FILES = 64

Row = tuple[bytes, bytes | None]


class StoreLocked(StateError):
    """Another process has the folder open."""


class StoreCorrupt(StateError):
    """RocksDB cannot read the folder."""


class DiskFull(StateError):
    """A store could not be written for want of room."""


def _trouble(path: Path, error: Exception) -> Exception:
    """What RocksDB's error, which has no type of its own, means for the operator."""
    text = str(error)
    if isinstance(error, rocksdict.DbClosedError):
        return error
    # "lock" alone would also match a block's checksum, or the path.
    if "lock file" in text.lower() or "lock hold" in text.lower():
        return StoreLocked(f"{path} is open in another worker: stop that one, or give this one its own HEADRACE_HOME")
    if "no space left" in text.lower() or "quota exceeded" in text.lower() or "previous error" in text.lower():
        return DiskFull(
            f"{path} cannot be written ({error}): make room on the disk and start the worker; what the store lacks is read"
            " from its changelog"
        )
    return StoreCorrupt(f"{path} cannot be used ({error}): remove that folder, it is rebuilt from its changelog")


def peek(path: Path, key: bytes) -> bytes | None:
    """One row of a store that another process may have open: nothing is written. Raises StoreCorrupt."""
    try:
        db = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True), access_type=rocksdict.AccessType.read_only())
        try:
            value = db.get(key)
        finally:
            db.close()
    except Exception as error:
        raise _trouble(path, error) from error
    return None if value is None else bytes(value)


class Store(Protocol):
    """What the engine asks of a store."""

    def get(self, key: bytes) -> bytes | None:
        """The row, or None."""

    def scan(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, in key order; those behind the key `after`."""

    def write(self, rows: Iterable[Row], offset: int, *, logged: bool = True) -> None:
        """Put rows (None deletes) and the next changelog offset, atomically.

        Faster unless `logged`: a crash may then take back the latest writes, each as a whole, down to the last `flush`.
        """

    def flush(self) -> None:
        """Make writes that were not logged last."""

    def offset(self) -> int:
        """Offset of the first changelog record that is not in here; 0 for an empty store."""

    def topic_id(self) -> str:
        """Id of the topic that the rows are of; empty if none was noted."""

    def note_topic(self, topic_id: str) -> None:
        """Note the topic that the rows are of, before the first of them is written."""

    def disk_bytes(self) -> int:
        """What it takes on the disk."""

    def close(self) -> None:
        """Let go of the folder."""


class MemoryStore:
    """A store that forgets when the process ends, for tests and for evaluation without a broker."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._offset = 0
        self._topic_id = ""

    def get(self, key: bytes) -> bytes | None:
        """The row, or None."""
        return self._rows.get(key)

    def scan(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, in key order; those behind the key `after`."""
        found = [(key, value) for key, value in self._rows.items() if key > after and key.startswith(prefix)]
        return iter(sorted(found))

    def write(self, rows: Iterable[Row], offset: int, *, logged: bool = True) -> None:  # noqa: ARG002 - a log would not outlast it
        """Put rows (None deletes) and the next changelog offset."""
        for key, value in list(rows):
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        self._offset = offset

    def flush(self) -> None:
        """Nothing outlasts the process."""

    def offset(self) -> int:
        """Offset of the first changelog record that is not in here."""
        return self._offset

    def topic_id(self) -> str:
        """Id of the topic that the rows are of; empty if none was noted."""
        return self._topic_id

    def note_topic(self, topic_id: str) -> None:
        """Note the topic that the rows are of."""
        self._topic_id = topic_id

    def disk_bytes(self) -> int:
        """Nothing."""
        return 0

    def close(self) -> None:
        """Nothing to let go of."""


class RocksStore:
    """A store in a RocksDB folder, through rocksdict in raw mode (keys and values are the bytes of the changelog)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_max_open_files(OPEN_FILES)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        table = rocksdict.BlockBasedOptions()
        table.set_bloom_filter(10, block_based=False)
        table.set_block_cache(rocksdict.Cache(BLOCK_CACHE_BYTES))
        options.set_block_based_table_factory(table)
        self._path = path
        #: Whether batches that skipped the log may still be in memory alone.
        self._unlogged = False
        try:
            self._db = rocksdict.Rdict(str(path), options)
        except Exception as error:
            raise _trouble(path, error) from error

    def get(self, key: bytes) -> bytes | None:
        """The row, or None. Raises StoreCorrupt."""
        try:
            value = self._db.get(key)
        except Exception as error:
            raise _trouble(self._path, error) from error
        return None if value is None else bytes(value)

    def scan(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, in key order; those behind the key `after`. Raises StoreCorrupt."""
        rows = self._db.iter()
        rows.seek(max(prefix, after + b"\0") if after else prefix)
        while rows.valid():
            key = rows.key()
            # Raw mode: always bytes.
            if not isinstance(key, bytes) or not key.startswith(prefix):
                return
            yield key, rows.value()
            rows.next()
        try:
            # An iterator ends at a broken block as at the last row; only its status tells one from the other.
            rows.status()
        except Exception as error:
            raise _trouble(self._path, error) from error

    def write(self, rows: Iterable[Row], offset: int, *, logged: bool = True) -> None:
        """Put rows (None deletes) and the next changelog offset in one write batch.

        RocksDB puts a batch into one memtable and writes memtables in order: what a crash leaves of batches that skipped the
        log is a prefix of them. One that is in the log would outlive those before it, so they are flushed first.
        """
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in rows:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(OFFSET_KEY, str(offset).encode())
        self._put(batch, logged)

    def _put(self, batch: rocksdict.WriteBatch, logged: bool = True) -> None:
        if logged and self._unlogged:
            self.flush()
        options = rocksdict.WriteOptions()
        options.disable_wal = not logged  # type: ignore[method-assign, assignment] # a property; rocksdict's stub is wrong
        self._unlogged |= not logged
        try:
            self._db.write(batch, options)
        except Exception as error:
            raise _trouble(self._path, error) from error

    def flush(self) -> None:
        """Write the memtable to its file. Raises DiskFull or StoreCorrupt."""
        try:
            self._db.flush()
        except Exception as error:
            raise _trouble(self._path, error) from error
        self._unlogged = False

    def offset(self) -> int:
        """Offset of the first changelog record that is not in here; 0 for an empty store."""
        value = self.get(OFFSET_KEY)
        return 0 if value is None else int(value)

    def topic_id(self) -> str:
        """Id of the topic that the rows are of; empty if none was noted."""
        return (self.get(TOPIC_KEY) or b"").decode()

    def note_topic(self, topic_id: str) -> None:
        """Note the topic that the rows are of, before the first of them is written."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        batch.put(TOPIC_KEY, topic_id.encode())
        self._put(batch)

    def disk_bytes(self) -> int:
        """Size of its files. RocksDB may remove one while they are counted."""
        size = 0
        for entry in os.scandir(self._path):
            with suppress(FileNotFoundError):
                size += entry.stat().st_size
        return size

    def close(self) -> None:
        """Flush and let go of the folder. Raises DiskFull or StoreCorrupt."""
        try:
            self._db.close()
        except Exception as error:
            raise _trouble(self._path, error) from error
