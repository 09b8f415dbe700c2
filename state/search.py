"""Search of the catalogue: videos by the words of their titles and ids.

Flows in: changed rows of the replica, and queries. Flows out: rows, best first. Always holds: case and accents make no difference,
every word of the query is the beginning of some word of the video, and only what may be recommended is found. Nothing is read, and no
memory taken, before the first search; from then on what has changed is read when the next one comes.

Each video's words lie one behind the other in one array of bytes, each with its length before it; a search looks at those whose sign
fits, which few do. Memory: 21 bytes a video and its words (ROW_BYTES at most), about 70 bytes in all. Cost: `refresh` takes about
10 µs a changed video; `find`, of 100,000, 0.1 to 0.3 ms, and up to 5 ms where most of them fit.
"""

import re
import unicodedata
from collections.abc import Iterable
from itertools import accumulate
from zlib import crc32

import numpy as np
from numba import njit, types

from online_models.popularity import Popularity
from state.growth import grown_size
from state.replica import Replica
from state.types import Int8Array, Int32Array, Int64Array, UInt8Array, UInt64Array

#: Words of a query that count: each is compared with every word of the catalogue.
MAX_WORDS = 8
#: A word's length has one byte.
WORD_BYTES = 255
#: Of a video's words: titles have up to 500 characters, and some of these unfold to many.
ROW_BYTES = 1024
#: Letters of a word that its video's sign tells: a beginning of three is rare enough for most videos to be passed over.
SIGN_BYTES = 3
#: Changed videos read at once, and bytes of their words after which no more are: about two milliseconds.
READ_AT_ONCE = 200
READ_BYTES = 10_000

#: How well a video fits, the better the higher; 0 is not at all. `ID` is for the very id.
BEGINNINGS, WORDS, BEGINS, TITLE, ID = 1, 2, 3, 4, 5

#: Letters that have no decomposition, and what people type for them.
_PLAIN = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "\u0131": "i", "ħ": "h", "ŧ": "t"}
)
#: Scripts without spaces between words (Thai to Burmese, Khmer, kana, Han): there, each character counts as a word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")


def fold(text: str) -> str:
    """The text without case and accents."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in apart if not unicodedata.combining(c)).translate(_PLAIN).casefold()


def words_of(text: str) -> list[bytes]:
    """The folded words of a text's beginning, in order, as UTF-8 of at most WORD_BYTES each."""
    return [word.encode()[:WORD_BYTES] for word in _WORD.findall(fold(text)[:ROW_BYTES])]


_bytes, _starts, _lengths, _signs = types.uint8[::1], types.int64[::1], types.int32[::1], types.uint64[::1]


def sign(words: Iterable[bytes]) -> int:
    """Bits of 64 that stand for how words begin: what has these words, or longer ones, has these bits, and more."""
    bits = 0
    for word in words:
        for n in range(1, min(len(word), SIGN_BYTES) + 1):
            bits |= 1 << (crc32(word[:n]) & 63)
    return bits


@njit(
    types.void(_bytes, _starts, _lengths, _signs, types.uint64, _bytes, _starts, _lengths, types.int8[::1]),
    cache=True,
    nogil=True,
)
def _fit(
    pool: UInt8Array,
    start: Int64Array,
    length: Int32Array,
    signs: UInt64Array,
    sign: np.uint64,
    query: UInt8Array,
    word_start: Int64Array,
    word_length: Int32Array,
    fits: Int8Array,
) -> None:
    """How well each row fits the words of a query."""
    wanted = word_start.shape[0]
    everything = (1 << wanted) - 1
    for row in range(fits.shape[0]):
        if signs[row] & sign != sign:
            fits[row] = 0
            continue
        at, end = start[row], start[row] + length[row]
        begun, whole, number, leading, entire, of_title, in_title = 0, 0, 0, 0, 0, 0, True
        while at < end:
            size = pool[at]
            at += 1
            if size == 0:
                in_title = False
                continue
            for q in range(wanted):
                n = word_length[q]
                if n > size or pool[at] != query[word_start[q]]:
                    continue
                same = 1
                while same < n and pool[at + same] == query[word_start[q] + same]:
                    same += 1
                if same == n:
                    begun |= 1 << q
                    if n == size:
                        whole |= 1 << q
                    if in_title and q == number and leading == q:
                        leading += 1
                        entire += n == size
            number += 1
            if in_title:
                of_title = number
            at += size
        if begun != everything:
            fits[row] = 0
        elif leading == wanted:
            fits[row] = TITLE if entire == of_title == wanted else BEGINS
        else:
            fits[row] = WORDS if whole == everything else BEGINNINGS


