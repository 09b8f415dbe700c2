"""The online ranker: orders candidates by their features, and learns from what was chosen among them.

In: candidates as `online_models.features` describes them, and which of them was chosen. Out: a score each. The score is a fixed
log-linear blend, which is what serves before anything is learned, plus what lessons have added to it: weights of standardised
features, for all users and for those with as long a history, and a small hidden layer in which features meet what is known of
the user. A lesson is one AdaGrad step (Duchi et al. 2011) on the softmax of the chosen item among the 40 best others and 20
random ones, whose logits stand for all the rest (sampled softmax, Jean et al. 2015).

Shards share one ranker. All that lessons change are sums: of steps, of squared gradients, of features. Each shard keeps the sums
of its own lessons, its part; the ranker is the sum of the parts, wherever they were learned.
"""

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from online_models.base import Float32Array, Float64Array, ModelError, accepted
from online_models.counters import mix64
from online_models.features import FEATURES, MISSING, USER_INPUTS, Described
from online_models.kernel import f32, f64, i64, kernel, read, u64, void, write
from online_models.parts import LIMIT, SharedModel

HIDDEN = 16
TOP = 40
"""Best others that a chosen candidate is compared with: where the list is decided."""
RANDOM = 20
"""Others that stand for the rest."""
RATE = 0.05
EPSILON = 1.0
"""Squared gradient that every weight starts with."""
CLIP = 5.0
"""Standardised features lie within plus and minus this."""
LEAST_VARIANCE = 1e-4
"""A feature that has been constant so far is not blown up by its first change."""
BUCKETS = (0, 1, 3, 8, 20)
"""Least history lengths of the groups of users that have weights of their own."""

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "popularity": ("popularity_300", "popularity_3000", "popularity_30000", "count", "unplayed"),
        "age": ("age", "idle"),
        "covisitation": ("covisitation", "covisitation_of_best", "covisitation_named"),
        "markov": ("markov", "markov_of_best", "markov_named"),
        "factors": ("factors", "bias", "passed"),
        "content": ("content", "content_last"),
        "metadata": ("category", "category_last", "author", "language", "duration"),
        "usual": ("usual_popularity", "usual_age", "count_by_usual"),
        "shown": ("shown_300", "shown_3000", "play_rate"),
        "passed": ("passed",),
        "segment": ("segment",),
    }
)
"""Features that belong together, for ablations."""

_F, _U = len(FEATURES), len(USER_INPUTS)
_LINEAR = (1 + len(BUCKETS)) * _F
PARAMETERS = _LINEAR + HIDDEN * (_F + _U) + HIDDEN
SIZE = 2 * PARAMETERS + 1 + 2 * _F
"""Numbers of a part: steps and squared gradients of all parameters, then count, sums and sums of squares of features."""

_BLEND: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "factors": (0.00, 0.50, 0.51),
        "bias": (0.20, 0.05, 0.24),
        "covisitation": (0.00, 0.24, 1.28),
        "markov": (0.00, -0.04, 0.22),
        "popularity_300": (0.11, 0.16, 0.00),
        "popularity_3000": (0.18, 0.30, 0.69),
        "popularity_30000": (0.58, 0.50, -0.34),
        "content": (0.00, 0.93, 3.43),
    }
)
"""Weights of the blend for histories of 0, 1 to 4, and 5 or more items: a maximum-likelihood fit (softmax of the chosen item over
all unseen ones) on the first 30% of two logs, short videos and films, the same for both."""
_BLEND_FROM = (1, 5)


BLEND_UNTIL = 300.0 * (1 + TOP + RANDOM)
"""Compared candidates, of 300 full lessons, after which the blend counts half: what lessons teach is better, and the blend would
only be unlearned."""


class Lesson(NamedTuple):
    """What became of a lesson.

    Attributes
    ----------
    loss : of the chosen item, before learning; nats
    learned : False where it was refused, and nothing changed
    """

    loss: float
    learned: bool


