"""Shards that move between two live workers in mid-stream, as one joins and one leaves; then a recount of the log."""

import threading
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from cli.committed import latest, read_committed
from cli.recount import Recount
from cli.worker_process import handled
from infra.embedded_kafka import EmbeddedKafka
from ingestion.produce import produce_events
from ingestion.simulate import Audience
from state import rows
from state.users import DUPLICATE, KINDS
from tests.agents.running_worker import RunningWorker
from topics.evidence import SHOWN
from topics.interactions import Interaction, decode_value
from topics.specs import INTERACTIONS, changelog_topic, ensure_topics, specs

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

APP, VERSION, PARTITIONS = "moving", "v1", 4


def test_counts_survive_a_worker_that_joins_and_one_that_leaves(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "kafka") as kafka:
        bootstrap = kafka.bootstrap
        ensure_topics(bootstrap, specs(APP, VERSION, PARTITIONS))
        events = list(Audience(3, 400, 300).events(16_000))
        produce_events(bootstrap, events[:3_000])
        rest = threading.Thread(target=produce_events, args=(bootstrap, events[3_000:]))
        first, second = (RunningWorker(bootstrap, tmp_path / name, APP, partitions=PARTITIONS) for name in "ab")
        with first:
            first.wait(lambda totals: handled(totals) > 1_000)
            rest.start()
            with second:
                # Its first totals mean that it owns shards: all of them were given up and dealt out again.
                second.wait(lambda totals: handled(totals) > 500, 40)
                assert first.stop() == 0, first.log
                rest.join()
                second.wait(lambda totals: handled(totals) == len(events), 40)
                await_videos(bootstrap, second, events)
                assert second.stop() == 0, second.log
        assert "the worker stops" not in first.log + second.log
        check(bootstrap, read_committed(bootstrap, INTERACTIONS))


def await_videos(bootstrap: str, worker: RunningWorker, events: list[Interaction]) -> None:
    """Wait until no evidence is under way."""
    expected = len(events) - worker.totals().get("duplicate", 0)
    worker.wait(lambda _: sum(int(row["counts"][:SHOWN].sum()) for row in videos(bootstrap).values()) >= expected, 15)


def videos(bootstrap: str) -> dict[str, Any]:
    items = latest(read_committed(bootstrap, changelog_topic(APP, VERSION, "items")))
    return {key[2:].decode(): rows.read_item(value) for (_, key), value in items.items() if key[:2] == rows.ITEM}


def check(bootstrap: str, log: list[Message]) -> None:
    recount = Recount(decode_value(record.value() or b"") for record in log)
    users = latest(read_committed(bootstrap, changelog_topic(APP, VERSION, "users")))
    cuts = [rows.decode_cut(value) for (_, key), value in users.items() if key == rows.CUT_KEY]
    assert sum(cut.totals.get("duplicate", 0) for cut in cuts) == recount.outcomes[DUPLICATE]
    stored = {key[2:].decode(): rows.read_user(value) for (_, key), value in users.items() if key[:2] == rows.USER}
    assert stored.keys() == recount.users.keys()
    for user_id, plain in recount.users.items():
        assert stored[user_id]["counts"].tolist() == [plain.counts[kind] for kind in range(KINDS)], user_id
        assert stored[user_id]["history"] == plain.history, user_id
    counted = videos(bootstrap)
    for video_id in {video_id for video_id, _ in recount.items}:
        expected = [recount.items[video_id, kind] for kind in range(KINDS)]
        assert counted[video_id]["counts"].tolist() == expected, video_id
        assert counted[video_id]["plays"] == recount.plays[video_id], video_id
