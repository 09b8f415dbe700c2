"""One shard's rows of one table on disk, with the changelog offset that they reach.

Flows in: the rows of a committed transaction, or of a changelog being tailed, always together with the offset of the next
record. Always holds: rows and offset are written in one RocksDB batch, so a store is at every moment the exact image of a
changelog prefix.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import rocksdict

from state.errors import StateError

#: Where the offset stands; Faust's own stores use the same key, so that its tools read it.
OFFSET_KEY = b"__faust\0offset__"
#: Per store. RocksDB's defaults (2 GiB of block cache a partition in Faust) would take the machine with eight stores.
WRITE_BUFFER_BYTES = 8 << 20
BLOCK_CACHE_BYTES = 16 << 20
OPEN_FILES = 64

Row = tuple[bytes, bytes | None]


class StoreLocked(StateError):
    """Another process has the folder open."""


class StoreCorrupt(StateError):
    """RocksDB cannot read the folder."""


class Store(Protocol):
    """What the engine asks of a store."""

    def get(self, key: bytes) -> bytes | None:
        """The row, or None."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, in key order."""

    def write(self, rows: Iterable[Row], offset: int) -> None:
        """Put rows (None deletes) and the next changelog offset, atomically."""

    def offset(self) -> int:
        """Offset of the first changelog record that is not in here; 0 for an empty store."""

    def close(self) -> None:
        """Let go of the folder."""


class MemoryStore:
    """A store that forgets when the process ends, for tests and for evaluation without a broker."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._offset = 0

    def get(self, key: bytes) -> bytes | None:
        """The row, or None."""
        return self._rows.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, in key order."""
        return iter(sorted((key, value) for key, value in self._rows.items() if key.startswith(prefix)))

    def write(self, rows: Iterable[Row], offset: int) -> None:
        """Put rows (None deletes) and the next changelog offset."""
        for key, value in list(rows):
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        self._offset = offset

    def offset(self) -> int:
        """Offset of the first changelog record that is not in here."""
        return self._offset

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
        try:
            self._db = rocksdict.Rdict(str(path), options)
        except Exception as error:
            # "lock" alone would also match a block's checksum, or the path.
            if "lock file" in str(error).lower() or "lock hold" in str(error).lower():
                raise StoreLocked(
                    f"{path} is open in another worker: stop that one, or give this one its own HEADRACE_HOME"
                ) from error
            raise StoreCorrupt(
                f"{path} cannot be opened ({error}): remove that folder, it is rebuilt from its changelog"
            ) from error

    def get(self, key: bytes) -> bytes | None:
        """The row, or None."""
        value = self._db.get(key)
        return None if value is None else bytes(value)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, in key order."""
        for key, value in self._db.items(from_key=prefix):
            # Raw mode: always bytes.
            if not isinstance(key, bytes) or not key.startswith(prefix):
                return
            yield key, value

    def write(self, rows: Iterable[Row], offset: int) -> None:
        """Put rows (None deletes) and the next changelog offset in one write batch."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in rows:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(OFFSET_KEY, str(offset).encode())
        self._db.write(batch)

    def offset(self) -> int:
        """Offset of the first changelog record that is not in here; 0 for an empty store."""
        value = self._db.get(OFFSET_KEY)
        return 0 if value is None else int(value)

    def close(self) -> None:
        """Flush and let go of the folder."""
        self._db.close()
