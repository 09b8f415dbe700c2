"""A collection of MongoDB by its change stream: of a replica set or a sharded cluster, changes and deletions as they happen.

The first time, the server's time is noted, and all documents are copied in the order of `_id`; then the stream is read
from that time on: what changed during the copy comes again, as it is then, and an event that was added meanwhile may come again with
its id. Position: that time or the token of a change, and how far the copy is.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure

from ingestion.sources.batch import Batch, Positions, Row, SourceError
from ingestion.sources.mongo import BATCH_ROWS, Collection, asked, from_json, row, to_json

#: How long the stream waits for something new before it says that there is nothing.
_AWAIT_MS: Final = 500
_HISTORY_LOST: Final = frozenset({280, 286})
_NO_REPLICA_SET: Final = frozenset({40573})
_OVER: Final = frozenset({"drop", "rename", "dropDatabase", "invalidate"})
_CHANGED: Final = frozenset({"insert", "update", "replace"})


class MongoChanges(Collection):
    """Documents by change stream; see `Collection` for what else it takes.

    Parameters
    ----------
    events : documents are events: only new ones count, as an event is not changed
    """

    def __init__(
        self,
        uri: str,
        collection: str,
        *,
        database: str | None = None,
        events: bool = False,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        super().__init__(uri, collection, database=database)
        self._taken = frozenset({"insert"}) if events else _CHANGED
        self._batch_rows = batch_rows

    @property
    def identity(self) -> Mapping[str, str]:  # type: ignore[override] # a property here, as every source has it
        """Collection and way of reading."""
        return super().identity("change stream")

    def batches(self, positions: Positions) -> Iterator[Batch]:
        """The rest of the copy, then what the stream has."""
        with asked():
            stored = positions.get("")
            position: dict[str, Any] = {"token": self._now(), "copied": None} if stored is None else dict(stored)
            if not position.get("whole"):
                self.require_one_type("_id")
                for batch in self._copy(position):
                    position = batch.positions[""]
                    yield batch
            yield from self._changes(from_json(position["token"]))

    def _copy(self, position: Mapping[str, Any]) -> Iterator[Batch]:
        after = position["copied"]
        while True:
            where = {} if after is None else {"_id": {"$gt": from_json(after)}}
            found = list(self.documents.find(where).sort("_id", 1).limit(self._batch_rows))
            whole = len(found) < self._batch_rows
            after = to_json(found[-1]["_id"]) if found else after
            yield Batch(
                [row(each) for each in found], {"": {"token": position["token"], "copied": after, "whole": whole}}
            )
            if whole:
                return

    def _now(self) -> Any:
        """The server's time, from which on the stream will have what changes."""
        told = self.client.admin.command("isMaster")
        # No replica set has no such time, and no change streams either, which its answer to the first request will say.
        last = told.get("operationTime")
        if last is None:
            return to_json(Timestamp(int(told["localTime"].timestamp()), 0))
        return to_json(Timestamp(last.time, last.inc + 1))  # behind the last operation, which the copy has

    def _changes(self, token: Any) -> Iterator[Batch]:
        with self._watch(token) as stream:
            while True:
                rows: list[Row] = []
                start, change = token, None
                while len(rows) < self._batch_rows:
                    change = self._next(stream)
                    if change is None or change["operationType"] in _OVER:
                        break
                    self._take(rows, change)
                    token = change["_id"]
                if change is None and stream.resume_token is not None:
                    token = stream.resume_token  # what others do in the database moves it on too
                if token != start:
                    yield Batch(rows, {"": {"token": to_json(token), "whole": True}})
                if change is None:
                    return
                if change["operationType"] in _OVER:
                    raise SourceError(
                        f"{self.documents.full_name} was dropped or renamed: its change stream is over, and nothing was deleted for it"
                    )

    def _next(self, stream: Any) -> Any:
        try:
            return stream.try_next()
        except OperationFailure as error:
            self._explain(error)

    def _take(self, rows: list[Row], change: Mapping[str, Any]) -> None:
        if change["operationType"] in self._taken:
            document = change.get("fullDocument")
            # None: it is deleted by now, which the stream will say.
            if document is not None:
                rows.append(row(document))
        elif change["operationType"] == "delete":
            rows.append(Row(str(change["documentKey"]["_id"]), {}, deleted=True))

    def _watch(self, token: Any) -> Any:
        try:
            return self.documents.watch(
                full_document="updateLookup",
                resume_after=None if isinstance(token, Timestamp) else token,
                start_at_operation_time=token if isinstance(token, Timestamp) else None,
                max_await_time_ms=_AWAIT_MS,
                batch_size=self._batch_rows,
            )
        except OperationFailure as error:
            self._explain(error)

    def _explain(self, error: OperationFailure) -> NoReturn:
        if error.code in _HISTORY_LOST:
            raise SourceError(
                f"MongoDB no longer has the changes since {self.documents.full_name} was read last: its oplog is too short for the"
                " time away. `headrace pull forget` and a new copy, with --compare for what was deleted meanwhile"
            ) from error
        if error.code in _NO_REPLICA_SET:
            raise SourceError(
                "this MongoDB is no replica set and has no change streams: read it by --watermark, or start it with --replSet"
            ) from error
        raise error
