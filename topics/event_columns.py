"""Events as columns: a compiled reader of the JSON that nearly every producer sends.

Flows in: a `RecordBatch` of `interactions`. Flows out: `EventColumns`, and a mark at each record that this reader leaves to
`topics.interactions.decode`. Always holds: what is not marked is what `decode` accepts, with the same values; whatever is unusual
(escapes, text beyond ASCII, exponents, a name given twice, anything wrong) is marked, so there is one judge of what is refused.

Cost: about 0.3 µs an event; `decode` and the hashes that go with it take ten times as long. Tables that other files define are
arguments of the loop, because numba's cache notices changes of this file only.
"""

from typing import Any, Final, NamedTuple

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from topics.ids import MAX_ID_BYTES
from topics.interactions import EVENTS, MAX_VALUE_BYTES
from topics.record_batch import RecordBatch

#: In the order of the numbers that the loop knows them by.
_NAMES: Final = (
    "event_id", "user_id", "video_id", "event", "at_ms", "watch_seconds", "duration_seconds",
    "session_id", "recommendation_id", "context", "v",
)  # fmt: skip
#: Digits that a float64 holds exactly, as it does powers of ten up to 10^22: their quotient is rounded once, as strtod's is
#: (Clinger 1990, "How to read floating point numbers accurately").
_DIGITS = 15
#: The first bytes of XXH3's default secret. Source: xxHash specification, "XXH3 algorithm".
_SECRET: Final = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e"
        "e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a"
        "51e04bcdb45931c89f7ec9d9787364"
    ),
    np.uint8,
)


class EventColumns(NamedTuple):
    """Events of n records; undefined where `odd`.

    Attributes
    ----------
    odd : uint8, shape (n,); 1: ask `decode`
    kinds : uint8, shape (n,); positions in `EVENTS`
    at_ms : int64, shape (n,)
    watch_seconds, duration_seconds : float64, shape (n,); NaN where unknown
    event_ids, video_ids : uint64, shape (n,); `stable_hash` of the ids
    video_at, video_size : int32, shape (n,); where the video's id lies in the batch's buffer
    names : the ids of videos that whoever deals with odd records has found, by place
    """

    odd: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    at_ms: NDArray[np.int64]
    watch_seconds: NDArray[np.float64]
    duration_seconds: NDArray[np.float64]
    event_ids: NDArray[np.uint64]
    video_ids: NDArray[np.uint64]
    video_at: NDArray[np.int32]
    video_size: NDArray[np.int32]
    names: dict[int, str]


def read_events(batch: RecordBatch, *, partition: int, partitions: int, future_tolerance_ms: int) -> EventColumns:
    """Read what can be read of a batch that lay in `partition` of `partitions`; the rest is marked `odd`."""
    n = len(batch)
    columns = EventColumns(
        np.ones(n, np.uint8), np.zeros(n, np.uint8), np.zeros(n, np.int64), np.full(n, np.nan), np.full(n, np.nan),
        np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, np.int32), np.zeros(n, np.int32), {},
    )  # fmt: skip
    _read(
        batch.data, batch.key_at, batch.key_size, batch.value_at, batch.value_size, batch.timestamps,
        partition, partitions, future_tolerance_ms, MAX_ID_BYTES, MAX_VALUE_BYTES, _FIELDS, _KINDS, _SECRET,
        *columns[:-1],
    )  # fmt: skip
    return columns


def _table(words: tuple[str, ...]) -> NDArray[np.uint8]:
    """Words as rows: length, then bytes."""
    rows = np.zeros((len(words), 1 + max(map(len, words))), np.uint8)
    for row, word in zip(rows, words, strict=True):
        row[0] = len(word)
        row[1 : 1 + len(word)] = np.frombuffer(word.encode(), np.uint8)
    return rows


_FIELDS: Final = _table(_NAMES)
_KINDS: Final = _table(EVENTS)

_part = numba.njit(error_model="numpy")
#: Places are cast where they are used: numba asks of each signed one whether it counts from the end.
_u = np.uint64


@_part
def _read32(data: Any, at: int) -> Any:
    return (
        np.uint64(data[_u(at)])
        | np.uint64(data[_u(at + 1)]) << np.uint64(8)
        | np.uint64(data[_u(at + 2)]) << np.uint64(16)
        | np.uint64(data[_u(at + 3)]) << np.uint64(24)
    )


@_part
def _read64(data: Any, at: int) -> Any:
    return _read32(data, at) | _read32(data, at + 4) << np.uint64(32)


