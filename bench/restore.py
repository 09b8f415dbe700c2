"""Rows/s at which a worker with an empty disk rebuilds its state from the changelogs, ours beside stock Faust's.

Both restore the same rows (`bench.state_rows`: users, videos, neighbour lists and catalogue records), each from changelogs of its
own on one broker, in turns, each alone on a core beside the broker's. Ours ends when the stores are written and the videos are in
the replica; stock Faust's when its table counts as recovered. `warm` is a start on a disk that lacks only a tail, `snapshot` one
from a snapshot of all but that tail, on an empty disk.

    python -m bench.restore --json
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from agents.snapshot_save import Saved, save
from bench import changelogs
from bench.contender import on_core
from bench.report import SCRATCH, emit, summary
from bench.state_rows import PARTITIONS, Placed, make_rows
from infra.embedded_kafka import EmbeddedKafka
from infra.logs import configure_logs
from state.snapshot_store import SnapshotStore
from topics import specs

APP, STOCK = "bench-restore", "bench-restore-stock"
STOCK_SOURCE = "bench-restore-source"
FOLDER = SCRATCH / "restore"
#: A run that takes longer has hung.
TIMEOUT_S = 1_200.0


class RestoreFailed(RuntimeError):
    """A run ended without a result, or without all rows; the message has the end of its output."""


def timed(module: str, arguments: Sequence[str], core: int, rows: int) -> dict[str, float]:
    """Run `module` alone on a core; returns what it printed last. Raises RestoreFailed."""
    with on_core(core):
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    try:
        # Faust's worker writes a control sequence for terminals before the object.
        last = done.stdout.splitlines()[-1]
        found: dict[str, float] = json.loads(last[last.index("{") :])
    except (IndexError, ValueError):
        raise RestoreFailed(f"{module} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}") from None
    if found["rows"] != rows:
        raise RestoreFailed(f"{module} restored {found['rows']:.0f} of {rows} rows")
    return found


def changed(rows: Sequence[Placed], count: int) -> list[Placed]:
    """The last rows of `rows` once more, as checkpoints after a stop would write them."""
    return list(rows[-count:])


def run(bootstrap: str, options: argparse.Namespace, core: int) -> dict[str, Any]:
    """Fill the changelogs, and restore from them."""
    rows = list(make_rows(options.rows, options.seed))
    topic_of = {table: specs.changelog_topic(APP, "v1", table) for table in ("users", "items")}
    specs.ensure_topics(bootstrap, specs.specs(APP, "v1", PARTITIONS))
    for _ in range(options.rewritten):
        size_bytes = changelogs.write(bootstrap, rows, topic_of, transactional=True)
    stock_topic = f"{STOCK}-rows-changelog"
    specs.ensure_topics(bootstrap, [specs.TopicSpec(STOCK_SOURCE, PARTITIONS)])
    changelogs.create(bootstrap, [stock_topic], PARTITIONS)
    changelogs.write(bootstrap, of_one_table(rows), {"rows": stock_topic}, transactional=False)

    ours: list[dict[str, float]] = []
    stock: list[dict[str, float]] = []
    for number in range(options.runs):
        folder = FOLDER / f"ours-{number}"
        ours.append(timed("bench.restoring", [bootstrap, APP, str(folder), str(PARTITIONS)], core, len(rows)))
        if not options.ours_only:
            place = FOLDER / f"stock-{number}"
            arguments = [bootstrap, STOCK, str(place), str(PARTITIONS), STOCK_SOURCE]
            stock.append(timed("bench.peers.stock_faust_restore", arguments, core, len(rows)))
            shutil.rmtree(place)
    snapshots = str(FOLDER / "snapshots")
    saving = FOLDER / "saving"
    saving.mkdir()
    began = time.monotonic()
    manifest = save(Saved(bootstrap, APP, "v1", PARTITIONS, saving, ""), SnapshotStore(snapshots, APP))
    save_s = time.monotonic() - began
    tail = changed(rows, options.tail)
    changelogs.write(bootstrap, tail, topic_of, transactional=True)
    warm, started = [], []
    for number in range(options.runs):
        folder = FOLDER / f"ours-{number}"
        warm.append(timed("bench.restoring", [bootstrap, APP, str(folder), str(PARTITIONS)], core, len(rows)))
        shutil.rmtree(folder)
        arguments = [bootstrap, APP, str(folder), str(PARTITIONS), snapshots]
        started.append(timed("bench.restoring", arguments, core, len(rows)))
        shutil.rmtree(folder)
    return {
        **rates(len(rows), ours, stock),
        "rows": len(rows),
        "bytes_per_row": round(size_bytes / len(rows), 1),
        "load_s": round(median(found["load_s"] for found in ours), 3),
        "cpu_s": round(median(found["cpu_s"] for found in ours), 3),
        "warm": {
            "tail_rows": len(tail),
            "seconds": summary([found["seconds"] for found in warm], 3),
            "load_s": round(median(found["load_s"] for found in warm), 3),
            "videos": int(warm[-1]["videos"]),
        },
        "snapshot": {
            "seconds": summary([found["seconds"] for found in started], 3),
            "cpu_s": round(median(found["cpu_s"] for found in started), 3),
            "of_changelog": round(
                median(run["seconds"] for run in started) / median(run["seconds"] for run in ours), 2
            ),
            "megabytes": round(manifest.size_bytes / 1e6, 1),
            "save_s": round(save_s, 3),
        },
    }


def of_one_table(rows: Sequence[Placed]) -> list[Placed]:
    """The rows as one table's; keys of the two differ by their prefix, those of the cuts, one a shard, are made to differ."""
    return [
        ("rows", partition, key if key[:1] != b"!" else b"%b%d" % (key, partition), value)
        for _, partition, key, value in rows
    ]


def rates(rows: int, ours: Sequence[Mapping[str, float]], stock: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Rows/s of both, and their ratio; without `stock` ours alone."""
    mine = summary([rows / run["seconds"] for run in ours], 0)
    found = {"rows_per_s": mine["median"], "spread": {"ours": mine}}
    if stock:
        theirs = summary([rows / run["seconds"] for run in stock], 0)
        found["stock_faust_rows_per_s"] = theirs["median"]
        found["ratios"] = {"stock_faust": round(mine["median"] / theirs["median"], 2)}
        found["spread"]["stock_faust"] = theirs
    return found


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tail", type=int, default=5_000, help="rows that the warm disk lacks")
    parser.add_argument("--rewritten", type=int, default=1, help="times that each row is in the changelogs")
    parser.add_argument("--ours-only", action="store_true", help="leave stock Faust out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    configure_logs(level="warning")
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the broker, one for who restores")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with on_core(cores[0]):
        broker = EmbeddedKafka(FOLDER)
        broker.start()
        try:
            figures = run(broker.bootstrap, options, cores[1])
        finally:
            broker.stop()
    shutil.rmtree(FOLDER)
    emit(figures, n=options.runs, as_json=options.json)


if __name__ == "__main__":
    main()
