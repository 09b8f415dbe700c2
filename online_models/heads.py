"""The heads: what will follow if a video is shown, one logistic output each over shared inputs and a shared hidden layer.

In: videos as `online_models.features` describes them, how often they and the user have reacted so far, and the place in the list.
Out: probabilities that a viewing is long, a like, a click and a skip, and the share of the video that will be watched. A lesson is
one exposure with what followed: an AdaGrad step (Duchi et al. 2011) on the cross-entropy of each head whose outcome is known. The
place is an input of lessons alone and 0, the first place, in serving: what a low place has cost is not blamed on the video (He et
al., "Practical Lessons from Predicting Clicks on Ads at Facebook", 2014, and Zhao et al., "Recommending What Video to Watch Next",
2019, use it so).

Shards share one set of heads as they share the ranker: see `online_models.parts`.
"""

from typing import Any, NamedTuple

import numpy as np

from online_models.base import Behaviour, Float32Array, Float64Array, Int32Array, Int64Array, ModelError, accepted
from online_models.features import FEATURES, MISSING, USER_INPUTS, Described
from online_models.kernel import f32, f64, i32, i64, kernel, part, read, void, write
from online_models.parts import LIMIT, SharedModel

HEADS = ("long_view", "like", "click", "skip", "watch_share")
"""What is predicted: probabilities of a long view, a like, a click and a skip, and the expected share that is watched (at most 1)."""

RATES = (
    "item_tries",
    "item_likes",
    "item_watches",
    "user_tries",
    "user_positives",
    "user_likes",
    "user_watches",
    "user_idle",
    "item_length",
    "place",
)
"""Inputs beside the features.

- `*_tries`: log of the times shown; `*_likes`, `*_watches`, `*_positives`: log of what followed a time shown, by its mean, pulled
  towards 0
- `user_idle`: log of the seconds since the user's last event
- `item_length`: log of its seconds
- `place`: log of the place in the list, the first is 0
"""

INPUTS = (*FEATURES, *(f"user_{name}" for name in USER_INPUTS), *RATES)
"""Order of a head's inputs; no two have one name."""

RATE = 0.05
EPSILON = 1.0
"""Squared gradient that every weight starts with."""
CLIP = 5.0
"""Standardised inputs lie within plus and minus this."""
LEAST_VARIANCE = 1e-4
ITEM_PRIOR, USER_PRIOR = 20.0, 5.0
"""Times shown worth of the mean that pull an item's and a user's rates towards it."""
WATCHED = 0.5
"""Mean share of what is shown that is played at all; any will do, it moves all rates alike."""
BASE_PRIOR = 20.0
"""Outcomes at one half that a head's mean starts with."""

HIDDEN = 16
"""Units (rectified linear) in which inputs meet; all heads learn them."""

_H, _I = len(HEADS), len(INPUTS)
_LINEAR, _INNER = _H * (_I + 1), HIDDEN * (_I + 1)
WEIGHTS = _LINEAR + _INNER + _H * HIDDEN
SIZE = 2 * WEIGHTS + 1 + 2 * _I + 2 * _H
"""Numbers of a part: steps and squared gradients of all weights; count, sums and sums of squares of inputs; by head the number of
known outcomes and their sum."""
_SUMS = 2 * WEIGHTS
_OUTCOMES = _SUMS + 1 + 2 * _I


class Columns(NamedTuple):
    """Which columns of the counts by kind say how often an item was shown, liked and watched."""

    impressions: int
    shown: int
    likes: int
    watches: int


@part
def _rate(count: float, tries: float, prior: float, mean: float) -> float:
    return float(np.log((count + prior * mean) / (max(tries, count) + prior) / mean))


