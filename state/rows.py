"""Rows as bytes: how users, videos and cuts look in a changelog and in a store.

Keys carry one byte for the kind and the id as UTF-8, so that a table's rows of one kind lie together. Every value starts with
the version of its layout; a row of another version raises SchemaMismatch. Videos are named by their 64-bit hash inside rows,
because row numbers mean nothing to another process; those of a history by their ids, because what is learned next names them
to their owners.
"""

from typing import Any

import msgspec
import numpy as np

from state.distinct import distinct
from state.errors import SchemaMismatch
from state.expiry import day_of
from state.replica import FACTOR_COLUMNS, Replica
from state.types import AnyArray, Float64Array, Int32Array, UInt64Array
from state.users import KINDS, PASSED, RECENT_IDS, Users
from topics.catalog import User, Video, decode_user_value, decode_video_value, encode
from topics.evidence import FACTORS, SEGMENT_WORDS

VERSION = 1
#: Of the rows of users and videos.
LEARNED_VERSION = 3
#: Added to it where the row ends with, or has behind what is of fixed size, its day: where users or videos expire.
AGED = 0x80
#: Of a cut whose neighbour lists are behind.
LISTS_VERSION = 2

#: Key prefixes of the users table: the cut (one a shard), learned state, attributes.
CUT_KEY = b"!cut"
USER, ATTRIBUTES = b"u:", b"a:"
#: Key prefixes of the items table: counters and factors, neighbour lists, the catalogue record, the mark of a deleted video.
ITEM, NEIGHBOURS, VIDEO, DELETED = b"i:", b"n:", b"m:", b"d:"
#: The shard's parts of the ranker and of the heads. They lie with the videos, which every worker reads of every shard.
RANKER_KEY, HEADS_KEY = b"!ranker", b"!heads"
#: The shard's part of the experiment's tally, for the same reason.
TALLY_KEY = b"!tally"
#: Versions of these rows: another one with every change of the features. A tally names what its numbers mean itself.
PART_VERSIONS = {RANKER_KEY: 2, HEADS_KEY: 2, TALLY_KEY: 1}

_USER = np.dtype(
    [
        ("version", "u1"),
        ("p", "<f4", (FACTORS,)),
        ("pacc", "<f4"),
        ("recent", "<u8", (RECENT_IDS,)),
        ("recent_at", "<i4"),
        ("counts", "<i4", (KINDS,)),
        ("last_ms", "<i8"),
        ("offset", "<i8"),
        ("hour", "<i4"),
        ("in_hour", "<i4"),
        ("open_liked", "u1"),
        ("passed", "<u8", (PASSED,)),
        ("seen_bytes", "<u4"),
    ]
)
_ITEM = np.dtype(
    [
        ("version", "u1"),
        ("plays", "<f8"),
        ("decayed", "<f4", (3,)),
        ("decayed_at", "<f8"),
        ("shown", "<f4", (2,)),
        ("shown_at", "<f8"),
        ("first_ms", "<i8"),
        ("last_ms", "<i8"),
        ("counts", "<i8", (KINDS,)),
        ("q", "<f4", (FACTORS,)),
        ("b", "<f4"),
        ("acc", "<f4"),
    ]
)
ITEM_BYTES = _ITEM.itemsize
#: Behind the row of a video that users with segments have chosen.
_SEGMENTS = np.dtype([("at", "<f8"), ("counts", "<f4", (64 * SEGMENT_WORDS + 1,))])
_LIST = np.dtype(
    [("version", "u1"), ("covisits", "<u2"), ("covisits_at", "<f8"), ("markov", "<u2"), ("markov_at", "<f8")]
)
_ENTRY = np.dtype([("item", "<u8"), ("weight", "<f4")])
_DAY = np.dtype("<i4")
#: Behind the row of a video where videos expire: when it was met last, and whether it has expired before.
_AGE = np.dtype([("touched", "<i4"), ("returned", "u1")])
#: Marks of deleted and of expired videos: the latter come back with the next event.
DELETED_MARK, EXPIRED_MARK = bytes([VERSION]), bytes([VERSION, 1])


