"""Records of the corpus in `released/`, read by the codecs of today: what they hold, as plain values.

A corpus line is one record: `key` and `value` (or `value_base64`, or none for a tombstone), `headers` of a dead letter, and `read`,
what it must be read as. A later release may find more fields in it, with their defaults, and never others.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from topics.catalog import decode_user, decode_video
from topics.dead_letter import parse_dead_letter
from topics.evidence import unpack
from topics.interactions import decode
from topics.json_schema import EVIDENCE, VERSIONS
from topics.partitions import partition_of
from topics.recommendations import decode_list
from topics.specs import DEAD, INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS
from topics.versions import decode_active

PARTITIONS = 4
ARRIVAL_MS = 1_800_000_000_000


def _plain(struct: Any) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins({name: getattr(struct, name) for name in struct.__struct_fields__})
    return made


def _interaction(key: bytes | None, value: bytes | None, _: Mapping[str, str]) -> dict[str, Any]:
    partition = partition_of(key or b"", PARTITIONS)
    read = decode(key, value, ARRIVAL_MS, partition=partition, partitions=PARTITIONS, future_tolerance_ms=0)
    return _plain(read)


def _entry(read: Callable[..., tuple[str, Any]]) -> Callable[..., dict[str, Any]]:
    def plain(key: bytes | None, value: bytes | None, _: Mapping[str, str]) -> dict[str, Any]:
        name, entry = read(key, value, partition=partition_of(key or b"", PARTITIONS), partitions=PARTITIONS)
        return {"id": name} | ({"deleted": True} if entry is None else _plain(entry))

    return plain


def _list(key: bytes | None, value: bytes | None, _: Mapping[str, str]) -> dict[str, Any]:
    user, listed = decode_list(key, value)
    matrix = listed.matrix()
    return _plain(listed) | {"user_id": user.decode(), "matrix": None if matrix is None else matrix.tolist()}


def _block(_: bytes | None, value: bytes | None, __: Mapping[str, str]) -> dict[str, Any]:
    block = unpack(value or b"")
    columns = {name: getattr(block, name) for name in ("events", "links", "steps")}
    rows = {
        name: [{field: part.tolist() for field, part in zip(column.dtype.names, row, strict=True)} for row in column]
        for name, column in columns.items()
    }
    return {"origin": base64.b64encode(block.origin).decode(), "sender": block.sender, "ids": block.ids, **rows}


def _letter(key: bytes | None, value: bytes | None, headers: Mapping[str, str]) -> dict[str, Any]:
    letter = parse_dead_letter(key, value, [(name, text.encode()) for name, text in headers.items()])
    made: dict[str, Any] = msgspec.to_builtins(letter._asdict())
    return made


def _active(_: bytes | None, value: bytes | None, __: Mapping[str, str]) -> dict[str, Any]:
    return _plain(decode_active(value or b""))


READ: dict[str, Callable[[bytes | None, bytes | None, Mapping[str, str]], dict[str, Any]]] = {
    INTERACTIONS: _interaction,
    VIDEOS: _entry(decode_video),
    USERS: _entry(decode_user),
    RECOMMENDATIONS: _list,
    EVIDENCE: _block,
    DEAD: _letter,
    VERSIONS: _active,
}


def read(topic: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """What a corpus line's record is read as."""
    key = None if line.get("key") is None else line["key"].encode()
    value: bytes | None = None
    if "value_base64" in line:
        value = base64.b64decode(line["value_base64"])
    elif line.get("value") is not None:
        value = line["value"].encode()
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(READ[topic](key, value, line.get("headers", {}))))
    return made