@kernel(
    i64,
    write(f32, 2),
    read(f32, 2),
    read(f32),
    read(i32),
    read(i32, 2),
    read(f64),
    read(f32),
    read(f32),
    read(f64),
    read(f64),
    read(i64),
    f64,
    f64,
    f64,
)
def _inputs(
    out: Float32Array,
    items: Float32Array,
    user: Float32Array,
    rows: Int32Array,
    counts: Int32Array,
    plays: Float64Array,
    length: Float32Array,
    places: Float32Array,
    behaviour: Float64Array,
    means: Float64Array,
    columns: Int64Array,
    item_prior: float,
    user_prior: float,
    missing: float,
) -> int:
    m, features = items.shape
    if not (out.shape[0] == m == rows.shape[0] == places.shape[0]):
        return 4
    n = min(counts.shape[0], plays.shape[0], length.shape[0])
    for i in range(m):
        if not 0 <= rows[i] < n:
            return 1
    first = features + user.shape[0]
    tries, positives, likes, watches, idle = behaviour
    of_user = (
        np.log1p(tries),
        _rate(positives, tries, user_prior, means[0]),
        _rate(likes, tries, user_prior, means[1]),
        _rate(watches, tries, user_prior, means[2]),
        np.log1p(idle) if idle >= 0.0 else missing,
    )
    for i in range(m):
        row = rows[i]
        x = out[i]
        x[:features] = items[i]
        x[features:first] = user
        shown = max(np.float64(counts[row, columns[0]]), np.float64(counts[row, columns[1]]), plays[row])
        x[first] = np.log1p(shown)
        x[first + 1] = _rate(np.float64(counts[row, columns[2]]), shown, item_prior, means[1])
        x[first + 2] = _rate(np.float64(counts[row, columns[3]]), shown, item_prior, means[2])
        for c in range(5):
            x[first + 3 + c] = of_user[c]
        x[first + 8] = length[row] if length[row] > 0.0 else missing
        x[first + 9] = places[i]
        for c in range(x.shape[0]):
            if not abs(x[c]) < np.inf:
                x[c] = np.float32(0.0)
    return 0


@part
def _standard(x: float, mean: float, scale: float, clip: float, missing: float) -> float:
    if np.float32(x) == np.float32(missing):
        return 0.0
    return min(max((x - mean) * scale, -clip), clip)


@part
def _outputs(
    out: Float64Array,
    units: Float64Array,
    x: Float64Array,
    base: Float64Array,
    linear: Float64Array,
    inner: Float64Array,
    outer: Float64Array,
) -> None:
    """Log-odds of all heads for standardised inputs `x`, of which the last is 1, and what the units say."""
    for j in range(units.shape[0]):
        unit = 0.0
        for c in range(x.shape[0]):
            unit += inner[j, c] * x[c]
        units[j] = max(unit, 0.0)
    for h in range(out.shape[0]):
        logit = base[h]
        for c in range(x.shape[0]):
            logit += linear[h, c] * x[c]
        for j in range(units.shape[0]):
            logit += outer[h, j] * units[j]
        out[h] = logit


@kernel(
    i64,
    write(f32, 2),
    read(f32, 2),
    read(f64),
    read(f64),
    read(f64),
    read(f64, 2),
    read(f64, 2),
    read(f64, 2),
    f64,
    f64,
)
def _logits(
    out: Float32Array,
    inputs: Float32Array,
    mean: Float64Array,
    scale: Float64Array,
    base: Float64Array,
    linear: Float64Array,
    inner: Float64Array,
    outer: Float64Array,
    clip: float,
    missing: float,
) -> int:
    if out.shape[0] != inputs.shape[0]:
        return 4
    features = inputs.shape[1]
    x, units, logits = np.ones(features + 1), np.empty(inner.shape[0]), np.empty(out.shape[1])
    for i in range(inputs.shape[0]):
        for c in range(features):
            x[c] = _standard(inputs[i, c], mean[c], scale[c], clip, missing)
        _outputs(logits, units, x, base, linear, inner, outer)
        for h in range(out.shape[1]):
            out[i, h] = logits[h]
    return 0


