"""Digests of a version's rows: one a part, and one of all. Equal digests mean equal rows, byte for byte.

Flows in: rows of the tables of all shards. Flows out: 128-bit hashes by the name of the part. Always holds: the order in which rows
were written, and which shard's came first, changes nothing; what is not learned (topic ids, the clock of the cut's writer, offsets of
the evidence) is left out.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import numpy as np
import xxhash

from state import rows
from state.types import AnyArray

#: What a digest is made of: users with their attributes; the catalogue with its marks of deleted videos; of videos the counters
#: (beside the totals of the shards), the factors and the neighbour lists; what lessons have taught.
PARTS: Final = ("users", "items", "counters", "factors", "neighbours", "ranker", "heads", "tally")
_FACTORS: Final = ("q", "b", "acc")
#: Parts that are rows as they are, by the first bytes of their keys.
_WHOLE: Final = {
    rows.USER: "users",
    rows.ATTRIBUTES: "users",
    rows.VIDEO: "items",
    rows.DELETED: "items",
    rows.NEIGHBOURS: "neighbours",
}
_SHARED: Final = {rows.RANKER_KEY: "ranker", rows.HEADS_KEY: "heads", rows.TALLY_KEY: "tally"}

#: By shard and key, as `cli.committed` reads a changelog; keys of the two tables differ but for none.
Table = Mapping[tuple[int, bytes], bytes]


def digests(table: Table, inputs: Iterable[str]) -> dict[str, str]:
    """Digest of each part, and of all of them under `all`.

    Parameters
    ----------
    table : rows of both tables
    inputs : topics whose next offsets count

    Raises
    ------
    SchemaMismatch
    """
    hashes = {part: xxhash.xxh3_128() for part in PARTS}
    named = frozenset(inputs)
    for partition, key in sorted(table, key=lambda place: (place[1], place[0])):
        value = table[partition, key]
        if key == rows.CUT_KEY:
            _add(hashes["counters"], partition, key, _cut(value, named))
        elif key in _SHARED:
            _add(hashes[_SHARED[key]], partition, key, value)
        elif key.startswith(rows.ITEM):
            row, factors, rest = _item(value)
            _add(hashes["counters"], partition, key, row + rest)
            _add(hashes["factors"], partition, key, factors)
        elif (part := _WHOLE.get(key[:2])) is not None:
            _add(hashes[part], partition, key, value)
    found = {part: hashes[part].hexdigest() for part in PARTS}
    return {**found, "all": xxhash.xxh3_128_hexdigest(msgspec.json.encode(found))}


def _add(hashed: xxhash.xxh3_128, partition: int, key: bytes, value: bytes) -> None:
    # With their lengths, so that no two tables are the same bytes.
    hashed.update(b"%d %d %d " % (partition, len(key), len(value)))
    hashed.update(key)
    hashed.update(value)


def _cut(value: bytes, inputs: frozenset[str]) -> bytes:
    cut = rows.decode_cut(value)
    places = sorted((topic, offset) for topic, offset in cut.next.items() if topic in inputs)
    return msgspec.json.encode((places, sorted(cut.totals.items())))


def _item(value: bytes) -> tuple[bytes, bytes, bytes]:
    """A video's counters, its factors, and what it has of segments."""
    named: dict[str, AnyArray] = rows.read_item(value)
    factors = b"".join(np.asarray(named.pop(name)).tobytes() for name in _FACTORS)
    return b"".join(np.asarray(each).tobytes() for each in named.values()), factors, value[rows.ITEM_BYTES :]
