"""`headrace replay` of the past, on a broker: what a candidate would have listed, and versions as of a moment.

One broker and one log; tests go from the top, and the log grows once, before versions are built.
"""

import json
import logging
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from cli.canonical import digests_of, replayed
from cli.main import OPERATOR_ERRORS, app
from cli.replay import BadCandidate, ReplayError
from cli.snapshot import committed_rows
from cli.worker_process import worker_environment
from infra.embedded_kafka import EmbeddedKafka
from infra.settings import Settings
from ingestion.produce import produce_events, produce_users, produce_videos
from ingestion.simulate import Audience
from state.digest import digests
from state.rows import CUT_KEY, decode_cut
from tests.agents.running_worker import RunningWorker, handled
from topics.canonical_log import StoppingPoint
from topics.catalog import User
from topics.groups import committed, log_bounds
from topics.specs import INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS, ensure_topics, producer_config, specs
from topics.versions import known_versions, read_active, versions_spec

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

APP, PARTITIONS = "past", 2
INPUTS = (INTERACTIONS, VIDEOS, USERS, RECOMMENDATIONS)
FIRST, REST, BAD = 3_000, 800, 10


@dataclass
class Past:
    """A log, a folder, and the moment at which the log had its first part."""

    bootstrap: str
    home: Path
    then_ms: int = 0
    then: dict[str, str] | None = None

    @property
    def settings(self) -> Settings:
        return Settings(app=APP, partitions=PARTITIONS, home=self.home)

    @property
    def environment(self) -> dict[str, str]:
        return worker_environment(self.bootstrap, self.home, 1, {"app": APP, "partitions": PARTITIONS})

    def run(self, *arguments: str) -> str:
        """In a process of its own, as a worker is built in one."""
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def here(self, *arguments: str) -> Result:
        """In this process."""
        try:
            return CliRunner().invoke(app, arguments, env=self.environment)
        finally:
            logging.disable(logging.NOTSET)

    def replayed(self, *arguments: str) -> dict[str, Any]:
        done = self.here("replay", "--json", *arguments)
        assert done.exit_code == 0, (done.output, done.exception)
        return last_line(done.stdout)

    def compared(self, text: str, *arguments: str) -> dict[str, Any]:
        file = self.home / "candidate.yaml"
        file.write_text(text)
        return self.replayed("--compare", "--config", str(file), *arguments)

    def canonical(self, until: StoppingPoint) -> dict[str, str]:
        return digests_of(replayed(self.settings, self.bootstrap, until, forgetting=True))

    def digests(self, version: str) -> dict[str, str]:
        return digests(committed_rows(self.settings, self.bootstrap, version), INPUTS)

    def places(self, version: str) -> dict[int, int]:
        return committed(self.bootstrap, f"{APP}.{version}", PARTITIONS)[INTERACTIONS]

    def topics(self) -> dict[str, dict[int, int]]:
        return log_bounds(self.bootstrap, PARTITIONS, INPUTS)[1]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as kafka:
        ensure_topics(kafka.bootstrap, [*specs(APP, "v1", PARTITIONS), versions_spec(APP)])
        audience = Audience(3, 150, 150)
        produce_videos(kafka.bootstrap, list(audience.videos()))
        produce_users(kafka.bootstrap, [(f"u{i}", User(country="no" if i % 2 else "de")) for i in range(50)])
        produce_events(kafka.bootstrap, audience.events(FIRST))
        producer = Producer(producer_config(kafka.bootstrap))
        for number in range(BAD):
            producer.produce(INTERACTIONS, b'{"bad":%d}' % number, b"u%d" % number, number % PARTITIONS)
        producer.flush(10)
        yield Past(kafka.bootstrap, tmp_path_factory.mktemp("home"))


def test_a_candidate_that_is_the_live_configuration_differs_in_nothing(past: Past) -> None:
    before = past.topics()
    picture = past.home / "picture.png"
    found = past.compared("exploration: 0.05\n", "--plot", str(picture))
    assert found["verdict"] == "no difference seen"
    assert found["difference"] == {
        metric: {"value": 0.0, "se": 0.0, "low": 0.0, "high": 0.0} for metric in ("recall@10", "ndcg@10", "mrr")
    }
    assert found["arms"]["live"] == found["arms"]["candidate"]
    assert found["coverage"]["live"] == found["coverage"]["candidate"] > 0
    assert found["n"] > 200
    assert found["arms"]["live"]["recall@10"] > 0.1
    assert found["events"] == FIRST + BAD
    assert picture.read_bytes().startswith(b"\x89PNG")
    # It has read, and that is all.
    assert past.topics() == before
    assert not any(each.name.startswith("replay-") for each in past.home.iterdir())
    assert read_active_version(past) is None


