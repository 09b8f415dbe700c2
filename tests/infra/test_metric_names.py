"""What the dashboard, the alerts and the autoscaler name is there: a live worker is scraped, and each metric and label looked for."""

import re
import time
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infra.kafka_probe import free_port
from ingestion.produce import produce_events, produce_videos
from ingestion.simulate import Audience
from tests.agents.running_worker import HOST, RunningWorker
from tests.infra.promql import grouped, queries, selected
from topics.catalog import Video
from topics.interactions import Interaction

pytestmark = pytest.mark.broker
READY_TIMEOUT_S = 90.0
#: What Prometheus itself adds to every sample, and a cluster's scraping: no worker knows of it.
OF_PROMETHEUS = {"job", "instance", "namespace", "pod"}
#: Counted by outcome, and a worker alone has none: it is there by name only.
OF_SEVERAL_WORKERS = {"headrace_hops_total": {"outcome": ""}}
Samples = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def scraped(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samples]:
    """Label sets of all samples by name, of a worker that has learned something, answered, and refused an event."""
    port = free_port(HOST)
    with RunningWorker(
        bootstrap, tmp_path_factory.mktemp("worker"), "metric-names", metrics_port=port, scoring_share=1
    ) as worker:
        worker.wait(lambda _: "worker ready" in worker.log, READY_TIMEOUT_S)
        audience = Audience(1, 30, 60)
        produce_videos(bootstrap, [(name, Video(title=video.title)) for name, video in audience.videos()])
        produce_events(bootstrap, _now(audience.events(2_000)))
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            urllib.request.urlopen(f"http://{HOST}:{worker.port}/v1/recommend/user-1", timeout=5).close()
            found = scrape(port)
            if all(name in found for name in ("headrace_online_recall", "headrace_dead_letters")):
                yield found
                return
            time.sleep(0.2)
        raise AssertionError(worker.log[-3000:])


def _now(events: Iterator[Interaction]) -> Iterator[Interaction]:
    """With the time of sending; the last one is of the day after tomorrow, and refused."""
    now_ms = int(time.time() * 1000)
    for event in events:
        yield Interaction(f"metrics-{event.event_id}", event.user_id, event.video_id, event.event, now_ms)
    yield Interaction("metrics-late", "user-1", "video-1", "like", now_ms + 2 * 86_400_000)


def scrape(port: int) -> Samples:
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    for name, labels in OF_SEVERAL_WORKERS.items():
        if f"# TYPE {name} counter\n" in text:
            found.setdefault(name, [labels])
    return found


@pytest.mark.parametrize(("where", "query", "legend"), list(queries()))
def test_what_a_query_names_is_there(scraped: Samples, where: str, query: str, legend: str) -> None:
    named = list(selected(query))
    assert named or query.startswith(("up", "sum(up")), f"{where} asks for nothing of ours: {query}"
    for name, matchers in named:
        labels = scraped.get(name)
        assert labels, f"{where}: a worker has no {name}"
        for label, operator, value in matchers:
            if label in OF_PROMETHEUS or operator not in ("=", "=~"):
                continue
            fits = [each for each in labels if _fits(each.get(label), operator, value)]
            assert fits or _comes_with_failures(label, value), f"{where}: no {name} has {label}{operator}{value!r}"
    known = {label for name, _ in named for each in scraped[name] for label in each} | OF_PROMETHEUS
    assert grouped(query, legend) - known == set(), f"{where} groups by what is not there"


def _fits(found: str | None, operator: str, value: str) -> bool:
    return found is not None and (found == value if operator == "=" else re.fullmatch(value, found) is not None)


def _comes_with_failures(label: str, value: str) -> bool:
    """A status that a healthy worker has no sample of."""
    return (label, value) == ("status", "5xx")