class Cut(msgspec.Struct):
    """Where a shard stands: the next offset of each input, the totals that are exact with it, and the clock it was read by.

    `topic_ids` names the topics that it was learned from and written to, by Kafka's ids: a name outlives its topic. `lists` is the
    next offset of the evidence whose links the neighbour rows hold, where that is behind `next`; a cut that has it is of another
    version, for a release that passed over it would lose links.

    Where users or videos expire: `event_ms` is the latest event time of the shard's interactions; `heard` has that of its evidence and
    the number of its latest block, by sender, of so many `blocks`; `swept` the day for which rows of users are looked through, and the
    id behind which that goes on (None: it is done).
    """

    next: dict[str, int]
    totals: dict[str, int] = {}
    clock_ms: int = 0
    topic_ids: dict[str, str] = {}
    lists: int | None = None
    event_ms: int = 0
    heard: dict[int, tuple[int, int]] = {}
    blocks: int = 0
    swept: tuple[int, str | None] = (0, None)
    version: int = VERSION


class _Layout(msgspec.Struct):
    version: int = VERSION


def encode_cut(cut: Cut) -> bytes:
    """The cut as JSON, readable by an operator with any Kafka tool."""
    return msgspec.json.encode(msgspec.structs.replace(cut, version=VERSION if cut.lists is None else LISTS_VERSION))


def decode_cut(data: bytes) -> Cut:
    """Read a cut, as any release of this layout wrote it. Raises SchemaMismatch for another version."""
    try:
        # Before all else: the fields of another layout may be of other types.
        version = msgspec.json.decode(data, type=_Layout).version
        if version != LISTS_VERSION:
            check_version(version)
        return msgspec.structs.replace(msgspec.json.decode(data, type=Cut), version=VERSION)
    except msgspec.DecodeError as error:
        raise SchemaMismatch(f"the cut record cannot be read ({error}): replay into a new HEADRACE_VERSION") from error


def check_version(version: int, reads: int = VERSION) -> None:
    """Raise SchemaMismatch for the layout of another release."""
    if version != reads:
        raise SchemaMismatch(
            f"a row has layout {version}, this release reads {reads}: run the release that wrote it, or replay into a new"
            " HEADRACE_VERSION"
        )


def check_learned(version: int) -> bool:
    """Whether a row of a user or video has its day. Raises SchemaMismatch for the layout of another release."""
    check_version(version & ~AGED, LEARNED_VERSION)
    return bool(version & AGED)


_USER_COLUMNS = ("p", "pacc", "recent", "recent_at", "counts", "last_ms", "offset", "open_liked", "hour", "in_hour")


def encode_users(users: Users, slots: Int32Array, replica: Replica) -> list[tuple[bytes, bytes]]:
    """Rows of users as (key, value), copied at once so that learning may go on."""
    packed = np.zeros(len(slots), _USER)
    touched = users.touched[slots]
    packed["version"] = LEARNED_VERSION + np.where(touched > 0, AGED, 0)
    for name in _USER_COLUMNS:
        packed[name] = getattr(users, name)[slots]
    packed["passed"] = _codes_of(users.passed[slots], replica)
    packed["seen_bytes"] = users.seen_length[slots] * 8
    heads, size = packed.tobytes(), _USER.itemsize
    pool, starts, lengths = users.seen_pool, users.seen_offset[slots].tolist(), users.seen_length[slots].tolist()
    names = _packed_names(users.open_row[slots], users.history[slots], replica)
    if touched.any():
        days = touched.astype(_DAY)
        names = [name + days[i].tobytes() if days[i] else name for i, name in enumerate(names)]
    return [
        (
            USER + users.key_of(slot),
            b"".join((heads[i * size : (i + 1) * size], pool[starts[i] : starts[i] + lengths[i]].tobytes(), names[i])),
        )
        for i, slot in enumerate(slots.tolist())
    ]


def _codes_of(numbers: Int32Array, replica: Replica) -> UInt64Array:
    """Hashes of the rows' videos, 0 for -1."""
    return np.where(numbers < 0, np.uint64(0), replica.hashes[numbers])


