"""Prequential evaluation on exposures: what the heads say before each impression, against what followed it.

Flows in: a log with impressions and a catalogue. Flows out: AUC and GAUC of each label for the heads, for decayed rates of the video,
and for gradient-boosted trees that are refitted daily on the very inputs that the heads had. Always holds: all arms score the same
impressions, before anything of the impression's row is learned.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from agents.feedback import CLICK_WATCH_S
from cli.prequential import Evaluator, pairs_of
from ingestion.event_table import EventTable
from online_models.base import Behaviour
from online_models.features import MISSING, Votes
from online_models.heads import HEADS, INPUTS
from state import ranking
from state.behaviour import behaviour_in
from state.expiry import DAY_MS
from state.exposures import WINDOW_MS
from state.prediction import inputs_of
from state.types import BoolArray, Float32Array, Float64Array, Int64Array
from topics.catalog import Video
from topics.interactions import event_code
from topics.signals import DEFAULT_SIGNALS

#: Labels that are reported, and the heads that predict them.
LABELS = ("long_view", "like", "click")
#: Inputs that are the same for all videos of a list.
OF_USER = [number for number, name in enumerate(INPUTS) if name.startswith("user_")]
#: Of the decayed rates, in impressions; the best of the warm-up is the arm.
HALF_LIVES = (3_000.0, 30_000.0, 300_000.0)
#: Impressions at the mean rate that a video's own start with.
PRIOR = 10.0
#: Settings of the trees, chosen on the last third of the warm-up for each label: twelve.
LEAVES, ROUNDS = (15, 31, 63), (50, 100, 200, 400)
TREE_OPTIONS: Mapping[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "num_threads": 1,
    "deterministic": True,
    "verbose": -1,
}
RESAMPLES = 200

Progress = Callable[[str, int, int], None]


class NoImpressions(ValueError):
    """The log has no impression events, or too few of them to report anything."""


class Measured(NamedTuple):
    """One arm on one label; errors are standard errors over users.

    Attributes
    ----------
    auc, gauc : area under the ROC curve of all impressions, and of each user's own, in the mean over their impressions
    """

    auc: float
    auc_se: float
    gauc: float
    gauc_se: float


@dataclass
class Exposed:
    """Impressions with their outcomes and scores.

    Attributes
    ----------
    events : int64, shape (n,); which events of the table they are, ascending
    users, videos : int64, shape (n,); numbers
    at_ms : int64, shape (n,)
    labels : by name, bool, shape (n,)
    inputs : float32, shape (n, 44); of the heads
    scores : float32, shape (n, 5); what the heads said
    orders : float32, shape (n, 5); the same for a user of whom nothing is known: what is said of the video
    """

    events: Int64Array
    users: Int64Array
    videos: Int64Array
    at_ms: Int64Array
    labels: dict[str, BoolArray]
    inputs: Float32Array
    scores: Float32Array
    orders: Float32Array


def impressions_of(table: EventTable, positive: BoolArray) -> Exposed:
    """Impressions of a table, each event id once, and what followed each within the window of a lesson.

    An event belongs to the latest impression of its video to its user. The file's own labels `click` and `long_view` count where it
    has them.

    Raises
    ------
    NoImpressions
    """
    codes = table.codes
    _, first = np.unique(np.asarray(table.event_ids.dictionary_encode().indices), return_index=True)
    once = np.zeros(len(table), np.bool_)
    once[first] = True
    shown = once & (codes == event_code("impression"))
    if shown.sum() < 100:
        raise NoImpressions(f"the log has {int(shown.sum())} impressions: --impressions needs 100")
    pairs = pairs_of(table)
    order = np.lexsort((np.arange(len(table)), pairs))
    # For each event the latest impression before it, in the order of pairs: -1 where there is none of its own pair.
    latest = np.maximum.accumulate(np.where(shown[order], np.arange(len(order)), -1))
    of = np.full(len(table), -1, np.int64)
    known = latest >= 0
    of[order[known]] = order[latest[known]]
    own = (of >= 0) & (pairs == pairs[of]) & (table.at_ms - table.at_ms[of] <= WINDOW_MS)
    events = np.flatnonzero(shown)
    number = np.zeros(len(table), np.int64)
    number[events] = np.arange(len(events))

    def followed(mask: BoolArray) -> BoolArray:
        label = np.zeros(len(events), np.bool_)
        label[number[of[mask & own]]] = True
        return label

    watch = codes == event_code("watch")
    needed = np.where(table.duration_seconds > 0, np.minimum(table.duration_seconds, CLICK_WATCH_S), CLICK_WATCH_S)
    clicked = (codes == event_code("view")) | (watch & ~(table.watch_seconds < needed))
    default = DEFAULT_SIGNALS.signals(codes, table.watch_seconds, table.duration_seconds).positive
    labels = {
        "long_view": followed(table.labels.get("long_view", watch & positive & default)),
        "like": followed(codes == event_code("like")),
        "click": followed(table.labels.get("click", clicked)),
    }
    users = table.user_ids.dictionary_encode().indices.to_numpy().astype(np.int64)[events]
    videos = table.video_ids.dictionary_encode().indices.to_numpy().astype(np.int64)[events]
    n = len(events)
    inputs = np.zeros((n, len(INPUTS)), np.float32)
    scores, orders = np.zeros((2, n, len(HEADS)), np.float32)
    return Exposed(events, users, videos, table.at_ms[events], labels, inputs, scores, orders)


class ImpressionEvaluator(Evaluator):
    """One pass over a table that scores each impression. Parameters are those of `Evaluator`."""

    def __init__(self, table: EventTable, videos: Iterable[tuple[str, Video]], positive: BoolArray, **options: Any):
        super().__init__(table, videos, positive, arms=("served",), **options)
        self.exposed = impressions_of(table, positive)

    def score(self) -> Exposed:
        """Score and learn the whole table."""
        learned_to = 0
        exposed, table = self.exposed, self.table
        for number, event in enumerate(exposed.events.tolist()):
            self._learn(learned_to, event)
            learned_to = event
            self._publish(int(table.at_ms[event]))
            inputs = self._inputs(event)
            exposed.inputs[number] = inputs[0]
            exposed.scores[number] = self.engine.heads.logits(inputs)[0]
            inputs[:, OF_USER] = MISSING
            exposed.orders[number] = self.engine.heads.logits(inputs)[0]
            if number % 500 == 0:
                self._progress("impressions", number, len(exposed.events))
        self._progress("impressions", len(exposed.events), len(exposed.events))
        return exposed

    def _inputs(self, event: int) -> Float32Array:
        engine = self.engine
        slot = engine.users.find(self.table.user_ids[event].as_py(), 0)
        context = engine.stranger() if slot is None else engine.context(slot)
        # One that nobody knew is known by this very event.
        rows = np.array([engine.replica.row_of(self.table.video_ids[event].as_py())], np.int32)
        described = ranking.described(engine, context, rows, Votes.of(engine.models, context, len(engine.replica)))
        behaviour = Behaviour() if slot is None else behaviour_in(engine.users, slot, int(self.table.at_ms[event]))
        return inputs_of(engine, rows, behaviour, described)


def video_rates(exposed: Exposed, label: BoolArray, half_life: float) -> Float64Array:
    """Decayed rate of each impression's video before it, pulled towards the mean so far; float64, shape (n,)."""
    n = len(label)
    shown, followed, at = (np.zeros(int(exposed.videos.max()) + 1) for _ in range(3))
    out = np.empty(n)
    total = 0.0
    for i, (video, outcome) in enumerate(zip(exposed.videos.tolist(), label.tolist(), strict=True)):
        mean = (total + 1.0) / (i + 2.0)
        kept = 2.0 ** ((at[video] - i) / half_life)
        shown[video] *= kept
        followed[video] *= kept
        at[video] = i
        out[i] = (followed[video] + PRIOR * mean) / (shown[video] + PRIOR)
        shown[video] += 1.0
        followed[video] += outcome
        total += outcome
    return out


