"""A snapshot of a version: the rows of all its stores at one moment, packed in files, and the manifest that says what they are.

Flows in: rows by key, sorted. Flows out: Parquet files of keys and values, the same bytes as in the changelogs, and `manifest.json`.
Always holds: a manifest names every file with its size and checksum, and has a checksum of its own, so that what was changed since
it was saved is found before any of it is used.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import xxhash

from state.errors import StateError

FORMAT = 1
MANIFEST = "manifest.json"
TABLES: tuple[Literal["users"], Literal["items"]] = ("users", "items")
#: Rows of a group in a file, and handed over at once: some megabytes, which bounds the memory of both sides.
GROUP_ROWS = 5_000

Table = Literal["users", "items", "evidence"]
# Names become parts of paths: nothing in them may lead out of the folder.
SnapshotName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}\Z")]
_FileName = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{1,20}-[0-9]{1,9}\.parquet\Z")]


class SnapshotError(StateError):
    """A snapshot cannot be made, found or used; the message says what to do."""


class SnapshotCorrupt(SnapshotError):
    """A file of a snapshot is missing or not as it was saved; the message names it."""


class PackedFile(msgspec.Struct, frozen=True):
    """One table of one shard.

    Attributes
    ----------
    topic, topic_id : the changelog that the rows are of (of evidence: the topic itself), and Kafka's id of it, empty if it gives none
    offset : of the first record of the topic that is not in the rows
    checksum : XXH3 of 128 bits of the file, as hex
    """

    name: _FileName
    table: Table
    partition: int
    topic: str
    topic_id: str
    offset: int
    rows: int
    size_bytes: int
    checksum: str


class Manifest(msgspec.Struct, frozen=True):
    """What a snapshot is.

    Attributes
    ----------
    created_ms : when the moment was that it is of, milliseconds since 1970
    package : version of Headrace that saved it
    configuration : settings that shape what is learned and served, none of them secret
    cuts : next offset of every input, by shard
    metrics : what a worker measured of its lists at that time, by the names of `/metrics`; empty if none was asked
    checksum : XXH3 of 128 bits of the manifest without it, as hex
    """

    name: SnapshotName
    app: str
    version: str
    partitions: int
    created_ms: int
    package: str
    configuration: dict[str, Any]
    cuts: dict[str, dict[str, int]]
    metrics: dict[str, float]
    files: list[PackedFile]
    format: int = FORMAT
    checksum: str = ""

    def file(self, table: Table, partition: int) -> PackedFile:
        """The file of a table of a shard. Raises SnapshotCorrupt."""
        for file in self.files:
            if (file.table, file.partition) == (table, partition):
                return file
        raise SnapshotCorrupt(f"snapshot {self.name}: {MANIFEST} names no file of {table} of shard {partition}")

    @property
    def rows(self) -> dict[str, int]:
        """Rows by table."""
        return {table: sum(file.rows for file in self.files if file.table == table) for table in (*TABLES, "evidence")}

    @property
    def size_bytes(self) -> int:
        """Of all files but the manifest."""
        return sum(file.size_bytes for file in self.files)


class _Format(msgspec.Struct):
    format: int


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON, with its checksum."""
    plain = msgspec.structs.replace(manifest, checksum="")
    summed = msgspec.structs.replace(plain, checksum=xxhash.xxh3_128_hexdigest(_canonical(plain)))
    return msgspec.json.format(msgspec.json.encode(summed), indent=2)


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest; `where` names its file in errors. Raises SnapshotError for another format, SnapshotCorrupt."""
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            raise SnapshotError(
                f"{where} has format {found}, this release reads {FORMAT}: use the release that saved it"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SnapshotCorrupt(f"{where} cannot be read ({error}): remove this snapshot, and save another") from error
    if xxhash.xxh3_128_hexdigest(_canonical(msgspec.structs.replace(manifest, checksum=""))) != manifest.checksum:
        raise SnapshotCorrupt(f"{where} is not as it was saved (checksum): remove this snapshot, and save another")
    return manifest


def _canonical(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest, order="deterministic")


def check_name(name: str) -> str:
    """Return the name of a snapshot. Raises SnapshotError if it can be none."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", name, re.ASCII):
        raise SnapshotError(f"{name!r} is no name of a snapshot: `headrace models list` has them")
    return name


def pack(path: Path, rows: Iterable[tuple[bytes, bytes]]) -> int:
    """Write rows to a Parquet file; returns how many there were."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("key", pa.binary()), ("value", pa.binary())])
    count = 0
    # A dictionary of values that are all different is made for nothing, and statistics of bytes help nobody.
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        for group in _groups(rows):
            keys, values = zip(*group, strict=True)
            writer.write_table(pa.table([keys, values], schema=schema))
            count += len(group)
    return count


def _groups(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    group: list[tuple[bytes, bytes]] = []
    for row in rows:
        group.append(row)
        if len(group) == GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group


def unpack(path: Path) -> Iterator[list[tuple[bytes, bytes]]]:
    """Rows of a file, up to `GROUP_ROWS` at once. Its checksum must have been compared before."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(GROUP_ROWS):
            keys, values = (column.to_pylist() for column in batch.columns)
            yield list(zip(keys, values, strict=True))
