"""Users who were erased leave the lake: files are written once more without what they did before.

Flows in: the lake, and marks of erasures from the topic `users`. Flows out: the same files, with fewer rows. Always holds: a file has
its old rows or its new ones; it says how many went (`Meta.forgotten`), so that the rest can still be counted against the log. What
has been done is written down last (`_forgotten.json`: places in topics, no user), so a crash only means that files are read again.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ingestion.lake.compact import whole
from ingestion.lake.errors import LakeError
from ingestion.lake.files import LakeFile
from ingestion.lake.store import Lake
from ingestion.lake.tables import GROUP_ROWS, RowFile, meta_of
from topics.erasures import Erasures

_STATE = "_forgotten.json"
#: A value that is no JSON may still name somebody.
_USER = re.compile(rb'"user_id"\s*:\s*"([^"\\]{1,512})"')
_AT = re.compile(rb'"at_ms"\s*:\s*(\d{1,18})')
_LATER = np.iinfo(np.int64).max

#: Reads the marks of `users` from an offset of each partition to one, by partition.
ReadErasures = Callable[[Mapping[int, tuple[int, int]]], Erasures]


class Done(msgspec.Struct, frozen=True):
    """What has been forgotten.

    Attributes
    ----------
    users : next offset of `users` by partition; marks before it are applied
    files : last offset by dataset and partition; files up to it have had them applied
    """

    users: dict[str, int] = {}
    files: dict[str, int] = {}
    format: int = 1


def forget(
    lake: Lake,
    files: list[LakeFile],
    bounds: Mapping[int, tuple[int, int]],
    read: ReadErasures,
    *,
    all_: bool = False,
    going_on: Callable[[int, int], None] = lambda _done, _of: None,
) -> tuple[int, int]:
    """Rewrite files without erased users.

    Parameters
    ----------
    files : that there are
    bounds : first and next offset of `users` by partition, as they are after the files were listed
    read : reads marks
    all_ : look into every file for every user, whatever was done before
    going_on : told how many of the files are done

    Returns
    -------
    How many rows went, and out of how many files.
    """
    done = Done() if all_ else _done(lake)
    everyone = read(bounds)
    # A place beyond the end is one of a topic that was made anew.
    since = {p: (max(low, _place(done.users.get(str(p), 0), high)), high) for p, (low, high) in bounds.items()}
    lately = read(since)
    gone = touched = 0
    files = whole(lake, files)
    for number, file in enumerate(files):
        going_on(number, len(files))
        erased = lately if file.last <= done.files.get(_key(file), -1) else everyone
        rows = _rewrite(lake, file, erased) if len(erased) else 0
        gone += rows
        touched += rows > 0
    reached: dict[str, int] = {}
    for file in files:
        reached[_key(file)] = max(reached.get(_key(file), -1), file.last)
    state = Done({str(p): high for p, (_, high) in bounds.items()}, reached)
    lake.folder.write(_STATE, msgspec.json.encode(state))
    return gone, touched


def _place(done: int, high: int) -> int:
    return done if done <= high else 0


def _key(file: LakeFile) -> str:
    return f"{file.dataset}/{file.partition}"


def _done(lake: Lake) -> Done:
    try:
        return msgspec.json.decode(lake.folder.read(_STATE), type=Done)
    except FileNotFoundError:
        return Done()
    except msgspec.MsgspecError as error:
        raise LakeError(
            f"{lake.folder.where(_STATE)} cannot be read ({error}): remove it; all files are looked into once more"
        ) from error


def _rewrite(lake: Lake, file: LakeFile, erased: Erasures) -> int:
    """Write a file once more without what erased users did; returns how many rows went."""
    with lake.folder.open(file.path) as opened:
        found = pq.ParquetFile(opened)
        meta = meta_of(found, lake.folder.where(file.path))
        names = [
            name for name in ("user_id", "at_ms", "key", "value", "kafka_timestamp") if name in found.schema_arrow.names
        ]
        if not any(_of_erased(batch, erased).any() for batch in found.iter_batches(GROUP_ROWS, columns=names)):
            return 0
        gone = 0
        with lake.folder.workspace("rewrite") as work:
            path = work / "part"
            with RowFile(path, found.schema_arrow) as into:
                for batch in found.iter_batches(GROUP_ROWS):
                    erasing = _of_erased(batch, erased)
                    gone += int(erasing.sum())
                    into.add(batch.filter(pa.array(~erasing)))
                into.finish(msgspec.structs.replace(meta, forgotten=meta.forgotten + gone))
            lake.folder.publish(path, file.path)
    return gone


def _of_erased(batch: "pa.RecordBatch", erased: Erasures) -> NDArray[np.bool_]:
    """Which rows are of what erased users did, or sent, before their marks; bool, shape (n,)."""
    arrived = _ms(batch.column("kafka_timestamp"))
    if "user_id" in batch.schema.names:
        ids = batch.column("user_id").dictionary_encode()
        until = erased.until([each.encode() for each in ids.dictionary.to_pylist()])
        if not len(until):
            return np.zeros(len(batch), np.bool_)
        return np.asarray(np.minimum(_ms(batch.column("at_ms")), arrived) <= until[ids.indices.to_numpy()])
    keys, values = batch.column("key").to_pylist(), batch.column("value").to_pylist()
    named, at_ms = zip(*(_named(value) for value in values), strict=True) if values else ((), ())
    until = np.maximum(erased.until(keys), erased.until(named))
    return np.asarray(np.minimum(np.array(at_ms, np.int64), arrived) <= until)


def _ms(column: Any) -> NDArray[np.int64]:
    return np.asarray(pc.cast(column, pa.int64()).to_numpy(zero_copy_only=False), np.int64)


def _named(value: bytes | None) -> tuple[bytes | None, int]:
    """Whom bytes that were refused name, and when it was; `_LATER` if they do not say."""
    if not value:
        return None, _LATER
    try:
        found = msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        user, at = _USER.search(value), _AT.search(value)
        return (user.group(1) if user else None), (int(at.group(1)) if at else _LATER)
    if not isinstance(found, dict):
        return None, _LATER
    named, at_ms = found.get("user_id"), found.get("at_ms")
    return (
        named.encode(errors="replace") if isinstance(named, str) else None,
        at_ms if isinstance(at_ms, int) and 0 <= at_ms < _LATER else _LATER,
    )