def tree_scores(exposed: Exposed, name: str, start: int, progress: Progress) -> tuple[Float64Array, dict[str, int]]:
    """Scores of gradient-boosted trees, refitted at each day's begin on all days before; NaN before impression `start`.

    Returns them, float64, shape (n,), and the settings that were best on the last third of what is before `start`.
    """
    import lightgbm

    label = exposed.labels[name].astype(np.int8)
    inputs = exposed.inputs
    days = (exposed.at_ms - exposed.at_ms[0]) // DAY_MS

    def fitted(stop: int, leaves: int, rounds: int) -> Any:
        data = lightgbm.Dataset(inputs[:stop], label[:stop], free_raw_data=True)
        return lightgbm.train({**TREE_OPTIONS, "num_leaves": leaves}, data, rounds)

    split = 2 * start // 3
    tried: dict[tuple[int, int], float] = {}
    for leaves in LEAVES:
        model = fitted(split, leaves, max(ROUNDS))
        for rounds in ROUNDS:
            found = model.predict(inputs[split:start], num_iteration=rounds)
            tried[leaves, rounds] = auc(found, exposed.labels[name][split:start])
    leaves, rounds = max(tried, key=lambda setting: tried[setting])
    out = np.full(len(label), np.nan)
    due = np.unique(days[start:])
    for done, day in enumerate(due.tolist()):
        progress(f"trees, {name}", done, len(due))
        begin = int(np.searchsorted(days, day))
        end = int(np.searchsorted(days, day, side="right"))
        # On a log of one day the trees know what was before the reported part.
        out[begin:end] = fitted(begin or start, leaves, rounds).predict(inputs[begin:end])
    progress(f"trees, {name}", len(due), len(due))
    return out, {"num_leaves": leaves, "rounds": rounds}


