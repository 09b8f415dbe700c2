"""Whether a worker's own figures agree with `headrace evaluate`, over one log: through Kafka, and with no broker.

    python -m bench.agreement --json

A real `headrace worker` gets the whole log through a broker, as fast as it learns, ranks every positive before it learns it
(`HEADRACE_SCORING_SHARE=1`) and exports its recall, NDCG and lags. Then the evaluator goes over the same log with `--lag` and
`--evidence-lag` set to those that the worker has measured: how many events its lists did not know of their own users, and how many
of what all users share. With `--more` also with `--lag` alone, set to the second, and with none.

What is made alike: positives are those of `topics.signals` on both sides, the rate of the clock (`positives_per_day`) is the
evaluator's, the catalogue is published by its own times among the events, and both leave out the first part of the positives. What
differs: partitions, batches, the time that evidence takes, and with them the floats.

How: at most `--most-waiting` events are sent and not learned: the worker never waits for events, what it has not read yet is no part
of the lag, and no shard gets far ahead of the others. 0 sends all at once: then shards are read thousands of events at a time, some of
which know of others what is later than themselves, which no lag says. Errors of the ratios are those of two independent samples, too
large rather than too small: both have the same targets.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.logs import LOGS, Read, data_folder, first_of
from bench.report import SCRATCH, emit
from cli.demo_probes import read_totals
from cli.prequential import Evaluator, first_positives, row_starts
from cli.worker_client import WorkerClient
from cli.worker_process import WorkerProcess, handled
from infra.embedded_kafka import EmbeddedKafka
from infra.logs import configure_logs
from ingestion.produce import produce_events, produce_videos
from ingestion.source import read_event_table, read_videos
from topics.catalog import Video
from topics.interactions import Interaction

FOLDER = SCRATCH / "agreement"
#: Of both sides; the rest is the evaluator's alone or needs a label that no live event has.
ARMS = ("served", "popularity", "item_knn", "mf")
#: How far the ratio of served recalls may be from 1.
AIM = 0.03
STALL_S = 120.0
PAUSE_S = 0.001


class Stalled(RuntimeError):
    """The worker makes no progress."""


class Live:
    """A worker that is fed, and asked for what it counts."""

    def __init__(self, bootstrap: str, worker: WorkerProcess, client: WorkerClient, most_waiting: int) -> None:
        self._bootstrap, self._worker, self._client = bootstrap, worker, client
        self._most_waiting = most_waiting
        self._sent = self._done = 0
        self._heard_s = time.monotonic()

    def send(self, events: Iterator[Interaction], due: list[tuple[int, str, Video]]) -> None:
        """Send events, each behind the videos that were published before it, and wait until they are learned.

        Parameters
        ----------
        due : published_ms, id and video of those that are to come, the latest first
        """
        produce_events(self._bootstrap, self._paced(events, due))
        self._wait(0)

    def _paced(self, events: Iterator[Interaction], due: list[tuple[int, str, Video]]) -> Iterator[Interaction]:
        for event in events:
            if due and due[-1][0] <= event.at_ms:
                self.publish(due, event.at_ms)
            if self._most_waiting and self._sent - self._done >= self._most_waiting:
                self._wait(self._most_waiting - 1)
            self._sent += 1
            yield event

    def publish(self, due: list[tuple[int, str, Video]], at_ms: int) -> None:
        """Send the videos that were published by then."""
        fresh = []
        while due and due[-1][0] <= at_ms:
            fresh.append(due.pop()[1:])
        produce_videos(self._bootstrap, fresh)

    def _wait(self, waiting: int) -> None:
        """Wait until no more than so many events are sent and not learned."""
        while self._sent - self._done > waiting:
            if not self._worker.running or time.monotonic() - self._heard_s > STALL_S:
                raise Stalled(f"{self._done} of {self._sent} events are learned; {self._worker.log_tail}")
            done = handled(read_totals(self._client))
            if done > self._done:
                self._done, self._heard_s = done, time.monotonic()
            else:
                time.sleep(PAUSE_S)

    def counted(self) -> dict[str, float]:
        """The worker's sums since its start."""
        names = {f"{what}.{arm}": f'headrace_online_{what}{{arm="{arm}"}}' for what in ("hits", "gain") for arm in ARMS}
        names |= {part: f'headrace_online_lag_events_sum{{part="{part}"}}' for part in ("own", "shared")}
        names |= {name: f"headrace_online_{name}" for name in ("scored", "failed", "cpu_seconds")}
        return {name: self._client.gauge(metric) for name, metric in names.items()}


