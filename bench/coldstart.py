"""How a new video finds those who like it: exposures until the ranking itself serves it to them, without exploration and with it.

A simulated audience of several tastes asks a worker without a broker (`bench.brokerless`) for lists, and reacts to what is listed: a
place is looked at less the further down it is (an impression), and liked by the taste and the quality of the video. When the old
videos are known, new ones come, of each taste one with metadata and one without any, and nobody has played them. A video has
arrived when the ranking alone, without the exploring place, has it in the top 10 of half of those of its taste who have not liked it
yet; until then are counted its `exposures` (lists that it was in), the `lists` made in all, and the `waste` (exposures to other
tastes). What has not arrived within the lists of the run counts as more than all of them: a median of null is that.

Beside each run is one that explores nothing, with the same audience and seed: `loss` is the share of all likes a list that exploration
costs, `loss_of_old` that of likes of old videos, which also lose places to new ones that have arrived.

    python -m bench.coldstart --json
"""

import argparse
from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from bench.brokerless import BrokerlessWorker
from bench.report import emit
from ingestion.simulate import START_MS
from ingestion.simulated_words import THEMES
from state.engine import EngineOptions
from state.expiry import DAY_MS
from state.exploration import EXPLORATION
from state.lists import recommend
from state.ranking import score_rows
from topics.catalog import Video
from topics.interactions import Event, Interaction
from topics.partitions import partition_of

#: Length of the lists.
N = 10
#: Chance to look at the first place, and how it falls from one place to the next.
LOOKED_AT, LOOKED_FURTHER = 0.95, 0.93
#: Chance that somebody likes what they look at, of their taste and of another, of a video of quality 1.
LIKES_OWN, LIKES_OTHER = 0.6, 0.03
#: Share of the places of a list that are of the user's taste while lists are drawn, before there is anything to serve.
OWN_SHARE = 0.6
#: Old videos differ; new ones are good, so that arriving is right.
OLD_QUALITY, NEW_QUALITY = (0.3, 1.0), 0.9
#: Lists a day, and between two checkpoints.
LISTS_PER_DAY, TOGETHER = 2_000, 20
#: A video has arrived when so many of its audience would be served it, of so many asked.
ARRIVED, ASKED = 0.5, 20


class Plan(NamedTuple):
    """How much is simulated.

    Attributes
    ----------
    tastes, users, videos : users and old videos, spread evenly over the tastes
    warm_up, lists : lists before the new videos come, and after it at most
    probe : lists between two looks at who has arrived
    seeds : audiences
    """

    tastes: int = 8
    users: int = 1_000
    videos: int = 480
    warm_up: int = 4_000
    lists: int = 8_000
    probe: int = 100
    seeds: int = 3


QUICK = Plan(tastes=3, users=60, videos=60, warm_up=200, lists=300, probe=50, seeds=1)


class Newcomer:
    """A new video, and what became of it."""

    def __init__(self, video_id: str, taste: int, described: bool) -> None:
        self.video_id, self.taste, self.described = video_id, taste, described
        self.exposures = self.waste = self.likes = 0
        #: Lists made when it arrived, None before.
        self.lists: int | None = None