@kernel(
    i64,
    write(f32),
    read(f32, 2),
    read(f32),
    read(f32),
    read(f32),
    read(f32),
    read(f32),
    read(f32, 2),
    read(f32),
    f64,
    f64,
)
def _scores(
    out: Float32Array,
    items: Float32Array,
    user: Float32Array,
    mean: Float32Array,
    scale: Float32Array,
    blend: Float32Array,
    weights: Float32Array,
    inner: Float32Array,
    outer: Float32Array,
    clip: float,
    missing: float,
) -> int:
    features = items.shape[1]
    if out.shape[0] != items.shape[0] or inner.shape[1] != features + user.shape[0]:
        return 4
    bound = np.float32(clip)
    # What the user adds to each unit is the same for all items.
    given = np.zeros(inner.shape[0], np.float32)
    for h in range(inner.shape[0]):
        for c in range(user.shape[0]):
            given[h] += inner[h, features + c] * user[c]
    x = np.empty(features, np.float32)
    for i in range(items.shape[0]):
        total = np.float32(0.0)
        for c in range(features):
            value = (items[i, c] - mean[c]) * scale[c]
            x[c] = min(max(value, -bound), bound)
            if items[i, c] == np.float32(missing):
                x[c] = np.float32(0.0)
                continue
            total += blend[c] * items[i, c] + weights[c] * x[c]
        for h in range(inner.shape[0]):
            unit = given[h]
            for c in range(features):
                unit += inner[h, c] * x[c]
            total += outer[h] * max(unit, np.float32(0.0))
        out[i] = total
    return 0


@kernel(
    void,
    read(f64),
    read(f32),
    read(f32),
    write(f32),
    write(f32),
    write(f32, 2),
    write(f32, 2),
    write(f32),
    f64,
)
def _unpack(
    total: Float64Array,
    start: Float32Array,
    muted: Float32Array,
    mean: Float32Array,
    scale: Float32Array,
    linear: Float32Array,
    inner: Float32Array,
    outer: Float32Array,
    least_variance: float,
) -> None:
    """Write what scoring needs of a part: means, scales and weights as they are now."""
    features = mean.shape[0]
    parameters = start.shape[0]
    sums = 2 * parameters + 1
    count = max(total[2 * parameters], 1.0)
    for c in range(features):
        middle = total[sums + c] / count
        variance = max(total[sums + features + c] / count - middle * middle, least_variance)
        if total[2 * parameters] == 0.0:
            variance = 1.0
        mean[c] = middle
        scale[c] = np.float32(1.0 / np.sqrt(variance)) * muted[c]
    at = 0
    for g in range(linear.shape[0]):
        for c in range(features):
            linear[g, c] = start[at] + total[at]
            at += 1
    for h in range(inner.shape[0]):
        for c in range(inner.shape[1]):
            inner[h, c] = start[at] + total[at]
            at += 1
    for h in range(outer.shape[0]):
        outer[h] = start[at] + total[at]
        at += 1


