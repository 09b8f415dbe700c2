"""Content vectors: what a video says of itself, so that one without plays finds its audience.

In: a video's title, description, tags, categories and author. Out: a unit vector of 256 hashed TF-IDF dimensions.
Each group of fields (words, tags, categories, author) is normalised by itself before they are added: the rare words
of a title would otherwise drown its category, whose terms are common. A user's vector is the decayed mean of the
recent items' vectors, made at scoring; the score is the cosine. Where a video brings a vector of what its text means, that takes the
place of its words. Nothing is learned from interactions; document
frequencies follow the catalogue, so a video's vector depends on what was described before it.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import ClassVar, Protocol

import numpy as np
import xxhash

from online_models.base import (
    HISTORY,
    BoolArray,
    ColumnSpec,
    Context,
    Float32Array,
    Float64Array,
    Int8Array,
    Int32Array,
    Int64Array,
    ItemModel,
    ModelError,
    UInt64Array,
    accepted,
)
from online_models.embeddings import projected
from online_models.kernel import boolean, f32, f64, i8, i32, i64, kernel, read, u64, void, write

DIMENSIONS = 256
HISTORY_DECAY = 0.9
"""Weight of the item at lag r of the history is `0.9 ** r`."""

STEPS = 127
"""Vectors are kept in whole steps of 1/127: a quarter of the memory, for an error of a cosine of about 0.01."""

BUCKETS = 1 << 16
"""Counters of document frequencies, 512 KB; two terms in one bucket count as one, which only lowers their weight."""

GROUP_WEIGHTS: Mapping[str, float] = {"word": 1.0, "tag": 1.0, "category": 1.0, "author": 0.7}
"""Share of each group of fields in a vector. An author tells less of what a video shows than its category."""

DAY_MS = 86_400_000
LAST_DAY = 65_535
"""Days since 1970, and one, are kept in 16 bits: whatever is published after 2149 counts as of its last day."""

CATEGORIES = 4
"""Categories of a video that are told apart; further ones only shape its vector."""

LEAST_RARITY = 0.1
"""Weight of a term that is used more often than videos were counted, as under another video's description before."""

_WORD = re.compile(r"\w+")

Terms = dict[str, dict[int, int]]
"""Group to term hash (64 bits) to occurrences."""


def terms(
    *,
    title: str = "",
    description: str = "",
    tags: Iterable[str] = (),
    categories: Iterable[str] = (),
    author: str | None = None,
) -> Terms:
    """Hash and count a video's terms, case folded; pure."""
    named = {
        "word": [*_WORD.findall(title.casefold()), *_WORD.findall(description.casefold())],
        "tag": [tag.casefold() for tag in tags],
        "category": [category.casefold() for category in categories],
        "author": [author.casefold()] if author else [],
    }
    counted: Terms = {}
    for group, words in named.items():
        counts: dict[int, int] = {}
        for word in words:
            term = xxhash.xxh3_64_intdigest(f"{group}:{word}".encode())
            counts[term] = counts.get(term, 0) + 1
        if counts:
            counted[group] = counts
    return counted


def code_of(name: str | None) -> int:
    """A number from 1 to 65,535 for a name; 0 for none. Two names with one number count as one."""
    return 0 if name is None else xxhash.xxh3_64_intdigest(name.casefold().encode()) % 65_535 + 1


class Described(Protocol):
    """The text fields of a video, whatever record they come in."""

    @property
    def title(self) -> str: ...  # noqa: D102 (named as it means)
    @property
    def description(self) -> str: ...  # noqa: D102
    @property
    def tags(self) -> Iterable[str]: ...  # noqa: D102
    @property
    def categories(self) -> Iterable[str]: ...  # noqa: D102
    @property
    def author(self) -> str | None: ...  # noqa: D102
    @property
    def language(self) -> str | None: ...  # noqa: D102
    @property
    def duration_seconds(self) -> float | None: ...  # noqa: D102
    @property
    def published_ms(self) -> int | None: ...  # noqa: D102
    @property
    def embedding(self) -> bytes | None: ...  # noqa: D102


