"""One suite for every store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from state.store import OFFSET_KEY, MemoryStore, RocksStore, Store, StoreCorrupt, StoreLocked


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "deep" / "users-0")


def test_an_empty_store_starts_at_offset_0(store: Store) -> None:
    assert store.offset() == 0
    assert store.get(b"u:nobody") is None
    assert list(store.scan(b"u:")) == []


def test_rows_and_offset_are_kept_together(store: Store) -> None:
    store.write([(b"u:a", b"1"), (b"u:b", b"2")], 7)
    assert (store.get(b"u:a"), store.get(b"u:b"), store.offset()) == (b"1", b"2", 7)
    store.write([(b"u:a", b"3"), (b"u:b", None), (b"u:never", None)], 9)
    assert (store.get(b"u:a"), store.get(b"u:b"), store.offset()) == (b"3", None, 9)


def test_a_batch_that_fails_half_way_changes_nothing(store: Store) -> None:
    """What a crash in step 9 must not leave: rows without their offset, or some of the rows."""
    store.write([(b"u:a", b"old")], 3)

    def half() -> Iterator[tuple[bytes, bytes | None]]:
        yield b"u:a", b"new"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        store.write(half(), 4)
    assert (store.get(b"u:a"), store.offset()) == (b"old", 3)


def test_the_last_word_on_a_key_counts(store: Store) -> None:
    store.write([(b"i:a", b"1"), (b"i:a", None), (b"i:b", None), (b"i:b", b"2")], 4)
    assert (store.get(b"i:a"), store.get(b"i:b")) == (None, b"2")


def test_scan_gives_one_kind_in_key_order(store: Store) -> None:
    keys = [b"i:b", b"i:\xff\xff", b"i:", b"i:a\x00", b"i:a", b"h:z", b"j:a", b"n:a"]
    store.write([(key, key) for key in keys], 1)
    assert [key for key, _ in store.scan(b"i:")] == sorted(key for key in keys if key.startswith(b"i:"))
    assert all(key == value for key, value in store.scan(b"i:"))
    assert [key for key, _ in store.scan(b"zz")] == []


def test_a_rocks_store_is_there_after_a_restart(tmp_path: Path) -> None:
    first = RocksStore(tmp_path / "s")
    first.write([(b"u:a", b"\x00\xff")], 12)
    first.close()
    second = RocksStore(tmp_path / "s")
    assert (second.get(b"u:a"), second.offset()) == (b"\x00\xff", 12)
    assert second.get(OFFSET_KEY) == b"12"
    second.close()


def test_a_rocks_store_belongs_to_one_worker(tmp_path: Path) -> None:
    first = RocksStore(tmp_path / "s")
    with pytest.raises(StoreLocked, match="HEADRACE_HOME"):
        RocksStore(tmp_path / "s")
    first.write([(b"u:a", b"1")], 1)
    first.close()
    RocksStore(tmp_path / "s").close()


def test_a_broken_folder_says_what_to_remove(tmp_path: Path) -> None:
    """In a folder whose name says "lock", and with a checksum that names a block: neither is a lock."""
    folder = tmp_path / "block-store"
    store = RocksStore(folder)
    store.write([(b"u:%d" % n, b"x" * 100) for n in range(1000)], 1)
    store.close()
    for file in [*folder.glob("MANIFEST-*"), *folder.glob("*.sst")]:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="remove that folder"):
        RocksStore(folder)
