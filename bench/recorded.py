"""A recorded result of the small protocol of `bench.quality`, and whether a new one is worse.

Flows in: for each log, which targets some arms listed, now and when it was recorded. Flows out: verdicts. Always holds: what is
compared are pairs, the same targets in the same order; other targets are an error, not a result.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from state.types import BoolArray

#: What is guarded above all, what its ratio to is guarded too, and single models.
SERVED, BASELINE, MODELS = "served", "popularity_decayed", ("item_knn", "mf")
GUARDED = (SERVED, BASELINE, *MODELS)
#: How much lower is too low: so many standard errors of the paired difference, or this share of what was recorded, whichever is
#: more. A change of one float in an early vector moves a few places: without the share, that alone would fail.
ERRORS = 2.0
SHARE = 0.03
#: The same of a single model, which may give something up where served gains. It is looked at because the ranker makes up for a
#: model that breaks: on these few events, served was seen to lose nothing when the factorization learned nothing at all.
MODEL_SHARE = 0.2

PATH = Path(__file__).with_name("quality_recorded.json")


class NotComparable(ValueError):
    """The record is of other targets, or of none; the message says what to do."""


class Hits(NamedTuple):
    """Which targets each guarded arm had in its list.

    Attributes
    ----------
    targets : names the targets: the same for the same events and protocol
    arms : bool, shape (n,), by arm
    """

    targets: str
    arms: Mapping[str, BoolArray]

    def to_json(self) -> dict[str, Any]:
        """As text, eight targets a byte."""
        return {
            "targets": self.targets,
            "n": len(self.arms[GUARDED[0]]),
            "hits": {arm: base64.b64encode(np.packbits(hits).tobytes()).decode() for arm, hits in self.arms.items()},
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Hits":
        """What `to_json` made."""
        unpacked = {
            arm: np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=saved["n"]).astype(np.bool_)
            for arm, text in saved["hits"].items()
        }
        return cls(saved["targets"], unpacked)


class Verdict(NamedTuple):
    """One figure, now and as recorded, with the standard error of the difference, and which share lower it may be anyway."""

    figure: str
    now: float
    recorded: float
    se: float
    share: float = SHARE

    @property
    def allowed(self) -> float:
        """How much lower than recorded it may be."""
        return max(ERRORS * self.se, self.share * self.recorded)

    @property
    def passed(self) -> bool:
        """Whether it is not too low; a figure that is no number never passes."""
        return self.recorded - self.now <= self.allowed

    def __str__(self) -> str:
        lower = self.recorded - self.now
        return (
            f"{self.figure} is {self.now:.5f}, {lower:.5f} ({lower / self.recorded:.1%}) lower than the recorded "
            f"{self.recorded:.5f}; {self.allowed:.5f} is allowed (standard error of the difference {self.se:.5f})"
        )

    def to_json(self) -> dict[str, Any]:
        """Rounded, with `passed`."""
        numbers = {"now": self.now, "recorded": self.recorded, "se": self.se, "allowed": self.allowed}
        return {**{name: round(value, 5) for name, value in numbers.items()}, "passed": self.passed}


def judge(now: Hits, recorded: Hits) -> list[Verdict]:
    """Compare recall of what is served, its ratio to the baseline (delta method), and recall of the single models.

    Raises
    ------
    NotComparable
    """
    if now.targets != recorded.targets or len(now.arms[SERVED]) != len(recorded.arms[SERVED]):
        raise NotComparable("the targets are not those of the record: the log or the protocol changed; --record anew")
    new, old = (
        {arm: hits.arms[arm].astype(np.float64) for arm in GUARDED if arm in hits.arms} for hits in (now, recorded)
    )
    empty = [arm for arm in GUARDED if arm not in old or not old[arm].any()]
    if empty or not new[BASELINE].any():
        raise NotComparable(f"{', '.join(empty) or BASELINE} listed no target: there is nothing to compare with")
    root = np.sqrt(len(new[SERVED]))

    def recall(arm: str, share: float) -> Verdict:
        error = float((new[arm] - old[arm]).std() / root)
        return Verdict(f"recall@10 of {arm}", float(new[arm].mean()), float(old[arm].mean()), error, share)

    ratios, terms = [], []
    for hits in (new, old):
        ratio = float(hits[SERVED].mean() / hits[BASELINE].mean())
        ratios.append(ratio)
        terms.append((hits[SERVED] - ratio * hits[BASELINE]) / hits[BASELINE].mean())
    error = float((terms[0] - terms[1]).std() / root)
    return [
        recall(SERVED, SHARE),
        Verdict(f"the ratio of {SERVED} to {BASELINE}", ratios[0], ratios[1], error),
        *(recall(arm, MODEL_SHARE) for arm in MODELS),
    ]


def load(path: Path) -> dict[str, Any]:
    """What is recorded, by log; empty where nothing is."""
    recorded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return recorded


def save(recorded: Mapping[str, Any], path: Path) -> None:
    """Put logs into the record; others stay as they are."""
    text = json.dumps({**load(path), **recorded}, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
