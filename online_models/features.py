"""The features of the ranker: one registry and one kernel, for what is served and for what is learned.

In: what the models hold of some items, and a user's context. Out: for each item a row of numbers in the order of `FEATURES`, and
for the user a row in the order of `USER_INPUTS`. Serving and learning call the same function, so they cannot disagree. All
numbers are finite, whatever the models hold: a NaN becomes 0, and an item whose factors are not finite is named.
"""

from typing import NamedTuple

import numpy as np

from online_models.base import (
    BoolArray,
    Context,
    Float32Array,
    Float64Array,
    Int8Array,
    Int32Array,
    Int64Array,
    ModelError,
    UInt16Array,
    accepted,
)
from online_models.content import STEPS, ContentModel
from online_models.kernel import boolean, f32, f64, i8, i32, i64, kernel, part, read, u16, write
from online_models.neighbours import Neighbours
from online_models.popularity import COUNT_FLOOR, HALF_LIVES, LONG_AGO, Popularity
from online_models.segments import Segments
from online_models.sequential_mf import SequentialMF

FEATURES = (
    "popularity_300",
    "popularity_3000",
    "popularity_30000",
    "count",
    "age",
    "idle",
    "unplayed",
    "covisitation",
    "covisitation_of_best",
    "covisitation_named",
    "markov",
    "markov_of_best",
    "markov_named",
    "factors",
    "bias",
    "content",
    "content_last",
    "category",
    "category_last",
    "author",
    "language",
    "duration",
    "usual_popularity",
    "usual_age",
    "count_by_usual",
    "play_rate",
    "shown_300",
    "shown_3000",
    "passed",
    "segment",
)
"""Order of the columns.

- `popularity_*`: log of the decayed count; `count`, `age`, `idle`: log of all plays, of the ticks since the first, since the last
- `unplayed`: 1 for an item without plays, falling to 0 with them
- `covisitation`, `markov`: log of the item's share of all votes; `..._of_best`: votes by those of the best item; `..._named`: 1 if any
- `factors`: the factorisation's score without `bias`
- `content`, `content_last`: cosine with the user's content vector, with the last item's
- `category`, `author`, `language`: share of the user's recent items that have it, of categories their sum; `category_last`:
  whether the last one has one of them
- `duration`: minus the distance of the logarithm from the mean of the recent items'
- `usual_popularity`, `usual_age`: minus the distance from the mean of the recent items'; `count_by_usual`: product of both
- `play_rate`: log of positives a time shown, pulled towards the mean
- `shown_*`: log of the decayed count of times shown
- `passed`: product with the mean factors of what the user has just passed over, without the item itself
- `segment`: how much more often it is the choice of users with the user's words (see `online_models.segments`)
"""

USER_INPUTS = ("length", "usual_count", "usual_age", "hour_sine", "hour_cosine")
"""Order of what is known of the user alone: it meets the features in the ranker's hidden layer."""

MISSING = -1e30
"""Stands for what an item does not have, an age before its first play or a length: the ranker takes it for the mean. A 0 would be
an extreme, which an item that nobody has played yet has all at once."""
SHARE_FLOOR = 3e-3
"""Added to a neighbour share under the logarithm: an item that no neighbour names is not impossible."""
LEAST_TOTAL = 1e-30
"""A sum of neighbour scores below this is none."""
RATE_PRIOR = 20.0
"""Times shown worth of the mean rate that pull an item's own towards it."""
RECENT_DECAY = 0.9
"""The item at lag r of the history counts `0.9 ** r` for shares and means."""

_CODES = 512
"""Places of the small tables of codes, a power of two: 20 items of 4 categories each fill less than a sixth of one."""
_HALF_LIVES = np.array(HALF_LIVES)


class Models(NamedTuple):
    """The models that features are made of, over the same rows."""

    popularity: Popularity
    covisitation: Neighbours
    markov: Neighbours
    mf: SequentialMF
    content: ContentModel
    segments: Segments


class Votes(NamedTuple):
    """What both neighbour tables say of all items for one user.

    Attributes
    ----------
    covisitation, markov : float32, shape (n_items,)
    """

    covisitation: Float32Array
    markov: Float32Array

    @classmethod
    def of(cls, models: Models, context: Context, n_items: int) -> "Votes":
        """Ask the tables; pure."""
        plays = models.popularity.columns["plays"]
        votes = cls(np.empty(n_items, np.float32), np.empty(n_items, np.float32))
        models.covisitation.scores(context.history, plays, context.ticks, votes.covisitation)
        models.markov.scores(context.history, plays, context.ticks, votes.markov)
        return votes


