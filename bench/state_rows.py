"""Made-up rows of state, as checkpoints write them: users with histories and seen sets, videos with factors, lists and records.

A user's row is one of a few thousand states under another id, for making states takes longer than restoring them.
"""

from collections.abc import Iterator

import numpy as np

from bench.memory import fill_users
from ingestion.simulate import Audience
from state import rows
from state.engine import Engine, EngineOptions
from topics.partitions import partition_of

PARTITIONS = 4
#: Share of the rows that are users'; a video has three rows.
USERS_SHARE = 0.85
STATES = 5_000
MEAN_SEEN = 50.0
#: Neighbours in a list, in the mean of a log-normal; few videos have full lists.
MEAN_LINKS = {"covisitation": 60.0, "markov": 25.0}

Row = tuple[bytes, bytes]
#: Table ("users" or "items"), partition, key and value.
Placed = tuple[str, int, bytes, bytes]


def make_rows(count: int, seed: int = 1) -> Iterator[Placed]:
    """Yield about `count` rows with distinct keys, partitions mixed, and last a cut for each shard."""
    videos = max(1, int(count * (1 - USERS_SHARE)) // 3)
    users = count - 3 * videos
    states, items = _states(videos, min(STATES, users), seed)
    for key, value in items:
        yield "items", _partition(key), key, value
    for number in range(users):
        key, value = states[number % len(states)]
        if number >= len(states):
            key = f"{key.decode()}~{number // len(states)}".encode()
        yield "users", _partition(key), key, value
    for partition in range(PARTITIONS):
        yield "users", partition, rows.CUT_KEY, rows.encode_cut(rows.Cut({}))


def _partition(key: bytes) -> int:
    return partition_of(key[2:], PARTITIONS)


def _states(videos: int, users: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows of users, and of videos."""
    rng = np.random.default_rng(seed)
    engine = Engine(EngineOptions(PARTITIONS, max_users=users, max_videos=videos, seed=seed), b"bench")
    records = [
        (rows.VIDEO + video_id.encode(), rows.encode_video_row(video))
        for video_id, video in Audience(seed, 1, videos).videos()
    ]
    engine.take_rows(records)
    everything = np.arange(videos, dtype=np.int32)
    engine.replica.counts[:videos] = rng.poisson(20.0, engine.replica.counts[:videos].shape)
    engine.popularity.columns["plays"][:videos] = rng.poisson(20.0, videos)
    for model in (engine.covisitation, engine.markov):
        neighbours = model.columns["neighbour"]
        slots = neighbours.shape[1]
        filled = np.minimum(slots, rng.lognormal(np.log(MEAN_LINKS[model.name]) - 0.5, 1.0, videos)).astype(int)
        linked = np.arange(slots) < filled[:, None]
        neighbours[:videos] = np.where(linked, rng.integers(0, videos, linked.shape), -1)
        model.columns["weight"][:videos] = np.where(linked, rng.exponential(1.0, linked.shape), 0.0)
    fill_users(engine, users, MEAN_SEEN, videos, seed)
    engine.users.p[:users] = rng.normal(0.0, 0.3, engine.users.p[:users].shape)
    items = [
        *records,
        *rows.encode_items(engine.replica, everything),
        *rows.encode_neighbours(engine.replica, everything),
    ]
    return rows.encode_users(engine.users, np.arange(users, dtype=np.int32), engine.replica), items
