"""A worker that has learned a log of a simulated audience's events, and all that it takes to ask it and to watch it.

A number of videos flows in; a `headrace worker` with default settings flows out, alone on its core, whose users have histories. What
it has learned stands still when it is handed over, and the graph index, where the catalogue is large enough for one, is filled.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from urllib.parse import quote

from bench.contender import Contender, Run
from bench.freshness import STALL_S, learn_backlog
from bench.full_learning import COMMAND, HOST, environment
from bench.meters import Meters, Reading
from bench.workload import PARTITIONS, SEED, USERS
from bench.wrk import Load
from cli.worker_client import WorkerClient, WorkerUnavailable
from infra.embedded_kafka import EmbeddedKafka
from infra.kafka_probe import free_port
from ingestion.produce import produce_events, produce_videos
from ingestion.simulate import Audience
from state.index import EXACT_BELOW
from topics.interactions import Interaction
from topics.specs import ensure_topics, specs

#: Names the worker's version: each has a broker of its own.
IDENTITY = "serving"
#: Length of the lists that are asked for.
N = 10
#: Share of the videos that are in the index before it counts as filled. At an eighth of a core, 100,000 rows take minutes.
FILLED, FILL_S = 0.99, 1_800.0
#: Nothing has come, and all is learned, for so long: requests that were broken off have ended.
STILL_S = 0.5


@dataclass
class WarmWorker:
    """What is measured, and what it takes.

    Attributes
    ----------
    contender : the process
    events : of the audience, those that come next
    asked : how many users are asked for
    index_rows : in the graph when it was filled, in `index_s`; 0 where there is no need for one
    """

    bootstrap: str
    folder: Path
    url: str
    contender: Contender
    client: WorkerClient
    meters: Meters
    events: Iterator[Interaction]
    paths: Path
    asked: int
    index_rows: int = 0
    index_s: float = 0.0

    def __post_init__(self) -> None:
        self._seeds = count(1)

    def lists(self) -> Load:
        """Requests for lists of random users; others each time."""
        return Load("wrk_lists.lua", (str(self.paths), str(next(self._seeds))))

    def drain(self) -> Reading:
        """Wait until all that is in the log is learned, and nothing more comes. Raises ContenderFailed."""
        deadline = time.monotonic() + STALL_S
        before = self.meters.read()
        while True:
            self.contender.check()
            time.sleep(STILL_S)
            reading = self.meters.read()
            if reading.sent == reading.learned == before.sent:
                return reading
            if reading.learned > before.learned:
                deadline = time.monotonic() + STALL_S
            if time.monotonic() > deadline:
                raise self.contender.failed(f"{reading.sent} events in the log, {reading.learned} learned")
            before = reading

    def fill_index(self, videos: int) -> None:
        """Wait until the graph has the catalogue, if it is one for which there is a graph. Raises ContenderFailed."""
        began = time.monotonic()
        while videos > EXACT_BELOW and self.index_rows < FILLED * videos:
            self.contender.check()
            self.index_s = time.monotonic() - began
            if self.index_s > FILL_S:
                raise self.contender.failed(
                    f"{self.index_rows} of {videos} videos are in the index after {FILL_S:.0f} s"
                )
            time.sleep(1.0)
            self.index_rows = int(self.client.gauge("headrace_index_rows"))


@contextlib.contextmanager
def warm_worker(
    broker: EmbeddedKafka, folder: Path, videos: int, events: int, cores: tuple[int, int]
) -> Iterator[WarmWorker]:
    """Start a worker, and let it learn so many events of an audience with so many videos.

    Parameters
    ----------
    folder : for its state and output; empty
    cores : the worker's, and that of all else, this process too

    Raises
    ------
    ContenderFailed
        It ended, stood still or started anew, before the block or in it.
    """
    bootstrap = broker.bootstrap
    audience = Audience(SEED, USERS, videos)
    stream = audience.events(2**62)
    ensure_topics(bootstrap, specs("headrace", IDENTITY, PARTITIONS))
    produce_videos(bootstrap, audience.videos())
    # Who is in the log has come, and so may ask; a list for a stranger is another matter, and a quicker one.
    users: set[str] = set()

    def noted() -> Iterator[Interaction]:
        for event in islice(stream, events):
            users.add(event.user_id)
            yield event

    produce_events(bootstrap, noted())
    paths = folder / "paths"
    paths.write_text("".join(f"/v1/recommend/{quote(user, safe='')}?n={N}\n" for user in sorted(users)))
    setup = Run(bootstrap, IDENTITY, folder, events, cores[0], STALL_S, STALL_S)
    port = free_port(HOST)
    url = f"http://{HOST}:{port}"
    client = WorkerClient(url)
    with Contender(setup, COMMAND, environment(setup, port)) as contender, contextlib.closing(client):
        learn_backlog(contender, setup, client)
        with Meters(bootstrap, client, (contender.pid, broker.pid), cores) as meters:
            worker = WarmWorker(bootstrap, folder, url, contender, client, meters, stream, paths, len(users))
            try:
                worker.fill_index(videos)
                yield worker
            except WorkerUnavailable as error:
                raise contender.failed(str(error)) from error
        contender.end()
        if b"worker restarts" in contender.log_file.read_bytes():
            raise contender.failed("it restarted")
