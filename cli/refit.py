"""Batch baselines of the evaluation: EASE and implicit ALS, made anew from all positives sixteen times in a stream.

Flows in: each user-video pair's first positive, in order. Flows out: a score of every video for a user, from the latest refit
and the user's history up to now. Always holds: a score depends on nothing that was not learned before, but for the settings,
which come from the first quarter of the stream and from its length. What a batch model says nothing about is in the order of
all-time popularity, and popularity breaks its ties: no baseline loses for a lack of it.
"""

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from itertools import chain, product
from typing import Any, ClassVar, Protocol

import numpy as np

from state.types import BoolArray, Float32Array, Float64Array, Int64Array

Settings = dict[str, float]
#: Told how many of how many positives are tried.
ProgressCallback = Callable[[int, int], None]

#: Refits in a whole stream.
REFITS = 16
#: Share of the stream, one in so many, that settings are chosen on.
TUNED_ON = 4
#: Positives ranked for each setting, evenly spaced. All of a longer quarter would take more minutes than they decide.
TUNE_RANKED = 10_000
#: Length of the list whose recall decides.
TUNE_K = 10
#: Videos that EASE knows: a refit with so many takes one to two seconds (cubic) and 330 MB (quadratic).
EASE_VIDEOS = 4_000
#: Sweeps over users and videos; implicit's default.
ALS_ITERATIONS = 15
#: What popularity adds to a score at most: too little to overtake an opinion that could bring a video into a list.
TIE = 1e-9

# Grids. Of settings that are equally good the first is taken, so the most usual comes first.
#: Weight of a positive in a history, for each later one of the user: all alike, or half after about 14, 4 and 2 more.
DECAYS = (1.0, 0.95, 0.85, 0.7)
#: EASE's ridge, in positives of a video; with the largest it counts, in effect, who has liked both.
LAMBDAS = (300.0, 100.0, 30.0, 1000.0, 3000.0, 10_000.0, 30_000.0)
FACTORS = (64, 16, 8)
REGULARISATIONS = (10.0, 1.0, 30.0)
#: Confidence in a positive; 1 is that in its absence.
ALPHAS = (10.0, 3.0, 30.0)


class RefitUnavailable(RuntimeError):
    """There is no such baseline, or it needs a package that is not installed."""


class Refit(Protocol):
    """A model that is made anew every so many positives, and scores from a user's history as it is now."""

    settings: Settings
    refits: int
    refit_seconds: float

    def learn(self, user: int, row: int) -> None:
        """Take one more first positive; refits when that is due."""

    def scores(self, user: int, n: int) -> Float64Array:
        """Score all rows below `n` for `user`; float64, shape (n,), finite."""


class _Baseline(ABC):
    """What both have in common: histories, counts, when to refit, and popularity where there is no opinion.

    Parameters
    ----------
    total : first positives in the whole stream
    settings : `decay`, and what the model needs
    seed : of first factors
    """

    fits: ClassVar[tuple[Settings, ...]]
    """The grid of what a refit takes; each goes with each of `DECAYS`."""
    needs: ClassVar[tuple[str, ...]] = ("threadpoolctl",)
    """Packages of the extra `refit`."""

    def __init__(self, total: int, settings: Settings, seed: int) -> None:
        self.settings = settings
        self.refits = 0
        self.refit_seconds = 0.0
        self.history: dict[int, list[int]] = defaultdict(list)
        self.counts: Float64Array = np.zeros(1024)
        self._total = max(total, 1)
        self._learned = 0
        self._seed = seed
        self._known: Int64Array = np.empty(0, np.int64)  # the row of each column of the model, ascending
        self._column: Int64Array = np.full(1024, -1)  # the column of each row, -1 if the model does not know it

    def learn(self, user: int, row: int) -> None:
        """Take one more first positive; refits at each sixteenth of the stream."""
        if row >= len(self.counts):
            more = max(row + 1, 2 * len(self.counts)) - len(self.counts)
            self.counts = np.pad(self.counts, (0, more))
            self._column = np.pad(self._column, (0, more), constant_values=-1)
        self.history[user].append(row)
        self.counts[row] += 1.0
        self._learned += 1
        if self._learned * REFITS // self._total > (self._learned - 1) * REFITS // self._total:
            from threadpoolctl import threadpool_limits

            began = time.perf_counter()
            # BLAS threads wait for each other where cores are shared: small matrices take hundreds of times as long with
            # them, and implicit, whose matrices are all small, warns of them.
            with threadpool_limits(1, "blas"):
                self._refit()
            self.refits += 1
            self.refit_seconds += time.perf_counter() - began

    def scores(self, user: int, n: int) -> Float64Array:
        """Score all rows below `n` for `user`.

        Returns
        -------
        float64, shape (n,); the model's opinion, 0 where it has none, and at most `TIE` for popularity. Opinions above `TIE`
        come first, then popularity, then what the model speaks against.
        """
        out = np.zeros(n)
        counted = min(n, len(self.counts))
        out[:counted] = self.counts[:counted] * (TIE / max(self._learned, 1))
        history = np.array(self.history.get(user, ()), np.int64)
        columns = self._column[history]
        weights = self.settings["decay"] ** np.arange(len(history) - 1.0, -1.0, -1.0)
        known = columns >= 0
        if known.any():
            below = np.searchsorted(self._known, n)
            out[self._known[:below]] += self._opinion(columns[known], weights[known].astype(np.float32))[:below]
        return out

    def _knows(self, rows: Int64Array) -> Any:
        """Make `rows`, ascending, the model's columns; all positives in them, as a float32 csr_matrix (users, columns)."""
        from scipy.sparse import csr_matrix

        self._known = rows
        self._column[:] = -1
        self._column[rows] = np.arange(len(rows))
        columns = self._column[np.fromiter(chain.from_iterable(self.history.values()), np.int64)]
        users = np.repeat(np.arange(len(self.history)), [len(history) for history in self.history.values()])
        inside = columns >= 0
        ones = np.ones(inside.sum(), np.float32)
        return csr_matrix((ones, (users[inside], columns[inside])), shape=(len(self.history), len(rows)))

    @abstractmethod
    def _refit(self) -> None:
        """Make the model anew from all positives so far."""

    @abstractmethod
    def _opinion(self, columns: Int64Array, weights: Float32Array) -> Float32Array:
        """Scores of all columns, for a history of `columns`, shape (h,), h > 0; float32, shape (len(self._known),)."""


