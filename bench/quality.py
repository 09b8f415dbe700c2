"""How good the lists are: the frozen protocol of `headrace evaluate` on two real logs, with what is aimed at.

Each first positive of a log is ranked among the whole unseen catalogue before it is learned, by the code that serves; the first
half is learned and not reported. `served` is compared with popularity, with single online models and with batch models that are
refitted sixteen times (the extra `refit`). Arms that draw nothing from the seed run once. The two logs want a quarter of an hour.

`--subsample` does the same to the first part of each log, without batch models, in under a minute: `--record` keeps its result in
`bench/quality_recorded.json`, and `--check` ends with status 1 where a new one is worse than that.

    python -m bench.quality --json
    python -m bench.quality --subsample --check
"""

import argparse
import contextlib
import math
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from importlib.util import find_spec
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple

import numpy as np
import xxhash
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import recorded
from bench.logs import LOGS, Log, LogMissing, Read, data_folder
from bench.recorded import GUARDED, Hits, NotComparable
from bench.report import commit, emit
from cli.refit import BASELINES, RefitUnavailable
from cli.study import Study

#: Of `cli.prequential.Evaluator`; frozen, so that figures of different commits can be compared.
OPTIONS = {"warmup": 0.5, "k": 10}
#: Arms whose numbers the seed moves. The others are the same for every seed, so they run with the first only.
SEEDED = ("served", "mf")
BEST_OF = ("item_knn", "mf")
SINGLES = (*BEST_OF, "markov", "content", "shown")
#: How many times another arm's recall `served` is to have, by log.
TARGETS: Mapping[str, Mapping[str, float]] = {
    "kuairand": {"ease_refit": 1.5, "als_refit": 1.5, "popularity_decayed": 1.25, "best_of_item_knn_mf": 1.0},
    "ml-latest-small": {"ease_refit": 1.1, "als_refit": 1.4, "popularity_decayed": 1.8, "best_of_item_knn_mf": 1.05},
}
#: Told of what, what is done, and how much of how much.
Told = Callable[[str, str, int, int], None]


class Plan(NamedTuple):
    """What is run on each log.

    Attributes
    ----------
    arms, refit : online arms beside `served`, and batch models by name
    seeds : how many, from 1 on
    share : of the events, the first
    aimed : whether `TARGETS` are for it
    """

    arms: tuple[str, ...]
    refit: tuple[str, ...] = ()
    seeds: int = 1
    share: float = 1.0
    aimed: bool = False


FULL = Plan(("popularity", "popularity_decayed", *SINGLES), tuple(BASELINES), seeds=3, aimed=True)
#: The first part of a log is what the whole run begins with, and as dense; a part of the users would be another, thinner log.
SMALL = Plan(("popularity_decayed", *BEST_OF), share=0.15)


class Measured(NamedTuple):
    """What came out of one log: the documented figures, and what `bench.recorded` keeps."""

    figures: dict[str, Any]
    hits: Hits


def measure(log: Log, folder: Path, plan: Plan, told: Told) -> Measured:
    """Run a plan on a log."""
    read = log.read(folder, plan.share)
    study = run(read, plan, lambda what, done, of: told(log.name, what, done, of))
    positions = study.runs[0].positions
    hits = Hits(
        xxhash.xxh3_64_hexdigest(np.array(positions.at_ms, np.int64).tobytes()),
        {arm: positions.hits(arm) > 0 for arm in GUARDED},
    )
    return Measured(figures(study, TARGETS[log.name] if plan.aimed else {}), hits)


def run(read: Read, plan: Plan, progress: Callable[[str, int, int], None]) -> Study:
    """A study with all arms of the plan; what the seed does not move has run once, and counts for every seed."""
    study = Study(*read, plan.arms, plan.refit, options=OPTIONS)
    study.run(range(1, 2), progress)
    seeded = [arm for arm in study.names if arm in SEEDED]
    more = Study(*read, seeded, options=OPTIONS)
    more.run(range(2, plan.seeds + 1), progress)
    first = study.runs[0].positions
    for result in more.runs:
        if result.positions.at_ms != first.at_ms:
            raise AssertionError("seeds ranked different targets")
        for arm, places in first.arms.items():
            result.positions.arms.setdefault(arm, places)
    study.runs += more.runs
    return study


def figures(study: Study, targets: Mapping[str, float]) -> dict[str, Any]:
    """The documented shape of one log.

    Parameters
    ----------
    targets : the ratio to reach, by arm
    """
    kept = (f"recall@{study.k}", f"ndcg@{study.k}", "se", "seed_sd")
    arms = {arm: {name: means[name] for name in kept} for arm, means in study.arms().items()}
    ratios = {arm: _ratio(study, arm) for arm in arms if arm != "served"}

    def best(names: Sequence[str]) -> str:
        return max((arm for arm in names if arm in arms), key=lambda arm: arms[arm][f"recall@{study.k}"])

    def compared(name: str) -> dict[str, Any]:
        arm = best(BEST_OF) if name == "best_of_item_knn_mf" else name
        return {"arm": arm, **ratios[arm]}

    n, cold = study.runs[0].n, int(sum(study.runs[0].positions.cold))
    groups = {group: study.arms(group)["served"] for group in ("cold", "warm")}
    return {
        "n": n,
        "users_described": len(study.users),
        **arms,
        "served_ratio": ratios,
        "best_single": {"arm": best(SINGLES), **ratios[best(SINGLES)]},
        "cold": {"n": cold, **{name: groups["cold"][name] for name in kept}},
        "warm": {"n": n - cold, **{name: groups["warm"][name] for name in kept}},
        "learn_us": round(study.learn_us, 1),
        "rank_us": round(study.rank_us, 1),
        "popularity_half_life": study.runs[0].half_life,
        "targets": {
            f"served/{name}": {**found, "at_least": least, "reached": (found["ratio"] or 0.0) >= least}
            for name, least, found in ((name, least, compared(name)) for name, least in targets.items())
        },
    }