def _packed_names(opened: Int32Array, histories: Int32Array, replica: Replica) -> list[bytes]:
    """For each user a MessagePack array of ids: the open video or nil, then the history; an id is packed once for all users."""
    named = np.column_stack([opened, histories])
    known, place = distinct(len(replica), named)
    names = [msgspec.msgpack.encode(video_id) for video_id in replica.ids_of(known.tolist())]
    held = named >= 0
    places = iter(place[named[held]].tolist())
    return [
        _array_head(1 + n)
        + b"".join([names[next(places)] if is_open else _NIL, *[names[next(places)] for _ in range(n)]])
        for is_open, n in zip(held[:, 0].tolist(), held[:, 1:].sum(axis=1).tolist(), strict=True)
    ]


_NIL = msgspec.msgpack.encode(None)


def _array_head(length: int) -> bytes:
    """Head of a MessagePack array of up to 65,535 elements."""
    return bytes([0x90 | length]) if length < 16 else b"\xdc" + length.to_bytes(2)


def decode_user(data: bytes, users: Users, slot: int, replica: Replica) -> None:
    """Put a row into a slot. Raises SchemaMismatch for another version."""
    aged = check_learned(data[0])
    row = np.frombuffer(data, _USER, 1)[0]
    for name in _USER_COLUMNS:
        getattr(users, name)[slot] = row[name]
    users.touched[slot] = np.frombuffer(data[-_DAY.itemsize :], _DAY)[0] if aged else 0
    passed = replica.rows_of_hashes(row["passed"].astype(np.uint64))
    passed = passed[(passed >= 0) & ~replica.deleted[passed]]
    users.passed[slot] = -1
    users.passed[slot, : len(passed)] = passed
    # A deletion reaches the users in memory; here it reaches the others.
    opened, history = _names(data, row)
    open_row = -1 if opened is None else replica.row_of(opened)
    users.open_row[slot] = -1 if open_row >= 0 and replica.deleted[open_row] else open_row
    rows = replica.rows_of(history)
    alive = rows[~replica.deleted[rows]]
    users.history[slot] = -1
    users.history[slot, : len(alive)] = alive
    users.set_seen(slot, _seen(data, row))