@njit(types.int64(_bytes, _bytes, _starts, _lengths), cache=True, nogil=True)
def _pack(pool: UInt8Array, into: UInt8Array, start: Int64Array, length: Int32Array) -> int:
    """Copy what rows have to another pool without gaps, and say where it is there; returns its size."""
    top = 0
    for row in range(start.shape[0]):
        for i in range(length[row]):
            into[top + i] = pool[start[row] + i]
        start[row] = top
        top += length[row]
    return top


class Search:
    """Words of the replica's videos.

    Parameters
    ----------
    replica : whose rows are found
    popularity : what orders videos that fit equally well
    """

    def __init__(self, replica: Replica, popularity: Popularity) -> None:
        self._replica = replica
        self._popularity = popularity
        self._pool: UInt8Array = np.zeros(0, np.uint8)
        self._top = 0
        #: (rows,) where a row's words are in the pool, and how many bytes they take.
        self._start: Int64Array = np.zeros(0, np.int64)
        self._length: Int32Array = np.zeros(0, np.int32)
        #: (rows,) `sign` of these words: most rows need no look at the words themselves.
        self._signs: UInt64Array = np.zeros(0, np.uint64)

    @property
    def size_bytes(self) -> int:
        """Memory taken."""
        return self._pool.nbytes + self._start.nbytes + self._length.nbytes + self._signs.nbytes

    def refresh(self) -> bool:
        """Read some of the rows that have changed, about two milliseconds' worth; whether none is left."""
        replica, n = self._replica, len(self._replica)
        if n > len(self._start):
            more = min(grown_size(n), replica.capacity) - len(self._start)
            self._start, self._length = np.pad(self._start, (0, more)), np.pad(self._length, (0, more))
            self._signs = np.pad(self._signs, (0, more))
        changed = np.flatnonzero(replica.unread[:n])
        read: list[list[bytes]] = []
        size = 0
        for row in changed[:READ_AT_ONCE].tolist():
            read.append(self._words(row))
            size += sum(map(len, read[-1]))
            if size > READ_BYTES:
                break
        if read:
            rows = changed[: len(read)]
            replica.unread[rows] = False
            self._put(rows, [b"".join(bytes((len(word),)) + word for word in words) for words in read])
            self._signs[rows] = [sign(words) for words in read]
        return len(read) == len(changed)

    def _words(self, row: int) -> list[bytes]:
        """What can be found of a row: words of the title, an empty one, words of the id; in all ROW_BYTES with their lengths."""
        video_id = self._replica.ids[row]
        if video_id is None:
            return []
        video = self._replica.video(row)
        words = [*([] if video is None else words_of(video.title)), b"", *words_of(video_id)]
        sizes = accumulate(len(word) + 1 for word in words)
        return [word for word, size in zip(words, sizes, strict=True) if size <= ROW_BYTES]

    def _put(self, rows: Int64Array, words: list[bytes]) -> None:
        """Put rows' words at the end; what they had is a gap until the pool is packed."""
        joined = np.frombuffer(b"".join(words), np.uint8)
        if self._top + len(joined) > len(self._pool):
            self._length[rows] = 0
            into = np.zeros(grown_size(int(self._length.sum()) + len(joined)), np.uint8)
            self._top = int(_pack(self._pool, into, self._start, self._length))
            self._pool = into
        lengths = np.array([len(each) for each in words], np.int32)
        self._start[rows] = self._top + np.cumsum(lengths) - lengths
        self._length[rows] = lengths
        self._pool[self._top : self._top + len(joined)] = joined
        self._top += len(joined)

    def find(self, query: str, n: int) -> Int32Array:
        """Up to `n` rows that fit, as of the last `refresh`: the very id, then by how well they fit, then the most played; int32.

        Words of the query beyond MAX_WORDS do not count.
        """
        fits = np.zeros(min(len(self._start), len(self._replica)), np.int8)
        words = list(dict.fromkeys(words_of(query)))[:MAX_WORDS]
        if words:
            letters = np.frombuffer(bytearray(b"".join(words)), np.uint8)
            lengths = np.array([len(word) for word in words], np.int32)
            starts = np.cumsum(lengths, dtype=np.int64) - lengths
            _fit(
                self._pool,
                self._start,
                self._length,
                self._signs,
                np.uint64(sign(words)),
                letters,
                starts,
                lengths,
                fits,
            )
        exact = self._replica.find(query.strip())
        if exact is not None and exact < len(fits):
            fits[exact] = ID
        rows = np.flatnonzero((fits > 0) & self._replica.active[: len(fits)])
        # Counts of plays stay far below 2**40.
        order = fits[rows] * -(2.0**40) - self._popularity.columns["plays"][rows]
        if len(rows) > n:
            few = np.argpartition(order, n - 1)[:n]
            rows, order = rows[few], order[few]
        # Among equals, what was known first.
        found: Int32Array = rows[np.lexsort((rows, order))].astype(np.int32)
        return found
