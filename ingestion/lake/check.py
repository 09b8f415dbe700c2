"""Whether the lake has what the log has: records counted one by one, partition by partition.

Flows in: the lake, and the topics it was filled from. Flows out: for each partition the committed records that the log still has of
what the lake says it covers, and the rows, refused records and forgotten records that the lake has of the same offsets.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow.parquet as pq
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from infra.kafka_reader import committed_reader
from ingestion.lake.files import TOPICS, LakeFile, by_partition, holes, overlaps, refused_dataset, replaced
from ingestion.lake.store import Lake, Place
from ingestion.lake.tables import meta_of
from topics.specs import TopicsUnavailable

ANSWER_TIMEOUT_S = 30.0
_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE})


@dataclass
class Counted:
    """A partition, counted twice.

    Attributes
    ----------
    first, end : offsets that are compared: those of the lake's files that the log still has as wholes
    log : committed records there
    rows, refused, forgotten : of the lake there
    lost : offsets that the log had lost before the lake read them, ever
    behind : offsets that the lake has not read yet
    wrong : what is wrong with the files, in words
    """

    topic: str
    partition: int
    first: int = 0
    end: int = 0
    log: int = 0
    rows: int = 0
    refused: int = 0
    forgotten: int = 0
    lost: int = 0
    behind: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Records that the lake lacks; less than 0: that it has twice."""
        return self.log - self.rows - self.refused - self.forgotten

    @property
    def right(self) -> bool:
        """Whether both counts are equal, and nothing else is wrong."""
        return not self.missing and not self.wrong


def check(lake: Lake, bootstrap: str, going_on: Callable[[int, int], None] = lambda _done, _of: None) -> list[Counted]:
    """Compare the lake with the log; `going_on` is told how many records of the log are counted.

    Raises
    ------
    LakeError
        A file cannot be read.
    TopicsUnavailable
    """
    every = lake.files()
    twice = replaced(every)
    files = dict(by_partition(file for file in every if file not in twice))
    gaps = lake.gaps()
    found = []
    with _Log(bootstrap) as log:
        bounds = log.bounds(TOPICS)
        for place, (low, high) in bounds.items():
            counted = _count(lake, place, files, low)
            counted.lost = sum(last - first + 1 for where, first, last in gaps if where == place)
            end = max([counted.end, *(last + 1 for where, _, last in gaps if where == place)])
            counted.behind = max(0, high - end) if counted.end or counted.lost else high - low
            lost = [(first, last) for where, first, last in gaps if where == place]
            unexplained = [hole for hole in holes(files.get(place, [])) if hole not in lost and hole[1] >= low]
            if files.get(place) and (begin := files[place][0].first) > low:
                unexplained.insert(0, (low, begin - 1))
            counted.wrong += [f"no file has offsets {first} to {last}" for first, last in unexplained]
            counted.wrong += [
                f"{lake.folder.where(file.path)} is there twice: its rows are in a larger file too: `headrace lake compact`"
                for file in sorted(twice)
                if (file.dataset, file.partition) in (place, (refused_dataset(place[0]), place[1]))
            ]
            counted.wrong += [f"{file.path} overlaps with another" for file in overlaps(files.get(place, []))]
            found.append(counted)
        log.count({(c.topic, c.partition): c for c in found if c.end > c.first}, going_on)
    return found


def _count(lake: Lake, place: Place, files: Mapping[Place, list[LakeFile]], low: int) -> Counted:
    topic, partition = place
    counted = Counted(topic, partition)
    whole = [file for file in files.get(place, []) if file.first >= low]
    if not whole:
        counted.end = counted.first = max((file.last + 1 for file in files.get(place, [])), default=0)
        return counted
    counted.first, counted.end = whole[0].first, whole[-1].last + 1
    for file in whole:
        rows, forgotten = _read(lake, file, counted)
        counted.rows += rows
        counted.forgotten += forgotten
    for file in files.get((refused_dataset(topic), partition), []):
        if counted.first <= file.first and file.last < counted.end:
            rows, forgotten = _read(lake, file, counted)
            counted.refused += rows
            counted.forgotten += forgotten
    return counted


def _read(lake: Lake, file: LakeFile, counted: Counted) -> tuple[int, int]:
    """Rows of a file, and what was forgotten of it; complains if its offsets are not those of its name."""
    with lake.folder.open(file.path) as opened:
        parquet = pq.ParquetFile(opened)
        meta = meta_of(parquet, lake.folder.where(file.path))
        place = parquet.schema_arrow.get_field_index("kafka_offset")
        # Only flat columns have the place that they have in the schema.
        leaf = next(
            i for i in range(len(parquet.schema)) if parquet.schema.column(i).path == parquet.schema_arrow.names[place]
        )
        for group in range(parquet.metadata.num_row_groups):
            column = parquet.metadata.row_group(group).column(leaf)
            if column.num_values and not (file.first <= column.statistics.min and column.statistics.max <= file.last):
                counted.wrong.append(f"{file.path} has offsets beyond its name")
        return int(parquet.metadata.num_rows), meta.forgotten


class _Log:
    """Counts committed records."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._consumer = committed_reader(
            bootstrap,
            "headrace-lake-check",
            {
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": 32 * 1024,
            },
        )

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def bounds(self, topics: tuple[str, ...]) -> dict[Place, tuple[int, int]]:
        """First and next offset of each partition of the topics that exist."""
        try:
            found = self._consumer.list_topics(timeout=ANSWER_TIMEOUT_S).topics
            return {
                (topic, partition): self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=ANSWER_TIMEOUT_S
                )
                for topic in topics
                if topic in found
                for partition in sorted(found[topic].partitions)
            }
        except KafkaException as error:
            raise TopicsUnavailable(f"Kafka at {self._bootstrap}: {error.args[0].str()}") from error

    def count(self, wanted: dict[Place, Counted], going_on: Callable[[int, int], None]) -> None:
        """Count the records between `first` and `end` of each."""
        left = set(wanted)
        total, done = sum(each.end - each.first for each in wanted.values()), 0
        self._consumer.assign([TopicPartition(*place, wanted[place].first) for place in left])
        heard = time.monotonic()
        while left:
            messages = self._consumer.consume(5_000, timeout=0.05)
            for message in messages:
                place, error = (message.topic() or "", message.partition() or 0), message.error()
                if error is None:
                    if (message.offset() or 0) < wanted[place].end:
                        wanted[place].log += 1
                        done += 1
                    else:
                        left.discard(place)
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(place)
                elif not error.retriable() and error.code() not in _PASSING:
                    raise TopicsUnavailable(f"Kafka at {self._bootstrap}: {place[0]}[{place[1]}]: {error.str()}")
            going_on(done, total)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > ANSWER_TIMEOUT_S:
                raise TopicsUnavailable(f"Kafka at {self._bootstrap} gave nothing for {ANSWER_TIMEOUT_S:.0f} s")