def _ratio(study: Study, arm: str) -> dict[str, float | None]:
    ratio, error = study.ratio(arm)
    # An arm that lists nothing, as in a tiny log, has no ratio: JSON has no NaN.
    return {"ratio": None, "se": None} if math.isnan(ratio) else {"ratio": round(ratio, 4), "se": round(error, 4)}


def measure_all(logs: Sequence[Log], folder: Path, plan: Plan, jobs: int, told: Told) -> dict[str, Measured]:
    """Run a plan on each log, one after the other or in processes of their own."""
    if jobs == 1 or len(logs) == 1:
        return {log.name: measure(log, folder, plan, told) for log in logs}
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(jobs, mp_context=context) as pool:
        queue = manager.Queue()
        started = {log.name: pool.submit(measure, log, folder, plan, _Teller(queue)) for log in logs}
        working = True
        while working:
            working = bool(wait(started.values(), timeout=0.2).not_done)
            with contextlib.suppress(Empty):
                while True:
                    told(*queue.get_nowait())
        return {name: future.result() for name, future in started.items()}


class _Teller:
    """Tells the process that shows; what travels there."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __call__(self, log: str, what: str, done: int, of: int) -> None:
        self._queue.put((log, what, done, of))


def check(measured: Mapping[str, Measured]) -> tuple[dict[str, Any], list[str]]:
    """Hold results against the record: the verdicts by log, and a line for each that fails."""
    saved = recorded.load(recorded.PATH)
    verdicts, failed = {}, []
    for name, found in measured.items():
        if name not in saved:
            raise NotComparable(f"nothing is recorded of {name}: python -m bench.quality --subsample --record")
        judged = recorded.judge(found.hits, Hits.from_json(saved[name]))
        verdicts[name] = {verdict.figure: verdict.to_json() for verdict in judged}
        failed += [f"{name}: {verdict}" for verdict in judged if not verdict.passed]
    return verdicts, failed


def record(measured: Mapping[str, Measured]) -> None:
    """Keep results as those that later ones are held against."""
    kept = ("n", "served", "popularity_decayed", "item_knn", "mf", "served_ratio")
    recorded.save(
        {
            name: {**{key: found.figures[key] for key in kept}, **found.hits.to_json(), "commit": commit()}
            for name, found in measured.items()
        },
        recorded.PATH,
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=tuple(LOGS), help="one log only")
    parser.add_argument("--seeds", type=int, help="of served and mf, from 1 on; default 3, of the subsample 1")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=1, help="processes, one a log")
    parser.add_argument("--subsample", action="store_true", help="the first part of each log, without batch models")
    parser.add_argument("--record", action="store_true", help="keep the subsample's result")
    parser.add_argument("--check", action="store_true", help="fail where the subsample's result is worse than that")
    parser.add_argument("--out", type=Path, help="write the JSON object to this file too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if (options.record or options.check) and not options.subsample:
        parser.error("--record and --check are of the --subsample")
    if options.record and options.check:
        parser.error("--record and --check exclude each other")
    plan = SMALL if options.subsample else FULL
    if options.record or options.check:
        if options.seeds not in (None, plan.seeds):
            parser.error("what is recorded has one seed")
    elif options.seeds is not None:
        if options.seeds < 1:
            parser.error("--seeds must be at least 1")
        plan = plan._replace(seeds=options.seeds)
    options.plan = plan
    return options


def _prepare(logs: Sequence[Log], folder: Path, plan: Plan) -> None:
    """Fail before an hour of work does.

    Raises
    ------
    LogMissing, RefitUnavailable
    """
    for log in logs:
        if why := log.missing(folder):
            raise LogMissing(why)
    lacking = sorted({package for name in plan.refit for package in BASELINES[name].needs if not find_spec(package)})
    if lacking:
        raise RefitUnavailable(f"batch models need {', '.join(lacking)}: pip install {' '.join(lacking)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, measure, print; status 1 where the check fails, 2 where something that it takes is missing."""
    options = _options(arguments)
    logs, folder = [log for name, log in LOGS.items() if options.set in (None, name)], data_folder()
    errors = Console(stderr=True)
    try:
        _prepare(logs, folder, options.plan)
    except (LogMissing, RefitUnavailable) as error:
        errors.print(str(error), soft_wrap=True, markup=False)
        sys.exit(2)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        tasks: dict[tuple[str, str], Any] = {}

        def told(log: str, what: str, done: int, of: int) -> None:
            if (log, what) not in tasks:
                tasks[log, what] = progress.add_task(f"{log}: {what}", total=of)
            progress.update(tasks[log, what], completed=done, total=of)

        measured = measure_all(logs, folder, options.plan, options.jobs, told)
    found: dict[str, Any] = {name: result.figures for name, result in measured.items()}
    failed: list[str] = []
    if options.record:
        record(measured)
    if options.check:
        try:
            verdicts, failed = check(measured)
        except NotComparable as error:
            errors.print(str(error), soft_wrap=True, markup=False)
            sys.exit(1)
        found["check"] = {"passed": not failed, **verdicts}
    if options.out is not None:
        with options.out.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            emit(found, n=options.plan.seeds, as_json=True)
    emit(found, n=options.plan.seeds, as_json=options.json)
    for line in failed:
        errors.print(line, soft_wrap=True, markup=False)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