def live(read: Read, per_day: float, options: argparse.Namespace) -> dict[str, Any]:
    """Let a worker learn the log; returns what it says of the positives behind the warm-up."""
    table = read.table
    first = first_positives(table, read.positive)
    cut = int(row_starts(table, first)[int(options.warmup * len(first))])
    shutil.rmtree(FOLDER, ignore_errors=True)
    with EmbeddedKafka(FOLDER / "kafka") as kafka:
        settings = {"partitions": options.partitions, "positives_per_day": per_day, "scoring_share": 1.0}
        worker = WorkerProcess("agreement", kafka.bootstrap, FOLDER / "worker", **settings)
        try:
            worker.start()
            began = time.monotonic()
            while worker.ready() is None:
                if time.monotonic() - began > STALL_S:
                    raise Stalled(f"the worker is not ready: {worker.log_tail}")
                time.sleep(0.1)
            client = WorkerClient(worker.url)
            feed = Live(kafka.bootstrap, worker, client, options.most_waiting)
            due = sorted(((video.published_ms or 0, video_id, video) for video_id, video in read.videos), reverse=True)
            feed.publish(due, int(table.at_ms[0]))
            known = len(read.videos) - len(due)
            while client.gauge("headrace_videos") < known:
                time.sleep(0.1)
            began = time.monotonic()
            feed.send(table.interactions(0, cut), due)
            before = feed.counted()
            feed.send(table.interactions(cut), due)
            after = feed.counted()
            seconds = time.monotonic() - began
            client.close()
        finally:
            worker.close()
    counted = {name: after[name] - before[name] for name in after}
    n = int(counted["scored"])
    return {
        "n": n,
        "failed": int(counted["failed"]),
        "lag_events": {part: round(counted[part] / max(n, 1), 1) for part in ("own", "shared")},
        "events_per_s": round(len(table) / seconds),
        "list_us": round(1e6 * counted["cpu_seconds"] / max(n, 1)),
        "recall": {arm: round(counted[f"hits.{arm}"] / max(n, 1), 5) for arm in ARMS},
        "ndcg": {arm: round(counted[f"gain.{arm}"] / max(n, 1), 5) for arm in ARMS},
    }


def evaluated(read: Read, lag: int, evidence_lag: int, options: argparse.Namespace) -> dict[str, Any]:
    """What `headrace evaluate --lag --evidence-lag` says."""
    run = Evaluator(
        read.table, read.videos, read.positive, warmup=options.warmup, lag=lag, evidence_lag=evidence_lag, arms=ARMS
    ).run()
    means = {arm: run.positions.metrics(arm) for arm in ARMS}
    return {
        "n": run.n,
        "lag": run.lag,
        "evidence_lag": run.evidence_lag,
        "recall": {arm: means[arm]["recall@10"] for arm in ARMS},
        "ndcg": {arm: means[arm]["ndcg@10"] for arm in ARMS},
    }


def ratios(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The worker's figures over the evaluator's, by arm; `se` of recall's as of independent samples; NaN where there are no hits."""
    out = {}
    for arm in ARMS:
        a, b = found["recall"][arm], expected["recall"][arm]
        ratio = a / b if b else float("nan")
        relative = [(1 - share) / (share * n) for share, n in ((a, found["n"]), (b, expected["n"])) if share and n]
        ndcg = found["ndcg"][arm] / expected["ndcg"][arm] if expected["ndcg"][arm] else float("nan")
        se = ratio * float(np.sqrt(sum(relative)))
        out[arm] = {"recall": round(ratio, 4), "se": round(se, 4), "ndcg": round(ndcg, 4)}
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, compare, print."""
    options = _parser().parse_args(arguments)
    configure_logs(level="warning")
    if options.events is not None:
        table = read_event_table(options.events)
        read = Read(table, list(read_videos(options.videos)) if options.videos else [], table.positive())
    else:
        read = LOGS["kuairand"].read(data_folder())
        read = read._replace(positive=read.table.positive())
    if options.share < 1.0:
        table = first_of(read.table, options.share)
        read = read._replace(table=table, positive=table.positive())
    per_day = Evaluator(read.table, read.videos, read.positive, warmup=options.warmup).result.positives_per_day
    found = live(read, per_day, options)
    print(f"worker: {found}", file=sys.stderr, flush=True)
    lags = found["lag_events"]
    expected = evaluated(read, round(lags["own"]), round(lags["shared"]), options)
    figures = {"worker": found, "evaluate": expected, "ratios": ratios(found, expected)}
    if options.more:
        for name, lag in (("one_lag", round(lags["shared"])), ("no_lag", 0)):
            figures[name] = evaluated(read, lag, lag, options)
            figures[name]["ratios"] = ratios(found, figures[name])
    off = abs(figures["ratios"]["served"]["recall"] - 1.0)
    emit({**figures, "agree": off <= AIM, "aim": AIM, "events": len(read.table)}, n=found["n"], as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.agreement", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--events", type=Path, help="file of events (default KuaiRand)")
    parser.add_argument("--videos", type=Path, help="file of their catalogue")
    parser.add_argument("--share", type=float, default=1.0, help="of the events, the first (default all)")
    parser.add_argument(
        "--warmup", type=float, default=0.5, help="share of the positives left out (default %(default)s)"
    )
    parser.add_argument("--partitions", type=int, default=4, help="(default %(default)s)")
    parser.add_argument("--most-waiting", type=int, default=500, help="sent and not learned (default %(default)s)")
    parser.add_argument("--more", action="store_true", help="also evaluate with --lag alone, and with none")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


if __name__ == "__main__":
    main()
