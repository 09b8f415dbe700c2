"""Memory that a worker keeps a user and a video, by the growth of its resident set.

Each half is filled in a process of its own that begins with an empty engine and loaded code. What RocksDB holds (a fixed cache
a shard) is left out. Users: histories of 20 and seen sets that learning has filled, event by event, so that abandoned room
counts; how many videos a user has seen is drawn log-normally, from 20 on. Videos: catalogue records, content vectors, full
neighbour lists, and the graph index over all of them.

    python -m bench.memory --json
"""

import argparse
import ctypes
import gc
import json
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.object_size import attribute_bytes
from bench.report import SCRATCH, emit
from ingestion.simulate import START_MS, Audience
from state import rows
from state.engine import Engine, EngineOptions
from state.types import Int32Array
from state.users import ACT_SEEN, HISTORY, SEEN_MAX
from topics.catalog import decode_video_value, encode
from topics.interactions import event_code
from topics.partitions import partition_of

#: Of the logarithm of how many videos a user has seen; the spread is that of KuaiRand-Pure.
SEEN_SPREAD = 0.94
#: Events given to the users at once.
BATCH = 10_000


def resident_bytes() -> int:
    """The process's resident set, after all that is free has gone back to the system."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def seen_counts(n: int, mean: float, rng: np.random.Generator) -> Int32Array:
    """How many videos each of `n` users has seen: log-normal about `mean`, at least a whole history, at most the bound."""
    drawn = rng.lognormal(np.log(mean) - SEEN_SPREAD**2 / 2, SEEN_SPREAD, n)
    # What the lower bound adds is taken from the rest, so that the mean stays as asked.
    for _ in range(20):
        clipped = np.clip(drawn, HISTORY, SEEN_MAX)
        drawn = drawn * (mean / clipped.mean())
    return np.clip(drawn, HISTORY, SEEN_MAX).round().astype(np.int32)


def interleaved(counts: Int32Array, rng: np.random.Generator) -> tuple[Int32Array, Int32Array]:
    """Events of all users in one order: each event's user, and its number among those the user has left (0 is the last).

    Parameters
    ----------
    counts : int32, shape (n,); events a user
    """
    users = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    rng.shuffle(users)
    order = np.argsort(users, kind="stable")
    left = np.empty(len(users), np.int32)
    left[order] = np.concatenate([np.arange(count, dtype=np.int32)[::-1] for count in counts])
    return users, left


def fill_users(engine: Engine, n: int, mean_seen: float, videos: int, seed: int) -> dict[str, Any]:
    """Let `n` users watch and like videos."""
    rng = np.random.default_rng(seed)
    counts = seen_counts(n, mean_seen, rng)
    users, left = interleaved(counts, rng)
    held = engine.users
    watched, liked = event_code("watch"), event_code("like")
    for first in range(0, len(users), BATCH):
        mine = users[first : first + BATCH]
        slots = np.array(
            [
                held.slot_of(f"user-{user}", partition_of(f"user-{user}".encode(), engine.options.partitions))
                for user in mine.tolist()
            ],
            np.int32,
        )
        positive = (left[first : first + BATCH] < HISTORY).astype(np.uint8)
        held.admit(
            slots,
            rng.integers(0, videos, len(mine)).astype(np.int32),
            rng.integers(1, 2**63, len(mine)).astype(np.uint64) * np.uint64(2),
            rng.integers(1, 2**63, len(mine)).astype(np.uint64),
            np.where(positive, liked, watched).astype(np.uint8),
            np.full(len(mine), ACT_SEEN, np.uint8),
            positive,
            START_MS + np.arange(first, first + len(mine), dtype=np.int64),
            np.ones(len(mine), np.bool_),
        )
    return {"mean_seen": round(float(counts.mean()), 1), "median_seen": int(np.median(counts))}


def fill_videos(engine: Engine, records: Path) -> dict[str, Any]:
    """Publish the videos of a file of (id, record) lines, fill their lists, and index them."""
    rng = np.random.default_rng(engine.options.seed)
    value_bytes = 0
    with records.open() as lines:
        while batch := [json.loads(line) for line in islice(lines, BATCH)]:
            value_bytes += sum(len(text) for _, text in batch)
            engine.take_rows([_video_row(video_id, text) for video_id, text in batch])
    n = len(engine.replica)
    for model in (engine.covisitation, engine.markov):
        neighbours = model.columns["neighbour"]
        neighbours[:n] = rng.integers(0, n, neighbours[:n].shape)
        model.columns["weight"][:n] = 1.0
    before_index = resident_bytes()
    while engine.index.waiting:
        engine.index.refresh(engine.mf.columns["q"], engine.mf.columns["b"])
    return {"record_bytes": round(value_bytes / n, 1), "index_rss": resident_bytes() - before_index, "n": n}


def _video_row(video_id: str, text: str) -> tuple[bytes, bytes]:
    return rows.VIDEO + video_id.encode(), rows.encode_video_row(decode_video_value(text.encode()))


def measure_users(n: int, mean_seen: float, videos: int, seed: int) -> dict[str, Any]:
    """Growth and parts a user; for a process of its own."""
    _warm(seed)
    engine = Engine(EngineOptions(max_users=max(n, EngineOptions.max_users), seed=seed), b"bench")
    before = resident_bytes()
    about = fill_users(engine, n, mean_seen, videos, seed)
    grown = resident_bytes() - before
    parts = attribute_bytes(engine.users, set())
    return {"grown": grown, "parts": parts, **about}


def measure_videos(n: int, seed: int, records: Path) -> dict[str, Any]:
    """Growth and parts a video; for a process of its own."""
    _warm(seed)
    engine = Engine(EngineOptions(max_videos=max(n, EngineOptions.max_videos), seed=seed), b"bench")
    before = resident_bytes()
    about = fill_videos(engine, records)
    grown = resident_bytes() - before
    counted: set[int] = set()
    replica = attribute_bytes(engine.replica, {id(engine.replica.models)})
    parts = {f"replica.{name}": size for name, size in replica.items()}
    for name, model in engine.replica.models.items():
        columns = {f"{name}.{column}": values.nbytes for column, values in model.columns.items()}
        parts |= columns
    parts |= {f"index.{name}": size for name, size in attribute_bytes(engine.index, counted).items()}
    return {"grown": grown, "parts": parts, **about}


def _warm(seed: int) -> None:
    """Load kernels and libraries, which are no user's and no video's."""
    engine = Engine(EngineOptions(max_users=10, max_videos=10, seed=seed), b"warm")
    fill_users(engine, 10, 25.0, 10, seed)
    engine.take_rows([_video_row("warm", '{"title": "warm"}')])
    engine.index.refresh(engine.mf.columns["q"], engine.mf.columns["b"])


def write_records(n: int, seed: int, path: Path) -> None:
    """Make up a catalogue of `n` videos; for a process of its own, whose memory ends with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lines:
        for video_id, video in Audience(seed, 1, n).videos():
            lines.write(json.dumps([video_id, encode(video).decode()]) + "\n")