def test_a_candidate_that_lists_the_last_first_is_found_worse(past: Past) -> None:
    found = past.compared("objective: choice=-1,like=0.001\n", "--lists", "300")
    assert found["verdict"] == "worse"
    assert found["difference"]["recall@10"]["high"] < 0
    assert 200 < found["n"] <= 300
    assert found["changed"] == {"objective": "choice=-1,like=0.001"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say one of"),
        (("--from-beginning", "--canonical"), "say one of"),
        (("--compare",), "belong together"),
        (("--config", "x.yaml"), "belong together"),
        (("--config", "x.yaml", "--compare", "--version", "v9"), "--compare builds none"),
        (("--from-beginning", "--since", "2026-01-01"), "--since and --plot are for"),
        (("--canonical", "--until", "noon"), "--until 'noon' is no time"),
    ],
)
def test_what_does_not_go_together_is_refused(past: Past, arguments: tuple[str, ...], said: str) -> None:
    done = past.here("replay", *arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def test_a_candidate_that_is_none_is_told_before_anything_is_read(past: Past) -> None:
    file = past.home / "bad.yaml"
    file.write_text("partitions: 3")
    done = past.here("replay", "--config", str(file), "--compare")
    assert isinstance(done.exception, BadCandidate)
    assert isinstance(done.exception, OPERATOR_ERRORS)


@pytest.fixture(scope="module")
def grown(past: Past) -> Past:
    """The same when a worker has learned the first part and saved it, and the log has gone on since."""
    past.then = past.canonical(StoppingPoint())
    with RunningWorker(past.bootstrap, past.home, APP, partitions=PARTITIONS) as worker:
        worker.wait(lambda totals: handled(totals) >= FIRST + BAD, 90)
        # The next record arrives later by the broker's clock, which is this machine's.
        time.sleep(0.3)
        past.then_ms = int(time.time() * 1000)
        time.sleep(0.05)
        past.run("models", "save")
        produce_events(past.bootstrap, list(Audience(3, 150, 150).events(FIRST + REST))[FIRST:])
        worker.wait(lambda totals: handled(totals) >= FIRST + BAD + REST, 60)
        # All evidence of it is committed when the group has come to the end.
        deadline = time.monotonic() + 20
        while sum(past.places("v1").values()) < FIRST + BAD + REST and time.monotonic() < deadline:
            time.sleep(0.1)
        assert worker.stop() == 0
    return past


def test_a_canonical_version_as_of_a_time_is_what_a_digest_of_then_says(grown: Past) -> None:
    done = grown.replayed("--canonical", "--until", str(grown.then_ms), "--version", "then")
    assert done["events"] == FIRST + BAD
    assert grown.digests("then") == grown.then
    places = {topic: {int(each): end for each, end in ends.items()} for topic, ends in done["places"].items()}
    assert grown.canonical(StoppingPoint(places=places)) == grown.then
    # Nobody serves it.
    assert read_active_version(grown) is None


def test_a_worker_goes_on_from_there_and_stops_where_it_is_told(grown: Past) -> None:
    before, cut = grown.places("then"), cut_of(grown)
    assert sum(before.values()) < sum(cut.values())
    grown.run("replay", "--from-beginning", "--version", "then", "--offsets", json.dumps({INTERACTIONS: cut}))
    assert grown.places("then") == cut
    totals = Counter[str]()
    for (_, key), row in committed_rows(grown.settings, grown.bootstrap, "then").items():
        if key == CUT_KEY:
            totals.update(decode_cut(row).totals)
    assert handled(totals) == sum(cut.values())
    assert totals["dead"] == BAD


def test_a_version_from_a_snapshot_goes_no_further_than_it_is_told(grown: Past) -> None:
    cut = cut_of(grown)
    done = last_line(
        grown.run(
            "replay",
            "--json",
            "--from-snapshot",
            "latest",
            "--version",
            "saved",
            "--offsets",
            json.dumps({INTERACTIONS: cut}),
        )
    )
    assert done["version"] == "saved"
    assert grown.places("saved") == cut
    assert read_active_version(grown) is None
    again = grown.here("replay", "--from-snapshot", "latest", "--version", "saved")
    assert "there is a version saved" in str(again.exception)
    early = grown.here(
        "replay", "--from-snapshot", "latest", "--version", "early", "--until", str(grown.then_ms - 60_000)
    )
    assert isinstance(early.exception, ReplayError)
    assert "beyond" in str(early.exception)
    assert "early" not in known_versions(grown.bootstrap, APP)


def test_a_canonical_version_of_all_takes_over(grown: Past) -> None:
    done = last_line(grown.run("replay", "--json", "--canonical", "--version", "all"))
    assert (done["events"], done["then"]["events"]) == (FIRST + BAD + REST, 0)
    assert grown.digests("all") == grown.canonical(StoppingPoint())
    assert read_active_version(grown) == "all"


def cut_of(past: Past) -> dict[int, int]:
    """Offsets before the end."""
    return {partition: end - 100 for partition, end in past.topics()[INTERACTIONS].items()}


def last_line(said: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def read_active_version(past: Past) -> str | None:
    active = read_active(past.bootstrap, APP)
    return None if active is None else active.version