class Described(NamedTuple):
    """Candidates as the ranker sees them.

    Attributes
    ----------
    items : float32, shape (m, 30); finite
    user : float32, shape (5,); finite
    broken : bool, shape (m,); the item's own numbers were not finite: it must rank last, and be seen
    """

    items: Float32Array
    user: Float32Array
    broken: BoolArray


@part
def _place_of(codes: Int32Array, code: int) -> int:
    """Where the code stands in a small table, or would."""
    place = (code * 7) & (codes.shape[0] - 1)
    while codes[place] != 0 and codes[place] != code:
        place = (place + 1) & (codes.shape[0] - 1)
    return int(place)


@part
def _add_code(codes: Int32Array, shares: Float32Array, code: int, share: float) -> None:
    if code == 0:
        return
    place = _place_of(codes, code)
    codes[place] = code
    shares[place] += np.float32(share)


@part
def _share_of(codes: Int32Array, shares: Float32Array, code: int) -> float:
    if code == 0:
        return 0.0
    place = _place_of(codes, code)
    return float(shares[place]) if codes[place] == code else 0.0


@part
def _sum_and_best(votes: Float32Array) -> tuple[float, float]:
    """Sum and largest of the finite votes, of which none is below 0; eight at a time, for it is done for every list."""
    n = votes.shape[0] // 8 * 8
    sums, most = np.zeros(8, np.float32), np.zeros(8, np.float32)
    for i in range(0, n, 8):
        for lane in range(8):
            vote = votes[i + lane]
            sums[lane] += vote
            most[lane] = vote if vote > most[lane] else most[lane]
    total, best = 0.0, 0.0
    for lane in range(8):
        total += sums[lane]
        best = max(best, most[lane])
    for i in range(n, votes.shape[0]):
        total += votes[i]
        best = max(best, votes[i])
    if abs(total) < np.inf:
        return total, best
    total, best = 0.0, 0.0
    for i in range(votes.shape[0]):
        if np.isfinite(votes[i]):
            total += votes[i]
            best = max(best, votes[i])
    return total, best