def apart(measure: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Call `measure` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, tuple(arguments))


def per_piece(parts: dict[str, int], n: int, grown: int) -> dict[str, float]:
    """Bytes a piece by part, largest first, at least 1 byte each.

    `rest` is what grew and is in no part, such as the graph (compiled code has it); below 0, parts are not all in use yet.
    """
    named = sorted(parts.items(), key=lambda part: -part[1])
    shares = {name: round(size / n, 1) for name, size in named if size >= n}
    return {**shares, "rest": round((grown - sum(parts.values())) / n, 1)}


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--seen", type=float, default=50.0, help="mean of videos seen a user")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    records = SCRATCH / f"videos-{options.videos}-{options.seed}.jsonl"
    apart(write_records, (options.videos, options.seed, records))
    users = apart(measure_users, (options.users, options.seen, options.videos, options.seed))
    videos = apart(measure_videos, (options.videos, options.seed, records))
    records.unlink()
    emit(
        {
            "bytes_per_user": round(users["grown"] / options.users),
            "bytes_per_video": round(videos["grown"] / options.videos),
            "users": options.users,
            "videos": options.videos,
            "mean_seen": users["mean_seen"],
            "median_seen": users["median_seen"],
            "video_record_bytes": videos["record_bytes"],
            "user_parts": per_piece(users["parts"], options.users, users["grown"]),
            "video_parts": per_piece(videos["parts"], options.videos, videos["grown"]),
            "index_rss_per_video": round(videos["index_rss"] / options.videos),
        },
        n=1,
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