@kernel(
    i64,
    write(f64),
    write(f64),
    read(f32),
    read(f64),
    read(f64),
    read(f64),
    read(f64),
    read(f64),
    read(f64, 2),
    read(f64, 2),
    read(f64, 2),
    f64,
    f64,
    f64,
    f64,
    f64,
)
def _learn(
    total: Float64Array,
    own: Float64Array,
    inputs: Float32Array,
    outcomes: Float64Array,
    start: Float64Array,
    mean: Float64Array,
    scale: Float64Array,
    base: Float64Array,
    linear: Float64Array,
    inner: Float64Array,
    outer: Float64Array,
    rate: float,
    epsilon: float,
    clip: float,
    limit: float,
    missing: float,
) -> int:
    """One step of each head whose outcome is not NaN; 1, and nothing changed, where a number is not finite or too large."""
    features, heads, hidden = inputs.shape[0], outcomes.shape[0], inner.shape[0]
    width = features + 1
    count = start.shape[0]
    x, units, logits = np.ones(width), np.empty(hidden), np.empty(heads)
    for c in range(features):
        x[c] = _standard(inputs[c], mean[c], scale[c], clip, missing)
    _outputs(logits, units, x, base, linear, inner, outer)
    gradient = np.zeros(count)
    at_outer = (heads + hidden) * width
    back = np.zeros(hidden)
    for h in range(heads):
        if np.isnan(outcomes[h]):
            continue
        error = 1.0 / (1.0 + np.exp(-logits[h])) - outcomes[h]
        for c in range(width):
            gradient[h * width + c] = error * x[c]
        for j in range(hidden):
            gradient[at_outer + h * hidden + j] = error * units[j]
            back[j] += error * outer[h, j]
    for j in range(hidden):
        if units[j] > 0.0:
            for c in range(width):
                gradient[(heads + j) * width + c] = back[j] * x[c]
    sound = True
    steps = np.empty(count)
    for k in range(count):
        squared = gradient[k] * gradient[k]
        steps[k] = rate * gradient[k] / np.sqrt(total[count + k] + squared + epsilon)
        sound &= abs(start[k] + total[k] - steps[k]) <= limit  # False for NaN
    if not sound:
        return 1
    for k in range(count):
        squared = gradient[k] * gradient[k]
        total[k] -= steps[k]
        own[k] -= steps[k]
        total[count + k] += squared
        own[count + k] += squared
    sums = 2 * count
    total[sums] += 1.0
    own[sums] += 1.0
    for c in range(features):
        value = mean[c] if inputs[c] == np.float32(missing) else np.float64(inputs[c])
        total[sums + 1 + c] += value
        own[sums + 1 + c] += value
        total[sums + 1 + features + c] += value * value
        own[sums + 1 + features + c] += value * value
    known = sums + 1 + 2 * features
    for h in range(heads):
        if not np.isnan(outcomes[h]):
            total[known + h] += 1.0
            own[known + h] += 1.0
            total[known + heads + h] += outcomes[h]
            own[known + heads + h] += outcomes[h]
    return 0


@kernel(void, write(f64), write(f64), write(f64), write(f64), write(f64), read(f64), read(f64), i64, f64, f64)
def _derive(
    weights: Float64Array,
    mean: Float64Array,
    scale: Float64Array,
    means: Float64Array,
    base: Float64Array,
    start: Float64Array,
    total: Float64Array,
    sums: int,
    least_variance: float,
    prior: float,
) -> None:
    """Weights, standards of the inputs, mean outcomes and their log-odds, from the sums."""
    for k in range(weights.shape[0]):
        weights[k] = start[k] + total[k]
    features, heads = mean.shape[0], means.shape[0]
    count = total[sums]
    for c in range(features):
        mean[c] = total[sums + 1 + c] / max(count, 1.0)
        variance = total[sums + 1 + features + c] / max(count, 1.0) - mean[c] * mean[c]
        # Before the first lesson nothing is known of any input.
        scale[c] = 1.0 / np.sqrt(max(variance, least_variance)) if count > 0.0 else 0.0
    known = sums + 1 + 2 * features
    for h in range(heads):
        means[h] = (total[known + heads + h] + 0.5 * prior) / (total[known + h] + prior)
        base[h] = np.log(means[h] / (1.0 - means[h]))


