"""Snapshots: rows and manifests come back as they were, and whatever was changed since is found and named."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.snapshot import (
    GROUP_ROWS,
    MANIFEST,
    Manifest,
    PackedFile,
    SnapshotCorrupt,
    SnapshotError,
    Table,
    check_name,
    decode_manifest,
    encode_manifest,
    pack,
    unpack,
)


def manifest(
    name: str = "v1-1", version: str = "v1", created_ms: int = 1, files: int = 2, **changed: object
) -> Manifest:
    tables: list[Table] = ["users", "items"]
    packed = [
        PackedFile(
            f"{tables[n % 2]}-{n // 2}.parquet", tables[n % 2], n // 2, f"topic-{n % 2}", "id", 10 + n, 3, 100, "ab"
        )
        for n in range(files)
    ]
    whole = Manifest(
        name, "app", version, 1, created_ms, "0.1", {"seed": 1}, {"0": {"interactions": 7}}, {"m": 0.5}, packed
    )
    return msgspec.structs.replace(whole, **changed)


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=50), max_size=30))
def test_rows_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, rows: dict[bytes, bytes]) -> None:
    path = tmp_path_factory.mktemp("rows") / "packed"
    assert pack(path, sorted(rows.items())) == len(rows)
    assert [row for batch in unpack(path) for row in batch] == sorted(rows.items())


def test_rows_are_read_in_bounded_batches(tmp_path: Path) -> None:
    path = tmp_path / "packed"
    assert pack(path, ((b"%d" % n, b"v") for n in range(2 * GROUP_ROWS + 1))) == 2 * GROUP_ROWS + 1
    assert [len(batch) for batch in unpack(path)] == [GROUP_ROWS, GROUP_ROWS, 1]


def test_a_manifest_comes_back_and_finds_its_files() -> None:
    data = encode_manifest(manifest())
    read = decode_manifest(data, "here")
    assert msgspec.structs.replace(read, checksum="") == manifest()
    assert read.file("items", 0).offset == 11
    assert (read.rows, read.size_bytes) == ({"users": 3, "items": 3, "evidence": 0}, 200)
    with pytest.raises(SnapshotCorrupt, match="no file of items of shard 3"):
        read.file("items", 3)


def test_a_changed_byte_anywhere_in_a_manifest_is_found_or_changes_nothing() -> None:
    data = encode_manifest(manifest())
    found = []
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            assert decode_manifest(changed, f"store/{MANIFEST}") == decode_manifest(data, "")
        except SnapshotError as error:
            found.append(str(error))
    # White space between the fields may be any.
    assert len(found) > len(data) / 2
    assert all(f"store/{MANIFEST}" in said for said in found)


def test_a_manifest_of_another_format_names_both() -> None:
    with pytest.raises(SnapshotError, match="format 2, this release reads 1"):
        decode_manifest(encode_manifest(manifest(format=2)), "here")


def test_a_name_leads_nowhere_else() -> None:
    assert check_name("v1-20260101T000000Z") == "v1-20260101T000000Z"
    for name in ("../other", "a/b", "", ".hidden", "a\n", "-option"):
        with pytest.raises(SnapshotError, match="is no name of a snapshot"):
            check_name(name)
    outside = manifest()
    outside = msgspec.structs.replace(outside, files=[msgspec.structs.replace(outside.files[0], name="../x-0.parquet")])
    with pytest.raises(SnapshotCorrupt, match="cannot be read"):
        decode_manifest(encode_manifest(outside), "here")