class EaseRefit(_Baseline):
    """EASE over the most active videos: B = I - P diag(1 / diag P), P = (X'X + lambda I)^-1; a score is the history's sum of B.

    Source: Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", equations 8 and 4. The sum over the history
    is weighted by `decay`; with a decay of 1 it is Steck's.
    """

    fits = tuple({"lambda": ridge} for ridge in LAMBDAS)
    _weights: Float32Array

    def _refit(self) -> None:
        from scipy.linalg import inv

        active = np.argsort(-self.counts, kind="stable")[:EASE_VIDEOS]
        positives = self._knows(np.sort(active[self.counts[active] > 0]))
        gram = (positives.T @ positives).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += self.settings["lambda"]
        # float64: its rounding stays below TIE where videos have nothing in common, so that popularity orders them.
        inverse: Float64Array = inv(gram, overwrite_a=True, assume_a="pos")
        # Rows, which are read, lie together: in LAPACK's order, by columns, scoring takes ten times as long.
        self._weights = (inverse / -inverse.diagonal()).astype(np.float32, order="C")
        np.fill_diagonal(self._weights, 0.0)

    def _opinion(self, columns: Int64Array, weights: Float32Array) -> Float32Array:
        # What has faded below float32's rounding changes no sum, but long histories would take milliseconds.
        recent = weights > np.finfo(np.float32).eps
        return weights[recent] @ self._weights[columns[recent]]


class AlsRefit(_Baseline):
    """Implicit ALS by the package `implicit`; a user's factors are solved for again from the history as it is now.

    Source: Hu, Koren and Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets", equation 4; as in
    `implicit`, a positive's confidence is alpha. It is alpha times `decay` for each later positive in `scores`, and alpha
    in the refit.
    """

    needs = ("implicit", "threadpoolctl")
    fits = tuple(
        {"factors": factors, "regularisation": regularisation, "alpha": alpha}
        for factors, regularisation, alpha in product(FACTORS, REGULARISATIONS, ALPHAS)
    )
    _factors: Float32Array
    _gram: Float32Array

    def _refit(self) -> None:
        from implicit.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(
            factors=int(self.settings["factors"]),
            regularization=self.settings["regularisation"],
            alpha=self.settings["alpha"],
            iterations=ALS_ITERATIONS,
            use_gpu=False,
            num_threads=1,
            random_state=self._seed,
        )
        model.fit(self._knows(np.flatnonzero(self.counts)), show_progress=False)
        self._factors = model.item_factors
        self._gram = self._factors.T @ self._factors
        self._gram[np.diag_indices_from(self._gram)] += np.float32(self.settings["regularisation"])

    def _opinion(self, columns: Int64Array, weights: Float32Array) -> Float32Array:
        return self._factors @ self._user_factors(columns, weights)

    def _user_factors(self, columns: Int64Array, weights: Float32Array) -> Float32Array:
        """Solve (Y'Y + Y_u'(C_u - I)Y_u + reg I) x = Y_u'C_u 1; float32, shape (factors,).

        A positive whose weight has faded to 0 is neither for the user's taste nor against it.
        """
        confidences = weights * np.float32(self.settings["alpha"])
        chosen = self._factors[columns]
        solved: Float32Array = np.linalg.solve(
            self._gram + (chosen.T * (confidences - np.float32(1))) @ chosen, confidences @ chosen
        )
        return solved