class Heads(SharedModel):
    """The heads, as the sum of the parts of all shards."""

    def __init__(self) -> None:
        # The same for all shards, whatever their seed: their parts must add up.
        rng = np.random.Generator(np.random.PCG64(0x4EAD5))
        start = np.zeros(WEIGHTS)
        start[_LINEAR : _LINEAR + _INNER] = rng.normal(0.0, 1.0 / np.sqrt(_I), _INNER)
        super().__init__(start, _I, 2 * _H)
        self._weights = np.zeros(WEIGHTS)
        linear, inner, outer = np.split(self._weights, [_LINEAR, _LINEAR + _INNER])
        self._layers = linear.reshape(_H, _I + 1), inner.reshape(HIDDEN, _I + 1), outer.reshape(_H, HIDDEN)
        self._mean, self._scale, self._base = np.zeros(_I), np.zeros(_I), np.zeros(_H)
        #: Mean outcome of each head so far, pulled towards one half; float64, shape (5,).
        self.means: Float64Array = np.zeros(_H)
        self._changed()

    def _changed(self) -> None:
        derived = self._weights, self._mean, self._scale, self.means, self._base
        _derive(*derived, self._start, self._parts.total, _SUMS, LEAST_VARIANCE, BASE_PRIOR)

    @property
    def lessons(self) -> float:
        """Exposures learned, by all shards."""
        return float(self._parts.total[_SUMS])

    def weights(self) -> dict[str, Any]:
        """All that probabilities are made of, as lists and by name: for programs of others.

        With x the inputs, standardised and within plus and minus `clip`, and a 1 behind them, the log-odds are
        `base` + `linear` @ x + `output` @ max(`hidden` @ x, 0).
        """
        linear, inner, outer = self._layers
        return {
            "heads": list(HEADS),
            "inputs": list(INPUTS),
            "mean": self._mean.tolist(),
            "scale": self._scale.tolist(),
            "clip": CLIP,
            "base": self._base.tolist(),
            "linear": linear.tolist(),
            "hidden": inner.tolist(),
            "output": outer.tolist(),
            "lessons": self.lessons,
        }

    def inputs(
        self,
        described: Described,
        rows: Int32Array,
        counts: Int32Array,
        columns: Columns,
        plays: Float64Array,
        length: Float32Array,
        behaviour: Behaviour,
        play_rate: float,
        places: Float32Array | None = None,
    ) -> Float32Array:
        """Inputs of m videos for one user; pure.

        Parameters
        ----------
        described : m videos
        rows : int32, shape (m,); theirs in the arrays of counts
        counts : int32, shape (n, kinds); accepted events by kind
        plays : float64, shape (n,); first positives
        length : float32, shape (n,); log of seconds, 0 where unknown
        play_rate : first positives a time shown, over all items
        places : float32, shape (m,); log of the place in the list; None: all are 0

        Returns
        -------
        float32, shape (m, 44), finite
        """
        out = np.empty((len(rows), _I), np.float32)
        means = np.array([play_rate or WATCHED, self.means[HEADS.index("like")], WATCHED])
        if places is None:
            places = np.zeros(len(rows), np.float32)
        known = np.array(columns, np.int64)
        accepted(
            _inputs(
                out, described.items, described.user, rows, counts, plays, length, places, np.array(behaviour, np.float64), means,
                known, ITEM_PRIOR, USER_PRIOR, MISSING,
            )
        )  # fmt: skip
        return out

    def logits(self, inputs: Float32Array) -> Float32Array:
        """Log-odds of each head; pure.

        Parameters
        ----------
        inputs : float32, shape (m, 44)

        Returns
        -------
        float32, shape (m, 5), in the order of `HEADS`
        """
        if inputs.ndim != 2 or inputs.shape[1] != _I:
            raise ModelError(f"heads: inputs of shape {inputs.shape}, expected (m, {_I})")
        out = np.empty((len(inputs), _H), np.float32)
        accepted(_logits(out, inputs, self._mean, self._scale, self._base, *self._layers, CLIP, MISSING))
        return out

    def probabilities(self, inputs: Float32Array) -> Float32Array:
        """As `logits`, as probabilities and expected shares."""
        # Beyond 30 a float32 is 0 or 1 anyway, and exp would overflow.
        odds = np.exp(np.clip(self.logits(inputs), -30.0, 30.0))
        return (odds / (1.0 + odds)).astype(np.float32)

    def learn(self, number: int, inputs: Float32Array, outcomes: Float64Array) -> bool:
        """Learn what followed one exposure; part `number` takes the step.

        Parameters
        ----------
        number : of the shard
        inputs : float32, shape (44,)
        outcomes : float64, shape (5,), in 0 to 1; NaN where it is not known

        Returns
        -------
        bool; False where the lesson was refused, and nothing changed
        """
        if inputs.shape != (_I,) or outcomes.shape != (_H,):
            raise ModelError(f"heads: a lesson of shapes {inputs.shape} and {outcomes.shape}")
        known = outcomes[~np.isnan(outcomes)]
        if not np.isfinite(inputs).all() or (known < 0.0).any() or (known > 1.0).any():
            self.refused += 1
            return False
        fault = _learn(
            self._parts.total, self._parts.own(number), inputs, outcomes, self._start, self._mean, self._scale, self._base,
            *self._layers, RATE, EPSILON, CLIP, LIMIT, MISSING,
        )  # fmt: skip
        if fault:
            self.refused += 1
            return False
        self._changed()
        return True

    def _is_sound(self, values: Float64Array) -> bool:
        known, summed = np.split(values[_OUTCOMES:], 2)
        return super()._is_sound(values) and bool(
            (known >= 0.0).all()
            and (known <= values[_SUMS]).all()
            and (summed >= 0.0).all()
            and (summed <= known).all()
        )