@kernel(
    void,
    write(f32, 2),
    write(i64),
    write(i64),
    read(boolean),
    read(i64),
    read(i64),
    read(f64),
    read(u64),
    read(i64),
    f64,
)
def _vectors(
    out: Float32Array,
    documents: Int64Array,
    frequency: Int64Array,
    new: BoolArray,
    run_video: Int64Array,
    run_end: Int64Array,
    run_share: Float64Array,
    term: UInt64Array,
    count: Int64Array,
    least_rarity: float,
) -> None:
    """Videos in order; a run is one video's terms of one group, `run_end` where they end in `term` and `count`."""
    dimensions, buckets = np.uint64(out.shape[1]), np.uint64(frequency.shape[0])
    part = np.empty(out.shape[1])
    whole = np.empty(out.shape[1])
    run = 0
    start = 0
    for video in range(out.shape[0]):
        last = run
        while last < run_video.shape[0] and run_video[last] == video:
            last += 1
        end = run_end[last - 1] if last > run else start
        if new[video]:
            documents[0] += 1
            for t in range(start, end):
                bucket = (term[t] >> np.uint64(32)) % buckets
                counted = False
                for other in range(start, t):
                    counted |= (term[other] >> np.uint64(32)) % buckets == bucket
                if not counted:
                    frequency[bucket] += 1
        whole[:] = 0.0
        for r in range(run, last):
            part[:] = 0.0
            for t in range(start, run_end[r]):
                # Other bits than the dimension's, or terms that share a dimension would tend to share a count.
                used = frequency[(term[t] >> np.uint64(32)) % buckets]
                rarity = max(np.log((1.0 + documents[0]) / (1.0 + used)) + 1.0, least_rarity)
                weight = (1.0 + np.log(np.float64(count[t]))) * rarity
                part[term[t] % dimensions] += weight if term[t] >> np.uint64(63) else -weight
            start = run_end[r]
            share = run_share[r] / max(np.sqrt((part * part).sum()), 1e-12)
            whole += share * part
        run = last
        length = max(np.sqrt((whole * whole).sum()), 1e-12)
        for d in range(out.shape[1]):
            out[video, d] = whole[d] / length


@kernel(i64, write(f32), read(i8, 2), read(i32), f64)
def _mean(out: Float32Array, matrix: Int8Array, rows: Int32Array, decay: float) -> int:
    out[:] = np.float32(0.0)
    share = np.float32(1.0)
    for lag in range(rows.shape[0]):
        if not 0 <= rows[lag] < matrix.shape[0]:
            return 1
        vector = matrix[rows[lag]]
        for k in range(out.shape[0]):
            out[k] += share * np.float32(vector[k])
        share *= np.float32(decay)
    squares = np.float32(0.0)
    for k in range(out.shape[0]):
        squares += out[k] * out[k]
    scale = np.float32(1.0) / max(np.sqrt(squares), np.float32(1e-12))
    for k in range(out.shape[0]):
        out[k] *= scale
    return 0


@kernel(i64, write(f32), read(i8, 2), read(f32))
def _all_products(out: Float32Array, matrix: Int8Array, vector: Float32Array) -> int:
    if out.shape[0] > matrix.shape[0]:
        return 1
    if vector.shape[0] != matrix.shape[1]:
        return 4
    for i in range(out.shape[0]):
        total = np.float32(0.0)
        for k in range(vector.shape[0]):
            total += np.float32(matrix[i, k]) * vector[k]
        out[i] = total
    return 0


@kernel(i64, write(f32), read(i8, 2), read(f32), read(i32))
def _products(out: Float32Array, matrix: Int8Array, vector: Float32Array, rows: Int32Array) -> int:
    if vector.shape[0] != matrix.shape[1] or out.shape[0] != rows.shape[0]:
        return 4
    for i in range(rows.shape[0]):
        if not 0 <= rows[i] < matrix.shape[0]:
            return 1
    for i in range(rows.shape[0]):
        row = matrix[rows[i]]
        total = np.float32(0.0)
        for k in range(vector.shape[0]):
            total += np.float32(row[k]) * vector[k]
        out[i] = total
    return 0


class Vocabulary:
    """How many videos use a term; what makes rare terms weigh more.

    Attributes
    ----------
    documents : int64, shape (1,)
    frequency : int64, shape (65536,); videos that use a term of this bucket
    """

    def __init__(self) -> None:
        self.documents: Int64Array = np.zeros(1, np.int64)
        self.frequency: Int64Array = np.zeros(BUCKETS, np.int64)

    def vectors(self, videos: Sequence[Terms], new: BoolArray) -> Float32Array:
        """Count the new ones' terms and make unit vectors, video by video in order.

        Parameters
        ----------
        videos : m of them
        new : bool, shape (m,); whether to count the video

        Returns
        -------
        float32, shape (m, 256); zeros for a video without terms
        """
        out = np.empty((len(videos), DIMENSIONS), np.float32)
        of_video: list[int] = []
        ends: list[int] = []
        shares: list[float] = []
        hashes: list[int] = []
        counted: list[int] = []
        for number, video in enumerate(videos):
            for group, counts in video.items():
                hashes += counts.keys()
                counted += counts.values()
                of_video.append(number)
                ends.append(len(hashes))
                shares.append(GROUP_WEIGHTS[group])
        runs = np.array(of_video, np.int64), np.array(ends, np.int64), np.array(shares, np.float64)
        used = np.array(hashes, np.uint64), np.array(counted, np.int64)
        _vectors(out, self.documents, self.frequency, new, *runs, *used, LEAST_RARITY)
        return out


