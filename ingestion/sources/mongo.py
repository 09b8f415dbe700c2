"""A collection of MongoDB, read in the order of a watermark and `_id`: with any server, a replica set or not.

As `sql`: documents beyond the stored watermark, or with equal watermark and a greater `_id`; no further than the greatest watermark of
`lag_s` ago, as `_id`s and times are made by clients before their writes are seen.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pymongo
from bson import json_util
from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError

from ingestion.sources.batch import Batch, Positions, Row, SourceError, SourceUnavailable

BATCH_ROWS: Final = 1_000
_SELECT_MS: Final = 10_000
_UNAUTHORIZED: Final = frozenset({13, 18})  # codes of MongoDB: no right to, and a wrong password


class Collection:
    """A collection of a server: what both ways of reading it share.

    Parameters
    ----------
    uri : `mongodb://...`, with the database's name in it unless `database` has it
    collection : its name
    id_columns : read for a comparison of keys, beside `_id`
    """

    def __init__(
        self, uri: str, collection: str, *, database: str | None = None, id_columns: Sequence[str] = ()
    ) -> None:
        try:
            self.client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
                uri, tz_aware=True, serverSelectionTimeoutMS=_SELECT_MS, appname="headrace"
            )
            try:
                found = self.client.get_default_database(database)
            except ConfigurationError:
                self.client.close()
                raise
        except (InvalidURI, ConfigurationError) as error:
            raise SourceError(f"the address of MongoDB: {error}; it is mongodb://HOST:PORT/DATABASE") from error
        # Majority: what a new primary may take back has not been read.
        self.documents = found.get_collection(collection, read_concern=pymongo.read_concern.ReadConcern("majority"))
        self._id_columns = id_columns

    def identity(self, order: str) -> dict[str, str]:
        """The collection's full name; the server's may change."""
        return {"collection": self.documents.full_name, "order": order}

    def present(self) -> Iterator[Row]:
        """All documents, by id alone."""
        with asked():
            for document in self.documents.find({}, dict.fromkeys(["_id", *self._id_columns], 1)):
                yield row(document)

    def require_one_type(self, field: str) -> None:
        """MongoDB compares values of one type alone: whoever reads on from one of another type would pass over all of them."""
        ends = [self.documents.find_one({}, {field: 1}, sort=[(field, way)]) for way in (1, -1)]
        least, greatest = (None if end is None else end.get(field) for end in ends)
        if not _comparable(least, greatest):
            raise SourceError(
                f"{field} in {self.documents.full_name} is of more than one type ({type(least).__name__} and"
                f" {type(greatest).__name__}), which have no common order"
            )

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def close(self) -> None:
        """Close connections."""
        self.client.close()


class MongoSource(Collection):
    """Documents by watermark.

    Parameters
    ----------
    uri, collection, database, id_columns : see `Collection`
    watermark : field that grows with every change; None: documents never change, and `_id` grows
    lag_s : the longest time from a watermark's making to its being seen, the clients' clocks included
    """

    def __init__(
        self,
        uri: str,
        collection: str,
        *,
        database: str | None = None,
        watermark: str | None = "updated_at",
        id_columns: Sequence[str] = (),
        lag_s: float = 5.0,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        super().__init__(uri, collection, database=database, id_columns=id_columns)
        self._order = ["_id"] if watermark in (None, "_id") else [str(watermark), "_id"]
        self._lag_s, self._batch_rows = lag_s, batch_rows

    @property
    def identity(self) -> Mapping[str, str]:  # type: ignore[override] # a property here, as every source has it
        """Collection and order."""
        return super().identity(", ".join(self._order))

    def batches(self, positions: Positions) -> Iterator[Batch]:
        """Documents beyond the position, in order, up to what is settled."""
        with asked():
            first = self._order[0]
            after = None if "" not in positions else [from_json(each) for each in positions[""]]
            greatest = self.documents.find_one({}, {first: 1}, sort=[(first, pymongo.DESCENDING)])
            if greatest is None:
                return
            self._require_watermarks(first)
            for name in self._order:
                self.require_one_type(name)
            time.sleep(self._lag_s)
            while True:
                where: dict[str, Any] = {first: {"$lte": greatest[first]}}
                if after is not None:
                    where = {"$and": [where, self._beyond(after)]}
                found = list(
                    self.documents.find(where).sort([(name, 1) for name in self._order]).limit(self._batch_rows)
                )
                if not found:
                    return
                after = [found[-1][name] for name in self._order]
                yield Batch([row(each) for each in found], {"": [to_json(each) for each in after]})
                if len(found) < self._batch_rows:
                    return

    def _beyond(self, after: Sequence[Any]) -> dict[str, Any]:
        first, last = self._order[0], self._order[-1]
        if first == last:
            return {first: {"$gt": after[0]}}
        return {"$or": [{first: {"$gt": after[0]}}, {first: after[0], last: {"$gt": after[1]}}]}

    def _require_watermarks(self, first: str) -> None:
        """Documents without a watermark would never be read, and nobody would be told."""
        missing = self.documents.count_documents({first: None}, limit=1_000)
        if missing:
            raise SourceError(
                f"{missing} documents of {self.documents.full_name} have no {first}, and so no place in its order: set it, or name"
                " another field with --watermark"
            )


def row(document: Mapping[str, Any]) -> Row:
    """A document as a row."""
    return Row(str(document["_id"]), document)


def to_json(value: Any) -> Any:
    """Any value of BSON as MongoDB's extended JSON."""
    return json.loads(json_util.dumps(value, json_options=json_util.CANONICAL_JSON_OPTIONS))


def from_json(value: Any) -> Any:
    """The value that `to_json` has stored."""
    options = json_util.CANONICAL_JSON_OPTIONS.with_options(tz_aware=True)
    return json_util.loads(json.dumps(value), json_options=options)


@contextlib.contextmanager
def asked() -> Iterator[None]:
    """Errors of MongoDB as those of a source."""
    try:
        yield
    except OperationFailure as error:
        if error.code in _UNAUTHORIZED:
            raise SourceError(f"MongoDB refuses: {error.details and error.details.get('errmsg')}") from error
        raise SourceUnavailable(f"MongoDB does not do what was asked: {error}") from error
    except PyMongoError as error:
        raise SourceUnavailable(f"MongoDB does not answer: {str(error)[:300]}") from error


def _comparable(one: Any, other: Any) -> bool:
    numbers = (int, float)
    return type(one) is type(other) or (isinstance(one, numbers) and isinstance(other, numbers))