@kernel(
    i64,
    write(f32, 2),
    write(f32),
    write(boolean),
    read(i32),
    read(i32),
    f64,
    f64,
    f64,
    read(f64),
    read(f32, 2),
    read(f64),
    read(i64),
    read(i64),
    read(f64),
    f64,
    f64,
    read(f32),
    read(f32),
    read(f32, 2),
    read(f64),
    read(i32),
    read(f32, 2),
    read(f32),
    read(f32),
    read(i8, 2),
    f64,
    read(f32),
    read(u16, 2),
    read(u16),
    read(u16),
    read(f32),
    read(i32, 2),
    i64,
    read(f32),
)
def _describe(
    out: Float32Array,
    user: Float32Array,
    broken: BoolArray,
    rows: Int32Array,
    history: Int32Array,
    ticks: float,
    ticks_per_ms: float,
    mean_rate: float,
    plays: Float64Array,
    decayed: Float32Array,
    decayed_at: Float64Array,
    first_ms: Int64Array,
    last_ms: Int64Array,
    half_lives: Float64Array,
    long_ago: float,
    floor: float,
    covisitation: Float32Array,
    markov: Float32Array,
    shown: Float32Array,
    shown_at: Float64Array,
    passed: Int32Array,
    q: Float32Array,
    b: Float32Array,
    z: Float32Array,
    content: Int8Array,
    steps: float,
    taste: Float32Array,
    categories: UInt16Array,
    author: UInt16Array,
    language: UInt16Array,
    duration: Float32Array,
    counts: Int32Array,
    kind: int,
    lifts: Float32Array,
) -> int:
    n = min(plays.shape[0], covisitation.shape[0])
    if not (out.shape[0] == rows.shape[0] == broken.shape[0] and covisitation.shape[0] == markov.shape[0]):
        return 4
    if lifts.shape[0] != rows.shape[0]:
        return 4
    if not (counts.shape[0] >= n and 0 <= kind < counts.shape[1]):
        return 4
    for i in range(rows.shape[0]):
        if not 0 <= rows[i] < n:
            return 1
    for lag in range(history.shape[0]):
        if not 0 <= history[lag] < plays.shape[0]:
            return 1
    for lag in range(passed.shape[0]):
        if not 0 <= passed[lag] < plays.shape[0]:
            return 1
    if not np.isfinite(ticks):
        return 2
    # The user: usual popularity, age and duration, and shares of categories, authors and languages.
    codes = np.zeros((3, _CODES), np.int32)
    shares = np.zeros((3, _CODES), np.float32)
    usual_count, usual_age, usual_duration = 0.0, 0.0, 0.0
    weight, timed = 0.0, 0.0
    share = 1.0
    for lag in range(history.shape[0]):
        row = history[lag]
        if not (plays[row] >= 0.0 and np.isfinite(plays[row]) and np.isfinite(duration[row])):
            share *= RECENT_DECAY
            continue
        usual_count += share * np.log1p(plays[row])
        if first_ms[row] >= 0:
            usual_age += share * np.log1p(max(ticks - first_ms[row] * ticks_per_ms, 0.0))
        if duration[row] > 0.0:
            usual_duration += share * duration[row]
            timed += share
        for c in range(categories.shape[1]):
            _add_code(codes[0], shares[0], categories[row, c], share)
        _add_code(codes[1], shares[1], author[row], share)
        _add_code(codes[2], shares[2], language[row], share)
        weight += share
        share *= RECENT_DECAY
    known = weight > 0.0
    if known:
        usual_count /= weight
        usual_age /= weight
        shares /= np.float32(weight)
    if timed > 0.0:
        usual_duration /= timed
    away = np.zeros(z.shape[0], np.float32)
    norm = np.float32(0.0)
    drop = np.float32(1.0)
    for lag in range(passed.shape[0]):
        for k in range(z.shape[0]):
            away[k] += drop * q[passed[lag], k]
        norm += drop
        drop *= np.float32(RECENT_DECAY)
    spread = np.float32(1.0) / np.sqrt(norm) if norm > 0.0 else np.float32(0.0)
    for k in range(z.shape[0]):
        if not np.isfinite(away[k]):
            spread = np.float32(0.0)
            away[k] = np.float32(0.0)
    hour = 2.0 * np.pi * (ticks / ticks_per_ms % 86400000.0) / 86400000.0
    user[0] = history.shape[0] / 20.0
    user[1] = usual_count / 5.0
    user[2] = usual_age / 10.0
    user[3] = np.sin(hour)
    user[4] = np.cos(hour)

    covisitation_sum, covisitation_best = _sum_and_best(covisitation)
    markov_sum, markov_best = _sum_and_best(markov)

    latest = np.int64(-1)
    if history.shape[0] > 0:
        latest = history[0]
    for i in range(rows.shape[0]):
        row = rows[i]
        f = out[i]
        elapsed = max(ticks - decayed_at[row], 0.0)
        for c in range(3):
            f[c] = np.log(decayed[row, c] * 2.0 ** -min(elapsed / half_lives[c], long_ago) + floor)
        count = np.log1p(plays[row])
        age, idle = MISSING, MISSING
        if first_ms[row] >= 0:
            age = np.log1p(max(ticks - first_ms[row] * ticks_per_ms, 0.0))
            idle = np.log1p(max(ticks - last_ms[row] * ticks_per_ms, 0.0))
        f[3], f[4], f[5] = count, age, idle
        f[6] = 1.0 / (1.0 + plays[row])
        votes = covisitation[row]
        f[7] = np.log((votes / covisitation_sum if covisitation_sum > LEAST_TOTAL else 0.0) + SHARE_FLOOR)
        f[8] = votes / covisitation_best if covisitation_best > 0.0 else 0.0
        f[9] = 1.0 if votes > 0.0 else 0.0
        votes = markov[row]
        f[10] = np.log((votes / markov_sum if markov_sum > LEAST_TOTAL else 0.0) + SHARE_FLOOR)
        f[11] = votes / markov_best if markov_best > 0.0 else 0.0
        f[12] = 1.0 if votes > 0.0 else 0.0
        vector = q[row]
        dot = np.float32(0.0)
        for k in range(z.shape[0]):
            dot += vector[k] * z[k]
        f[13] = dot
        f[14] = b[row]
        alike, alike_last = np.float32(0.0), np.float32(0.0)
        if known:
            described = content[row]
            last = content[latest]
            for k in range(taste.shape[0]):
                word = np.float32(described[k])
                alike += word * taste[k]
                alike_last += word * np.float32(last[k])
        f[15] = alike / np.float32(steps)
        f[16] = alike_last / np.float32(steps * steps)
        best, same = 0.0, 0.0
        for c in range(categories.shape[1]):
            code = categories[row, c]
            best += _share_of(codes[0], shares[0], code)
            if known and code != 0:
                for other in range(categories.shape[1]):
                    if categories[latest, other] == code:
                        same = 1.0
        f[17] = best
        f[18] = same
        f[19] = _share_of(codes[1], shares[1], author[row])
        f[20] = _share_of(codes[2], shares[2], language[row])
        f[21] = -abs(duration[row] - usual_duration) if duration[row] > 0.0 and timed > 0.0 else MISSING
        f[22] = -abs(count - usual_count) if known else 0.0
        f[23] = -abs(age - usual_age) if known and age > MISSING else MISSING
        f[24] = count * usual_count if known else 0.0
        f[25] = 0.0
        if mean_rate > 0.0:
            tries = max(np.float64(counts[row, kind]), plays[row])
            f[25] = np.log((plays[row] + RATE_PRIOR * mean_rate) / (tries + RATE_PRIOR) / mean_rate)
        elapsed = max(ticks - shown_at[row], 0.0)
        for c in range(2):
            f[26 + c] = np.log(shown[row, c] * 2.0 ** -min(elapsed / half_lives[c], long_ago) + floor)
        dot = np.float32(0.0)
        for k in range(z.shape[0]):
            dot += vector[k] * away[k]
        drop = np.float32(1.0)
        for lag in range(passed.shape[0]):
            if passed[lag] == row:
                for k in range(z.shape[0]):
                    dot -= drop * vector[k] * vector[k]
            drop *= np.float32(RECENT_DECAY)
        f[28] = spread * dot
        f[29] = lifts[i]
        broken[i] = False
        for c in range(out.shape[1]):
            if not np.isfinite(f[c]):
                f[c] = np.float32(0.0)
                broken[i] = True
    for c in range(user.shape[0]):
        if not np.isfinite(user[c]):
            user[c] = np.float32(0.0)
    return 0


