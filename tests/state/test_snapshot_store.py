"""Stores of snapshots, the same in a folder and in memory: a snapshot is there as a whole, or not at all."""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import fsspec
import msgspec
import pytest

from state import snapshot_store
from state.snapshot import MANIFEST, Manifest, PackedFile, SnapshotCorrupt, SnapshotError
from state.snapshot_store import SAVING, Promotion, Promotions, SnapshotStore
from tests.state.test_snapshot import manifest


@pytest.fixture(params=["folder", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SnapshotStore:
    urls = {
        "folder": str(tmp_path / "kept"),
        "file": f"file://{tmp_path}/kept",
        "memory": f"memory://{uuid.uuid4()}/kept",
    }
    return SnapshotStore(urls[request.param], "app")


def saved(store: SnapshotStore, name: str, tmp_path: Path, version: str = "v1", created_ms: int = 1) -> Manifest:
    name = store.begin(name)
    source = tmp_path / "source"
    source.write_bytes(f"rows of {name}".encode() * 1000)
    files = []
    for table in ("users", "items"):
        size_bytes, checksum = store.put(name, f"{table}-0.parquet", source)
        files.append(PackedFile(f"{table}-0.parquet", table, 0, "topic", "id", 5, 1, size_bytes, checksum))
    whole = manifest(name, version, created_ms)
    store.finish(msgspec.structs.replace(whole, files=files))
    return store.manifest(name)


def raw(store: SnapshotStore, name: str, file: str) -> str:
    """Path for fsspec of a file, and its file system's address."""
    return store.where(name, file)


def write(store: SnapshotStore, name: str, file: str, data: bytes) -> None:
    fs, path = fsspec.core.url_to_fs(raw(store, name, file))
    fs.pipe_file(path, data)


def read(store: SnapshotStore, name: str, file: str) -> bytes:
    fs, path = fsspec.core.url_to_fs(raw(store, name, file))
    return bytes(fs.cat_file(path))


def test_an_empty_store_says_so(store: SnapshotStore) -> None:
    assert (store.names(), store.listed(), store.sweep()) == ([], [], [])
    assert store.promotions() == Promotions()
    with pytest.raises(SnapshotError, match=r"there is no snapshot v1 in .*: there are none"):
        store.manifest("v1")
    with pytest.raises(SnapshotError, match="no snapshot of version v1"):
        store.resolve("latest", "v1")
    with pytest.raises(SnapshotError, match="nothing is promoted"):
        store.resolve("promoted", "v1")


def test_what_is_saved_is_there_when_it_is_whole(store: SnapshotStore, tmp_path: Path) -> None:
    name = store.begin("v1-1")
    source = tmp_path / "source"
    source.write_bytes(b"rows")
    store.put(name, "users-0.parquet", source)
    assert store.names() == []
    with pytest.raises(SnapshotError, match="there is no snapshot v1-1"):
        store.manifest(name)
    store.remove(name)
    kept = saved(store, "v1-1", tmp_path)
    assert store.names() == ["v1-1"]
    target = tmp_path / "target"
    store.fetch(kept, kept.files[0], target)
    assert target.read_bytes() == b"rows of v1-1" * 1000
    store.verify(kept)
    # The name is taken.
    assert store.begin("v1-1") == "v1-1-2"


def test_names_and_places(store: SnapshotStore, tmp_path: Path) -> None:
    saved(store, "v1-b", tmp_path, created_ms=1)
    saved(store, "v1-a", tmp_path, created_ms=2)
    saved(store, "v2-c", tmp_path, "v2", created_ms=3)
    assert [each.name for each in store.listed() if isinstance(each, Manifest)] == ["v1-b", "v1-a", "v2-c"]
    assert store.resolve("latest", "v1").name == "v1-a"
    assert store.resolve("v1-b", "v9").name == "v1-b"
    store.write_promotions(Promotions().having(Promotion("v1-b", "v1", 7)))
    assert store.resolve("promoted", "v9").name == "v1-b"
    assert SnapshotStore(store.url, "other").names() == []
    store.remove("v1-b")
    assert store.names() == ["v1-a", "v2-c"]


def test_every_changed_file_is_named(store: SnapshotStore, tmp_path: Path) -> None:
    kept = saved(store, "v1-1", tmp_path)
    good = read(store, "v1-1", "items-0.parquet")
    for bad, why in ((good[:500] + b"!" + good[501:], "checksum"), (good[:-1], "bytes")):
        write(store, "v1-1", "items-0.parquet", bad)
        with pytest.raises(SnapshotCorrupt, match=f"v1-1/items-0.parquet.*{why}"):
            store.verify(kept)
        with pytest.raises(SnapshotCorrupt, match=f"v1-1/items-0.parquet.*{why}"):
            store.fetch(kept, kept.file("items", 0), tmp_path / "target")
    fs, path = fsspec.core.url_to_fs(raw(store, "v1-1", "items-0.parquet"))
    fs.rm_file(path)
    with pytest.raises(SnapshotCorrupt, match=r"v1-1/items-0\.parquet is missing: remove snapshot v1-1"):
        store.verify(kept)


def test_a_broken_manifest_is_listed_as_such_and_can_be_removed(store: SnapshotStore, tmp_path: Path) -> None:
    saved(store, "v1-1", tmp_path)
    saved(store, "v1-2", tmp_path, created_ms=2)
    write(store, "v1-2", MANIFEST, read(store, "v1-2", MANIFEST).replace(b'"offset": 5', b'"offset": 6'))
    first, second = store.listed()
    assert isinstance(first, Manifest)
    assert isinstance(second, SnapshotCorrupt)
    assert f"v1-2/{MANIFEST}" in str(second)
    assert store.latest("v1").name == "v1-1"
    store.remove("v1-2")
    assert store.names() == ["v1-1"]


def test_what_a_dead_save_has_left_is_swept_and_a_live_one_is_not(store: SnapshotStore, tmp_path: Path) -> None:
    saved(store, "v1-0", tmp_path)
    store.begin("v1-live")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    marks = {
        "v1-dead": {"pid": gone.pid},
        "v1-old": {"host": "elsewhere", "at_s": time.time() - snapshot_store.ABANDONED_S - 1},
        "v1-elsewhere": {"host": "elsewhere", "pid": gone.pid},
    }
    for name, changed in marks.items():
        store.begin(name)
        mark = json.loads(read(store, name, SAVING)) | changed
        write(store, name, SAVING, json.dumps(mark).encode())
        write(store, name, "users-0.parquet", b"half of it")
    store.begin("v1-unmarked")
    write(store, "v1-unmarked", SAVING, b"{")
    assert store.names() == ["v1-0"]
    assert store.sweep() == ["v1-dead", "v1-old", "v1-unmarked"]
    assert store.sweep() == []
    assert store.names() == ["v1-0"]
    # These may still be filled.
    assert store.begin("v1-live") == "v1-live-2"
    assert store.begin("v1-elsewhere") == "v1-elsewhere-2"


def test_promotions_are_remembered_in_order_and_bounded(store: SnapshotStore) -> None:
    promotions = Promotions()
    for n in range(snapshot_store.HISTORY + 5):
        promotions = promotions.having(Promotion(f"s{n}", "v1", n))
    store.write_promotions(promotions)
    kept = store.promotions()
    assert len(kept.history) == snapshot_store.HISTORY
    assert kept.current == Promotion(f"s{snapshot_store.HISTORY + 4}", "v1", snapshot_store.HISTORY + 4)
    assert kept.without("s50").history == [each for each in kept.history if each.name != "s50"]
    fs, path = fsspec.core.url_to_fs(f"{store.url}/app/promoted.json")
    fs.pipe_file(path, b'{"format": 2}')
    with pytest.raises(SnapshotCorrupt, match=r"promoted\.json cannot be read"):
        store.promotions()


@pytest.mark.parametrize(
    ("url", "said"), [("nothing://there", "nothing"), ("s3://bucket/prefix", "s3fs")], ids=["unknown", "no package"]
)
def test_a_store_that_cannot_be_used_names_the_setting(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SnapshotError, match=f"HEADRACE_SNAPSHOTS='{url}'.*{said}"):
        SnapshotStore(url, "app")


def test_a_file_is_never_there_by_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SnapshotStore(str(tmp_path), "app")
    store.write_promotions(Promotions().having(Promotion("s1", "v1", 1)))

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        store.write_promotions(Promotions().having(Promotion("s2", "v1", 2)))
    assert store.promotions().current == Promotion("s1", "v1", 1)
    assert [path.name for path in (tmp_path / "app").iterdir()] == ["promoted.json"]