def auc(scores: Float64Array, labels: BoolArray, weights: Float64Array | None = None) -> float:
    """Area under the ROC curve (probability that a positive is above a negative, ties count half); NaN without both."""
    return _Sorted(scores, labels).auc(np.ones(len(scores)) if weights is None else weights)


class _Sorted:
    """Scores sorted once, for areas under many weightings."""

    def __init__(self, scores: Float64Array, labels: BoolArray) -> None:
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        self._labels = labels[self._order]

    def auc(self, weights: Float64Array) -> float:
        weights = weights[self._order]
        positive = np.add.reduceat(np.where(self._labels, weights, 0.0), self._starts)
        negative = np.add.reduceat(np.where(self._labels, 0.0, weights), self._starts)
        below = np.cumsum(negative) - negative
        area = float((positive * (below + 0.5 * negative)).sum())
        whole = float(positive.sum() * negative.sum())
        return area / whole if whole else float("nan")


def user_areas(
    scores: Float64Array, labels: BoolArray, users: Int64Array
) -> tuple[Int64Array, Float64Array, Float64Array]:
    """For each user who has both outcomes: their number, the area under their own curve, and how many impressions they had."""
    order = np.argsort(users, kind="stable")
    bounds = np.flatnonzero(np.append(True, users[order][1:] != users[order][:-1]))
    found: list[tuple[int, float, int]] = []
    for part in np.split(order, bounds[1:]):
        if 0 < labels[part].sum() < len(part):
            found.append((int(users[part[0]]), auc(scores[part], labels[part]), len(part)))  # noqa: PERF401 - reads worse
    who, areas, counts = zip(*found, strict=True) if found else ((), (), ())
    return np.array(who, np.int64), np.array(areas), np.array(counts, np.float64)