class Site:
    """A worker and its audience; user u is of taste u modulo the number of tastes, as are old videos.

    Parameters
    ----------
    share : of lists that explore
    """

    def __init__(self, plan: Plan, seed: int, share: float) -> None:
        self.plan = plan
        self._random = Random(f"{seed} coldstart")
        self._themes = list(THEMES)[: plan.tastes]
        self.worker = BrokerlessWorker(
            EngineOptions(
                partitions=1,
                max_users=plan.users,
                max_videos=plan.videos + 2 * plan.tastes,
                positives_per_day=float(LISTS_PER_DAY),
                seed=seed,
                exploration=share,
            )
        )
        self._taste: dict[str, int] = {}
        self._quality: dict[str, float] = {}
        self._events = self._lists = 0
        self.newcomers: dict[str, Newcomer] = {}
        #: Since the new ones came, of all videos and of old ones.
        self.likes = self.old_likes = 0
        for number in range(plan.videos):
            self._publish(f"old-{number}", number % plan.tastes, True, self._random.uniform(*OLD_QUALITY))
        self.worker.checkpoint()

    @property
    def now_ms(self) -> int:
        """The time of the next list."""
        return START_MS + self._lists * DAY_MS // LISTS_PER_DAY

    def _publish(self, video_id: str, taste: int, described: bool, quality: float) -> None:
        self._taste[video_id], self._quality[video_id] = taste, quality
        theme = THEMES[self._themes[taste]]
        video = Video(
            title=self._random.choice(theme.subjects),
            categories=(self._themes[taste],),
            author=self._random.choice(theme.channels),
        )
        self.worker.publish([(video_id, video if described else Video())])

    def come(self) -> None:
        """Publish the new videos."""
        for taste in range(self.plan.tastes):
            for described in (True, False):
                newcomer = Newcomer(f"new-{taste}-{'described' if described else 'bare'}", taste, described)
                self.newcomers[newcomer.video_id] = newcomer
                self._publish(newcomer.video_id, taste, described, NEW_QUALITY)
        self.worker.checkpoint()

    def ask(self, lists: int, served: bool) -> None:
        """Let users ask for so many lists and react; what is not `served` is drawn."""
        records: list[Interaction] = []
        for number in range(lists):
            user = self._random.randrange(self.plan.users)
            records += self._react(user, self._served(user) if served else self._drawn(user))
            self._lists += 1
            if number % TOGETHER == TOGETHER - 1 or number == lists - 1:
                self.worker.learn(self.worker.records(records))
                self.worker.checkpoint()
                records = []

    def _served(self, user: int) -> list[str]:
        engine = self.worker.engine
        name = f"user-{user}"
        places, _ = recommend(engine, name, partition_of(name.encode(), engine.options.partitions), N)
        return engine.replica.ids_of(place.row for place in places)

    def _drawn(self, user: int) -> list[str]:
        plan = self.plan
        found: dict[str, None] = {}
        while len(found) < min(N, plan.videos):
            number = self._random.randrange(plan.videos)
            if self._random.random() < OWN_SHARE:
                number += (user - number) % plan.tastes
            found[f"old-{number % plan.videos}"] = None
        return list(found)

    def _react(self, user: int, listed: Sequence[str]) -> list[Interaction]:
        taste = user % self.plan.tastes
        events: list[Interaction] = []
        looked = LOOKED_AT
        for video_id in listed:
            newcomer, own = self.newcomers.get(video_id), self._taste[video_id] == taste
            if newcomer is not None and newcomer.lists is None:
                newcomer.exposures += 1
                newcomer.waste += not own
            if self._random.random() < looked:
                kinds: list[Event] = ["impression"]
                if self._random.random() < (LIKES_OWN if own else LIKES_OTHER) * self._quality[video_id]:
                    kinds.append("like")
                    self.likes += 1
                    if newcomer is None:
                        self.old_likes += 1
                    else:
                        newcomer.likes += 1
                for kind in kinds:
                    self._events += 1
                    events.append(Interaction(f"e{self._events}", f"user-{user}", video_id, kind, self.now_ms))
            looked *= LOOKED_FURTHER
        return events

    def look(self, lists: int) -> None:
        """Note who has arrived after so many lists."""
        for newcomer in self.newcomers.values():
            if newcomer.lists is None and self._ranked_for(newcomer) >= ARRIVED:
                newcomer.lists = lists

    def _ranked_for(self, newcomer: Newcomer) -> float:
        """Share of those of its taste, who have not liked it, for whom the ranking alone has it in their list."""
        engine = self.worker.engine
        row = engine.replica.find(newcomer.video_id)
        if row is None:
            raise AssertionError(f"{newcomer.video_id} was published")
        ranked: list[bool] = []
        for user in range(newcomer.taste, self.plan.users, self.plan.tastes):
            slot = engine.users.peek(f"user-{user}")
            if slot is None or len(ranked) == ASKED:
                continue
            allowed = engine.allowed(slot)
            if allowed[row]:
                ranked.append(row in score_rows(engine, engine.context(slot), allowed, N).rows)
        return fmean(ranked) if ranked else 1.0