class ContentModel(ItemModel):
    """Content vectors of all rows.

    Columns:

    - `content` int8 (n, 256): unit vectors in steps of 1/127, or 0 where nothing is known
    - `categories` uint16 (n, 4), `author`, `language` uint16 (n,): codes of the first categories and so on, 0 for none
    - `duration` float32 (n,): log(1 + seconds), 0 where unknown
    - `published` uint16 (n,): 1 + days since 1970, 0 where unknown

    Attributes
    ----------
    vocabulary : document frequencies; not part of the columns, rebuilt as the catalogue is read
    """

    name: ClassVar[str] = "content"

    def __init__(self, capacity: int) -> None:
        super().__init__(
            capacity,
            {
                "content": ColumnSpec(np.int8, (DIMENSIONS,)),
                "categories": ColumnSpec(np.uint16, (CATEGORIES,)),
                "author": ColumnSpec(np.uint16),
                "language": ColumnSpec(np.uint16),
                "duration": ColumnSpec(np.float32),
                "published": ColumnSpec(np.uint16),
            },
        )
        self.vocabulary = Vocabulary()

    def publish(self, rows: Int32Array, videos: Sequence[Described]) -> None:
        """Describe `rows` (int32, shape (m,)) by m catalogue entries, in order.

        A video that changes is counted in the vocabulary once.
        """
        described = [
            terms(
                title=video.title if video.embedding is None else "",
                description=video.description if video.embedding is None else "",
                tags=video.tags,
                categories=video.categories,
                author=video.author,
            )
            for video in videos
        ]
        new = ~self.columns["content"][rows].any(axis=1)
        # A row that comes twice is new once.
        first = np.zeros(len(rows), np.bool_)
        first[np.unique(rows, return_index=True)[1]] = True
        vectors = self.vocabulary.vectors(described, new & first)
        for number, video in enumerate(videos):
            if video.embedding is not None:
                # The other groups were made one unit vector; give each its share again beside what the words mean.
                others = math.sqrt(sum(GROUP_WEIGHTS[group] ** 2 for group in described[number]))
                whole = others * vectors[number] + GROUP_WEIGHTS["word"] * projected(video.embedding)
                vectors[number] = whole / max(float(np.linalg.norm(whole)), 1e-12)
        self.describe(rows, vectors)
        c = self.columns
        for row, video in zip(rows.tolist(), videos, strict=True):
            named = [code_of(name) for name in islice(video.categories, CATEGORIES)]
            c["categories"][row] = named + [0] * (CATEGORIES - len(named))
            c["author"][row] = code_of(video.author)
            c["language"][row] = code_of(video.language)
            c["duration"][row] = math.log1p(video.duration_seconds or 0.0)
            c["published"][row] = 0 if video.published_ms is None else min(video.published_ms // DAY_MS + 1, LAST_DAY)

    def describe(self, rows: Int32Array, vectors: Float32Array) -> None:
        """Set the vectors (float32, shape (m, 256)) of `rows` (int32, shape (m,)).

        Raises
        ------
        ModelError
            A vector has another width or is not finite.
        """
        if vectors.shape != (len(rows), DIMENSIONS) or not np.isfinite(vectors).all():
            raise ModelError(
                f"content: expected finite vectors of shape {(len(rows), DIMENSIONS)}, got {vectors.shape}"
            )
        self.columns["content"][rows] = np.rint(np.clip(vectors, -1, 1) * STEPS).astype(np.int8)

    def user_vector(self, history: Int32Array) -> Float32Array:
        """Make the decayed mean of a history's vectors, float32, shape (256,), of length 1, or 0 if none is known."""
        mean = np.empty(DIMENSIONS, np.float32)
        accepted(_mean(mean, self.columns["content"], history[:HISTORY], HISTORY_DECAY))
        return mean

    def scores(self, vector: Float32Array, out: Float32Array, rows: Int32Array | None = None) -> None:
        """Write cosines with `vector` (float32, shape (256,)) into `out` (float32, shape (m,)).

        Parameters
        ----------
        rows : int32, shape (m,); None: the first m rows
        """
        scaled = vector / np.float32(STEPS)
        if rows is None:
            accepted(_all_products(out, self.columns["content"], scaled))
        else:
            accepted(_products(out, self.columns["content"], scaled, rows))

    def score_many(self, context: Context, rows: Int32Array) -> Float32Array:
        """Score `rows` by cosine with the user's history, -1 to 1."""
        out = np.empty(len(rows), np.float32)
        self.scores(self.user_vector(context.history), out, rows)
        return out

    def learn_one(self, context: Context, row: int, ticks: float) -> None:
        """Do nothing: vectors come from the catalogue, and a user's taste from the history."""
