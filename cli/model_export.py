"""A snapshot as plain files that anyone can read: arrays (.npy), tables (.parquet) and weights (.json).

Flows in: the files of a snapshot. Flows out, in one folder: `videos.parquet`, whose n-th row is what the n-th row of every array is
of; `video_embeddings.npy`, `item_factors.npy`, `item_biases.npy`; `ranker.json`, `heads.json`; `manifest.json`; and, if asked for,
`user_profiles.parquet`. Always holds: they are made by the code that serves, so they are what a worker that starts from it would hold.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from online_models.content import STEPS
from state import rows
from state.engine import Engine, EngineOptions
from state.rows import Cut
from state.shard import Shard
from state.snapshot import MANIFEST, Manifest, encode_manifest, unpack
from state.snapshot_store import SnapshotStore
from state.store import MemoryStore
from topics.interactions import EVENTS


def export_snapshot(
    store: SnapshotStore, manifest: Manifest, folder: Path, target: Path, *, users: bool = False
) -> list[str]:
    """Write the files into `target`, which may be missing; returns their names.

    Parameters
    ----------
    folder : for what is needed meanwhile; it is there, and empty
    users : also what is known of each user

    Raises
    ------
    SnapshotError
        A file is not as it was saved.
    """
    tables = ("items", "users") if users else ("items",)
    for file in manifest.files:
        if file.table in tables:
            store.fetch(manifest, file, folder / file.name)
    engine = _engine(manifest, folder)
    target.mkdir(parents=True, exist_ok=True)
    replica = engine.replica
    shown = np.flatnonzero(replica.active[: len(replica)] | (replica.counts[: len(replica)].sum(axis=1) > 0))
    shown = shown[~replica.deleted[shown]].astype(np.int32)
    arrays = {
        "video_embeddings": engine.content.columns["content"][shown].astype(np.float32) / np.float32(STEPS),
        "item_factors": replica.base["q"][shown],
        "item_biases": replica.base["b"][shown],
    }
    for name, array in arrays.items():
        np.save(target / f"{name}.npy", array, allow_pickle=False)
    pq.write_table(_videos(engine, shown), target / "videos.parquet")
    (target / "ranker.json").write_bytes(_json(engine.ranker.weights()))
    (target / "heads.json").write_bytes(_json(engine.heads.weights()))
    (target / MANIFEST).write_bytes(encode_manifest(manifest))
    written = [*(f"{name}.npy" for name in arrays), "videos.parquet", "ranker.json", "heads.json", MANIFEST]
    if users:
        _write_users(target / "user_profiles.parquet", manifest, folder)
        written.append("user_profiles.parquet")
    return written


def _engine(manifest: Manifest, folder: Path) -> Engine:
    """An engine that holds all videos and what all shards have learned of them."""
    chosen = manifest.configuration
    engine = Engine(
        EngineOptions(
            partitions=manifest.partitions,
            max_users=1,
            # Whatever bound the workers had: all that they saved has to fit.
            max_videos=max(int(chosen["max_videos"]), manifest.rows["items"]),
            positives_per_day=float(chosen["positives_per_day"]),
            seed=int(chosen["seed"]),
        ),
        b"export",
    )
    for partition in range(manifest.partitions):
        items = MemoryStore()
        for batch in unpack(folder / manifest.file("items", partition).name):
            items.write(batch, 0)
        engine.add_shard(Shard(partition, MemoryStore(), items, Cut({})))
        engine.replica.serve_base(partition)
    return engine


def _videos(engine: Engine, shown: Any) -> pa.Table:
    replica = engine.replica
    numbers = shown.tolist()
    ids = replica.ids_of(numbers)
    known = [replica.video(row) for row in numbers]
    counts = replica.counts[shown]
    popularity = engine.popularity.columns
    return pa.table(
        {
            "video_id": ids,
            "title": pa.array([None if video is None else video.title for video in known], pa.string()),
            "categories": pa.array(
                [[] if video is None else list(video.categories) for video in known], pa.list_(pa.string())
            ),
            "positives": popularity["plays"][shown],
            **{f"events_{kind}": counts[:, number] for number, kind in enumerate(EVENTS)},
        }
    )


def _json(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


_USERS = pa.schema(
    [
        ("user_id", pa.string()),
        ("factors", pa.list_(pa.float32())),
        ("history", pa.list_(pa.string())),
        *((f"events_{kind}", pa.int64()) for kind in EVENTS),
        ("last_ms", pa.int64()),
        ("attributes", pa.string()),
    ]
)


def _write_users(path: Path, manifest: Manifest, folder: Path) -> None:
    with pq.ParquetWriter(path, _USERS) as writer:
        for partition in range(manifest.partitions):
            for batch in _user_batches(folder / manifest.file("users", partition).name):
                writer.write_table(pa.Table.from_pylist(batch, schema=_USERS))


def _user_batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Users, a row each: what is learned of them, and what is said. The latter comes first in a file, and waits in memory."""
    said: dict[bytes, str] = {}
    for batch in unpack(path):
        found = []
        for key, value in batch:
            if key.startswith(rows.ATTRIBUTES):
                attributes = msgspec.json.encode(rows.decode_attributes(value)).decode()
                said[key[len(rows.ATTRIBUTES) :]] = attributes
            elif key.startswith(rows.USER):
                user_id = key[len(rows.USER) :]
                row = rows.read_user(value)
                events = {f"events_{kind}": int(row["counts"][number]) for number, kind in enumerate(EVENTS)}
                learned = {"factors": row["p"].tolist(), "history": row["history"], "last_ms": int(row["last_ms"])}
                found.append({"user_id": user_id.decode(), "attributes": said.pop(user_id, None), **learned, **events})
        if found:
            yield found
    if said:
        yield [{"user_id": user_id.decode(), "attributes": attributes} for user_id, attributes in said.items()]