class Ran(NamedTuple):
    """One audience: its new videos, and likes a list, of all videos and of old ones."""

    newcomers: list[Newcomer]
    likes: float
    old_likes: float


def simulate(plan: Plan, seed: int, share: float) -> Ran:
    """Warm up, publish, and let the audience ask."""
    site = Site(plan, seed, share)
    drawn = plan.warm_up // 2
    site.ask(drawn, served=False)
    site.ask(plan.warm_up - drawn, served=True)
    site.likes = site.old_likes = 0
    site.come()
    for made in range(0, plan.lists, plan.probe):
        site.look(made)
        site.ask(min(plan.probe, plan.lists - made), served=True)
    site.look(plan.lists)
    lists = max(plan.lists, 1)
    return Ran(list(site.newcomers.values()), site.likes / lists, site.old_likes / lists)


def figures(newcomers: Sequence[Newcomer]) -> dict[str, Any]:
    """Medians over new videos, null where most have not arrived; and the share of those that never did."""
    arrived = [newcomer for newcomer in newcomers if newcomer.lists is not None]

    def middle(values: Sequence[int]) -> float | None:
        missing = [float("inf")] * (len(newcomers) - len(values))
        found = median([*values, *missing])
        return None if np.isinf(found) else float(found)

    return {
        "n": len(newcomers),
        "exposures": middle([newcomer.exposures for newcomer in arrived]),
        "lists": middle([newcomer.lists for newcomer in arrived if newcomer.lists is not None]),
        "waste": middle([newcomer.waste for newcomer in arrived]),
        "waste_share": round(
            sum(newcomer.waste for newcomer in newcomers) / max(sum(newcomer.exposures for newcomer in newcomers), 1),
            3,
        ),
        "never": round(1.0 - len(arrived) / len(newcomers), 3),
        "never_listed": round(sum(new.lists is None and not new.exposures for new in newcomers) / len(newcomers), 3),
        "exposures_of_all": [newcomer.exposures for newcomer in newcomers],
        "likes": float(median([newcomer.likes for newcomer in newcomers])),
    }


def run(plan: Plan, shares: Sequence[float], told: Callable[[str], None] = lambda _what: None) -> dict[str, Any]:
    """Simulate each share for each seed; see the module."""
    ran: dict[float, list[Ran]] = {}
    for share in dict.fromkeys((0.0, *shares)):
        for seed in range(1, plan.seeds + 1):
            told(f"exploring {100 * share:g}% of the lists, seed {seed}")
            ran.setdefault(share, []).append(simulate(plan, seed, share))
    found: dict[str, Any] = {}
    for share, runs in ran.items():
        newcomers = [newcomer for one in runs for newcomer in one.newcomers]
        pairs = list(zip(runs, ran[0.0], strict=True))
        losses = [1.0 - one.likes / max(off.likes, 1e-9) for one, off in pairs]
        found[f"exploration_{share:g}"] = {
            "described": figures([newcomer for newcomer in newcomers if newcomer.described]),
            "bare": figures([newcomer for newcomer in newcomers if not newcomer.described]),
            "likes_a_list": round(fmean(one.likes for one in runs), 4),
            "loss": round(fmean(losses), 4),
            "loss_of_seeds": [round(loss, 4) for loss in losses],
            "loss_of_old": round(fmean(1.0 - one.old_likes / max(off.old_likes, 1e-9) for one, off in pairs), 4),
        }
    return {"lists_at_most": plan.lists, "audience": plan.users, "tastes": plan.tastes, **found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, nargs="+", default=[EXPLORATION], help="of lists that explore")
    parser.add_argument("--seeds", type=int, default=Plan().seeds)
    parser.add_argument("--lists", type=int, default=Plan().lists, help="after the new videos came")
    parser.add_argument("--quick", action="store_true", help="a tiny audience: shows that it runs, measures nothing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else Plan(seeds=options.seeds, lists=options.lists)
    errors = Console(stderr=True)
    found = run(plan, options.share, lambda what: errors.print(what, soft_wrap=True, markup=False))
    emit(found, n=plan.seeds * plan.tastes, as_json=options.json)


if __name__ == "__main__":
    main()
