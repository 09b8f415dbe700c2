"""The catalog agent: keeps videos and users as the `videos` and `users` topics describe them.

Flows in: compacted records of one shard; a record without a value is a tombstone. Flows out: catalogue rows, deletion marks,
attributes. Always holds: a deleted video is in no list, index or history of this worker when its step returns.
"""

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from agents import expiry
from agents.inbox import bury, due, took
from state import rows
from state.engine import Engine
from state.errors import StateFull
from state.segments import segments_of
from state.shard import Shard
from topics.catalog import User, Video, decode_user, decode_video, encode
from topics.record_batch import RecordLike
from topics.rejected import Reason, Rejected
from topics.specs import USERS, VIDEOS


def step(engine: Engine, shard: Shard, topic: str, records: Sequence[RecordLike]) -> None:
    """Apply the records of `videos` or `users` that the state does not hold yet."""
    videos: list[tuple[RecordLike, str, Video]] = []
    for record in due(shard, topic, records):
        try:
            if topic == USERS:
                _apply_user(engine, shard, record)
                continue
            video_id, video = decode_video(
                record.key, record.value, partition=shard.partition, partitions=engine.options.partitions
            )
            if video is not None:
                videos.append((record, video_id, video))
                continue
            # Together, for speed; in order, as a deletion may be of one of them.
            _publish_all(engine, shard, videos)
            _delete_video(engine, shard, video_id)
        except (Rejected, StateFull) as error:
            _refuse(shard, topic, record, error)
    _publish_all(engine, shard, videos)
    took(shard, topic, records)


def _refuse(shard: Shard, topic: str, record: RecordLike, error: Rejected | StateFull) -> None:
    why = error if isinstance(error, Rejected) else Rejected(Reason.STATE_FULL, str(error))
    shard.totals[f"dead_{topic}"] += 1
    bury(shard, topic, record, why)


def _publish_all(engine: Engine, shard: Shard, videos: list[tuple[RecordLike, str, Video]]) -> None:
    """Publish and empty the list; where not all have room, those that do."""
    try:
        publish(engine, shard, [(video_id, video) for _, video_id, video in videos])
    except StateFull:
        for record, video_id, video in videos:
            try:
                publish(engine, shard, [(video_id, video)])
            except StateFull as error:
                _refuse(shard, VIDEOS, record, error)
    videos.clear()


def publish(engine: Engine, shard: Shard, videos: Sequence[tuple[str, Video]]) -> None:
    """Put videos into the catalogue, or change them; a deleted one comes back with nothing learned."""
    if not videos:
        return
    described = engine.publish(videos)
    expiry.meet(engine, shard, described, expiry.today(engine, shard))
    shard.dirty_items.add(described)
    for video_id, video in videos:
        key = video_id.encode()
        shard.item_rows[rows.VIDEO + key] = rows.encode_video_row(video)
        shard.item_rows[rows.DELETED + key] = None


def _delete_video(engine: Engine, shard: Shard, video_id: str) -> None:
    key = video_id.encode()
    if engine.replica.find(video_id) is None:
        # Marked all the same: where all topics are read anew, the video's old events are still to come.
        shard.totals["unknown_tombstones"] += 1
    engine.unpublish(video_id)
    for prefix in (rows.ITEM, rows.NEIGHBOURS, rows.VIDEO):
        shard.item_rows[prefix + key] = None
    # The mark outlives the evidence still under way, which would otherwise bring the video back.
    shard.item_rows[rows.DELETED + key] = rows.DELETED_MARK


def _apply_user(engine: Engine, shard: Shard, record: RecordLike) -> None:
    user_id, user = decode_user(
        record.key, record.value, partition=shard.partition, partitions=engine.options.partitions
    )
    if user is not None and user.erased_ms is not None:
        # What is still to come is not erased.
        user = msgspec.structs.replace(user, erased_ms=min(user.erased_ms, record.timestamp))
    kept = describe_user(engine, shard, user_id, user)
    if kept is None or kept.erased_ms is None or (user is not None and user.erased_ms == kept.erased_ms):
        return
    # The topic is compacted to this record, and whoever reads it anew would not know of the erasure: the mark is written once more,
    # by the version that is the first to read the record. A replay meets that record later on.
    if record.offset >= shard.judged.get(USERS, 0):
        with suppress(Rejected):  # it is as large as records may be already
            shard.carried[user_id.encode()] = encode(kept)


def describe_user(engine: Engine, shard: Shard, user_id: str, user: User | None) -> User | None:
    """Keep what is known of a user beside events, None for nothing any more; one who is in memory has it at once.

    Returns what is kept: with the latest mark of erasure, which outlives what is said later.
    """
    key = user_id.encode()
    before = shard.row_of_user(rows.ATTRIBUTES + key)
    known = None if before is None else rows.decode_attributes(before)
    erased_ms = None if known is None else known.erased_ms
    slot = engine.users.peek_key(key)
    if user is not None and user.erased_ms is not None and (erased_ms is None or user.erased_ms > erased_ms):
        erased_ms = user.erased_ms
        shard.erase(key)
        if slot is not None:
            engine.users.erase(slot, erased_ms)
            slot = engine.users.peek_key(key)
    elif user is not None and user.erased_ms is not None and user.erased_ms != erased_ms and user != _mark(user):
        # Of before the erasure that is known, with the mark of one before it: it was written again while that one was on its way.
        user = known
    if erased_ms is not None:
        # It has to outlive what is said later, or an old event that comes again would be learned.
        user = msgspec.structs.replace(user or User(), erased_ms=erased_ms)
    shard.user_rows[rows.ATTRIBUTES + key] = None if user is None else rows.encode_attributes(user)
    if slot is not None:
        engine.users.segments[slot] = segments_of(user)
    return user


def _mark(user: User) -> User:
    """Their mark of erasure, and nothing else."""
    return User(erased_ms=user.erased_ms)
