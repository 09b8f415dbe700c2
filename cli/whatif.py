"""`headrace replay --config FILE --compare`: what another configuration would have listed of what users came to like.

Flows in: the retained topics, the live configuration and a candidate. Flows out: both's prequential quality, side by side. The log is
replayed twice in its canonical order, in smaller windows, one configuration after the other, each in an engine and stores of its own,
which are gone when it ends. Always holds: no topic is written to, no group joined, no version touched; both replays learn the same
records and rank for the same targets, or it is an error.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from agents.replayer import Replayer
from agents.trial import SHARD_WINDOW, Choice, ChoosingTrial, Trial
from cli.candidate import Configuration
from cli.comparison import Comparison, compared
from cli.replay_stores import disk_stores
from infra.settings import Settings
from ingestion.event_table import NothingPositive
from topics.canonical_log import CanonicalLog, StoppingPoint
from topics.specs import TopicsUnavailable

#: Told the interactions so far of all that there are, first of one replay and then of the other.
Told = Callable[[int, int], None]


@dataclass
class _Ran:
    """A replay that has ended: places where it began and stopped, interactions, and videos that may be listed."""

    log: CanonicalLog
    events: int
    active: int


def compare(
    settings: Settings,
    bootstrap: str,
    live: Configuration,
    candidate: Configuration,
    choice: Choice,
    until: StoppingPoint = StoppingPoint(),  # noqa: B008 - frozen
    told: Told = lambda _done, _of: None,
) -> Comparison:
    """Replay the log under both.

    Raises
    ------
    NothingPositive
        There is no target: nothing could be ranked.
    TopicsUnavailable
        Among others where records expired between the two replays.
    TopicMismatch
    """
    first = ChoosingTrial(live.wish, choice)
    ran = _run(settings, bootstrap, live, first, until, told, choice)
    if not first.targets:
        raise NothingPositive("no first positive of a user is in that part of the log: nothing can be ranked")
    second = Trial(candidate.wish, first.targets)
    # What has arrived meanwhile is not part of it.
    same = replace(until, places=ran.log.ends)
    other = _run(settings, bootstrap, candidate, second, same, told)
    if (other.log.begins, other.events) != (ran.log.begins, ran.events):
        raise TopicsUnavailable(
            "records expired while they were replayed, so the two replays are not of one log: try again"
        )
    places = {"live": first.places, "candidate": second.places}
    trials = {"live": (first, ran), "candidate": (second, other)}
    coverage = {arm: len(trial.covered) / max(each.active, 1) for arm, (trial, each) in trials.items()}
    return compared(first.targets, places, coverage, len(first.targets) - second.ranked)


def _run(
    settings: Settings,
    bootstrap: str,
    configuration: Configuration,
    trial: Trial,
    until: StoppingPoint,
    told: Told,
    choice: Choice | None = None,
) -> _Ran:
    tolerance_ms = int(settings.future_tolerance_s * 1000)
    with (
        CanonicalLog(bootstrap, settings.partitions, tolerance_ms, until, forgetting=True) as log,
        disk_stores(settings) as stores,
    ):
        if choice is not None:
            choice.of = log.records
        replayer = Replayer(configuration.options, tolerance_ms, stores, judge=trial, shard_window=SHARD_WINDOW)
        replayer.run(log, lambda events: told(events, log.records))
        engine = replayer.engine
        return _Ran(log, replayer.events, int(engine.replica.active[: len(engine.replica)].sum()))