@_part
def _swap64(x: Any) -> Any:
    m8, m16 = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
    x = ((x >> np.uint64(8)) & m8) | ((x & m8) << np.uint64(8))
    x = ((x >> np.uint64(16)) & m16) | ((x & m16) << np.uint64(16))
    return (x >> np.uint64(32)) | (x << np.uint64(32))


@_part
def _rotated(x: Any, by: int) -> Any:
    return (x << np.uint64(by)) | (x >> np.uint64(64 - by))


@_part
def _folded(a: Any, b: Any) -> Any:
    """Both halves of the 128-bit product, xor-ed."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    al, ah, bl, bh = a & low, a >> half, b & low, b >> half
    ll, lh, hl, hh = al * bl, al * bh, ah * bl, ah * bh
    middle = (ll >> half) + (lh & low) + (hl & low)
    return ((ll & low) | (middle << half)) ^ (hh + (lh >> half) + (hl >> half) + (middle >> half))


@_part
def _mixed(data: Any, at: int, secret: Any, place: int) -> Any:
    return _folded(_read64(data, at) ^ _read64(secret, place), _read64(data, at + 8) ^ _read64(secret, place + 8))


@_part
def _avalanche(h: Any) -> Any:
    h = (h ^ (h >> np.uint64(37))) * np.uint64(0x165667919E3779F9)
    return h ^ (h >> np.uint64(32))


@_part
def _xxh3(data: Any, at: int, size: int, secret: Any) -> Any:
    """XXH3, 64 bits, seed 0, of 1 to 128 bytes: `topics.partitions.stable_hash`. Source: xxHash specification."""
    n = np.uint64(size)
    if size <= 3:
        h = np.uint64(data[_u(at)]) << np.uint64(16) | np.uint64(data[_u(at + size // 2)]) << np.uint64(24)
        h |= np.uint64(data[_u(at + size - 1)]) | n << np.uint64(8)
        h ^= _read32(secret, 0) ^ _read32(secret, 4)
        h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC2B2AE3D27D4EB4F)
        h = (h ^ (h >> np.uint64(29))) * np.uint64(0x165667B19E3779F9)
        return h ^ (h >> np.uint64(32))
    if size <= 8:
        h = _read32(data, at + size - 4) + (_read32(data, at) << np.uint64(32))
        h ^= _read64(secret, 8) ^ _read64(secret, 16)
        h ^= _rotated(h, 49) ^ _rotated(h, 24)
        h *= np.uint64(0x9FB21C651E98DF25)
        h ^= (h >> np.uint64(35)) + n
        h *= np.uint64(0x9FB21C651E98DF25)
        return h ^ (h >> np.uint64(28))
    if size <= 16:
        first = _read64(data, at) ^ _read64(secret, 24) ^ _read64(secret, 32)
        last = _read64(data, at + size - 8) ^ _read64(secret, 40) ^ _read64(secret, 48)
        return _avalanche(n + _swap64(first) + last + _folded(first, last))
    h = n * np.uint64(0x9E3779B185EBCA87)
    pair = (size - 1) // 32
    while pair >= 0:
        h += _mixed(data, at + 16 * pair, secret, 32 * pair)
        h += _mixed(data, at + size - 16 * (pair + 1), secret, 32 * pair + 16)
        pair -= 1
    return _avalanche(h)


@_part
def _murmur2(data: Any, at: int, size: int) -> Any:
    """`topics.partitions.murmur2`, of a stretch of a buffer."""
    mask, multiplier = np.uint64(0xFFFFFFFF), np.uint64(0x5BD1E995)
    digest = np.uint64(0x9747B28C) ^ np.uint64(size)
    whole = size - size % 4
    for i in range(0, whole, 4):
        block = (_read32(data, at + i) * multiplier) & mask
        block ^= block >> np.uint64(24)
        block = (block * multiplier) & mask
        digest = ((digest * multiplier) & mask) ^ block
    if size > whole:
        for i in range(size - 1, whole - 1, -1):
            digest ^= np.uint64(data[_u(at + i)]) << np.uint64(8 * (i - whole))
        digest = (digest * multiplier) & mask
    digest ^= digest >> np.uint64(13)
    digest = (digest * multiplier) & mask
    return digest ^ (digest >> np.uint64(15))


@_part
def _past_space(data: Any, at: int, end: int) -> int:
    while at < end and (data[_u(at)] == 0x20 or data[_u(at)] == 0x0A or data[_u(at)] == 0x0D or data[_u(at)] == 0x09):
        at += 1
    return at


@_part
def _past_text(data: Any, at: int, end: int) -> int:
    """Behind the closing quote of plain text that begins at `at`, or -1.

    Eight bytes at a time until one of them is a quote, a backslash, a control character or not ASCII. The tests are those for a
    zero byte (Mycroft 1987): a borrow may mark a byte above a marked one too, which only means that it is looked at.
    """
    ones, tops = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
    while at + 8 <= end:
        word = _read64(data, at)
        quote, backslash = word ^ ones * np.uint64(0x22), word ^ ones * np.uint64(0x5C)
        odd = (
            ((quote - ones) & ~quote)
            | ((backslash - ones) & ~backslash)
            | ((word - ones * np.uint64(0x20)) & ~word)
            | word
        )
        if odd & tops:
            break
        at += 8
    while at < end:
        byte = data[_u(at)]
        if byte == 0x22:
            return at + 1
        if byte < 0x20 or byte >= 0x80 or byte == 0x5C:
            return -1
        at += 1
    return -1


@_part
def _past_word(data: Any, at: int, end: int, first: int, second: int, third: int, last: int) -> int:
    """Behind a word of four bytes, or -1."""
    if (
        end - at < 4
        or data[_u(at)] != first
        or data[_u(at + 1)] != second
        or data[_u(at + 2)] != third
        or data[_u(at + 3)] != last
    ):
        return -1
    return at + 4


@_part
def _past_null(data: Any, at: int, end: int) -> int:
    return _past_word(data, at, end, 0x6E, 0x75, 0x6C, 0x6C)


@_part
def _past_number(data: Any, at: int, end: int, fraction: bool) -> Any:
    """Behind a plain number that is not negative, or -1, and its value: digits, and a point and digits if `fraction`."""
    value = np.int64(0)
    scale = 1.0
    first = at
    while at < end and 0x30 <= data[_u(at)] <= 0x39:
        value = value * 10 + np.int64(data[_u(at)] - 0x30)
        at += 1
        if at - first > _DIGITS:
            return -1, 0.0
    digits = at - first
    if digits == 0 or (digits > 1 and data[_u(first)] == 0x30):
        return -1, 0.0
    if fraction and at < end and data[_u(at)] == 0x2E:
        at += 1
        first = at
        while at < end and 0x30 <= data[_u(at)] <= 0x39:
            value = value * 10 + np.int64(data[_u(at)] - 0x30)
            scale *= 10.0
            at += 1
            if digits + at - first > _DIGITS:
                return -1, 0.0
        if at == first:
            return -1, 0.0
    return at, np.float64(value) / scale


@_part
def _past_context(data: Any, at: int, end: int) -> int:
    """Behind an object of plain texts, numbers, booleans and nulls, or -1."""
    if at >= end or data[_u(at)] != 0x7B:
        return -1
    at = _past_space(data, at + 1, end)
    if at < end and data[_u(at)] == 0x7D:
        return at + 1
    while True:
        if at >= end or data[_u(at)] != 0x22:
            return -1
        at = _past_text(data, at + 1, end)
        if at < 0:
            return -1
        at = _past_space(data, at, end)
        if at >= end or data[_u(at)] != 0x3A:
            return -1
        at = _past_space(data, at + 1, end)
        if at >= end:
            return -1
        if data[_u(at)] == 0x22:
            at = _past_text(data, at + 1, end)
        elif data[_u(at)] == 0x6E:
            at = _past_null(data, at, end)
        elif data[_u(at)] == 0x74:
            at = _past_word(data, at, end, 0x74, 0x72, 0x75, 0x65)
        elif data[_u(at)] == 0x66 and end - at > 4 and data[_u(at + 4)] == 0x65:
            at = _past_word(data, at, end, 0x66, 0x61, 0x6C, 0x73)
            at = at + 1 if at > 0 else -1
        else:
            at, _ = _past_number(data, at, end, True)
        if at < 0:
            return -1
        at = _past_space(data, at, end)
        if at >= end:
            return -1
        if data[_u(at)] == 0x7D:
            return at + 1
        if data[_u(at)] != 0x2C:
            return -1
        at = _past_space(data, at + 1, end)


@_part
def _stands(data: Any, at: int, size: int, words: Any, place: int) -> Any:
    """Whether that word stands there."""
    same = words[_u(place), _u(0)] == size
    i = 0
    while same and i < size:
        same = data[_u(at + i)] == words[_u(place), _u(1 + i)]
        i += 1
    return same


@_part
def _place_of(data: Any, at: int, size: int, words: Any) -> int:
    """Which of `words` stands there, -1 for none."""
    for place in range(words.shape[0]):
        if _stands(data, at, size, words, place):
            return place
    return -1


_b = types.Array(types.uint8, 1, "C", readonly=True)
_b2 = types.Array(types.uint8, 2, "C", readonly=True)
_r32 = types.Array(types.int32, 1, "C", readonly=True)
_r64 = types.Array(types.int64, 1, "C", readonly=True)


@numba.njit(
    types.void(
        _b, _r32, _r32, _r32, _r32, _r64,
        types.int64, types.int64, types.int64, types.int64, types.int64, _b2, _b2, _b,
        types.uint8[::1], types.uint8[::1], types.int64[::1], types.float64[::1], types.float64[::1],
        types.uint64[::1], types.uint64[::1], types.int32[::1], types.int32[::1],
    ),
    cache=True, nogil=True, error_model="numpy",
)  # fmt: skip
def _read(
    data: Any, key_at: Any, key_size: Any, value_at: Any, value_size: Any, timestamps: Any,
    partition: int, partitions: int, tolerance_ms: int, max_id: int, max_value: int, names: Any, words: Any, secret: Any,
    odd: Any, kinds: Any, at_ms: Any, watched: Any, duration: Any,
    event_ids: Any, video_ids: Any, video_at: Any, video_size: Any,
) -> None:  # fmt: skip
    # A producer writes its fields in one order: the one that followed the last time is the first guess.
    follows = np.zeros(names.shape[0] + 1, np.int64)
    for e in range(key_at.shape[0]):
        size = value_size[e]
        if size < 2 or size > max_value or not 0 < key_size[e] <= max_id:
            continue
        end = value_at[e] + size
        at = _past_space(data, value_at[e], end)
        if at >= end or data[_u(at)] != 0x7B:
            continue
        at += 1
        met = 0
        field = names.shape[0]
        event_at = event_size = 0
        while True:
            # A name.
            at = _past_space(data, at, end)
            if at >= end or data[_u(at)] != 0x22:
                met = -1
                break
            begin = at + 1
            at = _past_text(data, begin, end)
            if at < 0:
                met = -1
                break
            before, field = field, follows[field]
            if not _stands(data, begin, at - 1 - begin, names, field):
                field = _place_of(data, begin, at - 1 - begin, names)
                follows[before] = max(field, 0)
            if field < 0 or met >> field & 1:
                met = -1
                break
            met |= 1 << field
            at = _past_space(data, at, end)
            if at >= end or data[_u(at)] != 0x3A:
                met = -1
                break
            at = _past_space(data, at + 1, end)
            if at >= end:
                met = -1
                break
            # Its value.
            if field <= 3 or ((field == 7 or field == 8) and data[_u(at)] == 0x22):
                if data[_u(at)] != 0x22:
                    met = -1
                    break
                begin = at + 1
                at = _past_text(data, begin, end)
                length = at - 1 - begin
                if at < 0 or length == 0 or length > max_id:
                    met = -1
                    break
                if field == 0:
                    event_at, event_size = begin, length
                elif field == 1:
                    if length != key_size[e]:
                        met = -1
                        break
                    same = True
                    for i in range(length):
                        same &= data[_u(begin + i)] == data[key_at[e] + i]
                    if not same:
                        met = -1
                        break
                elif field == 2:
                    video_at[e], video_size[e] = begin, length
                elif field == 3:
                    kind = _place_of(data, begin, length, words)
                    if kind < 0:
                        met = -1
                        break
                    kinds[e] = kind
            elif field == 4:
                at, number = _past_number(data, at, end, False)
                at_ms[e] = np.int64(number)
            elif field == 10:
                at, number = _past_number(data, at, end, False)
                if number != 1.0:
                    met = -1
                    break
            elif data[_u(at)] == 0x6E:
                at = _past_null(data, at, end)
            elif field == 5:
                at, watched[e] = _past_number(data, at, end, True)
            elif field == 6:
                at, duration[e] = _past_number(data, at, end, True)
            elif field == 9:
                at = _past_context(data, at, end)
            else:
                at = -1
            if at < 0:
                met = -1
                break
            # The next one, or the end.
            at = _past_space(data, at, end)
            if at >= end:
                met = -1
                break
            if data[_u(at)] == 0x7D:
                at += 1
                break
            if data[_u(at)] != 0x2C:
                met = -1
                break
            at += 1
        if met < 0 or met & 31 != 31 or _past_space(data, at, end) != end:
            continue
        if at_ms[e] > timestamps[e] + tolerance_ms:
            continue
        home = np.int64(_murmur2(data, key_at[e], key_size[e]) & np.uint64(0x7FFFFFFF)) % partitions
        if home != partition:
            continue
        event_ids[e] = _xxh3(data, event_at, event_size, secret)
        video_ids[e] = _xxh3(data, video_at[e], video_size[e], secret)
        odd[e] = 0