def describe(
    models: Models,
    context: Context,
    rows: Int32Array,
    votes: Votes,
    counts: Int32Array,
    shown_kind: int,
    ticks_per_ms: float,
    mean_rate: float,
) -> Described:
    """Make the features of `rows` for the user of `context`; pure.

    Parameters
    ----------
    rows : int32, shape (m,); the candidates, below the length of the votes
    votes : of both neighbour tables over all items
    counts : int32, shape (n, kinds); accepted events by kind
    shown_kind : the column of `counts` that says how often each item was shown
    ticks_per_ms : the clock's rate, which turns event times into ticks
    mean_rate : positives a time shown, over all items; 0 where nothing is known of it
    """
    popularity, content = models.popularity.columns, models.content.columns
    for known in (context.history, context.passed):
        if len(known) and not 0 <= known.min() <= known.max() < models.mf.capacity:
            raise ModelError("features: a row that the user is known by is outside the columns")
    # What is broken in the user's own past must not break the items: they are ranked without it.
    z = models.mf.user_vector(context.p, context.history)
    z[~np.isfinite(z)] = 0.0
    taste = models.content.user_vector(context.history)
    if context.segments.any():
        lifts = models.segments.lifts(rows, context.segments, context.ticks)
    else:
        lifts = np.full(len(rows), MISSING, np.float32)
    described = Described(
        np.empty((len(rows), len(FEATURES)), np.float32),
        np.empty(len(USER_INPUTS), np.float32),
        np.empty(len(rows), np.bool_),
    )
    accepted(
        _describe(
            *described,
            rows,
            context.history,
            context.ticks,
            ticks_per_ms,
            mean_rate,
            popularity["plays"],
            popularity["decayed"],
            popularity["decayed_at"],
            popularity["first_ms"],
            popularity["last_ms"],
            _HALF_LIVES,
            LONG_AGO,
            COUNT_FLOOR,
            votes.covisitation,
            votes.markov,
            popularity["shown"],
            popularity["shown_at"],
            context.passed,
            models.mf.columns["q"],
            models.mf.columns["b"],
            z,
            content["content"],
            float(STEPS),
            taste,
            content["categories"],
            content["author"],
            content["language"],
            content["duration"],
            counts,
            shown_kind,
            lifts,
        )
    )
    return described
