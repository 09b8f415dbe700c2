"""A study: one log evaluated by several arms, seeds and ablations, and what its numbers say together.

Flows in: a table, a catalogue and what to compare. Flows out: means with standard errors, ratios to served, ablations. Always holds:
all runs rank the same positives, so differences are of pairs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cli.arms import DEFAULT, NAMES
from cli.positions import over_seeds
from cli.prequential import Evaluator, Result
from ingestion.event_table import EventTable
from online_models.features import FEATURES
from online_models.ranker import GROUPS
from state.types import BoolArray
from topics.catalog import User, Video


class UnknownArm(ValueError):
    """There is no such arm, batch model or part; the message lists them."""


class Study:
    """Runs over one log.

    Parameters
    ----------
    table, videos, positive : as for `Evaluator`
    users : what is known of users beside events
    arms : names of `cli.arms.NAMES`; none: the usual ones
    refit : batch models by name: ease, als
    ablate : features or groups of features, each of which one run goes without; `all` is every group
    options : further arguments of `Evaluator`
    """

    def __init__(
        self,
        table: EventTable,
        videos: Sequence[tuple[str, Video]],
        positive: BoolArray,
        users: Sequence[tuple[str, User]] = (),
        arms: Sequence[str] = (),
        refit: Sequence[str] = (),
        ablate: Sequence[str] = (),
        options: Mapping[str, Any] = {},
    ) -> None:
        self.table, self.videos, self.positive, self.users = table, videos, positive, users
        self.names = list(dict.fromkeys(("served", *(arms or DEFAULT), *(f"{name}_refit" for name in refit))))
        self.options = dict(options)
        unknown = [name for name in self.names if name not in NAMES]
        if unknown:
            raise UnknownArm(f"there is no arm {', '.join(unknown)}: take some of {', '.join(NAMES)}")
        self.without = list(dict.fromkeys(name for word in ablate for name in (GROUPS if word == "all" else [word])))
        for name in self.without:
            if name not in GROUPS and name not in FEATURES:
                raise UnknownArm(
                    f"there is no part {name!r} to do without: take some of {', '.join((*GROUPS, *FEATURES))}"
                )
        self.runs: list[Result] = []
        #: By what was left out: one run a seed.
        self.ablations: dict[str, list[Result]] = {}

    @property
    def k(self) -> int:
        """Length of the lists."""
        return self.runs[0].positions.k

    def run(
        self, seeds: Iterable[int], progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None
    ) -> None:
        """Run everything; `progress` is told what is done, of what."""
        for number, seed in enumerate(seeds):
            # A batch model's draws are seeded too, but its numbers move less than they take time: one run of it will do.
            arms = [name for name in self.names if number == 0 or not name.endswith("_refit")]
            self.runs.append(self._one(f"seed {seed}", seed, arms, (), progress))
            for name in self.without:
                missing = GROUPS.get(name, (name,))
                ran = self._one(f"seed {seed} without {name}", seed, ["served"], missing, progress)
                self.ablations.setdefault(name, []).append(ran)

    def _one(
        self,
        what: str,
        seed: int,
        arms: Sequence[str],
        without: Sequence[str],
        progress: Callable[[str, int, int], None],
    ) -> Result:
        return Evaluator(
            self.table,
            self.videos,
            self.positive,
            seed=seed,
            arms=arms,
            without=without,
            users=self.users,
            progress=lambda part, done, of: progress(what if part == "events" else f"{what}, {part}", done, of),
            **self.options,
        ).run()

    def arms(self, group: str = "") -> dict[str, dict[str, float]]:
        """Metrics of each arm over the seeds that ran it, of all positives, or of a group: `cold`, `warm`, `young`."""
        made = {}
        for arm in self.names:
            runs = [run for run in self.runs if arm in run.positions.arms]
            made[arm] = over_seeds([run.positions.metrics(arm, _chosen(run, group)) for run in runs], self.k)
        return made

    def ratio(self, arm: str) -> tuple[float, float]:
        """How many times an arm's recall served has, and the standard error of that, over seeds and positives."""
        runs = [run for run in self.runs if arm in run.positions.arms]
        ratios = np.array([run.positions.ratio("served", arm) for run in runs])
        spread = float(np.std(ratios[:, 0], ddof=1)) / np.sqrt(len(runs)) if len(runs) > 1 else 0.0
        return float(ratios[:, 0].mean()), float(np.hypot(ratios[:, 1].mean(), spread))

    def ablated(self) -> list[tuple[str, float, float, float]]:
        """For each part: recall without it, what that is more than with it, and the standard error of the difference."""
        rows = []
        for name, runs in self.ablations.items():
            differences, recalls, means = [], [], []
            for run, whole in zip(runs, self.runs, strict=True):
                differences.append(run.positions.hits("served") - whole.positions.hits("served"))
                recalls.append(run.positions.hits("served").mean())
                means.append(differences[-1].mean())
            each = np.mean(differences, axis=0)
            spread = float(np.std(means, ddof=1)) / np.sqrt(len(means)) if len(means) > 1 else 0.0
            error = float(np.hypot(each.std() / np.sqrt(max(len(each), 1)), spread))
            rows.append((name, float(np.mean(recalls)), float(each.mean()), error))
        return sorted(rows, key=lambda row: row[2])

    @property
    def learn_us(self) -> float:
        """Microseconds an event, of all runs with all parts."""
        return 1e6 * sum(run.learn_seconds for run in self.runs) / max(sum(run.learned for run in self.runs), 1)

    @property
    def rank_us(self) -> float:
        """Microseconds a list."""
        return 1e6 * sum(run.rank_seconds for run in self.runs) / max(sum(run.n for run in self.runs), 1)

    def to_json(self) -> dict[str, object]:
        """The documented shape."""
        first = self.runs[0].to_json()
        cold, young = int(sum(self.runs[0].positions.cold)), int(sum(self.runs[0].positions.young))
        return {
            **first,
            "arms": self.arms(),
            "cold": {"n": cold, "arms": self.arms("cold")},
            "warm": {"n": self.runs[0].n - cold, "arms": self.arms("warm")},
            "young": {"n": young, "arms": self.arms("young")},
            "served_ratio": {
                arm: {"ratio": ratio, "se": error}
                for arm, (ratio, error) in ((arm, self.ratio(arm)) for arm in self.names if arm != "served")
            },
            "seeds": len(self.runs),
            "learn_us": round(self.learn_us, 1),
            "rank_us": round(self.rank_us, 1),
            "ablations": {
                name: {f"recall@{self.k}": round(recall, 5), "difference": round(difference, 5), "se": round(error, 5)}
                for name, recall, difference, error in self.ablated()
            },
        }


def _chosen(run: Result, group: str) -> BoolArray | None:
    """The targets of a group, None for all: of cold users, of warm ones, of young videos."""
    if not group:
        return None
    chosen = np.array(run.positions.young if group == "young" else run.positions.cold, np.bool_)
    return ~chosen if group == "warm" else chosen