class Areas:
    """Areas of several arms over the same impressions, and over the same resampled users (bootstrap, Efron 1979).

    Parameters
    ----------
    labels : bool, shape (n,)
    users : int64, shape (n,)
    seed : of the resampling
    """

    def __init__(self, labels: BoolArray, users: Int64Array, seed: int = 1) -> None:
        self._labels, self._users = labels, users
        draws = np.random.Generator(np.random.PCG64(seed))
        self._weights = draws.poisson(1.0, (RESAMPLES, int(users.max()) + 1)).astype(np.float64)
        self._resampled: dict[str, tuple[Float64Array, Float64Array]] = {}
        self.measured: dict[str, Measured] = {}

    def add(self, arm: str, scores: Float64Array) -> None:
        """Measure an arm's scores, float64, shape (n,)."""
        ordered = _Sorted(scores, self._labels)
        who, areas, counts = user_areas(scores, self._labels, self._users)
        aucs = np.array([ordered.auc(weights[self._users]) for weights in self._weights])
        grouped = self._weights[:, who] * counts
        gaucs = (grouped * areas).sum(axis=1) / np.maximum(grouped.sum(axis=1), 1e-9)
        self._resampled[arm] = aucs, gaucs
        whole = float((counts * areas).sum() / counts.sum()) if len(who) else float("nan")
        self.measured[arm] = Measured(
            ordered.auc(np.ones(len(scores))), float(np.std(aucs)), whole, float(np.std(gaucs))
        )

    def difference(self, arm: str, other: str) -> dict[str, float]:
        """How much larger an arm's areas are than another's, with the standard errors of that, of pairs."""
        a, b = self.measured[arm], self.measured[other]
        spread = [float(np.std(x - y)) for x, y in zip(self._resampled[arm], self._resampled[other], strict=True)]
        return {
            "auc": round(a.auc - b.auc, 5),
            "auc_se": round(spread[0], 5),
            "gauc": round(a.gauc - b.gauc, 5),
            "gauc_se": round(spread[1], 5),
        }


def compare(exposed: Exposed, warmup: float, trees: bool, progress: Progress) -> dict[str, Any]:
    """Measure every arm on what is behind the warm-up; the documented JSON shape."""
    n = len(exposed.events)
    start = int(warmup * n)
    reported = slice(start, n)
    out: dict[str, Any] = {
        "impressions": n,
        "n": n - start,
        "users": len(np.unique(exposed.users[reported])),
        "labels": {},
    }
    for name in LABELS:
        label = exposed.labels[name]
        if not 0 < label[reported].sum() < n - start or not 0 < label[:start].sum() < start:
            continue
        areas = Areas(label[reported], exposed.users[reported])
        logits = exposed.scores[:, HEADS.index(name)].astype(np.float64)
        areas.add("heads", logits[reported])
        areas.add("heads_video", exposed.orders[reported, HEADS.index(name)].astype(np.float64))
        rates = [video_rates(exposed, label, half_life) for half_life in HALF_LIVES]
        best = int(np.argmax([auc(rate[:start], label[:start]) for rate in rates]))
        areas.add("video_rate", rates[best][reported])
        settings: dict[str, Any] = {"video_rate": {"half_life": HALF_LIVES[best]}}
        if trees:
            found, settings["trees_daily"] = tree_scores(exposed, name, start, progress)
            areas.add("trees_daily", found[reported])
        chance = 1.0 / (1.0 + np.exp(-np.clip(logits[reported], -30.0, 30.0)))
        out["labels"][name] = {
            "rate": round(float(label[reported].mean()), 5),
            "arms": {
                arm: {k: round(v, 5) for k, v in found._asdict().items()} for arm, found in areas.measured.items()
            },
            "difference": {arm: areas.difference("heads", arm) for arm in areas.measured if arm != "heads"},
            "calibration": round(float(chance.mean() / label[reported].mean()), 4),
            "settings": settings,
        }
    return out