@kernel(
    f64,
    write(f64),
    write(f64),
    read(f32, 2),
    read(f32),
    read(f32),
    read(f32),
    read(f32),
    read(f32),
    read(f32, 2),
    read(f32),
    i64,
    i64,
    u64,
    i64,
    i64,
    f64,
    f64,
    f64,
    f64,
    f64,
)
def _learn(
    state: Float64Array,
    part: Float64Array,
    items: Float32Array,
    user: Float32Array,
    scores: Float32Array,
    start: Float32Array,
    mean: Float32Array,
    scale: Float32Array,
    inner: Float32Array,
    outer: Float32Array,
    bucket: int,
    chosen: int,
    seed: int,
    top: int,
    random: int,
    rate: float,
    epsilon: float,
    clip: float,
    limit: float,
    missing: float,
) -> float:
    """One step; returns the loss, or minus 1 less the loss if it is refused: then nothing has changed."""
    m, features = items.shape
    inputs = user.shape[0]
    hidden, width = inner.shape
    parameters = start.shape[0]
    linear = parameters - hidden * (width + 1)
    # The set: the chosen one, the best others, random ones of the rest.
    order = np.argsort(-scores)
    taken = np.empty(1 + top + random, np.int64)
    taken[0] = chosen
    count = 1
    rest = np.empty(m, np.int64)
    left = 0
    for o in range(m):
        i = order[o]
        if i == chosen:
            continue
        if count <= top:
            taken[count] = i
            count += 1
        else:
            rest[left] = i
            left += 1
    best = count
    drawn = min(random, left)
    offset = np.log(left / drawn) if drawn > 0 else 0.0
    at = np.uint64(seed) | np.uint64(1)
    for r in range(drawn):
        # Xorshift (Marsaglia 2003).
        at ^= at << np.uint64(13)
        at ^= at >> np.uint64(7)
        at ^= at << np.uint64(17)
        swap = r + np.int64(at % np.uint64(left - r))
        rest[r], rest[swap] = rest[swap], rest[r]
        taken[count] = rest[r]
        count += 1
    highest = -np.inf
    logits = np.empty(count)
    for s in range(count):
        logits[s] = scores[taken[s]] + (offset if s >= best else 0.0)
        highest = max(highest, logits[s])
    total = 0.0
    for s in range(count):
        total += np.exp(logits[s] - highest)
    loss = np.log(total) + highest - logits[0]

    flat = np.zeros(features, np.float32)
    deep = np.zeros((hidden, width), np.float32)
    gradient = np.zeros(parameters)
    own = (1 + bucket) * features
    bound = np.float32(clip)
    x = np.empty(width, np.float32)
    for c in range(inputs):
        x[features + c] = user[c]
    for s in range(count):
        error = np.float32(np.exp(logits[s] - highest) / total - (1.0 if s == 0 else 0.0))
        row = items[taken[s]]
        for c in range(features):
            x[c] = min(max((row[c] - mean[c]) * scale[c], -bound), bound)
            if row[c] == np.float32(missing):
                x[c] = np.float32(0.0)
            flat[c] += error * x[c]
        for h in range(hidden):
            weight = inner[h]
            unit = np.float32(0.0)
            for c in range(width):
                unit += weight[c] * x[c]
            if unit > np.float32(0.0):
                gradient[linear + hidden * width + h] += error * unit
                back = error * outer[h]
                slope = deep[h]
                for c in range(width):
                    slope[c] += back * x[c]
    for c in range(features):
        gradient[c] = flat[c]
    for h in range(hidden):
        for c in range(width):
            gradient[linear + h * width + c] = deep[h, c]
    for c in range(features):
        gradient[own + c] = gradient[c]
    sound = abs(loss) < np.inf
    steps = np.empty(parameters)
    for c in range(parameters):
        squared = gradient[c] * gradient[c]
        steps[c] = rate * gradient[c] / np.sqrt(state[parameters + c] + squared + epsilon)
        sound &= abs(start[c] + state[c] - steps[c]) <= limit  # False for NaN
    if not sound:
        return -1.0 - (loss if abs(loss) < np.inf else 0.0)
    for c in range(parameters):
        state[c] -= steps[c]
        part[c] -= steps[c]
        state[parameters + c] += gradient[c] * gradient[c]
        part[parameters + c] += gradient[c] * gradient[c]
    sums = 2 * parameters
    for s in range(count):
        row = items[taken[s]]
        for c in range(features):
            value = np.float64(mean[c]) if row[c] == np.float32(missing) else np.float64(row[c])
            square = value * value
            state[sums + 1 + c] += value
            part[sums + 1 + c] += value
            state[sums + 1 + features + c] += square
            part[sums + 1 + features + c] += square
    state[sums] += count
    part[sums] += count
    return float(loss)