def _seen(data: bytes, row: AnyArray) -> UInt64Array:
    return np.frombuffer(data, "<u8", int(row["seen_bytes"]) // 8, _USER.itemsize).astype(np.uint64)


def _names(data: bytes, row: AnyArray) -> tuple[str | None, list[str]]:
    """The open video and the history."""
    end = len(data) - (_DAY.itemsize if data[0] & AGED else 0)
    opened, *history = msgspec.msgpack.decode(
        data[_USER.itemsize + int(row["seen_bytes"]) : end], type=list[str | None]
    )
    return opened, [video_id for video_id in history if video_id is not None]


def read_user(data: bytes) -> dict[str, Any]:
    """A user's row by name, for tools and tests: `counts`, `seen` (hashes), `history` (ids, newest first), and the rest."""
    check_learned(data[0])
    row = np.frombuffer(data, _USER, 1)[0]
    fields: dict[str, Any] = {name: row[name] for name in _USER.names or ()}
    opened, history = _names(data, row)
    return {**fields, "seen": _seen(data, row), "open": opened, "history": history}


_LAST_MS_AT = int(_USER.fields["last_ms"][1]) if _USER.fields else 0


def user_day(data: bytes) -> int:
    """Day of a user's latest event, of the row alone; 0 for one who has none. Raises SchemaMismatch."""
    aged = check_learned(data[0])
    day = day_of(int.from_bytes(data[_LAST_MS_AT : _LAST_MS_AT + 8], "little", signed=True))
    return max(day, int.from_bytes(data[-_DAY.itemsize :], "little", signed=True)) if aged else day


_POPULARITY = ("plays", "decayed", "decayed_at", "shown", "shown_at", "first_ms", "last_ms")


def encode_items(replica: Replica, rows: Int32Array) -> list[tuple[bytes, bytes]]:
    """Rows of videos: counters, popularity and the owner's factors, copied at once so that learning may go on."""
    packed = np.zeros(len(rows), _ITEM)
    aged = (replica.touched[rows] > 0) | replica.returned[rows]
    packed["version"] = LEARNED_VERSION + np.where(aged, AGED, 0)
    popularity = replica.models["popularity"].columns
    for name in _POPULARITY:
        packed[name] = popularity[name][rows]
    packed["counts"] = replica.counts[rows]
    for name in FACTOR_COLUMNS:
        packed[name] = replica.base[name][rows]
    whole, size = packed.tobytes(), _ITEM.itemsize
    tails = _packed_segments(replica, rows)
    if aged.any():
        ages = np.empty(len(rows), _AGE)
        ages["touched"], ages["returned"] = replica.touched[rows], replica.returned[rows]
        tails |= {i: ages[i].tobytes() + tails.get(i, b"") for i in np.flatnonzero(aged).tolist()}
    ids = replica.ids_of(rows.tolist())
    return [
        (ITEM + video_id.encode(), whole[i * size : (i + 1) * size] + tails.get(i, b""))
        for i, video_id in enumerate(ids)
    ]


def _packed_segments(replica: Replica, rows: Int32Array) -> dict[int, bytes]:
    """What rows hold of segments, by place; most hold nothing where users have none."""
    columns = replica.models["segments"].columns
    held = np.flatnonzero(columns["counts"][rows, -1] > 0)
    packed = np.empty(len(held), _SEGMENTS)
    for name in _SEGMENTS.names or ():
        packed[name] = columns[name][rows[held]]
    whole, size = packed.tobytes(), _SEGMENTS.itemsize
    return {place: whole[i * size : (i + 1) * size] for i, place in enumerate(held.tolist())}


def decode_items(records: list[tuple[str, bytes]], replica: Replica) -> Int32Array:
    """Put rows of videos, given as (id, value), in place; returns the row numbers. Raises SchemaMismatch."""
    aged = [i for i, (_, data) in enumerate(records) if check_learned(data[0])]
    rows = replica.rows_of([video_id for video_id, _ in records])
    if not len(rows):
        return rows
    size = _ITEM.itemsize
    packed = np.frombuffer(b"".join(data[:size] for _, data in records), _ITEM)
    ages = np.frombuffer(b"".join(records[i][1][size : size + _AGE.itemsize] for i in aged), _AGE)
    replica.touched[rows], replica.returned[rows] = 0, False
    replica.touched[rows[aged]], replica.returned[rows[aged]] = ages["touched"], ages["returned"] == 1
    segments = replica.models["segments"].columns
    segments["counts"][rows[segments["counts"][rows, -1] != 0]] = 0
    tail_at = [size + (_AGE.itemsize if data[0] & AGED else 0) for _, data in records]
    held = [i for i, (_, data) in enumerate(records) if len(data) > tail_at[i]]
    tails = np.frombuffer(b"".join(records[i][1][tail_at[i] :] for i in held), _SEGMENTS)
    for name in _SEGMENTS.names or ():
        segments[name][rows[held]] = tails[name]
    popularity = replica.models["popularity"].columns
    for name in _POPULARITY:
        popularity[name][rows] = packed[name]
    replica.counts[rows] = packed["counts"]
    served = replica.models["sequential_mf"].columns
    for name in FACTOR_COLUMNS:
        replica.base[name][rows] = packed[name]
        served[name][rows] = packed[name]
    replica.advance(packed["last_ms"][packed["last_ms"] > 0])
    return rows


def read_item(data: bytes) -> dict[str, AnyArray]:
    """A video's row as named arrays, for tools and tests."""
    check_learned(data[0])
    row = np.frombuffer(data, _ITEM, 1)[0]
    return {name: row[name] for name in _ITEM.names or ()}


def has_returned(data: bytes) -> bool:
    """Whether the video of this row had expired before it. Raises SchemaMismatch."""
    return check_learned(data[0]) and bool(np.frombuffer(data, _AGE, 1, _ITEM.itemsize)[0]["returned"])


def encode_neighbours(replica: Replica, rows: Int32Array) -> list[tuple[bytes, bytes]]:
    """Neighbour lists of videos: both tables in one row, only the filled slots."""
    heads = np.zeros(len(rows), _LIST)
    heads["version"] = VERSION
    parts = []
    for name, model in (("covisits", "covisitation"), ("markov", "markov")):
        columns = replica.models[model].columns
        neighbours = columns["neighbour"][rows]
        filled = neighbours >= 0
        entries = np.empty(int(filled.sum()), _ENTRY)
        entries["item"] = replica.hashes[neighbours[filled]]
        entries["weight"] = columns["weight"][rows][filled]
        counts = filled.sum(axis=1)
        heads[name] = counts
        heads[f"{name}_at"] = columns["weight_at"][rows]
        parts.append((entries.tobytes(), [0, *(np.cumsum(counts) * _ENTRY.itemsize).tolist()]))
    (covisits, c), (markov, m) = parts
    head, size = heads.tobytes(), _LIST.itemsize
    return [
        (
            NEIGHBOURS + video_id.encode(),
            b"".join((head[i * size : (i + 1) * size], covisits[c[i] : c[i + 1]], markov[m[i] : m[i + 1]])),
        )
        for i, video_id in enumerate(replica.ids_of(rows.tolist()))
    ]


def read_neighbours(data: bytes) -> dict[str, tuple[float, AnyArray]]:
    """A neighbour row as {table: (reference ticks, entries of `item` hash and `weight`)}. Raises SchemaMismatch."""
    check_version(data[0])
    head = np.frombuffer(data, _LIST, 1)[0]
    entries = np.frombuffer(data, _ENTRY, offset=_LIST.itemsize)
    covisits = int(head["covisits"])
    return {
        "covisitation": (float(head["covisits_at"]), entries[:covisits]),
        "markov": (float(head["markov_at"]), entries[covisits : covisits + int(head["markov"])]),
    }


def decode_neighbours(records: list[tuple[str, bytes]], replica: Replica) -> Int32Array:
    """Put neighbour lists, given as (id, value), in place; returns the row numbers."""
    rows = replica.rows_of([video_id for video_id, _ in records])
    lists = [read_neighbours(data) for _, data in records]
    for name in ("covisitation", "markov"):
        if not lists:
            break
        found = replica.rows_of_hashes(np.concatenate([entry[name][1]["item"] for entry in lists]))
        columns = replica.models[name].columns
        done = 0
        for row, entry in zip(rows.tolist(), lists, strict=True):
            at, entries = entry[name]
            named = found[done : done + len(entries)]
            done += len(entries)
            # The deletion of a neighbour may be newer than this row, or its expiry.
            alive = ~(replica.deleted[named] | replica.expired[named])
            n = int(alive.sum())
            columns["neighbour"][row] = -1
            columns["weight"][row] = 0
            columns["neighbour"][row, :n] = named[alive]
            columns["weight"][row, :n] = entries["weight"][alive]
            columns["weight_at"][row] = at
    return rows


_PART = np.dtype([("version", "u1"), ("partition", "<u4"), ("size", "<u4")])


def encode_part(key: bytes, partition: int, part: Float64Array) -> bytes:
    """A shard's part of the model at `key` as a row; it is the same key in every shard, so the row names its shard."""
    return np.array([(PART_VERSIONS[key], partition, len(part))], _PART).tobytes() + part.astype("<f8").tobytes()


def decode_part(key: bytes, data: bytes) -> tuple[int, Float64Array]:
    """Shard and part. Raises SchemaMismatch for the row of a release with other features."""
    check_version(data[0], PART_VERSIONS[key])
    head = np.frombuffer(data, _PART, 1)[0]
    return int(head["partition"]), np.frombuffer(data, "<f8", int(head["size"]), _PART.itemsize).astype(np.float64)


def encode_attributes(user: User) -> bytes:
    """What is known of a user beside events as a row: the layout's version, then the record as it travels."""
    return bytes([VERSION]) + encode(user)


def decode_attributes(data: bytes) -> User:
    """Read a row of attributes. Raises SchemaMismatch for another version."""
    check_version(data[0])
    return decode_user_value(data[1:])


def encode_video_row(video: Video) -> bytes:
    """A catalogue record as a row: the layout's version, then the record as it travels."""
    return bytes([VERSION]) + encode(video)


def decode_video_row(data: bytes) -> Video:
    """Read a catalogue row. Raises SchemaMismatch for another version."""
    check_version(data[0])
    return decode_video_value(data[1:])
