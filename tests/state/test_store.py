"""One suite for every store."""

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from state.store import OFFSET_KEY, DiskFull, MemoryStore, RocksStore, Store, StoreCorrupt, StoreLocked
from tests.small_disk import SmallDisk


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


def test_the_topic_is_noted_and_kept(store: Store) -> None:
    assert store.topic_id() == ""
    store.note_topic("AAAAAAAAAAEAAAAAAAAAAg")
    store.write([(b"u:a", b"1")], 1)
    assert (store.topic_id(), store.offset(), store.get(b"u:a")) == ("AAAAAAAAAAEAAAAAAAAAAg", 1, b"1")


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


def test_a_scan_goes_on_behind_any_key(store: Store) -> None:
    keys = [b"h:z", b"i:a", b"i:a\x00", b"i:b", b"j:a"]
    store.write([(key, key) for key in keys], 1)
    for after, left in (
        (b"", 3),
        (b"h:z", 3),
        (b"i:", 3),
        (b"i:a", 2),
        (b"i:a\x00", 1),
        (b"i:ab", 1),
        (b"i:b", 0),
        (b"j:a", 0),
    ):
        assert [key for key, _ in store.scan(b"i:", after)] == keys[1:4][3 - left :], after


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


def full_folder(folder: Path) -> Path:
    """A closed store whose 2,000 rows are in one table file; returns that file."""
    store = RocksStore(folder)
    store.write([(b"u:%04d" % n, random.Random(n).randbytes(300)) for n in range(2_000)], 5)
    store.close()
    # Opening moves what the log holds into a table file.
    store = RocksStore(folder)
    assert len(list(store.scan(b"u:"))) == 2_000
    store.close()
    [file] = folder.glob("*.sst")
    return file


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0xFF
    file.write_bytes(data)


def test_flipped_bits_are_found_when_they_are_read(tmp_path: Path) -> None:
    """Above all by a scan: rows that it left out would be learned anew from nothing."""
    file = full_folder(tmp_path / "s")
    flip(file, file.stat().st_size // 2)
    store = RocksStore(tmp_path / "s")
    with pytest.raises(StoreCorrupt, match="remove that folder"):
        list(store.scan(b"u:"))
    found = [read(store, b"u:%04d" % n) for n in range(2_000)]
    assert all(value in (None, random.Random(n).randbytes(300)) for n, value in enumerate(found))
    assert 0 < found.count(None) < 100
    store.close()


def read(store: Store, key: bytes) -> bytes | None:
    """The row; None where the store says that it is corrupt."""
    try:
        return store.get(key)
    except StoreCorrupt:
        return None


@pytest.mark.parametrize("broken", ["CURRENT", "MANIFEST-*", "*.sst cut short", "*.sst removed"])
def test_files_that_are_garbage_or_gone_are_found_at_once(tmp_path: Path, broken: str) -> None:
    full_folder(tmp_path / "s")
    pattern, _, how = broken.partition(" ")
    [file] = (tmp_path / "s").glob(pattern)
    if how == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1_000] if how else b"garbage")
    with pytest.raises(StoreCorrupt, match="remove that folder"):
        RocksStore(tmp_path / "s")


def killed_after(folder: Path, body: str) -> None:
    """Run `body` with an open `store` in a process that ends at once afterwards, closing nothing."""
    code = (
        "import os, pathlib, random; from state.store import RocksStore\n"
        f"store = RocksStore(pathlib.Path({str(folder)!r}))\n{body}\nos._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9


UNLOGGED = """
for n in range(150):
    rows = [(b"u:%d-%d" % (n, k), random.Random(n).randbytes(1000)) for k in range(200)]
    store.write(rows, n + 1, logged=False)
"""


def test_a_crash_leaves_a_prefix_of_what_was_not_logged(tmp_path: Path) -> None:
    """30 MB in memtables of 8: some are on disk when the process is killed, the last is not."""
    killed_after(tmp_path / "users-0", UNLOGGED)
    store = RocksStore(tmp_path / "users-0")
    reached = store.offset()
    assert 0 < reached < 150
    rows = {key for key, _ in store.scan(b"u:")}
    assert rows == {b"u:%d-%d" % (n, k) for n in range(reached) for k in range(200)}


def test_a_logged_write_never_outlives_those_before_it(tmp_path: Path) -> None:
    killed_after(
        tmp_path / "users-0", "store.write([(b'u:a', b'1')], 1, logged=False); store.write([(b'u:b', b'2')], 2)"
    )
    store = RocksStore(tmp_path / "users-0")
    assert (store.get(b"u:a"), store.get(b"u:b"), store.offset()) == (b"1", b"2", 2)


def test_what_is_flushed_stays(tmp_path: Path) -> None:
    killed_after(tmp_path / "users-0", UNLOGGED + "\nstore.flush()")
    store = RocksStore(tmp_path / "users-0")
    assert (store.offset(), store.get(b"u:149-199") is not None) == (150, True)


def test_a_log_that_was_cut_short_leaves_an_earlier_state(tmp_path: Path) -> None:
    """What the changelog's tail then brings up: rows and offset are those of one batch before."""
    store = RocksStore(tmp_path / "s")
    store.write([(b"u:a", b"1"), (b"u:b", b"1")], 3)
    store.write([(b"u:a", b"2"), (b"u:b", b"2")], 7)
    # As a killed process leaves it; closing would empty the log.
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "s", copy)
    store.close()
    [file] = copy.glob("*.log")
    file.write_bytes(file.read_bytes()[:-5])
    left = RocksStore(copy)
    assert (left.get(b"u:a"), left.get(b"u:b"), left.offset()) == (b"1", b"1", 3)
    left.close()


def fill(store: Store, written: list[int]) -> None:
    """Write the same 100 rows anew until there is no room; the last of `written` is the last offset taken."""
    for n in range(1, 1_000):
        store.write([(b"u:%d" % k, random.Random(n).randbytes(300)) for k in range(100)], n)
        written[0] = n


def test_a_full_disk_says_so_and_keeps_what_was_written(small_disk: SmallDisk) -> None:
    folder = small_disk.path / "s"
    store = RocksStore(folder)
    written = [0]
    with pytest.raises(DiskFull, match="make room"):
        fill(store, written)
    assert store.offset() == written[0]
    with pytest.raises(DiskFull):
        store.write([(b"u:0", b"1")], 5_000)
    with suppress(DiskFull):
        store.close()
    del store
    with pytest.raises(DiskFull, match="make room"):
        RocksStore(folder)
    small_disk.grow()
    store = RocksStore(folder)
    assert 0 < store.offset() <= written[0]
    assert {store.get(b"u:%d" % k) for k in range(100)} == {random.Random(store.offset()).randbytes(300)}
    store.close()