class Ranker(SharedModel):
    """One ranker, as the sum of the parts of all shards.

    Parameters
    ----------
    seed : of the hidden layer's first weights; the same for all shards
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64([seed, 0x7A2C]))
        start = np.zeros(PARAMETERS, np.float32)
        inner = rng.normal(0.0, 1.0 / np.sqrt(_F), HIDDEN * (_F + _U))
        start[_LINEAR : _LINEAR + len(inner)] = inner
        super().__init__(start, _F)
        self._blend = np.zeros((len(_BLEND_FROM) + 1, _F), np.float32)
        for name, weights in _BLEND.items():
            self._blend[:, FEATURES.index(name)] = weights
        #: 0 for a feature to do without, else 1.
        self._heard = np.ones(_F, np.float32)
        self._mean, self._scale = np.zeros(_F, np.float32), np.zeros(_F, np.float32)
        self._linear = np.zeros((1 + len(BUCKETS), _F), np.float32)
        self._inner, self._outer = np.zeros((HIDDEN, _F + _U), np.float32), np.zeros(HIDDEN, np.float32)
        self._changed()

    def do_without(self, features: Sequence[str]) -> None:
        """Rank, and learn, as if these of `FEATURES` did not exist: what ablations are made with."""
        for name in features:
            if name not in FEATURES:
                raise ModelError(f"ranker: there is no feature {name!r}: take some of {', '.join(FEATURES)}")
        muted = [FEATURES.index(name) for name in features]
        self._heard[muted] = 0.0
        self._blend[:, muted] = 0.0
        self._changed()

    def _changed(self) -> None:
        derived = self._mean, self._scale, self._linear, self._inner, self._outer
        _unpack(self._parts.total, self._start, self._heard, *derived, LEAST_VARIANCE)

    @property
    def compared(self) -> float:
        """Candidates that all lessons so far have compared."""
        return float(self._parts.total[2 * PARAMETERS])

    def weights(self) -> dict[str, Any]:
        """All that a score is made of, as lists and by name: for programs of others.

        With x the features, standardised and within plus and minus `clip` (0 where one is `missing`), and u the user's inputs, a
        score is `blend` @ (features) + (`linear_all` + `linear`) @ x + `output` @ max(`hidden` @ [x, u], 0). `blend` and `linear` are
        those of the largest key that is not above the length of the user's history; what is missing counts in neither.
        """
        share = np.float32(BLEND_UNTIL / (BLEND_UNTIL + self.compared))
        return {
            "features": list(FEATURES),
            "user_inputs": list(USER_INPUTS),
            "mean": self._mean.tolist(),
            "scale": self._scale.tolist(),
            "clip": CLIP,
            "missing": MISSING,
            "blend": {
                str(least): (weights * share).tolist()
                for least, weights in zip((0, *_BLEND_FROM), self._blend, strict=True)
            },
            "linear_all": self._linear[0].tolist(),
            "linear": {str(least): weights.tolist() for least, weights in zip(BUCKETS, self._linear[1:], strict=True)},
            "hidden": self._inner.tolist(),
            "output": self._outer.tolist(),
            "compared": self.compared,
        }

    def scores(self, described: Described, history_length: int, without: tuple[str, ...] = ()) -> Float32Array:
        """Score candidates; pure.

        Parameters
        ----------
        described : m candidates
        history_length : of the user
        without : features that do not count this time; what was learned beside them stays as it is

        Returns
        -------
        float32, shape (m,); log-odds up to a constant; minus infinity for an item whose own numbers are not finite
        """
        out = np.empty(len(described.items), np.float32)
        weights = self._linear[0] + self._linear[1 + bucket_of(history_length)]
        blend = self._blend[sum(history_length >= least for least in _BLEND_FROM)]
        blend = blend * np.float32(BLEND_UNTIL / (BLEND_UNTIL + self.compared))
        scale = self._scale
        if without:
            heard = _heard_without(without)
            blend, scale = blend * heard, scale * heard
        accepted(
            _scores(
                out,
                described.items,
                described.user,
                self._mean,
                scale,
                blend,
                weights,
                self._inner,
                self._outer,
                CLIP,
                MISSING,
            )
        )
        out[described.broken] = -np.inf
        return out

    def learn(
        self, number: int, described: Described, history_length: int, chosen: int, seed: int, weight: float = 1.0
    ) -> Lesson:
        """Learn that the user chose one of the candidates; part `number` takes the step.

        Parameters
        ----------
        number : of the shard
        chosen : place of the chosen candidate in `described`
        seed : decides the random others
        weight : how many times the usual step it takes
        """
        if not 0 <= chosen < len(described.items):
            raise ModelError(f"ranker: no candidate {chosen} of {len(described.items)}")
        if described.broken[chosen] or not (np.isfinite(described.items).all() and np.isfinite(described.user).all()):
            self.refused += 1
            return Lesson(0.0, False)
        if described.broken.any():
            chosen -= int(described.broken[:chosen].sum())
            sound = ~described.broken
            described = Described(described.items[sound], described.user, described.broken[sound])
        scores = self.scores(described, history_length)
        draw = int(mix64(np.array([seed], np.uint64))[0])
        loss = _learn(
            self._parts.total, self._parts.own(number), described.items, described.user, scores, self._start, self._mean, self._scale,
            self._inner, self._outer, bucket_of(history_length), chosen, draw, TOP, RANDOM, weight * RATE, EPSILON, CLIP, LIMIT,
            MISSING,
        )  # fmt: skip
        if loss < -0.5:
            self.refused += 1
            return Lesson(-1.0 - loss, False)
        self._changed()
        return Lesson(float(loss), True)


def features_of(parts: Sequence[str]) -> tuple[str, ...]:
    """Features of `FEATURES` and of `GROUPS` that are named here, each once. Raises ModelError for what is neither."""
    for name in parts:
        if name not in GROUPS and name not in FEATURES:
            raise ModelError(f"there is no part {name!r} to do without: take some of {', '.join((*GROUPS, *FEATURES))}")
    return tuple(dict.fromkeys(feature for name in parts for feature in GROUPS.get(name, (name,))))


@functools.lru_cache(maxsize=64)
def _heard_without(features: tuple[str, ...]) -> Float32Array:
    """0 for each of these features, 1 for all others."""
    heard = np.ones(_F, np.float32)
    heard[[FEATURES.index(name) for name in features]] = 0.0
    heard.flags.writeable = False
    return heard


def bucket_of(history_length: int) -> int:
    """Number of the group of users with so long a history."""
    return sum(history_length >= least for least in BUCKETS) - 1