BASELINES: dict[str, type[_Baseline]] = {"ease": EaseRefit, "als": AlsRefit}


def tune(
    name: str,
    users: Int64Array,
    rows: Int64Array,
    total: int,
    seed: int,
    progress: ProgressCallback = lambda _done, _of: None,
) -> Settings:
    """Choose the settings of the best prequential recall@10 within the beginning of a stream.

    Each setting of the grid learns `users, rows` with refits where the stream has them. From the first refit on it ranks,
    before it learns a positive, all videos that occurred before and are new to the user. At most `TUNE_RANKED` positives
    are ranked, evenly spaced; all are learned.

    Parameters
    ----------
    name : `ease` or `als`
    users, rows : int64, shape (m,); the first positives to choose on
    total : first positives in the whole stream
    seed : of first factors
    progress : told how many positives are tried, of how many

    Returns
    -------
    The settings; the first of the grid if there is nothing to rank.
    """
    begin, end = -(-total // REFITS), len(users)
    ranked = np.zeros(end, np.bool_)
    ranked[np.linspace(begin, end, TUNE_RANKED, endpoint=False).astype(np.int64) if begin < end else []] = True
    n = int(rows.max(initial=-1)) + 1
    kind = BASELINES[name]
    tried = [{**fit, "decay": decay} for fit in kind.fits for decay in DECAYS]
    hits = [0] * len(tried)
    for fit in range(len(kind.fits)) if ranked.any() else ():
        # One refit serves all decays.
        here = range(fit * len(DECAYS), (fit + 1) * len(DECAYS))
        model = kind(total, tried[here[0]], seed)
        for place, (user, row) in enumerate(zip(users.tolist(), rows.tolist(), strict=True)):
            if place % 200 == 0:
                progress(fit * end + place, len(kind.fits) * end)
            if ranked[place]:
                allowed = np.zeros(n, np.bool_)
                allowed[: len(model.counts)] = model.counts[:n] > 0
                allowed[model.history.get(user, [])] = False
                for which in here:
                    model.settings = tried[which]
                    hits[which] += _is_listed(model.scores(user, n), allowed, row)
            # The last positive may be due for a refit, after which nothing is ranked.
            if place + 1 < end:
                model.learn(user, row)
    progress(len(kind.fits) * end, len(kind.fits) * end)
    return tried[int(np.argmax(hits))]


def _is_listed(scores: Float64Array, allowed: BoolArray, row: int) -> bool:
    """Whether `row` is among the `TUNE_K` best of the allowed; of equal scores the lower row comes first."""
    own = scores[row]
    ahead = np.count_nonzero(allowed & (scores > own)) + np.count_nonzero(allowed[:row] & (scores[:row] == own))
    return bool(allowed[row] and ahead < TUNE_K)


def make(
    name: str,
    users: Int64Array,
    rows: Int64Array,
    seed: int,
    progress: ProgressCallback = lambda _done, _of: None,
) -> Refit:
    """Make a baseline for a stream; it has learned nothing of it yet, but for its settings.

    Parameters
    ----------
    name : `ease` or `als`
    users, rows : int64, shape (m,); all first positives of the stream, in order. Of those after the first quarter only the
        number is looked at.
    seed : of first factors; the same seed and stream give the same scores
    progress : told, while settings are chosen, how many positives are tried, of how many

    Raises
    ------
    RefitUnavailable: there is no such baseline, or it needs a package that is not installed
    """
    if name not in BASELINES:
        raise RefitUnavailable(f"there is no baseline {name!r}: take one of {', '.join(BASELINES)}")
    for package in BASELINES[name].needs:
        if find_spec(package) is None:
            raise RefitUnavailable(f"{name} needs the package {package}, which is not installed: pip install {package}")
    total, quarter = len(users), len(users) // TUNED_ON
    settings = tune(name, users[:quarter], rows[:quarter], total, seed, progress)
    return BASELINES[name](total, settings, seed)
